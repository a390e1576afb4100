//! The sampled answer to a remote_read request: one `ReadResponse`, compressed with snappy.
//!
//! Written series by series, so that the answer exists only once in memory. Knows no store.

use prost::encoding::encoded_len_varint;
use prost::encoding::{WireType, double, encode_key, encode_varint, int64, key_len};

use super::snappy::{self, SnappyError};
use crate::model::sample::Sample;

/// Samples as they stand in a series' message; they ascend by time and lie within the query's
/// range. What later samples give may follow, as often as need be. Start timestamps are left out:
/// the message has no field for them.
pub fn sample_fields(samples: &[Sample]) -> Vec<u8> {
    let bytes = samples.iter().map(sample_len).map(with_length).sum();
    let mut fields = Vec::with_capacity(bytes);
    for sample in samples {
        message_key(2, sample_len(sample), &mut fields);
        if sample.value.to_bits() != 0 {
            double::encode(1, &sample.value, &mut fields);
        }
        if sample.timestamp_ms != 0 {
            int64::encode(2, &sample.timestamp_ms, &mut fields);
        }
    }
    fields
}

/// An answer that is being built.
#[derive(Debug)]
pub struct SampledResponse {
    /// One encoded `QueryResult` for each query.
    results: Vec<Vec<u8>>,
    bytes: usize,
}

impl SampledResponse {
    /// An answer without series to a request of this many queries.
    pub fn new(queries: usize) -> Self {
        Self { results: vec![Vec::new(); queries], bytes: 0 }
    }

    /// Adds a series to the answer of the query at `query_idx`; outside of the request's queries
    /// nothing is added.
    ///
    /// Labels come sorted by name, samples as [`sample_fields`] makes them.
    pub fn push<L: AsRef<str>>(&mut self, query_idx: usize, labels: &[(L, L)], samples: &[u8]) {
        let Some(result) = self.results.get_mut(query_idx) else { return };
        let before = result.len();
        let length = labels.iter().map(label_len).map(with_length).sum::<usize>() + samples.len();
        message_key(1, length, result);
        for label in labels {
            encode_label(label, result);
        }
        result.extend_from_slice(samples);
        self.bytes += result.len() - before;
    }

    /// The size of the answer so far in bytes, before compression.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True until a series is added.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The body of the answer. Fails over 4 GiB, snappy's own bound.
    pub fn finish(self) -> Result<Vec<u8>, SnappyError> {
        let mut response = Vec::with_capacity(self.bytes + 11 * self.results.len());
        for result in self.results {
            message_key(1, result.len(), &mut response);
            response.extend_from_slice(&result);
        }
        snappy::compress(&response)
    }
}

/// The size of a `Label` message in bytes. Proto3 leaves out what is empty.
pub(super) fn label_len<L: AsRef<str>>((name, value): &(L, L)) -> usize {
    text_len(name.as_ref()) + text_len(value.as_ref())
}

/// Writes a `Label` message as field 1, where both `TimeSeries` and `ChunkedSeries` have it.
pub(super) fn encode_label<L: AsRef<str>>(label: &(L, L), message: &mut Vec<u8>) {
    message_key(1, label_len(label), message);
    for (tag, text) in [(1, label.0.as_ref()), (2, label.1.as_ref())] {
        if !text.is_empty() {
            encode_key(tag, WireType::LengthDelimited, message);
            encode_varint(text.len() as u64, message);
            message.extend_from_slice(text.as_bytes());
        }
    }
}

/// Writes the key and the length of an embedded message or bytes field.
pub(super) fn message_key(tag: u32, length: usize, message: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, message);
    encode_varint(length as u64, message);
}

/// The size of an embedded message with a one-byte key, its key and length included.
pub(super) fn with_length(length: usize) -> usize {
    key_len(1) + encoded_len_varint(length as u64) + length
}

fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { with_length(text.len()) }
}

fn sample_len(sample: &Sample) -> usize {
    let value = if sample.value.to_bits() == 0 { 0 } else { double::encoded_len(1, &sample.value) };
    let time =
        if sample.timestamp_ms == 0 { 0 } else { int64::encoded_len(2, &sample.timestamp_ms) };
    value + time
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::wire::messages;

    #[test]
    fn equals_plain_prost() {
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        let samples = [(0, 0.0), (1_763_697_600_000, stale), (-5, -0.5), (i64::MAX, f64::INFINITY)]
            .map(|(timestamp_ms, value)| Sample { timestamp_ms, value, start_ms: None });
        let long = "x".repeat(300);
        let labels = [("__name__", "up"), ("empty", ""), ("long", &long)];
        let mut response = SampledResponse::new(3);
        assert!(response.is_empty());
        let in_parts = samples.chunks(3).flat_map(sample_fields).collect::<Vec<u8>>();
        response.push(0, &labels, &in_parts);
        response.push(0, &[("__name__", "other")], &[]);
        response.push(2, &labels[..1], &sample_fields(&samples[..1]));
        response.push(3, &labels, &sample_fields(&samples));
        let body = snappy::decompress(&response.finish().unwrap(), 1 << 20).unwrap();

        let series = |labels: &[(&str, &str)], samples: &[Sample]| messages::TimeSeries {
            labels: messages::labels(labels),
            samples: samples
                .iter()
                .map(|s| messages::Sample { value: s.value, timestamp: s.timestamp_ms })
                .collect(),
            ..Default::default()
        };
        let expected = messages::ReadResponse {
            results: vec![
                messages::QueryResult {
                    timeseries: vec![
                        series(&labels, &samples),
                        series(&[("__name__", "other")], &[]),
                    ],
                },
                messages::QueryResult::default(),
                messages::QueryResult { timeseries: vec![series(&labels[..1], &samples[..1])] },
            ],
        };
        assert_eq!(body, expected.encode_to_vec());
    }

    /// Prost takes -0.0 for a default and leaves it out; its bits must survive, too.
    #[test]
    fn a_negative_zero_stays_negative() {
        let sample = Sample { timestamp_ms: 1, value: -0.0, start_ms: None };
        let mut response = SampledResponse::new(1);
        response.push(0, &[("a", "b")], &sample_fields(&[sample]));
        let body = snappy::decompress(&response.finish().unwrap(), 1 << 10).unwrap();
        let decoded = messages::ReadResponse::decode(&body[..]).unwrap();
        let value = decoded.results[0].timeseries[0].samples[0].value;
        assert_eq!(value.to_bits(), (-0.0_f64).to_bits());
    }
}
