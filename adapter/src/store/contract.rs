//! Every promise of the store contract, checked on every store: `all` takes a way to open a store
//! and, where the store outlives its process, to open it again.

mod seals;

use bytes::Bytes;

use super::rows::{
    ChunkRow, HeadRow, IndexRow, LateRow, LayoutRow, LedgerColumn, LedgerMinute, LedgerRow,
    MarkerRow, Placed, PostingsKey, Projection, Rows, SealMark, Sealed, SeriesPage, Shard, Wanted,
};
use super::{Store, StoreError};
use crate::limits;
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
    assert_eq!(subject.store().seal_mark(SealMark::Sealed(Shard(0))).await.unwrap(), None);
    sealed_rows(subject.store(), week, hour).await;
    if subject.keeps() {
        subject.reopen().await;
        let until = subject.store().seal_mark(SealMark::Sealed(Shard(0))).await.unwrap();
        assert_eq!(until, Some(Hour(hour.0 + 2)), "what is sealed outlives the process");
        let begun = subject.store().seal_mark(SealMark::Begun).await.unwrap();
        assert_eq!(begun, Some(Hour(hour.0 + 7)), "so does what sealing has begun with");
        sealed_rows(subject.store(), week, hour).await;
        head_rows(subject.store(), hour).await;
        index_rows(subject.store(), week).await;
        assert_eq!(
            subject.store().layouts().await.unwrap().len(),
            2,
            "layouts outlive the process"
        );
    }
    seals::nothing_slips_past_one(subject.store(), hour).await;
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
    let mut all = store.head_page(Group(7), hour, None).await.unwrap();
    assert!(all.is_sorted_by_key(|((first_ms, _), _)| *first_ms));
    let last = all.last().unwrap().0;
    let first = all.first().unwrap().0;
    let behind = store.head_page(Group(7), hour, Some(first)).await.unwrap();
    assert_eq!(behind, all[1..]);
    assert!(store.head_page(Group(7), hour, Some(last)).await.unwrap().is_empty());
    all.sort_by(|left, right| left.1.cmp(&right.1));
    let payloads: Vec<&Bytes> = all.iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [&b"one"[..], b"two"]);
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
    store
        .append(Rows { index: rows.iter().rev().cloned().collect(), ..Rows::default() })
        .await
        .unwrap();
    let placed = |row: &IndexRow| Placed { group: row.group, series: row.series };

    assert_eq!(store.metrics(week, ROWS_MAX).await.unwrap(), ["up", "upper"]);
    assert_eq!(store.metrics(Week(week.0 - 1), ROWS_MAX).await.unwrap(), ["older"]);
    let keys = [("key-1".to_owned(), Group(1)), ("key-2".to_owned(), Group(2))];
    assert_eq!(store.row_keys(week, ROWS_MAX).await.unwrap(), keys);

    let mut of_up = store.metric_series(week, "up", ROWS_MAX).await.unwrap();
    of_up.sort();
    assert_eq!(of_up, sorted(vec![placed(&rows[0]), placed(&rows[1])]));
    assert!(store.metric_series(week, "u", ROWS_MAX).await.unwrap().is_empty());

    postings(store, week, [placed(&rows[0]), placed(&rows[1])]).await;

    let expected: Vec<(SeriesId, Bytes)> = sorted(vec![
        (rows[1].series, rows[1].labels.clone()),
        (rows[2].series, rows[2].labels.clone()),
    ]);
    assert_eq!(store.series(week, Group(2), ROWS_MAX).await.unwrap(), expected);
    labels(store, week, &rows).await;
    series_pages(store, Week(week.0 + 1)).await;
}

/// A group of more series than a page holds, and of more bytes of labels than one read may.
async fn series_pages(store: &Store, week: Week) {
    let group = Group(0x8000_0000_0000_0005);
    let (long, count) = ("x".repeat(300 << 10), 2 * limits::SERIES_PAGE_ROWS + 50);
    let mut expected = Vec::new();
    for first in (0..count).step_by(10) {
        let row = |number: usize| {
            let number = number.to_string();
            let pairs = [(METRIC_NAME, "long"), ("number", number.as_str())];
            let labels = Bytes::from(format!("{number} {long}"));
            IndexRow { labels, ..index_row(week, group.0, &pairs) }
        };
        let index: Vec<IndexRow> = (first..first + 10).map(row).collect();
        expected.extend(index.iter().map(|row| (row.series, row.labels.len())));
        store.append(Rows { index, ..Rows::default() }).await.unwrap();
    }
    expected.sort_unstable();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.series_page(week, group, after).await.unwrap();
        assert!(page.rows.len() <= limits::SERIES_PAGE_ROWS);
        assert!(page.rows.iter().all(|(series, _)| after.is_none_or(|after| after < *series)));
        found.extend(page.rows.iter().map(|(series, labels)| (*series, labels.len())));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
    let other = store.series_page(Week(week.0 + 9), group, None).await.unwrap();
    assert_eq!(other, SeriesPage::default());
}

/// Values and their beginnings, to the byte; several of them at once.
async fn postings(store: &Store, week: Week, [a, ab]: [Placed; 2]) {
    let key = |label: &'static str| PostingsKey { week, metric: "up", label };
    let with = async |label: &'static str, values: &[&str]| {
        sorted(store.postings(key(label), values, ROWS_MAX).await.unwrap())
    };
    assert_eq!(with("job", &["a"]).await, [a]);
    assert_eq!(with("job", &["ab"]).await, [ab]);
    assert_eq!(with("job", &["ab", "none", "a"]).await, sorted(vec![a, ab]));
    assert!(with("job", &[]).await.is_empty());
    assert_eq!(with("zone", &["x\u{0}y"]).await, [a]);
    assert!(with("zone", &["x"]).await.is_empty());
    assert!(with("jo", &["ba"]).await.is_empty());

    let below = async |label: &'static str, prefixes: &[&str]| {
        sorted(store.postings_below(key(label), prefixes, ROWS_MAX).await.unwrap())
    };
    let [of_a, of_ab] = [("a".to_owned(), a), ("ab".to_owned(), ab)];
    assert_eq!(below("job", &["a"]).await, [of_a, of_ab.clone()]);
    assert_eq!(below("job", &["ab"]).await, [of_ab]);
    assert_eq!(below("job", &["b", "a"]).await.len(), 2);
    assert!(below("job", &["b", "aba", "A"]).await.is_empty());
    let of_zone = [("x\u{0}y".to_owned(), a)];
    for prefix in ["x", "x\u{0}", "x\u{0}y"] {
        assert_eq!(below("zone", &[prefix]).await, of_zone, "{prefix:?}");
    }
    assert!(below("zone", &["x\u{0}\u{0}"]).await.is_empty());
    assert!(below("zon", &["e"]).await.is_empty());
    for (label, rows_max, fits) in [("job", 1, false), ("job", 2, true), ("zone", 1, true)] {
        let several = store.postings(key(label), &["a", "ab", "x\u{0}y"], rows_max).await;
        assert_eq!(several.is_ok(), fits, "{label} {rows_max}");
        let several = store.postings_below(key(label), &["a", "x"], rows_max).await;
        assert_eq!(several.is_ok(), fits, "{label} {rows_max}");
    }
}

/// All series of some groups, or some of them; what is not there is left out.
async fn labels(store: &Store, week: Week, rows: &[IndexRow]) {
    let of = async |wanted: &[(u64, Option<&[SeriesId]>)]| {
        let wanted = wanted.iter().map(|(group, series)| Wanted {
            group: Group(*group),
            series: series.map(<[SeriesId]>::to_vec),
        });
        sorted(store.labels(week, wanted.collect(), ROWS_MAX).await.unwrap())
    };
    let row = |at: usize| {
        (Placed { group: rows[at].group, series: rows[at].series }, rows[at].labels.clone())
    };
    let all = of(&[(1, None), (2, None), (9, None)]).await;
    assert_eq!(all, sorted(vec![row(0), row(1), row(2)]));
    let ids: Vec<SeriesId> = rows.iter().map(|row| row.series).collect();
    assert_eq!(of(&[(2, Some(&ids[1..2])), (1, Some(&ids[1..2]))]).await, [row(1)]);
    // More than are read one by one, and all but two of them not there.
    let others = (0..100).map(|id| SeriesId(u128::MAX / 100 * id));
    let mut many: Vec<SeriesId> = others.chain(ids).collect();
    many.sort_unstable();
    assert_eq!(of(&[(2, Some(&many))]).await, sorted(vec![row(1), row(2)]));
    assert!(of(&[]).await.is_empty());
    let wanted = |group| Wanted { group: Group(group), series: None };
    let too_many = store.labels(week, vec![wanted(1), wanted(2)], 2).await;
    assert!(matches!(too_many, Err(StoreError::TooManyRows { rows_max: 2, .. })));
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

/// What the sealer writes.
async fn sealed_rows(store: &Store, week: Week, hour: Hour) {
    chunks_and_markers(store, hour).await;
    late_rows(store, hour).await;
    ledger_rows(store, hour).await;
    seal_marks(store, hour).await;
    leases(store).await;
    row_key_pages(store, week).await;
}

fn sealed(group: u64, window: Hour, payload: &'static [u8]) -> Sealed {
    let chunk = ChunkRow {
        group: Group(group),
        series: SeriesId(u128::from(group)),
        window,
        hash: xxhash_rust::xxh3::xxh3_64(payload),
        payload: Bytes::from_static(payload),
    };
    let marker = MarkerRow { group: Group(group), window };
    Sealed { chunks: vec![chunk], markers: vec![marker], ..Sealed::default() }
}

/// A seal twice is a seal once, two different chunks are a union, ranges hold both ends, and groups
/// and series do not leak.
async fn chunks_and_markers(store: &Store, hour: Hour) {
    let (before, next) = (Hour(hour.0 - 2), Hour(hour.0 + 2));
    let seals = [
        sealed(7, before, b"before"),
        sealed(7, hour, b"one"),
        sealed(7, hour, b"two"),
        sealed(7, next, b"next"),
        sealed(8, hour, b"other group"),
        sealed(u64::MAX, hour, b"last group"),
    ];
    for _ in 0..2 {
        for seal in seals.iter().rev() {
            store.seal(seal.clone()).await.unwrap();
        }
    }
    store.seal(Sealed::default()).await.unwrap();
    let chunks = async |group: u64, series: &[u64], windows| {
        let series: Vec<SeriesId> = series.iter().map(|id| SeriesId(u128::from(*id))).collect();
        let mut found = store.chunks(Group(group), &series, windows).await.unwrap();
        found.sort();
        found.into_iter().map(|chunk| (chunk.window, chunk.payload)).collect::<Vec<_>>()
    };
    let bytes = Bytes::from_static;
    let both = [(hour, bytes(b"one")), (hour, bytes(b"two"))];
    assert_eq!(chunks(7, &[6, 7, 8], (hour, hour)).await, both);
    assert_eq!(chunks(7, &[7], (before, Hour(hour.0 - 1))).await, [(before, bytes(b"before"))]);
    assert_eq!(chunks(7, &[7], (before, next)).await.len(), 4);
    assert!(chunks(7, &[8], (before, next)).await.is_empty());
    assert!(chunks(7, &[], (before, next)).await.is_empty());
    let last = chunks(u64::MAX, &[u64::MAX], (before, next)).await;
    assert_eq!(last, [(hour, bytes(b"last group"))]);
    let markers = async |group, windows| store.markers(Group(group), windows).await.unwrap();
    assert_eq!(markers(7, (before, next)).await, [before, hour, next]);
    assert_eq!(markers(7, (hour, Hour(next.0 - 1))).await, [hour]);
    assert_eq!(markers(8, (before, next)).await, [hour]);
    assert!(markers(9, (before, next)).await.is_empty());
}

/// Late rows stay until a seal takes just them away.
async fn late_rows(store: &Store, hour: Hour) {
    for shard in (0..store.shards()).map(Shard) {
        store.begin_seal_mark(shard, Hour(hour.0 - 2)).await.unwrap();
    }
    assert_eq!(store.late_since().await.unwrap(), None);
    let late = |group: u64, window: Hour, arrived_ms, hash| {
        let window = Hour(window.0);
        LateRow { group: Group(group), window, arrived_ms, hash }
    };
    let arrived = hour.start_ms();
    let next = Hour(hour.0 + 2);
    let rows = [
        late(7, hour, arrived, 1),
        late(7, hour, arrived, 2),
        late(7, hour, arrived + 5, 0),
        late(7, next, arrived, 1),
        late(u64::MAX, hour, arrived, u64::MAX),
    ];
    for _ in 0..2 {
        store.append(Rows { late: rows.to_vec(), ..Rows::default() }).await.unwrap();
    }
    let of = async |group, windows| store.late(Group(group), windows, ROWS_MAX).await.unwrap();
    assert_eq!(of(7, (hour, hour)).await, rows[..3]);
    assert_eq!(of(7, (hour, next)).await, rows[..4]);
    assert!(of(8, (hour, next)).await.is_empty());
    let too_many = store.late(Group(7), (hour, next), 3).await;
    assert!(matches!(too_many, Err(StoreError::TooManyRows { rows_max: 3, .. })));
    let (mut pages, mut last) = (Vec::new(), None);
    loop {
        let page = store.late_page(None, last, 2).await.unwrap();
        assert!(page.len() <= 2);
        pages.extend_from_slice(&page);
        last = page.last().copied();
        if last.is_none() {
            break;
        }
    }
    pages.sort();
    assert_eq!(pages, rows);
    let cleared = vec![rows[0], rows[2], rows[4]];
    store.seal(Sealed { late: cleared, ..Sealed::default() }).await.unwrap();
    assert_eq!(of(7, (hour, next)).await, [rows[1], rows[3]]);
    assert!(of(u64::MAX, (hour, next)).await.is_empty());
    let cleared = vec![rows[1], rows[3]];
    store.seal(Sealed { late: cleared, ..Sealed::default() }).await.unwrap();
    assert!(store.late_page(None, None, 2).await.unwrap().is_empty());
}

/// Seals hours of the ledger in a turn of their own.
async fn project(store: &Store, rows: Vec<LedgerRow>) {
    let ledger = vec![Projection { turn: store.turns(1).await.unwrap(), rows }];
    store.seal(Sealed { ledger, ..Sealed::default() }).await.unwrap();
}

/// An hour is written whole in place of what was there, and reads back to the bit.
async fn ledger_rows(store: &Store, hour: Hour) {
    let minute = |minute, value| LedgerMinute { minute, value, samples: 4, resets: 1, flags: 5 };
    let column =
        |name: &str, minutes: Vec<LedgerMinute>| LedgerColumn { name: name.to_owned(), minutes };
    let row = |family: &str, guest: &str, hour, columns| LedgerRow {
        family: family.to_owned(),
        guest: guest.to_owned(),
        hour,
        columns,
    };
    let next = Hour(hour.0 + 1);
    let first =
        row("cpu", "u1", hour, vec![column("total", vec![minute(0, 0.1), minute(59, 1e-300)])]);
    let rows = vec![
        first.clone(),
        row("cpu", "u1", next, vec![column("total", vec![minute(3, 100.0)])]),
        row("cpu", "u2", hour, vec![column("total", vec![minute(3, 7.0)])]),
        row(
            "blk_read",
            "u1",
            hour,
            vec![
                column("vda", vec![minute(1, 9_007_199_254_740_991.0), minute(2, 0.0)]),
                column("vdb", vec![]),
            ],
        ),
    ];
    for _ in 0..2 {
        project(store, rows.clone()).await;
    }
    let of = async |family: &str, guest: &str, hours| {
        store.ledger(family, guest, hours, ROWS_MAX).await.unwrap()
    };
    assert_eq!(of("cpu", "u1", (hour, next)).await, rows[..2]);
    assert_eq!(of("cpu", "u1", (next, next)).await, rows[1..2]);
    assert_eq!(of("cpu", "u2", (hour, next)).await, rows[2..3]);
    assert!(of("cpu", "u", (hour, next)).await.is_empty());
    assert_eq!(of("blk_read", "u1", (hour, next)).await, rows[3..]);
    assert!(of("blk_write", "u1", (hour, next)).await.is_empty());
    let guests = store.ledger_guests("cpu", (hour, next), ROWS_MAX).await.unwrap();
    assert_eq!(guests, ["u1", "u2"]);
    let too_many = store.ledger("cpu", "u1", (hour, next), 1).await;
    assert!(matches!(too_many, Err(StoreError::TooManyRows { rows_max: 1, .. })));

    let changed = row("cpu", "u1", hour, vec![column("total", vec![minute(59, 3.0)])]);
    project(store, vec![changed.clone()]).await;
    assert_eq!(of("cpu", "u1", (hour, hour)).await, [changed]);
    project(store, vec![first]).await;
}

/// Marks are kept; where several processes write them they never go back.
async fn seal_marks(store: &Store, hour: Hour) {
    let sealed = SealMark::Sealed(Shard(0));
    for until in [hour, Hour(hour.0 + 2)] {
        let begun = Hour(until.0 + 5);
        store.set_seal_mark(sealed, until).await.unwrap();
        store.set_seal_mark(SealMark::Begun, begun).await.unwrap();
        if !store.is_shared() || until > hour {
            assert_eq!(store.seal_mark(sealed).await.unwrap(), Some(until));
            assert_eq!(store.seal_mark(SealMark::Begun).await.unwrap(), Some(begun));
        }
        let first = store.turns(7).await.unwrap();
        let next = store.turns(1).await.unwrap();
        assert!(!store.is_shared() || next >= first + 7, "{first} and seven, then {next}");
    }
}

/// A shard is one sealer's until it gives it back.
async fn leases(store: &Store) {
    let shard = Shard(store.shards() - 1);
    let hold = async |sealer: &str| store.hold(shard, sealer).await.unwrap();
    assert!(hold("one").await);
    assert!(hold("one").await, "it is kept");
    assert_eq!(hold("two").await, !store.is_shared());
    assert_eq!(store.sealers("one").await.unwrap(), 1);
    store.release(shard, "two").await.unwrap();
    assert!(hold("one").await, "only its sealer gives it back");
    store.release(shard, "one").await.unwrap();
    assert!(hold("two").await);
    store.release(shard, "two").await.unwrap();
}

/// Pages of row keys are together what the whole list is.
async fn row_key_pages(store: &Store, week: Week) {
    let all = store.row_keys(week, ROWS_MAX).await.unwrap();
    let mut pages: Vec<(String, Group)> = Vec::new();
    loop {
        let page = store.row_key_page((week, None), pages.last(), 1).await.unwrap();
        assert!(page.len() <= 1);
        if page.is_empty() {
            break;
        }
        pages.extend(page);
    }
    pages.sort();
    assert_eq!(pages, all);
    assert!(!all.is_empty());
}
