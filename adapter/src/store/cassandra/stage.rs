//! Rows gathered by partition into bounded batches, and batches written side by side with bounded
//! concurrency, each until a deadline. Knows no table and no payload.

use std::sync::Arc;
use std::time::Duration;

use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::attempt::{unavailable, until};
use super::statements::Prepared;
use crate::limits;
use crate::store::StoreError;

/// Bytes that the fixed columns and the frame add to each row, about.
const ROW_BYTES: usize = 64;

/// Gathers rows by partition, and divides what is too large for one batch.
pub(super) fn batches<V: Ord>(
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

/// Until when batches are tried.
#[derive(Clone, Copy, Debug)]
enum Deadline {
    /// Of all of them.
    Of(Instant),
    /// Of each, from when it is its turn.
    OfEach(Duration),
}

impl Deadline {
    fn of_next(self) -> Instant {
        match self {
            Deadline::Of(deadline) => deadline,
            Deadline::OfEach(time) => Instant::now() + time,
        }
    }
}

/// Batches that may be written side by side. Dropped before [`Stage::finish`], it ends them.
pub(super) struct Stage<'a> {
    shared: &'a Arc<Shared>,
    slots: &'a Arc<Semaphore>,
    deadline: Deadline,
    writing: JoinSet<Result<(), StoreError>>,
}

impl<'a> Stage<'a> {
    /// A stage of a commit, whose sender waits until `deadline`.
    pub(super) fn of_commit(shared: &'a Arc<Shared>, deadline: Instant) -> Stage<'a> {
        let (slots, deadline) = (&shared.writes, Deadline::Of(deadline));
        Stage { shared, slots, deadline, writing: JoinSet::new() }
    }

    /// A stage of a seal, which nobody waits for: it may be of any size, and has slots of its own,
    /// so that commits do not wait behind it.
    pub(super) fn of_seal(shared: &'a Arc<Shared>) -> Stage<'a> {
        let (slots, deadline) = (&shared.seals, Deadline::OfEach(limits::WRITE_DEADLINE));
        Stage { shared, slots, deadline, writing: JoinSet::new() }
    }

    /// Starts the writes as slots come free.
    pub(super) async fn write<V: SerializeRow + Send + Sync + 'static>(
        &mut self,
        prepared: &Prepared,
        batches: Vec<Vec<V>>,
    ) -> Result<(), StoreError> {
        for rows in batches {
            let slot = Arc::clone(self.slots).acquire_owned();
            let slot = match timeout_at(self.deadline.of_next(), slot).await {
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
            let deadline = self.deadline.of_next();
            self.writing.spawn(async move {
                let written = batch(&shared, &prepared, &rows, deadline).await;
                drop(slot);
                written
            });
        }
        Ok(())
    }

    /// Waits for all of them.
    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
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
        return until((prepared.purpose, &shared.metrics), deadline, || {
            session.execute_unpaged(statement, row)
        })
        .await
        .map(drop);
    }
    let statements = vec![BatchStatement::PreparedStatement(statement.clone()); rows.len()];
    let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    batch.set_is_idempotent(true);
    batch.set_history_listener(Arc::clone(&shared.statements.listener));
    until((prepared.purpose, &shared.metrics), deadline, || session.batch(&batch, rows))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

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
