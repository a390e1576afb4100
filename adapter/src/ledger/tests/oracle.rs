//! The rules of ledger.md once more, naive and meant to be read beside it: each step is a scan over
//! all samples and names the rule that it restates (§ is a section of ledger.md, "kinds" the text
//! under its table). Must not know how the production function works.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Family, Flags, Row, Series};
use crate::model::labels::METRIC_NAME;
use crate::model::time::Hour;

use samples::{
    CPU_TIME, Kind, Point, SOURCES, START_TIME, Source, host, kind, plausible, points, rounded_ms,
};

pub(crate) mod samples;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const WEEK: i64 = 168 * HOUR;
/// § Whose counter is it: "Start times are compared with 5 s of tolerance".
const TOLERANCE: i64 = 5 * SECOND;

/// The host names that are one host; sorted.
type Class = Vec<String>;

/// The rows of one family of one guest in one hour, sorted by minute and column.
pub(crate) fn rows_of_hour(series: &[Series], family: Family, hour: Hour) -> Vec<Row> {
    let table = Table::of(series, family);
    let Some(source) = table.supplier(hour) else { return Vec::new() };
    let classes = classes(series, hour);
    let overlapping = overlapping(&table, &classes, source, hour);
    let cpu = cpu_counters(series, &classes, hour);
    let columns: BTreeSet<String> =
        table.of_source(source).iter().map(|point| point.column.clone()).collect();
    let mut rows = Vec::new();
    for column in columns {
        let counters = table.counters(source, &classes, &column);
        for minute in (0..60).map(|number| hour.start_ms() + number * MINUTE) {
            // "A minute without samples has no row."
            let has_samples = |one: &&Counter| !one.in_minute(minute).is_empty();
            let counters: Vec<&Counter> = counters.iter().filter(has_samples).collect();
            if counters.is_empty() {
                continue;
            }
            let cell = Cell { column: &column, minute, counters: &counters };
            let row = match kind(family, source) {
                Kind::Gauge => Some(cell.gauge(&cpu)),
                Kind::Delta => Some(cell.delta()),
                Kind::Counter if matches!(family, Family::Cpu) => cell.cpu(),
                Kind::Counter => Some(cell.counter()),
            };
            if let Some(mut row) = row {
                // Gauges are not added.
                row.flags.overlap = kind(family, source) != Kind::Gauge
                    && counters.iter().any(|one| overlapping.contains(&one.class));
                rows.push(row);
            }
        }
    }
    rows.sort_by_key(|row| (row.minute_ms, row.column.clone()));
    rows
}

/// The cpu counters of each host, where the exporter supplies cpu in this hour: they decide between
/// the gauges of several hosts.
fn cpu_counters(series: &[Series], classes: &[Class], hour: Hour) -> Vec<Counter> {
    let table = Table::of(series, Family::Cpu);
    let is_supplied = table.supplier(hour) == Some(Source::Exporter);
    if is_supplied { table.counters(Source::Exporter, classes, "total") } else { Vec::new() }
}

/// All samples of one family, and which column of the table supplies each hour.
struct Table {
    points: Vec<(Source, Vec<Point>)>,
    suppliers: BTreeMap<Hour, Source>,
    /// What workers sent in hours that belong to another guest of the same name.
    elsewhere: Vec<Point>,
}

impl Table {
    /// § Families: "in a UTC hour the column with samples in the most minutes supplies the family,
    /// ties to the left".
    fn of(series: &[Series], family: Family) -> Table {
        let (elsewhere, own): (Vec<Series>, Vec<Series>) =
            series.iter().cloned().partition(|one| one.elsewhere);
        let elsewhere = points(&elsewhere, family, Source::Worker);
        let points = SOURCES.map(|source| (source, points(&own, family, source))).to_vec();
        let all = || points.iter().flat_map(|(_, points)| points);
        let hours: BTreeSet<Hour> = all().map(|point| Hour::of(point.t)).collect();
        let mut suppliers = BTreeMap::new();
        for hour in hours {
            let mut most = 0;
            for (source, points) in &points {
                let of_hour = points.iter().filter(|point| Hour::of(point.t) == hour);
                let minutes = of_hour.map(|point| minute(point.t)).collect::<BTreeSet<i64>>().len();
                if minutes > most {
                    most = minutes;
                    suppliers.insert(hour, *source);
                }
            }
        }
        Table { points, suppliers, elsewhere }
    }

    fn supplier(&self, hour: Hour) -> Option<Source> {
        self.suppliers.get(&hour).copied()
    }

    fn of_source(&self, wanted: Source) -> &[Point] {
        self.points.iter().find(|(source, _)| *source == wanted).map_or(&[], |(_, points)| points)
    }

    /// § Whose counter: "A physical counter is (guest, family, column1, host)".
    fn counters(&self, source: Source, classes: &[Class], column: &str) -> Vec<Counter> {
        let foreign = self.suppliers.iter().filter(|(_, supplier)| **supplier != source);
        let foreign_hours: Vec<Hour> = foreign.map(|(hour, _)| *hour).collect();
        let counter = |class: &Class| {
            let is_own = |point: &&Point| class.contains(&point.host) && point.column == column;
            let place = |point: &Point| (Hour::of(point.t), point.host.clone());
            Counter {
                class: class.clone(),
                supplied: self.supplied(source, class, column),
                foreign_hours: foreign_hours.clone(),
                hosts: self.of_source(source).iter().filter(is_own).map(place).collect(),
                elsewhere: self.elsewhere.iter().map(place).collect(),
            }
        };
        classes.iter().map(counter).collect()
    }

    /// § A minute's value: "In minute m the first copy that has a sample supplies the minute", in
    /// the hours that this source supplies. In order of time.
    fn supplied(&self, source: Source, class: &Class, column: &str) -> Vec<Point> {
        let of_counter: Vec<&Point> = self
            .of_source(source)
            .iter()
            .filter(|point| class.contains(&point.host) && point.column == column)
            .collect();
        let mut supplied = Vec::new();
        for point in &of_counter {
            let has_earlier_copy = of_counter
                .iter()
                .any(|other| other.copy < point.copy && minute(other.t) == minute(point.t));
            if self.supplier(Hour::of(point.t)) == Some(source) && !has_earlier_copy {
                supplied.push((*point).clone());
            }
        }
        supplied.sort_by_key(|point| point.t);
        supplied
    }
}

/// § A minute's value: "Minute m is [m, m + 60 s)".
fn minute(t: i64) -> i64 {
    t.div_euclid(MINUTE) * MINUTE
}

/// § Whose counter: "Hosts on which the guest's start times lie within 5 s of each other are one
/// host under two names", by the start times of each name's latest hour of the last 7 days.
fn classes(series: &[Series], hour: Hour) -> Vec<Class> {
    let names: BTreeSet<String> = series.iter().map(|one| host(&one.labels)).collect();
    let mut classes: Vec<(Class, Vec<i64>)> = names
        .into_iter()
        .map(|name| (vec![name.clone()], latest_starts(series, &name, hour)))
        .collect();
    let is_near = |left: &[i64], right: &[i64]| {
        left.iter().any(|a| right.iter().any(|b| (a - b).abs() <= TOLERANCE))
    };
    // Two that are one host become one, until no two are.
    'again: loop {
        for left in 0..classes.len() {
            for right in left + 1..classes.len() {
                if is_near(&classes[left].1, &classes[right].1) {
                    let (names, starts) = classes.remove(right);
                    classes[left].0.extend(names);
                    classes[left].1.extend(starts);
                    continue 'again;
                }
            }
        }
        break;
    }
    let mut classes: Vec<Class> = classes.into_iter().map(|(names, _)| names).collect();
    // A class goes by its smallest name: that is also how classes sort.
    for names in &mut classes {
        names.sort();
    }
    classes.sort();
    classes
}

/// The known start times on a host name in the latest hour that has any.
fn latest_starts(series: &[Series], name: &str, hour: Hour) -> Vec<i64> {
    let mut known: Vec<(i64, i64)> = Vec::new();
    for one in series.iter().filter(|one| host(&one.labels) == name) {
        for sample in one.samples.iter().filter(|sample| sample.value.is_finite()) {
            let start = match one.labels.get(METRIC_NAME) {
                START_TIME => Some(rounded_ms(sample.value)),
                CPU_TIME => sample.start_ms.map(std::num::NonZero::get),
                _ => None,
            };
            let is_counted = one.labels.get(METRIC_NAME) == START_TIME || sample.value >= 0.0;
            let start = start.filter(|start| is_counted && plausible(*start, sample.timestamp_ms));
            known.extend(start.map(|start| (sample.timestamp_ms, start)));
        }
    }
    let in_time = |at: &Hour| *at >= Hour(hour.0 - 168) && *at <= hour;
    let latest = known.iter().map(|(t, _)| Hour::of(*t)).filter(in_time).max();
    let of_latest = known.iter().filter(|(t, _)| Some(Hour::of(*t)) == latest);
    of_latest.map(|(_, start)| *start).collect()
}

/// § Whose counter: "Two hosts that overlap for over an hour with no start time known are added,
/// flagged": the classes whose samples without a start time, in this hour and the ones beside it,
/// share over an hour with another class'.
fn overlapping(table: &Table, classes: &[Class], source: Source, hour: Hour) -> Vec<Class> {
    let span = |class: &Class| {
        let near = table.of_source(source).iter().filter(|point| {
            class.contains(&point.host)
                && point.start.is_none()
                && point.t >= hour.start_ms() - HOUR
                && point.t < hour.start_ms() + HOUR
        });
        let times: Vec<i64> = near.map(|point| point.t).collect();
        Some((*times.iter().min()?, *times.iter().max()?))
    };
    let overlap = |left: &Class, right: &Class| {
        let (Some((f1, l1)), Some((f2, l2))) = (span(left), span(right)) else { return false };
        left != right && l1.min(l2) - f1.max(f2) > HOUR
    };
    let is_overlapping = |class: &&Class| classes.iter().any(|other| overlap(class, other));
    classes.iter().filter(is_overlapping).cloned().collect()
}

/// One physical counter (or gauge, or delta) of one column1.
struct Counter {
    class: Class,
    supplied: Vec<Point>,
    /// The hours that another column of the table supplied.
    foreign_hours: Vec<Hour>,
    /// The hours that it has samples in, and the hosts that these name.
    hosts: BTreeSet<(Hour, String)>,
    /// The hours in which workers meant another guest, and the hosts that they named.
    elsewhere: BTreeSet<(Hour, String)>,
}

/// What a counter did in a minute.
#[derive(Default)]
struct Counted {
    amount: i128,
    samples: usize,
    resets: u32,
    gap: bool,
    dip: bool,
    column: bool,
    /// The time that the amounts were counted over: after the first, up to the second.
    intervals: Vec<(i64, i64)>,
}

impl Counter {
    fn in_minute(&self, wanted: i64) -> Vec<&Point> {
        self.supplied.iter().filter(|point| minute(point.t) == wanted).collect()
    }

    /// The end of the last hour before the one of minute `m`, within the 7 days before `m`, that
    /// another column supplied. § Families: "where an hour supplied by another column lies
    /// between, its first sample counts 0, flagged".
    fn foreign_end(&self, m: i64) -> Option<i64> {
        let is_here =
            |host: &str| host.is_empty() || self.hosts.contains(&(Hour::of(m), host.to_owned()));
        let elsewhere = self.elsewhere.iter().filter(|(_, host)| is_here(host));
        let foreign = self.foreign_hours.iter().chain(elsewhere.map(|(hour, _)| hour));
        let before = foreign.filter(|hour| **hour < Hour::of(m));
        before.map(|hour| hour.start_ms() + HOUR).filter(|end| *end > m - WEEK).max()
    }

    /// § A minute's value, 1.
    fn count(&self, m: i64) -> Counted {
        let in_reach = m - WEEK..m;
        let predecessor = self.supplied.iter().rfind(|point| in_reach.contains(&point.t));
        let mut mark = predecessor.map(|last| self.mark_at(last));
        let foreign_end = self.foreign_end(m);
        let mut counted = Counted::default();
        for point in self.in_minute(m) {
            counted.samples += 1;
            if let Some(last) = predecessor.filter(|_| counted.samples == 1) {
                if foreign_end.is_some_and(|end| last.t < end) {
                    counted.column = true;
                    mark = Some(point.clone());
                    continue;
                }
                // "A predecessor before minute m − 1 is a gap".
                counted.gap = last.t < m - MINUTE;
            }
            if let Some(mark) = &mut mark {
                counted.step(mark, point);
            } else {
                counted.begin(point, foreign_end);
                mark = Some(point.clone());
            }
        }
        counted
    }

    /// § A minute's value, 1: "The mark at a minute's begin is found by walking these rules over the
    /// supplied samples of the ten minutes that end with the last one before it".
    fn mark_at(&self, last: &Point) -> Point {
        let in_walk = |point: &&Point| point.t > last.t - 10 * MINUTE && point.t <= last.t;
        let mut walked = self.supplied.iter().filter(in_walk);
        let mut mark = walked.next().unwrap().clone();
        let mut ignored = Counted::default();
        for point in walked {
            ignored.step(&mut mark, point);
        }
        mark
    }
}

/// One minute of one column1, with the counters that have samples in it.
struct Cell<'a> {
    column: &'a str,
    minute: i64,
    counters: &'a [&'a Counter],
}

impl Cell<'_> {
    fn row(&self, value: f64, samples: usize) -> Row {
        Row {
            column: self.column.to_owned(),
            minute_ms: self.minute,
            value,
            samples: u32::try_from(samples).unwrap(),
            resets: 0,
            flags: Flags { gap: false, dip: false, column: false, overlap: false },
        }
    }

    /// § A minute's value, 3: "the last sample of the minute; with several hosts, the host whose
    /// cpu time grew most in that minute, then the smallest name".
    fn gauge(&self, cpu: &[Counter]) -> Row {
        let growth = |counter: &Counter| {
            let of_host = cpu.iter().find(|one| one.class == counter.class);
            of_host.map_or(0, |one| one.count(self.minute).amount)
        };
        let most = self.counters.iter().map(|one| growth(one)).max().unwrap();
        let chosen = self.counters.iter().find(|one| growth(one) == most).unwrap();
        let samples = chosen.in_minute(self.minute);
        self.row(samples.last().unwrap().gauge, samples.len())
    }

    /// § A minute's value, 3: "the sum of the minute's samples".
    #[expect(clippy::cast_precision_loss, reason = "bytes are below 2^53")]
    fn delta(&self) -> Row {
        let samples: Vec<&Point> =
            self.counters.iter().flat_map(|one| one.in_minute(self.minute)).collect();
        let sum: i128 = samples.iter().map(|point| point.whole).sum();
        self.row(sum as f64, samples.len())
    }

    /// § Whose counter: "Different hosts are different counters …: their differences are added."
    #[expect(clippy::cast_precision_loss, reason = "bytes are below 2^53; cpu is divided once")]
    fn counter(&self) -> Row {
        let counted: Vec<Counted> =
            self.counters.iter().map(|one| one.count(self.minute)).collect();
        let amount: i128 = counted.iter().map(|one| one.amount).sum();
        let mut row = self.row(amount as f64, counted.iter().map(|one| one.samples).sum());
        row.resets = counted.iter().map(|one| one.resets).sum();
        row.flags.gap = counted.iter().any(|one| one.gap);
        row.flags.dip = counted.iter().any(|one| one.dip);
        row.flags.column = counted.iter().any(|one| one.column);
        row
    }

    /// § A minute's value, 2: "100 × the sum of the differences of all hosts ÷ the length of the
    /// union of the intervals they span, divided once", and "a minute with no interval has no cpu
    /// row". Nanoseconds by milliseconds: 100 / 10^6 = 1 / 10^4.
    #[expect(clippy::cast_precision_loss, reason = "a minute's union is far below 2^53")]
    fn cpu(&self) -> Option<Row> {
        let intervals = self.counters.iter().flat_map(|one| one.count(self.minute).intervals);
        let length = union_length(intervals);
        let mut row = self.counter();
        row.value /= (length * 10_000) as f64;
        (length > 0).then_some(row)
    }
}

impl Counted {
    /// § A minute's value, 1: the four rules, in their order.
    fn step(&mut self, mark: &mut Point, point: &Point) {
        let restart = point.start.filter(|start| *start > mark.t + TOLERANCE);
        if let Some(start) = restart {
            self.amount += point.whole;
            self.resets += 1;
            self.intervals.push((start, point.t));
        } else if point.whole >= mark.whole {
            self.amount += point.whole - mark.whole;
            self.intervals.push((mark.t, point.t));
        } else if point.t - mark.t <= 120 * SECOND && 2 * point.whole >= mark.whole {
            self.dip = true;
            return; // "Except after a dip, (t, v) is the new mark."
        } else {
            self.amount += point.whole;
            self.resets += 1;
            self.intervals.push((mark.t, point.t));
        }
        *mark = point.clone();
    }

    /// § A minute's value, 1: "No predecessor: v if the start time is known and at most one hour
    /// before t, else 0." What another column supplied since the start is not counted again.
    fn begin(&mut self, point: &Point, foreign_end: Option<i64>) {
        match point.start.filter(|start| point.t - start <= HOUR) {
            Some(start) if foreign_end.is_none_or(|end| start >= end) => {
                self.amount += point.whole;
                self.intervals.push((start, point.t));
            }
            Some(_) => self.column = true,
            None if foreign_end.is_some() => self.column = true,
            None => self.gap = true,
        }
    }
}

/// The number of milliseconds that lie in at least one of the intervals.
fn union_length(intervals: impl Iterator<Item = (i64, i64)>) -> i64 {
    let mut sorted: Vec<(i64, i64)> = intervals.collect();
    sorted.sort_unstable();
    let mut covered_to = i64::MIN;
    let mut length = 0;
    for (from, to) in sorted {
        length += (to - from.max(covered_to)).max(0);
        covered_to = covered_to.max(to);
    }
    length
}
