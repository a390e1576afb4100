//! What the adapter left on disk, table by table, compacted. Knows the keyspaces' names.

use std::path::Path;

/// Bytes of each table when nothing is in the journal any more and everything is compacted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tables {
    pub(super) head: u64,
    pub(super) chunks: u64,
    pub(super) index: u64,
    pub(super) ledger: u64,
    /// Late rows, layouts and what was noted.
    pub(super) rest: u64,
}

/// Opens the folder of an adapter that has ended, and compacts it as it would be in time.
pub(super) fn compacted(folder: &Path) -> Result<Tables, String> {
    let said = |error: fjall::Error| format!("{}: {error}", folder.display());
    let database = fjall::Database::builder(folder).worker_threads(4).open().map_err(said)?;
    let mut tables = Tables::default();
    for name in database.list_keyspace_names() {
        let options = fjall::KeyspaceCreateOptions::default;
        let keyspace = database.keyspace(&name, options).map_err(said)?;
        keyspace.rotate_memtable_and_wait().map_err(said)?;
        keyspace.major_compact().map_err(said)?;
        let of = match name.split('-').next() {
            Some("head") => &mut tables.head,
            Some("chunks") => &mut tables.chunks,
            Some("index") => &mut tables.index,
            Some("ledger") => &mut tables.ledger,
            _ => &mut tables.rest,
        };
        *of += keyspace.disk_space();
    }
    Ok(tables)
}
