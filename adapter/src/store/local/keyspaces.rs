//! Local's keyspaces: heads by day of arrival, the index by week and chunks and the ledger by month
//! of sample time, `late` and `meta`. What is old is dropped whole, which deletes files instead of writing tombstones.

use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch};

use super::keys::{Key, KeyReader};
use super::named::Named;
use super::{damage_of, trouble_of};
use crate::model::time::{Day, Hour, Month, TimeRange, WEEK_MS, Week};
use crate::store::StoreError;
use crate::store::inventory::Table;
use crate::store::rows::{Kept, LateRow, SealMark};

// Tags of the `meta` keyspace.
pub(super) const META_LAYOUT: u8 = b'l';
const META_ARRIVAL: u8 = b'a';
const META_SEALED_UNTIL: u8 = b'u';
const META_CHECKED_UNTIL: u8 = b'v';
const META_SEALING_UNTIL: u8 = b'b';

/// Handles of all open keyspaces: at 400 days of retention and five years of ledger, about 150.
pub(super) struct Keyspaces {
    named: Named,
    late: Keyspace,
    open: RwLock<Open>,
}

#[derive(Default)]
struct Open {
    heads: BTreeMap<Day, Arrivals>,
    index: BTreeMap<Week, Keyspace>,
    chunks: BTreeMap<Month, Keyspace>,
    ledger: BTreeMap<Month, Keyspace>,
}

/// How far back late rows reach; the end of time where there are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldestLate {
    /// The oldest arrival, unix milliseconds.
    pub(super) arrived_ms: i64,
    /// The begin of the oldest window, unix milliseconds.
    pub(super) window_ms: i64,
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
        let named = Named::open(database, small)?;
        let late = named.keyspace("late", late)?;
        let mut open = Open::default();
        for name in named.database().list_keyspace_names() {
            let keyspace = |options: fn() -> KeyspaceCreateOptions| {
                named.database().keyspace(&name, options).map_err(|error| damage_of(&name, &error))
            };
            let number = |prefix: &str| name.strip_prefix(prefix).and_then(|end| end.parse().ok());
            if let Some(day) = number("head-") {
                let arrivals = Arrivals { keyspace: keyspace(head)?, holds: BTreeSet::new() };
                open.heads.insert(Day(day), arrivals);
            } else if let Some(week) = number("index-") {
                open.index.insert(Week(week), keyspace(index)?);
            } else if let Some(month) = number("chunks-") {
                open.chunks.insert(Month(month), keyspace(chunks)?);
            } else if let Some(month) = number("ledger-") {
                open.ledger.insert(Month(month), keyspace(ledger)?);
            }
        }
        for guard in named.meta().prefix([META_ARRIVAL]) {
            let key = guard.key().map_err(|error| damage_of("meta", &error))?;
            let mut reader = KeyReader::new(&key, "meta");
            reader.tag()?;
            let (arrived, sampled) = (reader.day()?, reader.day()?);
            if let Some(arrivals) = open.heads.get_mut(&arrived) {
                arrivals.holds.insert(sampled);
            }
        }
        Ok(Keyspaces { named, late, open: RwLock::new(open) })
    }

    pub(super) fn database(&self) -> &Database {
        self.named.database()
    }

    pub(super) fn meta(&self) -> &Keyspace {
        self.named.meta()
    }

    /// The late rows.
    pub(super) fn late(&self) -> &Keyspace {
        &self.late
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
        let keyspace = self.named.keyspace(&name, head)?;
        let arrivals = Arrivals { keyspace: keyspace.clone(), holds: BTreeSet::new() };
        self.write().heads.insert(arrived, arrivals);
        Ok((keyspace, false))
    }

    /// Adds to a batch that a day of arrival holds samples of a day, so that this is durable with
    /// the samples themselves.
    pub(super) fn note_arrival(&self, arrived: Day, sampled: Day, batch: &mut OwnedWriteBatch) {
        batch.insert(self.meta(), Key(vec![META_ARRIVAL]).day(arrived).day(sampled).0, Vec::new());
    }

    /// What was noted is about to be committed: readers look there from now on.
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
        let keyspace = self.named.keyspace(&format!("index-{}", week.0), index)?;
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

    /// The keyspace for the chunks and markers of a month.
    pub(super) fn chunks_for(&self, month: Month) -> Result<Keyspace, StoreError> {
        if let Some(keyspace) = self.read().chunks.get(&month) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.named.keyspace(&format!("chunks-{}", month.0), chunks)?;
        Ok(self.write().chunks.entry(month).or_insert(keyspace).clone())
    }

    /// The keyspace for the ledger's rows of a month.
    pub(super) fn ledger_for(&self, month: Month) -> Result<Keyspace, StoreError> {
        if let Some(keyspace) = self.read().ledger.get(&month) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.named.keyspace(&format!("ledger-{}", month.0), ledger)?;
        Ok(self.write().ledger.entry(month).or_insert(keyspace).clone())
    }

    /// The keyspaces that hold chunks and markers of windows in a range of hours, oldest first.
    pub(super) fn chunks(&self, hours: (Hour, Hour)) -> Vec<Keyspace> {
        self.read().chunks.range(months(hours)).map(|(_, keyspace)| keyspace.clone()).collect()
    }

    /// The keyspaces that hold the ledger's rows of a range of hours, oldest first.
    pub(super) fn ledger(&self, hours: (Hour, Hour)) -> Vec<Keyspace> {
        self.read().ledger.range(months(hours)).map(|(_, keyspace)| keyspace.clone()).collect()
    }

    /// The newest day on which anything arrived.
    pub(super) fn newest_arrival(&self) -> Option<Day> {
        self.read().heads.last_key_value().map(|(day, _)| *day)
    }

    /// The oldest day of sample time that any head holds.
    pub(super) fn oldest_head(&self) -> Option<Day> {
        let open = self.read();
        open.heads.values().filter_map(|arrivals| arrivals.holds.first()).min().copied()
    }

    /// What there is, and the bytes of its files; what is only in the journal yet counts there.
    pub(super) fn tables(&self) -> Result<Vec<Table>, StoreError> {
        let journal = self
            .database()
            .journal_disk_space()
            .map_err(|error| damage_of("the journal", &error))?;
        let open = self.read();
        let of_heads = open.heads.values().map(|arrivals| &arrivals.keyspace);
        let days = open.heads.values().flat_map(|arrivals| &arrivals.holds);
        let of_heads = Table {
            range: covered(days.map(|day| (day.start_ms(), day.end_ms()))),
            ..table("heads", of_heads)
        };
        let weeks = open.index.keys().map(|week| (week.start_ms(), week.end_ms()));
        let months = |of: &BTreeMap<Month, Keyspace>| {
            covered(of.keys().map(|month| (month.start_ms(), month.end_ms())))
        };
        let (range, ledger) = (months(&open.chunks), months(&open.ledger));
        let other = table("other", [&self.late, self.meta()].into_iter());
        Ok(vec![
            of_heads,
            Table { range: covered(weeks), ..table("index", open.index.values()) },
            Table { range, ..table("chunks", open.chunks.values()) },
            Table { range: ledger, ..table("ledger", open.ledger.values()) },
            Table { name: "journal", spans: 0, range: None, bytes: journal },
            Table { spans: 0, ..other },
        ])
    }

    /// How far back what waits to be sealed again reaches.
    pub(super) fn oldest_late(&self) -> Result<OldestLate, StoreError> {
        let mut oldest = OldestLate { arrived_ms: i64::MAX, window_ms: i64::MAX };
        for guard in self.late.iter() {
            let key = guard.key().map_err(|error| damage_of("late", &error))?;
            let row = late_row(&key)?;
            oldest.arrived_ms = oldest.arrived_ms.min(row.arrived_ms);
            oldest.window_ms = oldest.window_ms.min(row.window.start_ms());
        }
        Ok(oldest)
    }

    /// Drops the days of arrival all of which is sealed, and the weeks and months that need not be
    /// kept. What came late to its window has a late row until it is sealed. The newest day stays, as
    /// more may arrive on it, and so do those on which something arrived since `late` was found:
    /// whatever the clock says, its late rows are not among those.
    pub(super) fn expire(
        &self,
        kept: Kept,
        late: OldestLate,
        arrived: &BTreeSet<Day>,
    ) -> Result<usize, StoreError> {
        let mut dropped = 0;
        let sealed_ms = kept.sealed_until.start_ms();
        while let Some((day, keyspace)) = self.take_head((sealed_ms, late), arrived) {
            self.named.drop(keyspace.clone()).inspect_err(|_| {
                // Tried again at the next pass; until then readers find it where it was.
                let holds = self.noted(day).unwrap_or_default();
                self.write().heads.insert(day, Arrivals { keyspace, holds });
            })?;
            let mut batch = self.named.batch();
            for guard in self.meta().prefix(Key(vec![META_ARRIVAL]).day(day).0) {
                let key = guard.key().map_err(|error| damage_of("meta", &error))?;
                batch.remove(self.meta(), key);
            }
            batch.commit().map_err(|error| trouble_of(&error))?;
            tracing::info!(day = day.0, "dropped the heads of a day, all of which is sealed");
            dropped += 1;
        }
        // Index and chunks are needed to seal and to bill, which looks back by a week.
        let unsealed_ms = sealed_ms.min(late.window_ms);
        let samples_ms = kept.samples_ms.min(unsealed_ms.saturating_sub(2 * WEEK_MS));
        dropped += self.drop_before(|open| &mut open.index, |week| week.end_ms() < samples_ms)?;
        dropped +=
            self.drop_before(|open| &mut open.chunks, |month| month.end_ms() < samples_ms)?;
        let ledger_ms = kept.ledger_ms;
        dropped += self.drop_before(|open| &mut open.ledger, |month| month.end_ms() < ledger_ms)?;
        Ok(dropped)
    }

    /// Takes out a day of arrival that nobody needs any more.
    fn take_head(
        &self,
        (sealed_ms, late): (i64, OldestLate),
        arrived: &BTreeSet<Day>,
    ) -> Option<(Day, Keyspace)> {
        let mut open = self.write();
        let newest = *open.heads.last_key_value()?.0;
        let sealed = |day: &Day| day.end_ms() < sealed_ms;
        let done = open.heads.iter().find(|(day, arrivals)| {
            **day != newest
                && !arrived.contains(day)
                && day.end_ms() < late.arrived_ms.min(sealed_ms)
                // A clock may have been set back between a sample's judgement and its arrival.
                && arrivals.holds.last().is_none_or(sealed)
        });
        let day = *done?.0;
        open.heads.remove(&day).map(|arrivals| (day, arrivals.keyspace))
    }

    /// The days of sample time that a day of arrival was noted to hold.
    fn noted(&self, arrived: Day) -> Result<BTreeSet<Day>, StoreError> {
        let mut days = BTreeSet::new();
        for guard in self.meta().prefix(Key(vec![META_ARRIVAL]).day(arrived).0) {
            let key = guard.key().map_err(|error| damage_of("meta", &error))?;
            let mut reader = KeyReader::new(&key, "meta");
            reader.tag()?;
            reader.day()?;
            days.insert(reader.day()?);
        }
        Ok(days)
    }

    fn drop_before<Span: Ord + Copy + std::fmt::Debug>(
        &self,
        of: impl Fn(&mut Open) -> &mut BTreeMap<Span, Keyspace>,
        ended: impl Fn(Span) -> bool,
    ) -> Result<usize, StoreError> {
        let mut dropped = 0;
        loop {
            let first = {
                let mut open = self.write();
                let first = of(&mut open).first_entry().filter(|first| ended(*first.key()));
                first.map(OccupiedEntry::remove_entry)
            };
            let Some((span, keyspace)) = first else { return Ok(dropped) };
            self.named.drop(keyspace.clone()).inspect_err(|_| {
                of(&mut self.write()).insert(span, keyspace);
            })?;
            tracing::info!(?span, "dropped what has expired");
            dropped += 1;
        }
    }

    // The maps are changed by whole entries, so a panic elsewhere cannot leave them half changed.
    fn read(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tag of a mark in `meta`.
pub(super) fn seal_tag(mark: SealMark) -> u8 {
    match mark {
        SealMark::Sealed(_) => META_SEALED_UNTIL,
        SealMark::Checked(_) => META_CHECKED_UNTIL,
        SealMark::Begun => META_SEALING_UNTIL,
    }
}

/// Reads a late row's key.
pub(super) fn late_row(key: &[u8]) -> Result<LateRow, StoreError> {
    let mut reader = KeyReader::new(key, "late");
    Ok(LateRow {
        group: reader.group()?,
        window: reader.hour()?,
        arrived_ms: reader.millisecond()?,
        hash: reader.hash()?,
    })
}

fn table<'k>(name: &'static str, keyspaces: impl Iterator<Item = &'k Keyspace>) -> Table {
    let mut table = Table { name, spans: 0, range: None, bytes: 0 };
    for keyspace in keyspaces {
        table.spans += 1;
        table.bytes += keyspace.disk_space();
    }
    table
}

/// From the first begin to the last end of some spans, unix milliseconds.
fn covered(spans: impl Iterator<Item = (i64, i64)>) -> Option<TimeRange> {
    spans.fold(None, |covered: Option<TimeRange>, (start_ms, end_ms)| {
        let before = covered.unwrap_or(TimeRange { start_ms, end_ms });
        let (start_ms, end_ms) = (before.start_ms.min(start_ms), before.end_ms.max(end_ms));
        Some(TimeRange { start_ms, end_ms })
    })
}

fn months(hours: (Hour, Hour)) -> std::ops::RangeInclusive<Month> {
    Month::of(hours.0.start_ms())..=Month::of(hours.1.start_ms())
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

// One series' chunks lie side by side, and pco leaves LZ4 nothing to find but keys.
fn chunks() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(16 << 20)
        .filter_policy(FilterPolicy::disabled())
        .data_block_size_policy(BlockSizePolicy::all(16 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn ledger() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(8 << 20)
        .filter_policy(FilterPolicy::disabled())
        .data_block_size_policy(BlockSizePolicy::all(16 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn late() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(4 << 20)
        .filter_policy(FilterPolicy::disabled())
}

fn small() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(1 << 20)
}
