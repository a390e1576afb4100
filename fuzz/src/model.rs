//! What a write request must leave behind, by a naive model of the rules: decoded by prost, judged
//! one series after another, with every string copied. Knows nothing of how the adapter does it.

use std::collections::BTreeMap;
use std::num::NonZeroI64;

use adapter::limits;
use adapter::model::sample::Sample;
use adapter::wire::messages::{self, v2};
use adapter::wire::negotiate::Protocol;
use adapter::wire::write::{self, DecodeError};
use adapter::write::DECODE_LIMITS;
use prost::Message;

use crate::{KEEPING, NOW_MS};

type Labels = Vec<(String, String)>;
/// Stored samples by labels and time.
pub type Found = BTreeMap<Labels, BTreeMap<i64, Sample>>;

/// A series as it came; no labels where they cannot be told.
struct Sent {
    labels: Option<Labels>,
    samples: Vec<Sample>,
}

/// Compares what was found after a request with what it had to leave. A message that prost does not
/// take at all is not judged: we go on after faults that prost does not forgive, such as bytes in
/// one label that are not UTF-8.
pub(crate) fn check_stored(protocol: Protocol, message: &[u8], found: &Found) {
    let sent = match protocol {
        Protocol::V1 => messages::WriteRequest::decode(message).map(sent_v1),
        Protocol::V2 => v2::Request::decode(message).map(|request| sent_v2(&request)),
    };
    let Ok(sent) = sent else { return };
    match write::decode(protocol, message, &DECODE_LIMITS) {
        Ok(_) => assert_eq!(found, &stored(&sent)),
        Err(DecodeError::Malformed(error)) => panic!("prost decodes it, and we say: {error}"),
        Err(_) => assert!(found.is_empty(), "{found:?}"),
    }
}

fn sent_v1(request: messages::WriteRequest) -> Vec<Sent> {
    let sent = |series: messages::TimeSeries| Sent {
        labels: Some(series.labels.into_iter().map(|label| (label.name, label.value)).collect()),
        samples: series
            .samples
            .iter()
            .map(|s| Sample { timestamp_ms: s.timestamp, value: s.value, start_ms: None })
            .collect(),
    };
    request.timeseries.into_iter().map(sent).collect()
}

fn sent_v2(request: &v2::Request) -> Vec<Sent> {
    let in_table = |reference: &u32| (*reference as usize) < request.symbols.len();
    let text = |reference: u32| request.symbols[reference as usize].clone();
    let sent = |series: &v2::TimeSeries| {
        let refs = &series.labels_refs;
        let pairs = |refs: &[u32]| refs.len() % 2 == 0 && refs.iter().all(in_table);
        let metadata = series.metadata.unwrap_or_default();
        let good = pairs(refs)
            && [metadata.help_ref, metadata.unit_ref].iter().all(in_table)
            && series.exemplars.iter().all(|exemplar| pairs(&exemplar.labels_refs))
            && series.samples.is_empty() != series.histograms.is_empty();
        let start = |start: i64| NonZeroI64::new(start);
        Sent {
            labels: good
                .then(|| refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect()),
            samples: series
                .samples
                .iter()
                .map(|s| Sample {
                    timestamp_ms: s.timestamp,
                    value: s.value,
                    start_ms: start(s.start_timestamp).or(start(series.created_timestamp)),
                })
                .collect(),
        }
    };
    request.timeseries.iter().map(sent).collect()
}

/// The rules of docs/adapter.md, "Writing".
fn stored(sent: &[Sent]) -> Found {
    let retention_ms = i64::try_from(KEEPING.samples.as_millis()).unwrap();
    let oldest_ms = NOW_MS - retention_ms + limits::FROZEN_BEFORE_EXPIRY_MS;
    let mut found = Found::new();
    for series in sent {
        let Some(labels) = series.labels.as_ref().and_then(canonical) else { continue };
        for sample in &series.samples {
            let at = sample.timestamp_ms;
            if (oldest_ms..=NOW_MS + limits::AHEAD_MS_MAX).contains(&at) {
                let samples = found.entry(labels.clone()).or_default();
                let merged = samples.get(&at).map_or(*sample, |known| known.merge(*sample));
                samples.insert(at, merged);
            }
        }
    }
    found
}

fn canonical(sent: &Labels) -> Option<Labels> {
    let mut by_name = BTreeMap::new();
    for (name, value) in sent {
        let fits = !name.is_empty()
            && name.len() <= limits::LABEL_NAME_BYTES_MAX
            && value.len() <= limits::LABEL_VALUE_BYTES_MAX;
        let twice = by_name.insert(name.clone(), value.clone()).is_some();
        if !fits || twice || sent.len() > limits::SERIES_LABELS_MAX {
            return None;
        }
    }
    by_name.retain(|_, value| !value.is_empty());
    by_name.contains_key("__name__").then(|| by_name.into_iter().collect())
}
