//! The one thread that writes: it merges the commits that wait into one batch and one fdatasync.
//! fjall blocks its callers (fsync under a lock, back-pressure), so nothing else may write.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch, PersistMode};
use serve::clock::Clock;
use tokio::sync::oneshot;

use super::keys::{Key, Table};
use super::keyspaces::{Keyspaces, META_LAYOUT, OldestLate, seal_tag};
use super::sealed::late_key;
use super::{Sync, trouble_of};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::time::{Day, Hour, Month, Week};
use crate::store::rows::{IndexRow, Kept, LateRow, LayoutRow, Rows, SealMark, Sealed};
use crate::store::{StoreError, ledger_row};

/// What the thread is asked to do; each request is answered when it is durable.
pub(super) enum Work {
    Append(Rows, oneshot::Sender<Result<(), StoreError>>),
    AddLayout(LayoutRow, oneshot::Sender<Result<bool, StoreError>>),
    Seal(Sealed, oneshot::Sender<Result<(), StoreError>>),
    SealMark(SealMark, Hour, oneshot::Sender<Result<(), StoreError>>),
    Expire(Kept, OldestLate, oneshot::Sender<Result<usize, StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// What readers of the store's health see.
#[derive(Debug, Default)]
pub(super) struct Health {
    failed: Mutex<Option<String>>,
    busy_since: Mutex<Option<Instant>>,
}

impl Health {
    /// Why there will be no more writes until a restart: a write failed, the thread ended, or it
    /// is stuck inside fjall, which can wait for ever after a failed write.
    pub(super) fn failure(&self) -> Option<String> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failed.or_else(|| {
            let since = *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner);
            let stuck = since.is_some_and(|since| since.elapsed() > limits::COMMIT_STUCK_AFTER);
            stuck.then(|| format!("no commit has ended for {:?}", limits::COMMIT_STUCK_AFTER))
        })
    }

    fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    fn begin(&self) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn end(&self) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Marks the store as failed when the thread ends, also by a panic.
struct Ended(Arc<Health>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fail("the committer has ended".to_owned());
    }
}

/// What a batch names already: a thousand new series share few metrics and few guests.
#[derive(Default)]
struct Named<'r> {
    metrics: HashSet<(Week, &'r str)>,
    row_keys: HashSet<(Week, &'r str, Group)>,
}

pub(super) struct Committer {
    pub(super) keyspaces: Arc<Keyspaces>,
    pub(super) folder: PathBuf,
    pub(super) sync: Sync,
    pub(super) clock: Clock,
    pub(super) health: Arc<Health>,
    /// The days on which something arrived since the last expiry.
    pub(super) arrived: BTreeSet<Day>,
}

impl Committer {
    /// Runs until it is asked to close or every sender is gone. However it ends, the store takes
    /// no more writes.
    pub(super) fn run(mut self, work: &Receiver<Work>) {
        let _ended = Ended(Arc::clone(&self.health));
        // When the first unsynced commit must be synced; never set where every commit syncs.
        let mut due: Option<Instant> = None;
        loop {
            let next = match due {
                None => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => work.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let ends = match next {
                Ok(work_now) => {
                    self.health.begin();
                    let ends = match work_now {
                        Work::Append(rows, answer) => self.commit_waiting(work, rows, answer),
                        other => self.one(other),
                    };
                    if self.sync == Sync::Interval {
                        due = due.or_else(|| Some(Instant::now() + limits::SYNC_INTERVAL));
                    }
                    ends.is_break()
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            // Also under steady load, when no wait ever times out.
            if due.is_some_and(|due| due <= Instant::now()) {
                due = None;
                self.health.begin();
                self.persist(PersistMode::SyncData);
            }
            self.health.end();
            if ends {
                break;
            }
        }
        self.persist(PersistMode::SyncAll);
    }

    /// Merges this append with those that wait behind it, up to a bound on bytes.
    fn commit_waiting(
        &mut self,
        work: &Receiver<Work>,
        first: Rows,
        answer: oneshot::Sender<Result<(), StoreError>>,
    ) -> std::ops::ControlFlow<()> {
        let mut bytes = payload_bytes(&first);
        let (mut all, mut answers, mut after) = (vec![first], vec![answer], None);
        while bytes < limits::LOCAL_COMMIT_BYTES_MAX {
            match work.try_recv() {
                Ok(Work::Append(rows, answer)) => {
                    bytes += payload_bytes(&rows);
                    all.push(rows);
                    answers.push(answer);
                }
                Ok(other) => {
                    after = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let result = self.append(&all);
        for answer in answers {
            answer_with(
                answer,
                match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(StoreError::Unavailable(error.to_string())),
                },
            );
        }
        after.map_or(std::ops::ControlFlow::Continue(()), |work| self.one(work))
    }

    fn one(&mut self, work: Work) -> std::ops::ControlFlow<()> {
        match work {
            Work::Append(rows, answer) => answer_with(answer, self.append(&[rows])),
            Work::AddLayout(layout, answer) => answer_with(answer, self.add_layout(layout)),
            Work::Seal(sealed, answer) => answer_with(answer, self.seal(&sealed)),
            Work::SealMark(mark, hour, answer) => answer_with(answer, self.seal_mark(mark, hour)),
            Work::Expire(kept, late, answer) => {
                // Those of the last time on: at least since `late` was found.
                let arrived = std::mem::take(&mut self.arrived);
                answer_with(answer, self.keyspaces.expire(kept, late, &arrived));
            }
            Work::Close(answer) => {
                self.persist(PersistMode::SyncAll);
                answer_with(answer, self.refuse_after_failure());
                return std::ops::ControlFlow::Break(());
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    fn append(&mut self, all: &[Rows]) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        self.refuse_when_full()?;
        let arrived = Day::of(self.clock.now_ms());
        self.arrived.insert(arrived);
        let mut new_days = BTreeSet::new();
        let mut batch = self.batch();
        let mut named = Named::default();
        for rows in all {
            for row in &rows.index {
                self.insert_index(&mut batch, row, &mut named)?;
            }
            for row in &rows.late {
                // A clock that was set back in between must not make it younger than its head row.
                let arrived_ms = row.arrived_ms.min(arrived.end_ms());
                let key = late_key(&LateRow { arrived_ms, ..*row });
                batch.insert(self.keyspaces.late(), key.0, Vec::new());
            }
            for row in &rows.head {
                let sampled = Day::of(row.hour.start_ms());
                let (keyspace, known) = self.keyspaces.head_for(arrived, sampled)?;
                if !known && new_days.insert(sampled) {
                    self.keyspaces.note_arrival(arrived, sampled, &mut batch);
                }
                let key = Key::default().group(row.group).hour(row.hour);
                let key = key.millisecond(row.first_ms).hash(row.hash);
                batch.insert(&keyspace, key.0, &row.payload[..]);
            }
        }
        if !new_days.is_empty() {
            // Before anybody can see the rows: who sees a late row must find its head row.
            self.keyspaces.arrived(arrived, &new_days);
        }
        self.commit(batch)
    }

    /// The series row last: within a batch the order does not matter, as readers see all of it or
    /// nothing, but the contract is the same for every store.
    fn insert_index<'r>(
        &self,
        batch: &mut OwnedWriteBatch,
        row: &'r IndexRow,
        named: &mut Named<'r>,
    ) -> Result<(), StoreError> {
        let keyspace = self.keyspaces.index_for(row.week)?;
        let group = row.group.0.to_be_bytes();
        if named.metrics.insert((row.week, &row.metric)) {
            let metric = Key::of_table(Table::Metrics).text(&row.metric);
            batch.insert(&keyspace, metric.0, Vec::new());
        }
        if named.row_keys.insert((row.week, &row.row_key, row.group)) {
            let row_key = Key::of_table(Table::RowKeys).text(&row.row_key).group(row.group);
            batch.insert(&keyspace, row_key.0, Vec::new());
        }
        let of_metric = Key::of_table(Table::MetricSeries).text(&row.metric).series(row.series);
        batch.insert(&keyspace, of_metric.0, &group[..]);
        for (label, value) in &row.postings {
            let posting = Key::of_table(Table::Postings)
                .text(&row.metric)
                .text(label)
                .text(value)
                .series(row.series);
            batch.insert(&keyspace, posting.0, &group[..]);
        }
        let series = Key::of_table(Table::Series).group(row.group).series(row.series);
        batch.insert(&keyspace, series.0, &row.labels[..]);
        Ok(())
    }

    /// One batch, so that a crash leaves all of a seal or nothing. Also where space is short: a seal
    /// makes more of it than it takes.
    fn seal(&self, sealed: &Sealed) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        let mut batch = self.batch();
        for row in &sealed.chunks {
            let keyspace = self.keyspaces.chunks_for(Month::of(row.window.start_ms()))?;
            let key = Key::of_table(Table::Chunks).group(row.group).series(row.series);
            batch.insert(&keyspace, key.hour(row.window).hash(row.hash).0, &row.payload[..]);
        }
        for row in sealed.ledger_rows() {
            let keyspace = self.keyspaces.ledger_for(Month::of(row.hour.start_ms()))?;
            let guest = Key::of_table(Table::LedgerGuests).text(&row.family).text(&row.guest);
            batch.insert(&keyspace, guest.0, Vec::new());
            let key = Key::of_table(Table::Ledger).text(&row.family).text(&row.guest);
            batch.insert(&keyspace, key.hour(row.hour).0, ledger_row::pack(&row.columns));
        }
        for row in &sealed.markers {
            let keyspace = self.keyspaces.chunks_for(Month::of(row.window.start_ms()))?;
            let key = Key::of_table(Table::Markers).group(row.group).hour(row.window);
            batch.insert(&keyspace, key.0, Vec::new());
        }
        for row in &sealed.late {
            batch.remove(self.keyspaces.late(), late_key(row).0);
        }
        self.commit(batch)
    }

    fn seal_mark(&self, mark: SealMark, hour: Hour) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        let mut batch = self.batch();
        let value = Key::default().hour(hour);
        batch.insert(self.keyspaces.meta(), vec![seal_tag(mark)], value.0);
        self.commit(batch)
    }

    fn add_layout(&self, layout: LayoutRow) -> Result<bool, StoreError> {
        self.refuse_after_failure()?;
        let key = Key(vec![META_LAYOUT]).day(Day(layout.from.0));
        let meta = self.keyspaces.meta();
        if meta.contains_key(&key.0).map_err(|error| trouble_of(&error))? {
            return Ok(false);
        }
        let mut batch = self.batch();
        batch.insert(meta, key.0, layout.settings);
        self.commit(batch).map(|()| true)
    }

    fn batch(&self) -> OwnedWriteBatch {
        let durability = match self.sync {
            Sync::Commit => PersistMode::SyncData,
            Sync::Interval => PersistMode::Buffer,
        };
        self.keyspaces.database().batch().durability(Some(durability))
    }

    fn commit(&self, batch: OwnedWriteBatch) -> Result<(), StoreError> {
        batch.commit().map_err(|error| {
            // fjall refuses every write after one that failed: only a restart recovers its journal.
            self.health.fail(format!("a commit to {} failed: {error}", self.folder.display()));
            tracing::error!(%error, folder = %self.folder.display(), "a commit failed; no more writes until a restart");
            trouble_of(&error)
        })
    }

    fn persist(&self, mode: PersistMode) {
        if let Err(error) = self.keyspaces.database().persist(mode) {
            self.health.fail(format!("syncing {} failed: {error}", self.folder.display()));
            tracing::error!(%error, folder = %self.folder.display(), "a sync failed; no more writes until a restart");
        }
    }

    fn refuse_after_failure(&self) -> Result<(), StoreError> {
        self.health.failure().map_or(Ok(()), |why| Err(StoreError::Unavailable(why)))
    }

    fn refuse_when_full(&self) -> Result<(), StoreError> {
        room(&self.folder).map_err(StoreError::Unavailable)
    }
}

/// Bytes that are free for us on a folder's file system.
pub(super) fn free_bytes(folder: &Path) -> Result<u64, String> {
    let volume = rustix::fs::statvfs(folder)
        .map_err(|error| format!("free space of {} cannot be read: {error}", folder.display()))?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Whether there is more free space than the reserve; else what to do.
pub(super) fn room(folder: &Path) -> Result<(), String> {
    let free = free_bytes(folder)?;
    if free < limits::DISK_RESERVE_BYTES {
        return Err(format!(
            "{} has {free} bytes free, below the reserve of {}; free some space or shorten --retention",
            folder.display(),
            limits::DISK_RESERVE_BYTES
        ));
    }
    Ok(())
}

fn payload_bytes(rows: &Rows) -> usize {
    rows.head.iter().map(|row| row.payload.len()).sum::<usize>() + rows.index.len() * 512
}

// The one who asked may have given up (its deadline, a closed connection): nothing is lost by that.
fn answer_with<T>(answer: oneshot::Sender<T>, result: T) {
    drop(answer.send(result));
}

/// How long `close` and the tests wait for the thread.
pub(super) const CLOSE_DEADLINE: Duration = Duration::from_secs(20);
