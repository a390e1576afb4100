//! Every promise of the store contract, checked on every store: `all` takes a way to open a store
//! and, where the store outlives its process, to open it again.

use bytes::Bytes;

use super::rows::{HeadRow, IndexRow, LayoutRow, Placed, PostingsKey, Rows};
use super::{Store, StoreError};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};

const ROWS_MAX: usize = 1_000;

/// A store under test. `reopen` closes and opens it again with the same data.
pub(crate) trait Subject {
    fn store(&self) -> &Store;
    /// Whether data outlives the handle.
    fn keeps(&self) -> bool;
    async fn reopen(&mut self);
    /// The time of its clock: rows are made near it, so that no time to live has run out.
    fn now_ms(&self) -> i64;
}

/// Checks the whole contract. The subject is empty at the start.
pub(crate) async fn all(subject: &mut impl Subject) {
    let week = Week::of(subject.now_ms());
    let hour = Hour::of(subject.now_ms());
    empty_reads(subject.store(), week).await;
    head_rows(subject.store(), hour).await;
    index_rows(subject.store(), week).await;
    over_the_bound_is_an_error(subject.store(), week, hour).await;
    layouts(subject.store(), week).await;
    if subject.keeps() {
        subject.reopen().await;
        head_rows(subject.store(), hour).await;
        index_rows(subject.store(), week).await;
        assert_eq!(
            subject.store().layouts().await.unwrap().len(),
            2,
            "layouts outlive the process"
        );
    }
    assert_eq!(subject.store().ready(), Ok(()));
    subject.store().close().await.unwrap();
}

async fn empty_reads(store: &Store, week: Week) {
    let hours = week.hours();
    assert!(store.head(Group(1), hours, ROWS_MAX).await.unwrap().is_empty());
    assert!(store.series(week, Group(1), ROWS_MAX).await.unwrap().is_empty());
    assert!(store.metric_series(week, "up", ROWS_MAX).await.unwrap().is_empty());
    assert!(store.metrics(week, ROWS_MAX).await.unwrap().is_empty());
    assert!(store.row_keys(week, ROWS_MAX).await.unwrap().is_empty());
    assert!(store.layouts().await.unwrap().is_empty());
    store.append(Rows::default()).await.unwrap();
}

fn head_row(group: u64, hour: Hour, payload: &'static [u8]) -> HeadRow {
    let hash = xxhash_rust::xxh3::xxh3_64(payload);
    HeadRow {
        group: Group(group),
        hour,
        first_ms: hour.start_ms() + 1,
        hash,
        payload: Bytes::from_static(payload),
    }
}

async fn head(store: &Store, group: u64, from: Hour, to: Hour) -> Vec<Bytes> {
    let mut payloads = store.head(Group(group), (from, to), ROWS_MAX).await.unwrap();
    payloads.sort();
    payloads
}

/// Ranges hold both ends; groups and hours do not leak; a row twice is a row once; two different
/// payloads of one instant are both kept; extreme group numbers sort as any other.
async fn head_rows(store: &Store, hour: Hour) {
    let (next, before) = (Hour(hour.0 + 1), Hour(hour.0 - 1));
    let mut rows = vec![
        head_row(7, before, b"before"),
        head_row(7, hour, b"one"),
        head_row(7, hour, b"two"),
        head_row(7, next, b"next"),
        head_row(8, hour, b"other group"),
        head_row(u64::MAX, hour, b"last group"),
        head_row(0, hour, b"\x00\xff\x7f"),
    ];
    for _ in 0..3 {
        store.append(Rows { head: rows.clone(), ..Rows::default() }).await.unwrap();
        rows.reverse();
        rows.truncate(5);
    }
    assert_eq!(head(store, 7, hour, hour).await, [&b"one"[..], b"two"]);
    assert_eq!(head(store, 7, before, next).await, [&b"before"[..], b"next", b"one", b"two"]);
    assert_eq!(head(store, 7, next, Hour(next.0 + 5)).await, [&b"next"[..]]);
    assert_eq!(head(store, u64::MAX, hour, hour).await, [&b"last group"[..]]);
    assert_eq!(head(store, 0, before, next).await, [&b"\x00\xff\x7f"[..]]);
    assert!(head(store, 9, before, next).await.is_empty());
}

fn index_row(week: Week, group: u64, pairs: &[(&str, &str)]) -> IndexRow {
    let labels = Labels::new(pairs.iter().copied());
    let postings = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
    IndexRow {
        week,
        series: labels.id(),
        group: Group(group),
        row_key: format!("key-{group}"),
        metric: labels.get(METRIC_NAME).to_owned(),
        postings: postings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        labels: Bytes::from(labels.encode()),
    }
}

/// Three series, two metrics, two groups; texts with zero bytes and of one being a prefix of
/// another, so that no key runs into its neighbour.
async fn index_rows(store: &Store, week: Week) {
    let rows = vec![
        index_row(week, 1, &[(METRIC_NAME, "up"), ("job", "a"), ("zone", "x\u{0}y")]),
        index_row(week, 2, &[(METRIC_NAME, "up"), ("job", "ab")]),
        index_row(week, 2, &[(METRIC_NAME, "upper"), ("job", "a")]),
        index_row(Week(week.0 - 1), 2, &[(METRIC_NAME, "older"), ("job", "a")]),
    ];
    store.append(Rows { index: rows.clone(), ..Rows::default() }).await.unwrap();
    store.append(Rows { index: rows.iter().rev().cloned().collect(), ..Rows::default() }).await.unwrap();
    let placed = |row: &IndexRow| Placed { group: row.group, series: row.series };

    assert_eq!(store.metrics(week, ROWS_MAX).await.unwrap(), ["up", "upper"]);
    assert_eq!(store.metrics(Week(week.0 - 1), ROWS_MAX).await.unwrap(), ["older"]);
    let keys = [("key-1".to_owned(), Group(1)), ("key-2".to_owned(), Group(2))];
    assert_eq!(store.row_keys(week, ROWS_MAX).await.unwrap(), keys);

    let mut of_up = store.metric_series(week, "up", ROWS_MAX).await.unwrap();
    of_up.sort();
    assert_eq!(of_up, sorted(vec![placed(&rows[0]), placed(&rows[1])]));
    assert!(store.metric_series(week, "u", ROWS_MAX).await.unwrap().is_empty());

    let with = async |label: &'static str, value: &'static str| {
        store.postings(PostingsKey { week, metric: "up", label, value }, ROWS_MAX).await.unwrap()
    };
    assert_eq!(with("job", "a").await, [placed(&rows[0])]);
    assert_eq!(with("job", "ab").await, [placed(&rows[1])]);
    assert_eq!(with("zone", "x\u{0}y").await, [placed(&rows[0])]);
    assert!(with("zone", "x").await.is_empty());
    assert!(with("jo", "ba").await.is_empty());

    let expected: Vec<(SeriesId, Bytes)> = sorted(vec![
        (rows[1].series, rows[1].labels.clone()),
        (rows[2].series, rows[2].labels.clone()),
    ]);
    assert_eq!(store.series(week, Group(2), ROWS_MAX).await.unwrap(), expected);
}

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

/// A read is whole or an error, never cut short.
async fn over_the_bound_is_an_error(store: &Store, week: Week, hour: Hour) {
    let too_many = |result: Result<usize, StoreError>| {
        matches!(result, Err(StoreError::TooManyRows { rows_max: 1, .. }))
    };
    assert!(too_many(store.head(Group(7), (hour, hour), 1).await.map(|rows| rows.len())));
    assert_eq!(store.head(Group(7), (hour, hour), 2).await.unwrap().len(), 2);
    assert!(too_many(store.series(week, Group(2), 1).await.map(|rows| rows.len())));
    assert!(too_many(store.metric_series(week, "up", 1).await.map(|rows| rows.len())));
    assert!(too_many(store.metrics(week, 1).await.map(|rows| rows.len())));
    assert!(too_many(store.row_keys(week, 1).await.map(|rows| rows.len())));
    assert_eq!(store.metrics(week, 2).await.unwrap().len(), 2);
}

/// The first to add a layout for a week wins; later ones are told.
async fn layouts(store: &Store, week: Week) {
    let layout = |from, settings: &str| LayoutRow { from, settings: settings.to_owned() };
    assert!(store.add_layout(layout(week, "one")).await.unwrap());
    assert!(!store.add_layout(layout(week, "two")).await.unwrap());
    let later = Week(week.0 + 3);
    assert!(store.add_layout(layout(later, "three")).await.unwrap());
    assert_eq!(store.layouts().await.unwrap(), [layout(week, "one"), layout(later, "three")]);
}
