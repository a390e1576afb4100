//! Prometheus' XOR chunks: float samples as bits, both ways, with every NaN kept bit for bit.
//!
//! The layout is that of Gorilla (Pelkonen et al., VLDB 2015) with Prometheus' field widths: bits
//! go most significant first. Knows no series and no frame.

use bytes::Bytes;
use thiserror::Error;

use self::bits::{BitReader, BitWriter};
use crate::model::sample::Sample;

mod bits;

/// Samples of one chunk at most. Prometheus cuts its own chunks at about as many; a reader may
/// decode a whole chunk to get at one sample.
const CHUNK_SAMPLES_MAX: usize = 120;

/// The widths of a delta of deltas, each behind a prefix of one more 1 bit.
const DELTA_WIDTHS: [u32; 3] = [14, 17, 20];

/// One chunk of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Time of its first sample in unix milliseconds.
    pub min_ms: i64,
    /// Time of its last sample in unix milliseconds.
    pub max_ms: i64,
    /// The encoded samples.
    pub data: Bytes,
}

/// Bytes that are not an XOR chunk.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("not a valid XOR chunk: it ends within sample {sample} of {samples}")]
pub struct BadChunk {
    /// The sample that could not be read, from 0.
    pub sample: usize,
    /// How many samples the chunk's header promises.
    pub samples: usize,
}

/// Encodes samples, which must ascend strictly by time, into chunks that are ascending and
/// disjoint. Start timestamps are left out: the encoding has no place for them.
pub fn encode_chunks(samples: &[Sample]) -> Vec<Chunk> {
    samples.chunks(CHUNK_SAMPLES_MAX).filter_map(encode_chunk).collect()
}

fn encode_chunk(samples: &[Sample]) -> Option<Chunk> {
    let (first, rest) = samples.split_first()?;
    let last = samples.last()?;
    let count = u16::try_from(samples.len()).ok()?;
    let mut bits = BitWriter::new(count, samples.len() * 4);
    bits.varint(first.timestamp_ms);
    bits.push(first.value.to_bits(), 64);
    let mut window = Window::default();
    let mut previous = *first;
    let mut delta = 0_u64;
    for (position, sample) in rest.iter().enumerate() {
        // Wrapping as Prometheus does: a delta may span more than half of all time.
        let next_delta = sample.timestamp_ms.wrapping_sub(previous.timestamp_ms).cast_unsigned();
        if position == 0 {
            bits.uvarint(next_delta);
        } else {
            push_delta_of_delta(next_delta.wrapping_sub(delta).cast_signed(), &mut bits);
        }
        window.push(sample.value.to_bits() ^ previous.value.to_bits(), &mut bits);
        (previous, delta) = (*sample, next_delta);
    }
    let data = bits.finish();
    Some(Chunk { min_ms: first.timestamp_ms, max_ms: last.timestamp_ms, data })
}

/// Decodes a chunk into pairs of unix milliseconds and value.
///
/// What is allocated is bounded by the bytes that are there: a sample takes at least two bits.
pub fn decode(data: &[u8]) -> Result<Vec<(i64, f64)>, BadChunk> {
    let bad = |sample, samples| BadChunk { sample, samples };
    let (count, body) = data.split_first_chunk().ok_or(bad(0, 0))?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut bits = BitReader::new(body);
    let mut samples = Vec::with_capacity(count.min(body.len().saturating_mul(4)));
    let mut window = Window::default();
    let (mut time, mut delta, mut value) = (0_i64, 0_u64, 0_u64);
    for position in 0..count {
        let mut read = || {
            match position {
                0 => time = bits.varint()?,
                1 => delta = bits.uvarint()?,
                _ => delta = delta.wrapping_add_signed(pull_delta_of_delta(&mut bits)?),
            }
            if position == 0 {
                value = bits.pull(64)?;
            } else {
                time = time.wrapping_add_unsigned(delta);
                value ^= window.pull(&mut bits)?;
            }
            Some((time, f64::from_bits(value)))
        };
        samples.push(read().ok_or(bad(position, count))?);
    }
    Ok(samples)
}

/// A zero is one 0 bit; a prefix of 1 bits says how wide the number after it is.
fn push_delta_of_delta(number: i64, bits: &mut BitWriter) {
    if number == 0 {
        bits.push(0, 1);
        return;
    }
    for (prefix_width, width) in (2_u32..).zip(DELTA_WIDTHS) {
        // One more at the top than in two's complement, one less at the bottom.
        let half = 1_i64 << (width - 1);
        if (1 - half..=half).contains(&number) {
            bits.push((1 << prefix_width) - 2, prefix_width);
            bits.push(number.cast_unsigned() & ((1 << width) - 1), width);
            return;
        }
    }
    bits.push(0b1111, 4);
    bits.push(number.cast_unsigned(), 64);
}

fn pull_delta_of_delta(bits: &mut BitReader<'_>) -> Option<i64> {
    if bits.pull(1)? == 0 {
        return Some(0);
    }
    for width in DELTA_WIDTHS {
        if bits.pull(1)? == 0 {
            let number = bits.pull(width)?;
            let high = if number > 1 << (width - 1) { 1 << width } else { 0 };
            return Some(number.cast_signed() - high);
        }
    }
    Some(bits.pull(64)?.cast_signed())
}

/// Where the significant bits of the last written difference of values were.
#[derive(Default)]
struct Window {
    /// Number of leading and of trailing zeros; `None` before the first difference.
    zeros: Option<(u32, u32)>,
}

impl Window {
    fn push(&mut self, difference: u64, bits: &mut BitWriter) {
        if difference == 0 {
            bits.push(0, 1);
            return;
        }
        // Five bits must hold it.
        let leading = difference.leading_zeros().min(31);
        let trailing = difference.trailing_zeros();
        if let Some((old_leading, old_trailing)) = self.zeros
            && leading >= old_leading
            && trailing >= old_trailing
        {
            bits.push(0b10, 2);
            bits.push(difference >> old_trailing, 64 - old_leading - old_trailing);
            return;
        }
        self.zeros = Some((leading, trailing));
        let significant = 64 - leading - trailing;
        bits.push(0b11, 2);
        bits.push(u64::from(leading), 5);
        // Six bits hold 64 as 0; no significant bits at all does not occur.
        bits.push(u64::from(significant % 64), 6);
        bits.push(difference >> trailing, significant);
    }

    fn pull(&mut self, bits: &mut BitReader<'_>) -> Option<u64> {
        if bits.pull(1)? == 0 {
            return Some(0);
        }
        if bits.pull(1)? == 1 {
            let leading = u32::try_from(bits.pull(5)?).ok()?;
            let significant = match u32::try_from(bits.pull(6)?).ok()? {
                0 => 64,
                other => other,
            };
            // More than 64 bits in all is damage.
            self.zeros = Some((leading, 64_u32.checked_sub(leading + significant)?));
        }
        // A window must come before it is reused.
        let (leading, trailing) = self.zeros?;
        Some(bits.pull(64 - leading - trailing)? << trailing)
    }
}

#[cfg(test)]
mod tests;
