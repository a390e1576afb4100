//! What becomes of the series and samples of a readable write request: which are stored, which are
//! refused and how the sender is told.

use adapter::wire::messages::{self, TimeSeries, v2};
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;
use prost::Message;

use super::write::{check_counts, check_refusal};
use crate::adapter_process::{AdapterProcess, now_ms};
use crate::remote::{self, BOTH, Series, content_type, read_back, series};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// Everything that a fresh adapter holds after it was sent these series.
fn stored(adapter: &AdapterProcess) -> Vec<Series> {
    adapter.read((i64::MIN, i64::MAX), &[("=~", "__name__", ".*")])
}

/// One good series in front of a bad one and one behind it: the good ones are stored, the bad one
/// is refused for good with a text that names it.
fn check_refused(bad: &TimeSeries, counted: &str, text: &str) {
    let at = now_ms() - MINUTE_MS;
    let good = |name| series(&[("__name__", name), ("uuid", "a")], &[(at, 1.0), (at + 1, 2.0)]);
    for protocol in BOTH {
        let adapter = AdapterProcess::in_memory();
        let answer = adapter.write(protocol, &[good("one"), bad.clone(), good("two")]);
        check_refusal(&answer, 400, text);
        check_refusal(&answer, 400, "stored 4 samples");
        check_refusal(&answer, 400, counted);
        check_counts(&answer, protocol, 4);
        let samples = [(at, 1.0), (at + 1, 2.0)];
        let expected =
            ["one", "two"].map(|name| read_back(&[("__name__", name), ("uuid", "a")], &samples));
        assert_eq!(stored(&adapter), expected);
    }
}

#[test]
fn labels_that_the_protocol_forbids() {
    let samples = [(now_ms(), 1.0), (now_ms() - 1, 2.0)];
    let bad = |labels: &[(&str, &str)]| series(labels, &samples);
    check_refused(&bad(&[("uuid", "x")]), "2 samples", "no metric name (first: {uuid=\"x\"})");
    check_refused(&bad(&[]), "2 samples", "no metric name");
    check_refused(&bad(&[("__name__", ""), ("a", "b")]), "2 samples", "no metric name");
    check_refused(&bad(&[("__name__", "m"), ("", "b")]), "2 samples", "an empty label name");
    let twice = [("__name__", "m"), ("a", "1"), ("b", "2"), ("a", "1")];
    check_refused(&bad(&twice), "2 samples", "a label name twice");
    let names_twice = [("__name__", "m"), ("__name__", "n")];
    check_refused(&bad(&names_twice), "2 samples", "a label name twice");
}

#[test]
fn labels_beyond_a_bound() {
    let samples = [(now_ms(), 1.0)];
    let names: Vec<String> = (0..64).map(|n| format!("l{n:02}")).collect();
    let mut labels: Vec<(&str, &str)> = vec![("__name__", "m")];
    labels.extend(names.iter().map(|name| (name.as_str(), "v")));
    check_refused(&series(&labels, &samples), "1 samples", "too many labels in one series");
    let (long_name, long_value) = ("n".repeat(1025), "ä".repeat(2049));
    let long_name = [("__name__", "m"), (&*long_name, "v")];
    check_refused(&series(&long_name, &samples), "1 samples", "name of more than 1024 bytes");
    let long_value = [("__name__", "m"), ("l", &*long_value)];
    check_refused(&series(&long_value, &samples), "1 samples", "value of more than 4096 bytes");
}

#[test]
fn labels_at_their_bounds_are_stored() {
    let at = now_ms();
    let names: Vec<String> = (0..61).map(|n| format!("l{n:02}")).collect();
    let (long_name, long_value) = ("n".repeat(1024), "ä".repeat(2048));
    let mut labels: Vec<(&str, &str)> = vec![("__name__", "größe, \"in\"\n{Zeilen}")];
    labels.extend(names.iter().map(|name| (name.as_str(), "v")));
    labels.push(("m", &long_value));
    labels.push((&long_name, "v"));
    for protocol in BOTH {
        let adapter = AdapterProcess::in_memory();
        let answer = adapter.write(protocol, &[series(&labels, &[(at, 1.0)])]);
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(stored(&adapter), [read_back(&labels, &[(at, 1.0)])]);
    }
}

/// Harmless oddities: labels out of order, empty values, which mean an absent label, one series in
/// several parts and spellings, samples out of order, repeated requests.
#[test]
fn what_is_accepted() {
    let at = now_ms() - MINUTE_MS;
    let request = [
        series(&[("uuid", "a"), ("b", ""), ("__name__", "m")], &[(at + 9, 3.0), (at, 1.0)]),
        series(&[("__name__", "m"), ("uuid", "a")], &[(at + 5, 2.0), (at, 1.0)]),
        series(&[("__name__", "n"), ("empty", "")], &[(at, 4.0)]),
    ];
    for protocol in BOTH {
        let adapter = AdapterProcess::in_memory();
        for _again in 0..3 {
            let answer = adapter.write(protocol, &request);
            assert_eq!(answer.status, 204, "{answer:?}");
            assert!(answer.body.is_empty());
            // A repeated sample counts as written: it is.
            check_counts(&answer, protocol, 5);
        }
        let expected = [
            read_back(
                &[("__name__", "m"), ("uuid", "a")],
                &[(at, 1.0), (at + 5, 2.0), (at + 9, 3.0)],
            ),
            read_back(&[("__name__", "n")], &[(at, 4.0)]),
        ];
        assert_eq!(stored(&adapter), expected);
    }
}

#[test]
fn samples_too_old_or_ahead() {
    let (adapter, now) = (AdapterProcess::in_memory(), now_ms());
    // The default retention is 400 days, and the last 8 of them are frozen.
    let oldest = now - 392 * DAY_MS + MINUTE_MS;
    let latest = now + 9 * MINUTE_MS;
    let good = [(oldest, 1.0), (now, 2.0), (latest, 3.0)];
    for (protocol, uuid) in BOTH.into_iter().zip(["a", "b"]) {
        let labels = [("__name__", "m"), ("uuid", uuid)];
        let mut samples = good.to_vec();
        samples.extend([(oldest - 2 * MINUTE_MS, 4.0), (0, 5.0), (i64::MIN, 5.0)]);
        samples.extend([(now + 12 * MINUTE_MS, 6.0), (i64::MAX, 7.0)]);
        let answer = adapter.write(protocol, &[series(&labels, &samples)]);
        check_refusal(&answer, 400, "3 samples: older than the retention allows (first: {__name__");
        check_refusal(&answer, 400, "2 samples: more than 10 minutes ahead");
        check_refusal(&answer, 400, "stored 3 samples");
        check_counts(&answer, protocol, 3);
    }
    let expected = ["a", "b"].map(|uuid| read_back(&[("__name__", "m"), ("uuid", uuid)], &good));
    assert_eq!(stored(&adapter), expected);
    let page = adapter.get("/metrics");
    assert!(page.text().contains("kanyun_adapter_refused_total{reason=\"too_old\"} 6\n"));
    assert!(page.text().contains("kanyun_adapter_refused_total{reason=\"ahead\"} 4\n"));
}

/// A sender whose clock is ahead must keep its samples: 400 would make it drop them.
#[test]
fn a_request_that_is_mostly_ahead_is_sent_again() {
    let (adapter, now) = (AdapterProcess::in_memory(), now_ms());
    let samples = [(now, 1.0), (now + 11 * MINUTE_MS, 2.0), (now + 12 * MINUTE_MS, 3.0)];
    for protocol in BOTH {
        let answer = adapter.write(protocol, &[series(&[("__name__", "m")], &samples)]);
        check_refusal(&answer, 503, "ahead of this server's clock");
        assert_eq!(answer.header("retry-after"), Some("30"));
        check_counts(&answer, protocol, 0);
    }
    assert!(stored(&adapter).is_empty());
    assert!(adapter.get("/metrics").text().contains("kanyun_adapter_requests_ahead_total 2\n"));
}

/// Histograms and exemplars are not stored, and nobody is left to believe that they were.
#[test]
fn histograms_and_exemplars() {
    let at = now_ms();
    let histogram = messages::Histogram {
        count_int: Some(1),
        zero_count_int: Some(1),
        timestamp: at,
        ..Default::default()
    };
    let exemplar = messages::Exemplar {
        labels: messages::labels(&[("trace_id", "1")]),
        value: 1.0,
        timestamp: at,
    };
    let floats = [("__name__", "m"), ("uuid", "a")];
    let request = [
        TimeSeries { exemplars: vec![exemplar; 2], ..series(&floats, &[(at, 1.0)]) },
        TimeSeries { histograms: vec![histogram; 3], ..series(&[("__name__", "h")], &[]) },
    ];
    for protocol in BOTH {
        let adapter = AdapterProcess::in_memory();
        let answer = adapter.write(protocol, &request);
        check_refusal(&answer, 400, "stored 1 samples");
        check_refusal(&answer, 400, "3 histograms: native histograms are not stored");
        check_refusal(&answer, 400, "2 exemplars: exemplars are not stored");
        check_counts(&answer, protocol, 1);
        assert_eq!(stored(&adapter), [read_back(&floats, &[(at, 1.0)])]);
        let page = adapter.get("/metrics");
        assert!(page.text().contains("kanyun_adapter_refused_total{reason=\"histogram\"} 3\n"));
        assert!(page.text().contains("kanyun_adapter_refused_total{reason=\"exemplar\"} 2\n"));
    }
}

/// However much is wrong, the text fits into what Prometheus logs.
#[test]
fn a_text_for_everything_at_once() {
    let (adapter, now) = (AdapterProcess::in_memory(), now_ms());
    let long = "\u{1f600}".repeat(1000);
    let (long_name, newlines) = ("x".repeat(2000), "\n".repeat(4000));
    let everything = [
        series(&[("uuid", &long)], &[(now, 1.0)]),
        series(&[("__name__", &long), ("", &newlines)], &[(now, 1.0)]),
        series(&[("__name__", &newlines), ("a", "1"), ("a", "2")], &[(now, 1.0)]),
        series(&[("__name__", "m"), (&long_name, "2")], &[(now, 1.0)]),
        series(&[("__name__", "m"), ("l", &long_name), ("k", &long.repeat(2))], &[(now, 1.0)]),
        series(&[("__name__", &long), ("l", "1")], &[(0, 1.0), (now + DAY_MS, 1.0), (now, 1.0)]),
        series(&[("__name__", &newlines), ("l", "1")], &[(0, 1.0), (now, 1.0)]),
    ];
    for protocol in BOTH {
        let answer = adapter.write(protocol, &everything);
        check_refusal(&answer, 400, "stored 2 samples");
        check_counts(&answer, protocol, 2);
    }
}

/// 2.0 alone: start timestamps and metadata are taken, references out of bounds are refused.
#[test]
fn version_2_only() {
    let adapter = AdapterProcess::in_memory();
    let at = now_ms();
    let labels = [("__name__", "m"), ("uuid", "a")];
    let mut request = remote::to_v2(&[series(&labels, &[(at, 1.0), (at + 1, 2.0), (at + 2, 3.0)])]);
    for (sample, start) in request.timeseries[0].samples.iter_mut().zip([at - 1000, -1, 0]) {
        sample.start_timestamp = start;
    }
    request.timeseries[0].created_timestamp = at - 2000;
    request.timeseries[0].metadata = Some(v2::Metadata { r#type: 1, help_ref: 1, unit_ref: 0 });
    let good = request.timeseries[0].clone();
    let send = |request: &v2::Request| {
        let body = snappy::compress(&request.encode_to_vec()).unwrap();
        adapter.post_write(content_type(Protocol::V2), &body).unwrap()
    };
    let answer = send(&request);
    assert_eq!(answer.status, 204, "{answer:?}");
    check_counts(&answer, Protocol::V2, 3);
    let expected = [read_back(&labels, &[(at, 1.0), (at + 1, 2.0), (at + 2, 3.0)])];
    assert_eq!(stored(&adapter), expected);

    for (refs, text) in [
        (vec![1, 2, 3], "an odd number of label references"),
        (vec![1, 99], "a label reference is outside the symbol table"),
        (vec![1, u32::MAX], "a label reference is outside the symbol table"),
    ] {
        let bad = v2::TimeSeries { labels_refs: refs, ..good.clone() };
        request.timeseries = vec![bad, good.clone()];
        let answer = send(&request);
        check_refusal(&answer, 400, text);
        check_counts(&answer, Protocol::V2, 3);
    }
    request.timeseries = vec![good];
    request.symbols[0] = "not empty".to_owned();
    let answer = send(&request);
    check_refusal(&answer, 400, "must begin with the empty string");
    check_counts(&answer, Protocol::V2, 0);
    assert_eq!(stored(&adapter), expected);
}
