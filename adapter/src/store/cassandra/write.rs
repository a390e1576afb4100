//! Writes: rows of one commit gathered by partition into bounded batches, written with bounded
//! concurrency; the order of the tables; times to live by the age of the samples.
//! Knows no payload.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use super::Shared;
use super::attempt::{unavailable, until};
use super::schema::{HEAD_EXTRA_DAYS, TTL_SECONDS_MAX};
use super::statements::Prepared;
use crate::limits;
use crate::model::time::{DAY_MS, Week};
use crate::store::StoreError;
use crate::store::rows::{HeadRow, IndexRow, Rows};

/// Writes the rows of one commit: the index before the head, and of the index `series` last.
pub(super) async fn append(shared: &Arc<Shared>, rows: Rows) -> Result<(), StoreError> {
    let deadline = Instant::now() + limits::WRITE_DEADLINE;
    let ages = Ages { now_ms: shared.clock.now_ms(), retention_ms: shared.retention_ms };
    if !rows.index.is_empty() {
        let index = Index::of(rows.index, shared.index_shards, &ages);
        let statements = &shared.statements;
        let mut stage = Stage::new(shared, deadline);
        stage.write(&statements.write_metrics, index.metrics).await?;
        stage.write(&statements.write_row_keys, index.row_keys).await?;
        stage.write(&statements.write_metric_series, index.metric_series).await?;
        stage.write(&statements.write_postings, index.postings).await?;
        stage.finish().await?;
        let mut stage = Stage::new(shared, deadline);
        stage.write(&statements.write_series, index.series).await?;
        stage.finish().await?;
    }
    let mut stage = Stage::new(shared, deadline);
    stage.write(&shared.statements.write_head, head(rows.head, &ages)).await?;
    stage.finish().await
}

/// What times to live are reckoned from.
struct Ages {
    now_ms: i64,
    retention_ms: i64,
}

impl Ages {
    /// The rest of a row's life in seconds when its newest sample may be of `last_ms`; `None`
    /// where it is over. Never 0, which CQL takes for "for ever".
    fn ttl(&self, last_ms: i64, extra_days: i64) -> Option<i32> {
        let end_ms = last_ms.saturating_add(self.retention_ms).saturating_add(extra_days * DAY_MS);
        let seconds = end_ms.saturating_sub(self.now_ms) / 1000;
        // At most 20 years, which fits.
        i32::try_from(seconds.min(TTL_SECONDS_MAX)).ok().filter(|seconds| *seconds > 0)
    }

    /// Of an index row: a day beyond the last sample that its week can hold.
    fn ttl_of_week(&self, week: Week) -> Option<i32> {
        self.ttl(week.end_ms(), 1)
    }
}

// Rows as the values of their statements, partition key first, time to live last: sorted, the rows
// of one partition are beside each other.
type HeadValues = (i64, i32, i64, i64, Bytes, i32);
type SeriesValues = (i32, i64, Bytes, Bytes, i32);
type MetricSeriesValues = (i32, Arc<str>, i16, Bytes, i64, i32);
type PostingValues = (i32, Arc<str>, String, i16, String, Bytes, i64, i32);
type MetricValues = (i32, Arc<str>, i32);
type RowKeyValues = (i32, i16, String, i64, i32);

/// Bytes that the fixed columns and the frame add to each row, about.
const ROW_BYTES: usize = 64;

fn head(rows: Vec<HeadRow>, ages: &Ages) -> Vec<Vec<HeadValues>> {
    let values = rows.into_iter().filter_map(|row| {
        let ttl = ages.ttl(row.hour.end_ms(), HEAD_EXTRA_DAYS)?;
        let (group, hash) = (row.group.0.cast_signed(), row.hash.cast_signed());
        Some((group, row.hour.0, row.first_ms, hash, row.payload, ttl))
    });
    batches(values.collect(), |a, b| (a.0, a.1) == (b.0, b.1), |row: &HeadValues| row.4.len())
}

/// The rows of the five index tables, in batches.
struct Index {
    metrics: Vec<Vec<MetricValues>>,
    row_keys: Vec<Vec<RowKeyValues>>,
    metric_series: Vec<Vec<MetricSeriesValues>>,
    postings: Vec<Vec<PostingValues>>,
    series: Vec<Vec<SeriesValues>>,
}

impl Index {
    fn of(rows: Vec<IndexRow>, shards: u16, ages: &Ages) -> Index {
        let (mut metrics, mut row_keys) = (BTreeSet::new(), BTreeSet::new());
        let (mut metric_series, mut postings) = (Vec::new(), Vec::new());
        let mut series = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(ttl) = ages.ttl_of_week(row.week) else { continue };
            let (week, group) = (row.week.0, row.group.0.cast_signed());
            let metric: Arc<str> = row.metric.into();
            let shard = row.series.shard(shards).cast_signed();
            let id = Bytes::copy_from_slice(&row.series.to_bytes());
            metrics.insert((week, Arc::clone(&metric), ttl));
            row_keys.insert((week, row_key_shard(&row.row_key, shards), row.row_key, group, ttl));
            metric_series.push((week, Arc::clone(&metric), shard, id.clone(), group, ttl));
            for (label, value) in row.postings {
                let metric = Arc::clone(&metric);
                postings.push((week, metric, label, shard, value, id.clone(), group, ttl));
            }
            series.push((week, group, id, row.labels, ttl));
        }
        Index {
            metrics: batches(
                metrics.into_iter().collect(),
                |a: &MetricValues, b| a.0 == b.0,
                |row| row.1.len(),
            ),
            row_keys: batches(
                row_keys.into_iter().collect(),
                |a: &RowKeyValues, b| (a.0, a.1) == (b.0, b.1),
                |row| row.2.len(),
            ),
            metric_series: batches(
                metric_series,
                |a: &MetricSeriesValues, b| (a.0, &a.1, a.2) == (b.0, &b.1, b.2),
                |row| row.1.len(),
            ),
            postings: batches(
                postings,
                |a: &PostingValues, b| (a.0, &a.1, &a.2, a.3) == (b.0, &b.1, &b.2, b.3),
                |row| row.1.len() + row.2.len() + row.4.len(),
            ),
            series: batches(
                series,
                |a: &SeriesValues, b| (a.0, a.1) == (b.0, b.1),
                |row| row.3.len(),
            ),
        }
    }
}

/// Which of `shards` partitions of a week holds a row key.
fn row_key_shard(row_key: &str, shards: u16) -> i16 {
    let shard = xxh3_64(row_key.as_bytes()) % u64::from(shards.max(1));
    i16::try_from(shard).unwrap_or(0)
}

/// Gathers rows by partition, and divides what is too large for one batch.
fn batches<V: Ord>(
    mut rows: Vec<V>,
    is_beside: impl Fn(&V, &V) -> bool,
    size: impl Fn(&V) -> usize,
) -> Vec<Vec<V>> {
    rows.sort_unstable();
    let mut batches: Vec<Vec<V>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let row_bytes = size(&row) + ROW_BYTES;
        match batches.last_mut() {
            Some(batch)
                if batch.last().is_some_and(|last| is_beside(last, &row))
                    && batch.len() < limits::CASSANDRA_BATCH_ROWS_MAX
                    && bytes + row_bytes <= limits::CASSANDRA_BATCH_BYTES_MAX =>
            {
                bytes += row_bytes;
                batch.push(row);
            }
            _ => {
                bytes = row_bytes;
                batches.push(vec![row]);
            }
        }
    }
    batches
}

/// Batches that may be written side by side. Dropped before [`Stage::finish`], it ends them.
struct Stage<'a> {
    shared: &'a Arc<Shared>,
    deadline: Instant,
    writing: JoinSet<Result<(), StoreError>>,
}

impl<'a> Stage<'a> {
    fn new(shared: &'a Arc<Shared>, deadline: Instant) -> Stage<'a> {
        Stage { shared, deadline, writing: JoinSet::new() }
    }

    /// Starts the writes as slots come free.
    async fn write<V: SerializeRow + Send + Sync + 'static>(
        &mut self,
        prepared: &Prepared,
        batches: Vec<Vec<V>>,
    ) -> Result<(), StoreError> {
        for rows in batches {
            let slot = Arc::clone(&self.shared.writes).acquire_owned();
            let slot = match timeout_at(self.deadline, slot).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_)) => return Err(unavailable(prepared.purpose, "the store is closed")),
                Err(_) => {
                    return Err(unavailable(prepared.purpose, "too many writes are under way"));
                }
            };
            while let Some(written) = self.writing.try_join_next() {
                joined(prepared, written)?;
            }
            let (shared, prepared) = (Arc::clone(self.shared), prepared.clone());
            let deadline = self.deadline;
            self.writing.spawn(async move {
                let written = batch(&shared, &prepared, &rows, deadline).await;
                drop(slot);
                written
            });
        }
        Ok(())
    }

    /// Waits for all of them.
    async fn finish(mut self) -> Result<(), StoreError> {
        while let Some(written) = self.writing.join_next().await {
            written.map_err(|error| unavailable("writing", &error.to_string()))??;
        }
        Ok(())
    }
}

fn joined(
    prepared: &Prepared,
    written: Result<Result<(), StoreError>, JoinError>,
) -> Result<(), StoreError> {
    written.map_err(|error| unavailable(prepared.purpose, &error.to_string()))?
}

/// Writes rows of one partition as one mutation.
async fn batch<V: SerializeRow + Send + Sync>(
    shared: &Shared,
    prepared: &Prepared,
    rows: &[V],
    deadline: Instant,
) -> Result<(), StoreError> {
    let (session, statement) = (&shared.session, &prepared.statement);
    if let [row] = rows {
        return until(prepared.purpose, deadline, || session.execute_unpaged(statement, row))
            .await
            .map(drop);
    }
    let statements = vec![BatchStatement::PreparedStatement(statement.clone()); rows.len()];
    let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    batch.set_is_idempotent(true);
    until(prepared.purpose, deadline, || session.batch(&batch, rows)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn rows_live_until_their_sample_is_old_enough() {
        let ages = Ages { now_ms: 1_700_000_000_000, retention_ms: 400 * DAY_MS };
        assert_eq!(ages.ttl(ages.now_ms, 1), Some(i32::try_from(401 * DAY).unwrap()));
        let week_ago = ages.now_ms - 7 * DAY_MS;
        assert_eq!(ages.ttl(week_ago, 1), Some(i32::try_from(394 * DAY).unwrap()));
        // A time to live of 0 would be for ever.
        assert_eq!(ages.ttl(ages.now_ms - 401 * DAY_MS, 1), None);
        assert_eq!(ages.ttl(i64::MIN, 1), None);
        assert_eq!(ages.ttl(i64::MAX, 1), Some(i32::try_from(TTL_SECONDS_MAX).unwrap()));
    }

    #[test]
    fn batches_hold_one_partition_and_are_bounded() {
        let rows: Vec<(u8, usize)> = (0..1201).map(|n| (u8::from(n % 3 == 0), n)).collect();
        let made = batches(rows.clone(), |a, b| a.0 == b.0, |_| 0);
        assert!(made.iter().all(|batch| batch.iter().all(|row| row.0 == batch[0].0)));
        assert!(made.iter().all(|batch| batch.len() <= limits::CASSANDRA_BATCH_ROWS_MAX));
        assert_eq!(made.len(), 3, "800 rows in two batches, 401 in one");
        let mut all: Vec<_> = made.into_iter().flatten().collect();
        all.sort_by_key(|row| row.1);
        assert_eq!(all, rows);

        let large = vec![(0u8, 40 << 10), (0, 41 << 10), (0, 42 << 10), (0, 43 << 10)];
        let made = batches(large, |a, b| a.0 == b.0, |row| row.1);
        assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
    }
}
