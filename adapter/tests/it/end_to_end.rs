//! The whole path on real parts: busy guests, libvirtd, the exporter, a real Prometheus that
//! scrapes and writes, the adapter, and a second, empty Prometheus that only reads from it. Both
//! must answer alike, and the counters must be libvirt's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::libvirtd::{Libvirtd, missing, skip, wait_for};
use crate::panels;
use crate::part::{Part, free_port};

const GUESTS: [u32; 2] = [41, 42];

/// One way from a sender to the adapter and back.
struct Route {
    name: &'static str,
    /// The variable that names the binary of Prometheus.
    binary: &'static str,
    message: Option<&'static str>,
}

const ROUTES: [Route; 3] = [
    Route {
        name: "2.42 by remote_write 1.0, read back sampled",
        binary: "KANYUN_PROMETHEUS_2",
        message: None,
    },
    Route {
        name: "3.15 by remote_write 1.0, read back streamed",
        binary: "KANYUN_PROMETHEUS_3",
        message: None,
    },
    Route {
        name: "3.15 by remote_write 2.0, read back streamed",
        binary: "KANYUN_PROMETHEUS_3",
        message: Some("io.prometheus.write.v2.Request"),
    },
];

#[test]
fn guests_to_prometheus_to_the_adapter_and_back() {
    if let Some(reason) = missing() {
        return skip(&reason);
    }
    let exporter_binary =
        Path::new(env!("CARGO_BIN_EXE_kanyun-adapter")).with_file_name("kanyun-exporter");
    if !exporter_binary.is_file() {
        return skip("kanyun-exporter is not built (cargo test --workspace builds it)");
    }
    for route in &ROUTES {
        if program(route).is_none() {
            return skip(&format!(
                "{} names no binary (scripts/tools install makes it)",
                route.binary
            ));
        }
    }
    let libvirtd = Libvirtd::start();
    for guest in GUESTS {
        libvirtd.busy_guest(guest);
    }
    panels::start_working_guest(&libvirtd);
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new(&exporter_binary);
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--libvirt.uri")
        .arg(libvirtd.socket());
    command.arg("--libvirt.run-directory").arg(libvirtd.folder.path().join("run/qemu"));
    let mut exporter = Part::start("exporter", folder.path(), &mut command);
    exporter.wait_until_ready(&format!("http://127.0.0.1:{port}/metrics"));
    for route in &ROUTES {
        println!("route: {}", route.name);
        follow(route, &libvirtd, port);
    }
}

fn program(route: &Route) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(route.binary)?);
    path.is_file().then_some(path)
}

/// A Prometheus under test.
pub(crate) struct Prometheus {
    part: Part,
    pub(crate) url: String,
}

impl Prometheus {
    pub(crate) fn start(name: &str, folder: &Path, binary: &Path, config: &str) -> Prometheus {
        let port = free_port();
        let file = folder.join(format!("{name}.yml"));
        std::fs::write(&file, config.replace("OWN_ADDRESS", &format!("127.0.0.1:{port}"))).unwrap();
        let mut command = Command::new(binary);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join(name).display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut part = Part::start(name, folder, &mut command);
        let url = format!("http://127.0.0.1:{port}");
        part.wait_until_ready(&format!("{url}/-/ready"));
        Prometheus { part, url }
    }

    /// SIGKILL: the process can do nothing more.
    pub(crate) fn kill(self) {
        self.part.kill();
    }

    /// `data` of an API answer; warnings are failures, as they hide errors of remote storage.
    fn ask(&self, path: &str, parameters: &[(&str, String)]) -> Value {
        let request = ureq::get(format!("{}/api/v1/{path}", self.url))
            .query_pairs(parameters.iter().map(|(k, v)| (*k, v.as_str())));
        let text = request
            .call()
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .body_mut()
            .read_to_string()
            .unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{text}");
        assert!(answer["warnings"].is_null(), "{path} {parameters:?}: {}", answer["warnings"]);
        answer["data"].take()
    }

    pub(crate) fn range(&self, query: &str, (start, end): (u64, u64)) -> BTreeMap<String, Value> {
        let parameters = [
            ("query", query.to_owned()),
            ("start", start.to_string()),
            ("end", end.to_string()),
            ("step", "1".into()),
        ];
        let mut data = self.ask("query_range", &parameters);
        let Value::Array(series) = data["result"].take() else { panic!("{data}") };
        let answer: BTreeMap<String, Value> = series
            .into_iter()
            .map(|mut one| (one["metric"].to_string(), one["values"].take()))
            .collect();
        answer
    }

    pub(crate) fn instant(&self, query: &str) -> Vec<(Value, String)> {
        let mut data = self.ask("query", &[("query", query.to_owned())]);
        let Value::Array(series) = data["result"].take() else { panic!("{data}") };
        series
            .into_iter()
            .map(|mut one| (one["metric"].take(), one["value"][1].as_str().unwrap().to_owned()))
            .collect()
    }

    fn series(&self, (start, end): (u64, u64)) -> Vec<String> {
        let parameters = [
            ("match[]", "{__name__=~\".+\"}".to_owned()),
            ("start", start.to_string()),
            ("end", end.to_string()),
        ];
        let Value::Array(series) = self.ask("series", &parameters) else {
            panic!("no list of series")
        };
        let mut series: Vec<String> = series.iter().map(Value::to_string).collect();
        series.sort();
        series
    }
}

pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn follow(route: &Route, libvirtd: &Libvirtd, exporter_port: u16) {
    let folder = tempfile::tempdir().unwrap();
    let adapter_port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-adapter"));
    command.arg(format!("--web.listen-address=127.0.0.1:{adapter_port}"));
    command.args(["--legacy.api-address=", "--legacy.ingest-address="]);
    command.arg("--store.path").arg(folder.path().join("data"));
    let mut adapter = Part::start("adapter", folder.path(), &mut command);
    let adapter_url = format!("http://127.0.0.1:{adapter_port}");
    adapter.wait_until_ready(&format!("{adapter_url}/-/ready"));

    let message =
        route.message.map_or_else(String::new, |message| format!(", protobuf_message: {message}"));
    // One shard sends in the order of the scrapes: what came back last came last.
    let writer_config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n\
         - {{job_name: libvirt, static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]}}\n\
         - {{job_name: kanyun-adapter, static_configs: [{{targets: ['127.0.0.1:{adapter_port}']}}]}}\n\
         - {{job_name: prometheus, static_configs: [{{targets: [OWN_ADDRESS]}}],\n\
         \x20  metric_relabel_configs: [{{source_labels: [__name__], regex: prometheus_remote_storage_.+, action: keep}}]}}\n\
         remote_write: [{{url: '{adapter_url}/api/v1/write'{message}, queue_config: {{batch_send_deadline: 1s, max_shards: 1}}}}]\n"
    );
    let reader_config =
        format!("remote_read: [{{url: '{adapter_url}/api/v1/read', read_recent: true}}]\n");
    let binary = program(route).unwrap();
    let started = unix_seconds();
    let writer = Prometheus::start("writer", folder.path(), &binary, &writer_config);
    let reader = Prometheus::start("reader", folder.path(), &binary, &reader_config);

    // From here on the range lies in the past of what the reader has seen: both answers are final.
    let range = wait_for("ten seconds of samples coming back", 90, || {
        let until = unix_seconds().saturating_sub(2);
        let back = reader.instant("timestamp(libvirt_up)");
        let newest = back.first()?.1.parse::<f64>().unwrap();
        let range =
            (newest > (until + 1) as f64 && until > started + 12).then_some((started, until))?;
        // On a busy machine scrapes take longer than their second, and rates need two.
        let is_empty = |query: &&str| writer.range(query, range).is_empty();
        let empty: Vec<&str> = QUERIES.into_iter().filter(is_empty).collect();
        println!("until {until}, without figures: {empty:?}");
        empty.is_empty().then_some(range)
    });
    alike(&writer, &reader, range);
    counters_are_libvirts(libvirtd, &reader);
    for prometheus in [&writer, &reader] {
        panels::boards_show_real_data(prometheus);
        panels::rules_find_real_data(prometheus);
    }
    panels::boards_are_drawn(&writer);
    let dropped = ureq::get(format!("{}/metrics", writer.url))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    for line in dropped
        .lines()
        .filter(|line| line.starts_with("prometheus_remote_storage_samples_failed_total"))
    {
        assert!(line.ends_with(" 0"), "the sender lost samples: {line}");
    }
}

/// Of every kind that dashboards use.
const QUERIES: [&str; 8] = [
    "{job=~\".+\"}",
    "libvirt_up",
    "rate(libvirt_domain_info_cpu_time_seconds_total[5s])",
    "sum by (domain) (libvirt_domain_block_stats_write_bytes_total)",
    "libvirt_domain_interface_stats_receive_bytes_total{target_device=~\"tap.*\",uuid!=\"\"}",
    "libvirt_domain_info_memory_usage_bytes{domain!~\"instance-0000002a\"}",
    "{__name__=~\"kanyun_.*\",job=\"kanyun-adapter\",uuid=\"\"}",
    "histogram_quantile(0.9, rate(kanyun_http_request_duration_seconds_bucket[5s]))",
];

/// The same queries over the same range, to both.
fn alike(writer: &Prometheus, reader: &Prometheus, range: (u64, u64)) {
    for query in QUERIES {
        let wanted = writer.range(query, range);
        assert!(!wanted.is_empty(), "{query} selects nothing");
        let got = reader.range(query, range);
        assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{query}");
        for (series, values) in wanted {
            assert_eq!(got[&series], values, "{query}: {series}");
        }
    }
    // The adapter's index knows weeks: a series that began behind the range may be listed, too.
    let (wanted, got) = (writer.series(range), reader.series(range));
    let known = writer.series((range.0, unix_seconds()));
    assert!(wanted.iter().all(|series| got.contains(series)), "{wanted:?} {got:?}");
    assert!(got.iter().all(|series| known.contains(series)), "{got:?} {known:?}");
}

/// The guests are idle: what virsh says before and after is the same, and so must be the page.
fn counters_are_libvirts(libvirtd: &Libvirtd, reader: &Prometheus) {
    let fields = [
        ("block.0.rd.bytes", "libvirt_domain_block_stats_read_bytes_total"),
        ("block.0.wr.bytes", "libvirt_domain_block_stats_write_bytes_total"),
        ("net.0.rx.bytes", "libvirt_domain_interface_stats_receive_bytes_total"),
        ("net.0.tx.bytes", "libvirt_domain_interface_stats_transmit_bytes_total"),
    ];
    for number in GUESTS {
        let domain = format!("instance-{number:08x}");
        let stats = || {
            let text = libvirtd
                .virsh(&["domstats", &domain, "--block", "--interface", "--cpu-total"])
                .unwrap();
            text.lines()
                .filter_map(|line| line.trim().split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        wait_for("an idle moment", 60, || {
            let before = stats();
            for (field, metric) in fields {
                let found = reader.instant(&format!("{metric}{{domain=\"{domain}\"}}"));
                assert!(found.len() <= 1, "{metric}: {found:?}");
                // None after a scrape that took longer than its second.
                let counted: u64 = found.first()?.1.parse::<f64>().unwrap() as u64;
                if before[field].parse::<u64>().unwrap() != counted {
                    return None;
                }
                assert!(counted > 0, "{metric} of {domain} is zero");
            }
            let cpu = reader.instant(&format!(
                "libvirt_domain_info_cpu_time_seconds_total{{domain=\"{domain}\"}}"
            ));
            let cpu: f64 = cpu.first()?.1.parse().unwrap();
            let after = stats()["cpu.time"].parse::<f64>().unwrap() / 1e9;
            assert!(cpu > 0.0 && cpu <= after, "{cpu} s of cpu, libvirt says {after}");
            Some(())
        });
    }
}
