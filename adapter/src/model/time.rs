//! Hours, days, weeks and windows of sample time, and ranges of milliseconds that cannot overflow.
//! Knows no clock: the present is an argument.

/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// Milliseconds in a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// Milliseconds in a week.
pub const WEEK_MS: i64 = 7 * DAY_MS;

macro_rules! span {
    ($(#[$doc:meta])* $name:ident, $length:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i32);

        impl $name {
            /// The span that holds this unix millisecond. Times beyond the year 245,000 fall into
            /// the last hour that can be named; no sample is taken from there.
            pub fn of(unix_ms: i64) -> $name {
                let number = unix_ms.div_euclid($length);
                $name(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }))
            }

            /// Its first millisecond.
            pub fn start_ms(self) -> i64 {
                i64::from(self.0) * $length
            }

            /// Its last millisecond.
            pub fn end_ms(self) -> i64 {
                self.start_ms() + ($length - 1)
            }
        }
    };
}

span!(
    /// An hour of sample time: unix time divided by 3,600 s. Heads are partitioned by it.
    Hour, HOUR_MS
);
span!(
    /// A UTC day: unix time divided by 86,400 s. Local's heads are dropped by it.
    Day, DAY_MS
);
span!(
    /// A week, from Thursday to Wednesday: unix time divided by 7 days. The index is kept by it.
    Week, WEEK_MS
);

span!(
    /// Four weeks: unix time divided by 28 days. Chunks and the ledger's rows are dropped by it.
    Month, 4 * WEEK_MS
);

/// A span of sample time that is sealed at once: some whole hours that divide a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first hour, which names it in the store.
    pub first: Hour,
    /// How many hours it has.
    pub hours: i32,
}

impl Window {
    /// The window of this length that holds an hour.
    pub fn of(hour: Hour, hours: i32) -> Window {
        Window { first: Hour(hour.0.div_euclid(hours) * hours), hours }
    }

    /// Its last hour.
    pub fn last(self) -> Hour {
        Hour(self.first.0 + self.hours - 1)
    }

    /// Its last millisecond.
    pub fn end_ms(self) -> i64 {
        self.last().end_ms()
    }

    /// The times of all its samples.
    pub fn range(self) -> TimeRange {
        TimeRange { start_ms: self.first.start_ms(), end_ms: self.end_ms() }
    }
}

impl Week {
    /// The hours of this week, first and last.
    pub fn hours(self) -> (Hour, Hour) {
        (Hour::of(self.start_ms()), Hour::of(self.end_ms()))
    }
}

/// A range of unix milliseconds, both ends included, as remote_read sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// First millisecond.
    pub start_ms: i64,
    /// Last millisecond.
    pub end_ms: i64,
}

impl TimeRange {
    /// The part of this range that lies in another; `None` where they do not meet. Prometheus asks
    /// for ranges as wide as 18 billion years: a query is cut to what can be stored before anything
    /// walks over it.
    pub fn within(self, other: TimeRange) -> Option<TimeRange> {
        let start_ms = self.start_ms.max(other.start_ms);
        let end_ms = self.end_ms.min(other.end_ms);
        (start_ms <= end_ms).then_some(TimeRange { start_ms, end_ms })
    }

    /// Whether a sample's time lies in it.
    pub fn contains(self, unix_ms: i64) -> bool {
        self.start_ms <= unix_ms && unix_ms <= self.end_ms
    }

    /// The weeks it touches, oldest first.
    pub fn weeks(self) -> impl DoubleEndedIterator<Item = Week> + use<> {
        (Week::of(self.start_ms).0..=Week::of(self.end_ms).0).map(Week)
    }

    /// The hours it touches within one week, first and last; `None` where it does not touch it.
    pub fn hours_in(self, week: Week) -> Option<(Hour, Hour)> {
        let week = TimeRange { start_ms: week.start_ms(), end_ms: week.end_ms() };
        let part = self.within(week)?;
        Some((Hour::of(part.start_ms), Hour::of(part.end_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_their_own_ends() {
        for ms in [-1, 0, 1, 1_700_000_000_123, -1_700_000_000_123] {
            assert!(Hour::of(ms).start_ms() <= ms && ms <= Hour::of(ms).end_ms());
            assert!(Week::of(ms).start_ms() <= ms && ms <= Week::of(ms).end_ms());
            assert_eq!(Day::of(Day::of(ms).end_ms() + 1).0, Day::of(ms).0 + 1);
        }
    }

    #[test]
    fn the_widest_range_prometheus_asks_for_is_cut_without_overflow() {
        let asked =
            TimeRange { start_ms: -9_223_309_901_257_974_000, end_ms: 9_223_309_901_257_974_999 };
        let kept = TimeRange { start_ms: 0, end_ms: 2 * WEEK_MS };
        assert_eq!(asked.within(kept), Some(kept));
        assert_eq!(kept.weeks().count(), 3);
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        assert_eq!(all.within(kept), Some(kept));
        assert!(Hour::of(i64::MIN) < Hour::of(i64::MAX));
    }

    #[test]
    fn ranges_that_do_not_meet() {
        let range = TimeRange { start_ms: 10, end_ms: 20 };
        assert_eq!(range.within(TimeRange { start_ms: 21, end_ms: 30 }), None);
        assert_eq!(range.hours_in(Week(1)), None);
        assert_eq!(range.hours_in(Week(0)), Some((Hour(0), Hour(0))));
    }
}
