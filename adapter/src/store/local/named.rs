//! Which keyspaces there are to be: `meta` has a row for each, and they are made and dropped here
//! alone. fjall (3.1.13) does not sync the name of a new keyspace's folder, and takes a keyspace
//! that lost a file for one that was never finished: it deletes the rest, and opens without it.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::{damage_of, folder, trouble_of};
use crate::store::StoreError;

/// The keyspace that says which others there are, among other things.
const META: &str = "meta";
/// The tag of its rows for that, in front of a name.
const META_KEYSPACE: u8 = b'k';

/// fjall's database, and its keyspaces by name.
pub(super) struct Named {
    database: Database,
    meta: Keyspace,
}

impl Named {
    /// Opens the list, and checks that every keyspace in it is there.
    pub(super) fn open(
        database: Database,
        meta: fn() -> KeyspaceCreateOptions,
    ) -> Result<Named, StoreError> {
        let mut there = database.list_keyspace_names();
        if !there.is_empty() && !database.keyspace_exists(META) {
            return Err(missing(META));
        }
        let meta = database.keyspace(META, meta).map_err(|error| damage_of(META, &error))?;
        sync_name(&meta)?;
        let named = Named { database, meta };
        for guard in named.meta.prefix([META_KEYSPACE]) {
            let key = guard.key().map_err(|error| damage_of(META, &error))?;
            let (_, name) = key.split_at(1);
            let found = there.iter().position(|known| known.as_bytes() == name);
            let place = found.ok_or_else(|| missing(&String::from_utf8_lossy(name)))?;
            there.swap_remove(place);
        }
        // Made by an earlier version, or just before the process ended.
        let mut batch = named.batch();
        for name in there.iter().filter(|name| ***name != *META) {
            batch.insert(&named.meta, row(name), Vec::new());
        }
        batch.commit().map_err(|error| trouble_of(&error))?;
        Ok(named)
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn meta(&self) -> &Keyspace {
        &self.meta
    }

    /// A batch that is durable once it is committed. Nothing else writes outside of commits: an
    /// unsynced write before a commit would look like damage after a power loss between the two.
    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncData))
    }

    /// Opens a keyspace, or makes it, durably.
    pub(super) fn keyspace(
        &self,
        name: &str,
        options: fn() -> KeyspaceCreateOptions,
    ) -> Result<Keyspace, StoreError> {
        let is_new = !self.database.keyspace_exists(name);
        let keyspace = self.database.keyspace(name, options).map_err(|error| trouble_of(&error))?;
        if is_new {
            sync_name(&keyspace)?;
            let mut batch = self.batch();
            batch.insert(&self.meta, row(name), Vec::new());
            batch.commit().map_err(|error| trouble_of(&error))?;
        }
        Ok(keyspace)
    }

    /// Drops a keyspace with everything in it.
    pub(super) fn drop(&self, keyspace: Keyspace) -> Result<(), StoreError> {
        let mut batch = self.batch();
        batch.remove(&self.meta, row(keyspace.name()));
        batch.commit().map_err(|error| trouble_of(&error))?;
        self.database.delete_keyspace(keyspace).map_err(|error| trouble_of(&error))
    }
}

fn row(name: &str) -> Vec<u8> {
    [&[META_KEYSPACE], name.as_bytes()].concat()
}

fn sync_name(keyspace: &Keyspace) -> Result<(), StoreError> {
    folder::sync_names_beside(keyspace.path()).map_err(|error| trouble_of(&error.into()))
}

fn missing(name: &str) -> StoreError {
    StoreError::Damaged(format!("has lost its keyspace {name}, or a file of it"))
}
