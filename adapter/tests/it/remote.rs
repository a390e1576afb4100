//! Bodies of remote_write and remote_read as a client makes and takes them, by plain prost.
//! Knows no HTTP and no process.

use std::collections::BTreeMap;

use adapter::wire::messages::{self, v2};
use adapter::wire::negotiate::Protocol;
use adapter::wire::{snappy, xor};
use prost::Message;

/// Label pairs.
pub(crate) type Labels = Vec<(String, String)>;
/// Labels, and samples as unix milliseconds and bits.
pub(crate) type Series = (Labels, Vec<(i64, u64)>);

pub(crate) const BOTH: [Protocol; 2] = [Protocol::V1, Protocol::V2];
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 30;

pub(crate) fn content_type(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V1 => "application/x-protobuf",
        Protocol::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    }
}

/// A series to write.
pub(crate) fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> messages::TimeSeries {
    messages::TimeSeries {
        labels: messages::labels(labels),
        samples: samples
            .iter()
            .map(|&(timestamp, value)| messages::Sample { value, timestamp })
            .collect(),
        ..Default::default()
    }
}

/// A series as it is read back.
pub(crate) fn read_back(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Series {
    (
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        samples.iter().map(|(time, value)| (*time, value.to_bits())).collect(),
    )
}

/// The body of a write request, in either version.
pub(crate) fn write_body(protocol: Protocol, series: &[messages::TimeSeries]) -> Vec<u8> {
    snappy::compress(&write_message(protocol, series)).unwrap()
}

/// The same before it is compressed.
pub(crate) fn write_message(protocol: Protocol, series: &[messages::TimeSeries]) -> Vec<u8> {
    match protocol {
        Protocol::V1 => {
            messages::WriteRequest { timeseries: series.to_vec(), metadata: Vec::new() }
                .encode_to_vec()
        }
        Protocol::V2 => to_v2(series).encode_to_vec(),
    }
}

/// The same series as remote_write 2.0 says them.
pub(crate) fn to_v2(series: &[messages::TimeSeries]) -> v2::Request {
    let mut symbols = vec![String::new()];
    let mut places = BTreeMap::from([(String::new(), 0)]);
    let mut refs = |labels: &[messages::Label]| {
        let texts = labels.iter().flat_map(|label| [&label.name, &label.value]);
        texts
            .map(|text| {
                *places.entry(text.clone()).or_insert_with(|| {
                    symbols.push(text.clone());
                    u32::try_from(symbols.len() - 1).unwrap()
                })
            })
            .collect::<Vec<u32>>()
    };
    let timeseries = series
        .iter()
        .map(|series| v2::TimeSeries {
            labels_refs: refs(&series.labels),
            samples: series
                .samples
                .iter()
                .map(|s| v2::Sample { value: s.value, timestamp: s.timestamp, start_timestamp: 0 })
                .collect(),
            histograms: series.histograms.clone(),
            exemplars: series
                .exemplars
                .iter()
                .map(|exemplar| v2::Exemplar {
                    labels_refs: refs(&exemplar.labels),
                    value: exemplar.value,
                    timestamp: exemplar.timestamp,
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    v2::Request { symbols, timeseries }
}

/// `{a="b"}` as (kind, name, value), where the kind is one of `=`, `!=`, `=~`, `!~`.
pub(crate) type Matcher<'a> = (&'a str, &'a str, &'a str);

pub(crate) fn query((start_ms, end_ms): (i64, i64), matchers: &[Matcher<'_>]) -> messages::Query {
    let matchers = matchers
        .iter()
        .map(|(kind, name, value)| {
            let kinds = ["=", "!=", "=~", "!~"];
            let r#type = kinds.iter().position(|known| known == kind).unwrap();
            messages::LabelMatcher {
                r#type: i32::try_from(r#type).unwrap(),
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            }
        })
        .collect();
    messages::Query {
        start_timestamp_ms: start_ms,
        end_timestamp_ms: end_ms,
        matchers,
        hints: None,
    }
}

/// The body of a read request; `types` as in `accepted_response_types`.
pub(crate) fn read_body(queries: &[messages::Query], types: &[i32]) -> Vec<u8> {
    let request = messages::ReadRequest {
        queries: queries.to_vec(),
        accepted_response_types: types.to_vec(),
    };
    snappy::compress(&request.encode_to_vec()).unwrap()
}

/// The series of each query of a sampled answer.
pub(crate) fn sampled(body: &[u8]) -> Vec<Vec<Series>> {
    let message = snappy::decompress(body, MESSAGE_BYTES_MAX).unwrap();
    let response = messages::ReadResponse::decode(&message[..]).unwrap();
    let plain = |series: messages::TimeSeries| {
        let samples = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
        (labels(series.labels), samples)
    };
    response
        .results
        .into_iter()
        .map(|result| result.timeseries.into_iter().map(plain).collect())
        .collect()
}

/// The messages of a streamed answer; every length and checksum is right.
pub(crate) fn frames(mut body: &[u8]) -> Vec<messages::ChunkedReadResponse> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let length = prost::encoding::decode_varint(&mut body).unwrap();
        let (crc, rest) = body.split_at(4);
        let (message, rest) = rest.split_at(usize::try_from(length).unwrap());
        assert_eq!(crc, crc32c::crc32c(message).to_be_bytes());
        frames.push(messages::ChunkedReadResponse::decode(message).unwrap());
        body = rest;
    }
    frames
}

/// The series of each query of a streamed answer, which keeps the rules that Prometheus' client
/// needs: one series a frame, queries in order, series sorted, chunks ascending and disjoint.
pub(crate) fn streamed(body: &[u8], queries: usize) -> Vec<Vec<Series>> {
    let mut results = vec![Vec::<Series>::new(); queries];
    let mut query_before = 0;
    for frame in frames(body) {
        let query = usize::try_from(frame.query_index).unwrap();
        assert!(query >= query_before, "queries come one after another");
        query_before = query;
        assert_eq!(frame.chunked_series.len(), 1, "one series a frame");
        for series in frame.chunked_series {
            let mut samples: Vec<(i64, u64)> = Vec::new();
            for chunk in &series.chunks {
                assert_eq!(chunk.r#type, 1, "XOR");
                let decoded = xor::decode(&chunk.data).unwrap();
                assert_eq!(decoded.first().unwrap().0, chunk.min_time_ms);
                assert_eq!(decoded.last().unwrap().0, chunk.max_time_ms);
                assert!(decoded.len() <= 120, "{} samples in a chunk", decoded.len());
                assert!(samples.last().is_none_or(|(time, _)| *time < chunk.min_time_ms));
                samples.extend(decoded.iter().map(|(time, value)| (*time, value.to_bits())));
            }
            assert!(samples.is_sorted_by(|one, two| one.0 < two.0), "{samples:?}");
            results[query].push((labels(series.labels), samples));
        }
    }
    for result in &results {
        assert!(result.is_sorted_by(|one, two| one.0 < two.0), "series are sorted, each once");
    }
    results
}

fn labels(labels: Vec<messages::Label>) -> Labels {
    let labels: Labels = labels.into_iter().map(|label| (label.name, label.value)).collect();
    assert!(labels.is_sorted_by(|one, two| one.0 < two.0), "{labels:?}");
    labels
}
