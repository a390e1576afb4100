//! Reads: the pages of a few or many partitions, drained into memory, bounded in rows, requests
//! and time. A read is whole or an error. Knows no table.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use scylla::deserialize::row::DeserializeRow;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shared;
use super::attempt::{unavailable, until};
use super::statements::Select;
use crate::limits;
use crate::store::StoreError;

/// A row that owns what it was read from.
pub(super) trait Row: for<'f> DeserializeRow<'f, 'f> + Send + 'static {}

impl<T: for<'f> DeserializeRow<'f, 'f> + Send + 'static> Row for T {}

/// One read of one table.
struct Query {
    shared: Arc<Shared>,
    select: Select,
    rows_max: usize,
    /// Rows of all partitions so far.
    rows: AtomicUsize,
    /// Bytes of all their pages so far.
    bytes: AtomicUsize,
    deadline: Instant,
}

/// All rows of the partitions with these keys: in no order, but for rows of one partition, which
/// keep theirs. Fails with `TooManyRows` once there are more than `rows_max`.
pub(super) async fn partitions<R: Row, K: SerializeRow + Send + Sync + 'static>(
    shared: &Arc<Shared>,
    select: &Select,
    keys: impl IntoIterator<Item = K>,
    rows_max: usize,
) -> Result<Vec<R>, StoreError> {
    let query = Arc::new(Query {
        shared: Arc::clone(shared),
        select: select.clone(),
        rows_max,
        rows: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        deadline: Instant::now() + limits::READ_DEADLINE,
    });
    let mut rows = Vec::new();
    // A failure drops the set, which ends its tasks.
    let mut reading = JoinSet::new();
    for key in keys {
        if reading.len() == limits::CLUSTER_READS_AT_ONCE
            && let Some(read) = reading.join_next().await
        {
            rows.append(&mut joined(read)?);
        }
        let query = Arc::clone(&query);
        reading.spawn(async move { query.partition::<R, K>(&key).await });
    }
    while let Some(read) = reading.join_next().await {
        rows.append(&mut joined(read)?);
    }
    Ok(rows)
}

fn joined<T>(
    result: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    result.map_err(|error| unavailable("reading", &error.to_string()))?
}

impl Query {
    async fn partition<R: Row, K: SerializeRow>(&self, key: &K) -> Result<Vec<R>, StoreError> {
        let prepared = &self.select.prepared;
        let session = &self.shared.session;
        let slot = tokio::time::timeout_at(self.deadline, self.shared.reads.acquire()).await;
        let _slot = match slot {
            Ok(Ok(slot)) => slot,
            Ok(Err(_)) => return Err(unavailable(prepared.purpose, "the store is closed")),
            Err(_) => return Err(unavailable(prepared.purpose, "too many reads are under way")),
        };
        let mut rows = Vec::new();
        let mut page = PagingState::start();
        loop {
            let (result, next) =
                until((prepared.purpose, &self.shared.metrics), self.deadline, || {
                    session.execute_single_page(&prepared.statement, key, page.clone())
                })
                .await?;
            let result = result.into_rows_result().map_err(|error| self.damaged(&error))?;
            for row in result.rows::<R>().map_err(|error| self.damaged(&error))? {
                rows.push(row.map_err(|error| self.damaged(&error))?);
            }
            let read = result.rows_num();
            if self.rows.fetch_add(read, Ordering::Relaxed) + read > self.rows_max {
                let (table, rows_max) = (self.select.table, self.rows_max);
                return Err(StoreError::TooManyRows { table, rows_max });
            }
            let page_bytes = result.rows_bytes_size();
            let bytes = self.bytes.fetch_add(page_bytes, Ordering::Relaxed) + page_bytes;
            if bytes > limits::CASSANDRA_READ_BYTES_MAX {
                let bytes_max = limits::CASSANDRA_READ_BYTES_MAX;
                return Err(StoreError::TooManyBytes { table: self.select.table, bytes_max });
            }
            match next {
                PagingStateResponse::HasMorePages { state } => page = state,
                PagingStateResponse::NoMorePages => return Ok(rows),
            }
        }
    }

    fn damaged(&self, error: &dyn std::error::Error) -> StoreError {
        StoreError::Damaged(format!("a row of {} cannot be read: {error}", self.select.table))
    }
}
