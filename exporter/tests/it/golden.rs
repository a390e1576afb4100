//! The page of a known snapshot, word for word: the contract with whoever reads it. UPDATE_EXPECT=1 rewrites the files.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use expect_test::expect_file;
use exporter::families::profile::Profile;
use exporter::families::{Page, Style};
use exporter::selection::Collectors;
use exporter::snapshot::{Scrape, Snapshot};
use prometheus_client::registry::Registry;

use crate::fixture::snapshot;
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

#[test]
fn no_family_and_no_series_comes_twice() {
    samples(&classic(snapshot()));
    let page = openmetrics(snapshot());
    let mut families = HashSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        assert!(families.insert(line.split(' ').next().unwrap()), "{line} comes twice");
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
            assert!(value(&page, &name, &[uuid, "target_device=\"tap0a1b2c3d-4e\""]).is_some(), "{name}");
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
        check_metrics(&promtool);
    }
}

fn check_metrics(promtool: &Path) {
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(classic(snapshot()).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // 0: content; 3: complaints about names, each of which must be a known one. 1 is a page that cannot be read.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let unknown: Vec<&str> =
        said.lines().filter(|line| !KNOWN_LINTS.iter().any(|known| line.contains(known))).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}
