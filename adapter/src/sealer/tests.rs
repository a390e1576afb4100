//! Bills before, during and after sealing: generated guests (`ledger/tests/guest.rs`) whose samples
//! come late, twice and in any order, with seals and seals that were cut off in between. At every
//! step each family's rows are the oracle's. `KANYUN_LEDGER_CASES` sets the number of guests.

mod edges;
mod moved;
mod shared;
mod sources;
mod unread;

use std::collections::BTreeSet;

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::engine::tests::{NOW_MS, engine_by, sample, write};
use crate::ledger::tests::guest::{Arrival, any_guest, stored};
use crate::ledger::tests::oracle;
use crate::ledger::{Row, Series};
use crate::legacy::Devices;
use crate::meter::{Run, Standing, Waits};
use crate::model::instant;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::sample::Sample;
use crate::model::time::{DAY_MS, HOUR_MS, Month, TimeRange, WEEK_MS};
use crate::status::Observer;
use crate::store::Store;
use crate::store::memory::Memory;
use crate::usage::account::{Account, Wanted};
use crate::usage::printout::Line;
use crate::usage::{Asked, Minutes, Slices, Usage};

const PAUSE: Duration = Duration::from_secs(60);
const CASES: u32 = 24;

/// An adapter without doors, on a clock of its own.
#[derive(Debug)]
struct Works {
    engine: Arc<Engine>,
    usage: Arc<Usage>,
    sealer: Sealer,
    clock: Clock,
}

impl Works {
    async fn new(row_key_labels: &[&str], now_ms: i64) -> Works {
        Works::on(Store::Memory(Memory::new()), row_key_labels, Clock::fixed(now_ms)).await
    }

    async fn on(store: Store, row_key_labels: &[&str], clock: Clock) -> Works {
        let engine = Arc::new(Box::pin(engine_by(store, row_key_labels, &clock)).await);
        let metrics = Metrics::register(&mut Registry::default());
        let usage = Usage::new(Arc::clone(&engine), clock.clone(), metrics.clone());
        let sealer = Sealer::new(Arc::clone(&engine), clock.clone(), metrics, PAUSE);
        Works { engine, usage: Arc::new(usage), sealer, clock }
    }

    async fn pass(&self) {
        self.sealer.pass().await.unwrap();
        self.engine.expire().await.unwrap();
    }

    /// A guest's rows, as billing is answered.
    async fn billed(&self, family: Family, minutes: Minutes) -> Vec<Row> {
        let guest = Guest::Uuid("u1".to_owned());
        let asked = Asked { guest, family, devices: Devices::Total, minutes };
        let mut slices = Slices::new(&self.usage, asked);
        let mut rows = Vec::new();
        while let Some(part) = slices.next().await.unwrap() {
            rows.extend(part);
        }
        rows
    }
}

/// A sample on its way: when it comes, and what.
type Delivery = (i64, Arrival);

/// What happens after a delivery.
#[derive(Clone, Copy, Debug)]
enum Then {
    Nothing,
    /// A look of the sealer.
    Pass,
    /// A seal that ends after so many of its steps.
    CutOff(u8),
    Check,
}

fn any_then() -> impl Strategy<Value = Then> {
    prop_oneof![
        12 => Just(Then::Nothing),
        3 => Just(Then::Pass),
        1 => (0..4_u8).prop_map(Then::CutOff),
        1 => Just(Then::Check),
    ]
}

/// Most come at once, some hours or days later, some twice.
fn any_deliveries() -> impl Strategy<Value = Vec<(Delivery, Then)>> {
    let late = prop_oneof![
        6 => Just(0_i64),
        1 => select(vec![1_000, 600_000, 2 * HOUR_MS, 3 * HOUR_MS, 30 * HOUR_MS, 8 * DAY_MS]),
    ];
    let again = prop_oneof![8 => Just(None), 1 => (0..9 * DAY_MS).prop_map(Some)];
    let fate = (late, again, any_then());
    (any_guest(), prop::collection::vec(fate, 1..400)).prop_map(|(arrivals, fates)| {
        let mut deliveries = Vec::new();
        for ((labels, sample), (late, again, then)) in arrivals.iter().zip(fates.iter().cycle()) {
            let pairs = labels.iter().chain([("uuid", "u1")]);
            let arrival = (Labels::new(pairs), *sample);
            let comes = sample.timestamp_ms + late;
            if let Some(again) = again {
                deliveries.push(((comes + again, arrival.clone()), Then::Nothing));
            }
            deliveries.push(((comes, arrival), *then));
        }
        deliveries.sort_by_key(|((comes, _), _)| *comes);
        deliveries
    })
}

#[expect(clippy::disallowed_methods, reason = "a soak is asked for through the environment")]
fn config() -> ProptestConfig {
    let cases = std::env::var("KANYUN_LEDGER_CASES");
    let cases =
        cases.map_or(CASES, |cases| cases.parse().expect("KANYUN_LEDGER_CASES is a number"));
    ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_bill_is_the_same_before_during_and_after_sealing(
        deliveries in any_deliveries(),
        // By the second, the copies of a guest's series are packed in two groups.
        row_key_labels in select(vec![&["uuid"][..], &["prometheus", "uuid"]]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(deliver(&deliveries, row_key_labels))?;
    }
}

async fn deliver(
    deliveries: &[(Delivery, Then)],
    row_key_labels: &[&str],
) -> Result<(), TestCaseError> {
    let Some(((first_ms, _), _)) = deliveries.first() else { return Ok(()) };
    let works = Works::new(row_key_labels, *first_ms).await;
    let mut arrived: Vec<Arrival> = Vec::new();
    let mut now_ms = *first_ms;
    for ((comes_ms, (labels, sample)), then) in deliveries {
        now_ms = *comes_ms;
        works.clock.set(now_ms);
        write(&works.engine, &[(labels.clone(), vec![*sample])]).await;
        arrived.push((labels.clone(), *sample));
        match then {
            Then::Nothing => {}
            Then::Pass => works.pass().await,
            Then::CutOff(steps) => cut_off(&works, *sample, *steps).await,
            Then::Check => check(&works, &arrived).await?,
        }
    }
    check(&works, &arrived).await?;
    works.clock.set(now_ms + DAY_MS);
    works.pass().await;
    check(&works, &arrived).await?;
    all_stands(&works, &arrived, now_ms).await
}

/// Seals the windows of a sample half-way, as a sealer does that is killed: the store keeps the
/// order of a seal and no more. What it wrote must not change any bill.
async fn cut_off(works: &Works, sample: Sample, steps: u8) {
    let window = works.engine.window_of(Hour::of(sample.timestamp_ms));
    if !works.engine.is_due(window) {
        return;
    }
    for (_, group) in works.engine.group_page((window, None), None).await.unwrap() {
        let task = works.sealer.task(group, vec![window]).await.unwrap();
        let mut sealed = works.sealer.one(task).await.unwrap().sealed;
        if steps < 3 {
            sealed.late.clear();
        }
        if steps < 2 {
            sealed.markers.clear();
        }
        if steps < 1 {
            sealed.ledger.clear();
        }
        works.engine.seal(sealed).await.unwrap();
    }
}

/// Every hour of the guest that has a sample, of each family.
async fn check(works: &Works, arrived: &[Arrival]) -> Result<(), TestCaseError> {
    let series = stored(arrived);
    for family in Family::ALL {
        let expected = by_oracle(&series, family);
        let billed = works.billed(family, everything(&series)).await;
        prop_assert_eq!(billed, expected, "billed (left) and the oracle, {}", family.name());
    }
    Ok(())
}

/// Once all is sealed, the ledger alone holds every bill.
async fn all_stands(works: &Works, arrived: &[Arrival], now_ms: i64) -> Result<(), TestCaseError> {
    let series = stored(arrived);
    let guest = Guest::Uuid("u1".to_owned());
    let meter = Arc::new(Meter::new(Arc::clone(&works.engine)));
    prop_assert!(
        works.engine.late_page(None, None).await.unwrap().is_empty(),
        "late rows are left"
    );
    let samples = series.iter().flat_map(|one| &one.samples);
    let hours: BTreeSet<Hour> = samples.map(|sample| Hour::of(sample.timestamp_ms)).collect();
    for hour in hours {
        let runs = meter.runs(&guest, (hour, hour)).await.unwrap();
        let stands = [Run { standing: Standing::Stored, hours: (hour, hour) }];
        prop_assert_eq!(&runs[..], &stands[..]);
    }
    for family in Family::ALL {
        let hours = (Hour::of(now_ms - 60 * DAY_MS), Hour::of(now_ms + DAY_MS));
        let rows = meter.stored(&guest, family, hours).await.unwrap();
        prop_assert_eq!(rows, by_oracle(&series, family), "the ledger (left), {}", family.name());
    }
    Ok(())
}

/// All minutes that the samples lie in, and some around them.
fn everything(series: &[Series]) -> Minutes {
    let times = || series.iter().flat_map(|one| &one.samples).map(|sample| sample.timestamp_ms);
    let (first, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    Minutes { from_ms: first - 3 * HOUR_MS, to_ms: last + 3 * HOUR_MS }
}

fn by_oracle(series: &[Series], family: Family) -> Vec<Row> {
    let samples = series.iter().flat_map(|one| &one.samples);
    let hours: BTreeSet<Hour> = samples.map(|sample| Hour::of(sample.timestamp_ms)).collect();
    hours.into_iter().flat_map(|hour| oracle::rows_of_hour(series, family, hour)).collect()
}

/// A counter that grows by a byte a second, scraped every 15 s.
fn scrapes(from_ms: i64, to_ms: i64) -> Vec<Arrival> {
    let labels = Labels::new([
        (METRIC_NAME, "libvirt_domain_interface_stats_receive_bytes_total"),
        ("uuid", "u1"),
        ("target_device", "tap1"),
        ("host", "a"),
    ]);
    let times = (from_ms..to_ms).step_by(15_000);
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
    let value = |t_ms: i64| (t_ms / 1000) as f64;
    times.map(|t_ms| (labels.clone(), sample(t_ms, value(t_ms)))).collect()
}

async fn send(works: &Works, arrivals: &[Arrival]) {
    let of_series: Vec<Sample> = arrivals.iter().map(|(_, sample)| *sample).collect();
    if let Some((labels, _)) = arrivals.first() {
        write(&works.engine, &[(labels.clone(), of_series)]).await;
    }
}

/// Nothing is dropped that was not sealed, and bills outlive their samples.
#[tokio::test]
async fn a_sealer_that_slept_for_longer_than_anything_is_kept() {
    let begin = NOW_MS - NOW_MS % WEEK_MS - HOUR_MS;
    let works = Works::new(&["uuid"], begin).await;
    let arrived = scrapes(begin, begin + 26 * HOUR_MS);
    for hour in arrived.chunks(240) {
        works.clock.set(hour.last().unwrap().1.timestamp_ms);
        send(&works, hour).await;
    }
    let later = begin + 450 * DAY_MS;
    works.clock.set(later);
    works.engine.expire().await.unwrap();
    works.pass().await;
    works.engine.expire().await.unwrap();
    let minutes = Minutes { from_ms: begin - DAY_MS, to_ms: begin + 3 * DAY_MS };
    let expected = by_oracle(&stored(&arrived), Family::NicIncoming);
    assert!(expected.len() > 26 * 59);
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
    let left = works.engine.select_all(
        TimeRange { start_ms: begin, end_ms: later },
        &[],
        &|samples: &[Sample]| ((), samples.len()),
    );
    assert!(left.await.unwrap().is_empty(), "samples are past their retention");
    let who = works.usage.guest("u1", &[Family::NicIncoming], minutes).await.unwrap();
    assert_eq!(who, Some(Guest::Uuid("u1".to_owned())));
    let listed = works.usage.guests(Family::NicIncoming, minutes).await.unwrap();
    assert_eq!(listed.len(), 1);
}

/// A replica that missed its deletion, or a restored snapshot, may bring a late row back when what the
/// hours depend on has expired.
#[tokio::test]
async fn hours_whose_predecessors_have_expired_are_not_counted_again() {
    // Stores drop whole months: the first hour is in one, and the second in the next.
    let begin = Month::of(NOW_MS).start_ms() - DAY_MS;
    let works = Works::new(&["uuid"], begin).await;
    let mut arrived = scrapes(begin, begin + HOUR_MS);
    arrived.extend(scrapes(begin + 30 * HOUR_MS, begin + 31 * HOUR_MS));
    for hour in arrived.chunks(240) {
        works.clock.set(hour.last().unwrap().1.timestamp_ms);
        send(&works, hour).await;
    }
    works.clock.set(begin + 2 * DAY_MS);
    works.pass().await;
    let minutes = Minutes { from_ms: begin - DAY_MS, to_ms: begin + 3 * DAY_MS };
    let expected = by_oracle(&stored(&arrived), Family::NicIncoming);
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
    works.clock.set(begin + 401 * DAY_MS + HOUR_MS);
    works.pass().await;
    let window = works.engine.window_of(Hour::of(begin + 30 * HOUR_MS));
    let groups = works.engine.group_page((window, None), None).await.unwrap();
    works.engine.mark_late(groups[0].1, window).await.unwrap();
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected, "while it is late");
    works.clock.set(begin + 401 * DAY_MS + 2 * HOUR_MS);
    works.pass().await;
    assert!(works.engine.late_page(None, None).await.unwrap().is_empty(), "it was sealed again");
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
}

/// Prometheus sends what it kept through an outage, at full speed and in order.
#[tokio::test]
async fn an_outage_of_two_hours_that_is_replayed() {
    let begin = NOW_MS - NOW_MS % DAY_MS - 3 * HOUR_MS;
    let works = Works::new(&["uuid"], begin).await;
    let before = scrapes(begin, begin + HOUR_MS);
    send(&works, &before).await;
    let back = begin + 4 * HOUR_MS;
    works.clock.set(back);
    works.pass().await;
    let replayed = scrapes(begin + HOUR_MS, back);
    let mut arrived = before;
    for (number, part) in replayed.chunks(97).enumerate() {
        works.clock.set(back + i64::try_from(number).unwrap() * 20_000);
        send(&works, part).await;
        arrived.extend_from_slice(part);
        works.pass().await;
        check(&works, &arrived).await.unwrap();
    }
    works.clock.set(back + DAY_MS);
    works.pass().await;
    check(&works, &arrived).await.unwrap();
    all_stands(&works, &arrived, back).await.unwrap();
}

/// Late, twice and backwards, at the borders of windows, days and weeks.
#[tokio::test]
async fn late_samples_at_every_border() {
    let week = NOW_MS - NOW_MS % WEEK_MS;
    let borders = [week - DAY_MS, week - 2 * HOUR_MS, week, week + 2 * HOUR_MS, week + DAY_MS];
    let works = Works::new(&["uuid"], week + 3 * DAY_MS).await;
    let all = scrapes(week - 26 * HOUR_MS, week + 26 * HOUR_MS);
    let near = |arrival: &Arrival, ms: i64| {
        borders.iter().any(|border| (arrival.1.timestamp_ms - border).abs() <= ms)
    };
    let around = all.into_iter().filter(|arrival| near(arrival, 900_000));
    let (mut late, mut arrived): (Vec<Arrival>, Vec<Arrival>) =
        around.partition(|arrival| near(arrival, 30_000));
    assert!(late.len() >= 5 * 4);
    send(&works, &arrived).await;
    works.clock.set(week + 3 * DAY_MS + HOUR_MS);
    works.pass().await;
    all_stands(&works, &arrived, week + 3 * DAY_MS).await.unwrap();
    late.reverse();
    for one in late {
        for _ in 0..2 {
            send(&works, std::slice::from_ref(&one)).await;
        }
        arrived.push(one);
        let expected = by_oracle(&stored(&arrived), Family::NicIncoming);
        let minutes = Minutes { from_ms: week - 2 * DAY_MS, to_ms: week + 3 * DAY_MS };
        assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
    }
    works.clock.set(week + 4 * DAY_MS);
    works.pass().await;
    check(&works, &arrived).await.unwrap();
    all_stands(&works, &arrived, week + 3 * DAY_MS).await.unwrap();
}

/// A clock that is set back must not leave samples in windows that have been sealed.
#[tokio::test]
async fn a_clock_that_was_ahead() {
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let works = Works::new(&["uuid"], begin).await;
    let first = scrapes(begin, begin + HOUR_MS);
    send(&works, &first).await;
    works.clock.set(begin + 5 * HOUR_MS);
    works.pass().await;
    works.clock.set(begin + HOUR_MS);
    let second = scrapes(begin + HOUR_MS, begin + 2 * HOUR_MS);
    send(&works, &second).await;
    let arrived = [first, second].concat();
    check(&works, &arrived).await.unwrap();
    works.clock.set(begin + 9 * HOUR_MS);
    works.pass().await;
    check(&works, &arrived).await.unwrap();
    all_stands(&works, &arrived, begin).await.unwrap();
}

/// What is printed of the ledger: how many rows, and the hours that wait, from some begin.
async fn printed(works: &Works, begin: i64) -> (usize, Vec<(Waits, i64, i64)>) {
    let minutes = Minutes { from_ms: begin, to_ms: begin + 4 * HOUR_MS };
    let wanted = Wanted { name: "u1".to_owned(), families: vec![Family::NicIncoming], minutes };
    let mut account = Account::open(&works.usage, wanted).await.unwrap();
    let (mut rows, mut missing) = (0, None);
    while let Some(lines) = account.next().await.unwrap() {
        for line in lines {
            match line {
                Line::Begin(title) => assert_eq!(title.guest.as_deref(), Some("u1")),
                Line::Row(_) => rows += 1,
                Line::End(end) => missing = Some(end.missing),
            }
        }
    }
    let hours = |text: &str| (instant::parse(text).unwrap() - begin) / HOUR_MS;
    let missing = missing.unwrap().into_iter();
    (rows, missing.map(|one| (one.why, hours(&one.from), hours(&one.to))).collect())
}

#[tokio::test]
async fn an_operator_sees_what_is_sealed_and_what_waits() {
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let works = Works::new(&["uuid"], begin).await;
    let status = async || {
        let engine = Arc::clone(&works.engine);
        let observer = Observer::new(engine, works.clock.clone(), "1", "memory".to_owned());
        observer.status().await.sealing
    };
    send(&works, &scrapes(begin, begin + 2 * HOUR_MS)).await;
    works.clock.set(begin + 2 * HOUR_MS + 60_000);
    works.pass().await;
    assert_eq!(printed(&works, begin).await, (0, vec![(Waits::Unsealed, 0, 4)]));
    works.clock.set(begin + 3 * HOUR_MS);
    let due = status().await;
    assert_eq!(due.unsealed_from, Some(instant::format(begin)));
    assert_eq!((due.lag_seconds, due.late_windows), (Some(45 * 60), Some(0)));
    works.pass().await;
    assert_eq!(printed(&works, begin).await, (120, vec![(Waits::Unsealed, 2, 4)]));
    assert_eq!(status().await.lag_seconds, Some(0));

    send(&works, &scrapes(begin + 7_500, begin + 7_501)).await;
    let late = vec![(Waits::Late, 0, 2), (Waits::Unsealed, 2, 4)];
    assert_eq!(printed(&works, begin).await, (120, late));
    let late = status().await;
    assert_eq!((late.late_windows, late.late_from), (Some(1), Some(instant::format(begin))));
    works.clock.set(begin + 3 * HOUR_MS + 2 * 60_000);
    works.pass().await;
    assert_eq!(printed(&works, begin).await, (120, vec![(Waits::Unsealed, 2, 4)]));
    assert_eq!(status().await.late_windows, Some(0));
}
