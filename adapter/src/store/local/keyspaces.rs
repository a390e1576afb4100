//! Local's keyspaces: heads by day of arrival, the index by week of sample time, and `meta`.
//! Old days and weeks are dropped whole, which deletes files instead of writing tombstones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch};

use super::keys::{Key, KeyReader};
use super::{damage_of, folder, trouble_of};
use crate::limits;
use crate::model::time::{Day, Week};
use crate::store::StoreError;

// Tags of the `meta` keyspace.
pub(super) const META_LAYOUT: u8 = b'l';
const META_ARRIVAL: u8 = b'a';

/// Handles of all open keyspaces. At 400 days of retention there are at most 460 of them.
pub(super) struct Keyspaces {
    database: Database,
    meta: Keyspace,
    open: RwLock<Open>,
}

#[derive(Default)]
struct Open {
    heads: BTreeMap<Day, Arrivals>,
    index: BTreeMap<Week, Keyspace>,
}

/// The head rows that arrived on one day, and the days of sample time that they belong to: a read
/// looks only where its days are.
struct Arrivals {
    keyspace: Keyspace,
    holds: BTreeSet<Day>,
}

impl Keyspaces {
    /// Opens what is there.
    pub(super) fn open(database: Database) -> Result<Keyspaces, StoreError> {
        let meta = make(&database, "meta", small)?;
        let mut open = Open::default();
        for name in database.list_keyspace_names() {
            let keyspace = |options: fn() -> KeyspaceCreateOptions| {
                database.keyspace(&name, options).map_err(|error| damage_of(&name, &error))
            };
            if let Some(day) = name.strip_prefix("head-").and_then(|day| day.parse().ok()) {
                open.heads.insert(
                    Day(day),
                    Arrivals { keyspace: keyspace(head)?, holds: BTreeSet::new() },
                );
            } else if let Some(week) =
                name.strip_prefix("index-").and_then(|week| week.parse().ok())
            {
                open.index.insert(Week(week), keyspace(index)?);
            }
        }
        for guard in meta.prefix([META_ARRIVAL]) {
            let key = guard.key().map_err(|error| damage_of("meta", &error))?;
            let mut reader = KeyReader::new(&key, "meta");
            reader.tag()?;
            let (arrived, sampled) = (reader.day()?, reader.day()?);
            if let Some(arrivals) = open.heads.get_mut(&arrived) {
                arrivals.holds.insert(sampled);
            }
        }
        Ok(Keyspaces { database, meta, open: RwLock::new(open) })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn meta(&self) -> &Keyspace {
        &self.meta
    }

    /// The keyspace for head rows that arrive on a day, and whether readers know already that it
    /// holds samples of that day.
    pub(super) fn head_for(
        &self,
        arrived: Day,
        sampled: Day,
    ) -> Result<(Keyspace, bool), StoreError> {
        if let Some(arrivals) = self.read().heads.get(&arrived) {
            return Ok((arrivals.keyspace.clone(), arrivals.holds.contains(&sampled)));
        }
        let name = format!("head-{}", arrived.0);
        let keyspace = make(&self.database, &name, head)?;
        let arrivals = Arrivals { keyspace: keyspace.clone(), holds: BTreeSet::new() };
        self.write().heads.insert(arrived, arrivals);
        Ok((keyspace, false))
    }

    /// Adds to a batch that a day of arrival holds samples of a day, so that this is durable with
    /// the samples themselves.
    pub(super) fn note_arrival(&self, arrived: Day, sampled: Day, batch: &mut OwnedWriteBatch) {
        batch.insert(&self.meta, Key(vec![META_ARRIVAL]).day(arrived).day(sampled).0, Vec::new());
    }

    /// What was noted is durable: readers look there from now on.
    pub(super) fn arrived(&self, arrived: Day, sampled: &BTreeSet<Day>) {
        if let Some(arrivals) = self.write().heads.get_mut(&arrived) {
            arrivals.holds.extend(sampled);
        }
    }

    /// The keyspace for the index rows of a week.
    pub(super) fn index_for(&self, week: Week) -> Result<Keyspace, StoreError> {
        if let Some(keyspace) = self.index(week) {
            return Ok(keyspace);
        }
        let keyspace = make(&self.database, &format!("index-{}", week.0), index)?;
        Ok(self.write().index.entry(week).or_insert(keyspace).clone())
    }

    /// The index of a week, if there is one.
    pub(super) fn index(&self, week: Week) -> Option<Keyspace> {
        self.read().index.get(&week).cloned()
    }

    /// The keyspaces that hold samples of days in a range, both included.
    pub(super) fn heads(&self, days: (Day, Day)) -> Vec<Keyspace> {
        let open = self.read();
        let holding = open
            .heads
            .values()
            .filter(|arrivals| arrivals.holds.range(days.0..=days.1).next().is_some());
        holding.map(|arrivals| arrivals.keyspace.clone()).collect()
    }

    /// The newest day on which anything arrived.
    pub(super) fn newest_arrival(&self) -> Option<Day> {
        self.read().heads.last_key_value().map(|(day, _)| *day)
    }

    /// Drops the days of arrival and the weeks that hold nothing from `oldest_ms` on. A sample is
    /// never later than its arrival by more than the bound on samples ahead, so a day of arrival
    /// that ended that long before `oldest_ms` is empty of younger samples.
    pub(super) fn expire(&self, oldest_ms: i64) -> Result<usize, StoreError> {
        let mut dropped = 0;
        loop {
            let Some((day, keyspace)) = self.take_head_before(oldest_ms) else { break };
            self.database.delete_keyspace(keyspace.clone()).map_err(|error| {
                // Tried again at the next pass.
                let arrivals = Arrivals { keyspace, holds: BTreeSet::new() };
                self.write().heads.insert(day, arrivals);
                trouble_of(&error)
            })?;
            for guard in self.meta.prefix(Key(vec![META_ARRIVAL]).day(day).0) {
                let key = guard.key().map_err(|error| damage_of("meta", &error))?;
                self.meta.remove(key).map_err(|error| trouble_of(&error))?;
            }
            tracing::info!(day = day.0, "dropped the heads of an expired day");
            dropped += 1;
        }
        loop {
            let Some((week, keyspace)) = self.take_index_before(oldest_ms) else {
                return Ok(dropped);
            };
            self.database.delete_keyspace(keyspace.clone()).map_err(|error| {
                self.write().index.insert(week, keyspace);
                trouble_of(&error)
            })?;
            tracing::info!(week = week.0, "dropped the index of an expired week");
            dropped += 1;
        }
    }

    fn take_head_before(&self, oldest_ms: i64) -> Option<(Day, Keyspace)> {
        let mut open = self.write();
        let first = open.heads.first_entry()?;
        let ended = first.key().end_ms().saturating_add(limits::AHEAD_MS_MAX) < oldest_ms;
        ended.then(|| first.remove_entry()).map(|(day, arrivals)| (day, arrivals.keyspace))
    }

    fn take_index_before(&self, oldest_ms: i64) -> Option<(Week, Keyspace)> {
        let mut open = self.write();
        let first = open.index.first_entry()?;
        (first.key().end_ms() < oldest_ms).then(|| first.remove_entry())
    }

    // The maps are changed by whole entries, so a panic elsewhere cannot leave them half changed.
    fn read(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a keyspace, and makes it durable: what is written to it afterwards would be lost with its
/// name, which fjall does not sync.
fn make(
    database: &Database,
    name: &str,
    options: fn() -> KeyspaceCreateOptions,
) -> Result<Keyspace, StoreError> {
    let keyspace = database.keyspace(name, options).map_err(|error| trouble_of(&error))?;
    folder::sync_names_beside(keyspace.path()).map_err(|error| trouble_of(&error.into()))?;
    Ok(keyspace)
}

impl std::fmt::Debug for Keyspaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.read();
        write!(f, "Keyspaces {{ days: {}, weeks: {} }}", open.heads.len(), open.index.len())
    }
}

// One guest's rows repeat its series' ids; in blocks of 32 KiB LZ4 sees the repetition. A head is
// only ever read by ranges, for which filters are no use; and it is short-lived and written in the
// order of time, so that every compaction rewrites all of it: there are fewer of them, and a read
// looks into a few tables more.
fn head() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(32 << 20)
        .filter_policy(FilterPolicy::disabled())
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(8)))
        .data_block_size_policy(BlockSizePolicy::all(32 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

// Read by ranges, too.
fn index() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(16 << 20)
        .filter_policy(FilterPolicy::disabled())
        .data_block_size_policy(BlockSizePolicy::all(16 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn small() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(1 << 20)
}
