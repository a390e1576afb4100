//! External traffic for real: namespaces for a guest, its host and the outside, packets between them, rules of both firewalls
//! made by the exporter's own commands, and counters that equal what was sent.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, wait_for};
use crate::text::{samples, value};

/// Bytes of the IP packets that a ping of 958 bytes of data is made of, over IPv4 and IPv6.
const PING_BYTES: [u64; 2] = [986, 1006];
const NOBODY: u32 = 65534;

/// Why these tests cannot run here.
fn missing() -> Option<String> {
    for name in [
        "iptables",
        "ip6tables",
        "iptables-save",
        "nft",
        "ip",
        "unshare",
        "nsenter",
        "busybox",
        "setpriv",
    ] {
        let known =
            ["/usr/sbin", "/sbin"].iter().any(|folder| PathBuf::from(folder).join(name).is_file());
        if !known && libvirtd::on_path(name).is_none() {
            return Some(format!("{name} is not installed"));
        }
    }
    let made = Command::new("unshare").args(["--net", "true"]).output().unwrap();
    (!made.status.success()).then(|| "network namespaces need root".to_owned())
}

/// A network namespace that lives as long as this.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let namespace = Self(command.process_group(0).spawn().unwrap());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("a namespace", 60, || {
            let name = std::fs::read_link(namespace.path()).ok()?;
            (name != own).then_some(())
        });
        namespace.run("ip link set lo up");
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).args(["--", program]);
        command
    }

    /// Runs shell text in it; what it prints.
    fn run(&self, text: &str) -> String {
        done(self.command("sh").args(["-ec", text]))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A guest behind a host that forwards to the outside.
struct Site {
    guest: Namespace,
    host: Namespace,
    _outside: Namespace,
    firewall: &'static str,
}

impl Site {
    fn new(firewall: &'static str) -> Self {
        let [guest, host, outside] = [0; 3].map(|_| Namespace::new());
        host.run(&format!(
            "ip link add tap0 type veth peer name eth0 netns {}\n\
             ip link add pub0 type veth peer name eth0 netns {}\n\
             ip addr add 10.0.0.1/24 dev tap0; ip addr add 2001:db8:1::1/64 dev tap0 nodad\n\
             ip addr add 198.51.100.1/24 dev pub0; ip addr add 2001:db8:2::1/64 dev pub0 nodad\n\
             ip link set tap0 up; ip link set pub0 up\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            guest.0.id(),
            outside.0.id()
        ));
        guest.run(
            "ip addr add 10.0.0.2/24 dev eth0; ip addr add 2001:db8:1::2/64 dev eth0 nodad\n\
             ip link set eth0 up; ip route add default via 10.0.0.1; ip route add default via 2001:db8:1::1",
        );
        outside.run(
            "ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:2::2/64 dev eth0 nodad\n\
             ip link set eth0 up; ip route add default via 198.51.100.1; ip route add default via 2001:db8:2::1",
        );
        Self { guest, host, _outside: outside, firewall }
    }

    /// The exporter's command line for this site.
    fn exporter(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
        command.arg(format!("--traffic.firewall={}", self.firewall));
        command.arg(format!("--traffic.netns={}", self.host.path()));
        command.args(["--libvirt.uri=/nonexistent/socket"]).args(args);
        command
    }

    fn traffic(&self, args: &str) -> Output {
        let args: Vec<&str> = ["traffic"].into_iter().chain(args.split(' ')).collect();
        self.exporter(&args).output().unwrap()
    }

    /// Runs `traffic …`; what it prints, and what it says beside that.
    fn told(&self, args: &str) -> (String, String) {
        let output = self.traffic(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args}: {said}");
        (String::from_utf8(output.stdout).unwrap(), said)
    }

    /// All rules and all chains of ours, without their counters. What an empty table looks like depends on who asked first.
    fn rules(&self) -> Vec<String> {
        let text = self.host.run(
            "iptables-save -t filter; ip6tables-save -t filter; nft -s list table inet kanyun || true",
        );
        let own = |line: &&str| {
            let ours = ["kanyun", "accounting rule"].iter().any(|part| line.contains(part));
            ours || line.starts_with("-A")
        };
        text.lines().filter(own).map(|line| line.split(" [").next().unwrap().to_owned()).collect()
    }

    /// Pings the outside from the guest, over both versions of IP.
    fn pings(&self, count: u64) {
        for address in ["198.51.100.2", "2001:db8:2::2"] {
            let text = format!("busybox ping -q -i 0.05 -s 958 -c {count} -w 60 {address}");
            let said = self.guest.run(&text);
            assert!(said.contains(&format!("{count} packets received")), "{said}");
        }
    }

    /// The row of `traffic show` for an address and a direction: bytes and packets.
    fn shown(&self, address: &str, direction: &str) -> Option<(u64, u64)> {
        let (text, _) = self.told("show");
        let cells = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = cells
            .into_iter()
            .find(|cells| cells.contains(&address) && cells.contains(&direction))?;
        let number = |back: usize| row[row.len() - back].parse().unwrap();
        Some((number(2), number(1)))
    }
}

const WANTED: &str = "--interface pub0 --direction both --address 116@host 10.0.0.2 --address instance-00000074 2001:db8:1::2";

#[test]
fn iptables_counts_what_a_guest_sends() {
    counts_what_a_guest_sends("iptables");
}

#[test]
fn nftables_counts_what_a_guest_sends() {
    counts_what_a_guest_sends("nftables");
}

fn counts_what_a_guest_sends(firewall: &'static str) {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    let site = Site::new(firewall);
    // A rule of 2012 that is already there for another guest, and some rule of somebody else's.
    site.host.run(
        "iptables -A FORWARD -s 10.0.0.9 -o pub0 -m comment --comment '117@host 10.0.0.9 accounting rule'\n\
         iptables -A FORWARD -s 10.0.0.10 -j ACCEPT",
    );
    let before = site.rules();

    let (script, _) = site.told(&format!("print {WANTED}"));
    assert_eq!(site.rules(), before, "print changed the rules");
    let absent = site.traffic(&format!("apply {}", WANTED.replace("pub0", "eth9")));
    assert!(!absent.status.success());
    assert!(String::from_utf8_lossy(&absent.stderr).contains("no interface eth9"), "{absent:?}");
    assert_eq!(site.rules(), before, "a refused apply changed the rules");

    let (applied, _) = site.told(&format!("apply {WANTED}"));
    assert_eq!(applied, script, "apply does not what print shows");
    let made = site.rules();
    let (again, said) = site.told(&format!("apply {WANTED}"));
    assert_eq!(again, "", "{said}");
    assert_eq!(site.rules(), made);
    assert!(said.contains("nothing is missing"), "{said}");

    site.pings(7);
    for (address, bytes) in ["10.0.0.2", "2001:db8:1::2"].into_iter().zip(PING_BYTES) {
        for direction in ["in", "out"] {
            assert_eq!(
                site.shown(address, direction),
                Some((7 * bytes, 7)),
                "{address} {direction}"
            );
        }
    }
    if firewall == "iptables" {
        assert_eq!(site.shown("10.0.0.9", "out"), Some((0, 0)));
    }

    site.told("remove");
    assert_eq!(site.rules(), before, "remove left something, or took too much");
    let (_, said) = site.told("remove");
    assert!(said.contains("nothing of ours is there"), "{said}");

    // What print shows is a script: run by a shell, it does what apply does.
    done(Command::new("sh").args(["-ec", &script]));
    let (none, _) = site.told(&format!("apply {WANTED}"));
    assert_eq!(none, "");
    assert_eq!(site.rules(), made);
}

/// Jumps to our chains and rules in them, as they are made, but for their place and counters.
fn ours(rules: &[String]) -> Vec<String> {
    let parts = ["accounting rule", "jump kanyun", "-j kanyun"];
    let own = |line: &&str| parts.iter().any(|part| line.contains(part));
    let mut ours: Vec<String> =
        rules.iter().map(|line| line.trim()).filter(own).map(str::to_owned).collect();
    ours.sort_unstable();
    ours
}

/// A timer and a person may apply at once, and an older program may have made too much already.
#[test]
fn nothing_is_counted_twice() {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    for firewall in ["iptables", "nftables"] {
        let site = Site::new(firewall);
        site.told(&format!("apply {WANTED}"));
        let made = ours(&site.rules());
        site.told("remove");
        let words: Vec<&str> = ["traffic", "apply"].into_iter().chain(WANTED.split(' ')).collect();
        let start = |_| {
            let mut command = site.exporter(&words);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let applies: Vec<Child> = (0..6).map(start).collect();
        for apply in applies {
            let output = apply.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(ours(&site.rules()), made, "{firewall}: some came twice");

        let more = match firewall {
            "iptables" => "iptables -I FORWARD 1 -o pub0 -j kanyun-out",
            _ => "nft add rule inet kanyun kanyun-forward oifname pub0 jump kanyun-out",
        };
        site.host.run(&format!("{more}\n{more}"));
        assert_eq!(ours(&site.rules()).len(), made.len() + 2, "{firewall}");
        site.told(&format!("apply {WANTED}"));
        assert_eq!(ours(&site.rules()), made, "{firewall}");
        site.pings(3);
        assert_eq!(site.shown("10.0.0.2", "out"), Some((3 * PING_BYTES[0], 3)), "{firewall}");

        site.host.run(more);
        site.told("remove");
        assert_eq!(site.rules(), [""; 0], "{firewall}: remove left something");
    }
}

/// A rule of 2012 is for one interface; what goes by another is counted as well, and nothing twice.
#[test]
fn rules_of_2012_for_one_interface_are_completed() {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    let site = Site::new("iptables");
    site.host.run(
        "ip link add pub1 type veth peer name pub2\n\
         iptables -A FORWARD -s 10.0.0.2 -o pub0 -m comment --comment '116@host 10.0.0.2 accounting rule'\n\
         iptables -A FORWARD -s 10.0.0.9 -o pub1 -m comment --comment '117@host 10.0.0.9 accounting rule'",
    );
    let apply = "apply --interface pub0 --interface pub1 --address 116 10.0.0.2";
    site.told(apply);
    let rules = site.rules();
    assert!(
        rules.iter().any(|rule| rule.starts_with("-A kanyun-out -s 10.0.0.2/32 -o pub1 ")),
        "{rules:#?}"
    );
    let (_, said) = site.told(apply);
    assert!(said.contains("nothing is missing"), "{said}");
    site.pings(4);
    assert_eq!(site.shown("10.0.0.2", "out"), Some((4 * PING_BYTES[0], 4)));
}

/// Tenants' networks may overlap: rules for both guests would bill both for the same packets.
#[test]
fn an_address_of_two_guests_gets_no_rule() {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    let site = Site::new("iptables");
    let two =
        "--interface pub0 --address 116 10.0.0.2 --address 117 10.0.0.2 --address 118 10.0.0.3";
    let (_, said) = site.told(&format!("apply {two}"));
    for part in ["10.0.0.2", "instance-00000074", "instance-00000075", "--traffic.netns"] {
        assert!(said.contains(part), "{said}");
    }
    let rules = site.rules();
    assert!(!rules.iter().any(|rule| rule.contains("10.0.0.2")), "{rules:#?}");
    assert!(rules.iter().any(|rule| rule.contains("10.0.0.3")), "{rules:#?}");
}

/// The exporter's unit has PrivateUsers=yes, which has to go where it is to read the rules itself.
#[test]
fn a_capability_of_another_user_namespace_reads_no_rules() {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    let site = Site::new("iptables");
    site.told(&format!("apply {WANTED}"));
    let mut command = site.host.command("unshare");
    command.args(["--user", "--map-root-user", "--", env!("CARGO_BIN_EXE_kanyun-exporter")]);
    command.args(["--collector.traffic", "--libvirt.uri=/nonexistent/socket"]);
    let exporter = Exporter::run(&mut command);
    let address = exporter.address();
    let page = site.host.run(&format!("busybox wget -q -O - http://{address}/metrics"));
    let success = ["collector=\"traffic\""];
    let found = value(&samples(&page), "kanyun_exporter_collector_success", &success);
    assert_eq!(found, Some(0.0));
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/exporter.md");
    assert!(std::fs::read_to_string(docs).unwrap().contains("`PrivateUsers=no`"));
}

/// What the unit of the helper starts, for whoever connects, as systemd does for the socket unit.
#[test]
fn an_exporter_without_a_capability_reads_from_the_helper() {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/kanyun-traffic@.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c ")).unwrap();
    let site = Site::new("iptables");
    site.told(&format!("apply {WANTED}"));
    site.pings(3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    // Root by name, so that the test's own files can be read, but without any capability.
    let mut show = Command::new("setpriv");
    show.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"]);
    show.arg(env!("CARGO_BIN_EXE_kanyun-exporter")).args(["traffic", "show"]);
    show.arg("--traffic.socket").arg(&path).arg("--libvirt.uri=/nonexistent/socket");
    let mut show = show.stdout(Stdio::piped()).spawn().unwrap();
    let stream = wait_for("a question to the helper", 60, || {
        assert!(show.try_wait().unwrap().is_none(), "it ended without asking the helper");
        listener.accept().ok()
    });
    let mut helper = site.host.command("sh");
    helper.args(["-c", start.trim_matches('\'')]).stdout(OwnedFd::from(stream.0));
    assert!(helper.status().unwrap().success());
    // The command holds the stream too: the exporter reads to its end.
    drop(helper);
    let output = show.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for (ip, bytes) in ["10.0.0.2", "2001:db8:1::2"].into_iter().zip(PING_BYTES) {
        let row = text.lines().find(|line| line.contains(ip) && line.contains(" out ")).unwrap();
        assert!(row.contains(&format!(" {} ", 3 * bytes)), "{text}");
    }
}

#[test]
fn an_unprivileged_exporter_reads_with_one_capability() {
    if let Some(reason) = missing() {
        return libvirtd::skip(&reason);
    }
    for firewall in ["iptables", "nftables"] {
        let site = Site::new(firewall);
        site.told(&format!("apply {WANTED}"));
        for (capabilities, success) in [("+net_admin", 1.0), ("-all", 0.0)] {
            // As the unit's User= and AmbientCapabilities= do it, in the namespace of the rules.
            let mut command = site.host.command("setpriv");
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
            command.args(["--clear-groups", "--no-new-privs", "--inh-caps=-all,+net_admin"]);
            command.args([format!("--ambient-caps={capabilities}"), "--".to_owned()]);
            command.arg(env!("CARGO_BIN_EXE_kanyun-exporter"));
            command.arg(format!("--traffic.firewall={firewall}"));
            command.args(["--collector.traffic", "--libvirt.uri=/nonexistent/socket"]);
            let exporter = Exporter::run(&mut command);
            // Only in the namespace can its page be asked for.
            let page = site
                .host
                .run(&format!("busybox wget -q -O - http://{}/metrics", exporter.address()));
            let page = samples(&page);
            let found =
                value(&page, "kanyun_exporter_collector_success", &["collector=\"traffic\""]);
            assert_eq!(found, Some(success), "{firewall} {capabilities}");
            assert!(page.keys().all(|series| !series.contains("external_traffic")));
        }
    }
}

#[test]
fn rules_that_cannot_be_read_do_not_hurt_a_scrape() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    command.args(["--libvirt.uri=/nonexistent/socket", "--collector.traffic"]);
    command.arg("--traffic.netns=/nonexistent/namespace");
    let exporter = Exporter::run(&mut command);
    let page = samples(&exporter.metrics());
    let success = value(&page, "kanyun_exporter_collector_success", &["collector=\"traffic\""]);
    assert_eq!(success, Some(0.0));
    assert!(
        value(&page, "kanyun_exporter_collector_duration_seconds", &["collector=\"traffic\""])
            .is_some()
    );
    assert!(page.keys().all(|series| !series.contains("external_traffic")));
}

/// A helper that never ends holds neither the scrape nor what libvirt says.
#[test]
fn a_helper_that_hangs_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // Connections wait in its queue, and nobody ever answers.
    let _listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    command.args(["--libvirt.uri=/nonexistent/socket", "--collector.traffic"]);
    command.arg("--traffic.socket").arg(&path);
    let exporter = Exporter::run(&mut command);
    for _ in 0..3 {
        let began = Instant::now();
        let (head, body) = exporter.get("/metrics", "X-Prometheus-Scrape-Timeout-Seconds: 6\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(began.elapsed().as_secs_f64() < 6.0, "the scrape came too late");
        let page = samples(&body);
        let of = |name: &str| value(&page, name, &["collector=\"traffic\""]);
        assert_eq!(of("kanyun_exporter_collector_success"), Some(0.0));
        assert!(of("kanyun_exporter_collector_duration_seconds").is_some());
        // libvirt was asked meanwhile, and its own step is told as it went.
        let basic = value(&page, "kanyun_exporter_collector_success", &["collector=\"basic\""]);
        assert_eq!(basic, Some(0.0));
    }
}
