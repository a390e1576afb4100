//! The statements by which sealers share the work: who holds which shard, who is there, and whose
//! turn it is.

use super::{Prepared, Select, Tables};

/// The statements of leases, sealers and turns.
#[derive(Debug)]
pub(in crate::store::cassandra) struct LeaseStatements {
    /// Only where nobody holds the shard.
    pub(in crate::store::cassandra) take: Prepared,
    /// Only where this sealer holds it.
    pub(in crate::store::cassandra) keep: Prepared,
    pub(in crate::store::cassandra) give_back: Prepared,
    pub(in crate::store::cassandra) announce: Prepared,
    pub(in crate::store::cassandra) sealers: Select,
    pub(in crate::store::cassandra) be_there: Prepared,
    pub(in crate::store::cassandra) processes: Select,
    /// Only where there is none.
    pub(in crate::store::cassandra) first_turn: Prepared,
    /// Only where nobody drew one since.
    pub(in crate::store::cassandra) next_turn: Prepared,
    pub(in crate::store::cassandra) turn: Select,
    /// The clock of the node that answers.
    pub(in crate::store::cassandra) clock: Prepared,
}

impl LeaseStatements {
    pub(super) async fn prepare(tables: &Tables<'_>) -> Result<LeaseStatements, String> {
        let keyspace = tables.keyspace;
        let cql = |statement: &str| statement.replace("KEYSPACE", keyspace);
        Ok(LeaseStatements {
            take: tables
                .decide(
                    "taking a shard to seal",
                    cql("INSERT INTO KEYSPACE.leases (shard, sealer) VALUES (?, ?) \
                         IF NOT EXISTS USING TTL ?"),
                )
                .await?,
            keep: tables
                .decide(
                    "keeping a shard to seal",
                    cql("UPDATE KEYSPACE.leases USING TTL ? SET sealer = ? WHERE shard = ? \
                         IF sealer = ?"),
                )
                .await?,
            give_back: tables
                .decide(
                    "giving a shard back",
                    cql("DELETE FROM KEYSPACE.leases WHERE shard = ? IF sealer = ?"),
                )
                .await?,
            announce: tables
                .write(
                    "announcing a sealer",
                    cql("INSERT INTO KEYSPACE.sealers (part, sealer) VALUES (?, ?) USING TTL ?"),
                )
                .await?,
            sealers: tables.select("sealers", "sealer", "part = ?").await?,
            be_there: tables.insert("saying that this process is here", "sealers").await?,
            processes: tables
                .select("sealers", "sealer, datacenter, retention, ledger_retention", "part = ?")
                .await?,
            first_turn: tables
                .decide(
                    "drawing the first turn",
                    cql("INSERT INTO KEYSPACE.turns (part, turn) VALUES (?, ?) IF NOT EXISTS"),
                )
                .await?,
            next_turn: tables
                .decide(
                    "drawing a turn",
                    cql("UPDATE KEYSPACE.turns SET turn = ? WHERE part = ? IF turn = ?"),
                )
                .await?,
            turn: tables.select("turns", "turn", "part = ?").await?,
            clock: tables
                .write(
                    "reading the cluster's clock",
                    "SELECT toTimestamp(now()) FROM system.local WHERE key = 'local'".to_owned(),
                )
                .await?,
        })
    }
}
