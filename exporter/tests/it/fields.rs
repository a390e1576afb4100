//! Where each family comes from, found by trying: what is taken out of the recorded host, one field after another, and
//! which families change by it. The reference of metrics shows the result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use exporter::families::profile::Profile;
use exporter::families::{Page, Style};
use exporter::recording::Recording;
use exporter::selection::Collectors;
use prometheus_client::registry::Registry;
use roxmltree::Document;
use serde_json::Value;

/// A field that changes more families than this is a name or a number by which others are found.
const FAMILIES_MAX: usize = 5;

/// Samples by family.
type Families = BTreeMap<String, BTreeSet<String>>;

#[test]
fn where_families_come_from() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/host.json");
    let host: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let whole = families(&host);
    let mut sources: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (source, without) in fields(&host) {
        let changed = families(&without);
        let differs =
            |(name, samples): &(&String, &BTreeSet<String>)| changed.get(*name) != Some(*samples);
        let names: Vec<&String> = whole.iter().filter(differs).map(|(name, _)| name).collect();
        if names.len() <= FAMILIES_MAX {
            for name in names {
                sources.entry(name).or_default().insert(source.clone());
            }
        }
    }
    let mut text = String::new();
    for (name, sources) in sources {
        let sources: Vec<String> = sources.into_iter().collect();
        writeln!(text, "{name}\t{}", sources.join(", ")).unwrap();
    }
    expect_file!["../golden/fields.txt"].assert_eq(&text);
}

fn families(host: &Value) -> Families {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), host.to_string()).unwrap();
    let snapshot = Recording::read(file.path()).unwrap().snapshot();
    let style = Style::whole(Profile::Inovex, Collectors::all());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { snapshot: snapshot.into(), style }));
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    let mut families = Families::new();
    let mut family = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            rest.split(' ').next().unwrap().clone_into(&mut family);
        } else if !line.starts_with('#') {
            families.entry(family.clone()).or_default().insert(line.to_owned());
        }
    }
    families
}

/// Each field of the first guest, of its XML, of the host and of the pools: what it is called, and the recording without it.
fn fields(host: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let guest = &host["guests"][0];
    for part in ["basic", "detail", "job", "places"] {
        for field in guest[part].as_object().unwrap().keys() {
            let mut without = host.clone();
            without["guests"][0][part].as_object_mut().unwrap().remove(field);
            let name = match part {
                "job" => format!("virDomainGetJobStats {field}"),
                "places" => "virDomainGetVcpus".to_owned(),
                _ => numberless(field),
            };
            found.push((name, without));
        }
    }
    let mut without = host.clone();
    without["guests"][0].as_object_mut().unwrap().remove("start_time_seconds");
    found.push(("pid file and /proc".to_owned(), without));
    for field in host["host"].as_object().unwrap().keys() {
        let mut without = host.clone();
        without["host"].as_object_mut().unwrap().remove(field);
        let name = match field.as_str() {
            "cpu_ns" => "virNodeGetCPUStats",
            "memory_by_use_kib" => "virNodeGetMemoryStats",
            "hostname" => "virConnectGetHostname",
            "hypervisor_running" => "virConnectGetVersion",
            "libvirtd_running" => "virConnectGetLibVersion",
            "libvirt_library" => "virGetVersion",
            _ => "virNodeGetInfo",
        };
        found.push((name.to_owned(), without));
    }
    for field in ["capacity_bytes", "allocation_bytes", "available_bytes"] {
        let mut without = host.clone();
        without["pools"][0][field] = Value::Null;
        let name = field.trim_end_matches("_bytes");
        found.push((format!("virStoragePoolGetInfo {name}"), without));
    }
    let mut without = host.clone();
    without["pools"][0]["state"] = 0.into();
    found.push(("virStoragePoolGetInfo state".to_owned(), without));
    let xml = guest["xml"].as_str().unwrap();
    for (name, text) in parts_of_xml(xml) {
        let mut without = host.clone();
        without["guests"][0]["xml"] = text.into();
        found.push((name, without));
    }
    found
}

/// `block.N.rd.bytes` of `block.0.rd.bytes`.
fn numberless(field: &str) -> String {
    let part = |part: &str| {
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { "N".to_owned() } else { part.to_owned() }
    };
    field.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Every attribute, and every element with a text, with the XML that lacks it.
fn parts_of_xml(xml: &str) -> Vec<(String, String)> {
    let document = Document::parse(xml).unwrap();
    let mut found = Vec::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let mut path: Vec<&str> = node.ancestors().map(|node| node.tag_name().name()).collect();
        path.reverse();
        let path: Vec<&str> = path
            .into_iter()
            .filter(|name| !["", "domain", "devices", "metadata"].contains(name))
            .collect();
        let path = path.join("/");
        let mut without = |name: String, range: std::ops::Range<usize>| {
            let mut text = xml.to_owned();
            text.replace_range(range, "");
            found.push((name, text));
        };
        for attribute in node.attributes() {
            without(format!("XML {path}@{}", attribute.name()), attribute.range());
        }
        let is_leaf = !node.children().any(|child| child.is_element());
        if is_leaf && node.text().is_some_and(|text| !text.trim().is_empty()) {
            without(format!("XML {path}"), node.range());
        }
    }
    found
}
