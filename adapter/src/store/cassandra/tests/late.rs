//! The list of what came late on a node that, as every node, ends a read which passes over too many
//! deleted rows: only sooner.

use super::*;
use crate::model::time::HOUR_MS;
use crate::store::StoreError;
use crate::store::rows::{
    LateRow, LedgerColumn, LedgerMinute, LedgerRow, Projection, Sealed, Shard,
};

const GROUPS: u64 = 3;
/// Windows of a week, no three of them within two days.
const WINDOWS: i32 = 6;
/// More of a group's week than the node passes over; of two days they are less.
const ROWS: u64 = 120;
const TOMBSTONES_MAX: u32 = 1_000;

async fn node_of_few_tombstones() -> Option<Node> {
    let yaml = format!(
        "tombstone_warn_threshold: {}\ntombstone_failure_threshold: {TOMBSTONES_MAX}\n",
        TOMBSTONES_MAX / 2
    );
    Node::start(Plan { yaml, ..Plan::alone() }).await
}

fn late(group: u64, window: Hour, arrived_ms: i64, hash: u64) -> LateRow {
    LateRow { group: Group(group), window, arrived_ms, hash }
}

async fn all_late(store: &Cassandra) -> Vec<LateRow> {
    let (mut all, mut last) = (Vec::new(), None);
    loop {
        let page = store.late_page(Some(Shard(0)), last, 1_000).await.unwrap();
        last = page.last().copied();
        if last.is_none() {
            return all;
        }
        all.extend(page);
    }
}

#[tokio::test]
async fn what_was_taken_away_is_in_nobodys_way() {
    let Some(node) = node_of_few_tombstones().await else { return };
    let now_ms = Clock::system().now_ms();
    let clock = Clock::fixed(now_ms);
    let settings = CassandraSettings { index_shards: 1, ..settings(&node, "queue") };
    let store = Cassandra::open(settings, clock.clone()).await.unwrap();
    let week = Week(Week::of(now_ms).0 - 1);
    let window = week.hours().0;
    store.begin_seal_mark(Shard(0), window).await.unwrap();
    assert_eq!(store.late_since().await.unwrap(), None);
    // Filled, worked off, and filled again.
    for round in 0..2 {
        let of_group = |group| {
            let windows = (0..WINDOWS).map(move |n| Hour(window.0 + 28 * n + 2 * round));
            windows.flat_map(move |window| (0..ROWS).map(move |n| late(group, window, now_ms, n)))
        };
        let rows: Vec<LateRow> = (0..GROUPS).flat_map(of_group).collect();
        for rows in rows.chunks(500) {
            store.append(Rows { late: rows.to_vec(), ..Rows::default() }).await.unwrap();
        }
        let mut listed = all_late(&store).await;
        listed.sort_unstable();
        let mut expected = rows.clone();
        expected.sort_unstable();
        assert_eq!(listed, expected);
        store.seal(Sealed { late: rows, ..Sealed::default() }).await.unwrap();
    }
    // The node would not pass over all of them.
    let session = operator(&node).await;
    let whole =
        format!("SELECT hash FROM queue.late WHERE group_id = 1 AND week = {} LIMIT 1", week.0);
    let error = session.query_unpaged(whole, ()).await.unwrap_err().to_string();
    assert!(error.contains("read") || error.contains("Read"), "{error}");

    assert_eq!(all_late(&store).await, []);
    let one = late(GROUPS - 1, window, now_ms + 1, 7);
    store.append(Rows { late: vec![one], ..Rows::default() }).await.unwrap();
    assert_eq!(all_late(&store).await, [one]);
    let range = (Hour(window.0 - 300), Hour(window.0 + 300));
    assert_eq!(store.late(one.group, range, 9).await.unwrap(), [one]);
    assert_eq!(store.late(Group(0), range, 9).await.unwrap(), []);
}

/// Pages of any size give every row once, over the borders of reads and weeks.
#[tokio::test]
async fn pages_of_late_rows_lack_none() {
    let Some(node) = node().await else { return };
    let now_ms = Clock::system().now_ms();
    let settings = CassandraSettings { index_shards: 2, ..settings(node, "late_pages") };
    let store = Cassandra::open(settings, Clock::fixed(now_ms)).await.unwrap();
    let begin = Week(Week::of(now_ms).0 - 1).hours().0.0;
    for shard in [0, 1] {
        store.begin_seal_mark(Shard(shard), Hour(begin)).await.unwrap();
    }
    let windows = [-170, -4, -2, 0, 2, 46, 48, 50, 166, 168].map(|hour| Hour(begin + hour));
    let of_group = |group| {
        let rows = windows.iter().enumerate();
        rows.flat_map(move |(number, window)| {
            (0..=number as u64 % 3).map(move |hash| late(group, *window, now_ms, hash))
        })
    };
    let mut rows: Vec<LateRow> = [1, 2, 3].into_iter().flat_map(of_group).collect();
    store.append(Rows { late: rows.clone(), ..Rows::default() }).await.unwrap();
    rows.sort_unstable();
    for size in [1, 2, 3, 7, 100] {
        let (mut found, mut last) = (Vec::new(), None);
        loop {
            let page = store.late_page(None, last, size).await.unwrap();
            assert!(page.len() <= size);
            last = page.last().copied();
            if last.is_none() {
                break;
            }
            found.extend(page);
        }
        found.sort_unstable();
        assert_eq!(found, rows, "pages of {size}");
    }
    let all = (Hour(begin - 200), Hour(begin + 400));
    let of_two = rows.iter().filter(|row| row.group == Group(2)).copied().collect::<Vec<_>>();
    assert_eq!(store.late(Group(2), all, 100).await.unwrap(), of_two);
    let some = (windows[2], windows[6]);
    let within = |row: &LateRow| some.0 <= row.window && row.window <= some.1;
    let expected = of_two.into_iter().filter(within).collect::<Vec<_>>();
    assert_eq!(store.late(Group(2), some, 100).await.unwrap(), expected);
}

/// What one adapter took is taken away by another, however long that one keeps its own.
#[tokio::test]
async fn a_late_row_is_found_whatever_is_kept() {
    let Some(node) = node().await else { return };
    let now_ms = Clock::system().now_ms();
    let settings = settings(node, "late_kept");
    let longer = CassandraSettings { retention: 2 * RETENTION, ..settings.clone() };
    let longer = CassandraSettings { ledger_retention: 2 * RETENTION, ..longer };
    let store = Cassandra::open(longer, Clock::fixed(now_ms)).await.unwrap();
    let kept_ms = i64::try_from(RETENTION.as_millis()).unwrap();
    let row = late(1, Hour::of(now_ms - kept_ms - 20 * DAY_MS), now_ms, 1);
    store.append(Rows { late: vec![row], ..Rows::default() }).await.unwrap();
    let shorter = CassandraSettings { reads_only: true, ..settings };
    let shorter = Cassandra::open(shorter, Clock::fixed(now_ms)).await.unwrap();
    assert_eq!(shorter.late(row.group, (row.window, row.window), 9).await.unwrap(), [row]);
    assert_eq!(shorter.late_page(None, None, 9).await.unwrap(), [row]);
}

/// Hours of arrival are done with one after the other; one in which anything waits is not.
#[tokio::test]
async fn the_oldest_that_waits_is_known() {
    let Some(node) = node().await else { return };
    let begin_ms = Clock::system().now_ms() / HOUR_MS * HOUR_MS;
    let clock = Clock::fixed(begin_ms + 600_000);
    let settings = CassandraSettings { index_shards: 2, ..settings(node, "waits") };
    let store = Cassandra::open(settings.clone(), clock.clone()).await.unwrap();
    let window = Hour(Hour::of(begin_ms).0 - 30);
    let finish = async || {
        for shard in [0, 1] {
            store.finish_late(Shard(shard)).await.unwrap();
        }
        store.late_since().await.unwrap()
    };
    for shard in [0, 1] {
        store.begin_seal_mark(Shard(shard), window).await.unwrap();
    }
    let (one, other) = (late(1, window, 5, 1), late(2, window, 5, 1));
    store.append(Rows { late: vec![one], ..Rows::default() }).await.unwrap();
    assert_eq!(finish().await, None, "its hour is not over");
    clock.set(begin_ms + 3 * HOUR_MS);
    store.append(Rows { late: vec![other], ..Rows::default() }).await.unwrap();
    assert_eq!(finish().await, Some(begin_ms));
    clock.set(begin_ms + 80 * HOUR_MS);
    assert_eq!(finish().await, Some(begin_ms), "it waits on");
    store.seal(Sealed { late: vec![one], ..Sealed::default() }).await.unwrap();
    assert_eq!(finish().await, Some(begin_ms + 3 * HOUR_MS), "the other one");
    // Another adapter knows it without looking, and takes over where this one is.
    let cold = Cassandra::open(settings, clock.clone()).await.unwrap();
    assert_eq!(cold.late_since().await.unwrap(), Some(begin_ms + 3 * HOUR_MS));
    assert_eq!(cold.late_page(None, None, 9).await.unwrap(), [other]);
    store.seal(Sealed { late: vec![other], ..Sealed::default() }).await.unwrap();
    assert_eq!(finish().await, None);
}

/// A commit that slept is listed where sealers still look.
#[tokio::test]
async fn a_commit_that_slept_is_listed_again() {
    let Some((node, _alone)) = node_to_freeze().await else { return };
    let begin_ms = Clock::system().now_ms() / HOUR_MS * HOUR_MS;
    let clock = Clock::fixed(begin_ms);
    let settings = CassandraSettings { index_shards: 1, ..settings(node, "slept_listing") };
    let store = Cassandra::open(settings, clock.clone()).await.unwrap();
    let window = Hour(Hour::of(begin_ms).0 - 30);
    store.begin_seal_mark(Shard(0), window).await.unwrap();
    let row = late(1, window, begin_ms, 1);
    node.pause().await;
    let sleeps = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        clock.set(begin_ms + 3 * HOUR_MS);
        node.resume();
    };
    let head = vec![head_row(1, window.start_ms(), Bytes::from_static(b"late"))];
    let rows = Rows { late: vec![row], head, ..Rows::default() };
    let (written, ()) = tokio::join!(store.append(rows), sleeps);
    written.unwrap();
    let session = operator(node).await;
    let hours = "SELECT hour FROM slept_listing.late_windows";
    let answer = session.query_unpaged(hours, ()).await.unwrap().into_rows_result().unwrap();
    let mut hours: Vec<i32> = answer.rows::<(i32,)>().unwrap().map(|row| row.unwrap().0).collect();
    hours.sort_unstable();
    let begin = Hour::of(begin_ms).0;
    assert_eq!(hours, [begin, begin + 3]);
}

/// What no cluster takes is told apart from a cluster that takes nothing now.
#[tokio::test]
async fn a_row_that_is_refused_is_no_trouble_of_the_store() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "refusing")).await;
    // Longer than a partition's key may be.
    let guest = "u".repeat(70_000);
    let minute = LedgerMinute { minute: 1, value: 1.0, samples: 1, resets: 0, flags: 0 };
    let columns = vec![LedgerColumn { name: "total".to_owned(), minutes: vec![minute] }];
    let hour = Hour::of(Clock::system().now_ms());
    let rows = vec![LedgerRow { family: "cpu".to_owned(), guest, hour, columns }];
    let ledger = vec![Projection { turn: 1, rows }];
    let begin = Instant::now();
    let error = store.seal(Sealed { ledger, ..Sealed::default() }).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    wait_until_ready(&store).await;
}
