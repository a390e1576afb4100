//! How a counter is walked: differences, restarts, dips and resets against a mark (ledger.md, "A
//! minute's value", rule 1). Knows points only.

use super::Flags;
use super::track::{Point, START_TOLERANCE_MS};

/// A counter that goes back within this time, and not below the half, has not begun anew: two
/// clocks, a stale answer, or two senders under one name.
const DIP_MS_MAX: i64 = 120_000;

/// A first sample counts whole when its counter began at most this long before.
const FIRST_MS_MAX: i64 = 3_600_000;

/// The sample that the next one is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mark {
    t_ms: i64,
    value: i64,
}

/// What a minute of a counter, or of several, came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// In the counter's whole numbers.
    pub(super) counted: i128,
    pub(super) samples: u32,
    pub(super) resets: u32,
    pub(super) flags: Flags,
    /// The times over which something was counted, from (exclusive) and to.
    pub(super) intervals: Vec<(i64, i64)>,
}

/// Where a walk stands before a minute.
#[derive(Clone, Copy, Debug)]
pub(super) enum Before<'p> {
    /// The supplied samples of the ten minutes that end with the last one, and whether that is a gap.
    Known {
        /// Not empty, sorted by time.
        points: &'p [Point<i64>],
        /// The last one lies before the minute before.
        gap: bool,
    },
    /// No sample of this source within seven days.
    Nothing,
    /// Another source supplied hours since the last sample, up to this time.
    Foreign {
        /// The end of the last such hour, unix milliseconds.
        end_ms: i64,
        /// Whether this source has a sample before it.
        seen: bool,
    },
}

impl Tally {
    /// Walks a minute's supplied samples.
    pub(super) fn of_minute(before: Before<'_>, points: &[Point<i64>]) -> Tally {
        let mut tally =
            Tally { samples: u32::try_from(points.len()).unwrap_or(u32::MAX), ..Tally::default() };
        let mut points = points.iter();
        let mut mark = None;
        match before {
            Before::Known { points: past, gap } => {
                mark = mark_after(past);
                tally.flags.gap = gap;
            }
            Before::Nothing => {
                if let Some(first) = points.next() {
                    tally.begin(first, i64::MIN, |flags| &mut flags.gap);
                    mark = Some(Mark { t_ms: first.t_ms, value: first.value });
                }
            }
            Before::Foreign { end_ms, seen } => {
                if let Some(first) = points.next() {
                    let begun_after = if seen { i64::MAX } else { end_ms };
                    tally.begin(first, begun_after, |flags| &mut flags.column);
                    mark = Some(Mark { t_ms: first.t_ms, value: first.value });
                }
            }
        }
        for point in points {
            let from = mark.unwrap_or(Mark { t_ms: point.t_ms, value: point.value });
            mark = Some(tally.step(from, point));
        }
        tally
    }

    /// A first sample: it counts where its counter is known to have begun a short time ago, and
    /// after what others supplied; else the flag says that it does not.
    fn begin(
        &mut self,
        first: &Point<i64>,
        begun_after_ms: i64,
        flag: impl Fn(&mut Flags) -> &mut bool,
    ) {
        let known = first.start_ms.filter(|start_ms| {
            first.t_ms.saturating_sub(*start_ms) <= FIRST_MS_MAX && *start_ms >= begun_after_ms
        });
        match known {
            Some(start_ms) => {
                self.counted += i128::from(first.value);
                self.intervals.push((start_ms.min(first.t_ms), first.t_ms));
            }
            None => *flag(&mut self.flags) = true,
        }
    }

    /// One step of the walk; gives the new mark.
    fn step(&mut self, mark: Mark, point: &Point<i64>) -> Mark {
        let restarted = point
            .start_ms
            .filter(|start_ms| start_ms.saturating_sub(mark.t_ms) > START_TOLERANCE_MS);
        if let Some(start_ms) = restarted {
            self.counted += i128::from(point.value);
            self.resets += 1;
            self.intervals.push((start_ms.min(point.t_ms), point.t_ms));
        } else if point.value >= mark.value {
            self.counted += i128::from(point.value) - i128::from(mark.value);
            self.intervals.push((mark.t_ms, point.t_ms));
        } else if point.t_ms - mark.t_ms <= DIP_MS_MAX
            && 2 * i128::from(point.value) >= i128::from(mark.value)
        {
            self.flags.dip = true;
            return mark;
        } else {
            self.counted += i128::from(point.value);
            self.resets += 1;
            self.intervals.push((mark.t_ms, point.t_ms));
        }
        Mark { t_ms: point.t_ms, value: point.value }
    }

    /// Adds another counter's minute.
    pub(super) fn add(&mut self, other: Tally) {
        self.counted += other.counted;
        self.samples = self.samples.saturating_add(other.samples);
        self.resets = self.resets.saturating_add(other.resets);
        self.flags = self.flags.or(other.flags);
        self.intervals.extend(other.intervals);
    }

    /// The length of the union of its intervals, milliseconds.
    pub(super) fn spanned_ms(&self) -> i64 {
        let mut intervals = self.intervals.clone();
        intervals.sort_unstable();
        let mut end = i64::MIN;
        let mut spanned = 0;
        for (from, to) in intervals {
            if to > end {
                spanned += to - from.max(end);
                end = to;
            }
        }
        spanned
    }
}

/// The mark that a walk over these points leaves.
fn mark_after(points: &[Point<i64>]) -> Option<Mark> {
    let mut unused = Tally::default();
    let mut points = points.iter();
    let first = points.next()?;
    let first = Mark { t_ms: first.t_ms, value: first.value };
    Some(points.fold(first, |mark, point| unused.step(mark, point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_that_overlap_or_touch_span_once() {
        let spanned = |intervals: &[(i64, i64)]| {
            Tally { intervals: intervals.to_vec(), ..Tally::default() }.spanned_ms()
        };
        assert_eq!(spanned(&[]), 0);
        assert_eq!(spanned(&[(20, 50), (0, 30)]), 50);
        assert_eq!(spanned(&[(0, 10), (10, 20), (30, 31)]), 21);
        assert_eq!(spanned(&[(0, 100), (10, 20)]), 100);
        assert_eq!(spanned(&[(7, 7)]), 0);
    }
}
