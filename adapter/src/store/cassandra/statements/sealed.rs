//! The statements of what the sealer leaves: chunks, markers, late rows, the ledger's tables, and
//! how far sealing has come.

use super::{Prepared, Select, Tables};
use crate::store::StoreError;
use crate::store::cassandra::schema::FAMILIES;

/// The statements of the sealer's tables.
#[derive(Debug)]
pub(in crate::store::cassandra) struct SealedStatements {
    pub(in crate::store::cassandra) write_chunks: Prepared,
    pub(in crate::store::cassandra) write_markers: Prepared,
    pub(in crate::store::cassandra) write_late: Prepared,
    pub(in crate::store::cassandra) write_late_windows: Prepared,
    pub(in crate::store::cassandra) delete_late: Prepared,
    pub(in crate::store::cassandra) write_guests: Prepared,
    pub(in crate::store::cassandra) first_sealing: Prepared,
    pub(in crate::store::cassandra) next_sealing: Prepared,
    pub(in crate::store::cassandra) chunks: Select,
    pub(in crate::store::cassandra) markers: Select,
    pub(in crate::store::cassandra) late: Select,
    /// Of a group, behind a row and up to a window.
    pub(in crate::store::cassandra) late_after: Select,
    /// Listed at an hour of arrival, from a group and window on.
    pub(in crate::store::cassandra) late_windows: Select,
    pub(in crate::store::cassandra) guests: Select,
    pub(in crate::store::cassandra) sealing: Select,
    pub(in crate::store::cassandra) write_ledger: Prepared,
    pub(in crate::store::cassandra) ledger: Select,
    /// That write the minutes of each column family.
    write_minutes: Vec<(&'static str, Prepared)>,
}

impl SealedStatements {
    pub(super) async fn prepare(tables: &Tables<'_>) -> Result<SealedStatements, String> {
        let keyspace = tables.keyspace;
        let (late, of_late) = ("group_id, window, arrived_ms, hash", "group_id = ? AND week = ?");
        Ok(SealedStatements {
            write_chunks: tables.insert("writing chunks", "chunks").await?,
            write_markers: tables.insert("writing markers", "markers").await?,
            write_late: tables.insert("writing late rows", "late").await?,
            write_late_windows: tables.insert("listing late windows", "late_windows").await?,
            delete_late: tables
                .write(
                    "taking away late rows",
                    format!(
                        "DELETE FROM {keyspace}.late WHERE {of_late} AND window = ? \
                         AND arrived_ms = ? AND hash = ?"
                    ),
                )
                .await?,
            write_guests: tables.insert("writing the ledger's guests", "guests").await?,
            first_sealing: tables.first_sealing().await?,
            next_sealing: tables.next_sealing().await?,
            chunks: tables
                .select(
                    "chunks",
                    "series, window, samples",
                    "group_id = ? AND week = ? AND series IN ? AND window >= ? AND window <= ?",
                )
                .await?,
            markers: tables
                .select(
                    "markers",
                    "sealed_window",
                    "group_id = ? AND month = ? AND sealed_window >= ? AND sealed_window <= ?",
                )
                .await?,
            late: tables
                .select("late", late, &format!("{of_late} AND window >= ? AND window <= ?"))
                .await?,
            late_after: tables
                .select(
                    "late",
                    late,
                    &format!(
                        "{of_late} AND (window, arrived_ms, hash) > (?, ?, ?) \
                         AND (window, arrived_ms, hash) <= (?, ?, ?) LIMIT ?"
                    ),
                )
                .await?,
            late_windows: tables
                .select(
                    "late_windows",
                    "hour, group_id, window",
                    "shard = ? AND hour = ? AND (group_id, window) >= (?, ?) LIMIT ?",
                )
                .await?,
            guests: tables
                .select("guests", "guest", "family = ? AND month = ? AND shard = ?")
                .await?,
            sealing: tables.select("sealing", "shard, sealed_until", "part = ?").await?,
            write_ledger: tables.insert_in_turn("writing the ledger", "ledger").await?,
            ledger: tables
                .select(
                    "ledger",
                    "hour, minutes",
                    "family = ? AND guest = ? AND week = ? AND hour >= ? AND hour <= ?",
                )
                .await?,
            write_minutes: tables.write_minutes().await?,
        })
    }

    /// That writes the minutes of a column family. The ledger has no others than these.
    pub(in crate::store::cassandra) fn write_minutes(
        &self,
        family: &str,
    ) -> Result<&Prepared, StoreError> {
        let found = self.write_minutes.iter().find(|(name, _)| *name == family);
        let found = found.map(|(_, write)| write);
        found.ok_or_else(|| StoreError::Damaged(format!("there is no column family {family}")))
    }
}

impl Tables<'_> {
    async fn write_minutes(&self) -> Result<Vec<(&'static str, Prepared)>, String> {
        let mut families = Vec::with_capacity(FAMILIES.len());
        for family in FAMILIES {
            let write = self.insert_in_turn("writing the column families", family).await?;
            families.push((family, write));
        }
        Ok(families)
    }

    async fn first_sealing(&self) -> Result<Prepared, String> {
        let cql = format!(
            "INSERT INTO {}.sealing (part, shard, sealed_until) VALUES (?, ?, ?) IF NOT EXISTS",
            self.keyspace
        );
        self.decide("writing where sealing begins", cql).await
    }

    async fn next_sealing(&self) -> Result<Prepared, String> {
        let cql = format!(
            "UPDATE {}.sealing SET sealed_until = ? WHERE part = ? AND shard = ? \
             IF sealed_until < ?",
            self.keyspace
        );
        self.decide("writing how far sealing has come", cql).await
    }
}
