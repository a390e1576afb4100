//! Messages as the workers of 2012 wrote them, and what is odd in them.

use proptest::prelude::*;

use super::*;

fn decoded(kind: &str, body: &str) -> (Message, String) {
    let mut refusals = Refusals::default();
    let (_, message) = decode(&[kind.as_bytes(), body.as_bytes()], &mut refusals);
    (message, refusals.text())
}

/// A line a sample, in the words of Prometheus.
fn lines(message: &Message) -> Vec<String> {
    let Message::Points(points) = message else { panic!("{message:?}") };
    let line = |point: &Point| {
        let labels = point.labels();
        assert!(labels.is_sorted() && labels.iter().all(|(_, value)| !value.is_empty()));
        let labels = labels.iter().skip(1).map(|(name, value)| format!("{name}={value}"));
        let Sample { timestamp_ms, value, .. } = point.sample;
        format!(
            "{}{{{}}} {value} {timestamp_ms}",
            point.metric,
            labels.collect::<Vec<_>>().join(",")
        )
    };
    points.iter().map(line).collect()
}

fn check(kind: &str, body: &str, expected: &[&str], refused: &str) {
    let (message, said) = decoded(kind, body);
    assert_eq!(lines(&message), expected, "{body}");
    assert_eq!(said, refused, "{body}");
}

/// kanyun-legacy.md, "worker → server", and the host of its last section.
const VM_INFO: &str = r#"{"instance-000000ba@sws-yz-5": [["cpu","total",[1332409327, 130.48]],
    ["mem","total",[1332409327, 4194304, 0]], ["nic","vnet7",[1332409327, 154053, 621737]],
    ["blk","vda",[1332409327, 0, 2926592]]]}"#;
const VM_INFO_LINES: [&str; 7] = [
    "kanyun_cpu_percent{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker} 130.48 1332409327000",
    "kanyun_mem_max_kib{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker} 4194304 1332409327000",
    "kanyun_mem_free_kib{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker} 0 1332409327000",
    "kanyun_nic_incoming_bytes_total{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker,target_device=vnet7} 154053 1332409327000",
    "kanyun_nic_outgoing_bytes_total{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker,target_device=vnet7} 621737 1332409327000",
    "kanyun_blk_read_bytes_total{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker,target_device=vda} 0 1332409327000",
    "kanyun_blk_write_bytes_total{domain=instance-000000ba,host=sws-yz-5,job=kanyun-worker,target_device=vda} 2926592 1332409327000",
];

#[test]
fn a_guest_under_both_types() {
    check("3", VM_INFO, &VM_INFO_LINES, "");
    check("2", VM_INFO, &VM_INFO_LINES, "");
}

#[test]
fn traffic_names_guests_in_three_ways() {
    let line = |host: &str| {
        format!(
            "kanyun_vmnetwork_bytes{{domain=instance-00000074{host},ip=10.0.0.2,job=kanyun-worker}} 512 1332409327000"
        )
    };
    let body = |key: &str| format!(r#"{{"{key}": ["10.0.0.2", 1332409327, "512"]}}"#);
    check("2", &body("instance-00000074"), &[&line("")], "");
    check("2", &body("116"), &[&line("")], "");
    check("2", &body("116@sws-yz-5"), &[&line(",host=sws-yz-5")], "");
    let (_, refused) = decoded("3", &body("116"));
    assert!(refused.starts_with("1 malformed"), "{refused}");
}

#[test]
fn each_odd_value_costs_itself_alone() {
    let body = r#"{"i@h": [["cpu","total",[1.5, 100000.1]], ["mem","total",[1332409327.25, "4194304", -1]],
        ["nic","vnet0",[1332409327, 9007199254740991, 9007199254740992]], ["blk","vda",["x", 1, 2]],
        ["blk","",[1, 1, 2]], ["blk","vdb",[1, NaN, "1e3"]], ["gpu","0",[1, 2]], ["nic","vnet1",[1, 2]],
        ["cpu","total",[1, -0.0]], ["cpu","total",[1, 1e999]], 7],
        "": [], "@h": [], "i@": [], "empty": [], "odd": 7}"#;
    let (message, refused) = decoded("3", body);
    assert_eq!(
        lines(&message),
        [
            "kanyun_mem_max_kib{domain=i,host=h,job=kanyun-worker} 4194304 1332409327250",
            "kanyun_nic_incoming_bytes_total{domain=i,host=h,job=kanyun-worker,target_device=vnet0} 9007199254740991 1332409327000",
            "kanyun_blk_write_bytes_total{domain=i,host=h,job=kanyun-worker,target_device=vdb} 1000 1000",
            "kanyun_cpu_percent{domain=i,host=h,job=kanyun-worker} 0 1000",
        ]
    );
    let expected = [
        r#"3 malformed (first: "[\"nic\",\"vnet1\",[1, 2]]" of "i@h")"#,
        r#"1 unknown_record (first: "[\"gpu\",\"0\",[1, 2]]")"#,
        r#"5 name (first: "[\"blk\",\"\",[1, 1, 2]]")"#,
        r#"2 not_a_number (first: kanyun_blk_read_bytes_total "\"N\"" of i)"#,
        r#"1 negative (first: kanyun_mem_free_kib "-1" of i)"#,
        r#"2 too_large (first: kanyun_cpu_percent "100000.1" of i)"#,
        r#"2 time (first: "\"x\"" of i)"#,
    ];
    assert_eq!(refused, expected.join("; "));
}

#[test]
fn times_are_unix_seconds() {
    for (time, refused) in [
        ("1332409327.125", ""),
        (r#""1332409327""#, ""),
        ("-1", "1 time (first: \"-1\" of i)"),
        ("1e300", "1 time (first: \"1e300\" of i)"),
        ("null", "1 time (first: \"null\" of i)"),
    ] {
        let (_, said) = decoded("3", &format!(r#"{{"i": [["cpu","total",[{time}, 1]]]}}"#));
        assert_eq!(said, refused);
    }
}

#[test]
fn heartbeats() {
    let beat = |body: &str| match decoded("0", body).0 {
        Message::Heartbeat(Heartbeat { worker, leaving }) => Some((worker, leaving)),
        _ => None,
    };
    assert_eq!(beat(r#"["worker1", 1332409327.5, 1]"#), Some(("worker1".to_owned(), false)));
    assert_eq!(beat(r#"["worker1", 1332409327, 0]"#), Some(("worker1".to_owned(), true)));
    assert_eq!(beat(r#"["worker1", 1332409327, "0"]"#), Some(("worker1".to_owned(), true)));
    assert_eq!(beat("[7, null, 1]"), Some(("7".to_owned(), false)));
    let long = format!(r#"["{}", 1, 1]"#, "x".repeat(limits::WORKER_NAME_BYTES_MAX + 1));
    for body in [r#"["w", 1]"#, r#"["w", 1, 1, 1]"#, r#"["w", 1, "on"]"#, "{}", "", "7"] {
        assert_eq!(beat(body), None, "{body}");
        assert!(decoded("0", body).1.starts_with("1 malformed (first: heartbeat"), "{body}");
    }
    for body in [r#"["", 1, 1]"#, &long, r#"["w\u001b[2J", 1, 1]"#, r#"["w\n", 1, 0]"#] {
        assert_eq!(beat(body), None, "{body}");
        assert!(decoded("0", body).1.starts_with("1 name (first: heartbeat"), "{body}");
    }
}

/// They would be lines of their own in a log, and more in a terminal.
#[test]
fn names_with_control_characters() {
    for control in ["\\n", "\\u0000", "\\u001b", "\\u007f", "\\u0085"] {
        let record = r#"["cpu","total",[1, 2]]"#;
        let device = format!(r#"["nic","vnet{control}",[1, 2, 3]]"#);
        let body = format!(
            r#"{{"i{control}@h": [{record}], "i@h{control}": [{record}], "i": [{device}]}}"#
        );
        let (message, refused) = decoded("3", &body);
        assert_eq!(lines(&message), Vec::<String>::new(), "{control}");
        // Two guests, and two values of a device.
        assert!(refused.starts_with("4 name (first: guest"), "{refused}");
        assert!(!refused.contains(char::is_control), "{refused}");
        let (message, refused) =
            decoded("2", &format!(r#"{{"116@h{control}": ["10.0.0.2", 1, 2]}}"#));
        assert_eq!(lines(&message), Vec::<String>::new(), "{control}");
        assert!(refused.starts_with("1 name"), "{refused}");
    }
}

#[test]
fn what_is_no_message() {
    let of = |frames: &[&[u8]]| {
        let mut refusals = Refusals::default();
        let (kind, message) = decode(frames, &mut refusals);
        (kind, message, refusals.text())
    };
    assert_eq!(of(&[b"1", b"{}"]), (Kind::LocalInfo, Message::Ignored, String::new()));
    assert_eq!(of(&[b"9", b"{}"]), (Kind::Unknown, Message::Ignored, String::new()));
    for (frames, text) in [
        (&[][..], "1 malformed (first: a message of 0 frames)"),
        (&[&b"3"[..]], "1 malformed (first: a message of 1 frames)"),
        (&[&b"3"[..], b"{}", b""], "1 malformed (first: a message of 3 frames)"),
        (&[&b"3"[..], b"\xff"], "1 malformed (first: a body that is not utf-8)"),
    ] {
        assert_eq!(of(frames).2, text);
    }
    for body in ["", "[]", "7", r#"{"i": "#, r#"{"i": []} x"#] {
        let (message, refused) = decoded("3", body);
        assert_eq!(message, Message::Points(Vec::new()), "{body}");
        assert!(refused.starts_with("1 malformed"), "{body}: {refused}");
    }
    // Of a message that breaks off nothing is taken.
    let (message, refused) = decoded("3", VM_INFO.trim_end_matches('}'));
    assert_eq!(message, Message::Points(Vec::new()));
    assert!(refused.starts_with("1 malformed"), "{refused}");
}

#[test]
fn bounds() {
    let record = r#"["cpu","total",[1,2]]"#;
    let many = vec![record; limits::WORKER_RECORDS_MAX + 3].join(",");
    let (message, refused) = decoded("3", &format!(r#"{{"i": [{many}]}}"#));
    assert_eq!(lines(&message).len(), limits::WORKER_RECORDS_MAX);
    assert_eq!(refused, r#"3 too_many (first: records of "i")"#);
    let guests = (0..limits::WORKER_GUESTS_MAX + 2).map(|n| format!(r#""i{n}": [{record}]"#));
    let (message, refused) = decoded("3", &format!("{{{}}}", guests.collect::<Vec<_>>().join(",")));
    assert_eq!(lines(&message).len(), limits::WORKER_GUESTS_MAX);
    assert!(refused.starts_with("2 too_many (first: guest"), "{refused}");
}

/// As many guests as there may be, each with cpu, memory, 10 NICs and 10 disks, long names and large
/// numbers, as Python writes them: the door takes such a message, and not twice as much.
#[test]
fn the_largest_host() {
    let time = 1_332_409_327.25;
    let device = |what: &str, n: usize| {
        format!(
            r#"["{what}", "{what}-0a1b2c3d-{n:02}", [{time}, 9007199254740991, 9007199254740991]]"#
        )
    };
    let mut records = vec![
        format!(r#"["cpu", "total", [{time}, 99999.999]]"#),
        format!(r#"["mem", "total", [{time}, 4503599627370496, 4503599627370496]]"#),
    ];
    records.extend((0..10).flat_map(|n| [device("nic", n), device("blk", n)]));
    let guest =
        |n: usize| format!(r#""instance-{n:08x}@compute-0001.example": [{}]"#, records.join(", "));
    let bytes: usize = (0..limits::WORKER_GUESTS_MAX).map(|n| guest(n).len() + 2).sum();
    let most = limits::WORKER_MESSAGE_BYTES_MAX;
    assert!((most / 2..most).contains(&bytes), "{bytes}");
}

#[test]
fn what_python_writes_for_no_number() {
    for (text, read) in [
        ("[NaN, -Infinity, Infinity]", r#"["N", "-Infini", "Infini"]"#),
        (r#"["NaN", "a\"NaN", NaN]"#, r#"["NaN", "a\"NaN", "N"]"#),
        (r#"["é\\", NaN]"#, r#"["é\\", "N"]"#),
        ("NaN\\", "\"N\"\\"),
    ] {
        assert_eq!(body::with_numbers_only(text), read);
    }
}

/// Leaves and shapes that are near to what workers send.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(r#""cpu""#.to_owned()),
        Just(r#""nic""#.to_owned()),
        Just(r#""10.0.0.2""#.to_owned()),
        Just("NaN".to_owned()),
        Just("1e999".to_owned()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[a-z@0-9]{0,6}", inner), 0..4).prop_map(|pairs| {
                let pairs = pairs.iter().map(|(key, value)| format!("{key:?}: {value}"));
                format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn check_sound(message: &Message) {
    let Message::Points(points) = message else { return };
    for point in points {
        let labels = point.labels();
        assert!(labels.is_sorted_by(|one, two| one.0 < two.0), "{labels:?}");
        assert!(labels.iter().all(|(_, value)| (1..=255).contains(&value.len())), "{labels:?}");
        assert!(!labels.iter().any(|(_, value)| value.contains(char::is_control)), "{labels:?}");
        let Sample { timestamp_ms, value, start_ms } = point.sample;
        assert!(value.is_finite() && value >= 0.0 && timestamp_ms >= 0 && start_ms.is_none());
    }
}

proptest! {
    #[test]
    fn anything_is_read_or_refused(kind in "[0-4]", body in any_json()) {
        let frames = [kind.as_bytes(), body.as_bytes()];
        check_sound(&decode(&frames, &mut Refusals::default()).1);
        // A prefix of it, cut where it may be cut.
        let half = body.floor_char_boundary(body.len() / 2);
        check_sound(&decode(&[kind.as_bytes(), &body.as_bytes()[..half]], &mut Refusals::default()).1);
    }

    #[test]
    fn bytes_are_read_or_refused(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        check_sound(&decode(&frames, &mut Refusals::default()).1);
    }

    #[test]
    fn whole_numbers_stay_exact(number in 0..1_u64 << 53, quoted: bool) {
        let written = if quoted { format!("\"{number}\"") } else { number.to_string() };
        let body = format!(r#"{{"i": [["blk", "vda", [1, {written}, 0]]]}}"#);
        let (Message::Points(points), _) = decoded("3", &body) else { panic!() };
        prop_assert_eq!(points[0].sample.value.to_string(), number.to_string());
    }
}
