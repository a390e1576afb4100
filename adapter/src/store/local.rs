//! The embedded store: fjall on a local disk, written by one committer thread.
//! Knows rows and keys; what is in a payload is the engine's.

mod committer;
mod folder;
mod head;
mod index;
mod journal;
mod keys;
mod keyspaces;
mod named;
mod sealed;
#[cfg(test)]
mod tests;
mod view;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use fjall::{Database, Guard};
use serve::clock::Clock;
use tokio::sync::oneshot;

use super::inventory::Inventory;
use super::rows::{Kept, LayoutRow, Rows, SealMark, Sealed};
use super::{OpenError, StoreError};
use crate::limits;
use crate::model::time::{Day, Hour, Week};
use committer::{CLOSE_DEADLINE, Committer, Health, Work};
use keys::KeyReader;
use keyspaces::{Keyspaces, META_LAYOUT};
use view::View;

/// When an acknowledged write is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before it is acknowledged: every commit ends with fdatasync. Survives a power loss.
    Commit,
    /// Within a second after it was acknowledged. Survives a crash of the process, not of the
    /// machine.
    Interval,
}

/// What [`Local::open`] needs to know.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The data folder; made when it is missing.
    pub folder: PathBuf,
    /// When an acknowledged write is on disk.
    pub sync: Sync,
}

/// Threads of fjall for flushes and compactions, of which few are ever busy. The first of them
/// passes a compaction on until another takes it, which with no other free is a busy loop (fjall
/// 3.1.13, `worker_pool.rs`): with the default of two on two cores it took a sixth of all CPU time.
const WORKERS: usize = 4;

/// A store in one folder of one machine; one process at a time.
#[derive(Debug)]
pub struct Local {
    folder: PathBuf,
    keyspaces: Arc<Keyspaces>,
    health: Arc<Health>,
    work: SyncSender<Work>,
}

impl Local {
    /// Whether a folder holds a store.
    pub fn is_in(folder: &Path) -> bool {
        // fjall's own mark, which it looks for as well.
        folder.join("version").is_file()
    }

    /// Opens or creates the folder, recovers what a crash left, and starts the committer.
    pub fn open(settings: &LocalSettings, clock: Clock) -> Result<Local, OpenError> {
        let folder = settings.folder.clone();
        // Judging the folder may cut off what looks torn: never while another process writes it.
        let held = hold(&folder)?;
        folder::prepare(&folder, settings.sync)?;
        drop(held);
        let database = Database::builder(&folder)
            .worker_threads(WORKERS)
            .max_journaling_size(limits::LOCAL_JOURNAL_BYTES_MAX);
        let database = database.open().map_err(|error| match error {
            fjall::Error::Locked => in_use(&folder),
            fjall::Error::Io(error) => unusable(&folder, &error),
            error => folder::damaged(&folder, &format!("cannot be opened ({error})")),
        })?;
        // fjall syncs a new keyspace's folder, but not its name.
        folder::sync_keyspaces(&folder).map_err(|error| unusable(&folder, &error))?;
        let keyspaces = Keyspaces::open(database).map_err(|error| match error {
            StoreError::Damaged(what) => folder::damaged(&folder, &what),
            error => unusable(&folder, &error),
        })?;
        let keyspaces = Arc::new(keyspaces);
        let health = Arc::new(Health::default());
        let (work, waiting) = sync_channel(limits::COMMIT_QUEUE_MAX);
        let committer = Committer {
            keyspaces: Arc::clone(&keyspaces),
            folder: folder.clone(),
            sync: settings.sync,
            clock,
            health: Arc::clone(&health),
            arrived: std::collections::BTreeSet::new(),
        };
        std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run(&waiting))
            .map_err(|error| {
                OpenError(format!("the committer thread cannot be started: {error}"))
            })?;
        Ok(Local { folder, keyspaces, health, work })
    }

    async fn ask<T>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Work,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.work.try_send(work(answer)).map_err(|error| {
            StoreError::Unavailable(match error {
                TrySendError::Full(_) => "too many commits are waiting for the disk".to_owned(),
                TrySendError::Disconnected(_) => "the committer has ended".to_owned(),
            })
        })?;
        answered.await.map_err(|_| {
            StoreError::Unavailable("the committer ended before it answered".to_owned())
        })?
    }

    /// Runs a read on a thread that may block; it sees what is committed when it begins.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let keyspaces = Arc::clone(&self.keyspaces);
        tokio::task::spawn_blocking(move || read(&View::now(&keyspaces)))
            .await
            .map_err(|error| StoreError::Unavailable(format!("a read was interrupted: {error}")))?
    }

    /// See [`super::Store::append`].
    pub async fn append(&self, rows: Rows) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.ask(|answer| Work::Append(rows, answer)).await
    }

    /// See [`super::Store::layouts`].
    pub async fn layouts(&self) -> Result<Vec<LayoutRow>, StoreError> {
        self.read(|view| {
            let mut layouts = Vec::new();
            for guard in view.prefix(view.meta(), &[META_LAYOUT]) {
                let (key, value) =
                    Guard::into_inner(guard).map_err(|error| damage_of("meta", &error))?;
                let mut reader = KeyReader::new(&key, "meta");
                reader.tag()?;
                let from = Week(reader.day()?.0);
                let settings = String::from_utf8(value.to_vec()).map_err(|_| {
                    StoreError::Damaged("the layout on disk is not text".to_owned())
                })?;
                layouts.push(LayoutRow { from, settings });
            }
            Ok(layouts)
        })
        .await
    }

    /// See [`super::Store::add_layout`].
    pub async fn add_layout(&self, layout: LayoutRow) -> Result<bool, StoreError> {
        self.ask(|answer| Work::AddLayout(layout, answer)).await
    }

    /// See [`super::Store::seal`].
    pub async fn seal(&self, sealed: Sealed) -> Result<(), StoreError> {
        if sealed.is_empty() {
            return Ok(());
        }
        self.ask(|answer| Work::Seal(sealed, answer)).await
    }

    /// See [`super::Store::set_seal_mark`].
    pub async fn set_seal_mark(&self, mark: SealMark, hour: Hour) -> Result<(), StoreError> {
        self.ask(|answer| Work::SealMark(mark, hour, answer)).await
    }

    /// See [`super::Store::expire`].
    pub async fn expire(&self, kept: Kept) -> Result<usize, StoreError> {
        // Not on the committer's thread: there may be many late rows. It knows on which days more
        // of them may have come meanwhile.
        let late = self.read(|view| view.oldest_late()).await?;
        self.ask(|answer| Work::Expire(kept, late, answer)).await
    }

    /// See [`super::Store::late_since`].
    pub async fn late_since(&self) -> Result<Option<i64>, StoreError> {
        let arrived_ms = self.read(|view| view.oldest_late()).await?.arrived_ms;
        Ok((arrived_ms != i64::MAX).then_some(arrived_ms))
    }

    /// See [`super::Store::newest_arrival`].
    pub fn newest_arrival(&self) -> Option<Day> {
        self.keyspaces.newest_arrival()
    }

    /// See [`super::Store::inventory`].
    pub async fn inventory(&self) -> Result<Inventory, StoreError> {
        let folder = self.folder.clone();
        self.read(move |view| {
            let free_bytes = committer::free_bytes(&folder).map_err(StoreError::Unavailable)?;
            Ok(Inventory { tables: view.tables()?, free_bytes })
        })
        .await
    }

    /// See [`super::Store::ready`].
    pub fn ready(&self) -> Result<(), String> {
        self.health.failure().map_or(Ok(()), Err)?;
        // Asked anew, so that a disk that has room again makes it ready without a write.
        committer::room(&self.folder)
    }

    /// Why the store takes no writes until the process starts again; `None` while it works.
    pub fn failure(&self) -> Option<String> {
        self.health.failure()
    }

    /// See [`super::Store::close`].
    pub async fn close(&self) -> Result<(), StoreError> {
        let closed = tokio::time::timeout(CLOSE_DEADLINE, self.ask(Work::Close)).await;
        closed.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(
                "the disk did not finish the last commit in time".to_owned(),
            ))
        })
    }
}

/// Rows of one read: whole, or an error.
struct Bounded<T> {
    rows: Vec<T>,
    table: &'static str,
    rows_max: usize,
}

impl<T> Bounded<T> {
    fn new(table: &'static str, rows_max: usize) -> Bounded<T> {
        Bounded { rows: Vec::new(), table, rows_max }
    }

    fn push(&mut self, row: T) -> Result<(), StoreError> {
        if self.rows.len() == self.rows_max {
            return Err(StoreError::TooManyRows { table: self.table, rows_max: self.rows_max });
        }
        self.rows.push(row);
        Ok(())
    }
}

/// Takes fjall's own lock of a folder, for as long as the file lives; `None` where no store was ever
/// made, and nobody can have it open.
fn hold(folder: &Path) -> Result<Option<File>, OpenError> {
    let lock = match File::options().read(true).write(true).open(folder.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(folder, &error)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(in_use(folder)),
        Err(TryLockError::Error(error)) => Err(unusable(folder, &error)),
    }
}

fn in_use(folder: &Path) -> OpenError {
    OpenError(format!(
        "data folder {} is in use by another process; stop it, or choose another with --store.path",
        folder.display()
    ))
}

fn unusable(folder: &Path, error: &dyn std::fmt::Display) -> OpenError {
    OpenError(format!(
        "data folder {} cannot be used: {error}; check its permissions and its disk, or choose another with --store.path",
        folder.display()
    ))
}

/// A write failed: passing as far as the sender is concerned.
fn trouble_of(error: &fjall::Error) -> StoreError {
    StoreError::Unavailable(format!("writing to disk failed: {error}"))
}

/// A read failed: what is on disk cannot be read.
fn damage_of(table: &str, error: &fjall::Error) -> StoreError {
    StoreError::Damaged(format!("reading {table} from disk failed: {error}"))
}
