//! The hand-walked decoders against plain prost, on generated and on damaged messages.

use std::collections::HashMap;

use super::*;

/// A request as prost sees it, with every string and every message that we only count as bytes, so
/// that prost and we must agree about every body.
mod mirror {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub(super) timeseries: Vec<TimeSeries>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(super) metadata: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub(super) labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<super::messages::Sample>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(super) exemplars: Vec<Vec<u8>>,
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(super) histograms: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Label {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RequestV2 {
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(super) symbols: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "5")]
        pub(super) timeseries: Vec<TimeSeriesV2>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeriesV2 {
        #[prost(uint32, repeated, tag = "1")]
        pub(super) labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub(super) samples: Vec<super::messages::v2::Sample>,
        #[prost(bytes = "vec", repeated, tag = "3")]
        pub(super) histograms: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "4")]
        pub(super) exemplars: Vec<ExemplarV2>,
        #[prost(message, optional, tag = "5")]
        pub(super) metadata: Option<MetadataV2>,
        #[prost(int64, tag = "6")]
        pub(super) created_timestamp: i64,
    }

    /// Only what we look at; prost skips the rest as we do.
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct ExemplarV2 {
        #[prost(uint32, repeated, tag = "1")]
        pub(super) labels_refs: Vec<u32>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub(super) struct MetadataV2 {
        #[prost(uint32, tag = "3")]
        pub(super) help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub(super) unit_ref: u32,
    }
}

/// Bounds that no body of a test reaches, so that only the format decides.
const NO_LIMITS: DecodeLimits = DecodeLimits {
    series: usize::MAX,
    samples: usize::MAX,
    labels: usize::MAX,
    labels_per_series: usize::MAX,
    expanded_label_bytes: usize::MAX,
    symbols: usize::MAX,
};

/// What both sides say about one series. Labels and samples of a faulty one are not compared.
#[derive(Debug, PartialEq)]
struct Seen {
    fault: bool,
    labels: Vec<(String, String)>,
    samples: Vec<(i64, u64, i64)>,
    counts: (usize, usize),
}

fn ours((request, judged): &(WriteRequest<'_>, Vec<Judged<'_>>)) -> Vec<Seen> {
    let seen = |(series, (labels, fault)): (&Series<'_>, &Judged<'_>)| Seen {
        fault: fault.is_some(),
        labels: labels
            .iter()
            .filter(|_| fault.is_none())
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        samples: request
            .samples_of(series)
            .iter()
            .map(|s| (s.timestamp_ms, s.value.to_bits(), s.start_ms.map_or(0, NonZeroI64::get)))
            .collect(),
        counts: (series.histograms as usize, series.exemplars as usize),
    };
    request.series.iter().zip(judged).map(seen).collect()
}

fn theirs_v1(request: &mirror::WriteRequest) -> Vec<Seen> {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
    let seen = |series: &mirror::TimeSeries| {
        let labels: Option<Vec<_>> = series
            .labels
            .iter()
            .map(|label| Some((text(&label.name)?, text(&label.value)?)))
            .collect();
        Seen {
            fault: labels.is_none(),
            labels: labels.unwrap_or_default(),
            samples: series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), 0)).collect(),
            counts: (series.histograms.len(), series.exemplars.len()),
        }
    };
    request.timeseries.iter().map(seen).collect()
}

fn theirs_v2(request: &mirror::RequestV2) -> Vec<Seen> {
    let symbol = |reference: &u32| {
        request.symbols.get(*reference as usize).and_then(|s| String::from_utf8(s.clone()).ok())
    };
    let known = |reference: &u32| (*reference as usize) < request.symbols.len();
    let seen = |series: &mirror::TimeSeriesV2| {
        let labels: Option<Vec<_>> = series
            .labels_refs
            .chunks_exact(2)
            .map(|pair| Some((symbol(&pair[0])?, symbol(&pair[1])?)))
            .collect();
        let exemplars_good = series.exemplars.iter().all(|exemplar| {
            exemplar.labels_refs.len().is_multiple_of(2) && exemplar.labels_refs.iter().all(known)
        });
        let metadata = series.metadata.unwrap_or_default();
        let fault = labels.is_none()
            || !series.labels_refs.len().is_multiple_of(2)
            || !exemplars_good
            || !known(&metadata.help_ref)
            || !known(&metadata.unit_ref)
            || series.samples.is_empty() == series.histograms.is_empty();
        let start = |own: i64| if own == 0 { series.created_timestamp } else { own };
        Seen {
            fault,
            labels: labels.filter(|_| !fault).unwrap_or_default(),
            samples: series
                .samples
                .iter()
                .map(|s| (s.timestamp, s.value.to_bits(), start(s.start_timestamp)))
                .collect(),
            counts: (series.histograms.len(), series.exemplars.len()),
        }
    };
    request.timeseries.iter().map(seen).collect()
}

/// Decodes a body both ways and compares. True if it was readable.
fn check(protocol: Protocol, body: &[u8]) -> bool {
    let ours_all = decode_all(protocol, body, &NO_LIMITS);
    let (theirs, metadata, refusable) = match protocol {
        Protocol::V1 => match mirror::WriteRequest::decode(body) {
            Ok(request) => {
                let empty = request.timeseries.is_empty() && request.metadata.is_empty();
                (Some(theirs_v1(&request)), request.metadata.len(), empty)
            }
            Err(_) => (None, 0, false),
        },
        Protocol::V2 => match mirror::RequestV2::decode(body) {
            Ok(request) => {
                let bad = request.symbols.first().is_none_or(|symbol| !symbol.is_empty());
                (Some(theirs_v2(&request)), 0, bad)
            }
            Err(_) => (None, 0, false),
        },
    };
    match (&ours_all, theirs) {
        (Ok(request), Some(theirs)) => {
            assert_eq!(ours(request), theirs);
            assert_eq!(request.0.metadata, metadata as u64);
            true
        }
        (Err(DecodeError::Malformed(_)), None) => false,
        (Err(DecodeError::FirstSymbol | DecodeError::OtherVersion { .. }), theirs) => {
            // Ours may stop before it reaches the damage that prost finds.
            assert!(refusable || theirs.is_none());
            false
        }
        (ours, theirs) => panic!("{ours:?} but prost says {theirs:?}"),
    }
}

/// Applies changes (position, new byte) and then cuts.
fn damage(mut body: Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: Option<usize>) -> Vec<u8> {
    for (at, byte) in changes {
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = *byte;
        }
    }
    body.truncate(cut.unwrap_or(usize::MAX));
    body
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        Just(f64::from_bits(0x7ff0_0000_0000_0002)),
        (-100_i32..100).prop_map(f64::from),
    ]
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..6)
}

fn any_v1() -> impl Strategy<Value = Vec<u8>> {
    let label = ("[a-z_]{0,5}", ".{0,5}")
        .prop_map(|(name, value)| mirror::Label { name: name.into(), value: value.into() });
    let sample = (any_value(), any::<i64>())
        .prop_map(|(value, timestamp)| messages::Sample { value, timestamp });
    let series = (
        prop::collection::vec(label, 0..4),
        prop::collection::vec(sample, 0..4),
        prop::collection::vec(any_message(), 0..2),
        prop::collection::vec(any_message(), 0..2),
    )
        .prop_map(|(labels, samples, exemplars, histograms)| mirror::TimeSeries {
            labels,
            samples,
            exemplars,
            histograms,
        });
    (prop::collection::vec(series, 0..4), prop::collection::vec(any_message(), 0..3)).prop_map(
        |(timeseries, metadata)| mirror::WriteRequest { timeseries, metadata }.encode_to_vec(),
    )
}

fn any_v2() -> impl Strategy<Value = Vec<u8>> {
    let refs = || {
        prop_oneof![
            4 => prop::collection::vec(0_u32..4, 0..3)
                .prop_map(|half| half.into_iter().flat_map(|n| [n, 1]).collect::<Vec<_>>()),
            1 => prop::collection::vec(0_u32..6, 0..5),
        ]
    };
    let sample =
        (any_value(), any::<i64>(), -2_i64..3).prop_map(|(value, timestamp, start_timestamp)| {
            messages::v2::Sample { value, timestamp, start_timestamp }
        });
    let metadata = (0_u32..6, 0_u32..6)
        .prop_map(|(help_ref, unit_ref)| mirror::MetadataV2 { help_ref, unit_ref });
    let series = (
        refs(),
        prop::collection::vec(sample, 0..4),
        prop::collection::vec(any_message(), 0..2),
        prop::collection::vec(
            refs().prop_map(|labels_refs| mirror::ExemplarV2 { labels_refs }),
            0..2,
        ),
        prop::option::of(metadata),
        -2_i64..3,
    )
        .prop_map(
            |(labels_refs, samples, histograms, exemplars, metadata, created_timestamp)| {
                mirror::TimeSeriesV2 {
                    labels_refs,
                    samples,
                    histograms,
                    exemplars,
                    metadata,
                    created_timestamp,
                }
            },
        );
    let symbols = prop::collection::vec("[a-z]{0,4}", 0..5).prop_map(|mut symbols| {
        symbols.insert(0, String::new());
        symbols.into_iter().map(String::into_bytes).collect()
    });
    (symbols, prop::collection::vec(series, 0..4))
        .prop_map(|(symbols, timeseries)| mirror::RequestV2 { symbols, timeseries }.encode_to_vec())
}

/// What stands behind every fingerprint of some bodies: whoever remembers one must find the same.
fn check_fingerprints(bodies: &[(Protocol, &[u8])]) {
    let mut seen: HashMap<Fingerprint, Judged<'_>> = HashMap::new();
    for (protocol, body) in bodies {
        let Ok((request, judged)) = decode_all(*protocol, body, &NO_LIMITS) else { continue };
        for (series, judged) in request.series.iter().zip(judged) {
            let Some(fingerprint) = series.fingerprint else { continue };
            // A label that is no text is found behind the fingerprint of 1.0, the rest before.
            assert!(series.fault.is_none());
            assert_eq!(seen.entry(fingerprint).or_insert(judged.clone()), &judged);
        }
    }
}

proptest! {
    #[test]
    fn one_fingerprint_is_one_list_of_labels(
        v1 in any_v1(),
        v2 in any_v2(),
        more in any_v2(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (damaged_1, damaged_2) = (damage(v1.clone(), &changes, None), damage(v2.clone(), &changes, None));
        check_fingerprints(&[
            (Protocol::V1, &v1),
            (Protocol::V1, &damaged_1),
            (Protocol::V2, &v2),
            (Protocol::V2, &damaged_2),
            (Protocol::V2, &more),
        ]);
    }

    #[test]
    fn v1_equals_prost(body in any_v1()) {
        prop_assert!(check(Protocol::V1, &body));
    }

    #[test]
    fn v2_equals_prost(body in any_v2()) {
        prop_assert!(check(Protocol::V2, &body));
    }

    #[test]
    fn damaged_bodies_equal_prost(
        v1 in any_v1(),
        v2 in any_v2(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(0_usize..200),
    ) {
        check(Protocol::V1, &damage(v1.clone(), &changes, cut));
        check(Protocol::V2, &damage(v1, &changes, cut));
        check(Protocol::V2, &damage(v2.clone(), &changes, cut));
        check(Protocol::V1, &damage(v2, &changes, cut));
    }
}
