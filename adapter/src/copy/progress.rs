//! How far a copy is, in a file: who runs it again goes on from there. Knows no store.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::CopyError;
use crate::model::row_key::Group;
use crate::model::time::Week;

/// Rows that were copied and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of all tables together.
    pub rows: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// The sum of the hashes of all rows, which the order of copying does not change.
    pub checksum: u64,
}

impl Counts {
    /// A row more.
    pub fn add(&mut self, bytes: usize, hash: u64) {
        self.rows += 1;
        self.bytes += bytes as u64;
        self.checksum = self.checksum.wrapping_add(hash);
    }

    /// The rows of another count.
    pub fn plus(&mut self, other: Counts) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }
}

/// What was copied so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Series, by weeks.
    pub series: Counts,
    /// Packed rows of the head.
    pub head: Counts,
    /// Chunks.
    pub chunks: Counts,
    /// Hours of the ledger.
    pub ledger: Counts,
    /// Groups of a week that are finished.
    pub groups: u64,
    /// Guests of a month and family that are finished.
    pub guests: u64,
    /// Weeks in which hours of the ledger were other ones on both sides: they are counted again.
    pub again: BTreeSet<i32>,
    /// Such hours that are too old to be counted again, and stay as they were in the store that is
    /// written.
    pub kept: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct Progress {
    file: PathBuf,
    written: Written,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: String,
    /// What tells both stores from others of their names.
    stores: Option<[String; 2]>,
    /// Weeks of which the store that is written had something before the copy began.
    used: Option<BTreeSet<i32>>,
    done: Done,
    /// Weeks before this one, and groups of this one up to the key, are finished.
    week: Option<i32>,
    row_key: Option<(String, u64)>,
    /// Families before this one, months of it before that, and guests up to the last.
    family: Option<(usize, i32, String)>,
}

impl Progress {
    /// Reads the file, or begins.
    pub(super) fn open(file: PathBuf, title: &str) -> Result<Progress, CopyError> {
        let wrong = |why: &dyn std::fmt::Display| {
            CopyError::Progress(format!("--progress={}: {why}", file.display()))
        };
        let written = match std::fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice::<Written>(&bytes).map_err(|error| wrong(&error))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Written { title: title.to_owned(), ..Written::default() }
            }
            Err(error) => return Err(wrong(&error)),
        };
        if written.title != title {
            return Err(wrong(&format!(
                "it is of another copy ({}); name another file, or remove it",
                written.title
            )));
        }
        let progress = Progress { file, written };
        // That it can be written, before anything is done that it should tell of.
        let beside = progress.write_beside()?;
        std::fs::remove_file(&beside).map_err(|error| progress.wrong(&error))?;
        Ok(progress)
    }

    pub(super) fn done(&self) -> &Done {
        &self.written.done
    }

    pub(super) fn done_mut(&mut self) -> &mut Done {
        &mut self.written.done
    }

    /// See [`Progress::begin`]; `None` where the copy has not begun.
    pub(super) fn used(&self) -> Option<&BTreeSet<i32>> {
        self.written.used.as_ref()
    }

    /// Whether it tells of a copy that has begun between other stores than these.
    pub(super) fn is_of_others(&self, stores: &[String; 2]) -> bool {
        self.written.used.is_some() && self.written.stores.as_ref() != Some(stores)
    }

    /// Begins between two stores, with the weeks of which the one that is written has something already.
    pub(super) fn begin(
        &mut self,
        stores: [String; 2],
        used: BTreeSet<i32>,
    ) -> Result<(), CopyError> {
        self.written.stores = Some(stores);
        self.written.used = Some(used);
        self.write()
    }

    /// Whether a week is finished.
    pub(super) fn is_done(&self, week: Week) -> bool {
        self.written.week.is_some_and(|current| week.0 < current)
    }

    /// The last group of a week that is finished.
    pub(super) fn after(&self, week: Week) -> Option<(String, Group)> {
        let of_week = self.written.row_key.as_ref().filter(|_| self.written.week == Some(week.0));
        of_week.map(|(row_key, group)| (row_key.clone(), Group(*group)))
    }

    /// The groups of a week up to this one are finished.
    pub(super) fn finish(
        &mut self,
        week: Week,
        last: Option<&(String, Group)>,
    ) -> Result<(), CopyError> {
        self.written.week = Some(week.0);
        self.written.row_key = last.map(|(row_key, group)| (row_key.clone(), group.0));
        self.write()
    }

    /// The last guest that is finished: family, month, name.
    pub(super) fn last_guest(&self) -> Option<&(usize, i32, String)> {
        self.written.family.as_ref()
    }

    /// Guests up to this one are finished.
    pub(super) fn finish_guest(&mut self, guest: (usize, i32, String)) -> Result<(), CopyError> {
        self.written.family = Some(guest);
        self.write()
    }

    /// By another name first, so that a kill leaves a whole file.
    fn write(&self) -> Result<(), CopyError> {
        let beside = self.write_beside()?;
        std::fs::rename(&beside, &self.file).map_err(|error| self.wrong(&error))
    }

    fn write_beside(&self) -> Result<OsString, CopyError> {
        let bytes = serde_json::to_vec(&self.written).map_err(|error| self.wrong(&error))?;
        let mut beside = self.file.clone().into_os_string();
        beside.push(".new");
        std::fs::write(&beside, bytes).map_err(|error| self.wrong(&error))?;
        Ok(beside)
    }

    pub(super) fn wrong(&self, why: &dyn std::fmt::Display) -> CopyError {
        CopyError::Progress(format!("--progress={}: {why}", self.file.display()))
    }

    /// The copy is whole: the file has nothing more to say.
    pub(super) fn close(&self) -> Result<(), CopyError> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.wrong(&error)),
            _ => Ok(()),
        }
    }
}
