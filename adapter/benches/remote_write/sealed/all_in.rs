//! Hours of a fleet, each window sent when the adapter's clock is at its end, so that windows are
//! sealed while the next is written; beside VictoriaMetrics with the same samples.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use adapter::wire::negotiate::Protocol;

use super::set_clock::SetClock;
use super::tables::{self, Tables};
use super::{HOUR_MS, Load, POLL, Programs, WINDOW_MS, metric, until_sealed};
use crate::fleet::{INTERVAL_MS, Size};
use crate::readback;
use crate::server::{self, Kind, MOVED_TO_MS, Server};
use crate::tally::{self, Likeness};

/// The first scrape comes so long after a window's begin that none is early enough to lie before it.
const AFTER_BEGIN_MS: i64 = 5;

/// What one server did.
#[derive(Debug, Default)]
struct Figures {
    samples: f64,
    cpu_seconds: f64,
    send_seconds: f64,
    peak_mebibytes: f64,
    /// From when a window was due to when all of it was sealed, seconds, window by window.
    lags: Vec<f64>,
    late_rows: f64,
    tables: Option<Tables>,
}

/// Measures the adapter with each protocol, after VictoriaMetrics where there is one.
pub(crate) fn all_in(
    programs: Programs<'_>,
    size: Size,
    protocols: &[Protocol],
) -> Result<(), String> {
    if !size.scrapes.is_multiple_of((WINDOW_MS / INTERVAL_MS) as usize) {
        return Err("--hours must be even: windows have two hours".to_owned());
    }
    println!(
        "all in: {} series of {} guests, {} hours, {} samples",
        size.series(),
        size.guests(),
        size.scrapes as i64 * INTERVAL_MS / HOUR_MS,
        size.samples()
    );
    let mut peer = None;
    if let Some(program) = programs.victoria_metrics {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 * 1_000;
        let start_ms = now - size.scrapes as i64 * INTERVAL_MS;
        let figures = victoria_metrics(program, Load { size, start_ms, protocol: Protocol::V1 })?;
        peer = Some(say("VictoriaMetrics", Protocol::V1, (&figures, None)));
    }
    for protocol in protocols {
        let load = Load { size, start_ms: MOVED_TO_MS + AFTER_BEGIN_MS, protocol: *protocol };
        let figures = adapter(programs, load)?;
        say("adapter", *protocol, (&figures, peer));
    }
    Ok(())
}

fn victoria_metrics(program: &std::path::Path, load: Load) -> Result<Figures, String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let server = Server::start(Kind::VictoriaMetrics, program, folder.path(), None)?;
    let before = server::cpu_seconds(server.pid())?;
    let send_seconds = load.send(&server.write_url(), load.range())?;
    let mut figures = figures(&server, load, before)?;
    figures.send_seconds = send_seconds;
    server.make_visible()?;
    read_back(&server, load)?;
    server.stop()?;
    Ok(figures)
}

fn adapter(programs: Programs<'_>, load: Load) -> Result<Figures, String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let clock = SetClock::new(programs.faketime, folder.path(), MOVED_TO_MS)?;
    let server = Server::start_with(Kind::Adapter, programs.adapter, folder.path(), |command| {
        clock.apply(command);
    })?;
    let before = server::cpu_seconds(server.pid())?;
    let (send_seconds, lags) = windows(&server, &clock, load)?;
    let mut figures = figures(&server, load, before)?;
    (figures.send_seconds, figures.lags) = (send_seconds, lags);
    figures.late_rows = metric(&server, "kanyun_adapter_late_rows_total")?;
    if read_back(&server, load)? != Likeness::Same {
        return Err("the adapter reads back other values".to_owned());
    }
    let data = server.stop()?;
    figures.tables = Some(tables::compacted(&data)?);
    Ok(figures)
}

/// Sends window after window and waits until the last one is sealed; gives the seconds of sending,
/// and for each window those from when it was due to when it was sealed.
fn windows(server: &Server, clock: &SetClock, load: Load) -> Result<(f64, Vec<f64>), String> {
    let count = load.size.scrapes as i64 * INTERVAL_MS / WINDOW_MS;
    let per_window = load.size.samples() / count as usize;
    let sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watched = scope.spawn(|| watch(server, &sent));
        let (mut seconds, mut due) = (0.0, Vec::new());
        let mut all = || {
            for window in 0..count {
                let end_ms = MOVED_TO_MS + (window + 1) * WINDOW_MS;
                clock.set(server, end_ms)?;
                due.push(Instant::now());
                seconds += load.send(&server.write_url(), (end_ms - WINDOW_MS, end_ms))?;
            }
            clock.set(server, MOVED_TO_MS + count * WINDOW_MS + HOUR_MS)?;
            due.push(Instant::now());
            until_sealed(server, load.size.samples())
        };
        let result = all();
        sent.store(true, Ordering::SeqCst);
        let progress = watched.join().unwrap();
        result?;
        // The first mark is where the first window begins to be sent: nothing is due then.
        let lags = due.iter().skip(1).zip(1..).map(|(due, windows)| {
            let sealed = (per_window * windows) as f64;
            let at = progress.iter().find(|(_, samples)| *samples >= sealed);
            at.map_or(0.0, |(at, _)| at.saturating_duration_since(*due).as_secs_f64())
        });
        Ok((seconds, lags.collect()))
    })
}

/// How many samples were sealed, and when.
fn watch(server: &Server, ended: &AtomicBool) -> Vec<(Instant, f64)> {
    let mut progress = Vec::new();
    loop {
        let last = ended.load(Ordering::SeqCst);
        // A server that does not answer is an error of the other thread.
        if let Ok(samples) = metric(server, "kanyun_adapter_sealed_samples_total") {
            progress.push((Instant::now(), samples));
        }
        if last {
            return progress;
        }
        std::thread::sleep(POLL);
    }
}

fn figures(server: &Server, load: Load, before: f64) -> Result<Figures, String> {
    Ok(Figures {
        samples: load.size.samples() as f64,
        cpu_seconds: server::cpu_seconds_when_idle(server.pid())? - before,
        peak_mebibytes: server::peak_mebibytes(server.pid())?,
        ..Figures::default()
    })
}

fn read_back(server: &Server, load: Load) -> Result<Likeness, String> {
    let (door, url) = server.read_door();
    let expected = tally::expected(load.size, load.start_ms);
    readback::check(door, &url, load.range(), &expected)
}

/// Prints one server's figures; gives its samples per CPU-second.
fn say(name: &str, protocol: Protocol, (figures, peer): (&Figures, Option<f64>)) -> f64 {
    let Figures { samples, cpu_seconds, .. } = figures;
    let rate = samples / cpu_seconds;
    let ratio = peer.map_or_else(String::new, |peer| format!(" ({:.2} x the peer)", rate / peer));
    println!(
        "{name} {protocol:?}: {:.0} k samples/CPU-s{ratio}, sent in {:.1} s, peak {:.0} MiB, read back",
        rate / 1e3,
        figures.send_seconds,
        figures.peak_mebibytes,
    );
    if let Some(tables) = figures.tables {
        let each = |bytes: u64| bytes as f64 / samples;
        println!(
            "  bytes a sample: chunks {:.3} + index {:.3} = {:.3}; ledger {:.3}; rest {:.3}; head {:.2} until it is dropped",
            each(tables.chunks),
            each(tables.index),
            each(tables.chunks + tables.index),
            each(tables.ledger),
            each(tables.rest),
            each(tables.head),
        );
        let lags: Vec<String> = figures.lags.iter().map(|lag| format!("{lag:.1}")).collect();
        println!("  sealed after s: {}; late rows: {}", lags.join(" "), figures.late_rows);
    }
    rate
}
