//! What a read sees: whole commits. A keyspace's own reads see a commit row by row as fjall takes it
//! in, and a sealer that sees a late row without its head row would lose that head row.

use std::ops::{Deref, RangeBounds};

use fjall::{Iter, Keyspace, Readable, Snapshot, UserValue};

use super::keyspaces::Keyspaces;

/// All keyspaces at one moment.
pub(super) struct View<'k> {
    // Taken before a keyspace is looked up: what is in it has a keyspace that can be found.
    snapshot: Snapshot,
    keyspaces: &'k Keyspaces,
}

impl View<'_> {
    pub(super) fn now(keyspaces: &Keyspaces) -> View<'_> {
        View { snapshot: keyspaces.database().snapshot(), keyspaces }
    }

    pub(super) fn range(&self, of: &Keyspace, keys: impl RangeBounds<Vec<u8>>) -> Iter {
        self.snapshot.range(of, keys)
    }

    pub(super) fn prefix(&self, of: &Keyspace, prefix: &[u8]) -> Iter {
        self.snapshot.prefix(of, prefix)
    }

    pub(super) fn get(&self, of: &Keyspace, key: &[u8]) -> fjall::Result<Option<UserValue>> {
        self.snapshot.get(of, key)
    }
}

impl Deref for View<'_> {
    type Target = Keyspaces;

    fn deref(&self) -> &Keyspaces {
        self.keyspaces
    }
}
