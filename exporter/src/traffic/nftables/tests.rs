//! Output of nft 1.0.6 as it is and as it should not be; and what nft is told.

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::traffic::plan::Account;

const LISTED: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
{"table": {"family": "inet", "name": "kanyun", "handle": 2}},
{"chain": {"family": "inet", "table": "kanyun", "name": "kanyun-forward", "handle": 1, "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
{"chain": {"family": "inet", "table": "kanyun", "name": "kanyun-out", "handle": 2}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-forward", "handle": 5, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "pub0"}}, {"jump": {"target": "kanyun-out"}}]}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-forward", "handle": 6, "expr": [{"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "pub1"}}, {"jump": {"target": "kanyun-out"}}]}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-out", "handle": 3, "comment": "instance-00000074 10.0.0.2 accounting rule", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.2"}}, {"counter": {"packets": 3, "bytes": 2958}}]}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-out", "handle": 4, "comment": "116@h 2001:db8::1 accounting rule", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip6", "field": "daddr"}}, "right": "2001:db8::1"}}, {"counter": {"packets": 1, "bytes": 100}}]}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-out", "handle": 7, "comment": "5 10.0.0.5 accounting rule", "expr": [{"counter": "named"}]}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-out", "handle": 8, "comment": "6 10.0.0.6 accounting rule", "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "10.0.0.0", "len": 24}}}}, {"counter": {"packets": 0, "bytes": 0}}]}},
{"rule": {"family": "inet", "table": "kanyun", "chain": "kanyun-out", "handle": 9, "comment": "other", "expr": [{"drop": null}]}}]}"#;

#[test]
fn what_nft_prints() {
    let found = read(LISTED).unwrap();
    let rules: Vec<_> = found
        .rules
        .iter()
        .map(|rule| {
            (rule.guest.as_str(), rule.ip.to_string(), rule.direction, rule.bytes, rule.packets)
        })
        .collect();
    assert_eq!(
        rules,
        [
            ("instance-00000074", "10.0.0.2".to_owned(), Direction::Out, 2958, 3),
            ("instance-00000074", "2001:db8::1".to_owned(), Direction::In, 100, 1),
        ]
    );
    assert_eq!(found.unclear, 2);
    assert_eq!(found.chains.iter().copied().collect::<Vec<_>>(), [Direction::Out]);
    let jumps: Vec<_> = found.jumps.into_iter().collect();
    assert_eq!(jumps, [((Direction::Out, "pub0".to_owned()), vec![Some(5)])]);
}

#[test]
fn what_nft_does_not_print_is_an_error() {
    for text in ["", "{", "[]", "{\"nftables\": {}}", "Error: No such file or directory"] {
        assert!(read(text).is_err(), "{text}");
    }
    assert!(read(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn tables_are_found_by_family_and_name() {
    assert!(has_table(LISTED, "inet kanyun").unwrap());
    assert!(!has_table(LISTED, "ip kanyun").unwrap());
    assert!(!has_table(LISTED, "inet kanyu").unwrap());
}

#[test]
fn scripts() {
    let account = |ip: &str, direction, interface: Option<&str>| Account {
        guest: "instance-00000074".to_owned(),
        ip: ip.parse().unwrap(),
        direction,
        interface: interface.map(str::to_owned),
    };
    let plan = Plan {
        chains: vec![Direction::In, Direction::Out],
        accounts: vec![
            account("10.0.0.2", Direction::In, None),
            account("2001:db8::1", Direction::Out, Some("eth1")),
        ],
        surplus: [((Direction::Out, "eth0".to_owned()), vec![Some(5), Some(7)])].into(),
        jumps: vec![(Direction::In, "eth0".to_owned()), (Direction::Out, "eth0".to_owned())],
    };
    expect![[r#"
        add table inet kanyun
        add chain inet kanyun kanyun-forward { type filter hook forward priority 10 ; policy accept ; }
        add chain inet kanyun kanyun-in
        add chain inet kanyun kanyun-out
        add rule inet kanyun kanyun-in ip daddr 10.0.0.2 counter comment "instance-00000074 10.0.0.2 accounting rule"
        add rule inet kanyun kanyun-out oifname "eth1" ip6 saddr 2001:db8::1 counter comment "instance-00000074 2001:db8::1 accounting rule"
        delete rule inet kanyun kanyun-forward handle 5
        delete rule inet kanyun kanyun-forward handle 7
        add rule inet kanyun kanyun-forward iifname "eth0" jump kanyun-in
        add rule inet kanyun kanyun-forward oifname "eth0" jump kanyun-out
    "#]]
    .assert_eq(&script(&plan, "inet kanyun"));
    let found = read(LISTED).unwrap();
    assert_eq!(removal(&found, "inet kanyun"), "delete table inet kanyun\n");
    expect![[r"
        flush chain inet filter kanyun-forward
        delete chain inet filter kanyun-forward
        flush chain inet filter kanyun-out
        delete chain inet filter kanyun-out
    "]]
    .assert_eq(&removal(&found, "inet filter"));
}

proptest! {
    #[test]
    fn any_output_is_read_or_refused(text in ".{0,200}", at in 0..LISTED.len(), byte in "[\\[\\]{}\":,0-9a-z]") {
        drop(read(&text));
        let mut damaged = LISTED.to_owned();
        damaged.replace_range(at..=at, &byte);
        drop(read(&damaged));
    }
}
