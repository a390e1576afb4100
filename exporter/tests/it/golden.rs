//! The page of a known snapshot, word for word: the contract with whoever reads it. UPDATE_EXPECT=1 rewrites the files.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use expect_test::expect_file;
use exporter::families::labels::AddedLabel;
use exporter::families::profile::Profile;
use exporter::families::{Page, Style};
use exporter::selection::guests::{GuestFilter, GuestKey};
use exporter::selection::{CollectorName, Collectors};
use exporter::snapshot::{Scrape, Snapshot};
use prometheus_client::registry::Registry;

use crate::exporter_process::Exporter;
use crate::fixture::{recording, snapshot};
use crate::libvirtd;
use crate::text::{samples, value};

/// Names of promtool's complaints that are the inovex profile's, kept for the dashboards that know them.
const KNOWN_LINTS: [&str; 0] = [];

fn openmetrics(snapshot: Snapshot) -> String {
    styled(snapshot, Style::whole(Profile::Inovex, Collectors::all()))
}

fn styled(snapshot: Snapshot, style: Style) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { snapshot: Arc::new(snapshot), style }));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    page
}

fn classic(snapshot: Snapshot) -> String {
    serve::exposition::classic(&openmetrics(snapshot))
}

#[test]
fn pages_are_as_they_were() {
    expect_file!["../golden/page.txt"].assert_eq(&classic(snapshot()));
    expect_file!["../golden/page.openmetrics.txt"].assert_eq(&openmetrics(snapshot()));
}

/// Every golden page: its name, and its text in OpenMetrics.
fn pages() -> Vec<(&'static str, String)> {
    let recorded = |name: &str| recording(name).snapshot();
    let inovex = || Style::whole(Profile::Inovex, Collectors::all());
    let tinkoff = Style::whole(Profile::Tinkoff, Collectors::all());
    let web = GuestFilter::default()
        .including(GuestKey::Project, GuestFilter::pattern("demo").unwrap())
        .excluding(GuestKey::Uuid, GuestFilter::pattern(".*3").unwrap());
    let labels = vec![AddedLabel::ProjectId, AddedLabel::InstanceId];
    let chosen = Style { labels, guests: web, ..inovex() };
    vec![
        ("page", styled(snapshot(), inovex())),
        ("tinkoff", styled(snapshot(), tinkoff)),
        ("chosen", styled(snapshot(), chosen)),
        // What libvirt says where it is old, or guests are strange.
        ("oddities", styled(recorded("oddities"), inovex())),
        // What a libvirtd of Debian 12 said of two guests, made anonymous.
        ("debian-12", styled(recorded("debian-12"), inovex())),
    ]
}

#[test]
fn every_page_is_as_it_was() {
    for (name, page) in pages().iter().skip(1) {
        let file = format!("../golden/{name}.txt");
        expect_file![file].assert_eq(&serve::exposition::classic(page));
        // The reference of metrics reads this one.
        if *name == "tinkoff" {
            expect_file!["../golden/tinkoff.openmetrics.txt"].assert_eq(page);
        }
    }
}

#[test]
fn no_family_and_no_series_comes_twice() {
    for (_, page) in pages() {
        samples(&serve::exposition::classic(&page));
        let mut families = HashSet::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(families.insert(line.split(' ').next().unwrap()), "{line} comes twice");
        }
    }
}

/// What the tinkoff profile promises: label names and values too, as its dashboards ask for them.
#[test]
fn tinkoffs_names_are_there() {
    let tinkoff = Style::whole(Profile::Tinkoff, Collectors::all());
    let page = samples(&serve::exposition::classic(&styled(snapshot(), tinkoff)));
    let uuid = "uuid=\"de305d54-75b4-431b-adb2-000000000001\"";
    let disk = "target_device=\"vda\"";
    let volume = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
    let source = format!("source_file=\"vms/volume-{volume}\"");
    let port = "virtual_interface=\"0a1b2c3d-4e5f-4000-8000-000000000001\"";
    for (name, labels, expected) in [
        ("domain_info_vstate", &[uuid][..], 1.0),
        ("domain_info_meta", &[uuid, "instance_name=\"web-1\"", "flavor=\"m1.tiny\""], 1.0),
        ("domain_info_meta", &[uuid, "user_uuid=\"11111111-0000-0000-0000-000000000001\""], 1.0),
        (
            "domain_info_meta",
            &[uuid, "project_uuid=\"2", "root_type=\"image\"", "root_uuid=\"3"],
            1.0,
        ),
        ("domain_block_meta", &[uuid, disk, &source, "bus=\"virtio\"", "cache=\"none\""], 1.0),
        ("domain_interface_meta", &[uuid, port, "source_bridge=\"br-int\""], 1.0),
        ("domain_block_stats_allocation", &[uuid, disk], 8_716_288.0),
        ("domain_block_stats_physicalsize_bytes", &[uuid, disk], 8_654_848.0),
        ("domain_block_stats_limit_burst_length_total_requests_seconds", &[uuid, disk], 13.0),
        ("domain_memory_stats_actual_balloon_bytes", &[uuid], 134_217_728.0),
        ("domain_memory_stats_disk_cache_bytes", &[uuid], 2_584_576.0),
        ("domain_vcpu_cpu", &[uuid, "vcpu=\"0\""], 5.0),
        ("pool_info_capacity_bytes", &["pool=\"default\""], 107_374_182_400.0),
    ] {
        let name = format!("libvirt_{name}");
        assert_eq!(value(&page, &name, labels), Some(expected), "{name} {labels:?}");
    }
    for other in [
        "info_state{",
        "openstack_info",
        "current_balloon",
        "storage_pool_capacity",
        "physical_bytes",
    ] {
        assert!(!page.keys().any(|series| series.contains(other)), "{other} is inovex'");
    }
}

/// Joins with nova's metadata keep guests that nova did not make.
#[test]
fn metadata_is_there_of_every_guest() {
    let guest = ["domain=\"no balloon driver\"", "uuid=\"", "instance_id=\""];
    for (profile, name, labels) in [
        (Profile::Tinkoff, "libvirt_domain_info_meta", &guest[..2]),
        (Profile::Inovex, "libvirt_domain_openstack_info", &guest[..]),
    ] {
        let style = Style::whole(profile, Collectors::all());
        let page = styled(recording("oddities").snapshot(), style);
        let page = samples(&serve::exposition::classic(&page));
        assert_eq!(value(&page, name, labels), Some(1.0), "{name}");
    }
}

/// What the inovex profile promises: the names that its own board and Genestack's ask for, as inovex' exporter has them.
#[test]
fn inovexs_names_are_there() {
    let page = samples(&classic(snapshot()));
    let names: HashSet<&str> =
        page.keys().map(|series| series.split('{').next().unwrap()).collect();
    let memory = [
        "major_fault_total",
        "minor_fault_total",
        "unused_bytes",
        "available_bytes",
        "usable_bytes",
        "rss_bytes",
        "used_percent",
        "current_balloon_bytes",
        "maximum_bytes",
        "disk_caches_bytes",
        "swap_in_bytes",
        "swap_out_bytes",
        "hugetlb_pgalloc_total",
        "hugetlb_pgfail_total",
        "last_update_timestamp_seconds",
    ];
    let pools = ["state", "capacity_bytes", "allocation_bytes", "available_bytes", "timed_out"];
    let memory = memory.map(|name| format!("libvirt_domain_memory_stats_{name}"));
    let pools = pools.map(|name| format!("libvirt_storage_pool_{name}"));
    let others = ["openstack_info", "info_state", "timed_out", "vcpu_current", "vcpu_maximum"];
    let others = others.map(|name| format!("libvirt_domain_{name}"));
    for name in memory.iter().chain(&pools).chain(&others) {
        assert!(names.contains(name.as_str()), "{name}");
    }
}

#[test]
fn a_page_shows_what_was_chosen() {
    let chosen = Collectors::NONE.with(CollectorName::Cpu, true);
    let page = samples(&serve::exposition::classic(&styled(
        snapshot(),
        Style::whole(Profile::Inovex, chosen),
    )));
    let names: HashSet<&str> =
        page.keys().map(|series| series.split('{').next().unwrap()).collect();
    assert!(names.contains("libvirt_domain_info_cpu_time_seconds_total"));
    assert!(names.contains("libvirt_domain_info_state") && names.contains("libvirt_domains"));
    for part in ["block", "interface", "memory", "vcpu_", "openstack", "storage_pool", "node"] {
        assert!(!names.iter().any(|name| name.contains(part)), "{part} in {names:?}");
    }
}

#[test]
fn every_series_of_a_guest_names_it() {
    for series in samples(&classic(snapshot())).keys() {
        if series.starts_with("libvirt_domain_") {
            assert!(series.contains("domain=\"") && series.contains("uuid=\""), "{series}");
        }
    }
}

#[test]
fn the_core_names_are_there() {
    let page = samples(&classic(snapshot()));
    let uuid = "uuid=\"de305d54-75b4-431b-adb2-000000000001\"";
    for name in
        ["maximum_memory_bytes", "memory_usage_bytes", "virtual_cpus", "cpu_time_seconds_total"]
    {
        assert!(value(&page, &format!("libvirt_domain_info_{name}"), &[uuid]).is_some(), "{name}");
    }
    for direction in ["read", "write"] {
        for unit in ["bytes", "requests"] {
            let name = format!("libvirt_domain_block_stats_{direction}_{unit}_total");
            assert!(value(&page, &name, &[uuid, "target_device=\"vda\""]).is_some(), "{name}");
        }
    }
    for direction in ["receive", "transmit"] {
        for unit in ["bytes", "packets", "errors", "drops"] {
            let name = format!("libvirt_domain_interface_stats_{direction}_{unit}_total");
            assert!(
                value(&page, &name, &[uuid, "target_device=\"tap0a1b2c3d-4e\""]).is_some(),
                "{name}"
            );
        }
    }
    assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0));
}

#[test]
fn what_libvirt_did_not_report_is_not_on_the_page() {
    let page = samples(&classic(snapshot()));
    assert!(page.values().all(|value| value.is_finite()));
    let silent = "uuid=\"de305d54-75b4-431b-adb2-000000000003\"";
    let of_silent: Vec<&str> = page
        .keys()
        .filter(|series| series.contains(silent))
        .map(|series| series.split('{').next().unwrap())
        .collect();
    assert_eq!(
        of_silent,
        [
            "libvirt_domain_block_stats_info",
            "libvirt_domain_info",
            "libvirt_domain_interface_stats_info",
            "libvirt_domain_openstack_info",
            "libvirt_domain_start_time_seconds",
            "libvirt_domain_timed_out",
        ]
    );
    assert_eq!(value(&page, "libvirt_domain_timed_out", &[silent]), Some(1.0));
}

#[test]
fn a_dead_libvirt_is_said_and_nothing_else() {
    let down = Snapshot { scrape: Scrape::default(), ..Snapshot::default() };
    let page = samples(&classic(down));
    assert_eq!(value(&page, "libvirt_up", &[]), Some(0.0));
    assert!(page.keys().all(|series| !series.starts_with("libvirt_domain")));
}

/// What is served of a recording does not move, not even what the exporter counts itself.
#[test]
fn a_replay_stands_still() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/host.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    let exporter = Exporter::run(command.arg("--libvirt.replay").arg(file));
    let page = || -> Vec<String> {
        let page = exporter.metrics();
        let lines = page.lines().filter(|line| line.starts_with("libvirt_"));
        lines.map(str::to_owned).collect()
    };
    let first = page();
    assert!(first.iter().any(|line| line.starts_with("libvirt_domain_state_seconds_total{")));
    for _ in 0..5 {
        assert_eq!(page(), first);
    }
}

#[test]
fn promtool_reads_the_page() {
    let named = ["KANYUN_PROMTOOL", "KANYUN_PROMTOOL_2", "KANYUN_PROMTOOL_3"];
    let mut found: Vec<PathBuf> =
        named.iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
    found.extend(libvirtd::on_path("promtool"));
    if found.is_empty() {
        return libvirtd::skip("promtool is neither on PATH nor named by KANYUN_PROMTOOL");
    }
    for promtool in found {
        for (_, page) in pages() {
            check_metrics(&promtool, &serve::exposition::classic(&page));
        }
    }
}

fn check_metrics(promtool: &Path, page: &str) {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // 0: content; 3: complaints about names, each of which must be a known one. 1 is a page that cannot be read.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let unknown: Vec<&str> =
        said.lines().filter(|line| !KNOWN_LINTS.iter().any(|known| line.contains(known))).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}
