//! The contract on a real disk, and what only a disk does: restarts, expiry, a second process.

use super::*;
use crate::model::time::DAY_MS;
use crate::store::Store;
use crate::store::contract::{Subject, all};
use crate::store::rows::HeadRow;

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

#[tokio::test]
async fn whole_days_expire_and_late_samples_do_not_drop_young_ones() {
    let mut subject = OnDisk::new(Sync::Commit);
    let everything = (Hour::of(NOW_MS - 10 * DAY_MS), Hour::of(NOW_MS + 10 * DAY_MS));
    subject.store().append(head_at(NOW_MS, "first day")).await.unwrap();
    subject.clock.set(NOW_MS + 2 * DAY_MS);
    subject.store().append(head_at(NOW_MS + 1, "late, on the third day")).await.unwrap();
    subject.store().append(head_at(NOW_MS + 2 * DAY_MS, "third day")).await.unwrap();
    subject.reopen().await;

    assert_eq!(subject.store().expire(NOW_MS).await.unwrap(), 0);
    assert_eq!(subject.store().head(Group(1), everything, 10).await.unwrap().len(), 3);
    assert_eq!(subject.store().expire(NOW_MS + 3 * DAY_MS / 2).await.unwrap(), 1);
    assert_eq!(subject.store().head(Group(1), everything, 10).await.unwrap().len(), 2);
    subject.reopen().await;
    assert_eq!(subject.store().head(Group(1), everything, 10).await.unwrap().len(), 2);
    assert_eq!(subject.store().expire(NOW_MS + 9 * DAY_MS).await.unwrap(), 1);
    assert!(subject.store().head(Group(1), everything, 10).await.unwrap().is_empty());
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
