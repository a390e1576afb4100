//! The flags: what may be typed, its defaults and its checks.
//! Reads no file and no clock.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serve::settings::ServiceFlags;

use crate::kanyun_conf::{self, ConfError, KanyunConf};
use crate::limits;
use crate::model::instant;
use crate::store::cassandra::Agreement;
use crate::store::local;
use crate::worker::sources::Source;

/// Prometheus remote storage on an embedded store or on Cassandra
#[derive(Clone, Debug, Parser)]
#[command(name = "kanyun-adapter", version, mut_arg("listen_addresses", |arg| arg.required(false).default_value("127.0.0.1:9201")), mut_arg("config_file", |arg| arg.global(true)))]
pub struct Flags {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Flags of every service.
    #[command(flatten)]
    pub service: ServiceFlags,

    /// Where samples are stored
    #[arg(long = "store", value_enum, default_value = "local", help_heading = "Store")]
    pub store: StoreKind,

    /// Data folder of the local store
    #[arg(
        long = "store.path",
        global = true,
        value_name = "FOLDER",
        default_value = "data",
        help_heading = "Store"
    )]
    pub store_path: PathBuf,

    /// When the local store syncs: before each acknowledgement, or every second (a power loss then
    /// costs the last second)
    #[arg(long = "store.sync", value_enum, default_value = "commit", help_heading = "Store")]
    pub store_sync: SyncKind,

    /// How long samples are kept, by their own time, such as 400d; whole days are dropped
    #[arg(long = "retention", value_name = "TIME", default_value = "400d", value_parser = retention, help_heading = "Store")]
    pub retention: Duration,

    /// How long billing's minutes are kept, by their own time; not shorter than --retention
    #[arg(long = "ledger.retention", value_name = "TIME", default_value = "1825d", value_parser = retention, help_heading = "Store")]
    pub ledger_retention: Duration,

    /// Sample time that is sealed at once, whole hours that divide a day; part of the store's layout
    #[arg(long = "seal.window", value_name = "TIME", default_value = "2h", value_parser = seal_window, help_heading = "Store")]
    pub seal_window: Duration,

    /// How long after its end a window is sealed; what comes later is sealed again
    #[arg(long = "seal.grace", value_name = "TIME", default_value = "15m", value_parser = seal_grace, help_heading = "Store")]
    pub seal_grace: Duration,

    /// How long samples that come after their window was sealed wait for more of their kind, before
    /// it is sealed again
    #[arg(long = "seal.late-pause", value_name = "TIME", default_value = "1m", value_parser = late_pause, help_heading = "Store")]
    pub late_pause: Duration,

    /// How long the sealing of a part of the guests waits where the adapter that did it is silent;
    /// whole seconds, for adapters that share a cluster
    #[arg(long = "seal.lease", value_name = "TIME", default_value = "30s", value_parser = seal_lease, help_heading = "Store")]
    pub seal_lease: Duration,

    /// Folder for temporary files of large reads, on a disk and not in memory; by default the
    /// local store's own folder, or the system's for temporary files
    #[arg(long = "read.spill-path", value_name = "FOLDER", help_heading = "Store")]
    pub read_spill_path: Option<PathBuf>,

    /// Labels that name a guest: the first one that a series has packs it with the rest of its
    /// guest; part of the store's layout
    #[arg(
        long = "row-key.labels",
        value_name = "LABELS",
        value_delimiter = ',',
        value_parser = row_key_label,
        default_value = "uuid,instance_id",
        help_heading = "Store"
    )]
    pub row_key_labels: Vec<String>,

    /// Flags of the Cassandra store.
    #[command(flatten)]
    pub cassandra: CassandraFlags,

    /// Flags of the doors of 2012.
    #[command(flatten)]
    pub legacy: LegacyFlags,
}

/// What an operator asks. Without one of them the adapter serves.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Shows what is kept, how much disk that takes, and how far sealing is
    Status(AskFlags),
    /// Prints a guest's rows as they stand in the ledger, in the words of Kanyun's column families
    Ledger(LedgerFlags),
    /// Copies everything from the local store into a cluster, or back; the flags of both stores go
    /// before the word copy. Adapters may work on the cluster meanwhile
    Copy(CopyFlags),
}

/// From where to where.
#[derive(Clone, Debug, clap::Args)]
#[command(about = None, long_about = None)]
pub struct CopyFlags {
    /// Store that is read
    #[arg(long = "from", value_enum)]
    pub from: CopyKind,

    /// Store that is written: a new one, or one of the same layout, which keeps what it has
    #[arg(long = "to", value_enum)]
    pub to: CopyKind,

    /// File that says how far a copy is: one that was cut off goes on from there
    #[arg(long = "progress", value_name = "FILE", default_value = "kanyun-copy.json")]
    pub progress: PathBuf,
}

/// A store that keeps what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CopyKind {
    /// On this machine's disk, in --store.path
    Local,
    /// In a Cassandra or ScyllaDB cluster
    Cassandra,
}

impl From<CopyKind> for StoreKind {
    fn from(kind: CopyKind) -> StoreKind {
        match kind {
            CopyKind::Local => StoreKind::Local,
            CopyKind::Cassandra => StoreKind::Cassandra,
        }
    }
}

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
#[command(about = None, long_about = None)]
pub struct AskFlags {
    /// Adapter to ask, such as http://127.0.0.1:9201; without it the one of --web.listen-address on
    /// this machine or, where nobody listens there, the store in --store.path
    #[arg(long = "url", value_name = "URL")]
    pub url: Option<String>,

    /// User, where the adapter asks for one
    #[arg(long = "user", value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,

    /// File that holds the user's password
    #[arg(long = "password-file", value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,

    /// PEM file of the certificates to trust; without it those that this machine trusts
    #[arg(long = "ca-file", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Print JSON
    #[arg(long = "json")]
    pub json: bool,
}

/// Which rows to print.
#[derive(Clone, Debug, clap::Args)]
#[command(about = None, long_about = None)]
pub struct LedgerFlags {
    /// Guest, by its uuid, its name, or its name and host as NAME@HOST
    #[arg(long = "guest", value_name = "NAME")]
    pub guest: String,

    /// Family, or several with commas; without it all of them
    #[arg(long = "family", value_name = "FAMILY")]
    pub family: Option<String>,

    /// Begin, as 2026-11-01T00:00:00 or unix seconds; without it all that is kept
    #[arg(long = "from", value_name = "TIME", value_parser = instant::parse, allow_negative_numbers = true)]
    pub from: Option<i64>,

    /// End; without it now
    #[arg(long = "to", value_name = "TIME", value_parser = instant::parse, allow_negative_numbers = true)]
    pub to: Option<i64>,

    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskFlags,
}

/// How to reach a cluster.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cassandra")]
pub struct CassandraFlags {
    /// Nodes to ask first for the cluster, as HOST or HOST:PORT
    #[arg(
        long = "cassandra.nodes",
        value_name = "NODES",
        value_delimiter = ',',
        default_value = "127.0.0.1:9042"
    )]
    pub nodes: Vec<String>,

    /// Datacenter whose nodes are used; needed where there are several
    #[arg(long = "cassandra.datacenter", value_name = "NAME")]
    pub datacenter: Option<String>,

    /// Keyspace, case as written
    #[arg(long = "cassandra.keyspace", value_name = "NAME", default_value = "DATA")]
    pub keyspace: String,

    /// Create the keyspace and the tables that are missing
    #[arg(long = "cassandra.create-schema")]
    pub create_schema: bool,

    /// Replication of a keyspace that is created, as CQL writes it; by default three copies in the
    /// local datacenter, or one where that has one node; no more than nodes with a consistency of all
    #[arg(long = "cassandra.replication", value_name = "MAP")]
    pub replication: Option<String>,

    /// User of the cluster
    #[arg(long = "cassandra.user", value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,

    /// File that holds the user's password
    #[arg(long = "cassandra.password-file", value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,

    /// Whose answers writes and reads wait for: most replicas of the datacenter, most of all
    /// datacenters, or all
    #[arg(long = "cassandra.consistency", value_enum, default_value = "local-quorum")]
    pub consistency: ConsistencyKind,

    /// How long one attempt of a statement may take; more than the nodes' own timeouts. A write is
    /// tried again for 25 s
    #[arg(long = "cassandra.timeout", value_name = "TIME", default_value = "6s", value_parser = timeout)]
    pub timeout: Duration,

    /// How long connecting at the start may take
    #[arg(long = "cassandra.connect-timeout", value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub connect_timeout: Duration,

    /// How long samples stay in the head after their arrival, whether they were sealed or not; where
    /// sealing is behind by half of it, writes are refused
    #[arg(long = "cassandra.head-ttl", value_name = "TIME", default_value = "7d", value_parser = head_ttl)]
    pub head_ttl: Duration,

    /// Speak TLS with the nodes
    #[arg(long = "cassandra.tls")]
    pub tls: bool,

    /// PEM file of the certificates to trust; without it those that this machine trusts
    #[arg(long = "cassandra.tls-ca-file", value_name = "FILE", requires = "tls")]
    pub tls_ca_file: Option<PathBuf>,

    /// PEM file of our own certificate, where the nodes ask for one
    #[arg(long = "cassandra.tls-cert-file", value_name = "FILE", requires_all = ["tls", "tls_key_file"])]
    pub tls_cert_file: Option<PathBuf>,

    /// PEM file of its key
    #[arg(long = "cassandra.tls-key-file", value_name = "FILE", requires_all = ["tls", "tls_cert_file"])]
    pub tls_key_file: Option<PathBuf>,

    /// Name that the nodes' certificates must be for, where it is not their address
    #[arg(long = "cassandra.tls-server-name", value_name = "NAME", requires = "tls")]
    pub tls_server_name: Option<String>,
}

/// `--cassandra.consistency`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsistencyKind {
    /// Most replicas of the datacenter
    LocalQuorum,
    /// Most replicas of all datacenters
    Quorum,
    /// All replicas
    All,
}

impl From<ConsistencyKind> for Agreement {
    fn from(kind: ConsistencyKind) -> Agreement {
        match kind {
            ConsistencyKind::LocalQuorum => Agreement::LocalQuorum,
            ConsistencyKind::Quorum => Agreement::Quorum,
            ConsistencyKind::All => Agreement::All,
        }
    }
}

/// The doors that Kanyun had in 2012, over ZeroMQ.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Kanyun of 2012")]
pub struct LegacyFlags {
    /// Where the API over ZeroMQ listens, tcp://ADDRESS:PORT; an empty value closes it. It has
    /// neither users nor encryption [default: --legacy.config's, else tcp://127.0.0.1:5556]
    #[arg(long = "legacy.api-address", value_name = "ADDRESS")]
    pub api_address: Option<String>,

    /// A kanyun.conf of 2012, whose addresses hold where no flag, variable or --config.file gives
    /// others
    #[arg(long = "legacy.config", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where workers send, tcp://ADDRESS:PORT; an empty value closes this door
    /// [default: --legacy.config's, else tcp://127.0.0.1:5551]
    #[arg(long = "legacy.ingest-address", value_name = "ADDRESS")]
    pub ingest_address: Option<String>,

    /// Addresses and networks from which workers may send, such as 10.0.0.0/16; needed where their
    /// door is not on loopback alone, as they have neither users nor passwords
    #[arg(long = "legacy.ingest-allow", value_name = "ADDRESSES", value_delimiter = ',')]
    pub ingest_allow: Vec<Source>,
}

/// Where the API over ZeroMQ listens if nothing says otherwise.
const API_ADDRESS: &str = "tcp://127.0.0.1:5556";
/// Where workers send if nothing says otherwise.
const INGEST_ADDRESS: &str = "tcp://127.0.0.1:5551";

impl LegacyFlags {
    /// What --legacy.config says; nothing without it.
    pub fn conf(&self) -> Result<KanyunConf, ConfError> {
        self.config.as_deref().map_or_else(|| Ok(KanyunConf::default()), kanyun_conf::read)
    }

    /// Where the API over ZeroMQ listens; `None` where it is closed.
    pub fn api_address(&self, conf: &KanyunConf) -> Option<String> {
        let given = self.api_address.as_ref().or(conf.api_address.as_ref());
        or_closed(given.map_or(API_ADDRESS, String::as_str))
    }

    /// Where workers send; `None` where that door is closed.
    pub fn ingest_address(&self, conf: &KanyunConf) -> Option<String> {
        let given = self.ingest_address.as_ref().or(conf.ingest_address.as_ref());
        or_closed(given.map_or(INGEST_ADDRESS, String::as_str))
    }
}

fn or_closed(address: &str) -> Option<String> {
    let address = address.trim();
    (!address.is_empty()).then(|| address.to_owned())
}

/// `--store`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    /// On this machine's disk
    Local,
    /// In a Cassandra or ScyllaDB cluster
    Cassandra,
    /// In memory, gone with the process: for trials
    Memory,
}

/// `--store.sync`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SyncKind {
    /// Before each acknowledgement
    Commit,
    /// Every second
    Interval,
}

impl From<SyncKind> for local::Sync {
    fn from(kind: SyncKind) -> local::Sync {
        match kind {
            SyncKind::Commit => local::Sync::Commit,
            SyncKind::Interval => local::Sync::Interval,
        }
    }
}

/// The least retention: an hour is frozen 8 days before it expires (ledger.md, "Late data").
const RETENTION_MIN: Duration = Duration::from_secs(9 * 86_400);
/// The longest: what Cassandra's time to live takes (20 years).
const RETENTION_MAX: Duration = Duration::from_secs(20 * 365 * 86_400);

fn retention(text: &str) -> Result<Duration, String> {
    let retention = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(RETENTION_MIN..=RETENTION_MAX).contains(&retention) {
        return Err("must be from 9d to 20 years (7300d)".to_owned());
    }
    Ok(retention)
}

fn seal_window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let seconds = window.as_secs();
    let fits = window.subsec_nanos() == 0 && seconds >= 3600 && 86_400 % seconds == 0;
    if fits && seconds % 3600 == 0 {
        return Ok(window);
    }
    Err("must be 1h, 2h, 3h, 4h, 6h, 8h, 12h or 24h".to_owned())
}

/// The least grace: half of it must be enough for a write under way (DESIGN.md, "The engine").
const GRACE_MIN: Duration = Duration::from_secs(2 * limits::WRITE_DEADLINE.as_secs() + 60);

fn seal_grace(text: &str) -> Result<Duration, String> {
    let grace = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(GRACE_MIN..=Duration::from_secs(86_400)).contains(&grace) {
        let least = humantime::format_duration(GRACE_MIN);
        return Err(format!(
            "must be from {least}, twice what a write may take and a minute, to 1d"
        ));
    }
    Ok(grace)
}

fn late_pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&pause) {
        return Err("must be from 10ms to 1d".to_owned());
    }
    Ok(pause)
}

fn seal_lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let range = Duration::from_secs(3)..=Duration::from_secs(3600);
    if lease.subsec_nanos() != 0 || !range.contains(&lease) {
        return Err("must be whole seconds, from 3s to 1h".to_owned());
    }
    Ok(lease)
}

fn head_ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_secs(3 * 86_400)..=RETENTION_MAX).contains(&ttl) {
        return Err(
            "must be from 3d, so that there is time to repair what stops sealing".to_owned()
        );
    }
    Ok(ttl)
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&timeout) {
        return Err("must be from 1s to 5m".to_owned());
    }
    Ok(timeout)
}

fn row_key_label(text: &str) -> Result<String, String> {
    let label = text.trim();
    match label {
        "" => Err("an empty label name".to_owned()),
        "__name__" => Err("the metric name cannot be a row key: it is no instance".to_owned()),
        _ => Ok(label.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Flags, String> {
        let args = std::iter::once("kanyun-adapter").chain(args.iter().copied());
        Flags::try_parse_from(args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let flags = parse(&[]).unwrap();
        assert_eq!(flags.service.listen_addresses, ["127.0.0.1:9201"]);
        assert_eq!(flags.store, StoreKind::Local);
        assert_eq!(flags.retention, Duration::from_secs(400 * 86_400));
        assert_eq!(flags.row_key_labels, ["uuid", "instance_id"]);
    }

    #[test]
    fn an_address_of_2012_gives_way() {
        let conf =
            KanyunConf { api_address: Some("tcp://*:5560".to_owned()), ..KanyunConf::default() };
        for (args, of_conf, alone) in [
            (vec![], Some("tcp://*:5560"), Some("tcp://127.0.0.1:5556")),
            (vec!["--legacy.api-address=tcp://a:1"], Some("tcp://a:1"), Some("tcp://a:1")),
            (vec!["--legacy.api-address="], None, None),
        ] {
            let legacy = parse(&args).unwrap().legacy;
            assert_eq!(legacy.api_address(&conf).as_deref(), of_conf);
            assert_eq!(legacy.api_address(&KanyunConf::default()).as_deref(), alone);
        }
    }

    #[test]
    fn workers_have_a_door_on_loopback_unless_something_else_is_said() {
        let conf =
            KanyunConf { ingest_address: Some("tcp://*:5551".to_owned()), ..KanyunConf::default() };
        let none = KanyunConf::default();
        let legacy = parse(&[]).unwrap().legacy;
        assert_eq!(legacy.ingest_address(&none).as_deref(), Some("tcp://127.0.0.1:5551"));
        assert_eq!(legacy.ingest_address(&conf).as_deref(), Some("tcp://*:5551"));
        assert!(legacy.ingest_allow.is_empty());
        let closed = parse(&["--legacy.ingest-address="]).unwrap().legacy;
        assert_eq!(closed.ingest_address(&conf), None);
        let allow = ["--legacy.ingest-allow", "10.0.0.0/8,::1", "--legacy.ingest-allow=10.1.2.3"];
        assert_eq!(parse(&allow).unwrap().legacy.ingest_allow.len(), 3);
    }

    #[test]
    fn row_key_labels_are_names() {
        assert_eq!(
            parse(&["--row-key.labels", "uuid, vm"]).unwrap().row_key_labels,
            ["uuid", "vm"]
        );
        for text in ["", "uuid,,vm", "__name__"] {
            let error = parse(&["--row-key.labels", text]).unwrap_err();
            assert!(error.contains("--row-key.labels"), "{error}");
        }
    }

    #[test]
    fn a_retention_that_cannot_be_is_refused() {
        for text in ["8d", "0", "never", "9000000d"] {
            let error = parse(&["--retention", text]).unwrap_err();
            assert!(error.contains("--retention"), "{error}");
        }
    }
}
