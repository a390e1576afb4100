//! Write requests, built with plain prost; `equivalence` compares random ones.

use std::num::NonZeroI64;

use proptest::prelude::*;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::*;
use crate::wire::messages::{self, labels};

mod equivalence;

pub(super) const LIMITS: DecodeLimits = DecodeLimits {
    series: 10_000,
    samples: 100_000,
    labels: 100_000,
    labels_per_series: 64,
    expanded_label_bytes: 8 << 20,
    symbols: 50_000,
};

fn v1(series: Vec<messages::TimeSeries>) -> Vec<u8> {
    messages::WriteRequest { timeseries: series, metadata: Vec::new() }.encode_to_vec()
}

fn v2(symbols: &[&str], series: Vec<messages::v2::TimeSeries>) -> Vec<u8> {
    let symbols = symbols.iter().map(|&symbol| symbol.to_owned()).collect();
    messages::v2::Request { symbols, timeseries: series }.encode_to_vec()
}

fn sample_v2(timestamp: i64, value: f64, start_timestamp: i64) -> messages::v2::Sample {
    messages::v2::Sample { value, timestamp, start_timestamp }
}

/// A series with one sample and these label references.
fn series_v2(labels_refs: &[u32]) -> messages::v2::TimeSeries {
    messages::v2::TimeSeries {
        labels_refs: labels_refs.to_vec(),
        samples: vec![sample_v2(1, 1.0, 0)],
        ..Default::default()
    }
}

/// The labels of a series, and what is wrong with it.
type Judged<'a> = (Vec<Pair<'a>>, Option<SeriesFault>);

/// A request with the labels of all its series.
fn decode_all<'a>(
    protocol: Protocol,
    body: &'a [u8],
    limits: &DecodeLimits,
) -> Result<(WriteRequest<'a>, Vec<Judged<'a>>), DecodeError> {
    let request = decode(protocol, body, limits)?;
    let judged = request.series.iter().map(|series| {
        let mut labels = Vec::new();
        let fault = request.labels_of(series, &mut labels)?;
        Ok((labels, fault))
    });
    let judged = judged.collect::<Result<_, DecodeError>>()?;
    Ok((request, judged))
}

fn faults(protocol: Protocol, body: &[u8]) -> Vec<Option<SeriesFault>> {
    let (_, judged) = decode_all(protocol, body, &LIMITS).unwrap();
    judged.into_iter().map(|(_, fault)| fault).collect()
}

fn check_refused(protocol: Protocol, body: &[u8], limits: &DecodeLimits, expected: &str) {
    let refusal = decode_all(protocol, body, limits).unwrap_err().to_string();
    assert!(refusal.contains(expected), "{refusal}");
}

#[test]
fn a_plain_v1_request() {
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let body = v1(vec![
        messages::TimeSeries {
            labels: labels(&[("z", "1"), ("__name__", "up"), ("empty", "")]),
            samples: vec![
                messages::Sample { value: stale, timestamp: 1_763_697_600_000 },
                messages::Sample { value: f64::MIN_POSITIVE, timestamp: -1 },
            ],
            exemplars: vec![messages::Exemplar::default()],
            histograms: vec![messages::Histogram::default(); 2],
        },
        messages::TimeSeries::default(),
    ]);
    let (request, judged) = decode_all(Protocol::V1, &body, &LIMITS).unwrap();
    let [first, second] = &request.series[..] else { panic!("{:?}", request.series) };
    assert_eq!(judged[0].0, [("z", "1"), ("__name__", "up"), ("empty", "")]);
    let samples: Vec<_> = request
        .samples_of(first)
        .iter()
        .map(|s| (s.timestamp_ms, s.value.to_bits(), s.start_ms))
        .collect();
    let smallest = f64::MIN_POSITIVE.to_bits();
    assert_eq!(samples, [(1_763_697_600_000, stale.to_bits(), None), (-1, smallest, None)]);
    assert_eq!((first.exemplars, first.histograms, judged[0].1), (1, 2, None));
    assert!(judged[1].0.is_empty() && request.samples_of(second).is_empty());
}

#[test]
fn a_request_of_metadata_only() {
    let metadata = vec![messages::MetricMetadata::default(); 3];
    let body = messages::WriteRequest { timeseries: Vec::new(), metadata }.encode_to_vec();
    let request = decode(Protocol::V1, &body, &LIMITS).unwrap();
    assert_eq!((request.metadata, request.series.len()), (3, 0));
}

#[test]
fn empty_bodies_are_empty_requests() {
    for protocol in [Protocol::V1, Protocol::V2] {
        assert!(decode(protocol, b"", &LIMITS).unwrap().series.is_empty());
    }
}

#[test]
fn start_times_of_rc4_win_over_the_series_time_of_rc3() {
    let series = messages::v2::TimeSeries {
        labels_refs: vec![1, 2],
        samples: vec![sample_v2(10, 1.0, 7), sample_v2(20, 2.0, 0)],
        created_timestamp: 5,
        ..Default::default()
    };
    let body = v2(&["", "__name__", "up"], vec![series, series_v2(&[1, 2])]);
    let (request, judged) = decode_all(Protocol::V2, &body, &LIMITS).unwrap();
    assert_eq!(judged[0].0, [("__name__", "up")]);
    let starts: Vec<_> = request.samples.iter().map(|s| s.start_ms.map(NonZeroI64::get)).collect();
    assert_eq!(starts, [Some(7), Some(5), None]);
}

#[test]
fn fields_in_any_order_packed_or_not_and_unknown_ones() {
    let mut series = Vec::new();
    let created: i64 = 9;
    prost::encoding::int64::encode(6, &created, &mut series);
    // The pairs are cut in the middle: one reference unpacked, then three packed.
    prost::encoding::uint32::encode(1, &1, &mut series);
    prost::encoding::string::encode(77, &"from the future".to_owned(), &mut series);
    let sample = sample_v2(3, 4.0, 0);
    prost::encoding::message::encode(2, &sample, &mut series);
    prost::encoding::uint32::encode_packed(1, &[2, 3, 0], &mut series);
    let mut body = Vec::new();
    prost::encoding::bytes::encode(5, &series, &mut body);
    prost::encoding::uint64::encode(99, &1, &mut body);
    for symbol in ["", "__name__", "up", "job"] {
        prost::encoding::string::encode(4, &symbol.to_owned(), &mut body);
    }
    let (request, judged) = decode_all(Protocol::V2, &body, &LIMITS).unwrap();
    assert_eq!(judged, [(vec![("__name__", "up"), ("job", "")], None)]);
    assert_eq!(request.samples[0].start_ms.map(NonZeroI64::get), Some(9));
}

#[test]
fn a_fault_is_noted_on_its_series_only() {
    let good = series_v2(&[1, 2]);
    let with = |change: fn(&mut messages::v2::TimeSeries)| {
        let mut series = good.clone();
        change(&mut series);
        series
    };
    let exemplar = |labels_refs: &[u32]| {
        let mut series = good.clone();
        let labels_refs = labels_refs.to_vec();
        series.exemplars = vec![messages::v2::Exemplar { labels_refs, value: 1.0, timestamp: 1 }];
        series
    };
    let metadata = |help_ref, unit_ref| {
        let mut series = good.clone();
        series.metadata = Some(messages::v2::Metadata { r#type: 1, help_ref, unit_ref });
        series
    };
    let body = v2(
        &["", "__name__", "up"],
        vec![
            good.clone(),
            series_v2(&[1]),
            series_v2(&[1, 3]),
            series_v2(&[u32::MAX, 1]),
            exemplar(&[1, 2]),
            exemplar(&[1]),
            exemplar(&[1, 3]),
            metadata(2, 2),
            metadata(3, 0),
            metadata(0, 3),
            with(|series| series.samples.clear()),
            with(|series| series.histograms = vec![messages::Histogram::default()]),
            with(|series| {
                series.samples.clear();
                series.histograms = vec![messages::Histogram::default()];
            }),
            series_v2(&[1; 130]),
            good.clone(),
        ],
    );
    assert_eq!(
        faults(Protocol::V2, &body),
        [
            None,
            Some(SeriesFault::OddLabelRefs),
            Some(SeriesFault::LabelRefOutOfRange),
            Some(SeriesFault::LabelRefOutOfRange),
            None,
            Some(SeriesFault::BadExemplarRefs),
            Some(SeriesFault::BadExemplarRefs),
            None,
            Some(SeriesFault::MetadataRefOutOfRange),
            Some(SeriesFault::MetadataRefOutOfRange),
            Some(SeriesFault::NoData),
            Some(SeriesFault::SamplesAndHistograms),
            None,
            Some(SeriesFault::TooManyLabels),
            None,
        ]
    );
    let (request, judged) = decode_all(Protocol::V2, &body, &LIMITS).unwrap();
    assert_eq!(judged.last().unwrap().0, [("__name__", "up")]);
    assert_eq!(request.samples_of(&request.series[1]).len(), 1, "a rejected sample is counted");
}

#[test]
fn labels_that_are_not_text_are_a_fault_of_their_series() {
    let series = |value: &str| messages::TimeSeries {
        labels: labels(&[("a", value)]),
        ..Default::default()
    };
    let mut body = v1(vec![series("good"), series("bad!"), series("good")]);
    let at = body.windows(4).position(|window| window == b"bad!").unwrap();
    body[at] = 0xff;
    let fault = Some(SeriesFault::NotUtf8);
    assert_eq!(faults(Protocol::V1, &body), [None, fault, None]);

    let mut body = v2(&["", "a", "bad!"], vec![series_v2(&[1, 1]), series_v2(&[1, 2])]);
    let at = body.windows(4).position(|window| window == b"bad!").unwrap();
    body[at] = 0xff;
    assert_eq!(faults(Protocol::V2, &body), [None, fault]);
}

#[test]
fn the_first_symbol_must_be_empty() {
    let expected = "must begin with the empty string";
    for symbols in [&[][..], &["a"], &["a", ""]] {
        check_refused(Protocol::V2, &v2(symbols, vec![series_v2(&[0, 0])]), &LIMITS, expected);
    }
    assert!(decode(Protocol::V2, &v2(&["a"], Vec::new()), &LIMITS).is_ok());
}

#[test]
fn a_body_of_the_other_version_is_noticed() {
    let series = messages::TimeSeries { labels: labels(&[("a", "b")]), ..Default::default() };
    check_refused(Protocol::V2, &v1(vec![series]), &LIMITS, "body is a remote_write 1.0");
    let body = v2(&["", "a"], vec![series_v2(&[1, 1])]);
    check_refused(Protocol::V1, &body, &LIMITS, "body is a remote_write 2.0");
}

/// A change that makes one bound too small, and what the refusal must say.
type BoundCase = (fn(&mut DecodeLimits), &'static str);

#[test]
fn every_bound_is_named() {
    let many_v1 = v1(vec![
        messages::TimeSeries {
            labels: labels(&[("a", "b"), ("c", "d"), ("e", "f")]),
            samples: vec![messages::Sample::default(); 3],
            ..Default::default()
        };
        3
    ]);
    let only = |change: fn(&mut DecodeLimits)| {
        let mut limits = LIMITS;
        change(&mut limits);
        limits
    };
    let v1_cases: [BoundCase; 3] = [
        (|limits| limits.series = 2, "more than 2 series"),
        (|limits| limits.samples = 8, "more than 8 samples"),
        (|limits| limits.labels = 8, "more than 8 labels"),
    ];
    for (change, expected) in v1_cases {
        check_refused(Protocol::V1, &many_v1, &only(change), expected);
    }
    let exact = DecodeLimits {
        series: 3,
        samples: 9,
        labels: 9,
        labels_per_series: 3,
        expanded_label_bytes: 9,
        symbols: 3,
    };
    assert!(decode_all(Protocol::V1, &many_v1, &exact).is_ok(), "a bound itself is allowed");
    let body = v2(&["", "a", "bb"], vec![series_v2(&[1, 2]); 3]);
    assert!(decode_all(Protocol::V2, &body, &exact).is_ok(), "a bound itself is allowed");
    let v2_cases: [BoundCase; 3] = [
        (|limits| limits.symbols = 2, "more than 2 symbols"),
        (|limits| limits.labels = 2, "more than 2 labels"),
        (|limits| limits.expanded_label_bytes = 8, "more than 8 bytes of labels"),
    ];
    for (change, expected) in v2_cases {
        check_refused(Protocol::V2, &body, &only(change), expected);
    }
    for counted in ["histograms", "exemplars"] {
        let mut series = messages::TimeSeries::default();
        match counted {
            "histograms" => series.histograms = vec![messages::Histogram::default(); 3],
            _ => series.exemplars = vec![messages::Exemplar::default(); 3],
        }
        let limits = only(|limits| limits.samples = 2);
        check_refused(Protocol::V1, &v1(vec![series]), &limits, &format!("more than 2 {counted}"));
    }
}

/// One symbol of 64 KiB used 8 million times would expand to half a terabyte.
#[test]
fn a_symbol_bomb_is_refused() {
    let long = "x".repeat(64 << 10);
    let mut series = series_v2(&[1; 2 * 32]);
    series.samples.clear();
    let body = v2(&["", &long], vec![series; 9_000]);
    assert!(body.len() < 1 << 20);
    check_refused(Protocol::V2, &body, &LIMITS, "bytes of labels");
}

/// Each empty message takes two bytes in the body and far more as a struct.
#[test]
fn a_bomb_of_empty_messages_is_refused() {
    for (protocol, tag) in [(Protocol::V1, 1), (Protocol::V2, 4), (Protocol::V2, 5)] {
        let mut body = if tag == 5 { v2(&[""], Vec::new()) } else { Vec::new() };
        for _ in 0..1_000_000 {
            encode_key(tag, WireType::LengthDelimited, &mut body);
            encode_varint(0, &mut body);
        }
        check_refused(protocol, &body, &LIMITS, "the request has more than");
    }
}

/// The fingerprint of the only series of a request.
fn fingerprint(protocol: Protocol, body: &[u8]) -> Option<Fingerprint> {
    let (request, _) = decode_all(protocol, body, &LIMITS).unwrap();
    let [series] = &request.series[..] else { panic!("{:?}", request.series) };
    series.fingerprint
}

#[test]
fn a_fingerprint_is_of_the_labels_alone_and_only_where_they_come_first() {
    let of = |pairs: &[(&str, &str)], times: &[i64]| {
        let samples =
            times.iter().map(|timestamp| messages::Sample { value: 1.0, timestamp: *timestamp });
        let series = messages::TimeSeries {
            labels: labels(pairs),
            samples: samples.collect(),
            ..Default::default()
        };
        fingerprint(Protocol::V1, &v1(vec![series]))
    };
    let first = of(&[("__name__", "up"), ("job", "a")], &[1]);
    assert!(first.is_some());
    assert_eq!(of(&[("__name__", "up"), ("job", "a")], &[2, 3]), first);
    assert_ne!(of(&[("job", "a"), ("__name__", "up")], &[1]), first);
    assert_eq!(of(&[("a", "b"); 65], &[1]), None);
    // A label behind a sample.
    let mut scattered = Vec::new();
    for tag in [1, 2, 1] {
        prost::encoding::bytes::encode(tag, &Vec::new(), &mut scattered);
    }
    let mut body = Vec::new();
    prost::encoding::bytes::encode(1, &scattered, &mut body);
    assert_eq!(fingerprint(Protocol::V1, &body), None);
}

#[test]
fn a_fingerprint_of_2_0_is_of_the_symbols_and_not_of_their_places() {
    let of = |symbols: &[&str], refs: &[u32]| {
        fingerprint(Protocol::V2, &v2(symbols, vec![series_v2(refs)]))
    };
    let first = of(&["", "__name__", "up", "job", "a"], &[1, 2, 3, 4]);
    assert!(first.is_some());
    assert_eq!(of(&["", "a", "job", "x", "up", "__name__"], &[5, 4, 2, 1]), first);
    assert_ne!(of(&["", "__name__", "up", "job", "a"], &[3, 4, 1, 2]), first);
    assert_ne!(of(&["", "__name__", "up", "job", "a"], &[1, 2, 4, 3]), first);
    assert_eq!(of(&["", "__name__", "up"], &[1, 2, 1]), None);
    assert_eq!(of(&["", "__name__", "up"], &[1, 3]), None);
}
