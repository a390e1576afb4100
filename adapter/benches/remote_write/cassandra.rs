//! The adapter on a Cassandra node of the bench's own: samples a second, beside a writer of one row a
//! sample and one of rows in batches of a guest's scrape, all on the same node in one run; what a
//! sample takes there after compaction, and the largest partitions.

mod plain;
mod tables;

use std::path::Path;
use std::process::Command;

use adapter::wire::negotiate::Protocol;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cassandra_node::{Node, Plan};
use crate::fleet::{INTERVAL_MS, SERIES_PER_GUEST};
use crate::report::{self, Round};
use crate::server::{Kind, Server};
use crate::{Course, bodies, readback, sender, server};

/// What Cassandra would give itself on a machine of 16 GiB.
const HEAP: &str = "4G";
/// Samples of the writer of single rows: more would take minutes and say the same.
const SINGLE_ROWS: usize = 200_000;
/// Samples of the writer of batches.
const BATCHED_ROWS: usize = 1_500_000;

/// A node that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    node: Node,
    data: TempDir,
    jmx: u16,
    runtime: Runtime,
}

impl Cluster {
    /// Starts a node and waits until it answers.
    pub(crate) fn start() -> Result<Cluster, String> {
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
        let folder = Some(data.path().to_owned());
        let plan = Plan { folder, heap: HEAP, ..Plan::alone() };
        let jmx = plan.ports[2];
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let Some(node) = runtime.block_on(Node::start(plan)) else {
            return Err("no Cassandra node can be started: see `scripts/tools env`".to_owned());
        };
        Ok(Cluster { node, data, jmx, runtime })
    }

    /// Has an adapter keep its rows in a keyspace there.
    pub(crate) fn apply(&self, command: &mut Command, keyspace: &str) {
        command.args(["--store=cassandra", "--cassandra.create-schema"]);
        command.arg(format!("--cassandra.nodes={}", self.node.address));
        command.arg(format!("--cassandra.keyspace={keyspace}"));
    }

    /// Compacts a keyspace and says what its tables take, and the largest partition of each.
    pub(crate) fn kept(&self, keyspace: &str, samples: usize) -> Result<String, String> {
        let node = (self.data.path(), self.jmx);
        for command in ["flush", "compact"] {
            tables::nodetool(node, &[command, keyspace])?;
        }
        let sizes = tables::sizes(&self.data.path().join("data").join(keyspace), samples)?;
        let rows = self.runtime.block_on(tables::most_rows(&self.node.address, keyspace))?;
        let bytes = tables::most_bytes(node, keyspace)?;
        Ok(format!("bytes a sample: {sizes}\n  largest partition: {}", tables::said(&rows, &bytes)))
    }
}

/// Which rounds.
#[derive(Debug)]
pub(crate) struct Rounds<'a> {
    pub(crate) adapter: &'a Path,
    pub(crate) protocols: &'a [Protocol],
    pub(crate) shards: &'a [usize],
}

/// Measures all of it.
pub(crate) fn run(rounds: &Rounds<'_>, course: &Course<'_>) -> Result<(), String> {
    let cluster = Cluster::start()?;
    let written = |rows, samples| {
        cluster.runtime.block_on(plain::written(&cluster.node, course, rows, samples))
    };
    // A node that was just started is several times slower than one whose code is compiled.
    let (single, batched) = (written(1, SINGLE_ROWS)?, written(SERIES_PER_GUEST, BATCHED_ROWS)?);
    println!("to warm up: {single:.0} and {batched:.0} samples/s");
    let (single, batched) = (written(1, SINGLE_ROWS)?, written(SERIES_PER_GUEST, BATCHED_ROWS)?);
    println!("one row a sample                    {single:>11.0} samples/s");
    println!("rows of a scrape in one batch       {batched:>11.0} samples/s");
    report::heading(course.size);
    for protocol in rounds.protocols {
        for shards in rounds.shards {
            let keyspace = format!("bench_{}_{shards}", u8::from(*protocol == Protocol::V2) + 1);
            let keep = Keep { cluster: &cluster, keyspace: &keyspace };
            let passed = through(rounds.adapter, keep, course, (*protocol, *shards))?;
            report::line(&passed.round, None);
            let times = |rate: f64| format!("{:.1} and {:.1}", rate / single, rate / batched);
            println!(
                "  {} times the two writers; {} new series before it in {:.1} s, with which {}; {}",
                times(passed.later),
                course.size.series(),
                passed.new_seconds,
                times(passed.all),
                cluster.kept(&keyspace, course.size.samples())?
            );
        }
    }
    Ok(())
}

/// Where a round's rows go.
#[derive(Clone, Copy, Debug)]
struct Keep<'a> {
    cluster: &'a Cluster,
    keyspace: &'a str,
}

/// What a round through the adapter was like.
#[derive(Debug)]
struct Passed {
    /// Of all samples but the first of each series.
    round: Round,
    /// Their samples a second.
    later: f64,
    /// Samples a second of all, the first included.
    all: f64,
    /// How long the first sample of each series took, which puts it into the index once a week.
    new_seconds: f64,
}

fn through(
    adapter: &Path,
    keep: Keep<'_>,
    course: &Course<'_>,
    (protocol, shards): (Protocol, usize),
) -> Result<Passed, String> {
    // No sample is so late that its series would be new after this.
    let known_ms = course.start_ms + INTERVAL_MS + 1_000;
    let part = |part| bodies::within(course.size, course.start_ms, (part, protocol, shards));
    let (first, later) = (part(i64::MIN..known_ms), part(known_ms..i64::MAX));
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let server = Server::start_with(Kind::Adapter, adapter, folder.path(), |command| {
        keep.cluster.apply(command, keep.keyspace);
    })?;
    let pid = server.pid();
    let new_seconds =
        sender::send(&server.write_url(), protocol, shards, first)?.elapsed.as_secs_f64();
    let mut round = Round::new("Cassandra", (protocol, shards), &later);
    let before = server::cpu_seconds(pid)?;
    let samples = later.iter().map(|request| request.samples).sum::<usize>();
    let sent = sender::send(&server.write_url(), protocol, shards, later)?;
    round.sent = Some(sent);
    round.cpu_at_last_answer = Some(server::cpu_seconds(pid)? - before);
    round.peak_mebibytes = Some(server::peak_mebibytes(pid)?);
    let (door, url) = server.read_door();
    round.read_back = Some(readback::check(door, &url, course.range(), &course.expected)?);
    server.stop()?;
    let seconds = sent.elapsed.as_secs_f64();
    let all = course.size.samples() as f64 / (seconds + new_seconds);
    Ok(Passed { round, later: samples as f64 / seconds, all, new_seconds })
}
