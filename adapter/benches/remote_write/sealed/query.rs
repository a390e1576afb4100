//! One metric of a fleet by streamed remote_read: the last six hours, half of them sealed.

use std::time::Instant;

use adapter::wire::negotiate::Protocol;

use super::set_clock::SetClock;
use super::{HOUR_MS, Load, Programs, WINDOW_MS, forget_peak, median, until_sealed};
use crate::fleet::{INTERVAL_MS, Size};
use crate::remote;
use crate::sender::client;
use crate::server::{self, Kind, MOVED_TO_MS, Server};

/// Two windows are sealed, and three hours are not, because their grace is not over.
const HOURS: i64 = 7;
const SEALED_MS: i64 = 2 * WINDOW_MS;
const GRACE: &str = "2h";
const ASKED_MS: i64 = 6 * HOUR_MS;
const METRIC: &str = "libvirt_domain_info_cpu_time_seconds_total";
const TIMES: usize = 5;

/// Loads seven hours of a fleet and asks for the last six of one metric.
pub(crate) fn query(programs: Programs<'_>, guests: Size) -> Result<(), String> {
    let size = Size { scrapes: (HOURS * HOUR_MS / INTERVAL_MS) as usize, ..guests };
    let load = Load { size, start_ms: MOVED_TO_MS + 5, protocol: Protocol::V2 };
    println!(
        "fleet: one metric of {} guests, 6 of {HOURS} hours, {} samples in all",
        size.guests(),
        size.samples()
    );
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let clock = SetClock::new(programs.faketime, folder.path(), MOVED_TO_MS)?;
    let start = || {
        Server::start_with(Kind::Adapter, programs.adapter, folder.path(), |command| {
            command.args(["--seal.grace", GRACE]);
            clock.apply(command);
        })
    };
    let server = start()?;
    for hour in 0..HOURS {
        let from_ms = MOVED_TO_MS + hour * HOUR_MS;
        clock.set(&server, from_ms + HOUR_MS)?;
        load.send(&server.write_url(), (from_ms, from_ms + HOUR_MS))?;
    }
    let sealed = size.samples() * SEALED_MS as usize / (HOURS * HOUR_MS) as usize;
    until_sealed(&server, sealed)?;
    // A process that has written nothing shows what a read alone takes.
    server.stop()?;
    let server = start()?;
    server::cpu_seconds_when_idle(server.pid())?;
    let end_ms = MOVED_TO_MS + HOURS * HOUR_MS;
    ask(&server, size, (end_ms - ASKED_MS, end_ms))?;
    server.stop()?;
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
