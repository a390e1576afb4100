//! Reads that are larger than the memory that they get, and clients that go away: an answer is
//! whole, and nothing is left behind.

use std::fs;
use std::path::Path;

use adapter::wire::messages::Query;
use adapter::wire::negotiate::Protocol;

use crate::adapter_process::{AdapterProcess, command, now_ms};
use crate::http_client::Connection;
use crate::remote::{self, Series, query, read_back, read_body, series};

const SERIES: usize = 40;
const SAMPLES: i64 = 10_000;
const INTERVAL_MS: i64 = 15_000;

/// A process that keeps samples in memory and spills into a folder, and what it holds.
struct Filled {
    adapter: AdapterProcess,
    folder: tempfile::TempDir,
    range: (i64, i64),
    held: Vec<Series>,
}

impl Filled {
    fn new() -> Filled {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command();
        let adapter = AdapterProcess::start(
            command.args(["--store=memory", "--read.spill-path"]).arg(folder.path()),
        );
        let range = (now_ms() - SAMPLES * INTERVAL_MS, now_ms());
        let mut held = Vec::new();
        for number in 0..SERIES {
            let uuid = format!("guest {number:02}");
            let labels = [("__name__", "noise"), ("uuid", &*uuid)];
            let samples: Vec<(i64, f64)> =
                (0..SAMPLES).map(|n| (range.0 + n * INTERVAL_MS, noise(number, n))).collect();
            let answer = adapter.write(Protocol::V2, &[series(&labels, &samples)]);
            assert_eq!(answer.status, 204, "{answer:?}");
            held.push(read_back(&labels, &samples));
        }
        Filled { adapter, folder, range, held }
    }

    /// The same query so many times.
    fn queries(&self, count: usize) -> Vec<Query> {
        vec![query(self.range, &[("=", "__name__", "noise")]); count]
    }

    /// Temporary files that the process has open, whether they have a name or not.
    fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.adapter.id())).unwrap();
        // A file may be closed while it is looked at.
        let targets = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(self.folder.path())).count()
    }

    fn metric(&self, name: &str) -> f64 {
        metric(&self.adapter, name)
    }

    fn begin(&self, queries: usize) -> Connection {
        let body = read_body(&self.queries(queries), &[1]);
        let length = body.len().to_string();
        let headers = [("content-encoding", "snappy"), ("content-length", &*length)];
        let address = self.adapter.address();
        let mut connection = Connection::begin(address, "POST /api/v1/read", &headers).unwrap();
        connection.send(&body).unwrap();
        connection
    }
}

/// Values that do not compress.
fn noise(series: usize, n: i64) -> f64 {
    let seed = series as u64 * 1_000_003 + n.cast_unsigned();
    let mixed = (seed ^ (seed << 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from_bits((mixed ^ (mixed >> 29)) >> 2 | 1 << 60)
}

fn metric(adapter: &AdapterProcess, name: &str) -> f64 {
    let page = adapter.get("/metrics");
    let line = page.text().lines().find(|line| line.starts_with(&format!("{name} ")));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{}", page.text())).rsplit(' ').next();
    value.unwrap().parse().unwrap()
}

#[test]
fn an_answer_larger_than_its_memory_is_whole() {
    let filled = Filled::new();
    assert!(filled.metric("kanyun_adapter_read_spilled_bytes_total").abs() < 1.0);
    // About 9 bytes a sample, and 32 MiB of memory.
    let count = 16;
    let answer = filled.adapter.post_read(&read_body(&filled.queries(count), &[1]));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.len() > 40 << 20, "{} bytes", answer.body.len());
    for result in remote::streamed(&answer.body, count) {
        assert!(result == filled.held, "an answer that was spilled differs");
    }
    assert!(filled.metric("kanyun_adapter_read_spilled_bytes_total") > 16e6);
    filled.adapter.wait_for("the end of the temporary file", || filled.open_files() == 0);
}

/// Its queries are not all answered: the work ends with the connection.
#[test]
fn a_client_that_goes_away_ends_its_read() {
    let filled = Filled::new();
    let count = 64;
    let connection = filled.begin(count);
    filled.adapter.wait_for("a temporary file", || filled.open_files() > 0);
    drop(connection);
    filled.adapter.wait_for("the end of the temporary file", || filled.open_files() == 0);
    let answered = filled.metric("kanyun_adapter_queries_total{outcome=\"answered\"}");
    assert!(answered < 64.0, "{answered} of {count} queries were answered to nobody");
}

#[test]
fn a_client_that_goes_away_in_its_answer_leaves_nothing() {
    let filled = Filled::new();
    let mut connection = filled.begin(16);
    let first = connection.first_bytes(100_000).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert!(filled.open_files() > 0, "the rest of the answer waits on the disk");
    drop(connection);
    filled.adapter.wait_for("the end of the temporary file", || filled.open_files() == 0);
}

#[test]
fn a_spill_folder_that_is_not_there_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let mut command = command();
    command.args(["--store=memory", "--read.spill-path"]).arg(&missing);
    let ended = crate::adapter_process::run(&mut command);
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{log}");
    assert!(log.contains("--read.spill-path") && log.contains("missing"), "{log}");
}

/// One metric of 1,000 guests over six hours, from a disk.
#[test]
fn a_large_read_takes_little_memory() {
    const GUESTS: usize = 1_000;
    const OF_GUEST: i64 = 1_440;
    let folder = tempfile::tempdir().unwrap();
    let adapter = AdapterProcess::on_folder(folder.path());
    let start = now_ms() - OF_GUEST * INTERVAL_MS;
    for first in (0..GUESTS).step_by(100) {
        let of_guest = |guest: usize| {
            let labels = [("__name__", "cpu"), ("uuid", &*format!("guest {guest}"))];
            let value = |n: i64| f64::from(u32::try_from(n * 7 + n % 11).unwrap());
            let samples: Vec<(i64, f64)> =
                (0..OF_GUEST).map(|n| (start + n * INTERVAL_MS, value(n))).collect();
            series(&labels, &samples)
        };
        let request: Vec<_> = (first..first + 100).map(of_guest).collect();
        let answer = adapter.write(Protocol::V2, &request);
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    adapter.stop();
    // Without what the writes took.
    let adapter = AdapterProcess::on_folder(folder.path());
    let read = |name| {
        let queries = [query((start, now_ms()), &[("=", "__name__", name)])];
        let answer = adapter.post_read(&read_body(&queries, &[1]));
        assert_eq!(answer.status, 200, "{answer:?}");
        remote::frames(&answer.body).len()
    };
    assert_eq!(read("nothing"), 0);
    let before = memory(&adapter, "VmRSS");
    assert_eq!(read("cpu"), GUESTS);
    let peak = memory(&adapter, "VmHWM");
    println!("{} KiB more for {} samples", peak - before, GUESTS as i64 * OF_GUEST);
    assert!(peak - before <= 64 << 10, "{before} KiB before the read and {peak} KiB at its peak");
    assert_eq!(metric(&adapter, "kanyun_adapter_read_series_total") as usize, GUESTS);
}

/// A line of the process' status, KiB.
fn memory(adapter: &AdapterProcess, name: &str) -> i64 {
    let path = format!("/proc/{}/status", adapter.id());
    let status = fs::read_to_string(Path::new(&path)).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
