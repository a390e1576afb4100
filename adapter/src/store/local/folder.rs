//! The data folder below fjall: made so that a power loss cannot take it away, and looked through
//! before fjall opens it. fjall (3.1.13) mends what an ended process leaves, but takes some damage
//! for a new store or for a dropped keyspace, and would delete what is left. Knows fjall's names of
//! files and the few bytes of its format that it checks; must not know what a row is.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::{Sync, journal};
use crate::store::OpenError;

/// fjall's mark of a store that was made; it is written last.
const VERSION: &str = "version";
const VERSION_BYTES: usize = 4;
/// The folder of the keyspaces, by number.
const KEYSPACES: &str = "keyspaces";
/// The number of fjall's own keyspace, which knows the others by their numbers.
const NAMES: &str = "0";
/// In a keyspace's folder: which of its lists of tables is the newest, and its checksum.
const CURRENT: &str = "current";
/// The number of the newest list, and its checksum by xxh3.
const CURRENT_BYTES: usize = 8 + 16;

/// Makes the folder if it is missing, durably, and judges what is in it. An error names the file
/// and says what to do.
pub(super) fn prepare(folder: &Path, sync: Sync) -> Result<(), OpenError> {
    make(folder).map_err(|error| super::unusable(folder, &error))?;
    let found = Found::read(folder).map_err(|error| super::unusable(folder, &error))?;
    if !found.is_made {
        return found.clear_unfinished(folder);
    }
    found.judge(folder)?;
    journal::judge(found.journals, sync)
}

/// Makes the names in a folder durable: POSIX promises a new file's name only after this.
pub(super) fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Syncs the names of all keyspaces, of which this is one's folder.
pub(super) fn sync_names_beside(keyspace: &Path) -> io::Result<()> {
    keyspace.parent().map_or(Ok(()), sync_names)
}

/// Syncs the names of all keyspaces of a store.
pub(super) fn sync_keyspaces(folder: &Path) -> io::Result<()> {
    sync_names(&folder.join(KEYSPACES))
}

fn make(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    fs::create_dir_all(folder)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_names(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// What stands in a data folder.
struct Found {
    /// Whether fjall has ever finished to make a store here.
    is_made: bool,
    journals: Vec<PathBuf>,
    /// Numbers of the keyspaces.
    keyspaces: Vec<String>,
}

impl Found {
    fn read(folder: &Path) -> io::Result<Found> {
        let version = fs::metadata(folder.join(VERSION));
        let is_made = match version {
            Ok(version) => version.len() >= VERSION_BYTES as u64,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let journals = entries(folder)?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "jnl"));
        let keyspaces = entries(&folder.join(KEYSPACES))?;
        let numbers =
            keyspaces.iter().filter(|path| path.is_dir()).filter_map(|path| path.file_name());
        Ok(Found {
            is_made,
            journals: journals.collect(),
            keyspaces: numbers.map(|name| name.to_string_lossy().into_owned()).collect(),
        })
    }

    /// A process that ended while it made the store leaves a journal without content, which fjall
    /// would not overwrite. Nothing was ever acknowledged then.
    fn clear_unfinished(self, folder: &Path) -> Result<(), OpenError> {
        let unusable = |error: io::Error| super::unusable(folder, &error);
        let mut left = self.keyspaces.iter().map(|number| folder.join(KEYSPACES).join(number));
        let mut written = self.journals.iter().filter(|journal| !is_empty(journal));
        if let Some(left) = left.next().or_else(|| written.next().cloned()) {
            return Err(damaged(
                &folder.join(VERSION),
                &format!("is missing or cut short, but {} is there", left.display()),
            ));
        }
        for journal in &self.journals {
            fs::remove_file(journal).map_err(unusable)?;
        }
        match fs::remove_file(folder.join(VERSION)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(error)),
            _ => Ok(()),
        }
    }

    fn judge(&self, folder: &Path) -> Result<(), OpenError> {
        if self.journals.is_empty() {
            return Err(damaged(&folder.join("0.jnl"), "or a later journal is missing"));
        }
        let keyspaces = folder.join(KEYSPACES);
        if !keyspaces.is_dir() {
            return Err(damaged(&keyspaces, "is missing"));
        }
        // Without it fjall knows no other keyspace, and deletes them all.
        let names = keyspaces.join(NAMES).join(CURRENT);
        if self.keyspaces.iter().any(|number| number != NAMES) && !names.is_file() {
            return Err(damaged(&names, "is missing"));
        }
        for number in &self.keyspaces {
            judge_keyspace(&keyspaces.join(number))?;
        }
        Ok(())
    }
}

/// The list of tables must be the one that `current` means: fjall does not compare its checksum.
/// A keyspace that was being dropped when the process ended may lack either.
fn judge_keyspace(keyspace: &Path) -> Result<(), OpenError> {
    let current = keyspace.join(CURRENT);
    let Ok(content) = fs::read(&current) else { return Ok(()) };
    let Some((number, rest)) = content.split_first_chunk::<8>() else {
        return Err(damaged(&current, "is cut short"));
    };
    let Some(checksum) = rest.first_chunk::<16>() else {
        return Err(damaged(&current, &format!("has less than {CURRENT_BYTES} bytes")));
    };
    let list = keyspace.join(format!("v{}", u64::from_le_bytes(*number)));
    match fs::read(&list) {
        Ok(bytes) if xxh3_128(&bytes) == u128::from_le_bytes(*checksum) => Ok(()),
        Ok(_) => Err(damaged(
            &list,
            &format!("does not have the checksum that {} names", current.display()),
        )),
        // fjall judges it, as it knows whether the keyspace is in use.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unreadable(&list, &error)),
    }
}

/// Whether a journal was never written to.
fn is_empty(journal: &Path) -> bool {
    let mut first = [0_u8];
    let read = File::open(journal).and_then(|mut file| io::Read::read(&mut file, &mut first));
    read.is_ok_and(|read| read == 0 || first == [0])
}

/// The paths in a folder; none where it is missing.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

pub(super) fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError(format!(
        "{} {what}: the store is damaged and was left as it is; restore the data folder from a backup, or choose another with --store.path",
        path.display()
    ))
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> OpenError {
    OpenError(format!(
        "{} cannot be read: {error}; check its permissions and its disk",
        path.display()
    ))
}
