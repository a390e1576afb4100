//! Two adapters' sealers on one real cluster: they share the work, one takes over where the other is
//! silent, and one that slept between its read and its write changes nothing.

use super::*;
use crate::model::row_key::Group;
use crate::model::time::Week;
use crate::store::cassandra::tests::faults::{behind_proxy, damaged_row_keys};
use crate::store::cassandra::tests::{node, node_to_freeze, settings};
use crate::store::cassandra::{Cassandra, CassandraSettings};
use crate::store::rows::{HeadRow, IndexRow, LateRow, Rows};

/// Longer than a busy node takes to be asked for all shards.
const LEASE: Duration = Duration::from_secs(20);

/// Two adapters on a keyspace of their own, on one clock.
pub(super) async fn two(settings: &CassandraSettings, now_ms: i64) -> [Works; 2] {
    two_with(LEASE, settings, now_ms).await
}

async fn two_with(lease: Duration, settings: &CassandraSettings, now_ms: i64) -> [Works; 2] {
    let clock = Clock::fixed(now_ms);
    let settings = CassandraSettings { lease, ..settings.clone() };
    let mut works = Vec::new();
    for _ in 0..2 {
        let store = Cassandra::open(settings.clone(), clock.clone()).await.unwrap();
        works.push(Works::on(Store::Cassandra(Box::new(store)), &["uuid"], clock.clone()).await);
    }
    works.try_into().unwrap()
}

/// Until a condition holds.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

/// A pass; one that lost a shard to its own slowness goes on at the next.
async fn pass(works: &Works) {
    match works.sealer.pass().await {
        Ok(()) | Err(QueryError::TryAgain(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Sends samples of the window that begins then, and seals it when its grace is over.
pub(super) async fn send_and_seal(works: &Works, samples: &[Arrival], begin: i64) {
    works.clock.set(begin + HOUR_MS);
    send(works, samples).await;
    works.clock.set(begin + 3 * HOUR_MS);
    until("it is sealed", async || {
        pass(works).await;
        works.engine.first_unsealed().await.unwrap().first > Hour::of(begin)
    })
    .await;
}

async fn look(works: &Works) -> usize {
    works.sealer.shares.look().await.unwrap();
    works.sealer.shares.held().len()
}

#[tokio::test]
async fn shards_are_shared_and_those_of_a_dead_sealer_are_taken() {
    let Some(node) = node().await else { return };
    let [a, b] = Box::pin(two(&settings(node, "shared"), NOW_MS)).await;
    assert_eq!(look(&a).await, 16, "alone");
    assert_eq!(look(&b).await, 0, "all are taken");
    // It hears of the other, and gives half of them back.
    assert_eq!(look(&a).await, 8);
    assert_eq!(look(&b).await, 8);
    let (of_a, of_b) = (a.sealer.shares.held(), b.sealer.shares.held());
    assert!(of_a.iter().all(|shard| !of_b.contains(shard)));
    // One is silent: its leases end, and it knows.
    until("b holds all", async || look(&b).await == 16).await;
    assert_eq!(a.sealer.shares.held(), []);
    assert_eq!(look(&a).await, 0);
    assert_eq!(look(&b).await, 8, "it is back");
}

#[tokio::test]
async fn a_sealer_that_stops_leaves_its_shards_at_once() {
    let Some(node) = node().await else { return };
    // Nobody waits for the end of these leases.
    let lease = Duration::from_secs(3600);
    let [a, b] = Box::pin(two_with(lease, &settings(node, "left"), NOW_MS)).await;
    assert_eq!(look(&a).await, 16, "alone");
    assert_eq!(look(&b).await, 0, "all are taken");
    assert_eq!(look(&a).await, 8);
    assert_eq!(look(&b).await, 8);
    Box::pin(b.sealer.run(std::future::ready(()))).await;
    until("a holds all", async || look(&a).await == 16).await;
}

/// More labels of one guest than one read of a cluster holds: they keep neither a new adapter from
/// writing, nor the guest from being sealed and billed.
#[tokio::test]
async fn a_guest_of_many_labels_is_written_sealed_and_billed() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let settings = settings(node, "many_labels");
    let arrived = scrapes(begin, begin + HOUR_MS);
    let (first, second) = arrived.split_at(120);
    let store = Cassandra::open(settings.clone(), Clock::fixed(begin)).await.unwrap();
    let [a, b] = Box::pin(two(&settings, begin + HOUR_MS)).await;
    send(&a, first).await;
    let week = Week::of(begin);
    let row_keys = store.row_keys(week, 9).await.unwrap();
    let [(row_key, group)] = row_keys.as_slice() else { panic!("{row_keys:?}") };
    for row in many_labels(week, (row_key, *group)) {
        store.append(Rows { index: vec![row], ..Rows::default() }).await.unwrap();
    }
    let whole = store.series(week, *group, limits::QUERY_ROWS_MAX).await;
    assert!(whole.unwrap_err().is_too_much());
    // This one has not written the guest before.
    send(&b, second).await;
    let minutes = Minutes { from_ms: begin, to_ms: begin + HOUR_MS };
    let expected = by_oracle(&stored(&arrived), Family::NicIncoming);
    assert_eq!(b.billed(Family::NicIncoming, minutes).await, expected, "before it is sealed");
    b.clock.set(begin + 3 * HOUR_MS);
    until("it is sealed", async || {
        pass(&a).await;
        pass(&b).await;
        b.engine.first_unsealed().await.unwrap().first > Hour::of(begin)
    })
    .await;
    assert_eq!(b.billed(Family::NicIncoming, minutes).await, expected);
    let hours = (Hour::of(begin), Hour::of(begin));
    assert_eq!(store.ledger("nic_incoming", "u1", hours, 9).await.unwrap().len(), 1);
}

/// 75 MB of series that nobody is billed for.
pub(super) fn many_labels(
    week: Week,
    (row_key, group): (&str, Group),
) -> impl Iterator<Item = IndexRow> {
    let long = "x".repeat(limits::LABEL_VALUE_BYTES_MAX);
    (0..250).map(move |number| {
        let others = (0..75).map(|label| (format!("label_{label}"), long.clone()));
        let own = [(METRIC_NAME, "other".to_owned()), ("number", number.to_string())];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let labels = Labels::new(own.into_iter().chain(others));
        IndexRow {
            week,
            series: labels.id(),
            group,
            row_key: row_key.to_owned(),
            metric: "other".to_owned(),
            postings: Vec::new(),
            labels: labels.encode().into(),
        }
    })
}

/// What a sealer read and counted, and has not written yet.
async fn half_way(works: &Works, window: Window) -> Vec<Sealed> {
    works.engine.begin_sealing(window).await.unwrap();
    let mut sealed = Vec::new();
    for (_, group) in works.engine.group_page((window, None), None).await.unwrap() {
        let task = works.sealer.task(group, vec![window]).await.unwrap();
        let turn = works.engine.turns(1).await.unwrap();
        sealed.push(works.sealer.one(Task { turn, ..task }).await.unwrap().sealed);
    }
    sealed
}

#[tokio::test]
async fn a_sealer_that_slept_between_its_read_and_its_write_changes_nothing() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let [a, b] = Box::pin(two(&settings(node, "slept"), begin)).await;
    let all = scrapes(begin, begin + 2 * HOUR_MS);
    let missing = begin + 600_000..begin + 1_200_000;
    let (late, in_time): (Vec<Arrival>, Vec<Arrival>) =
        all.iter().cloned().partition(|(_, sample)| missing.contains(&sample.timestamp_ms));
    for (number, part) in in_time.chunks(60).enumerate() {
        a.clock.set(part.last().unwrap().1.timestamp_ms);
        send([&a, &b][number % 2], part).await;
    }
    a.clock.set(begin + 3 * HOUR_MS);
    let window = a.engine.window_of(Hour::of(begin));
    // The first one counts without what comes late, and sleeps past its lease.
    let slept = half_way(&a, window).await;
    send(&b, &late).await;
    b.clock.set(begin + 3 * HOUR_MS + 2 * 60_000);
    until("b has sealed it", async || {
        pass(&b).await;
        b.engine.first_unsealed().await.unwrap().first > window.first
    })
    .await;
    for works in [&a, &b] {
        check(works, &all).await.unwrap();
        all_stands(works, &all, begin + 2 * HOUR_MS).await.unwrap();
    }
    for sealed in slept {
        a.engine.seal(sealed).await.unwrap();
    }
    for works in [&a, &b] {
        check(works, &all).await.unwrap();
        all_stands(works, &all, begin + 2 * HOUR_MS).await.unwrap();
        let range = TimeRange { start_ms: begin, end_ms: begin + DAY_MS };
        let count = |samples: &[Sample]| (samples.len(), 0);
        assert_eq!(works.engine.select(range, &[], &count).await.unwrap()[0].1, all.len());
    }
}

/// An adapter that slept in the middle of a commit, past the grace of its window.
#[tokio::test]
async fn a_commit_that_slept_past_the_grace_is_late() {
    let Some((node, _alone)) = node_to_freeze().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let [a, b] = Box::pin(two(&settings(node, "slept_commit"), begin)).await;
    let all = scrapes(begin, begin + HOUR_MS);
    let (first, second) = all.split_at(120);
    a.clock.set(begin + HOUR_MS);
    send(&a, first).await;
    // Index and everything else is known; the node answers only after the clock has moved.
    node.pause().await;
    let sent = async { send(&a, second).await };
    let sleeps = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        a.clock.set(begin + 3 * HOUR_MS);
        node.resume();
    };
    tokio::join!(sent, sleeps);
    let late = b.engine.late_page(None, None).await.unwrap();
    assert!(!late.is_empty(), "judged once more when it was durable");
    until("all is sealed", async || {
        pass(&b).await;
        b.engine.first_unsealed().await.unwrap().first > Hour::of(begin)
    })
    .await;
    b.clock.set(begin + 4 * HOUR_MS);
    pass(&b).await;
    check(&b, &all).await.unwrap();
    all_stands(&a, &all, begin + HOUR_MS).await.unwrap();
}

/// An adapter whose clock is hours behind takes samples for in time that are late: nobody sees them
/// in a window that is sealed, until it is looked at once more.
#[tokio::test]
async fn what_slipped_past_a_seal_is_sealed_before_its_head_expires() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let settings = settings(node, "slipped");
    let [a, _] = Box::pin(two(&settings, begin)).await;
    let store = Cassandra::open(settings.clone(), Clock::fixed(begin)).await.unwrap();
    let behind = Works::on(Store::Cassandra(Box::new(store)), &["uuid"], Clock::fixed(begin)).await;
    let all = scrapes(begin, begin + HOUR_MS);
    let (first, second) = all.split_at(120);
    send_and_seal(&a, first, begin).await;
    behind.clock.set(begin + HOUR_MS);
    send(&behind, second).await;
    let range = TimeRange { start_ms: begin, end_ms: begin + DAY_MS };
    let samples = async || {
        let count = |samples: &[Sample]| (samples.len(), 0);
        a.engine.select(range, &[], &count).await.unwrap()[0].1
    };
    assert_eq!(samples().await, 120, "it slipped past the seal");
    a.clock.set(begin + 5 * DAY_MS);
    until("it is looked at once more", async || {
        pass(&a).await;
        samples().await == all.len()
    })
    .await;
    a.clock.set(begin + 5 * DAY_MS + HOUR_MS);
    until("it is sealed again", async || {
        pass(&a).await;
        a.engine.late_page(None, None).await.unwrap().is_empty()
    })
    .await;
    check(&a, &all).await.unwrap();
    all_stands(&a, &all, begin + HOUR_MS).await.unwrap();
}

#[tokio::test]
async fn writes_are_refused_where_heads_might_expire_unsealed() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let [a, _] = Box::pin(two(&settings(node, "behind"), begin)).await;
    send(&a, &scrapes(begin, begin + 600_000)).await;
    a.clock.set(begin + 4 * DAY_MS);
    a.sealer.report_lag().await.unwrap();
    let labels = Labels::new([(METRIC_NAME, "m"), ("uuid", "u2")]);
    let pairs: Vec<(&str, &str)> = labels.iter().collect();
    let write = async || {
        let mut batch = a.engine.batch();
        batch.add(None, &pairs, &[sample(begin + 4 * DAY_MS, 1.0)]);
        a.engine.append(batch, crate::engine::tests::ticket(&a.engine)).await
    };
    let error = write().await.unwrap_err().to_string();
    // Nobody has looked at what came late since the hour before that and the grace.
    assert!(error.contains("sealing is 96 h behind"), "{error}");
    until("it has caught up", async || {
        pass(&a).await;
        // A pass that is slower than its leases leaves some of it to the next.
        a.engine.first_unsealed().await.unwrap().first > Hour::of(begin + 3 * DAY_MS)
            && write().await.is_ok()
    })
    .await;
}

/// Late rows of some groups in an hour, whose samples cannot be read.
fn damaged_rows(groups: &[Group], hour: Hour, arrived_ms: i64) -> Rows {
    let payload = bytes::Bytes::from_static(b"damaged");
    let head = groups.iter().map(|group| HeadRow {
        group: *group,
        hour,
        first_ms: hour.start_ms(),
        hash: 1,
        payload: payload.clone(),
    });
    let late =
        groups.iter().map(|group| LateRow { group: *group, window: hour, arrived_ms, hash: 1 });
    Rows { head: head.collect(), late: late.collect(), ..Rows::default() }
}

/// Groups whose late samples cannot be read: others are sealed, it is known how long it waits, and
/// before what it has expires no more is taken.
#[tokio::test]
async fn what_came_late_and_cannot_be_sealed_is_told_in_time() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let settings = settings(node, "damaged");
    let [a, _] = Box::pin(two(&settings, begin)).await;
    let all = scrapes(begin, begin + HOUR_MS);
    let (first, second) = all.split_at(120);
    send_and_seal(&a, first, begin).await;
    let store = Cassandra::open(settings, a.clock.clone()).await.unwrap();
    let hour = Hour::of(begin);
    // Of every shard, before and behind the other one.
    let damaged: Vec<Group> = (0..16).flat_map(|n| [Group(n), Group(u64::MAX - n)]).collect();
    let rows = damaged_rows(&damaged, hour, begin + 3 * HOUR_MS);
    store.append(rows).await.unwrap();
    send(&a, second).await;
    a.clock.set(begin + 3 * HOUR_MS + 120_000);
    until("the others are sealed", async || {
        pass(&a).await;
        let late = a.engine.late_page(None, None).await.unwrap();
        late.iter().all(|row| damaged.contains(&row.group))
    })
    .await;
    check(&a, &all).await.unwrap();

    let write = async |at_ms: i64| {
        let labels = [(METRIC_NAME, "m"), ("uuid", "u2")];
        let mut batch = a.engine.batch();
        batch.add(None, &labels, &[sample(at_ms, 1.0)]);
        a.engine.append(batch, crate::engine::tests::ticket(&a.engine)).await
    };
    let caught_up = async |at_ms: i64| {
        a.clock.set(at_ms);
        until("it has caught up", async || {
            pass(&a).await;
            !a.engine.is_due(a.engine.first_unsealed().await.unwrap())
        })
        .await;
        pass(&a).await;
    };
    caught_up(begin + 3 * DAY_MS).await;
    write(begin + 3 * DAY_MS).await.unwrap();
    caught_up(begin + 4 * DAY_MS).await;
    let error = write(begin + 4 * DAY_MS).await.unwrap_err().to_string();
    assert!(error.contains("sealing is 92 h behind"), "{error}");
    assert_eq!(a.engine.late_since().await.unwrap(), Some(begin + 3 * HOUR_MS));
    // An operator repairs it, or gives it up.
    for group in damaged {
        let late = store.late(group, (hour, hour), 9).await.unwrap();
        store.seal(Sealed { late, ..Sealed::default() }).await.unwrap();
    }
    pass(&a).await;
    pass(&a).await;
    write(begin + 4 * DAY_MS).await.unwrap();
}

/// One partition of one shard that the cluster cannot read: the other shards are sealed.
#[tokio::test]
async fn a_bad_shard_keeps_no_other_back() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let (mut proxy, address) = behind_proxy(node).await;
    let settings = CassandraSettings { nodes: vec![address], ..settings(node, "bad_shard") };
    let [a, _] = Box::pin(two(&settings, begin)).await;
    a.clock.set(begin + HOUR_MS);
    let all = scrapes(begin, begin + HOUR_MS);
    send(&a, &all).await;
    let window = a.engine.window_of(Hour::of(begin));
    let (_, group) = a.engine.group_page((window, None), None).await.unwrap()[0];
    let shard = u8::try_from(group.0 % 16).unwrap();
    let bad = shard.checked_sub(1).expect("a shard before it");
    let rules = damaged_row_keys(Week::of(begin), bad);
    proxy.running_nodes[0].change_request_rules(Some(rules));
    a.clock.set(begin + 3 * HOUR_MS);
    let mut faults = Vec::new();
    until("the other shard is sealed", async || {
        faults.extend(a.sealer.pass().await.err());
        a.engine.is_sealed(group, window).await.unwrap()
    })
    .await;
    assert!(faults.iter().any(|fault| matches!(fault, QueryError::Damaged(_))), "{faults:?}");
    let unsealed = async |shard: u8| {
        let shard = Shard(shard.into());
        a.engine.first_unsealed_of(shard).await.unwrap().first
    };
    assert_eq!(unsealed(bad).await, window.first);
    assert!(unsealed(shard).await > window.first);
    proxy.running_nodes[0].change_request_rules(None);
    until("it is repaired", async || {
        pass(&a).await;
        unsealed(bad).await > window.first
    })
    .await;
    all_stands(&a, &all, begin + HOUR_MS).await.unwrap();
    drop(a);
    // The driver's connections end after this.
    proxy.finish().await.ok();
}
