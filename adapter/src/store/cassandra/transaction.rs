//! Lightweight transactions: what the cluster decided, and what it found where it decided against
//! us. Knows no table.

use std::sync::atomic::{AtomicUsize, Ordering};

use scylla::serialize::row::SerializeRow;
use scylla::value::{CqlValue, Row};
use tokio::time::Instant;

use super::Shared;
use super::attempt::until;
use super::statements::Prepared;
use crate::limits;
use crate::store::StoreError;

/// A decision.
#[derive(Debug)]
pub(super) struct Decided {
    /// Whether the change was made.
    pub(super) is_made: bool,
    /// Whether an attempt before ended without an answer: it may have been made then, and be denied
    /// now. What was found tells.
    pub(super) is_repeated: bool,
    found: Vec<(String, Option<CqlValue>)>,
}

impl Decided {
    /// What a column held, where the change was not made.
    pub(super) fn found(&self, column: &str) -> Option<&CqlValue> {
        let mut found = self.found.iter().filter(|(name, _)| name == column);
        found.next().and_then(|(_, value)| value.as_ref())
    }

    /// The same of a text.
    pub(super) fn found_text(&self, column: &str) -> Option<&str> {
        self.found(column).and_then(CqlValue::as_text).map(String::as_str)
    }
}

/// Asks for a change until the cluster has decided, or for as long as a write may take.
pub(super) async fn decide(
    shared: &Shared,
    prepared: &Prepared,
    values: impl SerializeRow,
) -> Result<Decided, StoreError> {
    let deadline = Instant::now() + limits::WRITE_DEADLINE;
    let attempts = AtomicUsize::new(0);
    let answer = until((prepared.purpose, &shared.metrics), deadline, || {
        attempts.fetch_add(1, Ordering::Relaxed);
        shared.session.execute_unpaged(&prepared.statement, &values)
    })
    .await?;
    let damaged = |error: &dyn std::error::Error| {
        StoreError::Damaged(format!("the answer to {} cannot be read: {error}", prepared.purpose))
    };
    let rows = answer.into_rows_result().map_err(|error| damaged(&error))?;
    let names: Vec<String> =
        rows.column_specs().iter().map(|spec| spec.name().to_owned()).collect();
    let row: Row = rows.first_row().map_err(|error| damaged(&error))?;
    // Both servers say first whether it was applied, and then what is there, in their own way.
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(is_made))) => {
            let (is_made, is_repeated) = (*is_made, attempts.load(Ordering::Relaxed) > 1);
            let found = names.into_iter().zip(row.columns).skip(1).collect();
            Ok(Decided { is_made, is_repeated, found })
        }
        other => Err(StoreError::Damaged(format!("{} was answered {other:?}", prepared.purpose))),
    }
}
