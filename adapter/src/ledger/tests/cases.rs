//! Cases worked by hand (`cases.yaml`), run through the oracle and through the production function,
//! in both orders of series and of arrival. Knows the notation of the file, and no rule.

use std::collections::BTreeMap;
use std::num::NonZeroI64;
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::oracle;
use crate::ledger::{self, Family, Flags, Row, Series};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::sample::{STALE_MARKER_BITS, Sample, sort_and_merge};
use crate::model::time::Hour;

/// By family's name: its rows, or its sums.
type OfFamilies = BTreeMap<String, Vec<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The rule that the case shows, in a line.
    why: String,
    /// The date of every time that names none.
    #[serde(default = "a_tuesday")]
    day: String,
    /// Whether the copies come in the order of ledger.md in which the series are listed: it is that
    /// of a hash, which nobody works out by hand.
    #[serde(default)]
    copies_in_order: bool,
    series: Vec<WrittenSeries>,
    /// Every row of every family; a family that is not named has none.
    rows: OfFamilies,
    /// The rows without the late samples.
    #[serde(default)]
    rows_before: Option<OfFamilies>,
    /// `FROM TO COLUMN SUM`, where the column `total` is all of them.
    #[serde(default)]
    sums: OfFamilies,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSeries {
    metric: String,
    labels: BTreeMap<String, String>,
    /// `[DATE] TIME VALUE`, divided by commas; the file's head explains the other words.
    samples: String,
}

fn a_tuesday() -> String {
    "2026-03-10".to_owned()
}

type Function = fn(&[Series], Family, Hour) -> Vec<Row>;
const FUNCTIONS: [(&str, Function); 2] =
    [("oracle", oracle::rows_of_hour), ("production", ledger::rows_of_hour)];

#[test]
fn every_case_worked_by_hand() {
    let cases: Vec<Case> = serde_saphyr::from_str(include_str!("cases.yaml")).unwrap();
    assert!(cases.len() > 30, "only {} cases were read", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        assert!(!case.why.is_empty(), "{}: say why", case.name);
        case.check_order();
        case.check_rows(false, &case.rows, &mut wrong);
        if let Some(rows) = &case.rows_before {
            case.check_rows(true, rows, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Case {
    fn check_order(&self) {
        let copy = |one: &WrittenSeries| oracle::samples::copy_id(&one.labels());
        let is_ordered = self.series.iter().map(copy).is_sorted();
        assert!(is_ordered || !self.copies_in_order, "{}: copies in another order", self.name);
    }

    fn check_rows(&self, without_late: bool, wanted: &OfFamilies, wrong: &mut Vec<String>) {
        for name in wanted.keys().chain(self.sums.keys()) {
            let is_known = Family::ALL.iter().any(|family| family.name() == name);
            assert!(is_known, "{}: no family {name}", self.name);
        }
        for reversed in [false, true] {
            let series = self.series(without_late, reversed);
            for ((who, function), family) in
                FUNCTIONS.iter().flat_map(|function| Family::ALL.map(|family| (function, family)))
            {
                let rows = rows_of_all_hours(&series, family, *function);
                let wanted = wanted.get(family.name()).map_or(&[][..], Vec::as_slice);
                let wanted = wanted.iter().map(|row| self.read_row(row)).collect::<Vec<_>>();
                if !agree(&wanted, &rows) {
                    let order = if reversed { "reversed" } else { "as written" };
                    let late = if without_late { ", without late samples" } else { "" };
                    let head = format!("{} ({}): {who}, {order}{late}", self.name, family.name());
                    let wanted = wanted.iter().map(|(row, _)| format!("  - {}", show(row)));
                    let found = rows.iter().map(|row| format!("  + {}", show(row)));
                    wrong.extend([head].into_iter().chain(wanted).chain(found));
                }
                for sum in self.sums.get(family.name()).into_iter().flatten() {
                    self.check_sum(&rows, sum);
                }
            }
        }
    }

    /// Reports in ledger.md: "from < m + 59 s ≤ to".
    fn check_sum(&self, rows: &[Row], sum: &str) {
        let mut words = sum.split_whitespace().peekable();
        let (from, to) = (self.time(&mut words), self.time(&mut words));
        let (column, wanted) = (words.next().unwrap(), words.next().unwrap());
        let in_range = rows.iter().filter(|row| {
            let end = row.minute_ms + 59_000;
            from < end && end <= to && (column == "total" || row.column == column)
        });
        let found: f64 = in_range.map(|row| row.value).sum();
        assert_eq!(found.to_string(), wanted, "{}: {sum}", self.name);
    }

    /// The series as the ledger gets them, and those of the start times.
    fn series(&self, without_late: bool, reversed: bool) -> Vec<Series> {
        let mut of_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        for one in &self.series {
            for (sample, start) in self.samples(&one.samples, without_late) {
                if let Some(start) = start {
                    let labels = one.start_labels();
                    of_labels.entry(labels).or_default().push(Sample {
                        timestamp_ms: sample.timestamp_ms,
                        value: seconds(start),
                        start_ms: None,
                    });
                }
                of_labels.entry(one.labels()).or_default().push(sample);
            }
        }
        let mut series: Vec<Series> = of_labels
            .into_iter()
            .map(|(labels, samples)| Series { labels, samples, elsewhere: false })
            .collect();
        if reversed {
            series.reverse();
        }
        for one in &mut series {
            if reversed {
                one.samples.reverse();
            }
            sort_and_merge(&mut one.samples);
        }
        series
    }

    /// Samples with the start time that a series beside says.
    fn samples(&self, text: &str, without_late: bool) -> Vec<(Sample, Option<i64>)> {
        let (mut start, mut own_start) = (None, None);
        let mut samples = Vec::new();
        for item in text.split(',') {
            let mut words = item.split_whitespace().peekable();
            let word = *words.peek().unwrap_or_else(|| panic!("{}: {text}", self.name));
            if ["start", "own-start", "late"].contains(&word) {
                words.next();
            }
            if word == "start" || word == "own-start" {
                let known = words.peek() != Some(&"unknown");
                let time = known.then(|| self.time(&mut words));
                *(if word == "start" { &mut start } else { &mut own_start }) = time;
                continue;
            }
            let timestamp_ms = self.time(&mut words);
            let value = match words.next().unwrap_or_else(|| panic!("{}: {item}", self.name)) {
                "stale" => f64::from_bits(STALE_MARKER_BITS),
                number => number.parse().unwrap(),
            };
            assert_eq!(words.next(), None, "{}: {item}", self.name);
            let start_ms = own_start.and_then(NonZeroI64::new);
            if word != "late" || !without_late {
                samples.push((Sample { timestamp_ms, value, start_ms }, start));
            }
        }
        samples
    }

    /// `MINUTE COLUMN VALUE [resets=N] [samples=N] [gap] [dip] [column] [overlap]`
    fn read_row(&self, text: &str) -> (Row, Option<u32>) {
        let mut words = text.split_whitespace().peekable();
        let mut row = Row {
            minute_ms: self.time(&mut words),
            column: words.next().unwrap().to_owned(),
            value: words.next().unwrap().parse().unwrap(),
            samples: 0,
            resets: 0,
            flags: Flags { gap: false, dip: false, column: false, overlap: false },
        };
        let mut samples = None;
        for word in words {
            match word.split_once('=') {
                Some(("resets", number)) => row.resets = number.parse().unwrap(),
                Some(("samples", number)) => samples = Some(number.parse().unwrap()),
                _ if word == "gap" => row.flags.gap = true,
                _ if word == "dip" => row.flags.dip = true,
                _ if word == "column" => row.flags.column = true,
                _ if word == "overlap" => row.flags.overlap = true,
                _ => panic!("{}: '{word}' in '{text}'", self.name),
            }
        }
        (row, samples)
    }

    /// `[DATE] HH:MM[:SS[.mmm]]` as unix milliseconds.
    fn time<'a>(&self, words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> i64 {
        let date = words.next_if(|word| word.contains('-')).unwrap_or(&self.day);
        let clock = words.next().unwrap_or_else(|| panic!("{}: a time is missing", self.name));
        let seconds = if clock.len() == "HH:MM".len() { ":00" } else { "" };
        let time = humantime::parse_rfc3339(&format!("{date}T{clock}{seconds}Z"))
            .unwrap_or_else(|error| panic!("{}: '{date} {clock}': {error}", self.name));
        i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }
}

impl WrittenSeries {
    fn labels(&self) -> Labels {
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Labels::new(labels.chain([(METRIC_NAME, self.metric.as_str())]))
    }

    fn start_labels(&self) -> Labels {
        let device = ["target_device", "ip", "direction"];
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = labels.filter(|(name, _)| !device.contains(name));
        Labels::new(labels.chain([(METRIC_NAME, "libvirt_domain_start_time_seconds")]))
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of this century are exact")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// The rows of every hour that has a sample, and of the one after it.
fn rows_of_all_hours(series: &[Series], family: Family, function: Function) -> Vec<Row> {
    let samples = series.iter().flat_map(|one| &one.samples);
    let hours = samples.map(|sample| Hour::of(sample.timestamp_ms).0);
    let hours: std::collections::BTreeSet<i32> = hours.flat_map(|hour| [hour, hour + 1]).collect();
    hours.into_iter().flat_map(|hour| function(series, family, Hour(hour))).collect()
}

fn agree(wanted: &[(Row, Option<u32>)], found: &[Row]) -> bool {
    wanted.len() == found.len()
        && wanted.iter().zip(found).all(|((wanted, samples), found)| {
            let mut wanted = wanted.clone();
            wanted.samples = samples.unwrap_or(found.samples);
            wanted == *found
        })
}

fn show(row: &Row) -> String {
    let time = UNIX_EPOCH + std::time::Duration::from_millis(row.minute_ms.try_into().unwrap());
    let flags = [
        (row.flags.gap, " gap"),
        (row.flags.dip, " dip"),
        (row.flags.column, " column"),
        (row.flags.overlap, " overlap"),
    ];
    let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
    let Row { column, value, samples, resets, .. } = row;
    let time = humantime::format_rfc3339_seconds(time);
    format!("{time} {column} {value} resets={resets} samples={samples}{flags}")
}
