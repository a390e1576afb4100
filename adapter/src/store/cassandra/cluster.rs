//! From settings to a session with a cluster that can keep what it is given: connection, login,
//! datacenter, schema, replication. Every error names the node or keyspace and what to do.
//! Knows no rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::{Session, TlsContext};
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::host_filter::DcHostFilter;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::{Consistency, SerialConsistency, Statement};
use scylla::value::CqlValue;
use serve::tls_client::TlsClient;
use tokio::time::{Instant, timeout};

use super::attempt::until;
use super::nodes::{Suspects, Watched};
use super::schema::{self, FAMILIES, Found, Kept, LEDGER, TABLES};
use super::{Agreement, CassandraSettings};
use crate::limits;
use crate::store::{OpenError, StoreError};

/// Copies of each row in a keyspace that we create, where the datacenter has more than one node.
const REPLICATION_FACTOR: usize = 3;

/// The second before which rows must end in a cluster that counts them by 32 bits, less a day for clocks.
const END_OF_32_BITS_MS: i64 = (i32::MAX as i64 - 86_400) * 1000;

/// A cluster that is ready for use.
pub(super) struct Connected {
    pub(super) session: Session,
    /// Whose nodes are used.
    pub(super) datacenter: String,
    /// The id of the table of samples, which no other keyspace's has.
    pub(super) identity: String,
    /// When the last row that it takes may end, unix milliseconds.
    pub(super) end_ms: i64,
    /// Nodes that do not answer.
    pub(super) suspects: Suspects,
}

/// Reads the files that the settings name.
pub(super) fn check(settings: &CassandraSettings) -> Result<(), OpenError> {
    schema::quoted(&settings.keyspace).map_err(OpenError)?;
    password(settings)?;
    tls(settings).map(drop)
}

/// Connects to the cluster, and creates or checks the schema.
pub(super) async fn open(settings: &CassandraSettings) -> Result<Connected, OpenError> {
    let keyspace = schema::quoted(&settings.keyspace).map_err(OpenError)?;
    let suspects = Suspects::default();
    let (session, mut handle) = connect(settings, &suspects).await?;
    let datacenters = datacenters(&session);
    let local = local_datacenter(settings, &datacenters)?;
    // From now on it is this one, also where others join the cluster: what most replicas of one
    // datacenter said, those of another may not know yet.
    handle.map_to_another_profile(profile(settings, Some(&local.datacenter), &suspects));
    let cluster = Cluster { session: &session, settings, keyspace };
    if settings.create_schema {
        cluster.create_keyspace(&local).await?;
    }
    cluster.check_keyspace(&local).await?;
    if settings.create_schema {
        cluster.create_tables().await?;
    }
    let missing = cluster.missing().await?;
    if !missing.is_empty() {
        return Err(cluster.incomplete(&missing));
    }
    let identity = cluster.identity().await?;
    let end_ms = cluster.end_ms().await?;
    Ok(Connected { session, datacenter: local.datacenter, identity, end_ms, suspects })
}

/// How statements are run. One that does not answer soon is asked of another node as well, if it may be
/// repeated: a node that hangs is found out only when its connections are given up. Transactions never are.
fn profile(
    settings: &CassandraSettings,
    datacenter: Option<&str>,
    suspects: &Suspects,
) -> ExecutionProfile {
    let (consistency, serial) = match settings.consistency {
        Agreement::LocalQuorum => (Consistency::LocalQuorum, SerialConsistency::LocalSerial),
        Agreement::Quorum => (Consistency::Quorum, SerialConsistency::Serial),
        Agreement::All => (Consistency::All, SerialConsistency::Serial),
    };
    let watched = Watched::new(datacenter, suspects.clone(), settings.metrics.clone());
    let others = SimpleSpeculativeExecutionPolicy {
        max_retry_count: limits::CASSANDRA_OTHER_NODES_MAX,
        retry_interval: limits::CASSANDRA_OTHER_NODE_AFTER,
    };
    ExecutionProfile::builder()
        .consistency(consistency)
        .serial_consistency(Some(serial))
        .request_timeout(Some(settings.attempt))
        .load_balancing_policy(Arc::new(watched))
        .speculative_execution_policy(Some(Arc::new(others)))
        .build()
}

async fn connect(
    settings: &CassandraSettings,
    suspects: &Suspects,
) -> Result<(Session, ExecutionProfileHandle), OpenError> {
    let nodes = settings.nodes.join(",");
    let handle = profile(settings, settings.datacenter.as_deref(), suspects).into_handle();
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.nodes)
        .keyspaces_to_fetch([settings.keyspace.as_str()])
        .keepalive_interval(limits::CASSANDRA_KEEPALIVE)
        .keepalive_timeout(limits::CASSANDRA_KEEPALIVE)
        .default_execution_profile_handle(handle.clone());
    if let Some(datacenter) = &settings.datacenter {
        builder = builder.prefer_datacenter(datacenter.clone());
        if settings.consistency == Agreement::LocalQuorum {
            // Its nodes alone are connected to: the start would wait for those of others that hang.
            builder = builder.host_filter(Arc::new(DcHostFilter::new(datacenter.clone())));
        }
    }
    if let Some((user, password)) = password(settings)? {
        builder = builder.user(user, password);
    }
    if let Some(config) = tls(settings)? {
        builder = builder.tls_context(Some(config));
    }
    match timeout(settings.connect, builder.build()).await {
        Ok(Ok(session)) => Ok((session, handle)),
        Ok(Err(error)) => Err(OpenError(format!(
            "cannot use Cassandra at --cassandra.nodes={nodes}: {error}; {}",
            advice(&error.to_string())
        ))),
        Err(_) => Err(OpenError(format!(
            "cannot use Cassandra at --cassandra.nodes={nodes}: no answer within {} s; is it \
             Cassandra's CQL port, is the node up, and does it speak TLS if and only if \
             --cassandra.tls is given?",
            settings.connect.as_secs()
        ))),
    }
}

/// The user and the password of the settings.
fn password(settings: &CassandraSettings) -> Result<Option<(&str, String)>, OpenError> {
    let Some((user, file)) = &settings.login else { return Ok(None) };
    let password = std::fs::read_to_string(file).map_err(|error| {
        OpenError(format!("--cassandra.password-file={}: {error}", file.display()))
    })?;
    Ok(Some((user, password.trim_end_matches(['\r', '\n']).to_owned())))
}

fn tls(settings: &CassandraSettings) -> Result<Option<TlsContext>, OpenError> {
    let config = settings.tls.as_ref().map(TlsClient::config);
    let config = config.transpose();
    let config = config.map_err(|error| OpenError(format!("--cassandra.tls: {error}")))?;
    Ok(config.map(TlsContext::from))
}

fn advice(text: &str) -> &'static str {
    // The driver wraps the cause five types deep, differently by when it happened.
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["received fatal alert"]) {
        // What the node says of ours, and not what we say of its certificate. Which alert it is
        // differs by node: one of Cassandra that misses ours says InternalError.
        "the node refuses TLS with us: does it ask for a certificate of ours \
         (--cassandra.tls-cert-file and -key-file), and trust that one? Its log says why"
    } else if says(&["certificate expired", "Expired"]) {
        "renew the node's certificate, and see that this machine's clock is right"
    } else if says(&["NotValidForName", "not valid for name"]) {
        "the node's certificate must name its address, or --cassandra.tls-server-name what it names"
    } else if says(&["UnknownIssuer", "invalid peer certificate"]) {
        "check --cassandra.tls-ca-file: it must hold what the node's certificate was signed with"
    } else if says(&["InvalidContentType", "corrupt message"]) {
        "the node does not speak TLS at this port: leave --cassandra.tls away, or name its TLS port"
    } else if says(&["Authentication", "credentials", "Auth", "auth"]) {
        "check --cassandra.user and --cassandra.password-file"
    } else if says(&["frame header"]) {
        "does it listen for CQL, and ask for TLS (--cassandra.tls)?"
    } else if says(&["resolve"]) {
        "check the names in --cassandra.nodes"
    } else {
        "check that a node listens there for CQL"
    }
}

/// The datacenters of the cluster, and how many nodes each has.
fn datacenters(session: &Session) -> BTreeMap<String, usize> {
    let mut datacenters = BTreeMap::new();
    for node in session.get_cluster_state().get_nodes_info() {
        if let Some(datacenter) = &node.datacenter {
            *datacenters.entry(datacenter.clone()).or_default() += 1;
        }
    }
    datacenters
}

/// The datacenter that LOCAL_QUORUM means.
#[derive(Debug, PartialEq, Eq)]
struct Local {
    datacenter: String,
    nodes: usize,
}

fn local_datacenter(
    settings: &CassandraSettings,
    datacenters: &BTreeMap<String, usize>,
) -> Result<Local, OpenError> {
    let names = || datacenters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let named = match &settings.datacenter {
        Some(named) => datacenters.get_key_value(named).ok_or_else(|| {
            OpenError(format!(
                "--cassandra.datacenter={named} is not in this cluster, which has {}",
                names()
            ))
        })?,
        None if datacenters.len() > 1 => {
            return Err(OpenError(format!(
                "the cluster has the datacenters {}: name the one beside this adapter with \
                 --cassandra.datacenter",
                names()
            )));
        }
        None => datacenters
            .first_key_value()
            .ok_or_else(|| OpenError("the cluster names no datacenter".to_owned()))?,
    };
    Ok(Local { datacenter: named.0.clone(), nodes: *named.1 })
}

struct Cluster<'a> {
    session: &'a Session,
    settings: &'a CassandraSettings,
    /// Quoted.
    keyspace: String,
}

impl Cluster<'_> {
    async fn create_keyspace(&self, local: &Local) -> Result<(), OpenError> {
        if self.replication().await?.is_some() {
            return Ok(());
        }
        let replication = self.settings.replication.clone().unwrap_or_else(|| {
            let copies = copies(local.nodes, self.settings.consistency);
            // A name with a quote in it is written with two.
            let datacenter = local.datacenter.replace('\'', "''");
            format!("{{'class': 'NetworkTopologyStrategy', '{datacenter}': {copies}}}")
        });
        let keyspace = &self.keyspace;
        self.change(format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}"
        ))
        .await?;
        tracing::info!(keyspace, replication, "created the keyspace");
        Ok(())
    }

    async fn create_tables(&self) -> Result<(), OpenError> {
        let found = self.columns().await?;
        self.check_ledger(&found)?;
        let (samples, ledger) = (self.settings.retention, self.settings.ledger_retention);
        let kept = Kept { samples, ledger, head: self.settings.head_ttl };
        for table in &TABLES {
            if found.iter().any(|one| one.table == table.name) {
                continue;
            }
            self.change(table.create(&self.keyspace, kept)).await?;
            tracing::info!(table = table.name, "created the table");
        }
        Ok(())
    }

    /// The ledger is created before the column families. An empty one beside hours that are sealed would
    /// bill them at nothing.
    fn check_ledger(&self, found: &[Found]) -> Result<(), OpenError> {
        let has = |table: &str| found.iter().any(|one| one.table == table);
        if has(LEDGER) || !FAMILIES.into_iter().any(has) {
            return Ok(());
        }
        Err(OpenError(format!(
            "the keyspace {} has Kanyun's column families but no table {LEDGER}, which bills are \
             counted from; where an earlier build made it, copy it out with that build (copy --from \
             cassandra --to local), else restore the table from a backup; or use another \
             --cassandra.keyspace",
            self.keyspace
        )))
    }

    async fn missing(&self) -> Result<Vec<String>, OpenError> {
        let found = self.columns().await?;
        self.check_ledger(&found)?;
        Ok(TABLES.iter().flat_map(|table| table.difference(&found)).collect())
    }

    fn incomplete(&self, missing: &[String]) -> OpenError {
        let advice = if missing.iter().all(|one| one.starts_with("table ")) {
            "start once with --cassandra.create-schema to create missing tables"
        } else {
            "what is there is not of this release: use another --cassandra.keyspace, and where an \
             earlier build made this one, bring over what it holds: copy it out with that build (copy \
             --from cassandra --to local) and in with this one"
        };
        OpenError(format!(
            "the keyspace {} has not the tables of this release: {}; {advice}",
            self.keyspace,
            missing.join(", ")
        ))
    }

    /// That the keyspace is there and LOCAL_QUORUM can be had in it.
    async fn check_keyspace(&self, local: &Local) -> Result<(), OpenError> {
        let Some(replication) = self.replication().await? else {
            return Err(OpenError(format!(
                "the keyspace {} is missing; start once with --cassandra.create-schema to create \
                 it, or name another with --cassandra.keyspace (upper and lower case differ)",
                self.keyspace
            )));
        };
        check_replication(&replication, local)
            .map_err(|error| OpenError(format!("the keyspace {} {error}", self.keyspace)))
    }

    async fn replication(&self) -> Result<Option<HashMap<String, String>>, OpenError> {
        let cql = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
        let rows = self.ask::<(HashMap<String, String>,)>(cql).await?;
        Ok(rows.into_iter().next().map(|(replication,)| replication))
    }

    async fn columns(&self) -> Result<Vec<Found>, OpenError> {
        let cql = "SELECT table_name, column_name, kind, position, type, clustering_order \
                   FROM system_schema.columns WHERE keyspace_name = ?";
        let rows = self.ask::<(String, String, String, i32, String, String)>(cql).await?;
        let found = rows.into_iter().map(|(table, column, kind, position, cql_type, order)| {
            Found { table, column, kind, position, cql_type, order }
        });
        Ok(found.collect())
    }

    async fn identity(&self) -> Result<String, OpenError> {
        let cql = "SELECT id FROM system_schema.tables \
                   WHERE keyspace_name = ? AND table_name = 'head'";
        let rows = self.ask::<(CqlValue,)>(cql).await?;
        let id = rows.into_iter().next().map(|(id,)| id.to_string());
        id.ok_or_else(|| OpenError("cannot read the schema: it has no table head".to_owned()))
    }

    /// Until when rows may be kept, tried with one that should live for as long as CQL knows, and that
    /// nobody reads.
    async fn end_ms(&self) -> Result<i64, OpenError> {
        let Cluster { session, keyspace, .. } = self;
        let ttl = schema::TTL_SECONDS_MAX;
        // Older than its deletion, whatever the clocks of the nodes.
        let insert = format!(
            "INSERT INTO {keyspace}.sealers (part, sealer) VALUES (-1, 'lives long') \
             USING TTL {ttl} AND TIMESTAMP 1"
        );
        let delete = format!("DELETE FROM {keyspace}.sealers WHERE part = -1");
        let unwritable = |error: StoreError| {
            OpenError(format!("the keyspace {keyspace} cannot be written: {error}"))
        };
        let insert = || async {
            match session.query_unpaged(insert.as_str(), ()).await {
                Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                    DbError::Invalid,
                    _,
                ))) => Ok(END_OF_32_BITS_MS),
                tried => tried.map(|_| i64::MAX),
            }
        };
        let purpose = ("trying how late a row may end", &self.settings.metrics);
        let deadline = Instant::now() + limits::WRITE_DEADLINE;
        let end_ms = until(purpose, deadline, insert).await.map_err(unwritable)?;
        let delete = || session.query_unpaged(delete.as_str(), ());
        until(purpose, deadline, delete).await.map_err(unwritable)?;
        Ok(end_ms)
    }

    /// Asks a schema table about our keyspace; where the answer fails in passing, again.
    async fn ask<R>(&self, cql: &str) -> Result<Vec<R>, OpenError>
    where
        R: for<'f> scylla::deserialize::row::DeserializeRow<'f, 'f>,
    {
        let unreadable = |error: String| OpenError(format!("cannot read the schema: {error}"));
        let ask = || self.session.query_unpaged(cql, (self.settings.keyspace.as_str(),));
        let purpose = ("reading the schema", &self.settings.metrics);
        let answer = until(purpose, Instant::now() + limits::WRITE_DEADLINE, ask).await;
        let rows = answer
            .map_err(|error| unreadable(error.to_string()))?
            .into_rows_result()
            .map_err(|error| unreadable(error.to_string()))?;
        let rows = rows.rows::<R>().map_err(|error| unreadable(error.to_string()))?;
        rows.collect::<Result<_, _>>().map_err(|error| unreadable(error.to_string()))
    }

    async fn change(&self, cql: String) -> Result<(), OpenError> {
        let mut statement = Statement::new(cql.as_str());
        statement.set_request_timeout(Some(limits::CASSANDRA_SCHEMA_CHANGE));
        let answer: Result<_, ExecutionError> = self.session.query_unpaged(statement, ()).await;
        answer.map(drop).map_err(|error| {
            OpenError(format!(
                "cannot create the schema: {error}; the statement was: {}",
                cql.split_whitespace().collect::<Vec<_>>().join(" ")
            ))
        })
    }
}

/// How many copies of each row a keyspace gets in a datacenter that shows so many nodes. A third may not
/// have joined yet: most of two copies are both, and so are most of three on two nodes, but these bear
/// the loss of a node once the third is there.
fn copies(nodes: usize, agreement: Agreement) -> usize {
    match nodes {
        2 if agreement != Agreement::All => REPLICATION_FACTOR,
        nodes => nodes.min(REPLICATION_FACTOR),
    }
}

/// Whether LOCAL_QUORUM can be had at all. An error continues "the keyspace ...".
fn check_replication(replication: &HashMap<String, String>, local: &Local) -> Result<(), String> {
    let class = replication.get("class").map_or("", String::as_str);
    let factor = if class.ends_with("NetworkTopologyStrategy") {
        replication.get(&local.datacenter)
    } else if class.ends_with("SimpleStrategy") {
        replication.get("replication_factor")
    } else {
        // A strategy of the operator's own.
        return Ok(());
    };
    // "3/1" is three replicas of which one is transient.
    let factor = factor.and_then(|factor| factor.split('/').next()?.parse::<usize>().ok());
    let Local { datacenter, nodes } = local;
    match factor.unwrap_or(0) {
        0 => Err(format!(
            "is not replicated to the datacenter {datacenter}; change its replication with ALTER \
             KEYSPACE, or --cassandra.datacenter"
        )),
        factor if factor / 2 + 1 > *nodes => Err(format!(
            "has {factor} replicas in the datacenter {datacenter}, which has {nodes} node(s): \
             LOCAL_QUORUM needs {}; add nodes, or lower the replication with ALTER KEYSPACE",
            factor / 2 + 1
        )),
        1 => {
            tracing::warn!(
                "the keyspace has one copy of each row: a node that is killed or loses power takes \
                 the writes of the last seconds with it, unless its cassandra.yaml has \
                 commitlog_sync: batch"
            );
            Ok(())
        }
        2 => {
            tracing::warn!(
                "the keyspace has two copies of each row, and most of two are both: while one node \
                 is away, nothing of what it holds can be written or read; with three nodes, make \
                 it three copies with ALTER KEYSPACE, and then run nodetool repair --full"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether any node of the datacenter in use has an open connection.
pub(super) fn is_connected(session: &Session, datacenter: &str) -> bool {
    let state = session.get_cluster_state();
    let mut nodes = state.get_nodes_info().iter();
    nodes.any(|node| node.datacenter.as_deref() == Some(datacenter) && node.is_connected())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(datacenter: Option<&str>) -> CassandraSettings {
        CassandraSettings {
            datacenter: datacenter.map(str::to_owned),
            ..CassandraSettings::new("k", Duration::from_hours(400 * 24))
        }
    }

    #[test]
    fn the_local_datacenter_is_named_where_there_are_several() {
        let of = |names: &[(&str, usize)]| -> BTreeMap<String, usize> {
            names.iter().map(|(name, nodes)| ((*name).to_owned(), *nodes)).collect()
        };
        let one = of(&[("dc1", 3)]);
        let two = of(&[("dc1", 3), ("dc2", 2)]);
        let dc = |datacenter: &str, nodes| Local { datacenter: datacenter.to_owned(), nodes };
        assert_eq!(local_datacenter(&settings(None), &one).unwrap(), dc("dc1", 3));
        assert_eq!(local_datacenter(&settings(Some("dc2")), &two).unwrap(), dc("dc2", 2));
        let error = local_datacenter(&settings(None), &two).unwrap_err().to_string();
        assert!(error.contains("dc1, dc2") && error.contains("--cassandra.datacenter"), "{error}");
        let error = local_datacenter(&settings(Some("DC1")), &one).unwrap_err().to_string();
        assert!(error.contains("DC1") && error.contains("dc1"), "{error}");
    }

    #[test]
    fn a_keyspace_bears_the_loss_of_a_node_once_there_are_three() {
        let of = |agreement| [1, 2, 3, 7].map(|nodes| copies(nodes, agreement));
        assert_eq!(of(Agreement::LocalQuorum), [1, 3, 3, 3]);
        assert_eq!(of(Agreement::Quorum), [1, 3, 3, 3]);
        // A copy without a node would be missing from all.
        assert_eq!(of(Agreement::All), [1, 2, 3, 3]);
    }

    #[test]
    fn a_replication_without_a_quorum_is_refused() {
        let of = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let topology = "org.apache.cassandra.locator.NetworkTopologyStrategy";
        let local = |nodes| Local { datacenter: "dc1".to_owned(), nodes };
        let three = of(&[("class", topology), ("dc1", "3")]);
        assert!(check_replication(&three, &local(2)).is_ok());
        let error = check_replication(&three, &local(1)).unwrap_err();
        assert!(error.contains("3 replicas") && error.contains("LOCAL_QUORUM needs 2"), "{error}");
        let elsewhere = of(&[("class", topology), ("dc2", "3")]);
        assert!(check_replication(&elsewhere, &local(3)).unwrap_err().contains("not replicated"));
        let simple = of(&[("class", "SimpleStrategy"), ("replication_factor", "1")]);
        assert!(check_replication(&simple, &local(1)).is_ok());
    }
}
