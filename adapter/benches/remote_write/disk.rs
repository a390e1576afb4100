//! What a server left on disk: the whole folder, and for our own store heads and index apart.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    /// The folder as the server left it, in blocks that are allocated.
    pub(crate) folder: u64,
    /// Our own store, when everything in its journal is in tables: the head, and the index.
    pub(crate) tables: Option<(u64, u64)>,
}

/// Bytes allocated below a folder.
pub(crate) fn allocated(folder: &Path) -> Result<u64, String> {
    let said = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(said)? {
        let entry = entry.map_err(said)?;
        let kind = entry.file_type().map_err(said)?;
        if kind.is_dir() {
            bytes += allocated(&entry.path())?;
        } else {
            bytes += entry.metadata().map_err(said)?.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// Opens our store's folder when the server has ended, and moves what is still in its journal into
/// tables, as the server would have done a little later. Gives bytes of the head and of the index.
pub(crate) fn tables(folder: &Path) -> Result<(u64, u64), fjall::Error> {
    let database = fjall::Database::builder(folder).open()?;
    let (mut head, mut index) = (0, 0);
    for name in database.list_keyspace_names() {
        let keyspace = database.keyspace(&name, fjall::KeyspaceCreateOptions::default)?;
        keyspace.rotate_memtable_and_wait()?;
        let bytes = keyspace.disk_space();
        if name.starts_with("head-") {
            head += bytes;
        } else {
            index += bytes;
        }
    }
    Ok((head, index))
}
