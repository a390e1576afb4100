//! What samples cost when they do not only arrive but are sealed and billed, too: hours of a fleet
//! all in, a month's bill of one guest, and one metric of a fleet that is half sealed.
//! Owns the modes `--sealed`, `--report` and `--fleet`, and what they share.

mod all_in;
mod bill;
mod query;
mod set_clock;
mod tables;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use adapter::wire::negotiate::Protocol;

use crate::bodies;
use crate::cassandra::Cluster;
use crate::fleet::{self, Size};
use crate::sender::{self, client};
use crate::server::{self, Server};
pub(crate) use all_in::all_in;
pub(crate) use bill::bill;
pub(crate) use query::query;

/// The modes, and how long they watch the fleet.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Flags {
    /// Instead: hours of the fleet all in, sealed and billed as they pass, beside VictoriaMetrics
    #[arg(long, conflicts_with = "url")]
    sealed: bool,
    /// Instead: a usage report of one guest, before and after its samples are sealed
    #[arg(long, conflicts_with_all = ["url", "sealed"])]
    report: bool,
    /// Instead: one metric of the fleet by remote_read, the last six hours, half of them sealed
    #[arg(long, conflicts_with_all = ["url", "sealed", "report"])]
    fleet: bool,
    /// Hours of the fleet that --sealed sends, even
    #[arg(long, default_value_t = 12)]
    hours: usize,
    /// Days that --report loads and asks for
    #[arg(long, default_value_t = 31)]
    days: usize,
    /// libfaketimeMT.so.1, which --sealed moves the adapter's clock with
    #[arg(long, value_name = "FILE")]
    faketime: Option<PathBuf>,
}

/// One of the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    AllIn { hours: usize },
    Bill { days: usize },
    Query,
}

impl Flags {
    pub(crate) fn mode(&self) -> Option<Mode> {
        let modes = [
            (self.sealed, Mode::AllIn { hours: self.hours }),
            (self.report, Mode::Bill { days: self.days }),
            (self.fleet, Mode::Query),
        ];
        modes.into_iter().find_map(|(asked, mode)| asked.then_some(mode))
    }

    pub(crate) fn faketime(&self) -> Result<&Path, String> {
        let missing = "--sealed needs --faketime, which scripts/bench finds";
        self.faketime.as_deref().ok_or_else(|| missing.to_owned())
    }
}

/// The programs that are measured, and with what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programs<'a> {
    pub(crate) adapter: &'a Path,
    pub(crate) victoria_metrics: Option<&'a Path>,
    /// libfaketimeMT.so.1
    pub(crate) faketime: &'a Path,
    /// Where the adapter keeps its rows, unless in a folder.
    pub(crate) cluster: Option<&'a Cluster>,
}

impl Programs<'_> {
    /// Has an adapter keep its rows where they are to be kept.
    fn keep(&self, command: &mut Command, keyspace: &str) {
        if let Some(cluster) = self.cluster {
            cluster.apply(command, keyspace);
        }
    }
}

const HOUR_MS: i64 = 3_600_000;
const WINDOW_MS: i64 = 2 * HOUR_MS;
/// Requests are made for this much time at once, so that those of many hours need not fit in memory.
const PART_MS: i64 = HOUR_MS / 2;
const POLL: Duration = Duration::from_millis(200);
/// A seal that makes no progress for this long has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// A fleet and the time of its first scrape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) size: Size,
    pub(crate) start_ms: i64,
    pub(crate) protocol: Protocol,
}

impl Load {
    /// Sends all samples in a range of time by one shard; gives the seconds that sending took,
    /// without those for making the requests.
    pub(crate) fn send(&self, url: &str, (from_ms, to_ms): (i64, i64)) -> Result<f64, String> {
        let mut seconds = 0.0;
        let mut part_ms = from_ms;
        while part_ms < to_ms {
            let part = part_ms..to_ms.min(part_ms + PART_MS.max((to_ms - from_ms) / 48));
            part_ms = part.end;
            let requests = bodies::within(self.size, self.start_ms, (part, self.protocol, 1));
            seconds += sender::send(url, self.protocol, 1, requests)?.elapsed.as_secs_f64();
        }
        Ok(seconds)
    }

    /// How many samples are older than a time.
    fn samples_until(&self, unix_ms: i64) -> usize {
        let mut samples = 0;
        fleet::play(self.size, self.start_ms, |point| {
            samples += usize::from(point.timestamp_ms < unix_ms);
        });
        samples
    }

    /// A range that holds every sample.
    pub(crate) fn range(&self) -> (i64, i64) {
        let length_ms = self.size.scrapes as i64 * fleet::INTERVAL_MS;
        (self.start_ms - 60_000, self.start_ms + length_ms + 60_000)
    }
}

/// The value of one of the adapter's own metrics, which has no labels.
pub(crate) fn metric(server: &Server, name: &str) -> Result<f64, String> {
    let url = format!("{}/metrics", server.base());
    let mut answer = client().get(&url).call().map_err(|error| format!("{url}: {error}"))?;
    let page = answer.body_mut().read_to_string().map_err(|error| format!("{url}: {error}"))?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.and_then(|value| value.trim().parse().ok());
    value.ok_or_else(|| format!("{url} has no {name}"))
}

/// Waits until so many samples are sealed; an error where a seal fails or nothing moves.
pub(crate) fn until_sealed(server: &Server, samples: usize) -> Result<(), String> {
    let (mut before, mut moved) = (-1.0, Instant::now());
    loop {
        let sealed = metric(server, "kanyun_adapter_sealed_samples_total")?;
        if sealed >= samples as f64 {
            return Ok(());
        }
        if metric(server, "kanyun_adapter_seal_failures_total")? > 0.0 {
            return Err(format!("a seal failed:\n{}", server.log()));
        }
        if sealed > before {
            (before, moved) = (sealed, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            return Err(format!("only {sealed} of {samples} samples were sealed"));
        }
        std::thread::sleep(POLL);
    }
}

/// The middle one of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Forgets the most memory that a process ever had: from now on it is what it has (proc(5)).
pub(crate) fn forget_peak(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").map_err(|error| format!("{path}: {error}"))?;
    server::peak_mebibytes(pid)
}
