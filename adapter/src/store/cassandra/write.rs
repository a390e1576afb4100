//! The rows of a commit: the order of the tables, and times to live by the age of the samples.
//! Knows no payload.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::Shared;
use super::late;
use super::schema::{
    HEAD_EXTRA_DAYS, LEDGER_EXTRA_DAYS, LISTED_EXTRA_DAYS, TTL_SECONDS_MAX, WINDOW_EXTRA_DAYS,
};
use super::stage::{Stage, batches};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::time::{DAY_MS, Hour, Month, Week};
use crate::store::StoreError;
use crate::store::rows::{HeadRow, IndexRow, LateRow, Rows};

/// Writes the rows of one commit: the index before the head, and of the index `series` last.
///
/// Late rows are written before the head, so that a seal which misses the head row is followed by
/// another, and once more after it, because the seal that missed it takes the first ones away. The
/// second ones are later by their own `arrived_ms` and so other rows: taking away the first ones
/// never takes them, however the clocks of the cluster's nodes differ. Their windows are listed before
/// all of it, or nobody would look for them.
pub(super) async fn append(shared: &Arc<Shared>, rows: Rows) -> Result<(), StoreError> {
    let deadline = Instant::now() + limits::WRITE_DEADLINE;
    let ages = Ages::now(shared);
    if !rows.index.is_empty() {
        index(shared, rows.index, &ages, deadline).await?;
    }
    if rows.late.is_empty() {
        return write_head(shared, rows.head, &ages, deadline).await;
    }
    let listed_ms = late::list(shared, &rows.late, &ages, deadline).await?;
    late::write(shared, &rows.late, &ages, deadline).await?;
    if !rows.head.is_empty() {
        write_head(shared, rows.head, &ages, deadline).await?;
        let after = after(&rows.late, shared.clock.now_ms());
        late::write(shared, &after, &ages, deadline).await?;
    }
    late::keep_listed(shared, &rows.late, (listed_ms, &ages), deadline).await
}

async fn write_head(
    shared: &Arc<Shared>,
    rows: Vec<HeadRow>,
    ages: &Ages,
    deadline: Instant,
) -> Result<(), StoreError> {
    let mut stage = Stage::of_commit(shared, deadline);
    stage.write(&shared.statements.write_head, head(rows, ages)).await?;
    stage.finish().await
}

async fn index(
    shared: &Arc<Shared>,
    rows: Vec<IndexRow>,
    ages: &Ages,
    deadline: Instant,
) -> Result<(), StoreError> {
    let index = Index::of(rows, shared.index_shards, ages);
    let statements = &shared.statements;
    let mut stage = Stage::of_commit(shared, deadline);
    stage.write(&statements.write_metrics, index.metrics).await?;
    stage.write(&statements.write_row_keys, index.row_keys).await?;
    stage.write(&statements.write_metric_series, index.metric_series).await?;
    stage.write(&statements.write_postings, index.postings).await?;
    stage.finish().await?;
    let mut stage = Stage::of_commit(shared, deadline);
    stage.write(&statements.write_series, index.series).await?;
    stage.finish().await
}

/// The rows that say after the head was written what `rows` said before.
fn after(rows: &[LateRow], now_ms: i64) -> Vec<LateRow> {
    let later = |row: &LateRow| LateRow {
        arrived_ms: now_ms.max(row.arrived_ms.saturating_add(1)),
        ..*row
    };
    rows.iter().map(later).collect()
}

/// A late row is its key.
pub(super) fn late_key(row: &LateRow) -> LateKey {
    let (group, hash) = (row.group.0.cast_signed(), row.hash.cast_signed());
    let week = Week::of(row.window.start_ms()).0;
    (group, week, row.window.0, row.arrived_ms, hash)
}

/// What times to live are reckoned from.
#[expect(clippy::struct_field_names, reason = "the unit is part of a name")]
pub(super) struct Ages {
    now_ms: i64,
    retention_ms: i64,
    ledger_ms: i64,
    head_ms: i64,
    /// When the last row that the cluster takes may end, where it has such a bound.
    end_ms: i64,
}

impl Ages {
    pub(super) fn now(shared: &Shared) -> Ages {
        let Shared { retention_ms, ledger_ms, head_ms, end_ms, .. } = *shared;
        Ages { now_ms: shared.clock.now_ms(), retention_ms, ledger_ms, head_ms, end_ms }
    }

    /// The rest of a row's life in seconds when its newest sample may be of `last_ms` and is kept
    /// for `kept_ms`; `None` where it is over. Never 0, which CQL takes for "for ever".
    fn ttl(&self, last_ms: i64, kept_ms: i64, extra_days: i64) -> Option<i32> {
        let end_ms = last_ms.saturating_add(kept_ms).saturating_add(extra_days * DAY_MS);
        // Once the bound is here it is the cluster's to say so: nothing is left out because of it.
        let end_ms = if self.end_ms > self.now_ms { end_ms.min(self.end_ms) } else { end_ms };
        let seconds = end_ms.saturating_sub(self.now_ms) / 1000;
        // At most 20 years, which fits.
        i32::try_from(seconds.min(TTL_SECONDS_MAX)).ok().filter(|seconds| *seconds > 0)
    }

    /// Of a head row: until it is sealed and a good while more, but no longer than its samples are
    /// kept.
    fn ttl_of_hour(&self, hour: Hour) -> Option<i32> {
        let of_head = i32::try_from(self.head_ms / 1000).unwrap_or(i32::MAX);
        let of_samples = self.ttl(hour.end_ms(), self.retention_ms, HEAD_EXTRA_DAYS);
        of_samples.map(|of_samples| of_samples.min(of_head))
    }

    /// Of the list of what came late: a day beyond the head rows that it leads to.
    pub(super) fn ttl_of_listed(&self) -> i32 {
        let listed_ms = self.head_ms.saturating_add(LISTED_EXTRA_DAYS * DAY_MS);
        self.ttl(self.now_ms, listed_ms, 0).unwrap_or(i32::MAX)
    }

    /// Of an index row: a day beyond the last sample that its week can hold.
    fn ttl_of_week(&self, week: Week) -> Option<i32> {
        self.ttl(week.end_ms(), self.retention_ms, 1)
    }

    /// Of chunks, markers and late rows by their window's first hour: no less than its head rows'.
    pub(super) fn ttl_of_window(&self, window: Hour) -> Option<i32> {
        self.ttl(window.end_ms(), self.retention_ms, WINDOW_EXTRA_DAYS)
    }

    /// Of an hour of the ledger.
    pub(super) fn ttl_of_ledger(&self, hour: Hour) -> Option<i32> {
        self.ttl(hour.end_ms(), self.ledger_ms, LEDGER_EXTRA_DAYS)
    }

    /// Of a guest in a month's list: a day beyond the last hour that the month can hold.
    pub(super) fn ttl_of_guest(&self, month: Month) -> Option<i32> {
        self.ttl(month.end_ms(), self.ledger_ms, 1)
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
/// group, week, window, arrival, hash: the first two are the partition.
pub(super) type LateKey = (i64, i32, i32, i64, i64);

fn head(rows: Vec<HeadRow>, ages: &Ages) -> Vec<Vec<HeadValues>> {
    let values = rows.into_iter().filter_map(|row| {
        let ttl = ages.ttl_of_hour(row.hour)?;
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
            let of_group = group_shard(row.group, shards);
            row_keys.insert((week, of_group, row.row_key, group, ttl));
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

/// Which of `shards` holds a group: its row key, its late rows, and the lease to seal it.
pub(super) fn group_shard(group: Group, shards: u16) -> i16 {
    i16::try_from(group.0 % u64::from(shards.max(1))).unwrap_or(0)
}

/// Which of `shards` partitions holds a guest.
pub(super) fn guest_shard(text: &str, shards: u16) -> i16 {
    let shard = xxh3_64(text.as_bytes()) % u64::from(shards.max(1));
    i16::try_from(shard).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn rows_live_until_their_sample_is_old_enough() {
        let kept_ms = 400 * DAY_MS;
        let ages = Ages {
            now_ms: 1_700_000_000_000,
            retention_ms: kept_ms,
            ledger_ms: kept_ms,
            head_ms: 7 * DAY_MS,
            end_ms: i64::MAX,
        };
        let ttl = |last_ms| ages.ttl(last_ms, kept_ms, 1);
        assert_eq!(ttl(ages.now_ms), Some(i32::try_from(401 * DAY).unwrap()));
        let week_ago = ages.now_ms - 7 * DAY_MS;
        assert_eq!(ttl(week_ago), Some(i32::try_from(394 * DAY).unwrap()));
        // A time to live of 0 would be for ever.
        assert_eq!(ttl(ages.now_ms - 401 * DAY_MS), None);
        assert_eq!(ttl(i64::MIN), None);
        assert_eq!(ttl(i64::MAX), Some(i32::try_from(TTL_SECONDS_MAX).unwrap()));
        // No row may end later than the cluster counts.
        let bounded = Ages { end_ms: ages.now_ms + 100 * DAY_MS, ..ages };
        let ttl = |last_ms| bounded.ttl(last_ms, kept_ms, 1);
        assert_eq!(ttl(ages.now_ms), Some(i32::try_from(100 * DAY).unwrap()));
        let year_ago = ages.now_ms - 365 * DAY_MS;
        assert_eq!(ttl(year_ago), Some(i32::try_from(36 * DAY).unwrap()));
        let over = Ages { end_ms: ages.now_ms, ..ages };
        assert_eq!(over.ttl(ages.now_ms, kept_ms, 1), Some(i32::try_from(401 * DAY).unwrap()));
    }

    #[test]
    fn a_window_lives_no_less_than_its_head() {
        let (now_ms, retention_ms) = (1_700_000_000_000, 400 * DAY_MS);
        let (ledger_ms, head_ms) = (2 * retention_ms, 7 * DAY_MS);
        let ages = Ages { now_ms, retention_ms, ledger_ms, head_ms, end_ms: i64::MAX };
        let window = Hour::of(now_ms);
        let last = Hour(window.0 + 23);
        assert!(ages.ttl_of_window(window) >= ages.ttl_of_hour(last));
        assert_eq!(ages.ttl_of_hour(last), Some(i32::try_from(7 * DAY).unwrap()));
        assert!(ages.ttl_of_ledger(window) > ages.ttl_of_window(window));
        assert!(ages.ttl_of_guest(Month::of(now_ms)) >= ages.ttl_of_ledger(window));
    }

    #[test]
    fn late_rows_after_the_head_are_others_and_later() {
        let row = LateRow { group: Group(1), window: Hour(8), arrived_ms: 50, hash: 3 };
        assert_eq!(after(&[row], 70), [LateRow { arrived_ms: 70, ..row }]);
        for now_ms in [50, 20] {
            assert_eq!(after(&[row], now_ms), [LateRow { arrived_ms: 51, ..row }]);
        }
    }
}
