//! Local's index: the rows of its five tables, read by the begin of their keys. Each read is one
//! hop to a thread that may block, however many values or groups it is for.

use std::ops::Bound;

use bytes::Bytes;
use fjall::{Guard, Keyspace};

use super::keys::{Key, KeyReader, Table};
use super::view::View;
use super::{Bounded, Local, damage_of};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::Week;
use crate::store::StoreError;
use crate::store::rows::{Placed, PostingsKey, SeriesPage, Wanted};

impl Local {
    /// See [`crate::store::Store::series`].
    pub async fn series(
        &self,
        week: Week,
        group: Group,
        rows_max: usize,
    ) -> Result<Vec<(SeriesId, Bytes)>, StoreError> {
        let prefix = Key::of_table(Table::Series).group(group);
        self.below(week, "series", (vec![prefix], rows_max), |_, reader, value| {
            Ok((reader.series()?, Bytes::copy_from_slice(value)))
        })
        .await
    }

    /// See [`crate::store::Store::series_page`].
    pub async fn series_page(
        &self,
        week: Week,
        group: Group,
        after: Option<SeriesId>,
    ) -> Result<SeriesPage, StoreError> {
        self.read(move |view| {
            let Some(keyspace) = view.index(week) else { return Ok(SeriesPage::default()) };
            let prefix = Key::of_table(Table::Series).group(group);
            let at = |series| prefix.clone().series(series).0;
            let from = after.map_or(Bound::Included(at(SeriesId(0))), |id| Bound::Excluded(at(id)));
            let to = Bound::Included(at(SeriesId(u128::MAX)));
            let mut rows = Vec::new();
            for guard in view.range(&keyspace, (from, to)).take(limits::SERIES_PAGE_ROWS) {
                let (key, labels) =
                    Guard::into_inner(guard).map_err(|error| damage_of("series", &error))?;
                let of_group = key.get(prefix.0.len()..).unwrap_or(&[]);
                let series = KeyReader::new(of_group, "series").series()?;
                rows.push((series, Bytes::copy_from_slice(&labels)));
            }
            Ok(SeriesPage::new(rows))
        })
        .await
    }

    /// See [`crate::store::Store::labels`].
    pub async fn labels(
        &self,
        week: Week,
        wanted: Vec<Wanted>,
        rows_max: usize,
    ) -> Result<Vec<(Placed, Bytes)>, StoreError> {
        self.read(move |view| {
            let mut read = LabelRead { rows: Bounded::new("series", rows_max), labels: Vec::new() };
            let Some(keyspace) = view.index(week) else { return Ok(Vec::new()) };
            for wanted in wanted {
                read.group((view, &keyspace), &wanted)?;
            }
            Ok(read.finish())
        })
        .await
    }

    /// See [`crate::store::Store::metric_series`].
    pub async fn metric_series(
        &self,
        week: Week,
        metric: &str,
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let prefix = Key::of_table(Table::MetricSeries).text(metric);
        self.below(week, "metric_series", (vec![prefix], rows_max), |_, reader, value| {
            placed(reader.series()?, value)
        })
        .await
    }

    /// See [`crate::store::Store::postings`].
    pub async fn postings(
        &self,
        key: PostingsKey<'_>,
        values: &[&str],
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let of_label = of_label(&key);
        let prefixes = values.iter().map(|value| of_label.clone().text(value)).collect();
        self.below(key.week, "postings", (prefixes, rows_max), |_, reader, value| {
            placed(reader.series()?, value)
        })
        .await
    }

    /// See [`crate::store::Store::postings_below`].
    pub async fn postings_below(
        &self,
        key: PostingsKey<'_>,
        prefixes: &[&str],
        rows_max: usize,
    ) -> Result<Vec<(String, Placed)>, StoreError> {
        let of_label = of_label(&key);
        let begins: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let keys = begins.iter().map(|begin| of_label.clone().beginning(begin)).collect();
        self.below(key.week, "postings", (keys, rows_max), move |place, reader, value| {
            let begin = begins.get(place).map_or("", String::as_str);
            let text = reader.text_after(begin)?;
            Ok((text, placed(reader.series()?, value)?))
        })
        .await
    }

    /// See [`crate::store::Store::metrics`].
    pub async fn metrics(&self, week: Week, rows_max: usize) -> Result<Vec<String>, StoreError> {
        let prefix = Key::of_table(Table::Metrics);
        self.below(week, "metrics", (vec![prefix], rows_max), |_, reader, _| reader.text()).await
    }

    /// See [`crate::store::Store::row_keys`].
    pub async fn row_keys(
        &self,
        week: Week,
        rows_max: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let prefix = Key::of_table(Table::RowKeys);
        self.below(week, "row_keys", (vec![prefix], rows_max), |_, reader, _| {
            Ok((reader.text()?, reader.group()?))
        })
        .await
    }

    /// The rows of one index table below some prefixes; `row` is told the place of the prefix, and
    /// reads what follows it in the key, and the value.
    async fn below<T: Send + 'static>(
        &self,
        week: Week,
        table: &'static str,
        (prefixes, rows_max): (Vec<Key>, usize),
        row: impl Fn(usize, &mut KeyReader<'_>, &[u8]) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        self.read(move |view| {
            let mut rows = Bounded::new(table, rows_max);
            let Some(keyspace) = view.index(week) else { return Ok(rows.rows) };
            for (place, prefix) in prefixes.iter().enumerate() {
                for guard in view.prefix(&keyspace, &prefix.0) {
                    let (key, value) =
                        Guard::into_inner(guard).map_err(|error| damage_of(table, &error))?;
                    let mut reader =
                        KeyReader::new(key.get(prefix.0.len()..).unwrap_or(&[]), table);
                    rows.push(row(place, &mut reader, &value)?)?;
                }
            }
            Ok(rows.rows)
        })
        .await
    }
}

/// A read of labels under way. They are gathered in one piece of memory.
struct LabelRead {
    /// With the end of their labels.
    rows: Bounded<(Placed, usize)>,
    labels: Vec<u8>,
}

impl LabelRead {
    fn group(
        &mut self,
        (view, keyspace): (&View<'_>, &Keyspace),
        wanted: &Wanted,
    ) -> Result<(), StoreError> {
        let group = wanted.group;
        let prefix = Key::of_table(Table::Series).group(group);
        let damaged = |error: &fjall::Error| damage_of("series", error);
        match &wanted.series {
            Some(few) if few.len() <= limits::SERIES_READ_SINGLY_MAX => {
                for series in few {
                    let labels = view.get(keyspace, &prefix.clone().series(*series).0);
                    if let Some(labels) = labels.map_err(|error| damaged(&error))? {
                        self.push(Placed { group, series: *series }, &labels)?;
                    }
                }
            }
            some => {
                for guard in view.prefix(keyspace, &prefix.0) {
                    let (key, labels) =
                        Guard::into_inner(guard).map_err(|error| damaged(&error))?;
                    let end = key.get(prefix.0.len()..).unwrap_or(&[]);
                    let series = KeyReader::new(end, "series").series()?;
                    if some.as_ref().is_none_or(|ids| ids.binary_search(&series).is_ok()) {
                        self.push(Placed { group, series }, &labels)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, placed: Placed, labels: &[u8]) -> Result<(), StoreError> {
        self.labels.extend_from_slice(labels);
        if self.labels.len() > limits::SERIES_READ_BYTES_MAX {
            let bytes_max = limits::SERIES_READ_BYTES_MAX;
            return Err(StoreError::TooManyBytes { table: "series", bytes_max });
        }
        self.rows.push((placed, self.labels.len()))
    }

    fn finish(self) -> Vec<(Placed, Bytes)> {
        let labels = Bytes::from(self.labels);
        let mut begin = 0;
        let rows = self.rows.rows.into_iter().map(|(placed, end)| {
            let of_series = labels.slice(begin..end);
            begin = end;
            (placed, of_series)
        });
        rows.collect()
    }
}

fn of_label(key: &PostingsKey<'_>) -> Key {
    Key::of_table(Table::Postings).text(key.metric).text(key.label)
}

fn placed(series: SeriesId, group: &[u8]) -> Result<Placed, StoreError> {
    let group = group
        .try_into()
        .map_err(|_| StoreError::Damaged("an index row on disk has no group".to_owned()))?;
    Ok(Placed { group: Group(u64::from_be_bytes(group)), series })
}
