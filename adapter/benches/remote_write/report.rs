//! One round's figures, and the line that says them.

use adapter::wire::negotiate::Protocol;

use crate::bodies::Request;
use crate::disk::Disk;
use crate::fleet::Size;
use crate::sender::Sent;
use crate::tally::Likeness;

/// What one round measured; `None` where it could not be.
#[derive(Debug)]
pub(crate) struct Round {
    name: String,
    protocol: Protocol,
    shards: usize,
    samples: u64,
    requests: usize,
    body_bytes: usize,
    pub(crate) sent: Option<Sent>,
    pub(crate) cpu_at_last_answer: Option<f64>,
    pub(crate) cpu_when_idle: Option<f64>,
    pub(crate) peak_mebibytes: Option<f64>,
    pub(crate) disk: Option<Disk>,
    pub(crate) read_back: Option<Likeness>,
}

impl Round {
    pub(crate) fn new(
        name: &str,
        (protocol, shards): (Protocol, usize),
        requests: &[Request],
    ) -> Round {
        Round {
            name: name.to_owned(),
            protocol,
            shards,
            samples: requests.iter().map(|request| request.samples as u64).sum(),
            requests: requests.len(),
            body_bytes: requests.iter().map(|request| request.body.len()).sum(),
            sent: None,
            cpu_at_last_answer: None,
            cpu_when_idle: None,
            peak_mebibytes: None,
            disk: None,
            read_back: None,
        }
    }

    /// Samples per CPU-second, with all the work that the server left for later.
    fn rate(&self) -> Option<f64> {
        self.cpu_when_idle.map(|seconds| self.samples as f64 / seconds)
    }
}

/// Says what is measured, on which machine.
pub(crate) fn heading(size: Size) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!(
        "{} series of {} guests on {} hosts, {} scrapes, {} samples; {cores} cores, load before {}",
        size.series(),
        size.guests(),
        size.hosts,
        size.scrapes,
        size.samples(),
        load.split(' ').next().unwrap_or_default(),
    );
    println!(
        "{:<16} {:>4} {:>6} {:>9} {:>9} {:>11} {:>9} {:>6} {:>8} {:>7} {:>6} {:>6} {:>6} {:>7} {:>9}",
        "server",
        "RW",
        "shards",
        "requests",
        "body B/s",
        "samples/s",
        "k/CPU-s",
        "ratio",
        "at ack",
        "peak",
        "disk",
        "head",
        "index",
        "retries",
        "read back"
    );
}

/// Says one round's figures; the ratio is to the peer's.
pub(crate) fn line(round: &Round, peer: Option<&Round>) {
    let samples = round.samples as f64;
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let per_second = round.sent.map(|sent| samples / sent.elapsed.as_secs_f64());
    let rate = round.rate().map(|rate| rate / 1e3);
    let at_ack = round.cpu_at_last_answer.map(|seconds| samples / seconds / 1e3);
    let ratio = round.rate().zip(peer.and_then(Round::rate)).map(|(ours, peer)| ours / peer);
    let disk = round.disk.map(|disk| disk.folder as f64 / samples);
    let tables = round.disk.and_then(|disk| disk.tables);
    let read_back = match round.read_back {
        None => "not asked",
        Some(Likeness::Same) => "same",
        Some(Likeness::Rounded) => "rounded",
        Some(Likeness::Different) => "different",
    };
    println!(
        "{:<16} {:>4} {:>6} {:>9} {:>9} {:>11} {:>9} {:>6} {:>8} {:>7} {:>6} {:>6} {:>6} {:>7} {:>9}",
        round.name,
        match round.protocol {
            Protocol::V1 => "1.0",
            Protocol::V2 => "2.0",
        },
        round.shards,
        round.requests,
        number(Some(round.body_bytes as f64 / samples), 1),
        number(per_second, 0),
        number(rate, 0),
        number(ratio, 2),
        number(at_ack, 0),
        number(round.peak_mebibytes, 0),
        number(disk, 2),
        number(tables.map(|(head, _)| head as f64 / samples), 2),
        number(tables.map(|(_, index)| index as f64 / samples), 2),
        round.sent.map_or(0, |sent| sent.retries),
        read_back,
    );
}
