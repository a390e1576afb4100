//! The index: the rows of its tables, read by partition; those of a metric from all of its shards.
//! Knows no payload.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Cassandra;
use super::read::partitions;
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::Week;
use crate::store::StoreError;
use crate::store::rows::{Placed, PostingsKey, SeriesPage, Wanted};

impl Cassandra {
    /// See [`crate::store::Store::series`].
    pub async fn series(
        &self,
        week: Week,
        group: Group,
        rows_max: usize,
    ) -> Result<Vec<(SeriesId, Bytes)>, StoreError> {
        let key = [(week.0, group.0.cast_signed())];
        let rows: Vec<(Bytes, Bytes)> =
            partitions(&self.shared, &self.shared.statements.series, key, rows_max).await?;
        rows.into_iter().map(|(series, labels)| Ok((series_id(&series)?, labels))).collect()
    }

    /// See [`crate::store::Store::series_page`].
    pub async fn series_page(
        &self,
        week: Week,
        group: Group,
        after: Option<SeriesId>,
    ) -> Result<SeriesPage, StoreError> {
        let (shared, group) = (&self.shared, group.0.cast_signed());
        let limit = i32::try_from(limits::SERIES_PAGE_ROWS).unwrap_or(i32::MAX);
        let (statements, rows_max) = (&shared.statements, limits::SERIES_PAGE_ROWS);
        let rows: Vec<(Bytes, Bytes)> = match after {
            None => {
                let key = [(week.0, group, limit)];
                partitions(shared, &statements.series_page, key, rows_max).await?
            }
            Some(after) => {
                let key = [(week.0, group, Bytes::copy_from_slice(&after.to_bytes()), limit)];
                partitions(shared, &statements.series_page_after, key, rows_max).await?
            }
        };
        let rows = rows.into_iter().map(|(series, labels)| Ok((series_id(&series)?, labels)));
        Ok(SeriesPage::new(rows.collect::<Result<_, StoreError>>()?))
    }

    /// See [`crate::store::Store::metric_series`].
    pub async fn metric_series(
        &self,
        week: Week,
        metric: &str,
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let metric: Arc<str> = metric.into();
        let keys = self.shards().map(|shard| (week.0, Arc::clone(&metric), shard));
        placed(
            partitions(&self.shared, &self.shared.statements.metric_series, keys, rows_max).await?,
        )
    }

    /// See [`crate::store::Store::postings`].
    pub async fn postings(
        &self,
        key: PostingsKey<'_>,
        values: &[&str],
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let [metric, label] = [key.metric, key.label].map(Arc::<str>::from);
        let values: Vec<Arc<str>> = values.iter().map(|value| Arc::from(*value)).collect();
        let keys = values.into_iter().flat_map(|value| {
            let (metric, label) = (Arc::clone(&metric), Arc::clone(&label));
            self.shards().map(move |shard| {
                let (metric, label) = (Arc::clone(&metric), Arc::clone(&label));
                (key.week.0, metric, label, shard, Arc::clone(&value))
            })
        });
        placed(partitions(&self.shared, &self.shared.statements.postings, keys, rows_max).await?)
    }

    /// See [`crate::store::Store::postings_below`].
    pub async fn postings_below(
        &self,
        key: PostingsKey<'_>,
        prefixes: &[&str],
        rows_max: usize,
    ) -> Result<Vec<(String, Placed)>, StoreError> {
        let [metric, label] = [key.metric, key.label].map(Arc::<str>::from);
        let ranges: Vec<[Arc<str>; 2]> =
            prefixes.iter().map(|prefix| [(*prefix).into(), behind(prefix).into()]).collect();
        let keys = ranges.into_iter().flat_map(|[from, to]| {
            let (metric, label) = (Arc::clone(&metric), Arc::clone(&label));
            self.shards().map(move |shard| {
                let (metric, label) = (Arc::clone(&metric), Arc::clone(&label));
                (key.week.0, metric, label, shard, Arc::clone(&from), Arc::clone(&to))
            })
        });
        let select = &self.shared.statements.postings_below;
        let rows: Vec<(String, i64, Bytes)> =
            partitions(&self.shared, select, keys, rows_max).await?;
        let rows = rows.into_iter().map(|(value, group, series)| {
            let group = Group(group.cast_unsigned());
            Ok((value, Placed { group, series: series_id(&series)? }))
        });
        rows.collect()
    }

    /// See [`crate::store::Store::labels`].
    pub async fn labels(
        &self,
        week: Week,
        wanted: Vec<Wanted>,
        rows_max: usize,
    ) -> Result<Vec<(Placed, Bytes)>, StoreError> {
        let reads = stream::iter(wanted).map(|wanted| self.labels_of(week, wanted));
        let mut reads = reads.buffer_unordered(limits::CLUSTER_READS_AT_ONCE);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(mut of_group) = reads.try_next().await? {
            bytes += of_group.iter().map(|(_, labels)| labels.len()).sum::<usize>();
            rows.append(&mut of_group);
            if rows.len() > rows_max {
                return Err(StoreError::TooManyRows { table: "series", rows_max });
            }
            if bytes > limits::SERIES_READ_BYTES_MAX {
                let bytes_max = limits::SERIES_READ_BYTES_MAX;
                return Err(StoreError::TooManyBytes { table: "series", bytes_max });
            }
        }
        Ok(rows)
    }

    /// What is wanted of a group, which may have far more that is not.
    async fn labels_of(
        &self,
        week: Week,
        wanted: Wanted,
    ) -> Result<Vec<(Placed, Bytes)>, StoreError> {
        let (group, mut rows, mut bytes, mut after) = (wanted.group, Vec::new(), 0, None);
        loop {
            let page = self.series_page(week, group, after).await?;
            for (series, labels) in page.rows {
                if wanted.series.as_ref().is_none_or(|ids| ids.binary_search(&series).is_ok()) {
                    bytes += labels.len();
                    rows.push((Placed { group, series }, labels));
                }
            }
            if page.next.is_none() || bytes > limits::SERIES_READ_BYTES_MAX {
                return Ok(rows);
            }
            after = page.next;
        }
    }

    /// See [`crate::store::Store::metrics`].
    pub async fn metrics(&self, week: Week, rows_max: usize) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> =
            partitions(&self.shared, &self.shared.statements.metrics, [(week.0,)], rows_max)
                .await?;
        Ok(rows.into_iter().map(|(metric,)| metric).collect())
    }

    /// See [`crate::store::Store::row_keys`].
    pub async fn row_keys(
        &self,
        week: Week,
        rows_max: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let keys = self.shards().map(|shard| (week.0, shard));
        let rows: Vec<(String, i64)> =
            partitions(&self.shared, &self.shared.statements.row_keys, keys, rows_max).await?;
        let rows = rows.into_iter();
        let mut rows: Vec<_> =
            rows.map(|(row_key, group)| (row_key, Group(group.cast_unsigned()))).collect();
        rows.sort_unstable();
        Ok(rows)
    }
}

/// The first text behind all that begin with this one: Cassandra compares bytes, and UTF-8's bytes
/// sort as its characters do.
fn behind(prefix: &str) -> String {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32) {
            text.push(next);
            return text;
        }
    }
    // Longer than any value.
    char::MAX.to_string().repeat(limits::LABEL_VALUE_BYTES_MAX / char::MAX.len_utf8() + 1)
}

fn placed(rows: Vec<(i64, Bytes)>) -> Result<Vec<Placed>, StoreError> {
    let placed = rows.into_iter().map(|(group, series)| {
        Ok(Placed { group: Group(group.cast_unsigned()), series: series_id(&series)? })
    });
    placed.collect()
}

pub(super) fn series_id(blob: &[u8]) -> Result<SeriesId, StoreError> {
    let bytes = blob.try_into().map_err(|_| {
        StoreError::Damaged(format!("a series id in Cassandra has {} bytes, not 16", blob.len()))
    })?;
    Ok(SeriesId::from_bytes(bytes))
}
