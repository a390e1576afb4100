//! Prometheus' own suite for remote_write 2.0 receivers, against a real adapter. The suite takes
//! 400 for an answer to almost anything, so what counts is which statuses it got, and why:
//! docs/compliance.md says so test by test, and must hold.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::adapter_process::{AdapterProcess, now_ms, without_settings};
use crate::libvirtd::skip;

/// Nodes of the suite's tree of tests, and of these the leaves: each sends one request.
const NODES: usize = 456;
const REQUESTS: usize = 205;
/// What one run leaves in the adapter's own metrics. Written are 138 samples of the requests that
/// were 204 or partly invalid and 157 that came with exemplars.
const COUNTED: [(&str, u64); 8] = [
    ("kanyun_http_requests_total{handler=\"/api/v1/write\",code=\"204\"}", 88),
    ("kanyun_http_requests_total{handler=\"/api/v1/write\",code=\"400\"}", 113),
    ("kanyun_http_requests_total{handler=\"/api/v1/write\",code=\"415\"}", 4),
    ("kanyun_adapter_samples_written_total", 295),
    ("kanyun_adapter_refused_total{reason=\"invalid_series\"}", 41),
    ("kanyun_adapter_refused_total{reason=\"histogram\"}", 143),
    ("kanyun_adapter_refused_total{reason=\"exemplar\"}", 267),
    ("kanyun_adapter_refused_total{reason=\"ahead\"}", 0),
];
/// Different label sets among the valid samples of the suite.
const SERIES: usize = 91;

const HEADER: &str = "\
| test of the suite | requests | 204 | 400: invalid | 400: histograms | 400: exemplars only | 415 |
| --- | --: | --: | --: | --: | --: | --: |
";

/// One request of the suite and what the adapter answered.
struct Exchange {
    test: String,
    status: u16,
    body: String,
}

/// Why an answer is what it is: the columns of the table.
#[derive(Clone, Copy)]
enum Column {
    Stored,
    Invalid,
    Histograms,
    Exemplars,
    Unsupported,
}

#[test]
fn the_receiver_suite_and_what_it_was_answered() {
    let Some(suite) = std::env::var_os("KANYUN_COMPLIANCE_SUITE") else {
        return skip("KANYUN_COMPLIANCE_SUITE names no suite (scripts/tools install makes it)");
    };
    let folder = tempfile::tempdir().unwrap();
    let adapter = AdapterProcess::on_folder(&folder.path().join("data"));
    // The second run finds the series of the first, and is answered alike.
    for run in 1..=2 {
        let output = run_suite(Path::new(&suite), folder.path(), &adapter);
        check_passed(&output);
        check_documented(&exchanges(&output));
        check_counted(&adapter, run);
    }
    check_read_back(&adapter);
    adapter.stop();
}

/// Runs all tests of the suite and gives what it printed.
fn run_suite(suite: &Path, folder: &Path, adapter: &AdapterProcess) -> String {
    let settings = folder.join("receivers.yml");
    let url = format!("http://{}/api/v1/write", adapter.address());
    std::fs::write(&settings, format!("remote_write:\n  - {{name: adapter, url: '{url}'}}\n"))
        .unwrap();
    let mut command = without_settings(Command::new(suite));
    // It ends itself after the timeout; alone it takes four seconds.
    command.args(["-test.v", "-test.count=1", "-test.timeout=5m"]).current_dir(folder);
    command.env("PROMETHEUS_RW2_COMPLIANCE_CONFIG_FILE", &settings);
    command.env_remove("PROMETHEUS_RW2_COMPLIANCE_RECEIVERS");
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}\n{}", adapter.log());
    printed
}

fn check_passed(output: &str) {
    let begun = output.lines().filter(|line| line.starts_with("=== RUN ")).count();
    let passed = output.lines().filter(|line| line.trim_start().starts_with("--- PASS: ")).count();
    assert_eq!((begun, passed), (NODES, NODES), "{output}");
}

/// The requests of a run, in its order. The suite runs one test at a time and logs each answer
/// under the name of the leaf that asked.
fn exchanges(output: &str) -> Vec<Exchange> {
    let mut test = "";
    let mut exchanges: Vec<Exchange> = Vec::new();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("=== RUN ") {
            test = name.trim();
        } else if let Some((_, status)) = line.split_once(": Response code from \"adapter\": ") {
            let test = test.strip_suffix("/adapter").expect(test).to_owned();
            exchanges.push(Exchange { test, status: status.parse().unwrap(), body: String::new() });
        } else if let Some((_, body)) = line.split_once(": Response body from \"adapter\": ") {
            body.clone_into(&mut exchanges.last_mut().unwrap().body);
        }
    }
    assert_eq!(exchanges.len(), REQUESTS);
    exchanges
}

impl Exchange {
    /// By the text of the answer: what is invalid must be 400 from anybody, whatever else is in
    /// the request.
    fn column(&self) -> Column {
        let says = |text: &str| self.body.contains(text);
        match self.status {
            204 => Column::Stored,
            415 => Column::Unsupported,
            400 if says("no metric name")
                || says("a series without samples and histograms")
                || says("snappy") =>
            {
                Column::Invalid
            }
            400 if says("native histograms are not stored") => Column::Histograms,
            400 if says("exemplars are not stored") => Column::Exemplars,
            _ => panic!("{}: {} {}", self.test, self.status, self.body),
        }
    }
}

/// The table of docs/compliance.md, made of these answers.
fn table(exchanges: &[Exchange]) -> String {
    let mut rows: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    for exchange in exchanges {
        let name = exchange.test.split('/').next().unwrap();
        rows.entry(name).or_default()[exchange.column() as usize] += 1;
    }
    let mut all = [0; 5];
    for row in rows.values() {
        all.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
    }
    rows.insert("all", all);
    let mut text = HEADER.to_owned();
    // The sum comes last.
    let (sum, tests): (Vec<_>, Vec<_>) = rows.iter().partition(|(name, _)| **name == "all");
    for (name, counts) in tests.into_iter().chain(sum) {
        write!(text, "| {name} | {} |", counts.iter().sum::<usize>()).unwrap();
        for count in counts {
            // An empty cell is easier on the eye than a nought.
            let cell = if *count > 0 { format!(" {count} ") } else { " ".to_owned() };
            write!(text, "{cell}|").unwrap();
        }
        text.push('\n');
    }
    text
}

fn check_documented(exchanges: &[Exchange]) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compliance.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = table(exchanges);
    assert!(page.contains(&table), "docs/compliance.md differs from what was answered:\n{table}");
}

/// The adapter's own count of what it answered and stored, after so many runs.
fn check_counted(adapter: &AdapterProcess, runs: u64) {
    let page = adapter.get("/metrics");
    let counted: Vec<_> = COUNTED
        .iter()
        .map(|(series, _)| {
            let line = page.text().lines().find_map(|line| line.strip_prefix(series));
            (*series, line.map_or(0, |value| value.trim().parse().unwrap()))
        })
        .collect();
    assert_eq!(counted, COUNTED.map(|(series, count)| (series, runs * count)));
    let statuses = |line: &&str| line.starts_with("kanyun_http_requests_total{handler=\"/api/v1/w");
    assert_eq!(page.text().lines().filter(statuses).count(), 3, "{}", page.text());
}

/// The suite reads nothing back. What it wrote is there, under the labels that it sent.
fn check_read_back(adapter: &AdapterProcess) {
    let now = now_ms();
    let all = adapter.read((now - 7_200_000, now), &[("=~", "__name__", ".+")]);
    let labels: Vec<_> = all.iter().map(|(labels, _)| labels).collect();
    assert_eq!(all.len(), SERIES, "{labels:?}");
    let odd = [("__name__", "up"), ("instance", "localhost:9090"), ("job", "test\njob\n")];
    let odd = odd.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (_, samples) = all.iter().find(|(labels, _)| labels[..] == odd).unwrap();
    // The suite turns the bits of its two NaN into plain numbers, so they are none.
    let [stale, nan] = [0x7ff0_0000_0000_0002_u64, 0x7ff8_0000_0000_0001].map(|bits| bits as f64);
    let values = [1.0, stale, nan, f64::INFINITY, f64::NEG_INFINITY].map(f64::to_bits);
    assert!(samples.iter().all(|(_, bits)| values.contains(bits)), "{samples:?}");
}
