//! Where sealing could go wrong one by one: guests that share a name, a group too large for one
//! read, a kill in the middle of a sweep with a clock that is behind afterwards, samples that come
//! while a pass runs, and retention that ends before sealing does.

use super::*;
use crate::model::time::Month;
use crate::store::local::{Local, LocalSettings, Sync};

fn sum(rows: &[Row]) -> f64 {
    rows.iter().map(|row| row.value).sum()
}

/// A guest without a uuid, on a host, received a byte a millisecond.
fn of_name(host: &str, (begin, end): (i64, i64)) -> (Labels, Vec<Sample>) {
    let labels = Labels::new([
        (METRIC_NAME, "libvirt_domain_interface_stats_receive_bytes_total"),
        ("domain", "instance-0a"),
        ("target_device", "tap1"),
        ("host", host),
    ]);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a day")]
    let samples = (begin..end).step_by(15_000).map(|ms| sample(ms, (ms - begin) as f64));
    (labels, samples.collect())
}

#[tokio::test]
async fn a_guest_is_not_taken_for_sealed_because_its_namesake_is() {
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let works = Works::new(&["uuid"], begin).await;
    let end = begin + 2 * HOUR_MS;
    works.clock.set(end);
    write(&works.engine, &["a", "b"].map(|host| of_name(host, (begin, end)))).await;
    works.clock.set(end + HOUR_MS);
    let window = works.engine.window_of(Hour::of(begin));
    works.engine.begin_sealing(window).await.unwrap();
    let bills = async || {
        let mut bills = Vec::new();
        for host in ["a", "b"] {
            let guest = Guest::Name { domain: "instance-0a".to_owned(), host: host.to_owned() };
            let minutes = Minutes { from_ms: begin - DAY_MS, to_ms: end + DAY_MS };
            let (family, devices) = (Family::NicIncoming, Devices::Total);
            let mut slices = Slices::new(&works.usage, Asked { guest, family, devices, minutes });
            let mut bill = 0.0;
            while let Some(part) = slices.next().await.unwrap() {
                bill += sum(&part);
            }
            bills.push(bill);
        }
        bills
    };
    let before = bills().await;
    assert_eq!(before, [7_185_000.0; 2]);
    for (row_key, group) in works.engine.group_page((window, None), None).await.unwrap() {
        let task = works.sealer.task(group, vec![window]).await.unwrap();
        works.engine.seal(works.sealer.one(task).await.unwrap().sealed).await.unwrap();
        assert_eq!(bills().await, before, "when {row_key} was sealed");
    }
}

#[tokio::test]
async fn a_group_of_more_than_one_read_is_sealed_read_and_billed() {
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let works = Works::new(&["uuid"], begin).await;
    works.clock.set(begin + HOUR_MS);
    let billed = scrapes(begin, begin + HOUR_MS);
    send(&works, &billed).await;
    // 40 MiB: 5,600 series every 15 s.
    for part in 0..56 {
        let series: Vec<(Labels, Vec<Sample>)> = (0..100)
            .map(|number| {
                let name = format!("{part}-{number}");
                let labels = Labels::new([(METRIC_NAME, "m"), ("uuid", "u1"), ("n", &*name)]);
                (labels, (0..240).map(|step| sample(begin + step * 15_000, 1.0)).collect())
            })
            .collect();
        write(&works.engine, &series).await;
    }
    let range = TimeRange { start_ms: begin, end_ms: begin + HOUR_MS };
    let minutes = Minutes { from_ms: begin, to_ms: begin + HOUR_MS };
    let expected = by_oracle(&stored(&billed), Family::NicIncoming);
    for passes in 0..2 {
        let count = |samples: &[Sample]| (samples.len(), 0);
        let read = works.engine.select(range, &[], &count).await.unwrap();
        let samples: usize = read.iter().map(|(_, samples)| samples).sum();
        assert_eq!(samples, 5_600 * 240 + billed.len(), "{passes} passes");
        assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
        works.clock.set(begin + 3 * HOUR_MS);
        works.pass().await;
        assert_eq!(works.engine.first_unsealed().await.unwrap().first, Hour(Hour::of(begin).0 + 2));
    }
}

#[tokio::test]
async fn a_kill_in_mid_sweep_and_a_clock_that_is_behind_then_hide_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let clock = Clock::fixed(begin);
    let open = async || loop {
        let settings = LocalSettings { folder: folder.path().to_owned(), sync: Sync::Commit };
        // The committer of the engine before may still hold the lock.
        match Local::open(&settings, clock.clone()) {
            Ok(store) => break engine_by(Store::Local(store), &["uuid"], &clock).await,
            Err(error) if error.0.contains("in use") => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let send = async |engine: &Engine, from: i64, to: i64| {
        let scrapes = scrapes(from, to);
        let samples: Vec<Sample> = scrapes.iter().map(|(_, sample)| *sample).collect();
        write(engine, &[(scrapes[0].0.clone(), samples)]).await;
    };
    let engine = open().await;
    clock.set(begin + HOUR_MS);
    send(&engine, begin, begin + HOUR_MS).await;
    clock.set(begin + 3 * HOUR_MS);
    let window = engine.window_of(Hour::of(begin));
    engine.begin_sealing(window).await.unwrap();
    let group = engine.group_page((window, None), None).await.unwrap()[0].1;
    let encoded = engine.encode_window(group, window, Vec::new()).await.unwrap().unwrap();
    engine.seal(encoded.sealed).await.unwrap();
    // Killed here: other groups of the window were not sealed yet.
    engine.close().await.unwrap();
    drop(engine);

    clock.set(begin + 90 * 60_000);
    let engine = open().await;
    send(&engine, begin + HOUR_MS, begin + 90 * 60_000).await;
    let range = TimeRange { start_ms: begin, end_ms: begin + DAY_MS };
    let count = |samples: &[Sample]| (samples.len(), 0);
    let read = engine.select(range, &[], &count).await.unwrap();
    assert_eq!(read[0].1, 240 + 120);
    engine.close().await.unwrap();
}

/// Two parts of a guest's late windows count the same hours, and a sample comes in between: what the
/// second one counted with it stands, because seals are written in the order in which they began.
#[tokio::test]
async fn a_sample_that_comes_between_two_parts_of_a_group() {
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let works = Works::new(&["uuid"], begin + DAY_MS).await;
    works.pass().await;
    let all = scrapes(begin, begin + 8 * HOUR_MS);
    let in_between = begin + 4 * HOUR_MS..begin + 4 * HOUR_MS + 600_000;
    let (between, rest): (Vec<Arrival>, Vec<Arrival>) =
        all.iter().cloned().partition(|(_, sample)| in_between.contains(&sample.timestamp_ms));
    send(&works, &rest).await;
    works.clock.set(begin + DAY_MS + HOUR_MS);
    let group = works.engine.late_page(None, None).await.unwrap()[0].group;
    let part = async |hours: [i64; 2]| {
        let windows = hours.map(|hour| works.engine.window_of(Hour::of(begin + hour * HOUR_MS)));
        works.sealer.task(group, windows.to_vec()).await.unwrap()
    };
    let first = works.sealer.one(part([0, 2]).await).await.unwrap().sealed;
    send(&works, &between).await;
    let second = works.sealer.one(part([4, 6]).await).await.unwrap().sealed;
    works.engine.seal(first).await.unwrap();
    works.engine.seal(second).await.unwrap();
    works.pass().await;
    check(&works, &all).await.unwrap();
}

#[tokio::test]
async fn a_bill_finds_the_sample_before_where_the_sealer_slept_over_a_months_end() {
    let month = Month::of(NOW_MS).start_ms();
    let begin = month - 4 * HOUR_MS;
    let works = Works::new(&["uuid"], begin).await;
    let arrived = scrapes(begin, begin + 8 * HOUR_MS);
    for hour in arrived.chunks(240) {
        works.clock.set(hour.last().unwrap().1.timestamp_ms);
        send(&works, hour).await;
    }
    works.clock.set(month + 30 * 60_000);
    works.pass().await;
    let minutes = Minutes { from_ms: begin - DAY_MS, to_ms: begin + 3 * DAY_MS };
    let expected = by_oracle(&stored(&arrived), Family::NicIncoming);
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
    works.clock.set(begin + 402 * DAY_MS);
    works.engine.expire().await.unwrap();
    works.pass().await;
    let billed = works.billed(Family::NicIncoming, minutes).await;
    assert!((sum(&billed) - sum(&expected)).abs() < 0.5);
}

#[tokio::test]
async fn what_is_past_its_retention_and_not_sealed_yet_is_billed() {
    let begin = NOW_MS - NOW_MS % WEEK_MS - HOUR_MS;
    let works = Works::new(&["uuid"], begin).await;
    let arrived = scrapes(begin, begin + 3 * HOUR_MS);
    works.clock.set(begin + 3 * HOUR_MS);
    send(&works, &arrived).await;
    works.clock.set(begin + 402 * DAY_MS);
    let minutes = Minutes { from_ms: begin - DAY_MS, to_ms: begin + 3 * DAY_MS };
    let expected = by_oracle(&stored(&arrived), Family::NicIncoming);
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
    works.pass().await;
    assert_eq!(works.billed(Family::NicIncoming, minutes).await, expected);
}

/// A window that fails is tried again after pauses that grow, and is not met at every look.
#[test]
fn pauses_of_a_window_that_fails_grow() {
    let window = (Shard(3), Hour(10));
    let mut stuck = Stuck::default();
    let (mut now_ms, mut tries) = (0, 0);
    while now_ms < 6 * HOUR_MS {
        if stuck.is_asked_for(window, now_ms) {
            stuck.note(window, false, now_ms);
            tries += 1;
        }
        now_ms += 10_000;
    }
    assert!((12..20).contains(&tries), "{tries}");
    stuck.note(window, true, now_ms);
    assert!(!stuck.is_asked_for(window, i64::MAX), "it is sealed");
}
