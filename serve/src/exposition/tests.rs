//! Negotiation, help texts and the converter.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::fmt::Error;

use expect_test::expect;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderValue, Request};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use proptest::prelude::*;

use super::convert::lines;
use super::negotiate::{Format, format, gzip};
use super::{classic, page};

mod strict;

fn accept(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_str(text).unwrap());
    headers
}

#[test]
fn openmetrics_only_for_who_names_it() {
    use Format::{Classic, OpenMetrics0, OpenMetrics1};
    assert_eq!(format(&HeaderMap::new()), Classic);
    for (text, expected) in [
        ("", Classic),
        ("*/*", Classic),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Classic),
        ("application/*", Classic),
        ("application/openmetrics-text", OpenMetrics1),
        ("Application/OpenMetrics-Text", OpenMetrics1),
        ("application/openmetrics-text; version=1.0.0", OpenMetrics1),
        ("application/openmetrics-text; version=0.0.1", OpenMetrics0),
        ("application/openmetrics-text; version=0.0.1, application/openmetrics-text", OpenMetrics1),
        ("application/openmetrics-text; version=2.0.0", Classic),
        ("application/openmetrics-text;q=0", Classic),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.5", OpenMetrics1),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", Classic),
        ("application/openmetrics-text;q=0.4,*/*;q=0.5", OpenMetrics1),
        ("application/openmetrics-text;q=oops", Classic),
        // Debian's Prometheus 2.42 and Prometheus 3.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1\
             ;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OpenMetrics1,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
             escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            OpenMetrics1,
        ),
    ] {
        assert_eq!(format(&accept(text)), expected, "{text}");
    }
}

#[test]
fn gzip_when_it_is_accepted() {
    for (text, expected) in [
        ("gzip", true),
        ("deflate, gzip;q=1.0, *;q=0.5", true),
        ("GZIP", true),
        ("*", true),
        ("gzip;q=0", false),
        ("gzip;q=0, *", false),
        ("identity", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap());
        assert_eq!(gzip(&headers), expected, "{text}");
    }
    assert!(!gzip(&HeaderMap::new()));
}

/// One of everything that prometheus-client can write.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let counter = CounterWithExemplar::<Vec<(&str, &str)>>::default();
    counter.inc_by(3, Some(vec![("trace", "a } b")]), None);
    registry.register("jobs", "Jobs with \\ and \"quotes\"\nin two lines", counter);
    let family = Family::<Vec<(&str, &str)>, Counter<f64, std::sync::atomic::AtomicU64>>::default();
    family.get_or_create(&vec![("path", "a\\b \"c\" } # {\nd")]).inc_by(0.5);
    registry.register_with_unit("busy", "Time at work", Unit::Seconds, family);
    let gauge: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    gauge.set(f64::NEG_INFINITY);
    registry.register("level", "A level", gauge);
    let gauge: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    gauge.set(f64::NAN);
    registry.register("thing_created", "A gauge that is named so", gauge);
    registry.register("build", "The build", Info::new(vec![("version", "1")]));
    let histogram = Histogram::new([0.5, 1.0]);
    histogram.observe(0.7);
    registry.register("latency", "Latency", histogram);
    registry.register_collector(Box::new(Odd));
    registry
}

#[derive(Debug)]
struct Odd;

impl Collector for Odd {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let gauge = Gauge::<i64, std::sync::atomic::AtomicI64>::default();
        let metric = encoder.encode_descriptor("odd", "Of no type.", None, MetricType::Unknown)?;
        gauge.encode(metric)
    }
}

fn asked(accept: &str) -> (String, String) {
    let head = Request::get("/metrics").header(ACCEPT, accept).body(()).unwrap().into_parts().0;
    let answer = page(&registry(), &head);
    let body = String::from_utf8(answer.whole().unwrap().to_vec()).unwrap();
    (answer.headers()["content-type"].to_str().unwrap().to_owned(), body)
}

#[test]
fn the_classic_page_of_everything() {
    let (content_type, body) = asked("*/*");
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    strict::parse(&body).unwrap();
    expect![[r##"
        # HELP jobs_total Jobs with \\ and "quotes"\nin two lines.
        # TYPE jobs_total counter
        jobs_total 3
        # HELP busy_seconds_total Time at work.
        # TYPE busy_seconds_total counter
        busy_seconds_total{path="a\\b \"c\" } # {\nd"} 0.5
        # HELP level A level.
        # TYPE level gauge
        level -Inf
        # HELP thing_created A gauge that is named so.
        # TYPE thing_created gauge
        thing_created NaN
        # HELP build_info The build.
        # TYPE build_info gauge
        build_info{version="1"} 1
        # HELP latency Latency.
        # TYPE latency histogram
        latency_sum 0.7
        latency_count 1
        latency_bucket{le="0.5"} 0
        latency_bucket{le="1.0"} 1
        latency_bucket{le="+Inf"} 1
        # HELP odd Of no type.
        # TYPE odd untyped
        odd 0
    "##]]
    .assert_eq(&body);
}

#[test]
fn the_openmetrics_page_of_everything() {
    let (content_type, body) = asked("application/openmetrics-text");
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    expect![[r##"
        # HELP jobs Jobs with \\ and \"quotes\"\nin two lines.
        # TYPE jobs counter
        jobs_total 3 # {trace="a } b"} 3.0
        # HELP busy_seconds Time at work.
        # TYPE busy_seconds counter
        # UNIT busy_seconds seconds
        busy_seconds_total{path="a\\b \"c\" } # {\nd"} 0.5
        # HELP level A level.
        # TYPE level gauge
        level -inf
        # HELP thing_created A gauge that is named so.
        # TYPE thing_created gauge
        thing_created NaN
        # HELP build The build.
        # TYPE build info
        build_info{version="1"} 1
        # HELP latency Latency.
        # TYPE latency histogram
        latency_sum 0.7
        latency_count 1
        latency_bucket{le="0.5"} 0
        latency_bucket{le="1.0"} 1
        latency_bucket{le="+Inf"} 1
        # HELP odd Of no type.
        # TYPE odd unknown
        odd 0
        # EOF
    "##]]
    .assert_eq(&body);
}

#[test]
fn the_compressed_page_is_the_same() {
    let head = Request::get("/metrics").header(ACCEPT_ENCODING, "gzip").body(()).unwrap();
    let answer = page(&registry(), &head.into_parts().0);
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&answer.whole().unwrap()[..]);
    std::io::Read::read_to_string(&mut decoder, &mut text).unwrap();
    assert_eq!(text, asked("*/*").1);
}

#[test]
fn timestamps_created_lines_and_odd_types() {
    let openmetrics = r#"# HELP a Help \"here\" \\ there\nand on
# TYPE a counter
a_total{x="}"} 5 1520879607.789 # {id="1"} 1 2
a_created{x="}"} 1520872607.123
# TYPE b stateset
b{b="on"} 1
# TYPE c summary
# UNIT c seconds
c_count 1 -0.5
c_created 7
# TYPE d gaugehistogram
d_gcount 2
# TYPE e unknown
e{} inf
# HELP f Alone
no sample {
# EOF
"#;
    let text = classic(openmetrics);
    strict::parse(&text).unwrap();
    expect![[r##"
        # HELP a_total Help "here" \\ there\nand on
        # TYPE a_total counter
        a_total{x="}"} 5 1520879607789
        # TYPE b gauge
        b{b="on"} 1
        # TYPE c summary
        c_count 1 -500
        # TYPE d untyped
        d_gcount 2
        # TYPE e untyped
        e +Inf
        # HELP f Alone
    "##]]
    .assert_eq(&text);
}

/// A name, a help text and label values as bad as they get.
fn anything() -> impl Strategy<Value = (String, String, Vec<(String, f64)>)> {
    let label = "[ -~\\n\"\\\\{}#äλ]{0,12}";
    let series = prop::collection::vec((label, any::<f64>()), 1..5);
    ("[a-z_][a-z0-9_]{0,8}", "[ -~\\n\"\\\\#]{0,40}", series)
}

proptest! {
    #[test]
    fn every_classic_page_parses_and_says_the_same(
        (name, help, series) in anything(),
        counter in any::<bool>(),
    ) {
        let mut registry = Registry::default();
        let mut expected = std::collections::BTreeMap::new();
        if counter {
            let family = Family::<Vec<(&str, String)>, Counter>::default();
            for (value, _) in &series {
                family.get_or_create(&vec![("l", value.clone())]).inc();
                *expected.entry(value.clone()).or_insert(0.0) += 1.0;
            }
            registry.register(name.clone(), help.clone(), family);
        } else {
            let family = Family::<
                Vec<(&str, String)>,
                Gauge<f64, std::sync::atomic::AtomicU64>,
            >::default();
            for (value, number) in &series {
                family.get_or_create(&vec![("l", value.clone())]).set(*number);
                expected.insert(value.clone(), *number);
            }
            registry.register(name.clone(), help.clone(), family);
        }
        let mut raw = String::new();
        prometheus_client::encoding::text::encode(&mut raw, &registry).unwrap();
        let openmetrics: String = lines(&raw).collect();
        prop_assert_eq!(openmetrics.lines().filter(|line| line.starts_with("# ")).count(), 3);
        let parsed = strict::parse(&classic(&openmetrics)).map_err(TestCaseError::fail)?;
        prop_assert_eq!(parsed.families.len(), 1);
        prop_assert_eq!(&parsed.families[0].help, &format!("{help}."));
        prop_assert_eq!(parsed.samples.len(), expected.len());
        let full = if counter { format!("{name}_total") } else { name };
        prop_assert_eq!(&parsed.families[0].name, &full);
        for sample in parsed.samples {
            prop_assert_eq!(&sample.name, &full);
            let value = expected[&sample.labels[0].1];
            let same = sample.value.total_cmp(&value).is_eq();
            prop_assert!(same || sample.value.is_nan() && value.is_nan());
        }
    }

    #[test]
    fn no_input_brings_the_converter_down(text in "([ -~\\n\"\\\\{}#äλ]{0,60}|# (HELP|TYPE) a( [ -~]{0,9})?\\n){0,6}") {
        strict::parse(&classic(&lines(&text).collect::<String>())).ok();
    }
}
