//! A usage report: points grouped twice, into minutes and into periods, as Kanyun did
//! (kanyun-legacy.md, "How a report is computed"). Pure; knows no guest and no store.

use serde::{Serialize, Serializer};

use crate::ledger::MINUTE_MS;

/// What is made of the points of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// The sum; of sums, for a period.
    Sum,
    /// The greatest.
    Max,
    /// The smallest.
    Min,
    /// The mean; of the minutes' means, for a period.
    Avg,
    /// How many points there are.
    Sam,
}

/// A figure of a report. Whole numbers stay exact and are written without a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A whole number.
    Whole(i64),
    /// Any other.
    Real(f64),
}

/// A period of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The time of its first point, cut to the minute; unix milliseconds.
    pub start_ms: i64,
    /// Its figure.
    pub amount: Amount,
}

/// Takes points in order of time and gives the report's buckets.
#[derive(Debug)]
pub struct Grouping {
    statistic: Statistic,
    minutes: Level,
    periods: Level,
    buckets: Vec<Bucket>,
}

/// One of the two groupings: the group that is open now.
#[derive(Debug)]
struct Level {
    length_ms: i64,
    open: Option<Group>,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    start_ms: i64,
    sum: Sum,
    /// Of values: points of a minute, or minutes of a period.
    values: u32,
    /// Of points.
    points: i64,
    max: Amount,
    min: Amount,
}

/// A sum that is exact as long as all it sums are whole numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    whole: i128,
    real: f64,
}

impl Statistic {
    /// The statistic of a name, or of the number that the 2012 command line took for it.
    pub fn named(name: &str) -> Option<Statistic> {
        Some(match name {
            "sum" | "0" => Statistic::Sum,
            "max" | "1" => Statistic::Max,
            "min" | "2" => Statistic::Min,
            "avg" | "3" => Statistic::Avg,
            "sam" | "4" => Statistic::Sam,
            _ => return None,
        })
    }
}

impl Amount {
    /// A figure of a number; whole below 2^53, where a number is known to be exact.
    #[expect(clippy::cast_possible_truncation, reason = "judged to be whole and below 2^53")]
    pub fn of(value: f64) -> Amount {
        const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() < EXACT_BELOW {
            Amount::Whole(value as i64)
        } else {
            Amount::Real(value)
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "only compared, or divided into a mean")]
    fn real(self) -> f64 {
        match self {
            Amount::Whole(whole) => whole as f64,
            Amount::Real(real) => real,
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Amount::Whole(whole) => serializer.serialize_i64(whole),
            Amount::Real(real) => serializer.serialize_f64(real),
        }
    }
}

impl Sum {
    fn add(&mut self, amount: Amount) {
        match amount {
            Amount::Whole(whole) => self.whole += i128::from(whole),
            Amount::Real(real) => self.real += real,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum that is not whole is a float")]
    fn amount(self) -> Amount {
        match i64::try_from(self.whole) {
            Ok(whole) if self.real == 0.0 => Amount::Whole(whole),
            _ => Amount::of(self.whole as f64 + self.real),
        }
    }
}

impl Grouping {
    /// A report with periods of so many minutes.
    pub fn new(statistic: Statistic, period_minutes: u32) -> Grouping {
        let level = |minutes: u32| Level { length_ms: i64::from(minutes) * MINUTE_MS, open: None };
        Grouping {
            statistic,
            minutes: level(1),
            periods: level(period_minutes.max(1)),
            buckets: Vec::new(),
        }
    }

    /// The next point; times never go back.
    pub fn push(&mut self, unix_ms: i64, value: f64) {
        if let Some(minute) = self.minutes.push(unix_ms, Amount::of(value), 1) {
            self.minute(minute);
        }
    }

    fn minute(&mut self, minute: Group) {
        let start_ms = minute.start_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
        let amount = minute.amount(self.statistic);
        if let Some(period) = self.periods.push(start_ms, amount, minute.points) {
            self.period(period);
        }
    }

    fn period(&mut self, period: Group) {
        let amount = period.amount(self.statistic);
        self.buckets.push(Bucket { start_ms: period.start_ms, amount });
    }

    /// How many buckets are complete.
    pub fn complete(&self) -> usize {
        self.buckets.len()
    }

    /// The buckets, in order of time.
    pub fn finish(mut self) -> Vec<Bucket> {
        if let Some(minute) = self.minutes.open.take() {
            self.minute(minute);
        }
        if let Some(period) = self.periods.open.take() {
            self.period(period);
        }
        self.buckets
    }
}

impl Level {
    /// Adds to the open group, or opens one and gives back the one before: a group begins at its
    /// first value, not at an aligned time, and takes what comes before its end.
    fn push(&mut self, unix_ms: i64, amount: Amount, points: i64) -> Option<Group> {
        match &mut self.open {
            Some(group) if unix_ms < group.start_ms + self.length_ms => {
                group.add(amount, points);
                None
            }
            open => {
                let mut sum = Sum::default();
                sum.add(amount);
                open.replace(Group {
                    start_ms: unix_ms,
                    sum,
                    values: 1,
                    points,
                    max: amount,
                    min: amount,
                })
            }
        }
    }
}

impl Group {
    fn add(&mut self, amount: Amount, points: i64) {
        self.sum.add(amount);
        self.values += 1;
        self.points += points;
        if amount.real() > self.max.real() {
            self.max = amount;
        }
        if amount.real() < self.min.real() {
            self.min = amount;
        }
    }

    fn amount(&self, statistic: Statistic) -> Amount {
        match statistic {
            Statistic::Sum => self.sum.amount(),
            Statistic::Max => self.max,
            Statistic::Min => self.min,
            Statistic::Avg => Amount::of(self.sum.amount().real() / f64::from(self.values)),
            Statistic::Sam => Amount::Whole(self.points),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statistic: Statistic, period: u32, points: &[(i64, f64)]) -> Vec<(i64, f64)> {
        let mut grouping = Grouping::new(statistic, period);
        for (seconds, value) in points {
            grouping.push(seconds * 1000, *value);
        }
        let buckets = grouping.finish().into_iter();
        buckets.map(|bucket| (bucket.start_ms / 1000, bucket.amount.real())).collect()
    }

    /// The example of kanyun-legacy.md; seconds from 12:00:00.
    #[test]
    fn the_worked_example() {
        let noon = 1_333_972_800;
        let points: Vec<(i64, f64)> = [
            (361, 1.0),
            (362, 1.0),
            (421, 2.0),
            (481, 5.0),
            (482, 1.0),
            (483, 1.0),
            (484, 1.0),
            (485, 1.0),
            (541, 10.0),
            (601, 20.0),
        ]
        .map(|(seconds, value)| (noon + seconds, value))
        .to_vec();
        for (statistic, figure) in [
            (Statistic::Sum, 43.0),
            (Statistic::Max, 20.0),
            (Statistic::Min, 1.0),
            (Statistic::Avg, 6.96),
            (Statistic::Sam, 10.0),
        ] {
            let buckets = report(statistic, 5, &points);
            let [(start, amount)] = buckets[..] else { panic!("{buckets:?}") };
            assert_eq!(start, 1_333_973_160);
            assert!((amount - figure).abs() < 1e-9, "{statistic:?} {amount}");
        }
        let minutes = report(Statistic::Sum, 1, &points);
        let sums: Vec<f64> = minutes.iter().map(|(_, sum)| *sum).collect();
        assert_eq!(sums, [2.0, 2.0, 9.0, 10.0, 20.0]);
        assert!(minutes.iter().all(|(start, _)| start % 60 == 0));
    }

    /// A group takes what comes before its own end, not what lies in the same minute of the clock.
    #[test]
    fn groups_begin_at_their_first_point() {
        let points = [(59, 1.0), (118, 2.0), (119, 4.0), (600, 8.0)];
        assert_eq!(report(Statistic::Sum, 1, &points), [(0, 3.0), (60, 4.0), (600, 8.0)]);
        assert_eq!(report(Statistic::Sum, 10, &points), [(0, 7.0), (600, 8.0)]);
        assert_eq!(report(Statistic::Sum, 10, &[]), []);
    }

    #[test]
    fn max_and_min_are_the_extremes_and_not_the_last_turns() {
        let points = [(0, 5.0), (60, 9.0), (120, 3.0), (180, 7.0)];
        assert_eq!(report(Statistic::Max, 60, &points), [(0, 9.0)]);
        assert_eq!(report(Statistic::Min, 60, &points), [(0, 3.0)]);
    }

    #[test]
    fn whole_numbers_stay_exact_beyond_what_floats_can_add() {
        let mut grouping = Grouping::new(Statistic::Sum, 60);
        let large = 9_007_199_254_740_991.0;
        for (minute, value) in [large, large, 1.0].into_iter().enumerate() {
            grouping.push(i64::try_from(minute).unwrap() * MINUTE_MS, value);
        }
        let buckets = grouping.finish();
        assert_eq!(buckets[0].amount, Amount::Whole(18_014_398_509_481_983));
        assert_eq!(serde_json::to_string(&buckets[0].amount).unwrap(), "18014398509481983");
    }

    #[test]
    fn numbers_are_written_as_short_as_they_read_back() {
        let written = |value| serde_json::to_string(&Amount::of(value)).unwrap();
        assert_eq!(written(43.0), "43");
        assert_eq!(written(-0.0), "0");
        assert_eq!(written(6.96), "6.96");
        assert_eq!(written(0.1 + 0.2), "0.30000000000000004");
    }
}
