//! The store in a Cassandra or ScyllaDB cluster: real columns, prepared statements, rows of one
//! partition in one batch, LOCAL_QUORUM both ways, expiry by time to live. `docs/storage.md` draws
//! the tables. This file and `cassandra/` are the only ones that know the driver; they do not
//! know what is in a payload.

mod attempt;
mod cluster;
mod index;
mod late;
mod leases;
mod minutes;
mod neighbours;
mod nodes;
mod read;
mod schema;
mod seal;
mod sealed;
mod stage;
mod statements;
mod transaction;
mod watch;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use scylla::client::session::Session;
use serve::clock::Clock;
use serve::tls_client::TlsClient;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::observed::ClusterMetrics;
use super::rows::{HeadKey, Kept, LayoutRow, Rows};
use super::{OpenError, StoreError};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::time::{DAY_MS, Hour, Week};
use cluster::Connected;
pub(crate) use neighbours::process_name;
use nodes::{Speculation, Suspects};
use read::partitions;
use statements::Statements;
use watch::Seen;

/// How to reach a cluster, and what to keep in it.
#[derive(Clone, Debug)]
pub struct CassandraSettings {
    /// Nodes to ask first, as HOST or HOST:PORT (9042 if missing).
    pub nodes: Vec<String>,
    /// The datacenter whose nodes are used; needed where there are several, and stays the only one that
    /// there was where more come later.
    pub datacenter: Option<String>,
    /// The keyspace, case as written.
    pub keyspace: String,
    /// Whether to create a missing keyspace and missing tables.
    pub create_schema: bool,
    /// Replication of a keyspace that is created, as CQL writes it; `None` for three copies in
    /// the local datacenter, or one where that has one node; no more than nodes with `All`.
    pub replication: Option<String>,
    /// User, and the file that holds the password.
    pub login: Option<(String, PathBuf)>,
    /// Partitions of one metric's index rows, of one postings list and of a week's row keys: part
    /// of the layout.
    pub index_shards: u16,
    /// How long samples are kept, reckoned from their own time.
    pub retention: Duration,
    /// How long rows of the ledger are kept, reckoned from their own time.
    pub ledger_retention: Duration,
    /// Whether nothing is kept: rows are only read, so that others may keep them for another time.
    pub reads_only: bool,
    /// How long rows of the head are kept after their arrival.
    pub head_ttl: Duration,
    /// How long a shard is a sealer's unless it says again that it is there; whole seconds.
    pub lease: Duration,
    /// TLS, where the cluster asks for it.
    pub tls: Option<TlsClient>,
    /// Whose answers a write and a read wait for.
    pub consistency: Agreement,
    /// How long one attempt of a statement may take.
    pub attempt: Duration,
    /// How long connecting at the start may take.
    pub connect: Duration,
    /// By how much the cluster's clocks may differ from ours before nothing is written any more.
    pub clock_difference_max: Duration,
    /// Where it counts.
    pub metrics: ClusterMetrics,
}

/// Whose answers a write and a read wait for. With each of them a read sees every acknowledged write,
/// on which bills rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Agreement {
    /// Most replicas of the datacenter: LOCAL_QUORUM.
    #[default]
    LocalQuorum,
    /// Most replicas of all datacenters: QUORUM.
    Quorum,
    /// All replicas: ALL for writes and reads.
    All,
}

impl CassandraSettings {
    /// A node on this machine, without login, schema as it is; the ledger is kept as long as the
    /// samples.
    pub fn new(keyspace: &str, retention: Duration) -> CassandraSettings {
        CassandraSettings {
            nodes: vec!["127.0.0.1:9042".to_owned()],
            datacenter: None,
            keyspace: keyspace.to_owned(),
            create_schema: false,
            replication: None,
            login: None,
            index_shards: 16,
            retention,
            ledger_retention: retention,
            reads_only: false,
            head_ttl: limits::CASSANDRA_HEAD_TTL,
            lease: limits::SEAL_LEASE,
            tls: None,
            consistency: Agreement::default(),
            attempt: limits::CASSANDRA_ATTEMPT,
            connect: limits::CASSANDRA_CONNECT,
            clock_difference_max: limits::CLUSTER_CLOCK_DIFFERENCE_MAX,
            metrics: ClusterMetrics::default(),
        }
    }
}

/// A store in a cluster. Keeps no state that matters: any number of processes may share a keyspace.
pub struct Cassandra {
    shared: Arc<Shared>,
}

/// What the tasks of reads and writes share.
struct Shared {
    session: Session,
    statements: Statements,
    clock: Clock,
    retention_ms: i64,
    ledger_ms: i64,
    head_ms: i64,
    reads_only: bool,
    /// When the last row that the cluster takes may end, unix milliseconds.
    end_ms: i64,
    index_shards: u16,
    /// As in the settings.
    keyspace: String,
    /// The cluster's own id of one of the tables.
    identity: String,
    agreement: Agreement,
    clock_difference_max: Duration,
    /// The datacenter whose nodes are used.
    datacenter: String,
    /// This process, among all that work on the keyspace.
    process: String,
    /// Slots for batches of commits.
    writes: Arc<Semaphore>,
    /// Slots for batches of seals.
    seals: Arc<Semaphore>,
    /// Slots for partitions being read.
    reads: Semaphore,
    /// When the last write failed, and how; none once one has succeeded.
    failed: Mutex<Option<(Instant, String)>>,
    /// How long a lease of a shard holds.
    lease: Duration,
    /// The last turn that we drew.
    turn: Mutex<Option<i64>>,
    /// As of the last look.
    seen: Mutex<Seen>,
    /// Held while this process says that it is there, or no longer.
    saying: tokio::sync::Mutex<()>,
    /// Nodes that do not answer, and are asked last.
    suspects: Suspects,
    /// Old late windows that were listed again.
    listed: Mutex<BTreeSet<(Group, Hour)>>,
    metrics: ClusterMetrics,
}

impl Shared {
    /// Refuses what would be written by a clock that is not the cluster's: times to live, what is late,
    /// and how far sealing is, which all adapters share; and what would be written beside others that
    /// need not see it.
    fn check_trouble(&self) -> Result<(), StoreError> {
        self.trouble().map_or(Ok(()), |trouble| Err(StoreError::Unavailable(trouble)))
    }

    fn trouble(&self) -> Option<String> {
        self.seen().trouble(&self.clock, self.clock_difference_max)
    }

    /// The datacenter whose replicas a write waits for; `None` where it is those of all.
    fn counted_datacenter(&self) -> Option<&str> {
        (self.agreement == Agreement::LocalQuorum).then_some(self.datacenter.as_str())
    }
}

/// The one partition of small tables.
const THE_PART: i32 = 0;

impl Cassandra {
    /// Checks what can be checked without a cluster, the files that are named among it. An error names
    /// the setting or the file.
    pub fn check(settings: &CassandraSettings) -> Result<(), OpenError> {
        kept(settings)?;
        cluster::check(settings)
    }

    /// Connects, and creates or checks the schema. An error names the node, keyspace, table or
    /// column and says what to do.
    pub async fn open(settings: CassandraSettings, clock: Clock) -> Result<Cassandra, OpenError> {
        let (retention_ms, ledger_ms) = kept(&settings)?;
        let Connected { session, datacenter, identity, end_ms, suspects } =
            Box::pin(cluster::open(&settings)).await?;
        warn_of_end(&settings, end_ms, &clock);
        let keyspace = schema::quoted(&settings.keyspace).map_err(OpenError)?;
        // The driver's futures are large, and whoever opens a store would carry them.
        let listener = Arc::new(Speculation(settings.metrics.clone()));
        let agreement = settings.consistency;
        let prepared = Box::pin(Statements::prepare(&session, &keyspace, agreement, listener));
        let statements = prepared.await.map_err(OpenError)?;
        let shared = Shared {
            session,
            statements,
            clock,
            retention_ms,
            ledger_ms,
            head_ms: i64::try_from(settings.head_ttl.as_millis()).unwrap_or(i64::MAX),
            reads_only: settings.reads_only,
            end_ms,
            index_shards: settings.index_shards,
            keyspace: settings.keyspace,
            identity,
            agreement: settings.consistency,
            clock_difference_max: settings.clock_difference_max,
            datacenter,
            process: process_name(),
            writes: Arc::new(Semaphore::new(limits::CASSANDRA_WRITES_IN_FLIGHT_MAX)),
            seals: Arc::new(Semaphore::new(limits::CASSANDRA_SEALS_IN_FLIGHT_MAX)),
            reads: Semaphore::new(limits::CASSANDRA_READS_IN_FLIGHT_MAX),
            failed: Mutex::new(None),
            lease: settings.lease,
            turn: Mutex::new(None),
            seen: Mutex::default(),
            saying: tokio::sync::Mutex::default(),
            suspects,
            listed: Mutex::default(),
            metrics: settings.metrics,
        };
        let shared = Arc::new(shared);
        neighbours::admit(&shared).await?;
        watch::look(&shared).await;
        // Ends with the store.
        drop(tokio::spawn(watch::regularly(Arc::downgrade(&shared))));
        Ok(Cassandra { shared })
    }

    /// See [`super::Store::identity`].
    pub fn identity(&self) -> &str {
        &self.shared.identity
    }

    /// See [`super::Store::append`]. Rows whose time is over already are not written.
    pub async fn append(&self, rows: Rows) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.shared.check_trouble()?;
        let written = write::append(&self.shared, rows).await;
        let failed = written.as_ref().err().map(|error| (Instant::now(), error.to_string()));
        *self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        written
    }

    /// See [`super::Store::head`].
    pub async fn head(
        &self,
        group: Group,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let shared = &self.shared;
        // Hours whose rows have all expired are not asked for.
        let live_ms = shared.clock.now_ms().saturating_sub(shared.retention_ms + 2 * DAY_MS);
        let from = hours.0.max(Hour::of(live_ms));
        let keys = (from.0..=hours.1.0).map(|hour| (group.0.cast_signed(), hour));
        let rows: Vec<(Bytes,)> =
            partitions(shared, &shared.statements.head, keys, rows_max).await?;
        Ok(rows.into_iter().map(|(samples,)| samples).collect())
    }

    /// See [`super::Store::head_page`].
    pub async fn head_page(
        &self,
        group: Group,
        hour: Hour,
        after: Option<HeadKey>,
    ) -> Result<Vec<(HeadKey, Bytes)>, StoreError> {
        let (shared, id) = (&self.shared, group.0.cast_signed());
        let (statements, limit) = (&shared.statements, limits::CASSANDRA_HEAD_PAGE_ROWS);
        let rows: Vec<(i64, i64, Bytes)> = match after {
            None => {
                let key = [(id, hour.0, limit)];
                partitions(shared, &statements.head_page, key, limits::QUERY_ROWS_MAX).await?
            }
            Some((first_ms, hash)) => {
                let key = [(id, hour.0, first_ms, hash.cast_signed(), limit)];
                partitions(shared, &statements.head_page_after, key, limits::QUERY_ROWS_MAX).await?
            }
        };
        let row = |(first_ms, hash, samples): (i64, i64, Bytes)| {
            ((first_ms, hash.cast_unsigned()), samples)
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// See [`super::Store::layouts`]. Read at LOCAL_SERIAL.
    pub async fn layouts(&self) -> Result<Vec<LayoutRow>, StoreError> {
        let select = &self.shared.statements.layouts;
        let rows: Vec<(i32, String)> =
            partitions(&self.shared, select, [(THE_PART,)], limits::QUERY_ROWS_MAX).await?;
        let rows = rows.into_iter();
        Ok(rows.map(|(from, settings)| LayoutRow { from: Week(from), settings }).collect())
    }

    /// See [`super::Store::add_layout`]. Where an attempt ended without an answer and a later one
    /// finds an equal layout, it counts as ours.
    pub async fn add_layout(&self, layout: LayoutRow) -> Result<bool, StoreError> {
        let values = (THE_PART, layout.from.0, layout.settings.as_str());
        let decided =
            transaction::decide(&self.shared, &self.shared.statements.add_layout, values).await?;
        let is_ours = decided.found_text("settings") == Some(&layout.settings);
        Ok(decided.is_made || decided.is_repeated && is_ours)
    }

    /// See [`super::Store::expire`]: rows have their time to live, so there is nothing to do.
    #[expect(clippy::unused_async, reason = "the stores have one contract")]
    pub async fn expire(&self, _: Kept) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// See [`super::Store::ready`]: whether enough replicas of all rows answered at the last look, the
    /// clocks agree, no other process counts other replicas or has other retentions, and the last write, if it was lately,
    /// succeeded.
    pub fn ready(&self) -> Result<(), String> {
        let shared = &self.shared;
        if shared.writes.is_closed() {
            return Err("the store is closed".to_owned());
        }
        if !cluster::is_connected(&shared.session, &shared.datacenter) {
            return Err("no Cassandra node is connected".to_owned());
        }
        if let Some(trouble) = shared.seen().no_quorum() {
            return Err(trouble.clone());
        }
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        match &*shared.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, error)) if at.elapsed() < limits::CASSANDRA_UNREADY => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// See [`super::Store::trouble`].
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// See [`super::Store::close`]: waits for running batches; later reads and writes fail.
    pub async fn close(&self) -> Result<(), StoreError> {
        let Shared { writes, seals, reads, .. } = &*self.shared;
        let all = |slots: usize| u32::try_from(slots).unwrap_or(u32::MAX);
        let drained = timeout(limits::WRITE_DEADLINE, async {
            let sealed = seals.acquire_many(all(limits::CASSANDRA_SEALS_IN_FLIGHT_MAX)).await;
            (sealed, writes.acquire_many(all(limits::CASSANDRA_WRITES_IN_FLIGHT_MAX)).await)
        })
        .await;
        seals.close();
        writes.close();
        reads.close();
        if drained.is_err() {
            return Err(attempt::unavailable("closing", "writes are still under way"));
        }
        if let Err(error) = neighbours::leave(&self.shared).await {
            tracing::warn!(%error, "others are not told that this process has stopped; they take it for one that runs for a while");
        }
        Ok(())
    }

    fn shards(&self) -> impl Iterator<Item = i16> + use<> {
        (0..self.shared.index_shards).map(u16::cast_signed)
    }
}

impl fmt::Debug for Cassandra {
    // The driver's session is pages long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = &self.shared.session;
        let state = session.get_cluster_state();
        f.debug_struct("Cassandra").field("cluster", &state.cluster_name()).finish_non_exhaustive()
    }
}

/// Both retentions in milliseconds, if the settings can be.
fn kept(settings: &CassandraSettings) -> Result<(i64, i64), OpenError> {
    let shards = settings.index_shards;
    if shards == 0 || shards > i16::MAX.unsigned_abs() {
        return Err(OpenError(format!("{shards} index shards; use 1 to {}", i16::MAX)));
    }
    let samples = kept_ms("--retention", settings.retention, schema::INDEX_EXTRA_DAYS)?;
    let ledger =
        kept_ms("--ledger.retention", settings.ledger_retention, schema::GUESTS_EXTRA_DAYS)?;
    Ok((samples, ledger))
}

/// Says where rows cannot be kept for as long as they should be.
fn warn_of_end(settings: &CassandraSettings, end_ms: i64, clock: &Clock) {
    let longest = settings.retention.max(settings.ledger_retention);
    let wanted_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
    if clock.now_ms().saturating_add(wanted_ms) > end_ms {
        tracing::warn!(
            "the cluster takes no row that would end after 2038-01-18: samples and bills that \
             --retention and --ledger.retention would keep for longer end then; set \
             storage_compatibility_mode: NONE in every node's cassandra.yaml, as Cassandra's manual \
             says, and start the adapters again: rows from then on are kept in full"
        );
    }
}

/// A retention in milliseconds, if rows that live for so many days more can be.
fn kept_ms(flag: &str, retention: Duration, extra_days: i64) -> Result<i64, OpenError> {
    let days_max = schema::TTL_SECONDS_MAX / 86_400 - extra_days;
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    if retention_ms > days_max * DAY_MS {
        return Err(OpenError(format!(
            "{flag} is longer than rows can live in Cassandra; use at most {days_max}d"
        )));
    }
    Ok(retention_ms)
}
