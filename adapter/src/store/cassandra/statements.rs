//! Every CQL statement that is run more than once, prepared when the store opens, with the
//! purpose that an error names. Knows the tables' columns, not what is in them.

use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency, Statement};

use crate::limits;

/// A prepared statement and what it is for.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// As in "writing samples".
    pub(super) purpose: &'static str,
    pub(super) statement: PreparedStatement,
}

/// A prepared SELECT of one partition.
#[derive(Clone, Debug)]
pub(super) struct Select {
    pub(super) table: &'static str,
    pub(super) prepared: Prepared,
}

/// The statements of a store. Every INSERT but the layout's ends in its time to live: without one
/// a row would live for the table's default, whatever the age of its sample.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) write_head: Prepared,
    pub(super) write_series: Prepared,
    pub(super) write_metric_series: Prepared,
    pub(super) write_postings: Prepared,
    pub(super) write_metrics: Prepared,
    pub(super) write_row_keys: Prepared,
    pub(super) add_layout: Prepared,
    pub(super) head: Select,
    pub(super) series: Select,
    pub(super) metric_series: Select,
    pub(super) postings: Select,
    pub(super) postings_below: Select,
    pub(super) metrics: Select,
    pub(super) row_keys: Select,
    pub(super) layouts: Select,
}

impl Statements {
    /// Prepares all of them for a (quoted) keyspace. An error is the driver's, in words.
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Statements, String> {
        let insert = async |purpose, table: &str, columns: &str| {
            let markers = vec!["?"; columns.split(',').count()].join(", ");
            let cql = format!(
                "INSERT INTO {keyspace}.{table} ({columns}) VALUES ({markers}) USING TTL ?"
            );
            write(session, purpose, cql).await
        };
        let select = async |table, rest: &str| select(session, keyspace, table, rest).await;
        let add_layout = format!(
            "INSERT INTO {keyspace}.layout (part, from_week, settings) VALUES (?, ?, ?) \
             IF NOT EXISTS"
        );
        Ok(Statements {
            write_head: insert(
                "writing samples",
                "head",
                "group_id, hour, first_ms, hash, samples",
            )
            .await?,
            write_series: insert("writing series", "series", "week, group_id, series, labels")
                .await?,
            write_metric_series: insert(
                "writing the index by metric",
                "metric_series",
                "week, metric, shard, series, group_id",
            )
            .await?,
            write_postings: insert(
                "writing the index by label",
                "postings",
                "week, metric, label, shard, value, series, group_id",
            )
            .await?,
            write_metrics: insert("writing metric names", "metrics", "week, metric").await?,
            write_row_keys: insert(
                "writing row keys",
                "row_keys",
                "week, shard, row_key, group_id",
            )
            .await?,
            add_layout: lightweight(session, add_layout).await?,
            head: select("head", "samples FROM ? WHERE group_id = ? AND hour = ?").await?,
            series: select("series", "series, labels FROM ? WHERE week = ? AND group_id = ?")
                .await?,
            metric_series: select(
                "metric_series",
                "group_id, series FROM ? WHERE week = ? AND metric = ? AND shard = ?",
            )
            .await?,
            postings: select(
                "postings",
                "group_id, series FROM ? \
                 WHERE week = ? AND metric = ? AND label = ? AND shard = ? AND value = ?",
            )
            .await?,
            postings_below: select(
                "postings",
                "value, group_id, series FROM ? WHERE week = ? AND metric = ? AND label = ? \
                 AND shard = ? AND value >= ? AND value < ?",
            )
            .await?,
            metrics: select("metrics", "metric FROM ? WHERE week = ?").await?,
            row_keys: select("row_keys", "row_key, group_id FROM ? WHERE week = ? AND shard = ?")
                .await?,
            layouts: select("layout", "from_week, settings FROM ? WHERE part = ?").await?,
        })
    }
}

async fn write(session: &Session, purpose: &'static str, cql: String) -> Result<Prepared, String> {
    let mut statement = prepare(session, cql).await?;
    // Upserts of equal rows: the driver may try another node at once.
    statement.set_is_idempotent(true);
    Ok(Prepared { purpose, statement })
}

async fn lightweight(session: &Session, cql: String) -> Result<Prepared, String> {
    let mut statement = prepare(session, cql).await?;
    statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
    Ok(Prepared { purpose: "writing the layout", statement })
}

async fn select(
    session: &Session,
    keyspace: &str,
    table: &'static str,
    rest: &str,
) -> Result<Select, String> {
    let cql = format!("SELECT {}", rest.replacen("FROM ?", &format!("FROM {keyspace}.{table}"), 1));
    let mut statement = prepare(session, cql).await?;
    statement.set_is_idempotent(true);
    let (purpose, page_rows) = match table {
        "head" => ("reading samples", limits::CASSANDRA_HEAD_PAGE_ROWS),
        "series" => ("reading series", limits::CASSANDRA_SERIES_PAGE_ROWS),
        "layout" => {
            // Sees what a half-finished INSERT IF NOT EXISTS of another process decided.
            statement.set_consistency(Consistency::LocalSerial);
            ("reading the layout", limits::CASSANDRA_INDEX_PAGE_ROWS)
        }
        _ => ("reading the index", limits::CASSANDRA_INDEX_PAGE_ROWS),
    };
    statement.set_page_size(page_rows);
    Ok(Select { table, prepared: Prepared { purpose, statement } })
}

async fn prepare(session: &Session, cql: String) -> Result<PreparedStatement, String> {
    let statement = Statement::new(cql.as_str());
    let prepared = session.prepare(statement).await;
    prepared.map_err(|error| format!("the cluster does not take {cql:?}: {error}"))
}
