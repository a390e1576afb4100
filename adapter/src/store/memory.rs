//! The store in memory: for tests, and for trials that may forget.
//! The simplest thing that keeps the contract; the others are compared with it.

#![expect(
    clippy::unused_async,
    reason = "the contract is asynchronous, this store has nothing to wait for"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::StoreError;
use super::rows::{LayoutRow, Placed, PostingsKey, Rows};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Day, Hour, Week};

/// Tables as ordered maps behind one lock.
#[derive(Debug, Default)]
pub struct Memory {
    tables: Mutex<Tables>,
}

type HeadKey = (Group, Hour, i64, u64);
type PostingKey = (Week, String, String, String, SeriesId);

#[derive(Debug, Default)]
struct Tables {
    head: BTreeMap<HeadKey, Bytes>,
    series: BTreeMap<(Week, Group, SeriesId), Bytes>,
    metric_series: BTreeMap<(Week, String, SeriesId), Group>,
    postings: BTreeMap<PostingKey, Group>,
    metrics: BTreeSet<(Week, String)>,
    row_keys: BTreeSet<(Week, String, Group)>,
    layouts: BTreeMap<Week, String>,
}

impl Tables {
    /// How many days of head and weeks of index there are.
    fn spans(&self) -> usize {
        let days: BTreeSet<Day> =
            self.head.keys().map(|(_, hour, ..)| Day::of(hour.start_ms())).collect();
        let weeks: BTreeSet<Week> = self.series.keys().map(|(week, ..)| *week).collect();
        days.len() + weeks.len()
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
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let posting = |series| {
            (key.week, key.metric.to_owned(), key.label.to_owned(), key.value.to_owned(), series)
        };
        let tables = self.tables();
        let found = tables.postings.range(posting(SeriesId(0))..=posting(SeriesId(u128::MAX)));
        bounded(
            "postings",
            rows_max,
            found.map(|((.., series), group)| Placed { group: *group, series: *series }),
        )
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

    /// See [`super::Store::expire`].
    pub async fn expire(&self, oldest_ms: i64) -> Result<usize, StoreError> {
        let tables = &mut *self.tables();
        let before = tables.spans();
        tables.head.retain(|(_, hour, ..), _| hour.end_ms() >= oldest_ms);
        let kept = |week: &Week| week.end_ms() >= oldest_ms;
        tables.series.retain(|(week, ..), _| kept(week));
        tables.metric_series.retain(|(week, ..), _| kept(week));
        tables.postings.retain(|(week, ..), _| kept(week));
        tables.metrics.retain(|(week, _)| kept(week));
        tables.row_keys.retain(|(week, ..)| kept(week));
        Ok(before - tables.spans())
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
