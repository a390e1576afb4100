//! The store in memory: for tests, and for trials that may forget.
//! The simplest thing that keeps the contract; the others are compared with it.

#![expect(
    clippy::unused_async,
    reason = "the contract is asynchronous, this store has nothing to wait for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::StoreError;
use super::rows::{
    Chunk, HeadKey, Kept, LateRow, LayoutRow, LedgerRow, MarkerRow, Placed, PostingsKey, Rows,
    SealMark, Sealed, SeriesPage, Wanted,
};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Day, Hour, Month, WEEK_MS, Week};

/// Tables as ordered maps behind one lock. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    tables: Arc<Mutex<Tables>>,
}

type HeadRowKey = (Group, Hour, i64, u64);
type ChunkKey = (Group, SeriesId, Hour, u64);
type PostingKey = (Week, String, String, String, SeriesId);

#[derive(Debug, Default)]
struct Tables {
    head: BTreeMap<HeadRowKey, Bytes>,
    series: BTreeMap<(Week, Group, SeriesId), Bytes>,
    metric_series: BTreeMap<(Week, String, SeriesId), Group>,
    postings: BTreeMap<PostingKey, Group>,
    metrics: BTreeSet<(Week, String)>,
    row_keys: BTreeSet<(Week, String, Group)>,
    layouts: BTreeMap<Week, String>,
    late: BTreeSet<LateRow>,
    chunks: BTreeMap<ChunkKey, Bytes>,
    markers: BTreeSet<MarkerRow>,
    // By family, guest and hour.
    ledger: BTreeMap<(String, String, Hour), LedgerRow>,
    sealed_until: Option<Hour>,
    checked_until: Option<Hour>,
    sealing_until: Option<Hour>,
}

impl Tables {
    fn seal_mark(&mut self, mark: SealMark) -> &mut Option<Hour> {
        match mark {
            SealMark::Sealed(_) => &mut self.sealed_until,
            SealMark::Checked(_) => &mut self.checked_until,
            SealMark::Begun => &mut self.sealing_until,
        }
    }

    /// How many days of head and weeks of index there are.
    fn spans(&self) -> usize {
        let days: BTreeSet<Day> =
            self.head.keys().map(|(_, hour, ..)| Day::of(hour.start_ms())).collect();
        let weeks: BTreeSet<Week> = self.series.keys().map(|(week, ..)| *week).collect();
        let of_chunks = self.chunks.keys().map(|(.., window, _)| Month::of(window.start_ms()));
        let months: BTreeSet<Month> = of_chunks.collect();
        let of_ledger = self.ledger.keys().map(|(.., hour)| Month::of(hour.start_ms()));
        let bills: BTreeSet<Month> = of_ledger.collect();
        days.len() + weeks.len() + months.len() + bills.len()
    }

    /// Whether a head row may hold something that no chunk holds. A window has at most 24 hours.
    fn is_unsealed(&self, group: Group, hour: Hour, kept: &Kept) -> bool {
        let late = |window| LateRow { group, window, arrived_ms: i64::MIN, hash: 0 };
        let windows = late(Hour(hour.0.saturating_sub(23)))..late(Hour(hour.0.saturating_add(1)));
        hour >= kept.sealed_until || self.late.range(windows).next().is_some()
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Memory {
        Memory::default()
    }

    // Nothing panics while it holds the lock; a poisoned lock would still guard whole rows.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`super::Store::append`].
    pub async fn append(&self, rows: Rows) -> Result<(), StoreError> {
        let tables = &mut *self.tables();
        for row in rows.index {
            tables.metrics.insert((row.week, row.metric.clone()));
            tables.row_keys.insert((row.week, row.row_key, row.group));
            tables.metric_series.insert((row.week, row.metric.clone(), row.series), row.group);
            for (label, value) in row.postings {
                tables
                    .postings
                    .insert((row.week, row.metric.clone(), label, value, row.series), row.group);
            }
            tables.series.insert((row.week, row.group, row.series), row.labels);
        }
        tables.late.extend(rows.late);
        for row in rows.head {
            tables.head.insert((row.group, row.hour, row.first_ms, row.hash), row.payload);
        }
        Ok(())
    }

    /// See [`super::Store::head`].
    pub async fn head(
        &self,
        group: Group,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let from = (group, hours.0, i64::MIN, 0);
        let to = (group, hours.1, i64::MAX, u64::MAX);
        let tables = self.tables();
        let found = tables.head.range(from..=to);
        let payloads = bounded("head", rows_max, found.map(|(_, payload)| payload.clone()))?;
        let bytes: usize = payloads.iter().map(Bytes::len).sum();
        if bytes > limits::HEAD_READ_BYTES_MAX {
            let bytes_max = limits::HEAD_READ_BYTES_MAX;
            return Err(StoreError::TooManyBytes { table: "head", bytes_max });
        }
        Ok(payloads)
    }

    /// See [`super::Store::head_page`].
    pub async fn head_page(
        &self,
        group: Group,
        hour: Hour,
        after: Option<HeadKey>,
    ) -> Result<Vec<(HeadKey, Bytes)>, StoreError> {
        let from = match after {
            Some((first_ms, hash)) => Bound::Excluded((group, hour, first_ms, hash)),
            None => Bound::Included((group, hour, i64::MIN, 0)),
        };
        let to = Bound::Included((group, hour, i64::MAX, u64::MAX));
        let tables = self.tables();
        let mut bytes = 0;
        let page = tables.head.range((from, to)).take_while(|(_, payload)| {
            let fits = bytes < limits::HEAD_PAGE_BYTES;
            bytes += payload.len();
            fits
        });
        Ok(page.map(|((.., first_ms, hash), row)| ((*first_ms, *hash), row.clone())).collect())
    }

    /// See [`super::Store::series`].
    pub async fn series(
        &self,
        week: Week,
        group: Group,
        rows_max: usize,
    ) -> Result<Vec<(SeriesId, Bytes)>, StoreError> {
        let range = (week, group, SeriesId(0))..=(week, group, SeriesId(u128::MAX));
        let tables = self.tables();
        bounded(
            "series",
            rows_max,
            tables.series.range(range).map(|((_, _, id), labels)| (*id, labels.clone())),
        )
    }

    /// See [`super::Store::series_page`].
    pub async fn series_page(
        &self,
        week: Week,
        group: Group,
        after: Option<SeriesId>,
    ) -> Result<SeriesPage, StoreError> {
        let from = match after {
            Some(after) => Bound::Excluded((week, group, after)),
            None => Bound::Included((week, group, SeriesId(0))),
        };
        let to = Bound::Included((week, group, SeriesId(u128::MAX)));
        let tables = self.tables();
        let page = tables.series.range((from, to)).take(limits::SERIES_PAGE_ROWS);
        Ok(SeriesPage::new(page.map(|((.., id), labels)| (*id, labels.clone())).collect()))
    }

    /// See [`super::Store::metric_series`].
    pub async fn metric_series(
        &self,
        week: Week,
        metric: &str,
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let range =
            (week, metric.to_owned(), SeriesId(0))..=(week, metric.to_owned(), SeriesId(u128::MAX));
        let tables = self.tables();
        let found = tables.metric_series.range(range);
        bounded(
            "metric_series",
            rows_max,
            found.map(|((_, _, series), group)| Placed { group: *group, series: *series }),
        )
    }

    /// See [`super::Store::postings`].
    pub async fn postings(
        &self,
        key: PostingsKey<'_>,
        values: &[&str],
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let tables = self.tables();
        let of_value = |value: &&str| {
            let [from, to] = [0, u128::MAX].map(|series| posting(&key, value, SeriesId(series)));
            tables.postings.range(from..=to)
        };
        let found = values.iter().flat_map(of_value);
        bounded(
            "postings",
            rows_max,
            found.map(|((.., series), group)| Placed { group: *group, series: *series }),
        )
    }

    /// See [`super::Store::postings_below`].
    pub async fn postings_below(
        &self,
        key: PostingsKey<'_>,
        prefixes: &[&str],
        rows_max: usize,
    ) -> Result<Vec<(String, Placed)>, StoreError> {
        let tables = self.tables();
        let below = |prefix: &&str| {
            let (prefix, key) = ((*prefix).to_owned(), key);
            let from = tables.postings.range(posting(&key, &prefix, SeriesId(0))..);
            from.take_while(move |((week, metric, label, value, _), _)| {
                (*week, metric.as_str(), label.as_str()) == (key.week, key.metric, key.label)
                    && value.starts_with(&prefix)
            })
        };
        let found = prefixes.iter().flat_map(below).map(|((.., value, series), group)| {
            (value.clone(), Placed { group: *group, series: *series })
        });
        bounded("postings", rows_max, found)
    }

    /// See [`super::Store::labels`].
    pub async fn labels(
        &self,
        week: Week,
        wanted: Vec<Wanted>,
        rows_max: usize,
    ) -> Result<Vec<(Placed, Bytes)>, StoreError> {
        let tables = self.tables();
        let of_group = |of: &Wanted| {
            let (group, wanted) = (of.group, of.series.clone());
            let range = (week, group, SeriesId(0))..=(week, group, SeriesId(u128::MAX));
            tables.series.range(range).filter_map(move |((.., series), labels)| {
                let is_wanted = wanted.as_ref().is_none_or(|ids| ids.binary_search(series).is_ok());
                is_wanted.then(|| (Placed { group, series: *series }, labels.clone()))
            })
        };
        let rows = bounded("series", rows_max, wanted.iter().flat_map(of_group))?;
        let bytes: usize = rows.iter().map(|(_, labels)| labels.len()).sum();
        if bytes > limits::SERIES_READ_BYTES_MAX {
            let bytes_max = limits::SERIES_READ_BYTES_MAX;
            return Err(StoreError::TooManyBytes { table: "series", bytes_max });
        }
        Ok(rows)
    }

    /// See [`super::Store::metrics`].
    pub async fn metrics(&self, week: Week, rows_max: usize) -> Result<Vec<String>, StoreError> {
        let tables = self.tables();
        let found =
            tables.metrics.range((Bound::Included((week, String::new())), Bound::Unbounded));
        bounded(
            "metrics",
            rows_max,
            found.take_while(|(of, _)| *of == week).map(|(_, metric)| metric.clone()),
        )
    }

    /// See [`super::Store::row_keys`].
    pub async fn row_keys(
        &self,
        week: Week,
        rows_max: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let tables = self.tables();
        let found = tables
            .row_keys
            .range((Bound::Included((week, String::new(), Group(0))), Bound::Unbounded));
        let of_week = found.take_while(|(of, ..)| *of == week);
        bounded("row_keys", rows_max, of_week.map(|(_, row_key, group)| (row_key.clone(), *group)))
    }

    /// See [`super::Store::layouts`].
    pub async fn layouts(&self) -> Result<Vec<LayoutRow>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .layouts
            .iter()
            .map(|(from, settings)| LayoutRow { from: *from, settings: settings.clone() })
            .collect())
    }

    /// See [`super::Store::add_layout`].
    pub async fn add_layout(&self, layout: LayoutRow) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        if tables.layouts.contains_key(&layout.from) {
            return Ok(false);
        }
        tables.layouts.insert(layout.from, layout.settings);
        Ok(true)
    }

    /// See [`super::Store::seal`].
    pub async fn seal(&self, sealed: Sealed) -> Result<(), StoreError> {
        let tables = &mut *self.tables();
        for row in sealed.chunks {
            tables.chunks.insert((row.group, row.series, row.window, row.hash), row.payload);
        }
        for row in sealed.ledger.into_iter().flat_map(|projection| projection.rows) {
            tables.ledger.insert((row.family.clone(), row.guest.clone(), row.hour), row);
        }
        tables.markers.extend(sealed.markers);
        for row in &sealed.late {
            tables.late.remove(row);
        }
        Ok(())
    }

    /// See [`super::Store::chunks`].
    pub async fn chunks(
        &self,
        group: Group,
        series: &[SeriesId],
        windows: (Hour, Hour),
    ) -> Result<Vec<Chunk>, StoreError> {
        let tables = self.tables();
        let mut chunks = Vec::new();
        let mut bytes = 0;
        for series in series {
            let range = (group, *series, windows.0, 0)..=(group, *series, windows.1, u64::MAX);
            for ((_, series, window, _), payload) in tables.chunks.range(range) {
                bytes += payload.len();
                if bytes > limits::CHUNK_READ_BYTES_MAX {
                    let bytes_max = limits::CHUNK_READ_BYTES_MAX;
                    return Err(StoreError::TooManyBytes { table: "chunks", bytes_max });
                }
                let payload = payload.clone();
                chunks.push(Chunk { series: *series, window: *window, payload });
            }
        }
        Ok(chunks)
    }

    /// See [`super::Store::markers`].
    pub async fn markers(
        &self,
        group: Group,
        windows: (Hour, Hour),
    ) -> Result<Vec<Hour>, StoreError> {
        let marker = |window| MarkerRow { group, window };
        let tables = self.tables();
        let found = tables.markers.range(marker(windows.0)..=marker(windows.1));
        Ok(found.map(|marker| marker.window).collect())
    }

    /// See [`super::Store::late`].
    pub async fn late(
        &self,
        group: Group,
        windows: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        let from = LateRow { group, window: windows.0, arrived_ms: i64::MIN, hash: 0 };
        let to = LateRow { group, window: windows.1, arrived_ms: i64::MAX, hash: u64::MAX };
        bounded("late", rows_max, self.tables().late.range(from..=to).copied())
    }

    /// See [`super::Store::late_since`].
    pub async fn late_since(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.tables().late.iter().map(|row| row.arrived_ms).min())
    }

    /// See [`super::Store::late_page`].
    pub async fn late_page(
        &self,
        after: Option<LateRow>,
        rows: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.tables();
        Ok(tables.late.range((from, Bound::Unbounded)).take(rows).copied().collect())
    }

    /// See [`super::Store::ledger`].
    pub async fn ledger(
        &self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let key = |hour| (family.to_owned(), guest.to_owned(), hour);
        let tables = self.tables();
        let found = tables.ledger.range(key(hours.0)..=key(hours.1));
        bounded("ledger", rows_max, found.map(|(_, row)| row.clone()))
    }

    /// See [`super::Store::ledger_guests`].
    pub async fn ledger_guests(
        &self,
        family: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let months = Month::of(hours.0.start_ms())..=Month::of(hours.1.start_ms());
        let tables = self.tables();
        let found = tables
            .ledger
            .keys()
            .filter(|(of, _, hour)| of == family && months.contains(&Month::of(hour.start_ms())));
        let guests: BTreeSet<&str> = found.map(|(_, guest, _)| guest.as_str()).collect();
        bounded("ledger", rows_max, guests.into_iter().map(str::to_owned))
    }

    /// See [`super::Store::seal_mark`].
    pub async fn seal_mark(&self, mark: SealMark) -> Result<Option<Hour>, StoreError> {
        Ok(*self.tables().seal_mark(mark))
    }

    /// See [`super::Store::set_seal_mark`].
    pub async fn set_seal_mark(&self, mark: SealMark, hour: Hour) -> Result<(), StoreError> {
        *self.tables().seal_mark(mark) = Some(hour);
        Ok(())
    }

    /// See [`super::Store::oldest_head`].
    pub async fn oldest_head(&self) -> Result<Option<Hour>, StoreError> {
        Ok(self.tables().head.keys().map(|(_, hour, ..)| *hour).min())
    }

    /// See [`super::Store::row_key_page`].
    pub async fn row_key_page(
        &self,
        week: Week,
        after: Option<&(String, Group)>,
        rows: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let from = match after {
            Some((row_key, group)) => Bound::Excluded((week, row_key.clone(), *group)),
            None => Bound::Included((week, String::new(), Group(0))),
        };
        let tables = self.tables();
        let of_week = tables.row_keys.range((from, Bound::Unbounded));
        let of_week = of_week.take_while(|(of, ..)| *of == week).take(rows);
        Ok(of_week.map(|(_, row_key, group)| (row_key.clone(), *group)).collect())
    }

    /// See [`super::Store::expire`].
    pub async fn expire(&self, kept: Kept) -> Result<usize, StoreError> {
        let tables = &mut *self.tables();
        let before = tables.spans();
        let heads = std::mem::take(&mut tables.head);
        let unsealed = |tables: &Tables, key: &HeadRowKey| tables.is_unsealed(key.0, key.1, &kept);
        tables.head = heads.into_iter().filter(|(key, _)| unsealed(tables, key)).collect();
        let late = tables.late.iter().map(|row| row.window).min();
        let unsealed = late.map_or(kept.sealed_until, |late| late.min(kept.sealed_until));
        let oldest_ms = kept.samples_ms.min(unsealed.start_ms() - 2 * WEEK_MS);
        let is_kept = |week: &Week| week.end_ms() >= oldest_ms;
        tables.series.retain(|(week, ..), _| is_kept(week));
        tables.metric_series.retain(|(week, ..), _| is_kept(week));
        tables.postings.retain(|(week, ..), _| is_kept(week));
        tables.metrics.retain(|(week, _)| is_kept(week));
        tables.row_keys.retain(|(week, ..)| is_kept(week));
        let month_ends = |hour: &Hour| Month::of(hour.start_ms()).end_ms();
        tables.chunks.retain(|(.., window, _), _| month_ends(window) >= oldest_ms);
        tables.markers.retain(|marker| month_ends(&marker.window) >= oldest_ms);
        tables.ledger.retain(|(.., hour), _| month_ends(hour) >= kept.ledger_ms);
        Ok(before.saturating_sub(tables.spans()))
    }

    /// See [`super::Store::ready`].
    pub fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// See [`super::Store::close`].
    pub async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn posting(key: &PostingsKey<'_>, value: &str, series: SeriesId) -> PostingKey {
    (key.week, key.metric.to_owned(), key.label.to_owned(), value.to_owned(), series)
}

fn bounded<T>(
    table: &'static str,
    rows_max: usize,
    rows: impl Iterator<Item = T>,
) -> Result<Vec<T>, StoreError> {
    let rows: Vec<T> = rows.take(rows_max.saturating_add(1)).collect();
    if rows.len() > rows_max { Err(StoreError::TooManyRows { table, rows_max }) } else { Ok(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::contract::{Subject, all};

    struct InMemory(Store);

    impl Subject for InMemory {
        fn store(&self) -> &Store {
            &self.0
        }
        fn keeps(&self) -> bool {
            false
        }
        async fn reopen(&mut self) {}
        fn now_ms(&self) -> i64 {
            1_700_000_000_000
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        all(&mut InMemory(Store::Memory(Memory::new()))).await;
    }
}
