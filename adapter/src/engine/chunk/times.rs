//! The times of a chunk's samples: a scrape's grid, and how far each sample is off it.
//! A series that is scraped to the millisecond costs two bytes a chunk.

use super::{Span, Unreadable, column, take_byte, take_count};
use crate::model::sample::Sample;
use crate::model::varint;

/// All at one distance from each other: nothing follows.
const REGULAR: u8 = 0;
/// Near a grid: interval, breaks, a column of how far each is off.
const GRID: u8 = 1;
/// No grid: a column of distances.
const DISTANCES: u8 = 2;

/// Prometheus' intervals are whole seconds nearly always.
const SECOND_MS: u64 = 1_000;

/// A place at which the grid begins anew: a missed scrape, or a scraper that started again.
struct Break {
    /// Samples since the last break.
    after: usize,
    /// How far off the old grid the sample is; it is on the new one.
    off_ms: i64,
}

/// Appends the times, without the first and the last, which the header has.
pub(super) fn push(samples: &[Sample], bytes: &mut Vec<u8>) {
    let distances: Vec<u64> = samples
        .windows(2)
        .map(|pair| match pair {
            [one, next] => next.timestamp_ms.wrapping_sub(one.timestamp_ms).cast_unsigned(),
            _ => 0,
        })
        .collect();
    let first = distances.first().copied().unwrap_or(0);
    if distances.iter().all(|distance| *distance == first) {
        bytes.push(REGULAR);
        return;
    }
    let interval_ms = interval(&distances);
    if let Some((breaks, offs)) = grid(samples, interval_ms) {
        bytes.push(GRID);
        varint::push(interval_ms.cast_unsigned(), bytes);
        varint::push(breaks.len() as u64, bytes);
        for Break { after, off_ms } in breaks {
            varint::push(after as u64, bytes);
            varint::push(varint::zigzag(off_ms), bytes);
        }
        column::push(&offs, bytes);
    } else {
        bytes.push(DISTANCES);
        let distances: Vec<i64> = distances.into_iter().map(u64::cast_signed).collect();
        column::push(&distances, bytes);
    }
}

/// Hands the times to `each`, in order; an error unless they rise from the span's first to its
/// last.
pub(super) fn take(
    rest: &mut &[u8],
    span: Span,
    mut each: impl FnMut(i64),
) -> Result<(), Unreadable> {
    let length_ms = span.last_ms.wrapping_sub(span.first_ms).cast_unsigned();
    let steps = span.count as u64 - 1;
    let mut rising = Rising { last_ms: None, broken: false };
    match take_byte(rest)? {
        REGULAR => {
            if steps > 0 && !length_ms.is_multiple_of(steps) {
                return Err(Unreadable::Damaged);
            }
            let distance_ms = length_ms.checked_div(steps).unwrap_or(0).cast_signed();
            let mut timestamp_ms = span.first_ms;
            for _ in 0..span.count {
                rising.pass(timestamp_ms, &mut each);
                timestamp_ms = timestamp_ms.wrapping_add(distance_ms);
            }
        }
        GRID => take_grid(rest, span, |timestamp_ms| rising.pass(timestamp_ms, &mut each))?,
        DISTANCES => {
            let mut timestamp_ms = span.first_ms;
            rising.pass(timestamp_ms, &mut each);
            column::take(rest, span.count - 1, |distance| {
                timestamp_ms = timestamp_ms.wrapping_add(distance);
                rising.pass(timestamp_ms, &mut each);
            })?;
        }
        _ => return Err(Unreadable::Damaged),
    }
    let whole = !rising.broken && rising.last_ms == Some(span.last_ms);
    if whole { Ok(()) } else { Err(Unreadable::Damaged) }
}

/// Times that rise; what does not is damage, and is not passed on.
struct Rising {
    last_ms: Option<i64>,
    broken: bool,
}

impl Rising {
    fn pass(&mut self, timestamp_ms: i64, each: &mut impl FnMut(i64)) {
        if self.last_ms.is_none_or(|last| last < timestamp_ms) {
            self.last_ms = Some(timestamp_ms);
            each(timestamp_ms);
        } else {
            self.broken = true;
        }
    }
}

/// The interval at which most samples follow each other, in milliseconds; at least 1.
fn interval(distances: &[u64]) -> i64 {
    let mut sorted = distances.to_vec();
    let middle = sorted.len() / 2;
    let (_, median, _) = sorted.select_nth_unstable(middle);
    let median = *median;
    // The distances near the median are whole steps with the jitter of two samples; their mean is
    // the grid's step, but for the jitter of the first and the last of them.
    let near = |distance: &&u64| distance.abs_diff(median) <= median / 8;
    let (sum, count) = distances
        .iter()
        .filter(near)
        .fold((0u128, 0u128), |(sum, count), distance| (sum + u128::from(*distance), count + 1));
    let mean = u64::try_from((sum + count / 2).checked_div(count).unwrap_or(1)).unwrap_or(1);
    let seconds = mean.saturating_add(SECOND_MS / 2) / SECOND_MS * SECOND_MS;
    let drift = mean.abs_diff(seconds);
    let nice = if seconds > 0 && drift <= 2 { seconds } else { mean };
    i64::try_from(nice.max(1)).unwrap_or(i64::MAX)
}

/// Where the grid breaks, and how far each sample is off it; `None` where there is no grid.
fn grid(samples: &[Sample], interval_ms: i64) -> Option<(Vec<Break>, Vec<i64>)> {
    let breaks_max = samples.len() / 16 + 2;
    let off_max = interval_ms / 8;
    let mut breaks = Vec::new();
    let mut offs = Vec::with_capacity(samples.len());
    let mut expected_ms = samples.first()?.timestamp_ms;
    let mut after = 0;
    for sample in samples {
        let mut off_ms = sample.timestamp_ms.checked_sub(expected_ms)?;
        if off_ms.unsigned_abs() > off_max.unsigned_abs() {
            breaks.push(Break { after, off_ms });
            if breaks.len() > breaks_max {
                return None;
            }
            (after, off_ms, expected_ms) = (0, 0, sample.timestamp_ms);
        }
        offs.push(off_ms);
        after += 1;
        expected_ms = expected_ms.wrapping_add(interval_ms);
    }
    Some((breaks, offs))
}

fn take_grid(rest: &mut &[u8], span: Span, mut each: impl FnMut(i64)) -> Result<(), Unreadable> {
    let interval_ms = varint::take(rest).ok_or(Unreadable::Damaged)?.cast_signed();
    let n_breaks = take_count(rest)?;
    let mut breaks = Vec::new();
    for _ in 0..n_breaks {
        let after = take_count(rest)?;
        let off_ms = varint::take(rest).map(varint::unzigzag).ok_or(Unreadable::Damaged)?;
        breaks.push(Break { after, off_ms });
    }
    let mut breaks = breaks.into_iter().peekable();
    let mut expected_ms = span.first_ms;
    let mut after = 0;
    column::take(rest, span.count, |off_ms| {
        if let Some(begin) = breaks.next_if(|place| place.after == after) {
            expected_ms = expected_ms.wrapping_add(begin.off_ms);
            after = 0;
        }
        each(expected_ms.wrapping_add(off_ms));
        after += 1;
        expected_ms = expected_ms.wrapping_add(interval_ms);
    })?;
    if breaks.next().is_none() { Ok(()) } else { Err(Unreadable::Damaged) }
}
