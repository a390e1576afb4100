//! The files that a reader copies: units, Prometheus' and Grafana's. Each is tried with the program
//! that reads it, or with our own binaries' flags.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::libvirtd::skip;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join("examples").join(name)).unwrap()
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&example(name)).unwrap()
}

/// The flags in a unit are flags of the binary, with values that it takes.
#[test]
fn units_start_what_is_built() {
    for name in ["kanyun-exporter", "kanyun-adapter"] {
        let binary = Path::new(env!("CARGO_BIN_EXE_kanyun-adapter")).with_file_name(name);
        if !binary.is_file() {
            return skip(&format!("{name} is not built (cargo test --workspace builds it)"));
        }
        let unit = example(&format!("{name}.service"));
        let starts: Vec<&str> =
            unit.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
        let [start] = starts[..] else { panic!("{name}: {starts:?}") };
        let mut words = start.split(' ');
        assert_eq!(words.next(), Some(format!("/usr/local/bin/{name}").as_str()));
        let checked = Command::new(&binary).args(words).arg("--config.check").output().unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        // Least privilege: no user of their own to make, no capability, nothing to write but data.
        for line in ["DynamicUser=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"] {
            assert!(unit.lines().any(|candidate| candidate == line), "{name} lacks {line}");
        }
    }
}

/// The helper that reads accounting rules has one capability and no way to the network.
#[test]
fn the_helpers_units_fit_the_exporter() {
    let (socket, unit) = (example("kanyun-traffic.socket"), example("kanyun-traffic@.service"));
    let path = socket.lines().find_map(|line| line.strip_prefix("ListenStream=")).unwrap();
    assert!(socket.lines().any(|line| line == "Accept=yes"));
    for line in ["StandardOutput=socket", "DynamicUser=yes", "CapabilityBoundingSet=CAP_NET_ADMIN"]
    {
        assert!(unit.lines().any(|candidate| candidate == line), "the helper lacks {line}");
    }
    let page = std::fs::read_to_string(root().join("docs/exporter.md")).unwrap();
    for text in [page, example("kanyun-exporter.service")] {
        assert!(text.contains(&format!("--traffic.socket={path}")), "another socket than {path}");
    }
}

#[test]
fn prometheus_takes_its_file_and_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prometheus.yml"), example("prometheus.yml")).unwrap();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let mut copied = 0;
    for file in std::fs::read_dir(root().join("rules")).unwrap().map(Result::unwrap) {
        if file.path().extension().is_some_and(|extension| extension == "yml") {
            std::fs::copy(file.path(), rules.join(file.file_name())).unwrap();
            copied += 1;
        }
    }
    assert!(copied > 0, "no rules were found");
    for variable in ["KANYUN_PROMTOOL_2", "KANYUN_PROMTOOL_3"] {
        let Some(promtool) = std::env::var_os(variable) else {
            return skip(&format!("{variable} names no promtool (scripts/tools install makes it)"));
        };
        let file = folder.path().join("prometheus.yml");
        let checked = Command::new(promtool).args(["check", "config"]).arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned()
            + &String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said}");
        assert_eq!(said.matches("rules found").count(), copied, "{said}");
    }
}

/// The README shows the same settings, and the job and ports are those that boards and flags expect.
#[test]
fn prometheus_is_pointed_at_both() {
    let config = yaml("prometheus.yml");
    let jobs: Vec<&str> = config["scrape_configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["job_name"].as_str().unwrap())
        .collect();
    assert_eq!(jobs, ["libvirt", "kanyun-adapter", "prometheus"]);
    assert_eq!(config["remote_write"][0]["url"], "http://127.0.0.1:9201/api/v1/write");
    assert_eq!(config["remote_read"][0]["url"], "http://127.0.0.1:9201/api/v1/read");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for url in ["http://127.0.0.1:9201/api/v1/write", "http://127.0.0.1:9201/api/v1/read"] {
        assert!(readme.contains(url), "the README does not name {url}");
    }
}

#[test]
fn grafana_is_pointed_at_prometheus_and_the_boards() {
    let datasource = yaml("grafana/datasource.yml");
    assert_eq!(datasource["apiVersion"], 1);
    assert_eq!(datasource["datasources"][0]["type"], "prometheus");
    let interval = yaml("prometheus.yml")["global"]["scrape_interval"].clone();
    assert_eq!(datasource["datasources"][0]["jsonData"]["timeInterval"], interval);
    let boards = yaml("grafana/dashboards.yml");
    assert_eq!(boards["apiVersion"], 1);
    assert_eq!(boards["providers"][0]["type"], "file");
    assert!(boards["providers"][0]["options"]["path"].is_string());
}
