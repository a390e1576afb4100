//! What a sample and a new series cost when there are ten thousand, a hundred thousand or a million
//! series: how flat the write path is. The first scrape, which is all new series, is measured apart
//! from those that follow.

use std::path::Path;

use adapter::wire::negotiate::Protocol;

use crate::bodies::{self, Request};
use crate::fleet::{SERIES_PER_GUEST, Size};
use crate::server::{self, Kind, Server};
use crate::{Course, course_of, readback, sender};

/// Series and scrapes: enough samples for a time that can be told, few enough for a bench's memory.
/// All of it lies within the half hour before the present.
const STEPS: [(usize, usize); 3] = [(10_000, 100), (100_000, 30), (1_000_000, 5)];
/// As in Prometheus where it has much to send.
const SHARDS: usize = 4;

/// What one phase of a step cost the server.
struct Phase {
    samples: usize,
    cpu_seconds: f64,
}

impl Phase {
    fn nanoseconds(&self) -> f64 {
        self.cpu_seconds * 1e9 / self.samples as f64
    }
}

/// Measures and prints the curve of one protocol.
pub(crate) fn run(protocol: Protocol, guests_per_host: usize) -> Result<(), String> {
    println!(
        "{:>9} {:>4} {:>8} {:>14} {:>15} {:>9} {:>9}",
        "series", "RW", "samples", "ns/new series", "ns/later sample", "peak MiB", "read back"
    );
    for (series, scrapes) in STEPS {
        let hosts = (series / SERIES_PER_GUEST / guests_per_host).max(1);
        let course = course_of(Size { hosts, guests_per_host, scrapes });
        step(&course, protocol)?;
    }
    Ok(())
}

fn step(course: &Course<'_>, protocol: Protocol) -> Result<(), String> {
    let adapter = Path::new(env!("CARGO_BIN_EXE_kanyun-adapter"));
    let mut first = bodies::make(course.size, course.start_ms, protocol, SHARDS);
    let later = first.split_off(requests_of_first_scrape(&first, course.size));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let server = Server::start(Kind::Adapter, adapter, folder.path(), None)?;
    let first = phase(&server, protocol, first)?;
    let later = phase(&server, protocol, later)?;
    let peak = server::peak_mebibytes(server.pid())?;
    let (door, url) = server.read_door();
    let read = readback::check(door, &url, course.range(), &course.expected)?;
    println!(
        "{:>9} {:>4} {:>8} {:>14.0} {:>15.0} {:>9.0} {:>9}",
        course.size.series(),
        match protocol {
            Protocol::V1 => "1.0",
            Protocol::V2 => "2.0",
        },
        first.samples + later.samples,
        first.nanoseconds(),
        later.nanoseconds(),
        peak,
        format!("{read:?}").to_lowercase(),
    );
    server.stop().map(|_| ())
}

/// How many requests it takes until every series was sent once.
fn requests_of_first_scrape(requests: &[Request], size: Size) -> usize {
    let mut samples = 0;
    let sent = requests.iter().take_while(|request| {
        let before = samples;
        samples += request.samples;
        before < size.series()
    });
    sent.count()
}

/// Sends requests and waits until the server has done all that follows from them.
fn phase(server: &Server, protocol: Protocol, requests: Vec<Request>) -> Result<Phase, String> {
    let samples = requests.iter().map(|request| request.samples).sum();
    let before = server::cpu_seconds(server.pid())?;
    sender::send(&server.write_url(), protocol, SHARDS, requests)?;
    let after = server::cpu_seconds_when_idle(server.pid())?;
    Ok(Phase { samples, cpu_seconds: after - before })
}
