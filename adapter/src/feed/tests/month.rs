//! A month of one worker, with restarts of guest and worker, silence, resends, late and duplicate
//! reports, through the feed and the ledger: against a walk over what was reported, and in some
//! hours row by row against the ledger's oracle.

use std::collections::BTreeMap;

use super::*;
use crate::ledger::tests::oracle;
use crate::ledger::{Family, Series};
use crate::legacy::{Devices, UsageReport};
use crate::model::time::{HOUR_MS, Hour};
use crate::report::{Amount, Statistic};
use crate::usage::Usage;

const GUEST: &str = "instance-00000074@h";
const DAYS: i64 = 31;
const BEGIN_S: i64 = (NOW_S - DAYS * 86_400) / 3600 * 3600;

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// One report of the worker.
#[derive(Clone, Copy)]
struct Report {
    at_s: i64,
    received: u64,
    cpu: u64,
    /// Since the report before; 0 in the first one after the worker's start.
    traffic: u64,
}

impl Report {
    fn messages(self) -> [Frames; 2] {
        let Report { at_s, received, cpu, traffic } = self;
        let info = format!(
            r#"{{"{GUEST}": [["cpu","total",[{at_s}, {cpu}.5]], ["nic","vnet7",[{at_s}, {received}, 0]]]}}"#
        );
        let traffic = format!(r#"{{"116@h": ["10.0.0.2", {at_s}, "{traffic}"]}}"#);
        [frames(&("3", &info)), frames(&("2", &traffic))]
    }
}

/// A report every five minutes, less some hours in which the worker is down.
fn reports(chance: &mut Chance) -> Vec<Report> {
    let (mut reports, mut received, mut unreported) = (Vec::new(), 0, 0);
    let mut down_until = 0;
    let mut worker_started = true;
    for at_s in (0..DAYS * 288).map(|number| BEGIN_S + number * 300 + 2) {
        let moved = chance.below(10_000_000);
        received += moved;
        unreported += moved / 2;
        if chance.below(300) == 0 {
            // The guest restarts: its counters begin anew, far below what they were.
            received = chance.below(1_000);
        }
        if at_s < down_until {
            continue;
        }
        if chance.below(400) == 0 {
            down_until = at_s + 3600 * i64::try_from(chance.below(20)).unwrap();
            worker_started = true;
            continue;
        }
        let traffic = if worker_started { 0 } else { unreported };
        (unreported, worker_started) = (0, false);
        reports.push(Report { at_s, received, cpu: chance.below(200), traffic });
    }
    reports
}

/// What a network makes of it: two in ten come twice, one in ten half a day and more later.
fn delivered(reports: &[Report], chance: &mut Chance) -> Vec<Frames> {
    let mut due: BTreeMap<(u64, u64), Frames> = BTreeMap::new();
    for (number, report) in reports.iter().enumerate() {
        for message in report.messages() {
            let copies = if chance.below(10) < 2 { 2 } else { 1 };
            for _ in 0..copies {
                let late = if chance.below(10) == 0 { 100 + chance.below(200) } else { 0 };
                due.insert(
                    (number as u64 + late, chance.below(u64::from(u32::MAX))),
                    message.clone(),
                );
            }
        }
    }
    due.into_values().collect()
}

/// The bytes of a minute, by minute: what a counter grew by, or all of it where it began anew.
fn received(reports: &[Report]) -> BTreeMap<i64, u64> {
    let pairs = reports.windows(2).map(|pair| {
        let (before, now) = (pair[0].received, pair[1].received);
        (pair[1].at_s / 60 * 60, if now >= before { now - before } else { now })
    });
    // The counter's beginning was not seen.
    reports.first().map(|first| (first.at_s / 60 * 60, 0)).into_iter().chain(pairs).collect()
}

/// All figures here fit.
fn float(whole: u64) -> f64 {
    f64::from(u32::try_from(whole).unwrap())
}

struct Billed {
    usage: Arc<Usage>,
}

impl Billed {
    async fn minutes(&self, family: Family, from_s: i64, to_s: i64) -> BTreeMap<i64, f64> {
        let asked = UsageReport {
            id: GUEST.to_owned(),
            family,
            devices: Devices::Total,
            statistic: Statistic::Sum,
            period_minutes: 1,
            from_ms: from_s * 1000,
            to_ms: to_s * 1000,
        };
        let buckets = self.usage.report(&asked).await.unwrap();
        let value = |amount: Amount| match amount {
            Amount::Whole(whole) => float(u64::try_from(whole).unwrap()),
            Amount::Real(real) => real,
        };
        buckets.iter().map(|one| (one.start_ms / 1000, value(one.amount))).collect()
    }
}

/// What is stored, as the ledger gets it; a few days of it around an hour, as more cannot matter.
async fn stored_around(fed: &Fed, hour: Hour) -> Vec<Series> {
    let range =
        TimeRange { start_ms: hour.start_ms() - 8 * DAY_MS, end_ms: hour.start_ms() + 2 * HOUR_MS };
    let copy = |samples: &[Sample]| (samples.to_vec(), 0);
    let none = [Matcher::not_equal("none", "x")];
    let found = fed.engine.select(range, &none, &copy).await.unwrap();
    found
        .into_iter()
        .map(|(labels, samples)| Series { labels, samples, elsewhere: false })
        .collect()
}

#[tokio::test]
async fn a_month_of_a_worker_is_billed_as_it_was_reported() {
    let mut chance = Chance(8);
    let reports = reports(&mut chance);
    let fed = Fed::new().await;
    let messages = delivered(&reports, &mut chance);
    assert!(messages.len() > reports.len() * 2 && reports.len() > 5000, "{}", reports.len());
    let (sender, arriving) = mpsc::channel(limits::WORKER_MESSAGES_WAITING_MAX);
    let feed = tokio::spawn(fed.feed().run(arriving));
    for message in messages {
        sender.send(message).await.unwrap();
    }
    drop(sender);
    feed.await.unwrap();

    let metrics = Metrics::register(&mut Registry::default());
    let usage = Usage::new(Arc::clone(&fed.engine), fed.clock.clone(), metrics);
    let billed = Billed { usage: Arc::new(usage) };
    let whole = (BEGIN_S - 86_400, NOW_S);
    let expected: BTreeMap<i64, f64> =
        received(&reports).into_iter().map(|(minute, bytes)| (minute, float(bytes))).collect();
    assert_eq!(billed.minutes(Family::NicIncoming, whole.0, whole.1).await, expected);
    let traffic: BTreeMap<i64, f64> =
        reports.iter().map(|report| (report.at_s / 60 * 60, float(report.traffic))).collect();
    assert_eq!(billed.minutes(Family::Vmnetwork, whole.0, whole.1).await, traffic);
    let cpu: BTreeMap<i64, f64> =
        reports.iter().map(|report| (report.at_s / 60 * 60, float(report.cpu) + 0.5)).collect();
    assert_eq!(billed.minutes(Family::Cpu, whole.0, whole.1).await, cpu);

    for _ in 0..24 {
        let at_s = BEGIN_S + 3600 * i64::try_from(chance.below(24 * 31)).unwrap();
        let hour = Hour::of(at_s * 1000);
        let series = stored_around(&fed, hour).await;
        for family in [Family::NicIncoming, Family::Vmnetwork, Family::Cpu] {
            let mut rows = BTreeMap::new();
            for row in oracle::rows_of_hour(&series, family, hour) {
                *rows.entry(row.minute_ms / 1000).or_insert(0.0) += row.value;
            }
            assert_eq!(billed.minutes(family, at_s, at_s + 3600).await, rows, "{}", family.name());
        }
    }
}
