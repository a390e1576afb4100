//! Beside a real libvirtd with real guests: the page says what virsh says, and follows guests and daemon as they come
//! and go.

use std::collections::HashMap;
use std::process::Command;
use std::time::Instant;

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, Libvirtd, wait_for};
use crate::text::{Samples, samples, value};

/// Fields of virsh domstats and the series that carry them: (field, metric, label, divisor).
const PAIRS: [(&str, &str, &str, f64); 16] = [
    ("state.state", "libvirt_domain_info_state", "", 1.0),
    ("balloon.current", "libvirt_domain_info_memory_usage_bytes", "", 1.0 / 1024.0),
    ("balloon.maximum", "libvirt_domain_info_maximum_memory_bytes", "", 1.0 / 1024.0),
    ("balloon.available", "libvirt_domain_memory_stats_available_bytes", "", 1.0 / 1024.0),
    ("vcpu.current", "libvirt_domain_info_virtual_cpus", "", 1.0),
    (
        "block.0.rd.bytes",
        "libvirt_domain_block_stats_read_bytes_total",
        "target_device=\"vda\"",
        1.0,
    ),
    (
        "block.0.rd.reqs",
        "libvirt_domain_block_stats_read_requests_total",
        "target_device=\"vda\"",
        1.0,
    ),
    (
        "block.0.rd.times",
        "libvirt_domain_block_stats_read_time_seconds_total",
        "target_device=\"vda\"",
        1e9,
    ),
    (
        "block.0.wr.bytes",
        "libvirt_domain_block_stats_write_bytes_total",
        "target_device=\"vda\"",
        1.0,
    ),
    (
        "block.0.wr.reqs",
        "libvirt_domain_block_stats_write_requests_total",
        "target_device=\"vda\"",
        1.0,
    ),
    (
        "block.0.wr.times",
        "libvirt_domain_block_stats_write_time_seconds_total",
        "target_device=\"vda\"",
        1e9,
    ),
    ("block.0.capacity", "libvirt_domain_block_stats_capacity_bytes", "target_device=\"vda\"", 1.0),
    (
        "net.0.rx.bytes",
        "libvirt_domain_interface_stats_receive_bytes_total",
        "target_device=\"tap",
        1.0,
    ),
    (
        "net.0.rx.pkts",
        "libvirt_domain_interface_stats_receive_packets_total",
        "target_device=\"tap",
        1.0,
    ),
    (
        "net.0.tx.bytes",
        "libvirt_domain_interface_stats_transmit_bytes_total",
        "target_device=\"tap",
        1.0,
    ),
    (
        "net.0.tx.pkts",
        "libvirt_domain_interface_stats_transmit_packets_total",
        "target_device=\"tap",
        1.0,
    ),
];

#[test]
fn guests_of_a_real_libvirtd() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let mut libvirtd = Libvirtd::start();
    let exporter = Exporter::start(&libvirtd);
    let guests: Vec<String> = [41, 42].iter().map(|number| libvirtd.busy_guest(*number)).collect();
    wait_for("readiness", 60, || exporter.get("/-/ready", "").0.contains("200 OK").then_some(()));

    for guest in &guests {
        same_as_virsh(&libvirtd, &exporter, guest);
    }
    the_hosts_size(&libvirtd, &exporter);
    formats(&exporter);
    a_hung_guest_hurts_only_itself(&libvirtd, &exporter, &guests);

    libvirtd.virsh(&["destroy", &guests[0]]).unwrap();
    let page = exporter.metrics();
    assert!(!page.contains(&guests[0]), "a guest that is gone is still on the page");
    assert_eq!(value(&samples(&page), "libvirt_domains", &[]), Some(1.0));

    libvirtd.kill();
    let page = samples(&exporter.metrics());
    assert_eq!(value(&page, "libvirt_up", &[]), Some(0.0));
    assert_eq!(value(&page, "libvirt_domains", &[]), None);
    // Its guests live on, and are shown as they were for a while.
    assert_eq!(value(&page, "libvirt_domain_timed_out", &[&guests[1]]), Some(1.0));
    assert!(value(&page, "libvirt_domain_figures_age_seconds", &[&guests[1]]) > Some(0.0));

    libvirtd.run();
    let page = samples(&exporter.metrics());
    assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0));
    same_as_virsh(&libvirtd, &exporter, &guests[1]);
}

/// The guest is idle: its counters stand still, so that the page and virsh must agree. What may move (frames of the
/// host's own, a late write) is given a few tries.
fn same_as_virsh(libvirtd: &Libvirtd, exporter: &Exporter, guest: &str) {
    let label = format!("domain=\"{guest}\"");
    wait_for("the page saying what virsh says", 60, || {
        let before = domstats(libvirtd, guest);
        let page = samples(&exporter.metrics());
        let after = domstats(libvirtd, guest);
        for (field, name, device, divisor) in PAIRS {
            let (Some(before), Some(after)) = (before.get(field), after.get(field)) else {
                eprintln!("virsh has no {field} yet");
                return None;
            };
            let found = value(&page, name, &[&label, device])?;
            let near = |virsh: &f64| (found * divisor - virsh).abs() <= virsh.abs() * 1e-9;
            if !near(before) && !near(after) {
                eprintln!("{name} is {found}, virsh had {before} and {after} for {field}");
                return None;
            }
            assert!(found > 0.0, "{name} is zero after the guest's work");
        }
        Some(())
    });
    let page = samples(&exporter.metrics());
    cpu_and_identity(&page, &label);
}

/// What virsh says of the host: `CPU(s):  2` and `Memory size:  8123456 KiB`.
fn the_hosts_size(libvirtd: &Libvirtd, exporter: &Exporter) {
    let text = libvirtd.virsh(&["nodeinfo"]).unwrap();
    let said = |field: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_end_matches("KiB").trim().parse().unwrap()
    };
    let page = samples(&exporter.metrics());
    assert_eq!(value(&page, "libvirt_node_cpus", &[]), Some(said("CPU(s):")));
    let memory = value(&page, "libvirt_node_memory_bytes", &[]);
    assert_eq!(memory, Some(said("Memory size:") * 1024.0));
}

fn cpu_and_identity(page: &Samples, label: &str) {
    let of = |name: &str| value(page, name, &[label]).unwrap_or_else(|| panic!("no {name}"));
    assert!(of("libvirt_domain_info_cpu_time_seconds_total") > 0.5);
    assert!(of("libvirt_domain_vcpu_time_seconds_total") > 0.5);
    assert!(of("libvirt_domain_memory_stats_rss_bytes") > 32e6);
    let percent = of("libvirt_domain_memory_stats_used_percent");
    assert!(percent > 0.0 && percent < 100.0, "{percent}");
    assert!(of("libvirt_domain_timed_out").abs() < f64::EPSILON);
    // The guest began after the exporter did, and both are processes of this machine.
    let began = of("libvirt_domain_start_time_seconds");
    let exporter_began = value(page, "process_start_time_seconds", &[]).unwrap();
    assert!(began >= exporter_began - 2.0 && began < exporter_began + 600.0, "{began}");
    let info = page.keys().find(|series| {
        series.starts_with("libvirt_domain_openstack_info{") && series.contains(label)
    });
    let info = info.expect("no openstack_info");
    for part in ["instance_name=\"web-", "flavor_name=\"", "user_id=\"", "project_name=\"demo\""] {
        assert!(info.contains(part), "{info}");
    }
}

/// A guest whose process is stopped does not answer its monitor, and libvirt's call hangs with it.
fn a_hung_guest_hurts_only_itself(libvirtd: &Libvirtd, exporter: &Exporter, guests: &[String]) {
    let flag = |page: &Samples, guest: &str| {
        value(page, "libvirt_domain_timed_out", &[&format!("domain=\"{guest}\"")])
    };
    let scrape = || {
        let began = Instant::now();
        let (head, body) = exporter.get("/metrics", "X-Prometheus-Scrape-Timeout-Seconds: 6\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(began.elapsed().as_secs_f64() < 6.0, "the scrape came too late");
        let page = samples(&body);
        assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0));
        page
    };
    let hung = libvirtd.stop_guest(&guests[0]);
    let page = scrape();
    assert_eq!(flag(&page, &guests[0]), Some(1.0));
    let label = format!("domain=\"{}\"", guests[0]);
    assert!(value(&page, "libvirt_domain_openstack_info", &[&label]).is_some());
    assert!(value(&page, "libvirt_domain_start_time_seconds", &[&label]).is_some());
    let age = |page: &Samples, guest: &str| {
        value(page, "libvirt_domain_figures_age_seconds", &[&format!("domain=\"{guest}\"")])
    };
    assert!(value(&page, "libvirt_domain_block_stats_write_bytes_total", &[&label]).is_some());
    assert!(age(&page, &guests[0]) > Some(0.0));
    // Its neighbour was in the same call, and was asked for again.
    assert_eq!(flag(&page, &guests[1]), Some(0.0));
    assert_eq!(age(&page, &guests[1]), Some(0.0));
    assert_eq!(value(&page, "kanyun_exporter_given_up_threads", &[]), Some(1.0));
    assert_eq!(flag(&scrape(), &guests[0]), Some(1.0));

    drop(hung);
    wait_for("the guest's recovery", 60, || {
        let page = scrape();
        let free = value(&page, "kanyun_exporter_given_up_threads", &[]) == Some(0.0);
        (free && flag(&page, &guests[0]) == Some(0.0)).then_some(())
    });
    let hung = libvirtd.stop_guest(&guests[0]);
    a_recording_passes_it_over(libvirtd, guests);
    drop(hung);
    wait_for("the guest's recovery", 60, || {
        (flag(&scrape(), &guests[0]) == Some(0.0)).then_some(())
    });
}

/// A recording is wanted just when something hangs: it ends, and lacks only what nobody can read.
fn a_recording_passes_it_over(libvirtd: &Libvirtd, guests: &[String]) {
    let file = libvirtd.folder.path().join("hung.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    command.arg("record").arg(&file).arg("--libvirt.uri").arg(libvirtd.socket());
    let mut command = command.spawn().unwrap();
    let status = wait_for("the end of the recording", 200, || command.try_wait().unwrap());
    assert!(status.success());
    let recorded: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let read = |guest: &str| {
        let of = recorded["guests"].as_array().unwrap().iter().find(|one| one["name"] == guest);
        let of = of.unwrap_or_else(|| panic!("{guest} is not in the recording"));
        assert!(of["xml"].is_string() && of["basic"]["state.state"] == 1, "{of}");
        of["detail"]["block.0.rd.bytes"].is_u64()
    };
    assert!(!read(&guests[0]), "of the guest that hangs");
    assert!(read(&guests[1]), "its neighbour is recorded");
}

fn domstats(libvirtd: &Libvirtd, guest: &str) -> HashMap<String, f64> {
    let text = libvirtd.virsh(&["domstats", guest]).unwrap();
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .filter_map(|(field, value)| Some((field.to_owned(), value.parse().ok()?)))
        .collect()
}

fn formats(exporter: &Exporter) {
    let (head, body) =
        exporter.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"));
    let (head, _) = exporter.get("/metrics", "Accept: */*\r\n");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let (head, body) = exporter.get("/", "");
    assert!(head.contains("text/html") && body.contains("href=\"/metrics\""), "{head} {body}");
}
