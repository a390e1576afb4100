//! What the sealer left on disk, as readers ask for it: chunks, markers, late rows and the ledger.
//! Knows keys and rows; what is in a chunk is the engine's.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use fjall::{Guard, Keyspace};

use super::keys::{Key, KeyReader, Table};
use super::keyspaces::{late_row, seal_tag};
use super::view::View;
use super::{Bounded, Local, damage_of};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};
use crate::store::rows::{Chunk, LateRow, LedgerRow, SealMark};
use crate::store::{StoreError, ledger_row};

impl Local {
    /// See [`crate::store::Store::chunks`].
    pub async fn chunks(
        &self,
        group: Group,
        series: &[SeriesId],
        windows: (Hour, Hour),
    ) -> Result<Vec<Chunk>, StoreError> {
        let series = series.to_vec();
        self.read(move |view| {
            let mut chunks = Vec::new();
            let mut bytes = 0;
            for keyspace in view.chunks(windows) {
                for series in &series {
                    bytes +=
                        read_chunks((view, &keyspace), (group, *series), windows, &mut chunks)?;
                    if bytes > limits::CHUNK_READ_BYTES_MAX {
                        let bytes_max = limits::CHUNK_READ_BYTES_MAX;
                        return Err(StoreError::TooManyBytes { table: "chunks", bytes_max });
                    }
                }
            }
            Ok(chunks)
        })
        .await
    }

    /// See [`crate::store::Store::markers`].
    pub async fn markers(
        &self,
        group: Group,
        windows: (Hour, Hour),
    ) -> Result<Vec<Hour>, StoreError> {
        self.read(move |view| {
            let marker = |window| Key::of_table(Table::Markers).group(group).hour(window).0;
            let mut markers = Vec::new();
            for keyspace in view.chunks(windows) {
                for guard in view.range(&keyspace, marker(windows.0)..=marker(windows.1)) {
                    let key = guard.key().map_err(|error| damage_of("markers", &error))?;
                    let mut reader = KeyReader::new(&key, "markers");
                    reader.tag()?;
                    reader.group()?;
                    markers.push(reader.hour()?);
                }
            }
            Ok(markers)
        })
        .await
    }

    /// See [`crate::store::Store::late`].
    pub async fn late(
        &self,
        group: Group,
        windows: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        self.read(move |view| {
            let key = Key::default().group(group);
            let from = key.clone().hour(windows.0).millisecond(i64::MIN).hash(0);
            let to = key.hour(windows.1).millisecond(i64::MAX).hash(u64::MAX);
            let mut rows = Bounded::new("late", rows_max);
            for guard in view.range(view.late(), from.0..=to.0) {
                let key = guard.key().map_err(|error| damage_of("late", &error))?;
                rows.push(late_row(&key)?)?;
            }
            Ok(rows.rows)
        })
        .await
    }

    /// See [`crate::store::Store::late_page`].
    pub async fn late_page(
        &self,
        after: Option<LateRow>,
        rows: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        self.read(move |view| {
            let from = after.map_or(Bound::Unbounded, |row| Bound::Excluded(late_key(&row).0));
            let range = (from, Bound::Unbounded);
            let page = view.range(view.late(), range).take(rows).map(|guard| {
                let key = guard.key().map_err(|error| damage_of("late", &error))?;
                late_row(&key)
            });
            page.collect()
        })
        .await
    }

    /// See [`crate::store::Store::ledger`].
    pub async fn ledger(
        &self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let (family, guest) = (family.to_owned(), guest.to_owned());
        self.read(move |view| {
            let key = Key::of_table(Table::Ledger).text(&family).text(&guest);
            let (from, to) = (key.clone().hour(hours.0), key.hour(hours.1));
            let mut rows = Bounded::new("ledger", rows_max);
            for keyspace in view.ledger(hours) {
                for guard in view.range(&keyspace, from.0.clone()..=to.0.clone()) {
                    let (key, value) =
                        Guard::into_inner(guard).map_err(|error| damage_of("ledger", &error))?;
                    let mut reader = KeyReader::new(&key, "ledger");
                    reader.tag()?;
                    let (family, guest, hour) = (reader.text()?, reader.text()?, reader.hour()?);
                    let columns = ledger_row::unpack(&value)?;
                    rows.push(LedgerRow { family, guest, hour, columns })?;
                }
            }
            Ok(rows.rows)
        })
        .await
    }

    /// See [`crate::store::Store::ledger_guests`].
    pub async fn ledger_guests(
        &self,
        family: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let prefix = Key::of_table(Table::LedgerGuests).text(family);
        self.read(move |view| {
            let mut guests = BTreeSet::new();
            for keyspace in view.ledger(hours) {
                for guard in view.prefix(&keyspace, &prefix.0) {
                    let key = guard.key().map_err(|error| damage_of("ledger", &error))?;
                    let mut reader = KeyReader::new(&key, "ledger");
                    reader.tag()?;
                    reader.text()?;
                    guests.insert(reader.text()?);
                    if guests.len() > rows_max {
                        return Err(StoreError::TooManyRows { table: "ledger", rows_max });
                    }
                }
            }
            Ok(guests.into_iter().collect())
        })
        .await
    }

    /// See [`crate::store::Store::seal_mark`].
    pub async fn seal_mark(&self, mark: SealMark) -> Result<Option<Hour>, StoreError> {
        self.read(move |view| {
            let value = view.get(view.meta(), &[seal_tag(mark)]);
            let value = value.map_err(|error| damage_of("meta", &error))?;
            value.map(|value| KeyReader::new(&value, "meta").hour()).transpose()
        })
        .await
    }

    /// See [`crate::store::Store::oldest_head`].
    #[expect(clippy::unused_async, reason = "the stores have one contract")]
    pub async fn oldest_head(&self) -> Result<Option<Hour>, StoreError> {
        Ok(self.keyspaces.oldest_head().map(|day| Hour::of(day.start_ms())))
    }

    /// See [`crate::store::Store::row_key_page`].
    pub async fn row_key_page(
        &self,
        week: Week,
        after: Option<&(String, Group)>,
        rows: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let table = Key::of_table(Table::RowKeys);
        let from = match after {
            Some((row_key, group)) => Bound::Excluded(table.clone().text(row_key).group(*group).0),
            None => Bound::Included(table.0.clone()),
        };
        let end = Bound::Excluded(vec![Table::RowKeys as u8 + 1]);
        self.read(move |view| {
            let Some(keyspace) = view.index(week) else { return Ok(Vec::new()) };
            let page = view.range(&keyspace, (from, end)).take(rows).map(|guard| {
                let key = guard.key().map_err(|error| damage_of("row_keys", &error))?;
                let mut reader = KeyReader::new(&key, "row_keys");
                reader.tag()?;
                Ok((reader.text()?, reader.group()?))
            });
            page.collect()
        })
        .await
    }
}

fn read_chunks(
    (view, keyspace): (&View<'_>, &Keyspace),
    (group, series): (Group, SeriesId),
    windows: (Hour, Hour),
    chunks: &mut Vec<Chunk>,
) -> Result<usize, StoreError> {
    let key = Key::of_table(Table::Chunks).group(group).series(series);
    let (from, to) = (key.clone().hour(windows.0).hash(0), key.hour(windows.1).hash(u64::MAX));
    let mut bytes = 0;
    for guard in view.range(keyspace, from.0..=to.0) {
        let (key, value) = Guard::into_inner(guard).map_err(|error| damage_of("chunks", &error))?;
        let mut reader = KeyReader::new(&key, "chunks");
        reader.tag()?;
        reader.group()?;
        let (series, window) = (reader.series()?, reader.hour()?);
        bytes += value.len();
        chunks.push(Chunk { series, window, payload: Bytes::copy_from_slice(&value) });
    }
    Ok(bytes)
}

/// A late row is its key.
pub(super) fn late_key(row: &LateRow) -> Key {
    Key::default().group(row.group).hour(row.window).millisecond(row.arrived_ms).hash(row.hash)
}
