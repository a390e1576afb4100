//! A usage report of one guest over a month, loaded as late samples: before anything is sealed, and
//! when all but the present window is. Both must say the same.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use adapter::model::instant;
use adapter::wire::negotiate::Protocol;

use super::{Load, Programs, WINDOW_MS, median, metric, until_sealed};
use crate::fleet::{self, INTERVAL_MS, Size};
use crate::readback;
use crate::sender::client;
use crate::server::{self, Kind, Server};
use crate::tally::{self, Likeness};

/// The default of --seal.grace.
const GRACE_MS: i64 = 15 * 60_000;
/// How often each report is asked for.
const TIMES: usize = 9;
const KEYSPACE: &str = "bench_report";
const METRICS: [&str; 3] = ["nic_outgoing", "cpu", "blk_write"];

/// Measures reports of one guest over so many days.
pub(crate) fn bill(programs: Programs<'_>, days: usize) -> Result<(), String> {
    let scrapes = days * (86_400_000 / INTERVAL_MS) as usize;
    let size = Size { hosts: 1, guests_per_host: 1, scrapes };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 * 1_000;
    // Whole minutes, all of them in the past.
    let start_ms = (now - scrapes as i64 * INTERVAL_MS) / 60_000 * 60_000 - 60_000;
    let load = Load { size, start_ms, protocol: Protocol::V2 };
    println!("report: one guest, 60 series, {days} days, {} samples", size.samples());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let start = |pause: &str| {
        Server::start_with(Kind::Adapter, programs.adapter, folder.path(), |command| {
            command.args(["--seal.late-pause", pause]);
            programs.keep(command, KEYSPACE);
        })
    };
    let server = start("1d")?;
    let sent = load.send(&server.write_url(), load.range())?;
    println!(
        "  loaded in {sent:.1} s; late rows {}",
        metric(&server, "kanyun_adapter_late_rows_total")?
    );
    let before = reports(&server, load, "before sealing")?;
    server.stop()?;

    let server = start("10ms")?;
    let started = Instant::now();
    let cpu = server::cpu_seconds(server.pid())?;
    until_sealed(&server, load.samples_until((now - GRACE_MS) / WINDOW_MS * WINDOW_MS))?;
    until_nothing_is_late(&server)?;
    println!(
        "  sealed in {:.1} s, {:.1} s of CPU; {} rows of the ledger, peak {:.0} MiB",
        started.elapsed().as_secs_f64(),
        server::cpu_seconds(server.pid())? - cpu,
        metric(&server, "kanyun_adapter_ledger_rows_total")?,
        server::peak_mebibytes(server.pid())?,
    );
    let after = reports(&server, load, "after sealing")?;
    if before != after {
        return Err("the reports before and after sealing differ".to_owned());
    }
    let (door, url) = server.read_door();
    let read = readback::check(door, &url, load.range(), &tally::expected(size, start_ms))?;
    if read != Likeness::Same {
        return Err("the adapter reads back other values".to_owned());
    }
    server.stop()?;
    if let Some(cluster) = programs.cluster {
        println!("  {}", cluster.kept(KEYSPACE, size.samples())?);
    }
    Ok(())
}

fn until_nothing_is_late(server: &Server) -> Result<(), String> {
    let started = Instant::now();
    loop {
        // The window of the present may have late rows, which wait for its end.
        let sealed = metric(server, "kanyun_adapter_sealed_windows_total")?;
        std::thread::sleep(super::POLL * 10);
        if metric(server, "kanyun_adapter_sealed_windows_total")? <= sealed {
            return Ok(());
        }
        if started.elapsed() > super::PATIENCE {
            return Err("sealing does not come to an end".to_owned());
        }
    }
}

/// The bodies of the reports; says how long each takes.
fn reports(server: &Server, load: Load, when: &str) -> Result<Vec<String>, String> {
    let labels = fleet::labels(load.size, 0, 0);
    let id =
        labels.iter().find(|(name, _)| name == "uuid").map(|(_, value)| value.clone()).unwrap();
    let time = |unix_ms: i64| instant::format(unix_ms).trim_end_matches('Z').to_owned();
    let end_ms = load.start_ms + load.size.scrapes as i64 * INTERVAL_MS;
    let agent = client();
    let url = format!("{}/query_usage_report", server.base());
    let mut bodies = Vec::new();
    for metric in METRICS {
        let asked = serde_json::json!({
            "id": id, "metric": metric, "statistic": "sum", "period": 60,
            "timestamp_from": time(load.start_ms), "timestamp_to": time(end_ms),
        });
        let mut took = Vec::new();
        for _ in 0..TIMES {
            let started = Instant::now();
            let mut answer =
                agent.post(&url).send(asked.to_string()).map_err(|e| format!("{url}: {e}"))?;
            let body = answer.body_mut().read_to_string().map_err(|e| format!("{url}: {e}"))?;
            took.push(started.elapsed().as_secs_f64() * 1e3);
            if answer.status() != 200 || !body.contains("Success") || body.len() < 200 {
                return Err(format!("{url}: {}: {body}", answer.status()));
            }
            if took.len() == 1 {
                bodies.push(body);
            }
        }
        let first = took[0];
        println!(
            "  {when}, {metric}: {:.1} ms (the first {first:.1}), {} bytes",
            median(took),
            bodies.last().map_or(0, String::len)
        );
    }
    Ok(bodies)
}
