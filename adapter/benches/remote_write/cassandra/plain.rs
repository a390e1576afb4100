//! The writers that the adapter is compared with: a row a sample, by itself or with the others of its
//! guest's scrape in one batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Course;
use crate::cassandra_node::Node;
use crate::fleet::{self, Point};

/// Statements under way, as the adapter has batches.
const IN_FLIGHT: usize = 256;

/// Samples a second of a writer that puts so many rows of one partition into a statement.
pub(super) async fn written(
    node: &Node,
    course: &Course<'_>,
    rows: usize,
    samples_max: usize,
) -> Result<f64, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let session = SessionBuilder::new().known_node(&node.address).build().await;
    let session = Arc::new(session.map_err(|error| text(&error))?);
    let table = format!("plain.rows_{rows}");
    for cql in [
        "CREATE KEYSPACE IF NOT EXISTS plain WITH replication = \
         {'class': 'SimpleStrategy', 'replication_factor': 1}"
            .to_owned(),
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (guest bigint, hour int, ts bigint, series int, \
             value double, PRIMARY KEY ((guest, hour), ts, series))"
        ),
    ] {
        session.query_unpaged(cql, ()).await.map_err(|error| text(&error))?;
    }
    let insert =
        format!("INSERT INTO {table} (guest, hour, series, ts, value) VALUES (?, ?, ?, ?, ?)");
    let insert = session.prepare(insert).await.map_err(|error| text(&error))?;
    let statements = statements(course, rows, samples_max)?;
    let samples: usize = statements.iter().map(Vec::len).sum();
    let started = Instant::now();
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut writing = JoinSet::new();
    for rows in statements {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(|error| text(&error))?;
        while let Some(ended) = writing.try_join_next() {
            ended.map_err(|error| text(&error))??;
        }
        let (session, insert) = (Arc::clone(&session), insert.clone());
        writing.spawn(async move {
            let written = write(&session, &insert, &rows).await;
            drop(slot);
            written
        });
    }
    while let Some(ended) = writing.join_next().await {
        ended.map_err(|error| text(&error))??;
    }
    Ok(samples as f64 / started.elapsed().as_secs_f64())
}

type Values = (i64, i32, i32, i64, f64);

/// The rows of each statement: of one guest's scrape, whose samples come between those of other
/// guests.
fn statements(
    course: &Course<'_>,
    rows: usize,
    samples_max: usize,
) -> Result<Vec<Vec<Values>>, String> {
    let mut statements: Vec<Vec<Values>> = Vec::new();
    let mut of_guest: HashMap<usize, usize> = HashMap::new();
    let mut samples = 0;
    fleet::play(course.size, course.start_ms, |Point { guest, place, timestamp_ms, value }| {
        if samples == samples_max {
            return;
        }
        samples += 1;
        let hour = (timestamp_ms / 3_600_000) as i32;
        let row = (guest as i64, hour, place as i32, timestamp_ms, value);
        let open = of_guest.get(&guest).and_then(|open| statements.get_mut(*open));
        if let Some(open) = open.filter(|open| open.len() < rows && open[0].3 == timestamp_ms) {
            open.push(row);
        } else {
            of_guest.insert(guest, statements.len());
            statements.push(vec![row]);
        }
    });
    // All but those of the scrape that was cut off.
    let full = statements.iter().filter(|of| of.len() == rows).count();
    if full * 10 < statements.len() * 9 {
        return Err(format!("only {full} of {} statements have {rows} rows", statements.len()));
    }
    Ok(statements)
}

async fn write(
    session: &Session,
    insert: &PreparedStatement,
    rows: &[Values],
) -> Result<(), String> {
    let one = |error: scylla::errors::ExecutionError| error.to_string();
    if let [row] = rows {
        return session.execute_unpaged(insert, row).await.map(drop).map_err(one);
    }
    let statements = vec![BatchStatement::PreparedStatement(insert.clone()); rows.len()];
    let batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    session.batch(&batch, rows).await.map(drop).map_err(one)
}
