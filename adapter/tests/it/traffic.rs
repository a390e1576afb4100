//! External traffic from a guest's frames to its `vmnetwork` bill, to the byte: a real guest that pings an outside behind its
//! host, rules made from nova's metadata, a real Prometheus, and the bill, also after the guest was started anew.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::libvirtd::{Libvirtd, missing, on_path, skip, wait_for};
use crate::part::{Part, free_port};

const GUEST: u32 = 61;
const GUEST_ADDRESS: &str = "10.99.0.63";
/// The address that the guest pings: as a rule its host's, here one of the outside.
const PINGED_ADDRESS: &str = "10.99.0.1";
/// IP packets of the guest's pings: 958 bytes of data, 8 of ICMP, 20 of IP.
const PING_BYTES: u64 = 986;

/// A namespace for the outside, which ends with this.
struct Outside(Child);

impl Outside {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn();
        let outside = Self(child.unwrap());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("a namespace", 60, || {
            let name = std::fs::read_link(format!("/proc/{}/ns/net", outside.0.id())).ok()?;
            (name != own).then_some(())
        });
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs shell text in a process' network namespace; what it prints.
fn run(pid: &str, text: &str) -> String {
    let mut command = Command::new("nsenter");
    let output = command.args(["-t", pid, "-n", "sh", "-ec", text]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Bytes and packets that the first rule about the guest's address has counted in a direction.
fn counted(pid: &str, end: &str) -> (u64, u64) {
    let saved = run(pid, "iptables-save -t filter -c");
    let line = saved.lines().find(|line| line.contains(&format!("{end} {GUEST_ADDRESS}/32")));
    let (packets, bytes) = line.unwrap()[1..].split_once(']').unwrap().0.split_once(':').unwrap();
    (bytes.parse().unwrap(), packets.parse().unwrap())
}

struct Chain {
    libvirtd: Libvirtd,
    outside: Outside,
    folder: tempfile::TempDir,
    exporter_port: u16,
    adapter_port: u16,
    begun: u64,
}

#[test]
fn external_traffic_is_billed_to_the_byte() {
    if let Some(reason) = missing() {
        return skip(&reason);
    }
    for name in ["iptables", "iptables-save", "ip6tables-save"] {
        if on_path(name).is_none() && !Path::new("/usr/sbin").join(name).is_file() {
            return skip(&format!("{name} is not installed"));
        }
    }
    let prometheus = std::env::var_os("KANYUN_PROMETHEUS_3").map(PathBuf::from);
    let Some(prometheus) = prometheus.filter(|file| file.is_file()) else {
        return skip("KANYUN_PROMETHEUS_3 names no binary (scripts/tools install makes it)");
    };
    let chain = Chain {
        libvirtd: Libvirtd::start(),
        outside: Outside::new(),
        folder: tempfile::tempdir().unwrap(),
        exporter_port: free_port(),
        adapter_port: free_port(),
        begun: unix_seconds(),
    };
    chain.lay_cables();
    chain.start_guest();
    chain.make_rules();
    let _exporter = chain.exporter();
    let _adapter = chain.adapter();
    let _prometheus = chain.prometheus(&prometheus);
    // The first sample tells from where on is counted; what the guest sends comes after it.
    wait_for("a first minute of vmnetwork", 120, || chain.has_minutes().then_some(()));
    chain.open_the_way();
    let billed = chain.check_bill(1);

    // The guest's process is another then, the firewall's rules count on.
    chain.libvirtd.virsh(&["destroy", &format!("instance-{GUEST:08x}")]).unwrap();
    chain.start_guest();
    chain.open_the_way();
    chain.check_bill(billed + 1);
}

impl Chain {
    /// A process in the namespace of the guests' host.
    fn host(&self) -> String {
        let file = self.libvirtd.folder.path().join("libvirtd.pid");
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    fn outside(&self) -> String {
        self.outside.0.id().to_string()
    }

    /// The host's public interface, and an outside that counts by itself what reaches it.
    fn lay_cables(&self) {
        run(
            &self.host(),
            &format!(
                "ip link add pub0 type veth peer name eth0 netns {}\n\
                 ip addr add 198.51.100.1/24 dev pub0; ip link set pub0 up\n\
                 ip route add {PINGED_ADDRESS} via 198.51.100.2\n\
                 echo 1 > /proc/sys/net/ipv4/ip_forward",
                self.outside()
            ),
        );
        run(
            &self.outside(),
            &format!(
                "ip link set lo up; ip addr add {PINGED_ADDRESS}/32 dev lo\n\
                 ip addr add 198.51.100.2/24 dev eth0; ip link set eth0 up\n\
                 ip route add {GUEST_ADDRESS} via 198.51.100.1\n\
                 iptables -A INPUT -s {GUEST_ADDRESS}; iptables -A OUTPUT -d {GUEST_ADDRESS}"
            ),
        );
    }

    /// A guest that pings, at first an address that nobody has.
    fn start_guest(&self) {
        self.libvirtd.start_guest(GUEST, "write_mib=1 read_mib=1 pings=20 every=10");
        run(
            &self.host(),
            &format!(
                "ip addr flush dev tap{GUEST}; ip route replace {GUEST_ADDRESS} dev tap{GUEST}"
            ),
        );
    }

    /// From here on the host answers for the outside's address, and forwards.
    fn open_the_way(&self) {
        run(&self.host(), &format!("echo 1 > /proc/sys/net/ipv4/conf/tap{GUEST}/proxy_arp"));
    }

    fn command(&self) -> Command {
        let binary =
            Path::new(env!("CARGO_BIN_EXE_kanyun-adapter")).with_file_name("kanyun-exporter");
        let mut command = Command::new(binary);
        command.arg("--libvirt.uri").arg(self.libvirtd.socket());
        command.arg("--libvirt.run-directory").arg(self.libvirtd.folder.path().join("run/qemu"));
        command.arg(format!("--traffic.netns=/proc/{}/ns/net", self.host()));
        command
    }

    /// Rules from the guest's address in nova's metadata.
    fn make_rules(&self) {
        let mut command = self.command();
        let args = ["traffic", "apply", "--interface", "pub0", "--direction", "both"];
        let output = command.args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(counted(&self.host(), "-s"), (0, 0), "{said}");
    }

    fn exporter(&self) -> Part {
        let mut command = self.command();
        command.arg(format!("--web.listen-address=127.0.0.1:{}", self.exporter_port));
        command.arg("--collector.traffic");
        let mut part = Part::start("exporter", self.folder.path(), &mut command);
        part.wait_until_ready(&format!("http://127.0.0.1:{}/metrics", self.exporter_port));
        part
    }

    fn adapter(&self) -> Part {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-adapter"));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", self.adapter_port));
        command.arg("--store.path").arg(self.folder.path().join("data"));
        let mut part = Part::start("adapter", self.folder.path(), &mut command);
        part.wait_until_ready(&format!("http://127.0.0.1:{}/-/ready", self.adapter_port));
        part
    }

    fn prometheus(&self, binary: &Path) -> Part {
        let (exporter, adapter, port) = (self.exporter_port, self.adapter_port, free_port());
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: libvirt, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n\
             remote_write: [{{url: 'http://127.0.0.1:{adapter}/api/v1/write', queue_config: {{batch_send_deadline: 1s}}}}]\n"
        );
        let file = self.folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(binary);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", self.folder.path().join("tsdb").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut part = Part::start("prometheus", self.folder.path(), &mut command);
        part.wait_until_ready(&format!("http://127.0.0.1:{port}/-/ready"));
        part
    }

    /// A minute under way belongs to the range that holds its last second.
    fn range(&self) -> (u64, u64) {
        (self.begun - 60, unix_seconds() + 60)
    }

    fn has_minutes(&self) -> bool {
        let (from, to) = self.range();
        let (port, uuid) = (self.adapter_port, uuid());
        let url = format!(
            "http://127.0.0.1:{port}/api/v1/usage?id={uuid}&metric=vmnetwork&from={from}&to={to}"
        );
        let text = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        let page: Value = serde_json::from_str(&text).unwrap();
        !page["rows"].as_array().unwrap().is_empty()
    }

    fn billed(&self, metric: &str, device: &str) -> u64 {
        let (from, to) = self.range();
        let args = json!({
            "id": uuid(), "metric": metric, "metric_param": device, "statistic": "sum",
            "period": 60, "timestamp_from": from, "timestamp_to": to,
        });
        let url = format!("http://127.0.0.1:{}/query_usage_report", self.adapter_port);
        let text =
            ureq::post(url).send(args.to_string()).unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["code"], 200, "{answer}");
        let periods = answer["data"].as_object().unwrap();
        periods.values().map(|bytes| bytes.as_u64().unwrap_or_else(|| panic!("{answer}"))).sum()
    }

    /// Waits for an idle moment in which at least so many bytes are billed, and exactly those that the outside has received.
    fn check_bill(&self, least: u64) -> u64 {
        let mut last = (0, 0);
        let billed = wait_for("a bill of what the outside received", 240, || {
            let before = counted(&self.outside(), "-s");
            let billed = self.billed("vmnetwork", "total");
            let idle = counted(&self.outside(), "-s") == before;
            if last != (billed, before.0) {
                last = (billed, before.0);
                println!("billed {billed} bytes, the outside received {}", before.0);
            }
            (idle && billed == before.0 && billed >= least).then_some(billed)
        });
        let (bytes, packets) = counted(&self.host(), "-s");
        assert_eq!(bytes, PING_BYTES * packets, "what the host's rule counted are the pings");
        for (metric, device) in [("vmnetwork", GUEST_ADDRESS), ("network", "total")] {
            wait_for("the same bill by another name", 60, || {
                let before = counted(&self.outside(), "-s").0;
                (self.billed(metric, device) == before).then_some(())
            });
        }
        assert_eq!(self.billed("vmnetwork", "10.99.0.64"), 0);
        billed
    }
}

fn uuid() -> String {
    format!("de305d54-75b4-431b-adb2-{GUEST:012x}")
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
