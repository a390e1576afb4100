//! The whole page beside what `virsh domstats` prints at the same moment of real, busy guests: every field of libvirt's is
//! on the page or named here as one that is not shown, and no figure is on the page that libvirt did not report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Command, Stdio};

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, Libvirtd, guest_image, wait_for};
use crate::text::{Samples, samples, value};

/// A guest that has what the others lack: two of four vCPUs, a thread for input and output, limits, a CD drive.
const RICH: &str = "instance-00000033";
/// Fields that are not shown: how many there are of something, names and paths, which are labels or nobody's business.
const NOT_SHOWN: [&str; 6] =
    [".count", ".name", ".path", ".backingIndex", ".calc_mode", ".calc_status"];
/// What the page has beside libvirt's statistics, by the beginnings of the names.
const OURS: [&str; 17] = [
    "libvirt_domain_info{",
    "libvirt_domain_openstack_info{",
    "libvirt_domain_block_stats_info{",
    "libvirt_domain_interface_stats_info{",
    "libvirt_domain_block_stats_limit_",
    "libvirt_domain_cpu_pin_info{",
    "libvirt_domain_memory_stats_period_seconds{",
    "libvirt_domain_memory_stats_age_seconds{",
    "libvirt_domain_vcpu_cpu{",
    "libvirt_domain_job_info_type{",
    "libvirt_domain_timed_out{",
    "libvirt_domain_figures_age_seconds{",
    "libvirt_domain_start_time_seconds{",
    "libvirt_domain_alloc",
    "libvirt_domain_state_seconds_total{",
    // Made of several fields.
    "libvirt_domain_memory_used_bytes{",
    "libvirt_domain_memory_stats_used_percent{",
];

type Fields = BTreeMap<String, String>;

#[test]
fn a_page_says_what_virsh_says() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let libvirtd = Libvirtd::start();
    let exporter = exporter(&libvirtd);
    rich_guest(&libvirtd);
    // This one goes on working while it is looked at.
    libvirtd.start_guest(52, "write_mib=1 read_mib=1 pings=5 every=1");
    wait_for("two rounds of work", 180, || (libvirtd.rounds(52) > 1).then_some(()));
    wait_for("the other guest's work", 180, || (libvirtd.rounds(51) > 0).then_some(()));
    libvirtd.virsh(&["domdirtyrate-calc", RICH, "--seconds", "1"]).unwrap();

    for guest in [RICH, "instance-00000034"] {
        let mut shown = BTreeSet::new();
        wait_for("a page that says what virsh says", 120, || {
            let before = domstats(&libvirtd, guest);
            let page = samples(&exporter.metrics());
            let after = domstats(&libvirtd, guest);
            shown =
                compare(&page, guest, &before, &after).map_err(|odd| eprintln!("{odd}")).ok()?;
            used_memory(&page, guest)?;
            // The balloon driver has reported, and the dirty rate is there where it was asked for.
            let whole = before.contains_key("balloon.usable")
                && (guest != RICH || before.contains_key("dirtyrate.megabytes_per_second"));
            whole.then_some(())
        });
        assert!(shown.len() > 45, "only {} series of {guest}: {shown:#?}", shown.len());
    }
    selected(&exporter);
    a_job_and_the_pools(&libvirtd, &exporter);
    recorded(&libvirtd);
}

/// An exporter that collects all that it can.
fn exporter(libvirtd: &Libvirtd) -> Exporter {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    command.arg("--libvirt.uri").arg(libvirtd.socket());
    command.arg("--libvirt.run-directory").arg(libvirtd.folder.path().join("run/qemu"));
    command.args(["--collector.iothread", "--collector.dirtyrate", "--collector.kvm"]);
    command.arg("--collector.placement");
    Exporter::run(&mut command)
}

fn rich_guest(libvirtd: &Libvirtd) {
    let images = libvirtd.folder.path().join("lib/images");
    let image = images.join("rich.qcow2");
    let mut made = Command::new("qemu-img");
    made.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("64M");
    assert!(made.status().unwrap().success());
    let kernel = guest_image();
    let xml = format!(
        "<domain type='qemu'><name>{RICH}</name><uuid>de305d54-75b4-431b-adb2-000000000033</uuid>\
         <memory unit='MiB'>128</memory><vcpu current='2'>4</vcpu><iothreads>1</iothreads>\
         <cputune><vcpupin vcpu='0' cpuset='0'/></cputune>\
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}/vmlinuz</kernel><initrd>{kernel}/initrd.gz</initrd>\
         <cmdline>console=ttyS0 quiet address=10.99.0.53 write_mib=4 read_mib=2 pings=1</cmdline></os>\
         <features><acpi/></features><cpu mode='maximum'/><devices>\
         <emulator>/usr/bin/qemu-system-x86_64</emulator>\
         <serial type='file'><source path='{images}/console-51.log'/></serial>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2' iothread='1'/><source file='{image}'/>\
         <target dev='vda' bus='virtio'/><iotune><total_iops_sec>1000</total_iops_sec>\
         <write_bytes_sec>104857600</write_bytes_sec></iotune></disk>\
         <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>\
         <interface type='ethernet'><target dev='tap51'/><model type='virtio'/></interface>\
         <memballoon model='virtio'><stats period='1'/></memballoon></devices></domain>",
        kernel = kernel.display(),
        images = images.display(),
        image = image.display(),
    );
    let file = libvirtd.folder.path().join("rich.xml");
    fs::write(&file, xml).unwrap();
    libvirtd.virsh(&["create", file.to_str().unwrap()]).expect("the rich guest starts");
}

fn domstats(libvirtd: &Libvirtd, guest: &str) -> Fields {
    let text = libvirtd.virsh(&["domstats", guest]).unwrap();
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

/// Holds the page against what virsh said before and after it: each figure lies between them. Gives the series that were
/// held, or what does not fit.
fn compare(
    page: &Samples,
    guest: &str,
    before: &Fields,
    after: &Fields,
) -> Result<BTreeSet<String>, String> {
    let label = format!("domain=\"{guest}\"");
    let mut held = BTreeSet::new();
    for (field, first) in before {
        if NOT_SHOWN.iter().any(|end| field.ends_with(end)) || is_unset(field, first, before) {
            continue;
        }
        let series = series(field, before);
        assert!(!series.is_empty(), "{field} is on no page");
        let last = after.get(field).ok_or_else(|| format!("{field} is gone"))?;
        let [first, last]: [f64; 2] = [first, last].map(|text| text.parse().unwrap());
        for (name, own, divisor) in series {
            let mut labels = vec![label.as_str()];
            labels.extend(own.as_deref());
            let found = value(page, &name, &labels);
            let found = found.ok_or_else(|| format!("{name} {labels:?} is missing for {field}"))?;
            let found = found * divisor;
            let spare = first.abs().max(last.abs()) * 1e-9;
            if found < first.min(last) - spare || found > first.max(last) + spare {
                return Err(format!(
                    "{name} {labels:?} is {found}, {field} was {first}, then {last}"
                ));
            }
            let is_it = |series: &&String| {
                series.split('{').next() == Some(&name)
                    && labels.iter().all(|part| series.contains(part))
            };
            held.extend(page.keys().find(is_it).cloned());
        }
    }
    let of_guest = page.keys().filter(|series| series.contains(&label));
    let made_up: Vec<&String> = of_guest
        .filter(|series| !held.contains(*series))
        .filter(|series| !OURS.iter().any(|begin| series.starts_with(begin)))
        .collect();
    // A field that virsh printed only the second time is a matter of the moment.
    if made_up.is_empty() { Ok(held) } else { Err(format!("libvirt did not report {made_up:#?}")) }
}

/// What is made of several fields fits those of the same page.
fn used_memory(page: &Samples, guest: &str) -> Option<()> {
    let label = format!("domain=\"{guest}\"");
    let of = |name: &str| value(page, &format!("libvirt_domain_memory_{name}"), &[&label]);
    let (available, usable) = (of("stats_available_bytes")?, of("stats_usable_bytes")?);
    assert_eq!(of("used_bytes"), Some(available - usable));
    let percent = of("stats_used_percent").unwrap();
    assert!((percent - (available - usable) / available * 100.0).abs() < 1e-9, "{percent}");
    let age = of("stats_age_seconds").unwrap();
    assert!((0.0..120.0).contains(&age), "the balloon driver reported {age} s ago");
    Some(())
}

/// What libvirt prints where there is nothing to say: a balloon driver that never reported, a rate that nobody measured.
fn is_unset(field: &str, value: &str, all: &Fields) -> bool {
    let measured = all.get("dirtyrate.calc_status").is_some_and(|status| status == "2");
    field == "balloon.last-update" && value == "0" || field.starts_with("dirtyrate.") && !measured
}

/// The series that show a field: name, a label of their own, and what the value is multiplied with to get libvirt's.
fn series(field: &str, all: &Fields) -> Vec<(String, Option<String>, f64)> {
    let (group, rest) = field.split_once('.').unwrap();
    let numbered = rest.split_once('.').filter(|(number, _)| number.parse::<u32>().is_ok());
    let device = |kind: &str, number: &str| {
        let name = &all[&format!("{kind}.{number}.name")];
        Some(format!("target_device=\"{name}\""))
    };
    let one = |name: String, label, factor| vec![(format!("libvirt_domain_{name}"), label, factor)];
    match (group, numbered) {
        ("block", Some((number, key))) => {
            let (name, factor) = block(key);
            one(format!("block_stats_{name}"), device("block", number), factor)
        }
        ("net", Some((number, key))) => {
            one(format!("interface_stats_{}", net(key)), device("net", number), 1.0)
        }
        ("vcpu", Some((number, key))) => {
            let vcpu = Some(format!("vcpu=\"{number}\""));
            let (name, factor) = match key {
                "state" | "halted" => (key.to_owned(), 1.0),
                "time" | "wait" | "delay" => (format!("{key}_seconds_total"), 1e9),
                _ => return Vec::new(),
            };
            one(format!("vcpu_{name}"), vcpu, factor)
        }
        ("iothread", Some((number, key))) => {
            let (name, factor) = match key {
                "poll-max-ns" => ("poll_max_seconds", 1e9),
                "poll-grow" => ("poll_grow", 1.0),
                "poll-shrink" => ("poll_shrink", 1.0),
                _ => return Vec::new(),
            };
            one(format!("iothread_{name}"), Some(format!("iothread=\"{number}\"")), factor)
        }
        _ => whole(field)
            .iter()
            .map(|(name, factor)| (format!("libvirt_domain_{name}"), None, *factor))
            .collect(),
    }
}

fn block(key: &str) -> (&'static str, f64) {
    match key {
        "rd.reqs" => ("read_requests_total", 1.0),
        "rd.bytes" => ("read_bytes_total", 1.0),
        "rd.times" => ("read_time_seconds_total", 1e9),
        "wr.reqs" => ("write_requests_total", 1.0),
        "wr.bytes" => ("write_bytes_total", 1.0),
        "wr.times" => ("write_time_seconds_total", 1e9),
        "fl.reqs" => ("flush_requests_total", 1.0),
        "fl.times" => ("flush_time_seconds_total", 1e9),
        "capacity" => ("capacity_bytes", 1.0),
        "allocation" => ("allocation_bytes", 1.0),
        "physical" => ("physical_bytes", 1.0),
        "errors" => ("errors_total", 1.0),
        "threshold" => ("threshold_bytes", 1.0),
        _ => panic!("block.N.{key} is on no page"),
    }
}

fn net(key: &str) -> &'static str {
    match key {
        "rx.bytes" => "receive_bytes_total",
        "rx.pkts" => "receive_packets_total",
        "rx.errs" => "receive_errors_total",
        "rx.drop" => "receive_drops_total",
        "tx.bytes" => "transmit_bytes_total",
        "tx.pkts" => "transmit_packets_total",
        "tx.errs" => "transmit_errors_total",
        "tx.drop" => "transmit_drops_total",
        _ => panic!("net.N.{key} is on no page"),
    }
}

/// Fields of the guest as a whole; memory is in KiB.
fn whole(field: &str) -> &'static [(&'static str, f64)] {
    const KIB: f64 = 1.0 / 1024.0;
    const MIB: f64 = KIB / 1024.0;
    match field {
        "state.state" => &[("info_state", 1.0)],
        "state.reason" => &[("info_state_reason", 1.0)],
        "cpu.time" => &[("info_cpu_time_seconds_total", 1e9)],
        "cpu.user" => &[("cpu_user_seconds_total", 1e9)],
        "cpu.system" => &[("cpu_system_seconds_total", 1e9)],
        "cpu.haltpoll.success.time" => &[("cpu_haltpoll_success_seconds_total", 1e9)],
        "cpu.haltpoll.fail.time" => &[("cpu_haltpoll_fail_seconds_total", 1e9)],
        "vcpu.current" => &[("info_virtual_cpus", 1.0), ("vcpu_current", 1.0)],
        "vcpu.maximum" => &[("vcpu_maximum", 1.0)],
        "balloon.current" => {
            &[("info_memory_usage_bytes", KIB), ("memory_stats_current_balloon_bytes", KIB)]
        }
        "balloon.maximum" => {
            &[("info_maximum_memory_bytes", KIB), ("memory_stats_maximum_bytes", KIB)]
        }
        "balloon.swap_in" => &[("memory_stats_swap_in_bytes", KIB)],
        "balloon.swap_out" => &[("memory_stats_swap_out_bytes", KIB)],
        "balloon.major_fault" => &[("memory_stats_major_fault_total", 1.0)],
        "balloon.minor_fault" => &[("memory_stats_minor_fault_total", 1.0)],
        "balloon.unused" => &[("memory_stats_unused_bytes", KIB)],
        "balloon.available" => &[("memory_stats_available_bytes", KIB)],
        "balloon.usable" => &[("memory_stats_usable_bytes", KIB)],
        "balloon.last-update" => &[("memory_stats_last_update_timestamp_seconds", 1.0)],
        "balloon.disk_caches" => &[("memory_stats_disk_caches_bytes", KIB)],
        "balloon.hugetlb_pgalloc" => &[("memory_stats_hugetlb_pgalloc_total", 1.0)],
        "balloon.hugetlb_pgfail" => &[("memory_stats_hugetlb_pgfail_total", 1.0)],
        "balloon.rss" => &[("memory_stats_rss_bytes", KIB)],
        "dirtyrate.calc_start_time" => &[("dirty_rate_start_timestamp_seconds", 1.0)],
        "dirtyrate.calc_period" => &[("dirty_rate_period_seconds", 1.0)],
        "dirtyrate.megabytes_per_second" => &[("dirty_rate_bytes_per_second", MIB)],
        _ => &[],
    }
}

/// `collect[]` and `exclude[]` of a scrape.
fn selected(exporter: &Exporter) {
    let page = |query: &str| {
        let (head, body) = exporter.get(&format!("/metrics?{query}"), "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        samples(&body)
    };
    let names = |page: &Samples, part: &str| page.keys().filter(|name| name.contains(part)).count();
    let some = page("collect[]=cpu&collect%5B%5D=interface");
    assert!(
        names(&some, "libvirt_domain_info_cpu_time") == 2 && names(&some, "receive_bytes") == 2
    );
    for part in ["block_stats", "memory_stats", "vcpu_", "openstack", "node_cpu"] {
        assert_eq!(names(&some, part), 0, "{part}");
    }
    let flags = some.iter().filter(|(series, _)| series.starts_with("libvirt_domain_timed_out"));
    assert!(flags.clone().count() == 2 && flags.clone().all(|(_, flag)| *flag == 0.0));
    // What libvirtd knows by itself is had without the monitors, and nobody is flagged for it.
    let calls = |page: &Samples| {
        value(page, "kanyun_exporter_libvirt_calls_total", &["call=\"stats\""]).unwrap()
    };
    let [first, second] = [page("collect[]=interface"), page("collect[]=interface")];
    assert!((calls(&second) - calls(&first) - 1.0).abs() < f64::EPSILON);
    assert_eq!(names(&second, "receive_bytes"), 2);
    assert!(second.iter().all(|(series, flag)| !series.contains("timed_out") || *flag == 0.0));
    let less = page("exclude[]=block");
    assert_eq!(names(&less, "block_stats_read"), 0);
    assert!(names(&less, "memory_stats") > 10);
    let (head, body) = exporter.get("/metrics?collect[]=nothing", "");
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("nothing"), "{head} {body}");
}

/// A process that is ended by its id.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// While a guest is dumped into a pipe that nobody reads on, its job is on the page; before, there is none.
fn a_job_and_the_pools(libvirtd: &Libvirtd, exporter: &Exporter) {
    let label = format!("domain=\"{RICH}\"");
    let of =
        |page: &Samples, name: &str| value(page, &format!("libvirt_domain_job_{name}"), &[&label]);
    let page = samples(&exporter.metrics());
    assert_eq!(of(&page, "info_type"), Some(0.0));
    assert_eq!(of(&page, "info_operation"), None);

    let images = libvirtd.folder.path().join("lib/images");
    let made =
        libvirtd.virsh(&["pool-create-as", "images", "dir", "--target", images.to_str().unwrap()]);
    assert!(made.is_some());
    let text = libvirtd.virsh(&["pool-info", "--bytes", "images"]).unwrap();
    let said = |field: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().parse().unwrap()
    };
    let pool = ["collector=\"pool\""];
    let page = wait_for("the pools", 60, || {
        let page = samples(&exporter.metrics());
        let success = value(&page, "kanyun_exporter_collector_success", &pool);
        (success == Some(1.0)).then_some(page)
    });
    for (name, field) in
        [("capacity", "Capacity:"), ("allocation", "Allocation:"), ("available", "Available:")]
    {
        let name = format!("libvirt_storage_pool_{name}_bytes");
        assert_eq!(value(&page, &name, &["storage_pool=\"images\""]), Some(said(field)), "{name}");
    }
    assert_eq!(value(&page, "libvirt_storage_pool_state", &[]), Some(2.0));

    let pipe = libvirtd.folder.path().join("lib/images/dump");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = libvirtd.folder.path().join("sock/libvirt-sock");
    let mut dump = Command::new("virsh");
    dump.args(["-q", "-c", &format!("qemu:///system?socket={}", socket.display())]);
    dump.args(["dump", "--live", RICH, "/var/lib/libvirt/images/dump"]).stdout(Stdio::null());
    let mut dump = Running(dump.spawn().unwrap());
    // Waits for the writer; what is not read keeps the dump under way.
    let held = fs::File::open(&pipe).unwrap();
    wait_for("the job on the page", 60, || {
        assert!(dump.0.try_wait().unwrap().is_none(), "the dump ended before its time");
        let page = samples(&exporter.metrics());
        let dump = of(&page, "info_operation") == Some(8.0) && of(&page, "info_type") > Some(0.0);
        let elapsed = of(&page, "info_time_elapsed_seconds");
        (dump && elapsed.is_some_and(|elapsed| elapsed < 600.0)).then_some(())
    });
    drop(held);
    dump.0.wait().unwrap();
    wait_for("the end of the job", 60, || {
        (of(&samples(&exporter.metrics()), "info_type") == Some(0.0)).then_some(())
    });
}

/// A recording of the same host gives the same page, and an anonymous one the same figures under other names.
fn recorded(libvirtd: &Libvirtd) {
    let file = libvirtd.folder.path().join("host.json");
    let hidden = libvirtd.folder.path().join("hidden.json");
    for (file, more) in [(&file, None), (&hidden, Some("--anonymise"))] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
        command.arg("record").arg(file).args(more).arg("--libvirt.uri").arg(libvirtd.socket());
        command.arg("--libvirt.run-directory").arg(libvirtd.folder.path().join("run/qemu"));
        assert!(command.status().unwrap().success());
    }
    let replayed = |file: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
        let exporter = Exporter::run(command.arg("--libvirt.replay").arg(file));
        samples(&exporter.metrics())
    };
    let page = replayed(&file);
    let label = format!("domain=\"{RICH}\"");
    let read = |page: &Samples, label: &str| {
        value(
            page,
            "libvirt_domain_block_stats_write_bytes_total",
            &[label, "target_device=\"vda\""],
        )
    };
    assert!(read(&page, &label) >= Some(4_194_304.0), "{page:#?}");
    assert!(value(&page, "libvirt_domain_start_time_seconds", &[&label]).is_some());
    assert_eq!(value(&page, "libvirt_domains", &[]), Some(2.0));
    let text = fs::read_to_string(&hidden).unwrap();
    for secret in [RICH, "de305d54", "tap51", "10.99.0", libvirtd.folder.path().to_str().unwrap()] {
        assert!(!text.contains(secret), "{secret} is in the anonymous recording");
    }
    let names = |page: &Samples| -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        for series in page.keys().filter(|series| series.starts_with("libvirt_domain_")) {
            *names.entry(series.split('{').next().unwrap().to_owned()).or_default() += 1;
        }
        names
    };
    assert_eq!(names(&replayed(&hidden)), names(&page));
}
