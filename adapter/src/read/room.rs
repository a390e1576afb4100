//! What all reads share until their answers are whole: memory, and a folder for what does not fit
//! into it. Knows neither series nor samples.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;
use crate::metrics::Metrics;
use crate::query::QueryError;

/// Memory and disk of all reads.
#[derive(Debug)]
pub struct Room {
    folder: PathBuf,
    metrics: Metrics,
    pub(super) sizes: Sizes,
    // Both in steps.
    memory: Arc<Semaphore>,
    disk: Arc<Semaphore>,
}

/// How much there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes that are given at once, of memory and of disk.
    pub(super) step: usize,
    /// Steps of memory that a read has in any case.
    pub(super) least: usize,
    /// Steps of memory that a read has at most.
    pub(super) most: usize,
    /// Steps of memory that all reads together have, beyond the least.
    pub(super) shared: usize,
    /// Steps of disk that all reads together have.
    pub(super) disk: usize,
}

/// A temporary file: without a name where the file system can, so that nothing is left of it
/// however the process ends.
#[derive(Debug)]
pub(super) struct Spill {
    pub(super) file: File,
    /// Bytes written so far.
    pub(super) length: u64,
    _disk: OwnedSemaphorePermit,
}

impl Room {
    /// Temporary files go into this folder.
    pub fn new(folder: PathBuf, metrics: Metrics) -> Room {
        let sizes = Sizes {
            step: 1 << 20,
            least: limits::READ_MEMORY_MIB_MIN,
            most: limits::READ_MEMORY_MIB_MAX,
            shared: limits::READS_MEMORY_MIB_MAX,
            disk: limits::READS_DISK_MIB_MAX,
        };
        Room::sized(folder, metrics, sizes)
    }

    pub(super) fn sized(folder: PathBuf, metrics: Metrics, sizes: Sizes) -> Room {
        Room {
            folder,
            metrics,
            sizes,
            memory: Arc::new(Semaphore::new(sizes.shared)),
            disk: Arc::new(Semaphore::new(sizes.disk)),
        }
    }

    /// Whether temporary files can be made; a text for the operator.
    pub fn check(&self) -> Result<(), String> {
        tempfile::tempfile_in(&self.folder).map(drop).map_err(|error| {
            let folder = self.folder.display();
            format!(
                "no temporary file can be made in {folder} ({error}); set --read.spill-path to a folder that this user can write"
            )
        })
    }

    /// Another step of memory, if it is there; `None` is a sign to spill.
    pub(super) fn memory(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.memory).try_acquire_owned().ok()
    }

    /// Makes room for so many bytes on the disk, in a new temporary file or in the one there is.
    /// May block.
    pub(super) fn disk(&self, spill: Option<Spill>, bytes: usize) -> Result<Spill, QueryError> {
        let steps = u32::try_from(bytes.div_ceil(self.sizes.step)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.disk).try_acquire_many_owned(steps);
        let taken = taken.map_err(|_| {
            QueryError::TryAgain("too many large reads are waiting for their clients".to_owned())
        })?;
        let folder =
            rustix::fs::statvfs(&self.folder).map_err(|error| self.refused(&error.into()))?;
        // What writes need is left alone.
        let free = folder.f_bavail.saturating_mul(folder.f_frsize);
        if free < limits::DISK_RESERVE_BYTES + bytes as u64 {
            return Err(self.refused(&io::ErrorKind::StorageFull.into()));
        }
        self.metrics.spilled(bytes);
        match spill {
            Some(Spill { file, length, _disk: mut disk }) => {
                disk.merge(taken);
                Ok(Spill { file, length, _disk: disk })
            }
            None => {
                let file = tempfile::tempfile_in(&self.folder);
                let file = file.map_err(|error| self.refused(&error))?;
                Ok(Spill { file, length: 0, _disk: taken })
            }
        }
    }

    /// The folder is not the client's business, and its trouble may pass.
    pub(super) fn refused(&self, error: &io::Error) -> QueryError {
        let folder = self.folder.display();
        tracing::warn!(%folder, %error, "a large read found no room for its temporary file");
        QueryError::TryAgain(
            "there is no room for an answer of this size now; see this server's log".to_owned(),
        )
    }

    /// Steps of memory and of disk that nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> (usize, usize) {
        (self.memory.available_permits(), self.disk.available_permits())
    }
}
