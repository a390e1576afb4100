//! One Cassandra node: samples a second through the adapter, beside a writer of one row a sample and
//! one of rows in batches of a guest's scrape, all on the same node in one run; and what a sample
//! takes there after compaction.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adapter::wire::negotiate::Protocol;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cassandra_node::{Node, Plan};
use crate::fleet::{self, Point, SERIES_PER_GUEST};
use crate::report::{self, Round};
use crate::server::{Kind, Server};
use crate::{Course, bodies, disk, readback, sender, server};

/// Statements of a comparison writer under way, as the adapter has batches.
const IN_FLIGHT: usize = 256;
/// Samples of the writer of single rows: more would take minutes and say the same.
const SINGLE_ROWS: usize = 200_000;
/// Samples of the writer of batches.
const BATCHED_ROWS: usize = 1_500_000;

/// Which rounds.
#[derive(Debug)]
pub(crate) struct Rounds<'a> {
    pub(crate) adapter: &'a Path,
    pub(crate) protocols: &'a [Protocol],
    pub(crate) shards: &'a [usize],
}

/// Measures all of it.
pub(crate) fn run(rounds: &Rounds<'_>, course: &Course<'_>) -> Result<(), String> {
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let plan = Plan { folder: Some(data.path().to_owned()), ..Plan::alone() };
    let jmx = plan.ports[2];
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let Some(node) = runtime.block_on(Node::start(plan)) else {
        return Err("no Cassandra node can be started: see `scripts/tools env`".to_owned());
    };
    let single = runtime.block_on(written(&node, course, 1, SINGLE_ROWS))?;
    println!("one row a sample                    {single:>11.0} samples/s");
    let batched = runtime.block_on(written(&node, course, SERIES_PER_GUEST, BATCHED_ROWS))?;
    println!("rows of a scrape in one batch       {batched:>11.0} samples/s");
    report::heading(course.size);
    for protocol in rounds.protocols {
        for shards in rounds.shards {
            let keyspace = format!("bench_{}_{shards}", u8::from(*protocol == Protocol::V2) + 1);
            let (round, rate) =
                through(rounds.adapter, &node, course, (*protocol, *shards), &keyspace)?;
            report::line(&round, None);
            println!(
                "  {:.1} times one row a sample, {:.1} times rows in batches; {}",
                rate / single,
                rate / batched,
                sizes(data.path(), jmx, &keyspace, course.size.samples())?
            );
        }
    }
    Ok(())
}

/// A round through the adapter, and its samples a second.
fn through(
    adapter: &Path,
    node: &Node,
    course: &Course<'_>,
    (protocol, shards): (Protocol, usize),
    keyspace: &str,
) -> Result<(Round, f64), String> {
    let requests = bodies::make(course.size, course.start_ms, protocol, shards);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let server = Server::start_with(Kind::Adapter, adapter, folder.path(), |command| {
        command.args(["--store=cassandra", "--cassandra.create-schema"]);
        command.arg(format!("--cassandra.nodes={}", node.address));
        command.arg(format!("--cassandra.keyspace={keyspace}"));
    })?;
    let pid = server.pid();
    let mut round = Round::new("Cassandra", (protocol, shards), &requests);
    let before = server::cpu_seconds(pid)?;
    let sent = sender::send(&server.write_url(), protocol, shards, requests)?;
    round.sent = Some(sent);
    round.cpu_at_last_answer = Some(server::cpu_seconds(pid)? - before);
    round.peak_mebibytes = Some(server::peak_mebibytes(pid)?);
    let (door, url) = server.read_door();
    round.read_back = Some(readback::check(door, &url, course.range(), &course.expected)?);
    server.stop()?;
    Ok((round, course.size.samples() as f64 / sent.elapsed.as_secs_f64()))
}

/// Samples a second of a writer that puts so many rows of one partition into a statement.
async fn written(
    node: &Node,
    course: &Course<'_>,
    rows: usize,
    samples_max: usize,
) -> Result<f64, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let session = SessionBuilder::new().known_node(&node.address).build().await;
    let session = Arc::new(session.map_err(|error| text(&error))?);
    let table = format!("plain.rows_{rows}");
    for cql in [
        "CREATE KEYSPACE IF NOT EXISTS plain WITH replication = \
         {'class': 'SimpleStrategy', 'replication_factor': 1}"
            .to_owned(),
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (guest bigint, hour int, series int, ts bigint, \
             value double, PRIMARY KEY ((guest, hour), series, ts))"
        ),
    ] {
        session.query_unpaged(cql, ()).await.map_err(|error| text(&error))?;
    }
    let insert =
        format!("INSERT INTO {table} (guest, hour, series, ts, value) VALUES (?, ?, ?, ?, ?)");
    let insert = session.prepare(insert).await.map_err(|error| text(&error))?;
    let mut statements: Vec<Vec<Values>> = Vec::new();
    let mut samples = 0;
    fleet::play(course.size, course.start_ms, |Point { guest, place, timestamp_ms, value }| {
        if samples == samples_max {
            return;
        }
        samples += 1;
        let hour = (timestamp_ms / 3_600_000) as i32;
        let row = (guest as i64, hour, place as i32, timestamp_ms, value);
        match statements.last_mut() {
            Some(last) if last.len() < rows && (last[0].0, last[0].1) == (row.0, row.1) => {
                last.push(row);
            }
            _ => statements.push(vec![row]),
        }
    });
    let started = Instant::now();
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut writing = JoinSet::new();
    for rows in statements {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(|error| text(&error))?;
        while let Some(ended) = writing.try_join_next() {
            ended.map_err(|error| text(&error))??;
        }
        let (session, insert) = (Arc::clone(&session), insert.clone());
        writing.spawn(async move {
            let written = write(&session, &insert, &rows).await;
            drop(slot);
            written
        });
    }
    while let Some(ended) = writing.join_next().await {
        ended.map_err(|error| text(&error))??;
    }
    Ok(samples as f64 / started.elapsed().as_secs_f64())
}

type Values = (i64, i32, i32, i64, f64);

async fn write(
    session: &Session,
    insert: &PreparedStatement,
    rows: &[Values],
) -> Result<(), String> {
    let one = |error: scylla::errors::ExecutionError| error.to_string();
    if let [row] = rows {
        return session.execute_unpaged(insert, row).await.map(drop).map_err(one);
    }
    let statements = vec![BatchStatement::PreparedStatement(insert.clone()); rows.len()];
    let batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    session.batch(&batch, rows).await.map(drop).map_err(one)
}

/// Bytes a sample of each table that takes any, after all of it was compacted.
fn sizes(data: &Path, jmx: u16, keyspace: &str, samples: usize) -> Result<String, String> {
    for command in ["flush", "compact"] {
        nodetool(jmx, &[command, keyspace])?;
    }
    let folder = data.join("data").join(keyspace);
    let tables = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut sizes = Vec::new();
    for table in tables {
        let table: PathBuf = table.map_err(|error| error.to_string())?.path();
        let bytes = disk::allocated(&table)? as f64 / samples as f64;
        let name = table.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.split('-').next().unwrap_or_default().to_owned();
        if bytes >= 0.01 {
            sizes.push(format!("{name} {bytes:.2}"));
        }
    }
    sizes.sort();
    Ok(format!("bytes a sample: {}", sizes.join(", ")))
}

fn nodetool(jmx: u16, arguments: &[&str]) -> Result<(), String> {
    let env = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let java = env("KANYUN_JAVA").unwrap_or_else(|_| "java".to_owned());
    let began = Instant::now();
    let output = Command::new(java)
        .args(["-cp", &format!("{}/*", env("KANYUN_CASSANDRA_LIB")?)])
        .args(["org.apache.cassandra.tools.NodeTool", "-h", "127.0.0.1", "-p", &jmx.to_string()])
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() || began.elapsed() > Duration::from_secs(600) {
        return Err(format!("nodetool: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}
