//! Every CQL statement that is run more than once, prepared when the store opens, with the
//! purpose that an error names. Knows the tables' columns, not what is in them.

mod leases;
mod sealed;

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::observability::history::HistoryListener;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, Statement};

use super::{Agreement, schema};
use crate::limits;
pub(super) use leases::LeaseStatements;
pub(super) use sealed::SealedStatements;

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

/// The statements of a store. Every INSERT but those of tables that are kept for ever ends in its
/// time to live: without one a row would live for the table's default, whatever the age of its
/// sample.
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
    pub(super) head_page: Select,
    pub(super) head_page_after: Select,
    pub(super) series: Select,
    pub(super) series_page: Select,
    pub(super) series_page_after: Select,
    pub(super) metric_series: Select,
    pub(super) postings: Select,
    pub(super) postings_below: Select,
    pub(super) metrics: Select,
    pub(super) row_keys: Select,
    pub(super) row_key_page: Select,
    pub(super) row_key_page_after: Select,
    /// The week itself, if it has a metric.
    pub(super) week_in_use: Select,
    pub(super) layouts: Select,
    pub(super) sealed: SealedStatements,
    pub(super) leases: LeaseStatements,
    /// Is told of every request; batches have to be told of it.
    pub(super) listener: Arc<dyn HistoryListener>,
}

impl Statements {
    /// Prepares all of them for a (quoted) keyspace. An error is the driver's, in words.
    pub(super) async fn prepare(
        session: &Session,
        keyspace: &str,
        agreement: Agreement,
        listener: Arc<dyn HistoryListener>,
    ) -> Result<Statements, String> {
        let tables = Tables { session, keyspace, agreement, listener: &listener };
        let (row_key, head_row) = ("row_key, group_id", "first_ms, hash, samples");
        let (of_series, of_group) = ("series, labels", "week = ? AND group_id = ?");
        Ok(Statements {
            write_head: tables.insert("writing samples", "head").await?,
            write_series: tables.insert("writing series", "series").await?,
            write_metric_series: tables
                .insert("writing the index by metric", "metric_series")
                .await?,
            write_postings: tables.insert("writing the index by label", "postings").await?,
            write_metrics: tables.insert("writing metric names", "metrics").await?,
            write_row_keys: tables.insert("writing row keys", "row_keys").await?,
            add_layout: tables.add_layout().await?,
            head: tables.select("head", "samples", "group_id = ? AND hour = ?").await?,
            head_page: tables.select("head", head_row, "group_id = ? AND hour = ? LIMIT ?").await?,
            head_page_after: tables
                .select(
                    "head",
                    head_row,
                    "group_id = ? AND hour = ? AND (first_ms, hash) > (?, ?) LIMIT ?",
                )
                .await?,
            series: tables.select("series", of_series, of_group).await?,
            series_page: tables.select("series", of_series, &format!("{of_group} LIMIT ?")).await?,
            series_page_after: tables
                .select("series", of_series, &format!("{of_group} AND series > ? LIMIT ?"))
                .await?,
            metric_series: tables
                .select(
                    "metric_series",
                    "group_id, series",
                    "week = ? AND metric = ? AND shard = ?",
                )
                .await?,
            postings: tables
                .select(
                    "postings",
                    "group_id, series",
                    "week = ? AND metric = ? AND label = ? AND shard = ? AND value = ?",
                )
                .await?,
            postings_below: tables
                .select(
                    "postings",
                    "value, group_id, series",
                    "week = ? AND metric = ? AND label = ? AND shard = ? \
                     AND value >= ? AND value < ?",
                )
                .await?,
            metrics: tables.select("metrics", "metric", "week = ?").await?,
            week_in_use: tables.select("metrics", "week", "week = ? LIMIT 1").await?,
            row_keys: tables.select("row_keys", row_key, "week = ? AND shard = ?").await?,
            row_key_page: tables
                .select("row_keys", row_key, "week = ? AND shard = ? LIMIT ?")
                .await?,
            row_key_page_after: tables
                .select(
                    "row_keys",
                    row_key,
                    "week = ? AND shard = ? AND (row_key, group_id) > (?, ?) LIMIT ?",
                )
                .await?,
            layouts: tables.select("layout", "from_week, settings", "part = ?").await?,
            sealed: SealedStatements::prepare(&tables).await?,
            leases: LeaseStatements::prepare(&tables).await?,
            listener: Arc::clone(&listener),
        })
    }
}

/// The tables of a (quoted) keyspace.
struct Tables<'a> {
    session: &'a Session,
    keyspace: &'a str,
    agreement: Agreement,
    listener: &'a Arc<dyn HistoryListener>,
}

impl Tables<'_> {
    /// An INSERT of all columns of a table that ends in its time to live.
    async fn insert(&self, purpose: &'static str, table: &str) -> Result<Prepared, String> {
        let keyspace = self.keyspace;
        let columns = schema::columns(table);
        let (names, markers) = (columns.join(", "), vec!["?"; columns.len()].join(", "));
        let cql =
            format!("INSERT INTO {keyspace}.{table} ({names}) VALUES ({markers}) USING TTL ?");
        self.write(purpose, cql).await
    }

    /// A statement that may be repeated: an upsert of equal rows, or a deletion.
    async fn write(&self, purpose: &'static str, cql: String) -> Result<Prepared, String> {
        let mut statement = self.prepare(cql).await?;
        // The driver may try another node at once.
        statement.set_is_idempotent(true);
        Ok(Prepared { purpose, statement })
    }

    async fn add_layout(&self) -> Result<Prepared, String> {
        let keyspace = self.keyspace;
        let cql = format!(
            "INSERT INTO {keyspace}.layout (part, from_week, settings) VALUES (?, ?, ?) \
             IF NOT EXISTS"
        );
        self.decide("writing the layout", cql).await
    }

    /// An INSERT as [`Tables::insert`], whose place in the order of writes comes last.
    async fn insert_in_turn(&self, purpose: &'static str, table: &str) -> Result<Prepared, String> {
        let keyspace = self.keyspace;
        let columns = schema::columns(table);
        let (names, markers) = (columns.join(", "), vec!["?"; columns.len()].join(", "));
        let cql = format!(
            "INSERT INTO {keyspace}.{table} ({names}) VALUES ({markers}) \
             USING TTL ? AND TIMESTAMP ?"
        );
        self.write(purpose, cql).await
    }

    /// A lightweight transaction.
    async fn decide(&self, purpose: &'static str, cql: String) -> Result<Prepared, String> {
        // The session's serial consistency is that of its agreement.
        let statement = self.prepare(cql).await?;
        Ok(Prepared { purpose, statement })
    }

    async fn prepare(&self, cql: String) -> Result<PreparedStatement, String> {
        debug_assert!(!mixes_relations(&cql), "ScyllaDB does not take {cql}");
        let prepared = self.session.prepare(Statement::new(cql.as_str())).await;
        let mut prepared =
            prepared.map_err(|error| format!("the cluster does not take {cql:?}: {error}"))?;
        prepared.set_history_listener(Arc::clone(self.listener));
        Ok(prepared)
    }

    /// A SELECT of one partition.
    async fn select(
        &self,
        table: &'static str,
        columns: &str,
        rows: &str,
    ) -> Result<Select, String> {
        let cql = format!("SELECT {columns} FROM {}.{table} WHERE {rows}", self.keyspace);
        let mut statement = self.prepare(cql).await?;
        let is_serial = matches!(table, "layout" | "turns" | "leases");
        // A serial read may finish the transaction of another process: two of them at once would
        // only be in each other's way.
        statement.set_is_idempotent(!is_serial);
        if is_serial {
            // Sees what a half-finished transaction of another process decided.
            statement.set_consistency(match self.agreement {
                Agreement::LocalQuorum => Consistency::LocalSerial,
                Agreement::Quorum | Agreement::All => Consistency::Serial,
            });
        }
        let (purpose, page_rows) = reading(table);
        statement.set_page_size(page_rows);
        Ok(Select { table, prepared: Prepared { purpose, statement } })
    }
}

/// Whether a statement compares several columns together, by more or less, and another by itself, which
/// Cassandra takes and ScyllaDB does not.
fn mixes_relations(cql: &str) -> bool {
    let relations = cql.split_once(" WHERE ").map_or("", |(_, relations)| relations).split(" AND ");
    let compared = relations.filter(|relation| relation.contains(['<', '>']));
    let (several, single): (Vec<_>, Vec<_>) = compared.partition(|one| one.starts_with('('));
    !several.is_empty() && !single.is_empty()
}

/// What a read of a table is for, and how many of its rows are asked for at once.
fn reading(table: &str) -> (&'static str, i32) {
    match table {
        "head" => ("reading samples", limits::CASSANDRA_HEAD_PAGE_ROWS),
        "chunks" => ("reading chunks", limits::CASSANDRA_CHUNK_PAGE_ROWS),
        "ledger" => ("reading the ledger", limits::CASSANDRA_LEDGER_PAGE_ROWS),
        "series" => ("reading series", limits::CASSANDRA_SERIES_PAGE_ROWS),
        "layout" => ("reading the layout", limits::CASSANDRA_INDEX_PAGE_ROWS),
        "metric_series" | "postings" | "metrics" | "row_keys" => {
            ("reading the index", limits::CASSANDRA_INDEX_PAGE_ROWS)
        }
        "leases" | "sealers" | "turns" => ("reading who seals", limits::CASSANDRA_INDEX_PAGE_ROWS),
        "markers" | "late" | "late_windows" | "sealing" => {
            ("reading what is sealed", limits::CASSANDRA_INDEX_PAGE_ROWS)
        }
        _ => ("reading the ledger's guests", limits::CASSANDRA_INDEX_PAGE_ROWS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_scylladb_does_not_take_are_known() {
        let mixes =
            |relations: &str| mixes_relations(&format!("SELECT a FROM b WHERE {relations}"));
        assert!(mixes("k = ? AND (a, b) > (?, ?) AND a <= ? LIMIT ?"));
        assert!(!mixes("k = ? AND (a, b) > (?, ?) AND (a, b) <= (?, ?) LIMIT ?"));
        assert!(!mixes("k = ? AND a >= ? AND a <= ?"));
    }
}
