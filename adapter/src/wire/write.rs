//! A decoded remote_write request, the same for 1.0 and 2.0, borrowed from the decompressed body.
//!
//! Samples and series are flat pools, bounded before they grow. Labels stay in the body, with a
//! fingerprint of their bytes, until somebody asks for them. What is wrong with one series is noted
//! on that series, so that the valid rest of a request can be stored. Whether labels or times make
//! sense is judged elsewhere.

use std::ops::Range;

use thiserror::Error;

use super::fields::Malformed;
use super::negotiate::Protocol;
use super::v2::Symbol;
use super::{v1, v2};
use crate::model::sample::Sample;
use crate::model::series::Fingerprint;

/// A remote_write request.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    /// The version that it came in.
    pub protocol: Protocol,
    /// In the order of the request. The same label set may occur more than once.
    pub series: Vec<Series<'a>>,
    /// The samples of all series, as sent.
    pub samples: Vec<Sample>,
    /// Entries of metadata (1.0 only, where Prometheus sends them in requests of their own).
    pub metadata: u64,
    // 2.0 only.
    pub(super) symbols: Vec<Symbol<'a>>,
    labels_per_series: usize,
}

/// One series of a request: where its parts are.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// What its labels are decoded from.
    pub(super) message: &'a [u8],
    /// Stands for its labels as they were sent. `None` where they are not at the series' beginning,
    /// and where something about them is wrong as far as they have been looked at.
    pub fingerprint: Option<Fingerprint>,
    /// Its part of [`WriteRequest::samples`].
    pub samples: Range<u32>,
    /// Native histograms, which are counted but not decoded.
    pub histograms: u32,
    /// Exemplars, which are counted but not decoded.
    pub exemplars: u32,
    /// What is wrong with it, if anything: the first fault found. Those of 1.0's labels are found by
    /// [`WriteRequest::labels_of`].
    pub fault: Option<SeriesFault>,
}

/// A label pair as sent: name and value, either of which may be empty.
pub type Pair<'a> = (&'a str, &'a str);

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
    /// 2.0: bytes of names and values of all label pairs, each pair counted as often as it is used,
    /// because one long symbol can be referred to millions of times. In 1.0 they are a part of the
    /// body, which is bounded before.
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

/// What a series with its labels and one sample takes in a decompressed body of 1.0, at least as a
/// rule; in 2.0, where it takes a sixth, the pools grow a few times.
const SERIES_BYTES: usize = 200;

/// Decodes a decompressed request body.
pub fn decode<'a>(
    protocol: Protocol,
    body: &'a [u8],
    limits: &DecodeLimits,
) -> Result<WriteRequest<'a>, DecodeError> {
    let mut pools = Pools::new(protocol, body.len(), limits);
    match protocol {
        Protocol::V1 => v1::decode(body, &mut pools)?,
        Protocol::V2 => v2::decode(body, &mut pools)?,
    }
    Ok(pools.request)
}

impl<'a> WriteRequest<'a> {
    /// Decodes the labels of one series of this request into `labels`, as sent: not sorted, names
    /// may repeat, either part may be empty. Says what is wrong with the series, and then not all of
    /// its labels may be there. An error refuses the whole request.
    pub fn labels_of(
        &self,
        series: &Series<'a>,
        labels: &mut Vec<Pair<'a>>,
    ) -> Result<Option<SeriesFault>, DecodeError> {
        labels.clear();
        let mut into = LabelPool { labels, max: self.labels_per_series, fault: series.fault };
        match self.protocol {
            Protocol::V1 => v1::labels(series.message, &mut into)?,
            Protocol::V2 => v2::labels(series.message, &self.symbols, &mut into)?,
        }
        Ok(into.fault)
    }

    /// The samples of one series of this request.
    pub fn samples_of(&self, series: &Series<'_>) -> &[Sample] {
        self.samples.get(range(&series.samples)).unwrap_or_default()
    }
}

/// The labels of one series, bounded, and the first fault found with them.
pub(super) struct LabelPool<'a, 'p> {
    labels: &'p mut Vec<Pair<'a>>,
    max: usize,
    fault: Option<SeriesFault>,
}

impl<'a> LabelPool<'a, '_> {
    pub(super) fn push(&mut self, pair: Pair<'a>) {
        if self.labels.len() < self.max {
            self.labels.push(pair);
        } else {
            self.note(SeriesFault::TooManyLabels);
        }
    }

    /// Notes a fault, unless there is an earlier one.
    pub(super) fn note(&mut self, fault: SeriesFault) {
        self.fault.get_or_insert(fault);
    }
}

/// A request that grows within its bounds; what both decoders write into.
pub(super) struct Pools<'a, 'l> {
    pub(super) request: WriteRequest<'a>,
    pub(super) limits: &'l DecodeLimits,
    labels: usize,
    label_bytes: usize,
    histograms: usize,
    exemplars: usize,
}

impl<'a, 'l> Pools<'a, 'l> {
    fn new(protocol: Protocol, body_bytes: usize, limits: &'l DecodeLimits) -> Self {
        let request = WriteRequest {
            protocol,
            // About as many as the body may hold: growing step by step costs copies.
            series: Vec::with_capacity((body_bytes / SERIES_BYTES).min(limits.series)),
            samples: Vec::with_capacity((body_bytes / SERIES_BYTES).min(limits.samples)),
            metadata: 0,
            symbols: Vec::new(),
            labels_per_series: limits.labels_per_series,
        };
        Self { request, limits, labels: 0, label_bytes: 0, histograms: 0, exemplars: 0 }
    }

    /// Begins a series that has nothing yet.
    pub(super) fn open(&self, message: &'a [u8]) -> Result<Series<'a>, DecodeError> {
        bound(self.request.series.len(), self.limits.series, "series")?;
        let samples = index(self.request.samples.len(), "samples")?;
        Ok(Series {
            message,
            fingerprint: None,
            samples: samples..samples,
            histograms: 0,
            exemplars: 0,
            fault: None,
        })
    }

    /// Ends a series: all that was pushed since [`Pools::open`] is its own.
    pub(super) fn close(&mut self, mut series: Series<'a>) -> Result<(), DecodeError> {
        series.samples.end = index(self.request.samples.len(), "samples")?;
        self.request.series.push(series);
        Ok(())
    }

    /// Counts a label pair of a series that has so many already; false where it has as many as it
    /// may, and the pair counts for nothing.
    #[inline]
    pub(super) fn label(&mut self, so_far: usize) -> Result<bool, DecodeError> {
        if so_far >= self.limits.labels_per_series {
            return Ok(false);
        }
        bound(self.labels, self.limits.labels, "labels")?;
        self.labels += 1;
        Ok(true)
    }

    /// Counts the bytes of a label pair that is made of symbols.
    #[inline]
    pub(super) fn expanded(&mut self, (name, value): Pair<'_>) -> Result<(), DecodeError> {
        // Both are lengths of slices of one body, so the sum cannot overflow.
        self.label_bytes += name.len() + value.len();
        let max = self.limits.expanded_label_bytes;
        if self.label_bytes > max {
            return Err(DecodeError::OverBound { what: "bytes of labels", max });
        }
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
    pub(super) fn histogram(&mut self, series: &mut Series<'_>) -> Result<(), DecodeError> {
        bound(self.histograms, self.limits.samples, "histograms")?;
        self.histograms += 1;
        series.histograms = series.histograms.saturating_add(1);
        Ok(())
    }

    /// Counts an exemplar of the open series.
    pub(super) fn exemplar(&mut self, series: &mut Series<'_>) -> Result<(), DecodeError> {
        bound(self.exemplars, self.limits.samples, "exemplars")?;
        self.exemplars += 1;
        series.exemplars = series.exemplars.saturating_add(1);
        Ok(())
    }
}

impl Series<'_> {
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
