//! Billing over a store in memory: who is meant, that no split of a range changes a sum, and that
//! no order of arrival changes a bill.

use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::*;
use crate::engine::tests::{NOW_MS, engine, sample, write};
use crate::ledger::Family;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::sample::Sample;
use crate::model::time::{DAY_MS, HOUR_MS, WEEK_MS, Week};
use crate::report::{Amount, Statistic};

type Sent = (Labels, Vec<Sample>);

async fn usage(sent: &[Sent]) -> Arc<Usage> {
    let engine = engine().await;
    write(&engine, sent).await;
    let metrics = Metrics::register(&mut Registry::default());
    Arc::new(Usage::new(Arc::new(engine), Clock::fixed(NOW_MS), metrics))
}

fn received(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Sent {
    let metric = (METRIC_NAME, "libvirt_domain_interface_stats_receive_bytes_total");
    let labels =
        Labels::new([metric, ("target_device", "tap1")].into_iter().chain(labels.iter().copied()));
    (labels, samples.iter().map(|(t_ms, value)| sample(*t_ms, *value)).collect())
}

fn asked(id: &str, (from_ms, to_ms): (i64, i64)) -> UsageReport {
    UsageReport {
        id: id.to_owned(),
        family: Family::NicIncoming,
        devices: Devices::Total,
        statistic: Statistic::Sum,
        period_minutes: 60,
        from_ms,
        to_ms,
    }
}

async fn sum(usage: &Arc<Usage>, id: &str, range: (i64, i64)) -> Result<i64, QueryError> {
    let buckets = usage.report(&asked(id, range)).await?;
    let whole = |bucket: &Bucket| match bucket.amount {
        Amount::Whole(whole) => whole,
        Amount::Real(real) => panic!("{real} bytes"),
    };
    Ok(buckets.iter().map(whole).sum())
}

const ALL: (i64, i64) = (0, NOW_MS);

#[test]
fn a_minute_belongs_to_the_range_that_holds_its_last_second() {
    let hold = |from_ms, to_ms| Minutes { from_ms, to_ms }.hold(60_000);
    // Clients that end an hour at :59 or at :00 both get it whole.
    assert!(hold(0, 119_000) && hold(0, 120_000) && hold(60_000, 119_000));
    assert!(!hold(119_000, 200_000) && !hold(120_000, 200_000) && !hold(0, 118_999));
    assert!(hold(118_999, 119_000));
    assert!(!hold(i64::MIN, i64::MIN) && hold(i64::MIN, i64::MAX));
}

#[tokio::test]
async fn a_guest_by_uuid_by_name_and_by_name_and_host() {
    let day = NOW_MS - DAY_MS;
    let u1: &[_] = &[("uuid", "u1"), ("domain", "i-1"), ("instance", "a:9177")];
    let u2: &[_] = &[("uuid", "u2"), ("domain", "i-1"), ("instance", "b:9177")];
    let later = Week::of(day).start_ms() - 30 * DAY_MS;
    let usage = usage(&[
        received(u1, &[(day, 5.0), (day + 60_000, 12.0)]),
        received(u2, &[(later, 1.0), (later + 60_000, 101.0)]),
    ])
    .await;
    assert_eq!(sum(&usage, "u1", ALL).await.unwrap(), 7);
    assert_eq!(sum(&usage, "i-1@b", ALL).await.unwrap(), 100);
    assert_eq!(sum(&usage, "i-1", (day - 60_000, NOW_MS)).await.unwrap(), 7);
    assert_eq!(sum(&usage, "nobody", ALL).await.unwrap(), 0);
    let error = sum(&usage, "i-1", ALL).await.unwrap_err();
    assert!(
        matches!(&error, QueryError::Client(text) if text.contains("u1") && text.contains("u2"))
    );
    let guests = usage.guests(Family::NicIncoming, Minutes::ALL).await.unwrap();
    assert_eq!(guests.iter().map(Guest::to_string).collect::<Vec<_>>(), ["u1", "u2"]);
    assert!(usage.guests(Family::Cpu, Minutes::ALL).await.unwrap().is_empty());
}

/// The index knows weeks; two guests of one name in one week are told apart by their samples.
#[tokio::test]
async fn a_name_that_changed_hands_within_a_week() {
    let day = Week::of(NOW_MS - 14 * DAY_MS).start_ms() + DAY_MS;
    let u1: &[_] = &[("uuid", "u1"), ("domain", "i-1"), ("instance", "a:9177")];
    let u2: &[_] = &[("uuid", "u2"), ("domain", "i-1"), ("instance", "a:9177")];
    let next = day + 2 * DAY_MS;
    let usage = usage(&[
        received(u1, &[(day, 5.0), (day + 60_000, 12.0)]),
        received(u2, &[(next, 1.0), (next + 60_000, 101.0)]),
    ])
    .await;
    assert_eq!(sum(&usage, "i-1", (day, day + DAY_MS)).await.unwrap(), 7);
    assert_eq!(sum(&usage, "i-1", (next - DAY_MS, next + DAY_MS)).await.unwrap(), 100);
    assert!(sum(&usage, "i-1", (day, next + DAY_MS)).await.is_err());
}

/// Who moves from an exporter without uuids to one with them is two guests by name, and one of them
/// at any time.
#[tokio::test]
async fn everybody_who_is_listed_is_billed_once() {
    let (before, after) = (NOW_MS - 40 * DAY_MS, NOW_MS - DAY_MS);
    let nameless: &[_] = &[("domain", "i-1"), ("instance", "a:9177")];
    let with_uuid: &[_] = &[("uuid", "u1"), ("domain", "i-1"), ("instance", "a:9177")];
    let usage = usage(&[
        received(nameless, &[(before, 1.0), (before + 60_000, 31.0)]),
        received(with_uuid, &[(after, 1.0), (after + 60_000, 101.0)]),
    ])
    .await;
    for (range, listed, billed) in [
        ((before - DAY_MS, before + DAY_MS), "i-1@a", 30),
        ((after - DAY_MS, NOW_MS), "u1", 100),
        ((before - DAY_MS, NOW_MS), "u1", 100),
    ] {
        let minutes = Minutes { from_ms: range.0, to_ms: range.1 };
        let guests = usage.guests(Family::NicIncoming, minutes).await.unwrap();
        let names: Vec<String> = guests.iter().map(Guest::to_string).collect();
        assert_eq!(names, [listed]);
        assert_eq!(sum(&usage, listed, range).await.unwrap(), billed);
        assert_eq!(sum(&usage, "i-1@a", range).await.unwrap(), billed);
    }
    let all = usage.guests(Family::NicIncoming, Minutes::ALL).await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
}

/// The weeks in which only a worker reported go to who was seen last by that name, or first after.
#[tokio::test]
async fn a_workers_weeks_go_to_who_was_seen_last() {
    let week = |number: i64| NOW_MS - (9 - number) * WEEK_MS;
    let worker = [
        (METRIC_NAME, "kanyun_nic_incoming_bytes_total"),
        ("domain", "i-1"),
        ("host", "a"),
        ("job", "kanyun-worker"),
        ("target_device", "tap1"),
    ];
    let seen = |uuid: &'static str| {
        [("uuid", uuid), ("domain", "i-1"), ("instance", "a:9177"), ("job", "libvirt")]
    };
    // A byte in each week, by the worker; u is seen in the second, v in the sixth.
    let bytes = |number: i64| -> Sent {
        // More than seven days from one to the next: nothing counts from week to week.
        let at = week(number) + number * 180_000;
        (Labels::new(worker), vec![sample(at, 10.0), sample(at + 60_000, 11.0)])
    };
    let mut sent: Vec<Sent> = (0..9).map(bytes).collect();
    let of_exporter = |uuid, number: i64, bytes: f64| {
        let at = week(number) + 2 * HOUR_MS;
        received(&seen(uuid), &[(at, 0.0), (at + 60_000, bytes)])
    };
    sent.extend([of_exporter("u", 1, 100.0), of_exporter("v", 5, 1000.0)]);
    let usage = usage(&sent).await;
    let all = (week(0) - WEEK_MS, NOW_MS + DAY_MS);
    for (name, billed) in [("u", 105), ("v", 1004)] {
        assert_eq!(sum(&usage, name, all).await.unwrap(), billed, "{name}");
        let weeks = (0..9).map(|number| (week(number) - HOUR_MS, week(number) + DAY_MS));
        let mut parts = 0;
        for range in weeks {
            parts += sum(&usage, name, range).await.unwrap_or(0);
        }
        assert_eq!(parts, billed, "{name} in parts");
    }
    let listed = async |range: (i64, i64)| {
        let minutes = Minutes { from_ms: range.0, to_ms: range.1 };
        let guests = usage.guests(Family::NicIncoming, minutes).await.unwrap();
        guests.iter().map(Guest::to_string).collect::<Vec<_>>()
    };
    assert_eq!(listed(all).await, ["u", "v"]);
    assert_eq!(listed((week(0) - HOUR_MS, week(0) + DAY_MS)).await, ["u"]);
    assert_eq!(listed((week(3) - HOUR_MS, week(3) + DAY_MS)).await, ["u"]);
    assert_eq!(listed((week(8) - HOUR_MS, week(8) + DAY_MS)).await, ["v"]);
    // By the worker's name, it is who had it then.
    let range = (week(3) - HOUR_MS, week(3) + DAY_MS);
    assert_eq!(sum(&usage, "i-1@a", range).await.unwrap(), 1);
    assert!(sum(&usage, "i-1@a", all).await.is_err());
}

/// A guest whose name was given away within the minutes at a border is not in the range.
#[tokio::test]
async fn a_name_that_changed_hands_at_the_border_of_a_range() {
    let border = (NOW_MS - DAY_MS) / HOUR_MS * HOUR_MS;
    let u1: &[_] = &[("uuid", "u1"), ("domain", "i-1"), ("instance", "a:1")];
    let u2: &[_] = &[("uuid", "u2"), ("domain", "i-1"), ("instance", "a:1")];
    let usage = usage(&[
        received(u1, &[(border - 80_000, 5.0), (border - 20_000, 12.0)]),
        received(u2, &[(border + 20_000, 1.0), (border + 80_000, 101.0)]),
    ])
    .await;
    assert_eq!(sum(&usage, "i-1", (border, border + HOUR_MS)).await.unwrap(), 100);
    assert_eq!(sum(&usage, "i-1", (border - HOUR_MS, border)).await.unwrap(), 7);
}

#[test]
fn the_samples_of_a_range_are_those_of_its_minutes() {
    let samples = |from_ms, to_ms| {
        let range = Minutes { from_ms, to_ms }.samples()?;
        Some((range.start_ms, range.end_ms))
    };
    assert_eq!(samples(0, 120_000), Some((0, 119_999)));
    assert_eq!(samples(59_000, 119_000), Some((60_000, 119_999)));
    assert_eq!(samples(58_999, 118_999), Some((0, 59_999)));
    assert_eq!(samples(59_000, 118_999), None);
    assert_eq!(samples(5, 5), None);
    assert!(Minutes::ALL.samples().is_some());
}

/// What a slice depends on is carried to the next: restarts of a walk at each day's begin would
/// lose what lies between.
#[tokio::test]
async fn days_without_samples_lie_between_two_that_have_some() {
    let begin = (NOW_MS - 20 * DAY_MS) / DAY_MS * DAY_MS;
    let samples: Vec<(i64, f64)> = [0, 1, 3, 4, 10, 11]
        .map(|day| (begin + i64::from(day) * DAY_MS, 100.0 * f64::from(day)))
        .to_vec();
    let usage = usage(&[received(&[("uuid", "u"), ("instance", "a:1")], &samples)]).await;
    // From day 4 to day 10 is no more than six days, and billed.
    assert_eq!(sum(&usage, "u", (begin - 60_000, NOW_MS)).await.unwrap(), 1_100);
}

/// The sample before a range is found however far back it lies, up to seven days.
#[tokio::test]
async fn the_predecessor_is_looked_for_as_far_as_it_may_lie() {
    for (back, counted) in [(1, 50), (30, 50), (6 * 24, 50), (7 * 24 + 1, 0)] {
        let t = NOW_MS - DAY_MS;
        let samples = [(t - back * HOUR_MS, 100.0), (t, 150.0)];
        let usage = usage(&[received(&[("uuid", "u")], &samples)]).await;
        assert_eq!(sum(&usage, "u", (t - 60_000, t + 60_000)).await.unwrap(), counted, "{back} h");
    }
}

fn any_samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let step = prop_oneof![
        8 => 10_000..70_000i64,
        1 => 0..3 * HOUR_MS,
        1 => 0..9 * DAY_MS,
    ];
    let growth = prop_oneof![6 => 0..5_000i64, 1 => -9_000..0i64];
    prop::collection::vec((step, growth), 1..60).prop_map(|steps| {
        let (mut t_ms, mut value) = (NOW_MS - 40 * DAY_MS, 10_000i64);
        let walk = steps.into_iter().map(|(step, growth)| {
            t_ms += step;
            value = (value + growth).max(0);
            (t_ms, f64::from(i32::try_from(value).unwrap()))
        });
        walk.filter(|(t_ms, _)| *t_ms < NOW_MS).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_split_and_any_order_of_arrival_bill_the_same(
        samples in any_samples(),
        cuts in prop::collection::vec(0..41 * 1440i64, 0..4),
        offset in 0..60_000i64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let labels: &[_] = &[("uuid", "u"), ("instance", "a:1")];
            let forth = usage(&[received(labels, &samples)]).await;
            // One request a sample, last one first, and everything twice.
            let engine = engine().await;
            for sample in samples.iter().rev().chain(&samples) {
                write(&engine, &[received(labels, &[*sample])]).await;
            }
            let metrics = Metrics::register(&mut Registry::default());
            let back = Arc::new(Usage::new(Arc::new(engine), Clock::fixed(NOW_MS), metrics));
            let begin = NOW_MS - 41 * DAY_MS;
            let whole = sum(&forth, "u", (begin, NOW_MS)).await.unwrap();
            assert_eq!(sum(&back, "u", (begin, NOW_MS)).await.unwrap(), whole);
            let mut borders: Vec<i64> = cuts.iter().map(|cut| begin + cut * 60_000 + offset).collect();
            borders.extend([begin, NOW_MS]);
            borders.sort_unstable();
            let mut parts = 0;
            for pair in borders.windows(2) {
                parts += sum(&forth, "u", (pair[0], pair[1])).await.unwrap();
            }
            assert_eq!(parts, whole);
        });
    }
}
