//! What the sealer leaves, in a real node: what an operator sees of it, and what scale brings.

use scylla::value::{CqlValue, Row as CqlRow};

use super::*;
use crate::model::time::{Day, Month};
use crate::store::rows::{
    ChunkRow, LateRow, LedgerColumn, LedgerMinute, LedgerRow, MarkerRow, Projection, SealMark,
    Sealed, Shard,
};

const HOUR: Hour = Hour(490_896);
const GUEST: &str = "9d2cbb27-ee43-4e57-a2ee-9bca4c1b3ec8";

/// The example of `docs/storage.md`, sealed.
fn documented() -> (Rows, Sealed) {
    let group = Group(0x82b1_5a08_95c1_1e33);
    let chunk = b"\x01\x00\x01\x00\x00\x01\x9b\x76\xda\xe2\x98\x00\x00\x00\x40\x29\0\0\0\0\0\0";
    let chunk = ChunkRow {
        group,
        series: SeriesId(0xbaa6_1273_cd03_de38_e5ce_ee20_4189_d274),
        window: HOUR,
        hash: xxhash_rust::xxh3::xxh3_64(chunk),
        payload: Bytes::from_static(chunk),
    };
    let minute = LedgerMinute { minute: 1, value: 11.94, samples: 4, resets: 0, flags: 0 };
    let column = LedgerColumn { name: "total".to_owned(), minutes: vec![minute] };
    let ledger = LedgerRow {
        family: "cpu".to_owned(),
        guest: GUEST.to_owned(),
        hour: HOUR,
        columns: vec![column],
    };
    let arrived_ms = HOUR.start_ms() + 9_400_000;
    let late = LateRow { group, window: HOUR, arrived_ms, hash: 2_098_269_749_304_562_903 };
    let rows = Rows { late: vec![late], ..Rows::default() };
    let markers = vec![MarkerRow { group, window: HOUR }];
    let ledger = vec![projection(1_767_233_700_000_000, vec![ledger])];
    (rows, Sealed { chunks: vec![chunk], ledger, markers, late: Vec::new() })
}

fn projection(turn: i64, rows: Vec<LedgerRow>) -> Projection {
    Projection { turn, rows }
}

/// Rows as the page shows them; long blobs cut.
async fn shown(session: &Session, cql: &str) -> Vec<String> {
    let answer = session.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
    let rows: Vec<CqlRow> = answer.rows().unwrap().map(Result::unwrap).collect();
    let cell = |value: &Option<CqlValue>| match value.as_ref().expect("no cell is null") {
        CqlValue::SmallInt(number) => number.to_string(),
        CqlValue::Int(number) => number.to_string(),
        CqlValue::BigInt(number) => number.to_string(),
        CqlValue::Text(text) => text.clone(),
        CqlValue::Blob(bytes) => {
            let hex = |bytes: &[u8]| format!("{bytes:02x?}").replace(['[', ']', ',', ' '], "");
            match bytes.get(..14) {
                Some(first) if bytes.len() > 16 => format!("0x{}…", hex(first)),
                _ => format!("0x{}", hex(bytes)),
            }
        }
        other => panic!("{other:?}"),
    };
    let row = |row: &CqlRow| {
        let cells: Vec<String> = row.columns.iter().map(cell).collect();
        format!("| {} |", cells.join(" | "))
    };
    rows.iter().map(row).collect()
}

#[tokio::test]
async fn an_operator_sees_what_the_page_draws() {
    let Some(node) = node().await else { return };
    let clock = Clock::fixed(HOUR.start_ms() + 10_000_000);
    let store = Cassandra::open(settings(node, "drawn"), clock).await.unwrap();
    let (rows, sealed) = documented();
    store.append(rows).await.unwrap();
    store.seal(sealed).await.unwrap();
    store.set_seal_mark(SealMark::Sealed(Shard(3)), Hour(HOUR.0 + 2)).await.unwrap();

    let session = operator(node).await;
    let page = include_str!("../../../../../docs/storage.md");
    for (select, rows) in [
        ("group_id, week, series, window, hash, samples FROM drawn.chunks", 1),
        ("group_id, month, sealed_window FROM drawn.markers", 1),
        ("group_id, week, window, arrived_ms, hash FROM drawn.late", 1),
        ("key, day, column1, column2, value, resets, flags, samples FROM drawn.cpu", 60),
        ("family, guest, week, hour, minutes FROM drawn.ledger", 1),
        ("family, month, shard, guest FROM drawn.guests", 1),
        ("part, shard, sealed_until FROM drawn.sealing", 1),
    ] {
        let shown = shown(&session, &format!("SELECT {select}")).await;
        assert_eq!(shown.len(), rows, "{select}");
        for row in &shown[..rows.min(2)] {
            assert!(page.contains(row), "docs/storage.md lacks\n{row}");
        }
    }
    // As the page says that one asks.
    let cql = format!(
        "SELECT column2, value FROM drawn.cpu WHERE key = '{GUEST}' AND day = 20454 \
         AND column1 = 'total' AND column2 >= 1767225600"
    );
    assert_eq!(shown(&session, &cql).await[1], "| 1767225660 | 11.94 |");
}

#[tokio::test]
async fn what_is_sealed_lives_by_the_age_of_its_samples() {
    let Some(node) = node().await else { return };
    let ledger_retention = Duration::from_secs(1825 * 86_400);
    let settings = CassandraSettings { ledger_retention, ..settings(node, "sealed_ages") };
    // The samples' time is over, the ledger's is not; the window would end in two days and a bit.
    for (age_days, chunks, ledger) in [(300, 1, 60), (402, 0, 60), (1827, 0, 0)] {
        let clock = Clock::fixed(HOUR.end_ms() + age_days * DAY_MS);
        let store = Cassandra::open(settings.clone(), clock).await.unwrap();
        let (rows, sealed) = documented();
        store.append(rows).await.unwrap();
        store.seal(sealed).await.unwrap();
        let session = operator(node).await;
        let count = async |table: &str| {
            let cql = format!("SELECT * FROM sealed_ages.{table}");
            shown(&session, &cql).await.len()
        };
        for (table, expected) in [
            ("chunks", chunks),
            ("markers", chunks),
            ("late", chunks),
            ("ledger", ledger.min(1)),
            ("cpu", ledger),
        ] {
            assert_eq!(count(table).await, expected, "{table} at {age_days} days");
        }
        if age_days == 300 {
            let ttls = "SELECT TTL(samples) FROM sealed_ages.chunks";
            check_ttl(&session, ttls, 102).await;
            check_ttl(&session, "SELECT TTL(value) FROM sealed_ages.cpu LIMIT 1", 1526).await;
            check_ttl(&session, "SELECT TTL(minutes) FROM sealed_ages.ledger", 1526).await;
        }
        for table in ["chunks", "markers", "late", "ledger", "cpu"] {
            session.query_unpaged(format!("TRUNCATE sealed_ages.{table}"), ()).await.unwrap();
        }
    }
}

async fn check_ttl(session: &Session, cql: &str, days: i64) {
    let answer = session.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
    let (ttl,) = answer.single_row::<(i32,)>().unwrap();
    let expected = days * DAY_MS / 1000;
    // Counted from now on; the test may take a minute.
    assert!((expected - 60..=expected).contains(&i64::from(ttl)), "{cql}: {ttl}, not {expected}");
}

#[tokio::test]
async fn a_seal_takes_no_late_row_that_it_has_not_read() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "late")).await;
    let now_ms = Clock::system().now_ms();
    let (group, window) = (Group(1), Hour(Hour::of(now_ms).0 - 4));
    let late = LateRow { group, window, arrived_ms: now_ms, hash: 3 };
    let head = vec![head_row(1, window.start_ms(), Bytes::from_static(b"late"))];
    store.append(Rows { late: vec![late], head, ..Rows::default() }).await.unwrap();
    let rows = store.late(group, (window, window), 9).await.unwrap();
    assert_eq!(rows.len(), 2, "one from before the head row, one from after it");
    assert_eq!(rows[0], late);
    // A seal that read between the two knows of the first alone.
    store.seal(Sealed { late: vec![late], ..Sealed::default() }).await.unwrap();
    assert_eq!(store.late(group, (window, window), 9).await.unwrap(), rows[1..]);
}

/// All pages of a list, each bounded, each row once.
async fn pages<T: Clone + Ord>(rows: usize, page: impl AsyncFn(Option<T>) -> Vec<T>) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let next = page(all.last().cloned()).await;
        assert!(next.len() <= rows);
        if next.is_empty() {
            all.sort();
            return all;
        }
        all.extend(next);
    }
}

#[tokio::test]
async fn pages_go_over_all_shards() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "pages")).await;
    for shard in (0..16).map(Shard) {
        store.begin_seal_mark(shard, Hour(1)).await.unwrap();
    }
    let now_ms = Clock::system().now_ms();
    let (week, window) = (Week::of(now_ms), Hour(Hour::of(now_ms).0 - 4));
    let groups = |n: u64| Group(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let late: Vec<LateRow> = (0..2_000)
        .map(|n| LateRow { group: groups(n / 4), window, arrived_ms: now_ms, hash: n << 60 | n })
        .collect();
    let index = (0..6_000).map(|number| index_row(week, number)).collect();
    store.append(Rows { late: late.clone(), index, ..Rows::default() }).await.unwrap();

    let mut expected = late.clone();
    expected.sort_unstable();
    for rows in [7, 300, 10_000] {
        let found =
            pages(rows, async |last| store.late_page(None, last, rows).await.unwrap()).await;
        assert_eq!(found, expected, "pages of {rows}");
        let found = pages(rows, async |last| {
            store.row_key_page((week, None), last.as_ref(), rows).await.unwrap()
        })
        .await;
        assert_eq!(found, store.row_keys(week, 1_000).await.unwrap(), "pages of {rows}");
    }
    // A group is met in one piece, in the order of its windows, from before its first row on.
    let first = LateRow { group: groups(17), window, arrived_ms: i64::MIN, hash: 0 };
    let of_group = store.late_page(None, Some(first), 4).await.unwrap();
    assert!(of_group.iter().all(|row| row.group == first.group), "{of_group:?}");
    assert_eq!(of_group.len(), 4);

    store.seal(Sealed { late, ..Sealed::default() }).await.unwrap();
    assert!(store.late_page(None, None, 10).await.unwrap().is_empty());
}

fn hour_of(guest: &str, hour: Hour, columns: usize) -> LedgerRow {
    let minutes = |column: usize| {
        let minute = move |minute: u8| {
            let value = f64::from(u32::try_from(column).unwrap()) / 3.0 + f64::from(minute);
            LedgerMinute { minute, value, samples: 4, resets: 0, flags: 2 }
        };
        (0..60).map(minute).collect()
    };
    let column = |number| LedgerColumn { name: format!("vd{number:02}"), minutes: minutes(number) };
    LedgerRow {
        family: "blk_write".to_owned(),
        guest: guest.to_owned(),
        hour,
        columns: (0..columns).map(column).collect(),
    }
}

/// More series than a statement asks for, more bytes than a batch or a page, windows in two weeks
/// and in two months.
#[tokio::test]
async fn large_seals_come_back_whole() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "seals")).await;
    let month = Month::of(Clock::system().now_ms() - 30 * DAY_MS);
    let first = Hour(Hour::of(month.end_ms()).0 - 11);
    let windows: Vec<Hour> = (0..12).map(|n| Hour(first.0 + n * 2)).collect();
    let group = Group(u64::MAX - 5);
    let chunks: Vec<ChunkRow> = (0..130_u128)
        .flat_map(|series| windows.iter().map(move |window| (series, *window)))
        .map(|(series, window)| {
            let payload = Bytes::from(format!("{series} {window:?} ").repeat(60));
            let hash = xxhash_rust::xxh3::xxh3_64(&payload);
            ChunkRow { group, series: SeriesId(series << 64), window, hash, payload }
        })
        .collect();
    let huge = ChunkRow { hash: 1, payload: Bytes::from(vec![7; 1 << 20]), ..chunks[0].clone() };
    let markers = windows.iter().map(|window| MarkerRow { group, window: *window }).collect();
    let all = [chunks, vec![huge]].concat();
    let sealed = Sealed { chunks: all.clone(), markers, ..Sealed::default() };
    let start = Instant::now();
    store.seal(sealed.clone()).await.unwrap();
    println!("1,561 chunks sealed in {:?}", start.elapsed());
    store.seal(sealed).await.unwrap();

    let series: Vec<SeriesId> = (0..130_u128).map(|series| SeriesId(series << 64)).collect();
    let range = (windows[0], windows[11]);
    assert_eq!(Month::of(range.0.start_ms()).0 + 1, Month::of(range.1.start_ms()).0);
    let start = Instant::now();
    let read = store.chunks(group, &series, range).await.unwrap();
    println!("1,561 chunks read in {:?}", start.elapsed());
    let read: BTreeSet<_> =
        read.into_iter().map(|chunk| (chunk.series, chunk.window, chunk.payload)).collect();
    let expected: BTreeSet<_> =
        all.into_iter().map(|chunk| (chunk.series, chunk.window, chunk.payload)).collect();
    assert!(read == expected, "{} of {} chunks", read.len(), expected.len());
    assert_eq!(store.chunks(group, &series[3..4], range).await.unwrap().len(), 12);
    assert_eq!(store.markers(group, range).await.unwrap(), windows);
}

/// More rows than a page, more weeks than one, and two guests in the list of a month; and the column
/// families show every minute of it.
#[tokio::test]
async fn a_month_of_the_ledger_comes_back_whole() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "bills")).await;
    let first = Hour::of(Clock::system().now_ms() - 32 * DAY_MS);
    for (guest, hours, disks) in [("one disk", 31 * 24, 1), ("many disks", 40, 12)] {
        let hours = (0..hours).map(|n| Hour(first.0 + n));
        let ledger: Vec<LedgerRow> = hours.map(|hour| hour_of(guest, hour, disks)).collect();
        let start = Instant::now();
        let projected = vec![projection(1, ledger.clone())];
        store.seal(Sealed { ledger: projected, ..Sealed::default() }).await.unwrap();
        let minutes = ledger.len() * disks * 60;
        println!("{guest}: {minutes} minutes sealed in {:?}", start.elapsed());
        let range = (first, ledger[ledger.len() - 1].hour);
        for _ in 0..3 {
            let start = Instant::now();
            let read = store.ledger("blk_write", guest, range, ledger.len()).await.unwrap();
            println!("{guest}: {minutes} minutes read in {:?}", start.elapsed());
            assert!(read == ledger, "{} of {} hours", read.len(), ledger.len());
        }
        let shown = in_column_family(&store, "blk_write", guest, range).await;
        assert!(shown == minutes_of(&ledger), "{} of {minutes} minutes", shown.len());
    }
    let range = (first, Hour(first.0 + 31 * 24));
    let guests = store.ledger_guests("blk_write", range, 2).await.unwrap();
    assert_eq!(guests, ["many disks", "one disk"]);
    let too_many = store.ledger_guests("blk_write", range, 1).await;
    assert!(matches!(too_many, Err(StoreError::TooManyRows { table: "guests", rows_max: 1 })));
    let family = "nothing".to_owned();
    let ledger = vec![projection(1, vec![LedgerRow { family, ..hour_of("u", first, 1) }])];
    let error = store.seal(Sealed { ledger, ..Sealed::default() }).await.unwrap_err();
    assert!(error.to_string().contains("no column family nothing"), "{error}");
}

/// Of two projections of an hour the later one stands, in what is billed and in what is shown,
/// whichever is written last.
#[tokio::test]
async fn what_is_shown_is_what_is_billed() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "shown")).await;
    let first = Hour::of(Clock::system().now_ms() - 2 * DAY_MS);
    let hours = (first, Hour(first.0 + 2));
    let whole: Vec<LedgerRow> = (0..3).map(|n| hour_of("u", Hour(first.0 + n), 2)).collect();
    let mut corrected = whole[1].clone();
    corrected.columns[0].minutes.retain(|minute| minute.minute % 3 == 0);
    corrected.columns[1].minutes.clear();
    for (turn, rows) in [(5, whole.clone()), (7, vec![corrected.clone()]), (6, whole.clone())] {
        let ledger = vec![projection(turn, rows)];
        store.seal(Sealed { ledger, ..Sealed::default() }).await.unwrap();
    }
    let expected = [whole[0].clone(), corrected, whole[2].clone()];
    assert_eq!(store.ledger("blk_write", "u", hours, 9).await.unwrap(), expected);
    let shown = in_column_family(&store, "blk_write", "u", hours).await;
    assert_eq!(shown, minutes_of(&expected));
}

/// column1, column2, value, resets, flags and samples of every minute that has a value.
type Shown = Vec<(String, i64, f64, i32, i32, i32)>;

fn minutes_of(rows: &[LedgerRow]) -> Shown {
    let mut minutes = Shown::new();
    for row in rows {
        for column in &row.columns {
            minutes.extend(column.minutes.iter().map(|minute| {
                let column2 = row.hour.start_ms() / 1000 + i64::from(minute.minute) * 60;
                let (resets, flags) = (minute.resets.cast_signed(), i32::from(minute.flags));
                let samples = minute.samples.cast_signed();
                (column.name.clone(), column2, minute.value, resets, flags, samples)
            }));
        }
    }
    minutes.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    minutes
}

/// A guest's minutes as a program of 2012 would read them.
async fn in_column_family(
    store: &Cassandra,
    family: &str,
    guest: &str,
    hours: (Hour, Hour),
) -> Shown {
    let keyspace = &store.shared.keyspace;
    let cql = format!(
        "SELECT column1, column2, value, resets, flags, samples FROM {keyspace}.{family} \
         WHERE key = ? AND day = ?"
    );
    let session = &store.shared.session;
    let statement = session.prepare(cql).await.unwrap();
    let mut minutes = Shown::new();
    for day in Day::of(hours.0.start_ms()).0..=Day::of(hours.1.start_ms()).0 {
        let answer = session.execute_unpaged(&statement, (guest, day)).await.unwrap();
        let answer = answer.into_rows_result().unwrap();
        let rows = answer.rows::<(String, i64, String, i32, i32, i32)>().unwrap();
        let rows = rows.map(Result::unwrap).filter(|row| !row.2.is_empty());
        minutes.extend(rows.map(|row| (row.0, row.1, row.2.parse().unwrap(), row.3, row.4, row.5)));
    }
    minutes.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    minutes
}

#[tokio::test]
async fn sealing_begins_with_the_first_week_that_has_samples() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "oldest")).await;
    assert_eq!(store.oldest_head().await.unwrap(), None);
    let now_ms = Clock::system().now_ms();
    let first = Week::of(now_ms - 300 * DAY_MS);
    let index = vec![index_row(Week::of(now_ms), 1), index_row(first, 1)];
    store.append(Rows { index, ..Rows::default() }).await.unwrap();
    assert_eq!(store.oldest_head().await.unwrap(), Some(first.hours().0));
}
