//! The contract on a real disk, and what only a disk does: restarts, expiry, a second process.

use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use super::*;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{DAY_MS, Month};
use crate::store::Store;
use crate::store::contract::{Subject, all};
use crate::store::inventory;
use crate::store::rows::{
    HeadRow, IndexRow, Kept, LateRow, LedgerRow, MarkerRow, Projection, Sealed,
};

const NOW_MS: i64 = 1_700_000_000_000;

struct OnDisk {
    folder: tempfile::TempDir,
    sync: Sync,
    clock: Clock,
    store: Option<Store>,
}

impl OnDisk {
    fn new(sync: Sync) -> OnDisk {
        let mut subject = OnDisk {
            folder: tempfile::tempdir().unwrap(),
            sync,
            clock: Clock::fixed(NOW_MS),
            store: None,
        };
        subject.store = Some(Store::Local(subject.open().unwrap()));
        subject
    }

    fn open(&self) -> Result<Local, OpenError> {
        let settings = LocalSettings { folder: self.folder.path().to_owned(), sync: self.sync };
        Local::open(&settings, self.clock.clone())
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn keeps(&self) -> bool {
        true
    }

    async fn reopen(&mut self) {
        self.store.take().unwrap().close().await.unwrap();
        // The committer ends just after it answered; the lock of the folder goes with it.
        let store = loop {
            match self.open() {
                Ok(store) => break store,
                Err(error) if error.0.contains("in use") => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        self.store = Some(Store::Local(store));
    }

    fn now_ms(&self) -> i64 {
        NOW_MS
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    all(&mut OnDisk::new(Sync::Commit)).await;
    all(&mut OnDisk::new(Sync::Interval)).await;
}

fn head_at(unix_ms: i64, payload: &'static str) -> Rows {
    let row = HeadRow {
        group: Group(1),
        hour: Hour::of(unix_ms),
        first_ms: unix_ms,
        hash: 1,
        payload: Bytes::from_static(payload.as_bytes()),
    };
    Rows { head: vec![row], ..Rows::default() }
}

fn kept(sealed_until_ms: i64) -> Kept {
    Kept {
        samples_ms: NOW_MS - 400 * DAY_MS,
        ledger_ms: NOW_MS - 1825 * DAY_MS,
        sealed_until: Hour::of(sealed_until_ms),
    }
}

#[tokio::test]
async fn heads_go_once_all_in_them_is_sealed_and_not_before() {
    let mut subject = OnDisk::new(Sync::Commit);
    let everything = (Hour::of(NOW_MS - 10 * DAY_MS), Hour::of(NOW_MS + 10 * DAY_MS));
    let left = async |store: &Store| store.head(Group(1), everything, 10).await.unwrap().len();
    subject.store().append(head_at(NOW_MS, "first day")).await.unwrap();
    subject.clock.set(NOW_MS + 2 * DAY_MS);
    let late = LateRow {
        group: Group(1),
        window: Hour::of(NOW_MS),
        arrived_ms: NOW_MS + 2 * DAY_MS,
        hash: 1,
    };
    let arrived_late = Rows { late: vec![late], ..head_at(NOW_MS + 1, "late, on the third day") };
    subject.store().append(arrived_late).await.unwrap();
    subject.store().append(head_at(NOW_MS + 2 * DAY_MS, "third day")).await.unwrap();
    subject.clock.set(NOW_MS + 3 * DAY_MS);
    subject.store().append(head_at(NOW_MS + 3 * DAY_MS, "fourth day")).await.unwrap();
    subject.reopen().await;

    let store = subject.store();
    assert_eq!(store.expire(kept(NOW_MS)).await.unwrap(), 0);
    assert_eq!(left(store).await, 4);
    assert_eq!(store.expire(kept(NOW_MS + 3 * DAY_MS / 2)).await.unwrap(), 1);
    assert_eq!(left(store).await, 3);
    // All windows are sealed, but something came late to one of them.
    assert_eq!(store.expire(kept(NOW_MS + 9 * DAY_MS)).await.unwrap(), 0);
    store.seal(Sealed { late: vec![late], ..Sealed::default() }).await.unwrap();
    // The newest day of arrival stays: more may arrive on it.
    assert_eq!(store.expire(kept(NOW_MS + 9 * DAY_MS)).await.unwrap(), 1);
    assert_eq!(left(store).await, 1);
    subject.reopen().await;
    assert_eq!(left(subject.store()).await, 1);
}

#[tokio::test]
async fn chunks_index_and_ledger_go_by_sample_time_and_what_sealing_reads_stays() {
    let mut subject = OnDisk::new(Sync::Commit);
    let store = subject.store();
    let (old, young) = (NOW_MS - 60 * DAY_MS, NOW_MS);
    for unix_ms in [old, young] {
        let marker = MarkerRow { group: Group(1), window: Hour::of(unix_ms) };
        let ledger = LedgerRow {
            family: "cpu".to_owned(),
            guest: "u".to_owned(),
            hour: Hour::of(unix_ms),
            columns: Vec::new(),
        };
        let ledger = vec![Projection { turn: 0, rows: vec![ledger] }];
        let sealed = Sealed { markers: vec![marker], ledger, ..Sealed::default() };
        store.seal(sealed).await.unwrap();
        let index = IndexRow {
            week: Week::of(unix_ms),
            series: SeriesId(1),
            group: Group(1),
            row_key: "u".to_owned(),
            metric: "up".to_owned(),
            postings: Vec::new(),
            labels: Bytes::from_static(b"x"),
        };
        store.append(Rows { index: vec![index], ..Rows::default() }).await.unwrap();
    }
    let hours = (Hour::of(old), Hour::of(young));
    let counts = async |store: &Store| {
        (
            store.markers(Group(1), hours).await.unwrap().len(),
            store.ledger("cpu", "u", hours, 10).await.unwrap().len(),
            store.metrics(Week::of(old), 10).await.unwrap().len(),
        )
    };
    let kept = |samples_ms, ledger_ms, sealed_ms| Kept {
        samples_ms,
        ledger_ms,
        sealed_until: Hour::of(sealed_ms),
    };
    assert_eq!(counts(store).await, (2, 2, 1));
    let nothing_sealed = kept(NOW_MS - 10 * DAY_MS, old, old);
    // Sealing looks back by a week, and reads what was sealed of it.
    assert_eq!(store.expire(nothing_sealed).await.unwrap(), 0);
    assert_eq!(counts(store).await, (2, 2, 1));
    assert_eq!(store.expire(kept(NOW_MS - 10 * DAY_MS, old, NOW_MS)).await.unwrap(), 2);
    assert_eq!(counts(store).await, (1, 2, 0));
    assert_eq!(store.expire(kept(old, NOW_MS - 10 * DAY_MS, NOW_MS)).await.unwrap(), 1);
    assert_eq!(counts(store).await, (1, 1, 0));
    subject.reopen().await;
    assert_eq!(counts(subject.store()).await, (1, 1, 0));
}

#[tokio::test]
async fn what_it_holds_is_counted() {
    let mut subject = OnDisk::new(Sync::Commit);
    let counted = async |subject: &OnDisk| {
        let inventory = subject.store().inventory().await.unwrap().unwrap();
        assert!(inventory.free_bytes > 0);
        inventory.tables
    };
    let spans = |tables: &[inventory::Table]| {
        tables.iter().map(|table| (table.name, table.spans)).collect::<Vec<_>>()
    };
    let names = |heads, chunks| {
        let divided = [("heads", heads), ("index", 0), ("chunks", chunks), ("ledger", 0)];
        divided.into_iter().chain([("journal", 0), ("other", 0)]).collect::<Vec<_>>()
    };
    assert_eq!(spans(&counted(&subject).await), names(0, 0));
    subject.store().append(head_at(NOW_MS - 9 * DAY_MS, "late")).await.unwrap();
    subject.store().append(head_at(NOW_MS, "in time")).await.unwrap();
    let marker = MarkerRow { group: Group(1), window: Hour::of(NOW_MS) };
    let sealed = Sealed { markers: vec![marker], ..Sealed::default() };
    subject.store().seal(sealed).await.unwrap();
    subject.reopen().await;
    let tables = counted(&subject).await;
    assert_eq!(spans(&tables), names(1, 1));
    let heads = tables[0].range.unwrap();
    let days = (Day::of(NOW_MS - 9 * DAY_MS).start_ms(), Day::of(NOW_MS).end_ms());
    assert_eq!((heads.start_ms, heads.end_ms), days);
    let month = Month::of(NOW_MS);
    let chunks = tables[2].range.unwrap();
    assert_eq!((chunks.start_ms, chunks.end_ms), (month.start_ms(), month.end_ms()));
    assert!(tables[4].bytes > 0, "the journal has what was written");
}

#[tokio::test]
async fn a_second_process_is_told_so() {
    let subject = OnDisk::new(Sync::Commit);
    let error = subject.open().unwrap_err();
    assert!(
        error.0.contains("in use by another process") && error.0.contains("--store.path"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_process_cuts_nothing_off() {
    let mut subject = OnDisk::new(Sync::Commit);
    subject.store().append(head_at(NOW_MS, "whole")).await.unwrap();
    let journals = || {
        let paths = std::fs::read_dir(subject.folder.path()).unwrap();
        let paths = paths.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect::<Vec<_>>()
    };
    let found = journals();
    let journal = found.first().unwrap();
    let whole = std::fs::read(journal).unwrap();
    // As another process sees a commit that is being written.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let half = &whole[..end / 2];
    let file = File::options().write(true).open(journal).unwrap();
    file.write_all_at(half, end as u64).unwrap();
    let written = std::fs::read(journal).unwrap();
    assert!(subject.open().unwrap_err().0.contains("in use by another process"));
    assert!(std::fs::read(journal).unwrap() == written, "the journal was changed");
    file.write_all_at(&vec![0; half.len()], end as u64).unwrap();
    subject.reopen().await;
    let hours = (Hour::of(NOW_MS), Hour::of(NOW_MS));
    assert_eq!(subject.store().head(Group(1), hours, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let settings = LocalSettings { folder: file.path().join("below"), sync: Sync::Commit };
    let error = Local::open(&settings, Clock::fixed(0)).unwrap_err();
    assert!(error.0.contains(file.path().to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn reads_what_the_oracle_holds() {
    let folder = tempfile::tempdir().unwrap();
    let settings = LocalSettings { folder: folder.path().to_owned(), sync: Sync::Commit };
    let open = async || loop {
        // The engine before has just been closed; its committer may still hold the lock.
        match Local::open(&settings, Clock::fixed(NOW_MS)) {
            Ok(store) => break Store::Local(store),
            Err(error) if error.0.contains("in use") => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    crate::engine::tests::compare_with_oracle(open, 40).await;
}
