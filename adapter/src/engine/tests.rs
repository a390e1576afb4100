//! The engine on a store in memory against a naive oracle: a map of every sample that was sent.

use std::collections::BTreeMap;
use std::num::NonZeroI64;

use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::*;
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::all_accept;
use crate::model::sample::STALE_MARKER_BITS;
use crate::model::time::HOUR_MS;
use crate::sealer::Sealer;
use crate::store::memory::Memory;

pub(crate) const NOW_MS: i64 = 1_700_000_000_000;
/// As the flags have it.
pub(crate) const KEEPING: Keeping = Keeping {
    samples: Duration::from_secs(400 * 86_400),
    ledger: Duration::from_secs(1825 * 86_400),
    grace: Duration::from_secs(15 * 60),
};

async fn engine_on(store: Store) -> Engine {
    engine_by(store, &["uuid", "instance_id"], &Clock::fixed(NOW_MS)).await
}

/// An engine with these row-key labels and this clock.
pub(crate) async fn engine_by(store: Store, row_key_labels: &[&str], clock: &Clock) -> Engine {
    let labels = row_key_labels.iter().map(|label| (*label).to_owned()).collect();
    let metrics = Metrics::register(&mut Registry::default());
    let layout = Layout::new(labels, 7200);
    Engine::start(store, &layout, KEEPING, clock.clone(), metrics).await.unwrap()
}

pub(crate) async fn engine() -> Engine {
    engine_on(Store::Memory(Memory::new())).await
}

pub(crate) fn sample(timestamp_ms: i64, value: f64) -> Sample {
    Sample { timestamp_ms, value, start_ms: None }
}

pub(crate) fn ticket(engine: &Engine) -> Ticket {
    let mut ticket = engine.admit(1).unwrap();
    ticket.arrived(engine);
    ticket
}

pub(crate) async fn write(engine: &Engine, sent: &[(Labels, Vec<Sample>)]) {
    let mut batch = engine.batch();
    for (labels, samples) in sent {
        let pairs: Vec<(&str, &str)> = labels.iter().collect();
        batch.add(None, &pairs, samples);
    }
    engine.append(batch, ticket(engine)).await.unwrap();
}

async fn read(
    engine: &Engine,
    range: TimeRange,
    matchers: &[Matcher],
) -> Vec<(Labels, Vec<Sample>)> {
    engine
        .select(range, matchers, &|samples: &[Sample]| (samples.to_vec(), samples.len()))
        .await
        .unwrap()
}

const ALL: TimeRange = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };

type Oracle = BTreeMap<Labels, BTreeMap<i64, Sample>>;

fn expected(oracle: &Oracle, range: TimeRange, matchers: &[Matcher]) -> Vec<(Labels, Vec<Sample>)> {
    let matching = oracle.iter().filter(|(labels, _)| all_accept(matchers, labels));
    let trimmed = matching.map(|(labels, samples)| {
        let kept = samples.values().filter(|sample| range.contains(sample.timestamp_ms));
        (labels.clone(), kept.copied().collect::<Vec<_>>())
    });
    trimmed.filter(|(_, samples)| !samples.is_empty()).collect()
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let value = || prop_oneof![Just(""), Just("a"), Just("b"), Just("ab")];
    (prop_oneof![Just("up"), Just("cpu"), Just("cpu_total")], value(), value(), value(), value())
        .prop_map(|(metric, uuid, instance_id, job, zone)| {
            Labels::new([
                (METRIC_NAME, metric),
                ("uuid", uuid),
                ("instance_id", instance_id),
                ("job", job),
                ("zone", zone),
            ])
        })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    // Around hour, day and week borders, a few weeks wide, with collisions.
    let time = (0..6i64, -2..3i64)
        .prop_map(|(weeks, off)| NOW_MS - weeks * 3 * DAY_MS - NOW_MS % HOUR_MS + off);
    let bits = prop_oneof![
        any::<u64>(),
        Just(STALE_MARKER_BITS),
        Just(f64::NAN.to_bits()),
        Just(1.0f64.to_bits())
    ];
    (time, bits, 0..3i64).prop_map(|(timestamp_ms, bits, start)| Sample {
        timestamp_ms,
        value: f64::from_bits(bits),
        start_ms: NonZeroI64::new(start),
    })
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let name = prop_oneof![
        Just(METRIC_NAME),
        Just("uuid"),
        Just("instance_id"),
        Just("job"),
        Just("zone"),
        Just("none")
    ];
    let value = prop_oneof![
        Just(""),
        Just("a"),
        Just("b"),
        Just("up"),
        Just("cpu"),
        Just("a|b"),
        Just("cpu.*"),
        Just("a.*"),
        Just("b.+|a.*|none"),
        Just("a[^c]*b"),
        Just(".+"),
        Just("|a")
    ];
    (name, 0..4u8, value).prop_map(|(name, kind, value)| match kind {
        0 => Matcher::equal(name, value),
        1 => Matcher::not_equal(name, value),
        2 => Matcher::matching(name, value).unwrap(),
        _ => Matcher::not_matching(name, value).unwrap(),
    })
}

fn in_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A guest that has more labels than one read holds, most of which do not match.
#[tokio::test]
async fn a_series_is_found_among_many_labels_of_its_guest() {
    let engine = engine().await;
    let long = "x".repeat(200 << 10);
    let labels = |metric: &str, number: usize| {
        let number = number.to_string();
        let own = [(METRIC_NAME, metric), ("uuid", "u1"), ("number", &number)];
        Labels::new(own.into_iter().chain((metric == "other").then_some(("long", &*long))))
    };
    let samples = vec![sample(NOW_MS, 1.0)];
    for number in 0..200 {
        write(&engine, &[(labels("other", number), samples.clone())]).await;
    }
    let wanted: Vec<_> = (0..2).map(|number| (labels("up", number), samples.clone())).collect();
    write(&engine, &wanted).await;
    let matchers = [Matcher::equal("uuid", "u1"), Matcher::equal(METRIC_NAME, "up")];
    let mut found = read(&engine, ALL, &matchers).await;
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(found, wanted);
    // And so is all that it has, which a query may hold.
    let many = engine.series(ALL, &[Matcher::equal("uuid", "u1")]).await;
    assert_eq!(many.unwrap().len(), 202);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_read_is_what_the_oracle_holds(
        requests in prop::collection::vec(prop::collection::vec((any_labels(), prop::collection::vec(any_sample(), 1..4)), 1..5), 1..6),
        matchers in prop::collection::vec(any_matcher(), 0..3),
        offsets in (0..20i64, 0..20i64),
        repeat in any::<bool>(),
    ) {
        in_runtime(async {
            let engine = engine().await;
            let mut oracle = Oracle::new();
            for request in &requests {
                write(&engine, request).await;
                if repeat {
                    write(&engine, request).await;
                }
                for (labels, samples) in request {
                    for sample in samples {
                        let of_series = oracle.entry(labels.clone()).or_default();
                        of_series.entry(sample.timestamp_ms).and_modify(|kept| *kept = kept.merge(*sample)).or_insert(*sample);
                    }
                }
            }
            let part = TimeRange { start_ms: NOW_MS - offsets.0 * DAY_MS, end_ms: NOW_MS - offsets.1 * DAY_MS };
            for range in [ALL, part] {
                prop_assert_eq!(read(&engine, range, &matchers).await, expected(&oracle, range, &matchers));
            }
            let series = engine.series(ALL, &matchers).await.unwrap();
            let wanted: Vec<Labels> = expected(&oracle, ALL, &matchers).into_iter().map(|(labels, _)| labels).collect();
            prop_assert_eq!(series, wanted);
            engine.close().await.unwrap();
            Ok(())
        })?;
    }
}

/// The same comparison on any store: half of the requests, the store opened again, the rest, then
/// queries. `open` opens it each time with the same data, if it keeps any.
pub(crate) async fn compare_with_oracle(mut open: impl AsyncFnMut() -> Store, rounds: u32) {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, TestRng, TestRunner};

    let mut seeds = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let request =
        prop::collection::vec((any_labels(), prop::collection::vec(any_sample(), 1..4)), 1..6);
    let matchers = prop::collection::vec(any_matcher(), 0..3);
    let mut oracle = Oracle::new();
    for half in 0..2 {
        let engine = Arc::new(Box::pin(engine_on(open().await)).await);
        for _ in 0..rounds {
            let request = request.new_tree(&mut seeds).unwrap().current();
            write(&engine, &request).await;
            write(&engine, &request).await;
            for (labels, sample) in request
                .iter()
                .flat_map(|(labels, samples)| samples.iter().map(move |sample| (labels, sample)))
            {
                let of_series = oracle.entry(labels.clone()).or_default();
                of_series
                    .entry(sample.timestamp_ms)
                    .and_modify(|kept| *kept = kept.merge(*sample))
                    .or_insert(*sample);
            }
        }
        for round in 0..rounds {
            if round == rounds / 2 {
                seal_everything(&engine).await;
            }
            let matchers = matchers.new_tree(&mut seeds).unwrap().current();
            let wanted = expected(&oracle, ALL, &matchers);
            assert_eq!(read(&engine, ALL, &matchers).await, wanted, "half {half}: {matchers:?}");
        }
        assert!(!expected(&oracle, ALL, &[]).is_empty());
        engine.close().await.unwrap();
    }
}

/// All of it came late, so that nothing waits for a clock.
async fn seal_everything(engine: &Arc<Engine>) {
    let metrics = Metrics::register(&mut Registry::default());
    let clock = Clock::fixed(NOW_MS);
    let sealer = Sealer::new(Arc::clone(engine), clock, metrics, Duration::ZERO);
    let mut passes = 0;
    loop {
        sealer.pass().await.unwrap();
        let late = engine.late_page(None, None).await.unwrap();
        if late.iter().all(|row| !engine.is_due(engine.window_of(row.window))) {
            return;
        }
        // In a cluster the sealer before may still hold what is to be sealed.
        passes += 1;
        assert!(engine.lease_time().is_some() && passes < 600, "{late:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn guest(uuid: &str, metric: &str) -> Labels {
    Labels::new([
        (METRIC_NAME, metric),
        ("uuid", uuid),
        ("domain", "instance-0000000a"),
        ("job", "libvirt"),
    ])
}

#[tokio::test]
async fn a_guests_scrape_is_one_row_even_when_scattered_over_requests() {
    let engine = Arc::new(engine().await);
    let mut sending = tokio::task::JoinSet::new();
    // All announced before any is sent, as concurrent requests are.
    let announced: Vec<Ticket> = (0..20).map(|_| ticket(&engine)).collect();
    for (shard, ticket) in announced.into_iter().enumerate() {
        let engine = Arc::clone(&engine);
        sending.spawn(async move {
            let mut batch = engine.batch();
            let labels = guest("u1", &format!("metric_{shard}"));
            let pairs: Vec<(&str, &str)> = labels.iter().collect();
            batch.add(None, &pairs, &[sample(NOW_MS, 1.0)]);
            engine.append(batch, ticket).await.unwrap();
        });
    }
    sending.join_all().await;
    let group = crate::model::row_key::RowKey::guest("u1").groups().next().unwrap();
    let hour = Hour::of(NOW_MS);
    let rows = engine.store.head(group, (hour, hour), 100).await.unwrap();
    assert_eq!(rows.len(), 1, "twenty requests, one commit, one row");
    assert_eq!(read(&engine, ALL, &[Matcher::equal("uuid", "u1")]).await.len(), 20);
}

#[tokio::test]
async fn a_known_series_costs_no_index_row_and_a_restart_learns_it_by_reading() {
    let store = Memory::new();
    let engine = engine_on(Store::Memory(store)).await;
    let sent = [(guest("u1", "cpu"), vec![sample(NOW_MS, 1.0)])];
    write(&engine, &sent).await;
    let mut batch = engine.batch();
    let pairs: Vec<(&str, &str)> = sent[0].0.iter().collect();
    batch.add(None, &pairs, &[sample(NOW_MS + 1, 2.0)]);
    assert!(batch.unknown.is_empty());
    drop(batch);

    let cold = KnownSeries::new();
    let mut rows = {
        let mut batch = Batch::new(&engine.layouts, &cold);
        batch.add(None, &pairs, &[sample(NOW_MS + 1, 2.0)]);
        batch.unknown
    };
    assert_eq!(rows.len(), 1);
    cold.drop_known(&engine.store, &mut rows).await.unwrap();
    assert!(rows.is_empty(), "the group's own partition says that it is known");
}

#[tokio::test]
async fn the_widest_range_is_cut_to_what_is_kept() {
    let engine = engine().await;
    write(&engine, &[(guest("u1", "cpu"), vec![sample(NOW_MS, 1.0)])]).await;
    let asked =
        TimeRange { start_ms: -9_223_309_901_257_974_000, end_ms: 9_223_309_901_257_974_999 };
    assert_eq!(engine.series(asked, &[]).await.unwrap().len(), 1);
    assert_eq!(read(&engine, asked, &[]).await.len(), 1);
    let past = TimeRange { start_ms: 0, end_ms: 1 };
    assert!(read(&engine, past, &[]).await.is_empty());
    let backwards = TimeRange { start_ms: NOW_MS, end_ms: NOW_MS - 1 };
    assert!(read(&engine, backwards, &[]).await.is_empty());
}

/// Values of the first row-key label name groups; beginnings of them do not.
#[tokio::test]
async fn guests_by_the_beginning_of_their_uuid() {
    let engine = engine().await;
    let sent: Vec<(Labels, Vec<Sample>)> =
        ["u1", "u2", "v1"].map(|uuid| (guest(uuid, "cpu"), vec![sample(NOW_MS, 1.0)])).to_vec();
    write(&engine, &sent).await;
    for matchers in [
        vec![Matcher::matching("uuid", "u.*").unwrap()],
        vec![Matcher::equal(METRIC_NAME, "cpu"), Matcher::matching("uuid", "u.+").unwrap()],
        vec![Matcher::equal(METRIC_NAME, "cpu"), Matcher::matching("uuid", "u1|u2").unwrap()],
    ] {
        assert_eq!(read(&engine, ALL, &matchers).await, sent[..2], "{matchers:?}");
    }
}

#[tokio::test]
async fn after_close_writes_are_told_to_come_again() {
    let engine = engine().await;
    engine.close().await.unwrap();
    let mut batch = engine.batch();
    batch.add(None, &[(METRIC_NAME, "cpu")], &[sample(NOW_MS, 1.0)]);
    let error = engine.append(batch, ticket(&engine)).await.unwrap_err();
    assert!(error.retry_after().is_some(), "{error}");
}

#[tokio::test]
async fn expired_days_are_not_read_and_frozen_hours_are_not_taken() {
    let engine = engine().await;
    let window = engine.window();
    assert_eq!(window.oldest_ms, NOW_MS - 392 * DAY_MS);
    assert_eq!(window.latest_ms, NOW_MS + limits::AHEAD_MS_MAX);
    write(&engine, &[(guest("u1", "cpu"), vec![sample(NOW_MS - 405 * DAY_MS, 1.0)])]).await;
    assert!(read(&engine, ALL, &[]).await.is_empty());
    // It came late and no sealer has seen it: it stays.
    assert_eq!(engine.expire().await.unwrap(), 0);
}

#[tokio::test]
async fn memory_that_can_never_be_had_is_told_from_memory_that_others_have() {
    let engine = engine().await;
    let mut one = engine.admit(1 << 20).unwrap();
    assert_eq!(one.grow(limits::WRITE_BYTES_IN_FLIGHT_MAX), Err(NoMemory::Ever));
    let other = engine.admit(limits::WRITE_BYTES_IN_FLIGHT_MAX / 2).unwrap();
    let rest = limits::WRITE_BYTES_IN_FLIGHT_MAX / 4 * 3;
    assert_eq!(one.grow(rest), Err(NoMemory::Now));
    drop(other);
    assert_eq!(one.grow(rest), Ok(()));
}
