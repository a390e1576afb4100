//! The payload of a sealed chunk: one series' samples of one window, by column, packed with pco.
//! Reads back every bit; damage is an error, never a panic. `docs/storage.md` draws the bytes.
//! Pure; must not know where chunks are kept or which series they belong to.

mod column;
mod times;
mod values;

use std::num::NonZeroI64;

use crate::model::sample::Sample;
use crate::model::varint;

/// Samples in one chunk: a window of two hours has this many milliseconds, and a series has one
/// sample a millisecond at most. What a chunk claims is judged by it before memory is spent.
pub const SAMPLES_MAX: usize = 7_200_000;

const VERSION: u8 = 1;
const FLAG_STARTS: u8 = 1;

/// What a chunk says of itself at its beginning, so that a reader can pass over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many samples it holds; at least one.
    pub count: usize,
    /// The time of the first one, unix milliseconds.
    pub first_ms: i64,
    /// The time of the last one, unix milliseconds.
    pub last_ms: i64,
}

/// A chunk that cannot be read: damage on disk, or a newer version wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a later release.
    #[error(
        "a chunk has format {0}, which this release cannot read; use the release that wrote it"
    )]
    Version(u8),
    /// The bytes contradict themselves.
    #[error("a chunk is damaged")]
    Damaged,
}

/// Encodes the samples of one series: at least one and at most [`SAMPLES_MAX`], sorted by time,
/// one a timestamp. Equal samples give equal bytes.
///
/// Version byte, flags byte, count (LEB128), first time (8 bytes big-endian), last time less the
/// first (LEB128); then the columns: times, values, and, where a flag says so, start times as
/// numbers with 0 for unknown.
pub fn encode(samples: &[Sample]) -> Vec<u8> {
    Encoder::default().encode(samples)
}

/// Encodes series one after another. Those of one guest are scraped together: where a series has the
/// times of the one before, they are not packed again.
#[derive(Debug, Default)]
pub struct Encoder {
    times: Vec<i64>,
    packed: Vec<u8>,
}

impl Encoder {
    /// See [`encode`]: the bytes are the same.
    pub fn encode(&mut self, samples: &[Sample]) -> Vec<u8> {
        debug_assert!(samples.len() <= SAMPLES_MAX, "the caller's window is too long");
        debug_assert!(samples.is_sorted_by(|left, right| left.timestamp_ms < right.timestamp_ms));
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Vec::new();
        };
        let has_starts = samples.iter().any(|sample| sample.start_ms.is_some());
        let mut bytes = Vec::with_capacity(64 + samples.len() * 2);
        bytes.extend_from_slice(&[VERSION, if has_starts { FLAG_STARTS } else { 0 }]);
        varint::push(samples.len() as u64, &mut bytes);
        bytes.extend_from_slice(&first.timestamp_ms.to_be_bytes());
        let length_ms = last.timestamp_ms.wrapping_sub(first.timestamp_ms).cast_unsigned();
        varint::push(length_ms, &mut bytes);
        bytes.extend_from_slice(self.packed_times(samples));
        values::push(samples, &mut bytes);
        if has_starts {
            let starts: Vec<i64> =
                samples.iter().map(|sample| sample.start_ms.map_or(0, NonZeroI64::get)).collect();
            column::push(&starts, &mut bytes);
        }
        bytes
    }

    fn packed_times(&mut self, samples: &[Sample]) -> &[u8] {
        let times = samples.iter().map(|sample| sample.timestamp_ms);
        if !times.clone().eq(self.times.iter().copied()) {
            self.times.clear();
            self.times.extend(times);
            self.packed.clear();
            times::push(samples, &mut self.packed);
        }
        &self.packed
    }
}

/// Reads the beginning of a chunk alone.
pub fn span(bytes: &[u8]) -> Result<Span, Unreadable> {
    header(&mut &*bytes).map(|(span, _)| span)
}

/// Appends a chunk's samples to `out`, in order of time. After an error `out` is as it was.
pub fn decode(bytes: &[u8], out: &mut Vec<Sample>) -> Result<(), Unreadable> {
    let before = out.len();
    let decoded = decode_columns(bytes, out);
    if decoded.is_err() {
        out.truncate(before);
    }
    decoded
}

fn decode_columns(mut rest: &[u8], out: &mut Vec<Sample>) -> Result<(), Unreadable> {
    let (span, flags) = header(&mut rest)?;
    let before = out.len();
    times::take(&mut rest, span, |timestamp_ms| {
        out.push(Sample { timestamp_ms, value: 0.0, start_ms: None });
    })?;
    let samples = out.get_mut(before..).ok_or(Unreadable::Damaged)?;
    values::take(&mut rest, samples)?;
    if flags & FLAG_STARTS != 0 {
        let mut places = samples.iter_mut();
        column::take(&mut rest, span.count, |start| {
            if let Some(sample) = places.next() {
                sample.start_ms = NonZeroI64::new(start);
            }
        })?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Unreadable::Damaged) }
}

fn header(rest: &mut &[u8]) -> Result<(Span, u8), Unreadable> {
    let (&[version, flags], after) = rest.split_first_chunk::<2>().ok_or(Unreadable::Damaged)?;
    // A flag that is unknown here stands for a column that must not be passed over.
    if version != VERSION || flags & !FLAG_STARTS != 0 {
        return Err(Unreadable::Version(version));
    }
    *rest = after;
    let count = take_count(rest)?;
    let (first, after) = rest.split_first_chunk::<8>().ok_or(Unreadable::Damaged)?;
    *rest = after;
    let first_ms = i64::from_be_bytes(*first);
    let length_ms = varint::take(rest).ok_or(Unreadable::Damaged)?;
    let last_ms = first_ms.checked_add_unsigned(length_ms).ok_or(Unreadable::Damaged)?;
    let possible = (1..=SAMPLES_MAX).contains(&count)
        && count as u64 - 1 <= length_ms
        && (count > 1 || length_ms == 0);
    if !possible {
        return Err(Unreadable::Damaged);
    }
    Ok((Span { count, first_ms, last_ms }, flags))
}

fn take_count(rest: &mut &[u8]) -> Result<usize, Unreadable> {
    let count = varint::take(rest).ok_or(Unreadable::Damaged)?;
    usize::try_from(count).map_err(|_| Unreadable::Damaged)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, Unreadable> {
    let (&byte, after) = rest.split_first().ok_or(Unreadable::Damaged)?;
    *rest = after;
    Ok(byte)
}

#[cfg(test)]
mod tests;
