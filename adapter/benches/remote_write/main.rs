//! `make bench`: drives remote_write with the series of a fleet of guests and says what a sample
//! costs the server: samples per CPU-second, memory, disk. Reads every sample back by checksum.
//! Figures and how to read them: docs/benchmarks.md.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench ends loudly, reads the clock and waits by it"
)]

mod bodies;
mod cassandra;
#[path = "../../tests/parts/cassandra_node.rs"]
mod cassandra_node;
mod chunks;
mod churn;
mod disk;
mod fleet;
mod index;
mod readback;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../../tests/it/remote.rs"]
mod remote;
mod report;
mod scale;
mod sealed;
mod sender;
mod server;
mod tally;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use adapter::wire::negotiate::Protocol;
use clap::Parser;

use cassandra::Cluster;
use disk::Disk;
use fleet::{INTERVAL_MS, Size};
use readback::Door;
use report::Round;
use sealed::{Mode, Programs};
use server::{Kind, MOVED_TO_MS, MovedClock, Server};
use tally::{Likeness, Tally};

/// Measures what a remote_write server spends on the samples of a fleet of guests
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Flags {
    /// A small round against the adapter alone, to see that it works
    #[arg(long)]
    quick: bool,
    /// Sealed chunks alone: what a sample takes in bytes and in time
    #[arg(long)]
    chunks: bool,
    /// What a sample costs the adapter at 10 thousand, 100 thousand and a million series
    #[arg(long, conflicts_with_all = ["quick", "url", "moved_clock"])]
    scale: bool,
    /// The adapter on a Cassandra node: with --report or --fleet, that; else beside writers of single
    /// rows and of batches
    #[arg(long, conflicts_with_all = ["url", "moved_clock", "sealed"])]
    cassandra: bool,
    /// Guests, 60 series each
    #[arg(long, default_value_t = 1_000, default_value_ifs = [("sealed", "true", "100"), ("fleet", "true", "100")])]
    guests: usize,
    /// Guests of one host, which are scraped together
    #[arg(long, default_value_t = 25)]
    guests_per_host: usize,
    /// Scrapes of each host, 15 s apart
    #[arg(long, default_value_t = 60)]
    scrapes: usize,
    /// Versions of remote_write to measure: 1.0, 2.0
    #[arg(long, value_delimiter = ',', default_value = "1.0,2.0")]
    protocols: Vec<String>,
    /// Numbers of concurrent senders that the series are spread over
    #[arg(long, value_delimiter = ',', default_value = "1,10,50")]
    shards: Vec<usize>,
    /// Program of VictoriaMetrics, measured in the same run with 1.0 and one shard
    #[arg(long, value_name = "FILE")]
    victoria_metrics: Option<PathBuf>,
    /// libfaketimeMT.so.1: moves the adapter's clock to a fixed day, so that it is sent the same bytes
    /// in every run
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    moved_clock: Option<PathBuf>,
    /// Any remote_write address, measured instead of the adapter
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Process of that server, for its CPU time and memory
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Option<u32>,
    /// Data folder of that server, for its size
    #[arg(long, value_name = "FOLDER", requires = "url")]
    data: Option<PathBuf>,
    /// Where that server gives samples back by streamed remote_read
    #[arg(long, value_name = "URL", requires = "url")]
    read_url: Option<String>,
    /// Where that server gives samples back as VictoriaMetrics' export API does
    #[arg(long, value_name = "URL", requires = "url", conflicts_with = "read_url")]
    export_url: Option<String>,
    /// Instead: queries and starts with a million series of one metric, in so many weeks
    #[arg(long, value_name = "WEEKS", num_args = 0..=1, default_missing_value = "5")]
    index: Option<usize>,
    /// Instead: memory over so many generations of guests that are gone
    #[arg(long, value_name = "GENERATIONS", num_args = 0..=1, default_missing_value = "30")]
    churn: Option<usize>,
    #[command(flatten)]
    sealed: sealed::Flags,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut flags = Flags::parse();
    if flags.quick {
        flags.guests = 40;
        flags.guests_per_host = 10;
        flags.scrapes = 12;
        flags.shards = vec![1, 7];
    }
    let ended = if flags.chunks { chunks::measure() } else { run(&flags) };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that the rounds of one server share.
struct Course<'a> {
    size: Size,
    start_ms: i64,
    expected: BTreeMap<String, Tally>,
    clock: Option<MovedClock<'a>>,
}

fn run(flags: &Flags) -> Result<(), String> {
    if flags.scale {
        for name in &flags.protocols {
            scale::run(protocol(name)?, flags.guests_per_host.max(1))?;
        }
        return Ok(());
    }
    let adapter = Path::new(env!("CARGO_BIN_EXE_kanyun-adapter"));
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 * 1_000;
    if let Some(weeks) = flags.index {
        return index::run(adapter, index::Size { guests: 17 * flags.guests, weeks }, now_ms);
    }
    if let Some(generations) = flags.churn {
        return churn::run(adapter, 2 * flags.guests, generations, now_ms);
    }
    if let Some(mode) = flags.sealed.mode() {
        let cluster = if flags.cassandra { Some(Cluster::start()?) } else { None };
        return with_sealing(flags, mode, cluster.as_ref());
    }
    let course = course(flags)?;
    let moved = flags.moved_clock.as_deref().map(|library| course.moved(MovedClock { library }));
    let protocols =
        flags.protocols.iter().map(|name| protocol(name)).collect::<Result<Vec<_>, _>>()?;
    if flags.cassandra {
        let rounds = cassandra::Rounds { adapter, protocols: &protocols, shards: &flags.shards };
        return cassandra::run(&rounds, &course);
    }
    report::heading(course.size);
    if let Some(url) = &flags.url {
        for protocol in protocols {
            for shards in &flags.shards {
                report::line(&elsewhere(flags, url, &course, (protocol, *shards))?, None);
            }
        }
        return Ok(());
    }
    let mut peer = None;
    if let Some(program) = &flags.victoria_metrics {
        let round = own(Kind::VictoriaMetrics, program, &course, (Protocol::V1, 1))?;
        report::line(&round, None);
        peer = Some(round);
    }
    for protocol in protocols {
        for shards in &flags.shards {
            let course = moved.as_ref().unwrap_or(&course);
            let round = own(Kind::Adapter, adapter, course, (protocol, *shards))?;
            report::line(&round, peer.as_ref());
        }
    }
    if flags.quick {
        // Late samples are sealed without a clock that is moved: a day, and the report over it.
        with_sealing(flags, Mode::Bill { days: 1 }, None)?;
    }
    Ok(())
}

fn with_sealing(flags: &Flags, mode: Mode, cluster: Option<&Cluster>) -> Result<(), String> {
    let programs = Programs {
        adapter: Path::new(env!("CARGO_BIN_EXE_kanyun-adapter")),
        victoria_metrics: flags.victoria_metrics.as_deref(),
        faketime: if matches!(mode, Mode::AllIn { .. }) {
            flags.sealed.faketime()?
        } else {
            Path::new("")
        },
        cluster,
    };
    match mode {
        Mode::AllIn { hours } => {
            let scrapes = hours * 3_600_000 / INTERVAL_MS as usize;
            let protocols = flags.protocols.iter().map(|name| protocol(name));
            let protocols = protocols.collect::<Result<Vec<_>, _>>()?;
            sealed::all_in(programs, size(flags, scrapes)?, &protocols)
        }
        Mode::Bill { days } => sealed::bill(programs, days),
        Mode::Query => sealed::query(programs, size(flags, 1)?),
    }
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "1.0" => Ok(Protocol::V1),
        "2.0" => Ok(Protocol::V2),
        other => Err(format!("--protocols knows 1.0 and 2.0, not {other}")),
    }
}

fn size(flags: &Flags, scrapes: usize) -> Result<Size, String> {
    let hosts = flags.guests / flags.guests_per_host.max(1);
    let size = Size { hosts, guests_per_host: flags.guests_per_host, scrapes };
    if size.samples() == 0 || size.guests() != flags.guests {
        return Err(
            "--guests must be a multiple of --guests-per-host, and none of them 0".to_owned()
        );
    }
    Ok(size)
}

fn course(flags: &Flags) -> Result<Course<'static>, String> {
    Ok(course_of(size(flags, flags.scrapes)?))
}

/// The last scrape is the present, so that no server takes a sample for early, and none for later
/// than the bench is long.
fn course_of(size: Size) -> Course<'static> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = now.as_secs() as i64 * 1_000;
    let start_ms = now_ms - size.scrapes as i64 * INTERVAL_MS;
    Course { size, start_ms, expected: tally::expected(size, start_ms), clock: None }
}

impl Course<'_> {
    /// The same for a server whose clock is moved.
    fn moved<'a>(&self, clock: MovedClock<'a>) -> Course<'a> {
        let start_ms = MOVED_TO_MS - self.size.scrapes as i64 * INTERVAL_MS;
        let expected = tally::expected(self.size, start_ms);
        Course { size: self.size, start_ms, expected, clock: Some(clock) }
    }

    /// A range that holds every sample.
    fn range(&self) -> (i64, i64) {
        let end_ms = self.start_ms + (self.size.scrapes as i64 + 1) * INTERVAL_MS;
        (self.start_ms - INTERVAL_MS, end_ms)
    }
}

/// Measures a server that is started for it.
fn own(
    kind: Kind,
    program: &Path,
    course: &Course<'_>,
    (protocol, shards): (Protocol, usize),
) -> Result<Round, String> {
    let requests = bodies::make(course.size, course.start_ms, protocol, shards);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let server = Server::start(kind, program, folder.path(), course.clock)?;
    let pid = server.pid();
    let mut round = Round::new(&format!("{kind:?}"), (protocol, shards), &requests);
    let before = server::cpu_seconds(pid)?;
    let sent = sender::send(&server.write_url(), protocol, shards, requests)?;
    round.sent = Some(sent);
    round.cpu_at_last_answer = Some(server::cpu_seconds(pid)? - before);
    round.cpu_when_idle = Some(server::cpu_seconds_when_idle(pid)? - before);
    round.peak_mebibytes = Some(server::peak_mebibytes(pid)?);
    server.make_visible()?;
    let (door, url) = server.read_door();
    let read = readback::check(door, &url, course.range(), &course.expected);
    round.read_back = Some(read.map_err(|why| {
        format!("{kind:?} {protocol:?} with {shards} shards reads back wrong:\n{why}")
    })?);
    // A value that a server of ours rounds is as wrong as one that it loses.
    if kind == Kind::Adapter && round.read_back != Some(Likeness::Same) {
        return Err(format!("{protocol:?} with {shards} shards reads back other values"));
    }
    let data = server.stop()?;
    let folder = disk::allocated(&data)?;
    let tables = match kind {
        Kind::Adapter => Some(disk::tables(&data).map_err(|error| error.to_string())?),
        Kind::VictoriaMetrics => None,
    };
    round.disk = Some(Disk { folder, tables });
    Ok(round)
}

/// Measures a server that somebody else runs.
fn elsewhere(
    flags: &Flags,
    url: &str,
    course: &Course<'_>,
    (protocol, shards): (Protocol, usize),
) -> Result<Round, String> {
    let requests = bodies::make(course.size, course.start_ms, protocol, shards);
    let mut round = Round::new(url, (protocol, shards), &requests);
    let cpu = || flags.pid.map(server::cpu_seconds).transpose();
    let before = cpu()?;
    round.sent = Some(sender::send(url, protocol, shards, requests)?);
    round.cpu_at_last_answer = cpu()?.zip(before).map(|(now, before)| now - before);
    if let Some((pid, before)) = flags.pid.zip(before) {
        round.cpu_when_idle = Some(server::cpu_seconds_when_idle(pid)? - before);
        round.peak_mebibytes = Some(server::peak_mebibytes(pid)?);
    }
    let door = flags.read_url.as_ref().map(|url| (Door::RemoteRead, url));
    let door = door.or(flags.export_url.as_ref().map(|url| (Door::Export, url)));
    if let Some((door, url)) = door {
        round.read_back = Some(readback::check(door, url, course.range(), &course.expected)?);
    }
    if let Some(data) = &flags.data {
        round.disk = Some(Disk { folder: disk::allocated(data)?, tables: None });
    }
    Ok(round)
}
