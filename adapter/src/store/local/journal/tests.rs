//! Real journals, damaged.

use std::fs;

use serve::clock::Clock;

use super::super::{Local, LocalSettings};
use super::*;
use crate::model::row_key::Group;
use crate::model::time::Hour;
use crate::store::rows::{HeadRow, Rows};

const NOW_MS: i64 = 1_700_000_000_000;
/// Rows of half a page and of several pages.
const PAYLOADS: [usize; 5] = [2_000, 20_000, 300, 40_000, 20_000];

fn row(number: usize) -> HeadRow {
    // Nothing that compression would shorten.
    let bytes = (0..PAYLOADS[number] / 8).flat_map(|place| {
        xxhash_rust::xxh3::xxh3_64(&[number, place].map(usize::to_be_bytes).concat()).to_be_bytes()
    });
    let payload = bytes.collect();
    HeadRow {
        group: Group(1),
        hour: Hour::of(NOW_MS),
        first_ms: NOW_MS + i64::try_from(number).unwrap(),
        hash: 0,
        payload,
    }
}

fn open(folder: &Path, sync: Sync) -> Result<Local, OpenError> {
    let settings = LocalSettings { folder: folder.to_owned(), sync };
    loop {
        match Local::open(&settings, Clock::fixed(NOW_MS)) {
            // The one before has just been closed; its committer may still hold the lock.
            Err(error) if error.0.contains("in use") => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// A folder with five commits; gives the bytes of its journal up to the end of each.
async fn written(folder: &Path) -> (PathBuf, Vec<usize>) {
    let store = open(folder, Sync::Commit).unwrap();
    let journal = folder.join("0.jnl");
    let mut ends = Vec::new();
    for number in 0..PAYLOADS.len() {
        store.append(Rows { head: vec![row(number)], ..Rows::default() }).await.unwrap();
        ends.push(usize::try_from(look_through(&journal).unwrap().0).unwrap());
    }
    store.close().await.unwrap();
    (journal, ends)
}

/// How many rows there are after a start, or why it does not start.
async fn rows_after(folder: &Path, sync: Sync) -> Result<usize, String> {
    let store = open(folder, sync).map_err(|error| error.0)?;
    let rows = store.head(Group(1), (Hour::of(NOW_MS), Hour::of(NOW_MS)), 10).await;
    store.close().await.unwrap();
    let rows = rows.unwrap();
    // In the order of time, and whole.
    for (number, payload) in rows.iter().enumerate() {
        assert_eq!(*payload, row(number).payload);
    }
    Ok(rows.len())
}

#[tokio::test]
async fn a_torn_last_commit_is_cut_off_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ends) = written(folder.path()).await;
    let whole = fs::read(&journal).unwrap();
    let last = ends[3]..ends[4];
    // Cut anywhere; then a page of it that never reached the disk.
    for cut in [last.start, last.start + 1, last.start + 14, last.start + 5_000, last.end - 1] {
        let mut torn = whole.clone();
        torn[cut..last.end].fill(0);
        fs::write(&journal, &torn).unwrap();
        assert_eq!(rows_after(folder.path(), Sync::Commit).await, Ok(4), "cut at {cut}");
        fs::write(&journal, &torn[..cut]).unwrap();
        assert_eq!(rows_after(folder.path(), Sync::Commit).await, Ok(4), "ends at {cut}");
    }
    for page in (last.start.next_multiple_of(4096)..last.end).step_by(4096) {
        let mut torn = whole.clone();
        torn[page..last.end.min(page + 4096)].fill(0);
        fs::write(&journal, &torn).unwrap();
        assert_eq!(rows_after(folder.path(), Sync::Commit).await, Ok(4), "without page {page}");
    }
    fs::write(&journal, &whole).unwrap();
    assert_eq!(rows_after(folder.path(), Sync::Commit).await, Ok(5));
}

#[tokio::test]
async fn damage_to_what_was_acknowledged_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ends) = written(folder.path()).await;
    let whole = fs::read(&journal).unwrap();
    // Every kind of byte of a batch but its sequence number, of which any may be right.
    let second = ends[0];
    let third = ends[1];
    let places = [
        second,
        second + 1,
        second + 13,
        second + 14,
        second + 20,
        second + 30,
        second + 9_000,
        third - 13,
        third - 12,
        third - 1,
    ];
    for place in places {
        for bit in [0, 7] {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            fs::write(&journal, &bytes).unwrap();
            let error = rows_after(folder.path(), Sync::Commit).await.unwrap_err();
            let named = format!("{} is damaged at byte {second}", journal.display());
            assert!(error.contains(&named) && error.contains("--store.path"), "{place}: {error}");
            assert_eq!(fs::read(&journal).unwrap(), bytes, "left as it was");
        }
    }
    // Such holes are what a power loss may leave where commits are synced at intervals.
    let mut bytes = whole.clone();
    bytes[second + 9_000..second + 9_010].fill(0);
    fs::write(&journal, &bytes).unwrap();
    assert_eq!(rows_after(folder.path(), Sync::Interval).await, Ok(1));
}

#[tokio::test]
async fn a_sealed_journal_has_no_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, ends) = written(folder.path()).await;
    let whole = fs::read(&journal).unwrap();
    // A later one makes it a sealed one, which was synced before the later one was made.
    let later = folder.path().join("1.jnl");
    fs::write(&later, [0; 100]).unwrap();
    fs::write(&journal, &whole[..ends[3] + 100]).unwrap();
    let error = rows_after(folder.path(), Sync::Commit).await.unwrap_err();
    let named = format!("{} is damaged at byte {}", journal.display(), ends[3]);
    assert!(error.contains(&named), "{error}");
    fs::write(&journal, &whole).unwrap();
    assert_eq!(rows_after(folder.path(), Sync::Commit).await, Ok(5));
}
