//! Recorded requests of real Prometheus servers (`tests/captures`): what is in them, and that no
//! damage to them makes a decoder panic.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use adapter::wire::messages;
use adapter::wire::negotiate::{self, Protocol};
use adapter::wire::read::{self, ReadLimits};
use adapter::wire::snappy;
use adapter::wire::write::{self, DecodeError, DecodeLimits, WriteRequest};
use expect_test::{Expect, expect};
use prost::Message;

pub(super) const LIMITS: DecodeLimits = DecodeLimits {
    series: 10_000,
    samples: 10_000,
    labels: 100_000,
    labels_per_series: 64,
    expanded_label_bytes: 4 << 20,
    symbols: 10_000,
};

const READ_LIMITS: ReadLimits = ReadLimits { queries: 16, matchers: 64 };

const BODY_BYTES_MAX: usize = 1 << 20;

/// A recorded request.
struct Capture {
    name: String,
    body: Vec<u8>,
    headers: String,
}

impl Capture {
    fn load(name: &str) -> Capture {
        let file = |suffix: &str| folder().join(format!("{name}.{suffix}"));
        Capture {
            name: name.to_owned(),
            body: std::fs::read(file("body")).unwrap(),
            headers: std::fs::read_to_string(file("headers")).unwrap(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn protocol(&self) -> Protocol {
        let content_type = self.header("Content-Type");
        negotiate::write_protocol(content_type, self.header("Content-Encoding")).unwrap()
    }

    fn message(&self) -> Vec<u8> {
        snappy::decompress(&self.body, BODY_BYTES_MAX).unwrap()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

/// All captures whose names begin so.
fn all(prefix: &str) -> Vec<Capture> {
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".body").filter(|name| name.starts_with(prefix)).map(str::to_owned)
        })
        .collect();
    names.sort();
    names.iter().map(|name| Capture::load(name)).collect()
}

/// Series with times and values left out where every recording differs.
fn summary(request: &WriteRequest<'_>) -> String {
    let mut text = format!("{:?}, {} metadata\n", request.protocol, request.metadata);
    for series in &request.series {
        let mut labels = Vec::new();
        let fault = request.labels_of(series, &mut labels).unwrap();
        for (name, value) in labels {
            write!(text, "{name}={value:?} ").unwrap();
        }
        let samples = request.samples_of(series);
        let stale = samples.iter().filter(|s| s.value.to_bits() == 0x7ff0_0000_0000_0002).count();
        let started = samples.iter().filter(|s| s.start_ms.is_some()).count();
        let (histograms, exemplars) = (series.histograms, series.exemplars);
        write!(text, "| {} samples", samples.len()).unwrap();
        for (count, what) in [
            (stale, "stale"),
            (started, "with a start"),
            (histograms as usize, "histograms"),
            (exemplars as usize, "exemplars"),
        ] {
            if count > 0 {
                write!(text, ", {count} {what}").unwrap();
            }
        }
        // Prometheus' own 2.0 sender puts every exemplar into a series of its own, which the
        // specification does not allow.
        if let Some(fault) = fault {
            write!(text, ", fault: {fault}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn check(name: &str, expected: &Expect) {
    let capture = Capture::load(name);
    let message = capture.message();
    let request = write::decode(capture.protocol(), &message, &LIMITS).unwrap();
    expected.assert_eq(&summary(&request));
}

fn check_read(name: &str, expected: &Expect) {
    let capture = Capture::load(name);
    negotiate::read_supported(capture.header("Content-Encoding")).unwrap();
    let mut request = read::decode(&capture.message(), &READ_LIMITS).unwrap();
    for query in &mut request.queries {
        // Only the series request asks for all of time; other times differ in every recording.
        for time in [&mut query.start_ms, &mut query.end_ms] {
            *time = if time.unsigned_abs() > 1 << 62 { *time } else { 0 };
        }
        if let Some(hints) = &mut query.hints {
            for time in [&mut hints.start_ms, &mut hints.end_ms] {
                *time = if time.unsigned_abs() > 1 << 62 { *time } else { 0 };
            }
        }
    }
    let mut text = format!("{:?}\n", request.response);
    for query in &request.queries {
        writeln!(text, "{}..={} {:?}", query.start_ms, query.end_ms, query.matchers).unwrap();
        writeln!(text, "{:?}", query.hints).unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn write_1_0() {
    check(
        "write-1.0-prometheus-2",
        &expect![[r#"
        V1, 0 metadata
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples
        __name__="guest_cpu_seconds_created" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples
        __name__="guest_cpu_seconds_created" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars
    "#]],
    );
    check(
        "write-1.0-prometheus-3",
        &expect![[r#"
        V1, 0 metadata
        __name__="up" instance="127.0.0.1:37013" job="itself" | 1 samples
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/query_range" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/series" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars
    "#]],
    );
    check(
        "write-1.0-stale",
        &expect![[r#"
        V1, 0 metadata
        __name__="up" instance="127.0.0.1:37013" job="itself" | 1 samples
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/query_range" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/series" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/metrics" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples, 1 stale
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars
    "#]],
    );
    check(
        "write-1.0-histograms",
        &expect![[r#"
        V1, 0 metadata
        __name__="up" instance="127.0.0.1:37013" job="itself" | 1 samples
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/query_range" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/series" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/metrics" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars
    "#]],
    );
    check(
        "write-1.0-metadata",
        &expect![[r"
        V1, 280 metadata
    "]],
    );
}

#[test]
fn write_2_0() {
    check(
        "write-2.0-prometheus-3",
        &expect![[r#"
        V2, 0 metadata
        __name__="up" instance="127.0.0.1:37013" job="itself" | 1 samples
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/query_range" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/series" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples, 1 with a start
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples, 1 with a start
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars, fault: a series without samples and histograms
    "#]],
    );
    check(
        "write-2.0-stale",
        &expect![[r#"
        V2, 0 metadata
        __name__="up" instance="127.0.0.1:37013" job="itself" | 1 samples
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/query_range" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/series" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/metrics" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples, 1 with a start
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples, 1 stale
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars, fault: a series without samples and histograms
    "#]],
    );
    check(
        "write-2.0-histograms",
        &expect![[r#"
        V2, 0 metadata
        __name__="up" instance="127.0.0.1:37013" job="itself" | 1 samples
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/query_range" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/api/v1/series" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="prometheus_http_request_duration_seconds" handler="/metrics" instance="127.0.0.1:37013" job="itself" | 0 samples, 1 histograms
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 1 samples, 1 with a start
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="gone" | 1 samples, 1 with a start
        __name__="guest_memory_bytes" domain="größer" instance="127.0.0.1:44349" job="page" note="a \"quoted\" word" | 1 samples
        __name__="guest_memory_bytes" domain="instance-00000002" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="up" instance="127.0.0.1:44349" job="page" | 1 samples
        __name__="guest_cpu_seconds_total" domain="instance-00000001" instance="127.0.0.1:44349" job="page" mode="user" | 0 samples, 1 exemplars, fault: a series without samples and histograms
    "#]],
    );
}

#[test]
fn read_requests() {
    check_read(
        "read-range-prometheus-2",
        &expect![[r#"
        Sampled
        0..=0 [(NotEqual, "mode", "x"), (Matches, "domain", "inst.*"), (Equal, "__name__", "guest_cpu_seconds_total")]
        Some(Hints { step_ms: 15000, func: "rate", start_ms: 0, end_ms: 0, range_ms: 60000 })
    "#]],
    );
    check_read(
        "read-range-prometheus-3",
        &expect![[r#"
        Streamed
        0..=0 [(NotEqual, "mode", "x"), (Matches, "domain", "inst.*"), (Equal, "__name__", "guest_cpu_seconds_total")]
        Some(Hints { step_ms: 15000, func: "rate", start_ms: 0, end_ms: 0, range_ms: 60000 })
    "#]],
    );
    check_read(
        "read-series-prometheus-2",
        &expect![[r#"
        Sampled
        -9223309901257974000..=9223309901257974999 [(Matches, "__name__", "guest_.+"), (NotMatches, "domain", "a|b")]
        Some(Hints { step_ms: 0, func: "series", start_ms: -9223309901257974000, end_ms: 9223309901257974999, range_ms: 0 })
    "#]],
    );
    check_read(
        "read-series-prometheus-3",
        &expect![[r#"
        Streamed
        -9223309901257974000..=9223309901257974999 [(Matches, "__name__", "guest_.+"), (NotMatches, "domain", "a|b")]
        Some(Hints { step_ms: 0, func: "series", start_ms: -9223309901257974000, end_ms: 9223309901257974999, range_ms: 0 })
    "#]],
    );
}

/// Every sample and label is what plain prost decodes.
#[test]
fn captures_equal_prost() {
    for capture in all("write-") {
        let message = capture.message();
        let request = write::decode(capture.protocol(), &message, &LIMITS).unwrap();
        assert_eq!(
            ours(&request),
            theirs(capture.protocol(), &message).unwrap(),
            "{}",
            capture.name
        );
    }
}

type Plain = Vec<(Vec<(String, String)>, Vec<(i64, u64, i64)>)>;

fn ours(request: &WriteRequest<'_>) -> Plain {
    let plain = |series: &write::Series<'_>| {
        let mut labels = Vec::new();
        request.labels_of(series, &mut labels).unwrap();
        let labels = labels.iter();
        let samples = request.samples_of(series).iter();
        (
            labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            samples
                .map(|s| (s.timestamp_ms, s.value.to_bits(), s.start_ms.map_or(0, i64::from)))
                .collect(),
        )
    };
    request.series.iter().map(plain).collect()
}

fn theirs(protocol: Protocol, message: &[u8]) -> Option<Plain> {
    Some(match protocol {
        Protocol::V1 => {
            let request = messages::WriteRequest::decode(message).ok()?;
            let plain = |series: messages::TimeSeries| {
                let labels = series.labels.into_iter().map(|label| (label.name, label.value));
                let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), 0));
                (labels.collect(), samples.collect())
            };
            request.timeseries.into_iter().map(plain).collect()
        }
        Protocol::V2 => {
            let request = messages::v2::Request::decode(message).ok()?;
            let symbol = |reference: u32| request.symbols.get(reference as usize).cloned();
            let plain = |series: &messages::v2::TimeSeries| {
                let pairs = series.labels_refs.chunks_exact(2);
                let labels: Option<_> =
                    pairs.map(|pair| Some((symbol(pair[0])?, symbol(pair[1])?))).collect();
                let samples = series.samples.iter();
                let samples =
                    samples.map(|s| (s.timestamp, s.value.to_bits(), s.start_timestamp)).collect();
                Some((labels?, samples))
            };
            request.timeseries.iter().map(plain).collect::<Option<_>>()?
        }
    })
}

/// Decodes whatever there is. What prost reads we read too, unless we say why not.
fn survive(protocol: Protocol, message: &[u8]) {
    let decoded = write::decode(protocol, message, &LIMITS).and_then(|request| {
        let mut labels = Vec::new();
        for series in &request.series {
            request.labels_of(series, &mut labels)?;
            request.samples_of(series);
        }
        Ok(())
    });
    match decoded {
        Ok(()) => {}
        Err(DecodeError::Malformed(error)) => {
            assert!(theirs(protocol, message).is_none(), "prost reads it: {error}");
        }
        Err(DecodeError::OverBound { .. }) => panic!("a damaged capture is not large"),
        Err(DecodeError::FirstSymbol | DecodeError::OtherVersion { .. }) => {}
    }
}

/// Calls `each` with every prefix of some bytes and with every change of one byte; of large ones
/// with a few values in place of all 255.
fn damage(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    for length in 0..bytes.len() {
        each(&bytes[..length]);
    }
    let mut damaged = bytes.to_vec();
    for at in 0..bytes.len() {
        let changes: &[u8] = &[0x01, 0x02, 0x04, 0x08, 0x80, 0xff];
        let all: Vec<u8> = (1..=u8::MAX).collect();
        for change in if bytes.len() <= 400 { &all } else { changes } {
            damaged[at] = bytes[at] ^ change;
            each(&damaged);
        }
        damaged[at] = bytes[at];
    }
}

#[test]
fn damaged_bodies_never_panic() {
    for capture in all("write-") {
        let protocol = capture.protocol();
        damage(&capture.body, |body| {
            if let Ok(message) = snappy::decompress(body, BODY_BYTES_MAX) {
                survive(protocol, &message);
            }
        });
    }
    for capture in all("read-") {
        damage(&capture.body, |body| {
            if let Ok(message) = snappy::decompress(body, BODY_BYTES_MAX) {
                read::decode(&message, &READ_LIMITS).ok();
            }
        });
    }
}

#[test]
fn damaged_messages_never_panic() {
    for capture in all("write-") {
        let message = capture.message();
        damage(&message, |message| {
            survive(Protocol::V1, message);
            survive(Protocol::V2, message);
        });
    }
    for capture in all("read-") {
        damage(&capture.message(), |message| {
            read::decode(message, &READ_LIMITS).ok();
        });
    }
}
