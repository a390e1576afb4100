//! One metric of a fleet by streamed remote_read: the last six hours, half of them sealed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adapter::wire::negotiate::Protocol;

use super::{HOUR_MS, Load, Programs, WINDOW_MS, forget_peak, median, until_sealed};
use crate::fleet::{INTERVAL_MS, Size};
use crate::remote;
use crate::sender::client;
use crate::server::{self, Kind, Server};

const HOURS: i64 = 7;
/// Of these two windows are sealed, and three hours are not.
const SEALED_MS: i64 = 2 * WINDOW_MS;
/// What ends before a store is made is late to it, and sealed when it has waited for so long: nothing is
/// while it arrives, whatever that takes.
const WHILE_LOADING: Duration = Duration::from_secs(24 * 3600);
const WHILE_SEALING: Duration = Duration::from_secs(1);
const ASKED_MS: i64 = 6 * HOUR_MS;
const KEYSPACE: &str = "bench_fleet";
const METRIC: &str = "libvirt_domain_info_cpu_time_seconds_total";
const TIMES: usize = 5;

/// Loads seven hours of a fleet and asks for the last six of one metric.
pub(crate) fn query(programs: Programs<'_>, guests: Size) -> Result<(), String> {
    let size = Size { scrapes: (HOURS * HOUR_MS / INTERVAL_MS) as usize, ..guests };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let begin_ms = (now() - HOURS * HOUR_MS) / WINDOW_MS * WINDOW_MS;
    let load = Load { size, start_ms: begin_ms + 5, protocol: Protocol::V2 };
    println!(
        "fleet: one metric of {} guests, 6 of {HOURS} hours, {} samples in all",
        size.guests(),
        size.samples()
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let start = |late_pause: Duration| {
        Server::start_with(Kind::Adapter, programs.adapter, folder.path(), |command| {
            let late_pause = format!("{}s", late_pause.as_secs());
            // What is not late is not due before the end.
            command.args(["--seal.grace=1d", "--seal.late-pause", &late_pause]);
            programs.keep(command, KEYSPACE);
        })
    };
    let load_part = |server: &Server, from_ms: i64, to_ms: i64| {
        let sent = load.send(&server.write_url(), (begin_ms + from_ms, begin_ms + to_ms))?;
        let peak = server::peak_mebibytes(server.pid())?;
        println!(
            "  {} hours loaded in {sent:.0} s, peak {peak:.0} MiB",
            (to_ms - from_ms) / HOUR_MS
        );
        Ok::<_, String>(())
    };
    let server = start(WHILE_LOADING)?;
    load_part(&server, 0, SEALED_MS)?;
    server.stop()?;
    let server = start(WHILE_SEALING)?;
    let (started, cpu) = (Instant::now(), server::cpu_seconds(server.pid())?);
    until_sealed(&server, load.samples_until(begin_ms + SEALED_MS))?;
    println!(
        "  these sealed in {:.0} s, {:.0} s of CPU, peak {:.0} MiB",
        started.elapsed().as_secs_f64(),
        server::cpu_seconds(server.pid())? - cpu,
        server::peak_mebibytes(server.pid())?,
    );
    server.stop()?;
    let server = start(WHILE_LOADING)?;
    load_part(&server, SEALED_MS, HOURS * HOUR_MS)?;
    // A process that has written nothing shows what a read alone takes.
    server.stop()?;
    let server = start(WHILE_LOADING)?;
    server::cpu_seconds_when_idle(server.pid())?;
    let end_ms = begin_ms + HOURS * HOUR_MS;
    ask(&server, size, (end_ms - ASKED_MS, end_ms))?;
    server.stop()?;
    if let Some(cluster) = programs.cluster {
        println!("  {}", cluster.kept(KEYSPACE, size.samples())?);
    }
    Ok(())
}

fn ask(server: &Server, size: Size, range: (i64, i64)) -> Result<(), String> {
    let pid = server.pid();
    let idle = forget_peak(pid)?;
    let (_, url) = server.read_door();
    let query = remote::query(range, &[("=", "__name__", METRIC)]);
    let body = remote::read_body(&[query], &[1]);
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..TIMES {
        let started = Instant::now();
        let mut answer = client()
            .post(&url)
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .send(&body[..])
            .map_err(|error| format!("{url}: {error}"))?;
        let status = answer.status();
        let frames = answer.body_mut().with_config().limit(4 << 30).read_to_vec();
        let frames = frames.map_err(|error| format!("{url}: {error}"))?;
        took.push(started.elapsed().as_secs_f64());
        bytes = frames.len();
        if status != 200 {
            return Err(format!("{url}: {status}: {}", String::from_utf8_lossy(&frames)));
        }
        let read = remote::streamed(&frames, 1).remove(0);
        let samples: usize = read.iter().map(|(_, samples)| samples.len()).sum();
        // A host that is scraped at the very begin may have one early sample in the range.
        let wanted = size.guests() * (ASKED_MS / INTERVAL_MS) as usize;
        if read.len() != size.guests() || samples.abs_diff(wanted) > size.guests() {
            return Err(format!("read {samples} samples of {} series", read.len()));
        }
    }
    let first = took[0];
    println!(
        "  {:.3} s (the first {first:.3}), {:.1} MiB of answer; peak {:.0} MiB above {idle:.0} MiB idle",
        median(took),
        bytes as f64 / f64::from(1 << 20),
        server::peak_mebibytes(pid)? - idle,
    );
    Ok(())
}
