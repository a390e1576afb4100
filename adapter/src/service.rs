//! Puts the parts together: settings to store, engine, doors and a server, and takes them apart
//! again in the right order when a stop is asked for.

mod background;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use prometheus_client::registry::Registry;
use serve::clock::Clock;
use serve::limits::Limits;
use serve::own_metrics::OwnMetrics;
use serve::readiness::Readiness;
use serve::server::{Server, Service};
use serve::shutdown::Shutdown;
use serve::sockets::Sockets;
use serve::tls_client::TlsClient;

use background::Background;

use crate::command::{self, CommandError, Opened};
use crate::config::{Command, CopyFlags, CopyKind, Flags, LegacyFlags, StoreKind};
use crate::copy::{CopyError, Known, Plan, Source};
use crate::engine::layout::{Layout, LayoutError};
use crate::engine::{Engine, Keeping};
use crate::feed::{Feed, Workers};
use crate::http::Doors;
use crate::kanyun_conf::{ConfError, KanyunConf};
use crate::limits;
use crate::metrics::Metrics;
use crate::read::{Reader, Room};
use crate::status::Observer;
use crate::store::cassandra::{Cassandra, CassandraSettings};
use crate::store::local::{Local, LocalSettings};
use crate::store::memory::Memory;
use crate::store::{OpenError, Store, StoreError};
use crate::usage::Usage;
use crate::write::Writer;
use crate::zeromq::api::Api;
use crate::zeromq::ingest::{self, Ingest, IngestError, OpenIngest};
use crate::zeromq::{BindError, Door};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The source revision, where the build was told it.
const REVISION: &str = match option_env!("KANYUN_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// How long the end of the process waits for threads that are stuck.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);

/// How often a failed store is looked for.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the service ended or did not start; the text says what to do.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("--ledger.retention is shorter than --retention: bills must outlive their samples")]
    LedgerRetention,
    #[error(
        "--seal.grace is shorter than {}, and on a cluster the clocks of two adapters may be two minutes apart",
        humantime::format_duration(limits::CLUSTER_GRACE_MIN)
    )]
    Grace,
    #[error(transparent)]
    Bind(#[from] serve::server::BindError),
    #[error(transparent)]
    Conf(#[from] ConfError),
    #[error(transparent)]
    BindZeromq(#[from] BindError),
    #[error(transparent)]
    BindIngest(#[from] IngestError),
    #[error(transparent)]
    Serve(#[from] serve::server::ServeError),
    #[error("the store has failed and only a restart recovers it: {0}")]
    Store(String),
    #[error("{0}")]
    Door(String),
    #[error("the store could not be closed cleanly: {0}")]
    Close(StoreError),
    #[error("work that goes on for ever has ended, a fault of this program: {0}")]
    Ended(String),
    #[error("{0}")]
    Copy(String),
    #[error(transparent)]
    Source(#[from] CopyError),
    #[error("{0}")]
    Spill(String),
    #[error("the process cannot be set up: {0}")]
    Setup(#[from] std::io::Error),
}

/// Runs the program; `args` is its command line.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let flags = match serve::settings::parse::<Flags>(args) {
        Ok(flags) => flags,
        Err(error) => {
            // Nothing is left to tell where standard error is gone.
            drop(error.print());
            return ExitCode::from(error.exit_code());
        }
    };
    if let Err(error) = serve::log::start(flags.service.log_level, flags.service.log_format) {
        drop(std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("error: {error}\n").as_bytes(),
        ));
        return ExitCode::FAILURE;
    }
    if let Some(command) = &flags.command {
        return run_command(command, &flags);
    }
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a subcommand: its answer goes to standard output, its fault as one line to standard error.
fn run_command(command: &Command, flags: &Flags) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(&Err(CommandError::Output(error))),
    };
    let done = runtime.block_on(async {
        match command {
            Command::Copy(copy) => {
                let clock = Clock::system();
                let plan = Box::pin(copy_plan(flags, copy, &clock)).await;
                let plan = plan.map_err(|failure| CommandError::Failed(failure.to_string()))?;
                Box::pin(command::copy(plan, clock)).await
            }
            _ => Box::pin(command::run(flags, command, async || open_to_ask(flags).await)).await,
        }
    });
    runtime.shutdown_timeout(EXIT_DEADLINE);
    ended(&done)
}

fn ended(done: &Result<(), CommandError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_enough() => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell where standard error is gone.
            let line = format!("error: {error}\n");
            drop(std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

/// Opens both stores of a copy.
async fn copy_plan(flags: &Flags, copy: &CopyFlags, clock: &Clock) -> Result<Plan, Failure> {
    if copy.from == copy.to {
        return Err(Failure::Copy("--from and --to are the same store".to_owned()));
    }
    if copy.from == CopyKind::Local && !Local::is_in(&flags.store_path) {
        let folder = flags.store_path.display();
        return Err(Failure::Copy(format!(
            "there is no store in {folder}, which --store.path names"
        )));
    }
    let metrics = Metrics::register(&mut Registry::default());
    let layout = layout(flags);
    let [from, to] = [copy.from, copy.to].map(|kind| Flags { store: kind.into(), ..flags.clone() });
    let title = format!("{} to {}", observed_name(&from), observed_name(&to));
    let known = Known { file: copy.progress.clone(), title };
    // What makes a store of --to comes when nothing else is left to be refused.
    let store = Arc::new(open_source(&from, &layout, (clock.clone(), &metrics)).await?);
    let source = Source::open(store, &layout, known, clock).await?;
    let to = Arc::new(open(&to, &layout, (clock.clone(), &metrics)).await?);
    Ok(Plan { source, to, keeping: keeping(flags) })
}

/// Opens the store that is copied. Never makes one.
async fn open_source(
    flags: &Flags,
    layout: &Layout,
    (clock, metrics): (Clock, &Metrics),
) -> Result<Store, Failure> {
    if flags.store != StoreKind::Cassandra {
        return open(flags, layout, (clock, metrics)).await;
    }
    let settings = CassandraSettings {
        create_schema: false,
        reads_only: true,
        ..cassandra_settings(flags, layout, metrics)
    };
    Ok(Store::Cassandra(Box::new(Box::pin(Cassandra::open(settings, clock)).await?)))
}

/// Opens the store of the flags where no adapter runs. Never makes one.
async fn open_to_ask(flags: &Flags) -> Result<Opened, String> {
    let folder = flags.store_path.display();
    if flags.store != StoreKind::Local {
        return Err("only a local store can be opened without an adapter".to_owned());
    }
    if !Local::is_in(&flags.store_path) {
        return Err(format!("there is no store in {folder}, which --store.path names"));
    }
    let clock = Clock::system();
    let metrics = Metrics::register(&mut Registry::default());
    let engine = start(flags, &clock, &metrics).await.map_err(|failure| failure.to_string())?;
    let usage = Usage::new(Arc::clone(&engine), clock.clone(), metrics);
    let observer = observer(flags, &engine, clock);
    Ok(Opened { engine, observer, usage: Arc::new(usage) })
}

fn observer(flags: &Flags, engine: &Arc<Engine>, clock: Clock) -> Observer {
    Observer::new(Arc::clone(engine), clock, VERSION, observed_name(flags))
}

/// Which store it is, in words.
fn observed_name(flags: &Flags) -> String {
    match flags.store {
        StoreKind::Local => format!("local, {}", flags.store_path.display()),
        StoreKind::Memory => "memory".to_owned(),
        StoreKind::Cassandra => format!("cassandra, keyspace {}", flags.cassandra.keyspace),
    }
}

fn layout(flags: &Flags) -> Layout {
    let window = u32::try_from(flags.seal_window.as_secs()).unwrap_or(u32::MAX);
    Layout::new(flags.row_key_labels.clone(), window)
}

fn keeping(flags: &Flags) -> Keeping {
    Keeping { samples: flags.retention, ledger: flags.ledger_retention, grace: flags.seal_grace }
}

/// What one flag cannot tell by itself.
fn check_keeping(flags: &Flags) -> Result<(), Failure> {
    if flags.ledger_retention < flags.retention {
        return Err(Failure::LedgerRetention);
    }
    if flags.store == StoreKind::Cassandra && flags.seal_grace < limits::CLUSTER_GRACE_MIN {
        return Err(Failure::Grace);
    }
    Ok(())
}

/// Opens the store and starts the engine above it.
async fn start(flags: &Flags, clock: &Clock, metrics: &Metrics) -> Result<Arc<Engine>, Failure> {
    check_keeping(flags)?;
    let (layout, keeping) = (layout(flags), keeping(flags));
    let store = open(flags, &layout, (clock.clone(), metrics)).await?;
    let engine = Engine::start(store, &layout, keeping, clock.clone(), metrics.clone()).await?;
    Ok(Arc::new(engine))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    // Before there is a second thread.
    let sockets = Sockets::handed_over(&flags.service);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        if flags.service.config_check {
            Server::check(&flags.service).await?;
            check_keeping(flags)?;
            if flags.store == StoreKind::Cassandra {
                let metrics = Metrics::register(&mut Registry::default());
                Cassandra::check(&cassandra_settings(flags, &layout(flags), &metrics))?;
            }
            let conf = flags.legacy.conf()?;
            if let Some(address) = flags.legacy.api_address(&conf) {
                crate::zeromq::check(crate::zeromq::api::FLAG, &address)?;
            }
            if let Some(address) = flags.legacy.ingest_address(&conf) {
                ingest::check(&address, &flags.legacy.ingest_allow).await?;
            }
            tracing::info!("all settings are valid");
            return Ok(());
        }
        let outside = (Clock::system(), Shutdown::on_signals()?);
        Box::pin(serve_until_stopped(flags, sockets, outside)).await
    });
    // A read that is stuck on a broken disk must not keep the process from ending.
    runtime.shutdown_timeout(EXIT_DEADLINE);
    ended
}

/// Opens the store, serves, and closes the store after the last request.
async fn serve_until_stopped(
    flags: &Flags,
    sockets: Sockets,
    (clock, shutdown): (Clock, Shutdown),
) -> Result<(), Failure> {
    // The port first: it is quick to check, and a taken one should not touch the data folder.
    let server = Server::bind(&flags.service, sockets).await?;
    let conf = flags.legacy.conf()?;
    conf.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
    let ingest = bind_ingest(&flags.legacy, &conf).await?;
    let api = bind_api(&flags.legacy, &conf).await?;
    let mut registry = Registry::default();
    let own_metrics = OwnMetrics::register(&mut registry, "kanyun_adapter", VERSION, REVISION);
    let metrics = Metrics::register(&mut registry);
    let engine = start(flags, &clock, &metrics).await?;

    let workers = ingest.is_some().then(|| Workers::new(clock.clone(), metrics.feed().clone()));
    let room = room(flags, metrics.clone())?;
    let usage = Arc::new(Usage::new(Arc::clone(&engine), clock.clone(), metrics.clone()));
    let mut api = api.map(|api| open_api(api, &usage, &shutdown)).transpose()?;
    let doors = Doors {
        writer: Writer::new(Arc::clone(&engine), metrics.clone()),
        reader: Reader::new(Arc::clone(&engine), metrics.clone(), room),
        usage,
        observer: Arc::new(observer(flags, &engine, clock.clone())),
        workers: workers.clone(),
        registry,
    };
    let ready = Arc::clone(&engine);
    let service = Service {
        routes: doors.routes(),
        readiness: Readiness::new(move || ready.ready()),
        own_metrics,
        limits: Limits::default(),
    };
    let mut background = Background::start(&engine, &clock, &metrics);
    background.seal(flags.late_pause);
    let feed = |workers| Feed::new(Arc::clone(&engine), workers);
    let ingest = ingest.zip(workers);
    let ingest = ingest.map(|(door, workers)| door.open(feed(workers), shutdown.clone()));
    let mut ingest = ingest.transpose()?;
    say_listening(&server, flags);
    let served = tokio::select! {
        served = server.run(service, shutdown) => served.map_err(Failure::from),
        why = failed(&engine) => Err(Failure::Store(why)),
        why = background.ended() => Err(Failure::Ended(why)),
        why = ingest_failed(ingest.as_mut()) => Err(Failure::Door(why)),
        why = broken(api.as_mut()) => Err(Failure::Door(why)),
    };
    if let Some(ingest) = ingest {
        // A store that has failed takes nothing more.
        let patience = if served.is_ok() { limits::WORKER_STOP_DEADLINE } else { Duration::ZERO };
        ingest.finish(patience).await;
    }
    if let (Ok(()), Some(api)) = (&served, &mut api) {
        api.ended().await.map_err(Failure::Door)?;
    }
    if served.is_ok() {
        background.finish().await;
    } else {
        drop(background);
    }
    let closed = engine.close().await;
    served?;
    closed.map_err(Failure::Close)?;
    tracing::info!("stopped; everything acknowledged is stored");
    Ok(())
}

fn say_listening(server: &Server, flags: &Flags) {
    for address in server.local_addresses() {
        tracing::info!(
            %address,
            store = flags.store.to_possible_value().map(|value| value.get_name().to_owned()),
            version = VERSION,
            "kanyun-adapter is listening"
        );
    }
}

async fn bind_api(flags: &LegacyFlags, conf: &KanyunConf) -> Result<Option<Api>, BindError> {
    match flags.api_address(conf) {
        None => Ok(None),
        Some(address) => Api::bind(&address).await.map(Some),
    }
}

async fn bind_ingest(
    flags: &LegacyFlags,
    conf: &KanyunConf,
) -> Result<Option<Ingest>, IngestError> {
    match flags.ingest_address(conf) {
        None => Ok(None),
        Some(address) => Ingest::bind(&address, &flags.ingest_allow).await.map(Some),
    }
}

async fn ingest_failed(ingest: Option<&mut OpenIngest>) -> String {
    match ingest {
        Some(ingest) => ingest.failed().await,
        None => std::future::pending().await,
    }
}

fn open_api(api: Api, usage: &Arc<Usage>, shutdown: &Shutdown) -> Result<Door, Failure> {
    let address = api.address();
    let door = api.open(Arc::clone(usage), shutdown.clone())?;
    tracing::info!(%address, "the API of 2012 answers over ZeroMQ");
    Ok(door)
}

/// Waits until a door has failed; an end that was asked for is none.
async fn broken(door: Option<&mut Door>) -> String {
    if let Some(door) = door
        && let Err(why) = door.ended().await
    {
        return why;
    }
    std::future::pending().await
}

/// Waits until the store has failed for good: whoever supervises this process starts it again, and
/// the store recovers what was acknowledged.
async fn failed(engine: &Engine) -> String {
    let mut interval = tokio::time::interval(FAILURE_INTERVAL);
    loop {
        interval.tick().await;
        if let Some(why) = engine.failure() {
            return why;
        }
    }
}

/// Where reads put what does not fit into memory: on the disk that is there for data, else where
/// the system has its temporary files.
fn room(flags: &Flags, metrics: Metrics) -> Result<Room, Failure> {
    let folder = match (&flags.read_spill_path, flags.store) {
        (Some(folder), _) => folder.clone(),
        (None, StoreKind::Local) => flags.store_path.clone(),
        (None, StoreKind::Cassandra | StoreKind::Memory) => std::env::temp_dir(),
    };
    let room = Room::new(folder, metrics);
    room.check().map_err(Failure::Spill)?;
    Ok(room)
}

async fn open(
    flags: &Flags,
    layout: &Layout,
    (clock, metrics): (Clock, &Metrics),
) -> Result<Store, Failure> {
    Ok(match flags.store {
        StoreKind::Memory => {
            tracing::warn!("--store=memory forgets everything when the process ends");
            Store::Memory(Memory::new())
        }
        StoreKind::Local => {
            let settings =
                LocalSettings { folder: flags.store_path.clone(), sync: flags.store_sync.into() };
            let open = tokio::task::spawn_blocking(move || Local::open(&settings, clock));
            Store::Local(open.await.map_err(std::io::Error::other)??)
        }
        StoreKind::Cassandra => {
            let settings = cassandra_settings(flags, layout, metrics);
            Store::Cassandra(Box::new(Box::pin(Cassandra::open(settings, clock)).await?))
        }
    })
}

fn cassandra_settings(all: &Flags, layout: &Layout, metrics: &Metrics) -> CassandraSettings {
    let flags = &all.cassandra;
    let tls = flags.tls.then(|| TlsClient {
        ca_file: flags.tls_ca_file.clone(),
        identity: flags.tls_cert_file.clone().zip(flags.tls_key_file.clone()),
        server_name: flags.tls_server_name.clone(),
    });
    CassandraSettings {
        nodes: flags.nodes.clone(),
        datacenter: flags.datacenter.clone(),
        keyspace: flags.keyspace.clone(),
        create_schema: flags.create_schema,
        replication: flags.replication.clone(),
        login: flags.user.clone().zip(flags.password_file.clone()),
        index_shards: layout.index_shards,
        retention: all.retention,
        ledger_retention: all.ledger_retention,
        reads_only: false,
        head_ttl: flags.head_ttl,
        lease: all.seal_lease,
        tls,
        consistency: flags.consistency.into(),
        attempt: flags.timeout,
        connect: flags.connect_timeout,
        clock_difference_max: limits::CLUSTER_CLOCK_DIFFERENCE_MAX,
        metrics: metrics.cluster().clone(),
    }
}
