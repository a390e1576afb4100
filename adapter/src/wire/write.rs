//! A decoded remote_write request, the same for 1.0 and 2.0, borrowed from the decompressed body.
//!
//! Labels, samples and series are flat pools, bounded before they grow. What is wrong with one
//! series is noted on that series, so that the valid rest of a request can be stored. Whether
//! labels or times make sense is judged elsewhere.

use std::ops::Range;

use thiserror::Error;

use super::fields::Malformed;
use super::negotiate::Protocol;
use super::{v1, v2};
use crate::model::sample::Sample;

/// A remote_write request.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    /// The version that it came in.
    pub protocol: Protocol,
    /// In the order of the request. The same label set may occur more than once.
    pub series: Vec<Series>,
    /// The label pairs (name, value) of all series, as sent: not sorted, names may repeat, either
    /// part may be empty.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The samples of all series, as sent.
    pub samples: Vec<Sample>,
    /// Entries of metadata (1.0 only, where Prometheus sends them in requests of their own).
    pub metadata: u64,
}

/// One series of a request: where its parts are in the pools.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its part of [`WriteRequest::labels`]; incomplete if there is a fault.
    pub labels: Range<u32>,
    /// Its part of [`WriteRequest::samples`].
    pub samples: Range<u32>,
    /// Native histograms, which are counted but not decoded.
    pub histograms: u32,
    /// Exemplars, which are counted but not decoded.
    pub exemplars: u32,
    /// What is wrong with it, if anything: the first fault found.
    pub fault: Option<SeriesFault>,
}

/// Why one series of an otherwise readable request cannot be stored: a permanent fault of the
/// sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SeriesFault {
    /// A label's name or value is not text.
    #[error("a label is not valid UTF-8")]
    NotUtf8,
    /// More labels than [`DecodeLimits::labels_per_series`].
    #[error("too many labels in one series")]
    TooManyLabels,
    /// 2.0: label references come in pairs of name and value.
    #[error("an odd number of label references")]
    OddLabelRefs,
    /// 2.0: a label's reference is outside the symbol table.
    #[error("a label reference is outside the symbol table")]
    LabelRefOutOfRange,
    /// 2.0: a reference of the metadata (help or unit) is outside the symbol table.
    #[error("a metadata reference is outside the symbol table")]
    MetadataRefOutOfRange,
    /// 2.0: the label references of an exemplar are odd in number or outside the symbol table.
    #[error("an exemplar's label references are odd in number or outside the symbol table")]
    BadExemplarRefs,
    /// 2.0: a series must have samples or histograms. Prometheus breaks this rule as a sender: with
    /// `send_exemplars` each exemplar comes as a series of its own. As a receiver it refuses them.
    #[error("a series without samples and histograms")]
    NoData,
    /// 2.0: a series must not have both.
    #[error("a series with both samples and histograms")]
    SamplesAndHistograms,
}

/// The bounds of a request: none of the pools grows beyond them. Each counts the whole request but
/// where its name says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// Series, those with faults included.
    pub series: usize,
    /// Samples, and likewise histograms and exemplars, each counted for itself.
    pub samples: usize,
    /// Label pairs.
    pub labels: usize,
    /// Label pairs of one series. A series with more gets [`SeriesFault::TooManyLabels`] and the
    /// rest of the request goes on.
    pub labels_per_series: usize,
    /// Bytes of names and values of all label pairs, each pair counted as often as it is used: in
    /// 2.0 one long symbol can be referred to millions of times.
    pub expanded_label_bytes: usize,
    /// Symbols (2.0).
    pub symbols: usize,
}

/// Why a whole request is refused: a permanent fault of the sender.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Not a protobuf message of this kind.
    #[error("the body is not a valid remote_write request: {0}")]
    Malformed(#[from] Malformed),
    /// One of the [`DecodeLimits`].
    #[error("the request has more than {max} {what}: send smaller requests")]
    OverBound {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// 2.0: the symbol table is missing or does not begin with the empty string.
    #[error("the symbol table must begin with the empty string")]
    FirstSymbol,
    /// The body is a message of the other version; taken as this one it would be empty.
    #[error("the body is a {body} message, but the content type says {content_type}")]
    OtherVersion {
        /// What the body looks like.
        body: &'static str,
        /// What the header says.
        content_type: &'static str,
    },
}

/// Decodes a decompressed request body.
pub fn decode<'a>(
    protocol: Protocol,
    body: &'a [u8],
    limits: &DecodeLimits,
) -> Result<WriteRequest<'a>, DecodeError> {
    let mut pools = Pools::new(protocol, limits);
    match protocol {
        Protocol::V1 => v1::decode(body, &mut pools)?,
        Protocol::V2 => v2::decode(body, &mut pools)?,
    }
    Ok(pools.request)
}

impl<'a> WriteRequest<'a> {
    /// The labels of one series of this request.
    pub fn labels_of(&self, series: &Series) -> &[(&'a str, &'a str)] {
        self.labels.get(range(&series.labels)).unwrap_or_default()
    }

    /// The samples of one series of this request.
    pub fn samples_of(&self, series: &Series) -> &[Sample] {
        self.samples.get(range(&series.samples)).unwrap_or_default()
    }
}

/// A request that grows within its bounds; what both decoders write into.
pub(super) struct Pools<'a, 'l> {
    pub(super) request: WriteRequest<'a>,
    pub(super) limits: &'l DecodeLimits,
    label_bytes: usize,
    histograms: usize,
    exemplars: usize,
}

impl<'a, 'l> Pools<'a, 'l> {
    fn new(protocol: Protocol, limits: &'l DecodeLimits) -> Self {
        let request = WriteRequest {
            protocol,
            series: Vec::new(),
            labels: Vec::new(),
            samples: Vec::new(),
            metadata: 0,
        };
        Self { request, limits, label_bytes: 0, histograms: 0, exemplars: 0 }
    }

    /// Begins a series that has nothing yet.
    pub(super) fn open(&self) -> Result<Series, DecodeError> {
        bound(self.request.series.len(), self.limits.series, "series")?;
        let labels = index(self.request.labels.len(), "labels")?;
        let samples = index(self.request.samples.len(), "samples")?;
        Ok(Series {
            labels: labels..labels,
            samples: samples..samples,
            histograms: 0,
            exemplars: 0,
            fault: None,
        })
    }

    /// Ends a series: all that was pushed since [`Pools::open`] is its own.
    pub(super) fn close(&mut self, mut series: Series) -> Result<(), DecodeError> {
        series.labels.end = index(self.request.labels.len(), "labels")?;
        series.samples.end = index(self.request.samples.len(), "samples")?;
        self.request.series.push(series);
        Ok(())
    }

    /// Adds a label pair to the open series.
    #[inline]
    pub(super) fn label(
        &mut self,
        series: &mut Series,
        pair: (&'a str, &'a str),
    ) -> Result<(), DecodeError> {
        let so_far = self.request.labels.len() - series.labels.start as usize;
        if so_far >= self.limits.labels_per_series {
            series.note(SeriesFault::TooManyLabels);
            return Ok(());
        }
        bound(self.request.labels.len(), self.limits.labels, "labels")?;
        // Both are lengths of slices of one body, so the sum cannot overflow.
        self.label_bytes += pair.0.len() + pair.1.len();
        if self.label_bytes > self.limits.expanded_label_bytes {
            let max = self.limits.expanded_label_bytes;
            return Err(DecodeError::OverBound { what: "bytes of labels", max });
        }
        self.request.labels.push(pair);
        Ok(())
    }

    /// Adds a sample to the open series.
    #[inline]
    pub(super) fn sample(&mut self, sample: Sample) -> Result<(), DecodeError> {
        bound(self.request.samples.len(), self.limits.samples, "samples")?;
        self.request.samples.push(sample);
        Ok(())
    }

    /// Counts a histogram of the open series.
    pub(super) fn histogram(&mut self, series: &mut Series) -> Result<(), DecodeError> {
        bound(self.histograms, self.limits.samples, "histograms")?;
        self.histograms += 1;
        series.histograms = series.histograms.saturating_add(1);
        Ok(())
    }

    /// Counts an exemplar of the open series.
    pub(super) fn exemplar(&mut self, series: &mut Series) -> Result<(), DecodeError> {
        bound(self.exemplars, self.limits.samples, "exemplars")?;
        self.exemplars += 1;
        series.exemplars = series.exemplars.saturating_add(1);
        Ok(())
    }
}

impl Series {
    /// Notes a fault, unless there is an earlier one.
    pub(super) fn note(&mut self, fault: SeriesFault) {
        self.fault.get_or_insert(fault);
    }
}

/// Refuses to go beyond `max` when there are already `so_far`.
#[inline]
pub(super) fn bound(so_far: usize, max: usize, what: &'static str) -> Result<(), DecodeError> {
    if so_far < max { Ok(()) } else { Err(DecodeError::OverBound { what, max }) }
}

fn index(length: usize, what: &'static str) -> Result<u32, DecodeError> {
    u32::try_from(length).map_err(|_| DecodeError::OverBound { what, max: u32::MAX as usize })
}

fn range(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

#[cfg(test)]
mod tests;
