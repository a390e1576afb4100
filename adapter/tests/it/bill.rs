//! The bill against libvirt's own counters, to the byte: guests that work round after round, two
//! Prometheis that write the same guests to two stores, one on this machine's disk and one in a real
//! cluster, and every part restarted in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::cassandra_node;
use crate::end_to_end::Prometheus;
use crate::libvirtd::{Libvirtd, missing, skip, wait_for};
use crate::part::{Part, free_port};

const GUESTS: [u32; 2] = [51, 52];
/// A round takes some seconds; the pause is long enough to see the guests idle.
const WORK: [&str; 2] =
    ["write_mib=8 read_mib=4 pings=20 every=12", "write_mib=5 read_mib=3 pings=9 every=12"];
const WRITTEN_MIB: [u64; 2] = [8, 5];

/// A family, and the field of `virsh domstats` that it counts.
const FAMILIES: [(&str, &str, &str); 4] = [
    ("blk_read", "block.0.rd.bytes", "vda"),
    ("blk_write", "block.0.wr.bytes", "vda"),
    ("nic_incoming", "net.0.rx.bytes", "tap"),
    ("nic_outgoing", "net.0.tx.bytes", "tap"),
];

/// Everything between the guests and the bill.
struct Chain {
    libvirtd: Libvirtd,
    folder: tempfile::TempDir,
    exporter_port: u16,
    /// Each gets everything.
    adapters: Vec<Adapter>,
}

/// An adapter, which may run or not.
struct Adapter {
    name: &'static str,
    port: u16,
    /// Which store it has.
    flags: Vec<String>,
}

/// One on the disk and, where a node can run here, one in a cluster.
fn adapters(folder: &Path) -> Vec<Adapter> {
    let on_disk = vec![format!("--store.path={}", folder.join("data").display())];
    let mut adapters = vec![Adapter { name: "on-disk", port: free_port(), flags: on_disk }];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let Some(node) = runtime.block_on(cassandra_node::shared()) {
        let flags = ["--store=cassandra", "--cassandra.create-schema", "--cassandra.keyspace=bill"];
        let mut flags: Vec<String> = flags.map(str::to_owned).into();
        flags.push(format!("--cassandra.nodes={}", node.address));
        adapters.push(Adapter { name: "in-cluster", port: free_port(), flags });
    }
    adapters
}

#[test]
fn a_bill_is_what_libvirt_counted() {
    if let Some(reason) = missing() {
        return skip(&reason);
    }
    let binary =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|file| file.is_file());
    let (Some(two), Some(three)) = (binary("KANYUN_PROMETHEUS_2"), binary("KANYUN_PROMETHEUS_3"))
    else {
        return skip(
            "KANYUN_PROMETHEUS_2 or KANYUN_PROMETHEUS_3 names no binary (scripts/tools install makes them)",
        );
    };
    let folder = tempfile::tempdir().unwrap();
    let adapters = adapters(folder.path());
    let chain = Chain { libvirtd: Libvirtd::start(), folder, exporter_port: free_port(), adapters };
    let begun = unix_seconds();
    let exporter = chain.exporter();
    let running = chain.start_adapters();
    // One by remote_write 1.0 with a label of its own, one by 2.0 without: two copies of a counter.
    let prometheus = chain.prometheus("two", &two, "external_labels: {replica: b}", "");
    let second =
        chain.prometheus("three", &three, "", "protobuf_message: io.prometheus.write.v2.Request");
    for (number, work) in GUESTS.into_iter().zip(WORK) {
        chain.libvirtd.start_guest(number, work);
    }
    chain.wait_for_rounds(1);
    chain.check_bills(begun);

    // A second life of everything, each ended in the middle of what it did.
    exporter.kill();
    let _exporter = chain.exporter();
    running.into_iter().for_each(Part::kill);
    let _running = chain.start_adapters();
    prometheus.kill();
    let _prometheus = chain.prometheus("two", &two, "external_labels: {replica: b}", "");
    let rounds = GUESTS.map(|number| chain.libvirtd.rounds(number)).into_iter().max().unwrap();
    chain.wait_for_rounds(rounds + 1);
    chain.check_bills(begun);
    chain.check_other_doors(begun);
    for adapter in &chain.adapters {
        chain.check_reading_back(adapter, &second, (begun, &three));
    }
}

impl Chain {
    fn exporter(&self) -> Part {
        let binary =
            Path::new(env!("CARGO_BIN_EXE_kanyun-adapter")).with_file_name("kanyun-exporter");
        let mut command = Command::new(binary);
        command.arg(format!("--web.listen-address=127.0.0.1:{}", self.exporter_port));
        command.arg("--libvirt.uri").arg(self.libvirtd.socket());
        command.arg("--libvirt.run-directory").arg(self.libvirtd.folder.path().join("run/qemu"));
        let mut part = Part::start("exporter", self.folder.path(), &mut command);
        part.wait_until_ready(&format!("http://127.0.0.1:{}/metrics", self.exporter_port));
        part
    }

    fn start_adapters(&self) -> Vec<Part> {
        let start = |adapter: &Adapter| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-adapter"));
            command.arg(format!("--web.listen-address=127.0.0.1:{}", adapter.port));
            command.args(["--legacy.api-address=", "--legacy.ingest-address="]);
            command.args(&adapter.flags);
            let mut part = Part::start(adapter.name, self.folder.path(), &mut command);
            part.wait_until_ready(&format!("http://127.0.0.1:{}/-/ready", adapter.port));
            part
        };
        self.adapters.iter().map(start).collect()
    }

    fn prometheus(&self, name: &str, binary: &Path, global: &str, write: &str) -> Prometheus {
        let exporter = self.exporter_port;
        let comma = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
        let target = |adapter: &Adapter| {
            let (port, write) = (adapter.port, comma(write));
            format!(
                "{{url: 'http://127.0.0.1:{port}/api/v1/write'{write}, \
                 queue_config: {{batch_send_deadline: 1s}}}}"
            )
        };
        let targets: Vec<String> = self.adapters.iter().map(target).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s{}}}\n\
             scrape_configs: [{{job_name: libvirt, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n\
             remote_write: [{}]\n",
            comma(global),
            targets.join(", "),
        );
        Prometheus::start(name, self.folder.path(), binary, &config)
    }

    /// What a Prometheus holds itself, another one that holds nothing has from an adapter.
    fn check_reading_back(
        &self,
        adapter: &Adapter,
        writer: &Prometheus,
        (begun, binary): (u64, &Path),
    ) {
        let port = adapter.port;
        let config = format!(
            "remote_read: [{{url: 'http://127.0.0.1:{port}/api/v1/read', read_recent: true}}]\n"
        );
        let name = format!("reads-{}", adapter.name);
        let reader = Prometheus::start(&name, self.folder.path(), binary, &config);
        let range = (begun, unix_seconds());
        for metric in [
            "libvirt_domain_block_stats_write_bytes_total",
            "libvirt_domain_interface_stats_receive_bytes_total",
            "libvirt_domain_info_cpu_time_seconds_total",
        ] {
            let query = format!("{metric}{{replica=\"\"}}");
            wait_for("all samples of a range coming back", 90, || {
                let held = writer.range(&query, range);
                (held.len() >= GUESTS.len() && reader.range(&query, range) == held).then_some(())
            });
        }
    }

    fn wait_for_rounds(&self, rounds: usize) {
        for number in GUESTS {
            wait_for("a guest's round of work", 240, || {
                (self.libvirtd.rounds(number) >= rounds).then_some(())
            });
        }
    }

    /// libvirt's own counters of a guest.
    fn counters(&self, number: u32) -> BTreeMap<String, u64> {
        let domain = format!("instance-{number:08x}");
        let text = self.libvirtd.virsh(&["domstats", &domain, "--block", "--interface"]).unwrap();
        let fields = text.lines().filter_map(|line| line.trim().split_once('='));
        let numbers =
            fields.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        numbers.collect()
    }

    fn post(adapter: &Adapter, path: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", adapter.port);
        let text =
            ureq::post(url).send(body.to_string()).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn get(adapter: &Adapter, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", adapter.port);
        ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// What billing adds up: the sum of all periods, whole bytes.
    fn billed(
        adapter: &Adapter,
        (id, metric, device): (&str, &str, &str),
        (from, to): (u64, u64),
    ) -> u64 {
        let args = json!({
            "id": id, "metric": metric, "metric_param": device, "statistic": "sum", "period": 60,
            "timestamp_from": from, "timestamp_to": to,
        });
        let answer = Self::post(adapter, "/query_usage_report", &args);
        assert_eq!(answer["code"], 200, "{answer}");
        let periods = answer["data"].as_object().unwrap();
        periods.values().map(|bytes| bytes.as_u64().unwrap_or_else(|| panic!("{answer}"))).sum()
    }

    /// Waits for a moment in which a guest did nothing while the bill was made.
    fn check_bills(&self, begun: u64) {
        for (number, written_mib) in GUESTS.into_iter().zip(WRITTEN_MIB) {
            let uuid = format!("de305d54-75b4-431b-adb2-{number:012x}");
            let mut last = String::new();
            let same = wait_for_or(&mut last, |last| {
                let (before, rounds) = (self.counters(number), self.libvirtd.rounds(number));
                // A minute under way belongs to the range that holds its last second.
                let range = (begun - 60, unix_seconds() + 60);
                let billed: Vec<[u64; 4]> = (self.adapters.iter())
                    .map(|adapter| {
                        FAMILIES.map(|(family, ..)| {
                            Self::billed(adapter, (&uuid, family, "total"), range)
                        })
                    })
                    .collect();
                let counted = FAMILIES.map(|(_, field, _)| before[field]);
                *last = format!("guest {number}: billed {billed:?}, counted {counted:?}");
                let idle =
                    self.counters(number) == before && self.libvirtd.rounds(number) == rounds;
                let same = billed.iter().all(|billed| *billed == counted);
                if !idle || !same {
                    return None;
                }
                for adapter in &self.adapters {
                    let alike = Self::check_parts_and_names(adapter, number, (range, counted))
                        .and_then(|()| Self::check_program(adapter, &uuid, (range, counted)));
                    if let Err(text) = alike {
                        assert!(self.counters(number) != before, "{text}");
                        // The guest went on meanwhile.
                        *last = text;
                        return None;
                    }
                }
                Some((counted, rounds))
            });
            let Some((billed, rounds)) = same else { panic!("{last}") };
            assert!(billed.iter().all(|bytes| *bytes > 0), "{last}");
            assert_eq!(billed[1], (rounds as u64 * written_mib) << 20, "{rounds} rounds; {last}");
        }
    }

    /// The same sums by every name, by device, and over parts of the range; else what differs.
    fn check_parts_and_names(
        adapter: &Adapter,
        number: u32,
        ((from, to), billed): ((u64, u64), [u64; 4]),
    ) -> Result<(), String> {
        let uuid = format!("de305d54-75b4-431b-adb2-{number:012x}");
        let domain = format!("instance-{number:08x}");
        let cuts = [from, from + (to - from) / 3, from + (to - from) / 2 + 7, to];
        let same = |what: &str, found: u64, expected: u64| {
            let text = || format!("{what}, {}: {found}, and not {expected}", adapter.name);
            if found == expected { Ok(()) } else { Err(text()) }
        };
        for ((family, _, device), bytes) in FAMILIES.into_iter().zip(billed) {
            let device = if device == "tap" { format!("tap{number}") } else { device.to_owned() };
            let sum =
                |id: &str, device: &str, range| Self::billed(adapter, (id, family, device), range);
            same(&device, sum(&uuid, &device, (from, to)), bytes)?;
            same("no such device", sum(&uuid, "no such device", (from, to)), 0)?;
            for name in [domain.clone(), format!("{domain}@127.0.0.1")] {
                same(&name, sum(&name, "total", (from, to)), bytes)?;
            }
            let parts = cuts.windows(2).map(|cut| sum(&uuid, "total", (cut[0], cut[1])));
            same("parts", parts.sum(), bytes)?;
        }
        Ok(())
    }

    /// The example of a billing program says the same; else what differs.
    fn check_program(
        adapter: &Adapter,
        uuid: &str,
        ((from, to), billed): ((u64, u64), [u64; 4]),
    ) -> Result<(), String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bill.py");
        let mut command = Command::new("python3");
        command.arg(program).arg(format!("http://127.0.0.1:{}", adapter.port));
        let output = command.args([from.to_string(), to.to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bill = String::from_utf8(output.stdout).unwrap();
        for ((family, ..), bytes) in FAMILIES.into_iter().zip(billed) {
            let line = format!("{uuid},{family},{bytes}");
            if !bill.lines().any(|other| other == line) {
                return Err(format!("no {line} in\n{bill}"));
            }
        }
        Ok(())
    }

    /// The minutes behind the bill, and who can be billed.
    fn check_other_doors(&self, begun: u64) {
        // The minute under way, too: without it a short run holds no whole minute.
        let (from, to) = (begun - 60, unix_seconds() + 60);
        let args = json!({"metric": "nic_outgoing", "timestamp_from": from, "timestamp_to": to});
        let list = json!({"method": "list_instance", "args": args});
        let uuids: Vec<String> =
            GUESTS.iter().map(|number| format!("de305d54-75b4-431b-adb2-{number:012x}")).collect();
        for adapter in &self.adapters {
            assert_eq!(Self::post(adapter, "/", &list)["data"], json!(uuids), "{}", adapter.name);
        }
        let Some(adapter) = self.adapters.last() else { panic!("no adapter") };
        let query = format!("/api/v1/usage?id={}&from={from}&to={to}", uuids[0]);
        let page: Value = serde_json::from_str(&Self::get(adapter, &query)).unwrap();
        let rows = page["rows"].as_array().unwrap();
        for family in
            ["cpu", "mem_max", "mem_free", "nic_incoming", "nic_outgoing", "blk_read", "blk_write"]
        {
            assert!(
                rows.iter().any(|row| row["metric"] == family),
                "no minute of {family}: {page}"
            );
        }
        assert!(rows.iter().all(|row| row["resets"] == 0), "{page}");
        let cpu: Vec<f64> = rows
            .iter()
            .filter(|row| row["metric"] == "cpu")
            .map(|row| row["value"].as_f64().unwrap())
            .collect();
        assert!(cpu.iter().all(|percent| *percent > 0.0 && *percent < 400.0), "{cpu:?}");
        let csv = Self::get(adapter, &format!("{query}&format=csv&metric=mem_max"));
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines.len() > 1, "{csv}");
        // 128 MiB, as the guest was started.
        assert!(lines[1..].iter().all(|line| line.contains(",mem_max,total,131072,KiB,")), "{csv}");
    }
}

/// Waits for up to three minutes; the text says what was seen last.
fn wait_for_or<T>(last: &mut String, mut ready: impl FnMut(&mut String) -> Option<T>) -> Option<T> {
    let end = unix_seconds() + 180;
    wait_for("an idle moment", 200, || match ready(last) {
        Some(found) => Some(Some(found)),
        None => (unix_seconds() > end).then_some(None),
    })
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
