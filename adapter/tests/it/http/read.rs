//! remote_read's door: both response types, matchers, ranges and hints, and what was written comes
//! back bit for bit.

use std::time::{Duration, Instant};

use adapter::wire::messages::{Query, ReadHints};
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;

use super::write::check_refusal;
use crate::adapter_process::{AdapterProcess, now_ms};
use crate::http_client;
use crate::remote::{self, BOTH, Matcher, query, read_back, read_body, series};

const HOUR_MS: i64 = 3_600_000;
/// What Prometheus asks for when it wants all of time.
const PROMETHEUS_ALWAYS: (i64, i64) = (-9_223_309_901_257_974_000, 9_223_309_901_257_974_999);
const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// A value of which no byte is like a neighbour's.
const STAND_IN: f64 = 6.626_070_15e-34;

/// The series that matcher tests are about, by the value of their label `id`.
fn fleet() -> (AdapterProcess, i64) {
    let (adapter, at) = (AdapterProcess::in_memory(), now_ms());
    let request = [
        series(&[("__name__", "cpu"), ("id", "1"), ("uuid", "a"), ("zone", "eu-1")], &[(at, 1.0)]),
        series(&[("__name__", "cpu"), ("id", "2"), ("uuid", "b"), ("zone", "us-1")], &[(at, 2.0)]),
        series(&[("__name__", "cpu"), ("id", "3"), ("uuid", "c")], &[(at, 3.0)]),
        series(&[("__name__", "mem"), ("id", "4"), ("uuid", "a"), ("zone", "eu-1")], &[(at, 4.0)]),
        series(&[("__name__", "up"), ("id", "5"), ("instance", "i"), ("job", "j")], &[(at, 5.0)]),
        series(&[("__name__", "log"), ("id", "6"), ("zone", "eu\n1")], &[(at, 6.0)]),
    ];
    assert_eq!(adapter.write(Protocol::V1, &request).status, 204);
    (adapter, at)
}

#[test]
fn matchers() {
    let (adapter, at) = fleet();
    let check = |matchers: &[Matcher<'_>], expected: &str| {
        let series = adapter.read((at, at), matchers);
        let mut ids: Vec<&str> = series
            .iter()
            .map(|(labels, _)| &*labels.iter().find(|(name, _)| name == "id").unwrap().1)
            .collect();
        ids.sort_unstable();
        assert_eq!(ids.concat(), expected, "{matchers:?}");
    };
    let cpu = ("=", "__name__", "cpu");
    check(&[cpu], "123");
    check(&[cpu, ("=", "uuid", "a")], "1");
    check(&[cpu, ("=", "zone", "eu-1")], "1");
    check(&[("=", "uuid", "a")], "14");
    check(&[("=", "uuid", "a"), ("!=", "__name__", "cpu")], "4");
    check(&[("=~", "__name__", "cpu|mem")], "1234");
    check(&[("=~", "__name__", "c")], "");
    check(&[("!~", "__name__", "cpu|mem")], "56");
    check(&[("=", "__name__", "other")], "");
    check(&[cpu, ("=~", "uuid", "a|c"), ("!=", "id", "3")], "1");
    // A missing label has the empty value.
    check(&[cpu, ("=", "zone", "")], "3");
    check(&[cpu, ("!=", "zone", "")], "12");
    check(&[cpu, ("!=", "zone", "eu-1")], "23");
    check(&[cpu, ("=~", "zone", ".*")], "123");
    check(&[cpu, ("=~", "zone", ".+")], "12");
    check(&[cpu, ("=~", "zone", "|us-1")], "23");
    check(&[cpu, ("!~", "zone", ".+")], "3");
    check(&[cpu, ("!~", "zone", "us.*")], "13");
    check(&[cpu, ("=", "nobody", "")], "123");
    check(&[("=", "nobody", ""), ("!=", "zone", "eu-1")], "2356");
    check(&[("!=", "uuid", "")], "1234");
    check(&[("=", "uuid", "")], "56");
    // Anchored, and the dot takes line ends, too.
    check(&[("=~", "zone", "eu.1")], "146");
    check(&[("=~", "zone", "u.1")], "");
    check(&[("=~", "zone", "eu|eu-1")], "14");
    check(&[("=~", "zone", "(?i)EU-1")], "14");
    // RE2's own: ASCII classes and literal text.
    check(&[("=~", "zone", r"\Qeu-1\E")], "14");
    check(&[("=~", "id", r"\d"), ("!~", "id", "[1-4]")], "56");
    check(&[], "123456");
}

#[test]
fn requests_that_cannot_be_answered() {
    let (adapter, at) = fleet();
    let bad = |pattern| vec![query((0, at), &[("=~", "uuid", pattern)])];
    let mut unknown_kind = query((0, at), &[("=", "a", "b")]);
    unknown_kind.matchers[0].r#type = 4;
    let many: Vec<Query> = vec![query((0, at), &[("=", "a", "b")]); 65];
    for types in [&[][..], &[1]] {
        for (queries, text) in [
            (&bad("("), "matcher on \"uuid\""),
            (&bad("a**"), "matcher on \"uuid\""),
            (&bad("a{1001}"), "matcher on \"uuid\""),
            (&vec![unknown_kind.clone()], "matcher"),
            (&many, "64"),
        ] {
            check_refusal(&adapter.post_read(&read_body(queries, types)), 400, text);
        }
    }
    let good = [query((0, at), &[("=", "__name__", "cpu")])];
    check_refusal(&adapter.post_read(&read_body(&good, &[7])), 400, "response type");
    check_refusal(&adapter.post_read(b"damaged"), 400, "snappy");
    check_refusal(&adapter.post_read(b"\xff\xff\xff\xff\x0f"), 400, "4294967295");
    check_refusal(&adapter.post_read(&snappy::compress(b"\xff\xff").unwrap()), 400, "");
    let headers = [("content-encoding", "gzip")];
    let line = "POST /api/v1/read";
    let answer =
        http_client::request(adapter.address(), line, &headers, &read_body(&good, &[])).unwrap();
    check_refusal(&answer, 415, "gzip");
}

/// The first type of the list that we know; sampled where there is none.
#[test]
fn response_types() {
    let (adapter, at) = fleet();
    let queries = [query((at, at), &[("=", "__name__", "cpu")])];
    for (types, is_streamed) in [
        (&[][..], false),
        (&[0], false),
        (&[0, 1], false),
        (&[1, 0], true),
        (&[1], true),
        (&[7, 1, 0], true),
        (&[7, 0], false),
    ] {
        let answer = adapter.post_read(&read_body(&queries, types));
        assert_eq!(answer.status, 200, "{types:?}");
        let content = ["content-type", "content-encoding"].map(|name| answer.header(name));
        let series = if is_streamed {
            assert_eq!(content, [Some(STREAMED), None], "{types:?}");
            remote::streamed(&answer.body, 1)
        } else {
            assert_eq!(content, [Some("application/x-protobuf"), Some("snappy")], "{types:?}");
            remote::sampled(&answer.body)
        };
        assert_eq!(series[0].len(), 3, "{types:?}");
    }
}

#[test]
fn several_queries_in_one_request() {
    let (adapter, at) = fleet();
    let queries =
        ["mem", "nothing", "cpu", "mem"].map(|name| query((at, at), &[("=", "__name__", name)]));
    let sampled = remote::sampled(&adapter.post_read(&read_body(&queries, &[0])).body);
    let streamed = remote::streamed(&adapter.post_read(&read_body(&queries, &[1])).body, 4);
    assert_eq!(sampled, streamed);
    assert_eq!(sampled.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 3, 1]);
    let none = adapter.post_read(&read_body(&[], &[0]));
    assert_eq!((none.status, remote::sampled(&none.body).len()), (200, 0));
}

/// Both ends belong to a range, and nothing outside it is sent; `streamed` checks the chunks.
#[test]
fn ranges() {
    let adapter = AdapterProcess::in_memory();
    let start = now_ms() - 6 * HOUR_MS;
    // Six hours, so several partitions and several chunks.
    let samples: Vec<(i64, f64)> =
        (0..1440_i32).map(|n| (start + i64::from(n) * 15_000, f64::from(n % 7))).collect();
    let labels = [("__name__", "m"), ("uuid", "a")];
    assert_eq!(adapter.write(Protocol::V2, &[series(&labels, &samples)]).status, 204);
    let time = |n: usize| samples[n].0;
    for (range, expected) in [
        ((time(0), time(1439)), &samples[..]),
        ((time(0) + 1, time(1439) - 1), &samples[1..1439]),
        ((time(700), time(700)), &samples[700..=700]),
        ((time(100), time(349)), &samples[100..350]),
        ((time(239) + 1, time(240)), &samples[240..=240]),
        ((i64::MIN, time(3)), &samples[..4]),
        ((time(1437), i64::MAX), &samples[1437..]),
        ((time(5) + 1, time(6) - 1), &[]),
        ((time(6), time(5)), &[]),
        ((i64::MAX, i64::MIN), &[]),
    ] {
        let expected: Vec<_> =
            if expected.is_empty() { vec![] } else { vec![read_back(&labels, expected)] };
        assert_eq!(adapter.read(range, &[("=", "uuid", "a")]), expected, "{range:?}");
    }
}

/// More series than one guest has and one packet holds, in the same order by both types.
#[test]
fn many_series() {
    let (adapter, at) = (AdapterProcess::in_memory(), now_ms());
    let of_guest = |guest: usize| {
        let uuid = format!("guest {guest}");
        let metric = move |number: usize| {
            let labels = [("__name__", &*format!("m{number:02}")), ("uuid", &*uuid)];
            series(&labels, &[(at - 1, 1.0), (at, f64::from(u32::try_from(guest).unwrap()))])
        };
        (0..60).map(metric).collect::<Vec<_>>()
    };
    for guests in 0..10 {
        let request: Vec<_> = (guests * 10..guests * 10 + 10).flat_map(of_guest).collect();
        assert_eq!(adapter.write(Protocol::V2, &request).status, 204);
    }
    let all = adapter.read((at, at), &[("=~", "__name__", "m.*")]);
    assert_eq!(all.len(), 6000);
    assert!(all.iter().all(|(_, samples)| samples.len() == 1));
    assert_eq!(adapter.read((at, at), &[("=", "__name__", "m07")]).len(), 100);
    assert_eq!(adapter.read((at, at), &[("=", "uuid", "guest 42")]).len(), 60);
}

#[test]
fn all_of_time_is_answered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for adapter in [AdapterProcess::in_memory(), AdapterProcess::on_folder(folder.path())] {
        let at = now_ms();
        let labels = [("__name__", "m"), ("uuid", "a")];
        let other = [("__name__", "m"), ("instance", "i"), ("job", "j")];
        let request = [series(&labels, &[(at, 1.0)]), series(&other, &[(at - HOUR_MS, 2.0)])];
        assert_eq!(adapter.write(Protocol::V1, &request).status, 204);
        for range in [PROMETHEUS_ALWAYS, (i64::MIN, i64::MAX), (0, i64::MAX), (i64::MIN, at)] {
            for matchers in [&[("=", "__name__", "m")][..], &[("!=", "nobody", "x")]] {
                let started = Instant::now();
                assert_eq!(adapter.read(range, matchers).len(), 2, "{range:?} {matchers:?}");
                assert!(started.elapsed() < Duration::from_secs(10), "{range:?} {matchers:?}");
            }
        }
    }
}

/// `/api/v1/series` asks for labels only: a frame for each, without chunks.
#[test]
fn the_series_hint() {
    let (adapter, at) = fleet();
    let hints = ReadHints { func: "series".to_owned(), ..Default::default() };
    for range in [(at, at), PROMETHEUS_ALWAYS] {
        let queries =
            [Query { hints: Some(hints.clone()), ..query(range, &[("=", "__name__", "cpu")]) }];
        let answer = adapter.post_read(&read_body(&queries, &[1]));
        let frames = remote::frames(&answer.body);
        assert_eq!(frames.len(), 3);
        assert!(frames.iter().all(|frame| frame.chunked_series[0].chunks.is_empty()));
        let streamed = remote::streamed(&answer.body, 1);
        let sampled = remote::sampled(&adapter.post_read(&read_body(&queries, &[0])).body);
        let labels = |result: &[remote::Series]| -> Vec<remote::Labels> {
            result.iter().map(|(labels, _)| labels.clone()).collect()
        };
        assert_eq!(labels(&sampled[0]), labels(&streamed[0]));
    }
}

/// Stale markers and every other NaN are told apart by their bits, and so are the zeros.
#[test]
fn every_bit_of_a_value_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let bits: [u64; 12] = [
        0x7ff0_0000_0000_0002,
        0x7ff8_0000_0000_0001,
        0x7ff8_dead_beef_0001,
        0xfff0_0000_0000_0002,
        0x7ff0_0000_0000_0000,
        0xfff0_0000_0000_0000,
        0x8000_0000_0000_0000,
        0,
        1,
        0x000f_ffff_ffff_ffff,
        0x7fef_ffff_ffff_ffff,
        0xffff_ffff_ffff_ffff,
    ];
    let at = now_ms();
    let samples: Vec<(i64, f64)> =
        bits.iter().zip(at..).map(|(bits, time)| (time, f64::from_bits(*bits))).collect();
    let adapter = AdapterProcess::on_folder(folder.path());
    let expected = BOTH.map(|protocol| {
        let uuid = format!("{protocol:?}");
        let labels = [("__name__", "m"), ("uuid", &*uuid)];
        let mut sent = samples.clone();
        for (_, value) in &mut sent {
            *value = if value.to_bits() == (-0.0_f64).to_bits() { STAND_IN } else { *value };
        }
        let message = remote::write_message(protocol, &[series(&labels, &sent)]);
        let body = snappy::compress(&with_negative_zero(&message)).unwrap();
        let answer = adapter.post_write(remote::content_type(protocol), &body).unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
        read_back(&labels, &samples)
    });
    let all = [("=", "__name__", "m")];
    assert_eq!(adapter.read((at, at + 100), &all), expected);
    adapter.stop();
    let adapter = AdapterProcess::on_folder(folder.path());
    assert_eq!(adapter.read((at, at + 100), &all), expected, "after a restart");
}

/// Prost leaves -0.0 out, as if it were the default: it goes as another value and is changed here.
fn with_negative_zero(message: &[u8]) -> Vec<u8> {
    let zero = (-0.0_f64).to_le_bytes();
    let place = message.windows(8).position(|bytes| bytes == STAND_IN.to_le_bytes()).unwrap();
    [&message[..place], &zero, &message[place + 8..]].concat()
}

/// Of several values at one time one is read, whatever the order in which they came.
#[test]
fn one_value_for_one_time() {
    let (adapter, at) = (AdapterProcess::in_memory(), now_ms());
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let nan = f64::from_bits(0x7ff8_0000_0000_0001);
    for (number, (one, two, kept)) in
        [(1.0, 2.0, 2.0), (1.0, 1.0, 1.0), (nan, 0.0, 0.0), (stale, -5.0, -5.0), (stale, nan, nan)]
            .into_iter()
            .enumerate()
    {
        let uuids = ["apart", "apart, turned", "together"].map(|how| format!("{how} {number}"));
        let write = |uuid: &str, values: &[f64]| {
            let samples: Vec<(i64, f64)> = values.iter().map(|value| (at, *value)).collect();
            let request = [series(&[("__name__", "m"), ("uuid", uuid)], &samples)];
            assert_eq!(adapter.write(Protocol::V1, &request).status, 204);
        };
        write(&uuids[0], &[one]);
        write(&uuids[0], &[two]);
        write(&uuids[1], &[two]);
        write(&uuids[1], &[one]);
        write(&uuids[2], &[one, two]);
        for uuid in &uuids {
            let expected = [read_back(&[("__name__", "m"), ("uuid", uuid)], &[(at, kept)])];
            assert_eq!(adapter.read((at, at), &[("=", "uuid", uuid)]), expected, "{uuid}");
        }
    }
}
