//! The program's manners: its flags, its messages, its end, and what it leaves on disk.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use adapter::wire::negotiate::Protocol;
use serde_json::Value;

use crate::adapter_process::{AdapterProcess, bare_command, command, now_ms, run};
use crate::http_client::{self, Connection};
use crate::libvirtd::{self, wait_for};
use crate::remote::{self, read_back, series};

fn check_ends(command: &mut Command, status: i32, texts: &[&str]) {
    let Output { status: ended, stdout, stderr } = run(command);
    let said = format!("{}{}", str::from_utf8(&stdout).unwrap(), str::from_utf8(&stderr).unwrap());
    assert_eq!(ended.code(), Some(status), "{said}");
    for text in texts {
        assert!(said.contains(text), "{text:?} is not in {said:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn help_and_version() {
    let settings = "[env: KANYUN_STORE_PATH]";
    check_ends(
        bare_command().arg("--help"),
        0,
        &["Usage: kanyun-adapter", "--store.path", settings],
    );
    let version = concat!("kanyun-adapter ", env!("CARGO_PKG_VERSION"), "\n");
    check_ends(bare_command().arg("--version"), 0, &[version]);
}

#[test]
fn wrong_settings() {
    check_ends(command().arg("--nonsense"), 2, &["--nonsense"]);
    check_ends(command().arg("--store=disk"), 2, &["disk", "--store", "local", "cassandra"]);
    check_ends(command().arg("--retention=1d"), 2, &["1d", "--retention", "from 9d"]);
    check_ends(command().arg("--store.pth=x"), 2, &["--store.pth", "--store.path"]);
    check_ends(command().env("KANYUN_STORE", "disk"), 2, &["disk", "variable KANYUN_STORE"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yml");
    let with_file = || {
        let mut command = command();
        command.arg("--config.file").arg(&file);
        command
    };
    check_ends(&mut with_file(), 2, &["settings.yml"]);
    for (yaml, text) in [
        ("retention: 1d\n", "key retention of"),
        ("store:\n  pth: x\n", "store.pth"),
        ("store: [\n", "settings.yml"),
    ] {
        std::fs::write(&file, yaml).unwrap();
        check_ends(&mut with_file(), 2, &[text]);
    }
}

#[test]
fn a_check_of_the_settings_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let checking = || {
        let mut command = command();
        command.arg("--config.check").arg("--store.path").arg(&data);
        command
    };
    check_ends(&mut checking(), 0, &["all settings are valid"]);
    check_ends(checking().arg("--retention=1d"), 2, &["--retention"]);
    let mut no_port = bare_command();
    no_port.args(["--config.check", "--web.listen-address=9201"]);
    check_ends(&mut no_port, 1, &["cannot listen on 9201 (--web.listen-address)"]);
    let web = folder.path().join("web.yml");
    std::fs::write(&web, "basic_auth_users: 3\n").unwrap();
    check_ends(checking().arg("--web.config.file").arg(&web), 1, &["web.yml"]);
    check_ends(checking().arg("--ledger.retention=30d"), 1, &["--ledger.retention is shorter"]);
    assert!(!data.exists());
    // Of a cluster all but the cluster.
    let of_cluster = || {
        let mut command = checking();
        command.args(["--store=cassandra", "--cassandra.nodes=cass.invalid"]);
        command
    };
    check_ends(&mut of_cluster(), 0, &["all settings are valid"]);
    let pem = folder.path().join("ca.pem");
    std::fs::write(&pem, "no certificate\n").unwrap();
    let password = folder.path().join("password");
    let user = ["--cassandra.user=kanyun", "--cassandra.password-file"];
    check_ends(
        of_cluster().args(user).arg(&password),
        1,
        &["--cassandra.password-file=", "password"],
    );
    std::fs::write(&password, "sesame\n").unwrap();
    check_ends(of_cluster().args(user).arg(&password), 0, &["all settings are valid"]);
    let tls = ["--cassandra.tls", "--cassandra.tls-ca-file"];
    check_ends(of_cluster().args(tls).arg(&pem), 1, &["--cassandra.tls", "ca.pem"]);
    check_ends(of_cluster().arg("--cassandra.keyspace=a b"), 1, &["--cassandra.keyspace=a b"]);
    check_ends(of_cluster().arg("--seal.grace=2m"), 1, &["--seal.grace is shorter than 5m"]);
    let long = ["--retention=7300d", "--ledger.retention=7300d"];
    check_ends(of_cluster().args(long), 1, &["--retention is longer than rows can live"]);
}

/// Who is used to Prometheus sends it to reload, and so does log rotation.
#[test]
fn a_hangup_ends_nothing() {
    let adapter = AdapterProcess::in_memory();
    adapter.signal("HUP");
    adapter.wait_for("hangup in the log", || adapter.log().contains("SIGHUP"));
    assert_eq!(adapter.get("/-/ready").status, 200);
    adapter.stop();
}

/// Flag over environment over file: told by the address that it listens on.
#[test]
fn precedence_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yml");
    std::fs::write(&file, "web:\n  listen-address: 127.0.0.2:0\nstore: memory\n").unwrap();
    let flag = ["--web.listen-address", "127.0.0.4:0"];
    let variable = ("KANYUN_WEB_LISTEN_ADDRESS", "127.0.0.3:0");
    let from_file = |command: &mut Command| {
        command.arg("--config.file").arg(&file);
        AdapterProcess::start(command).address().ip().to_string()
    };
    assert_eq!(from_file(&mut bare_command()), "127.0.0.2");
    assert_eq!(from_file(bare_command().env(variable.0, variable.1)), "127.0.0.3");
    assert_eq!(from_file(bare_command().env(variable.0, variable.1).args(flag)), "127.0.0.4");
    let mut by_variable = bare_command();
    by_variable.env("KANYUN_CONFIG_FILE", &file);
    assert_eq!(AdapterProcess::start(&mut by_variable).address().ip().to_string(), "127.0.0.2");
}

#[test]
fn a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = bare_command();
    command.args(["--web.listen-address", &address, "--store.path"]).arg(&data);
    check_ends(&mut command, 1, &[&address, "taken by another process", "--web.listen-address"]);
    assert!(!data.exists(), "a start that fails leaves nothing behind");
    let mut nowhere = bare_command();
    nowhere.args(["--store=memory", "--web.listen-address", "nonsense"]);
    check_ends(&mut nowhere, 1, &["nonsense", "--web.listen-address"]);
}

#[test]
fn every_address_is_listened_on_or_none() {
    let mut command = command();
    command.args(["--store=memory", "--web.listen-address=127.0.0.5:0"]);
    let adapter = AdapterProcess::start(&mut command);
    adapter.wait_for("second address", || adapter.log().contains("address=127.0.0.5:"));
    let log = adapter.log();
    let (_, second) = log.split_once("address=127.0.0.5:").unwrap();
    let second = format!("127.0.0.5:{}", second.split(' ').next().unwrap());
    for address in [adapter.address(), second.parse().unwrap()] {
        let answer = http_client::request(address, "GET /-/ready", &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{address}");
    }
    adapter.stop();
    let mut half = bare_command();
    half.args(["--store=memory", "--web.listen-address=127.0.0.1:0,192.0.2.1:1"]);
    check_ends(&mut half, 1, &["cannot listen on 192.0.2.1:1"]);
}

/// systemd's own program for trying it: the first connection starts the adapter.
#[test]
fn a_socket_of_systemds_is_served() {
    if libvirtd::on_path("systemd-socket-activate").is_none() {
        return libvirtd::skip("systemd-socket-activate is not installed");
    }
    check_ends(command().arg("--web.systemd-socket"), 1, &["systemd handed over no socket"]);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &address.to_string(), "-E", "KANYUN_LEGACY_API_ADDRESS="]);
    activate.args(["-E", "KANYUN_LEGACY_INGEST_ADDRESS=", env!("CARGO_BIN_EXE_kanyun-adapter")]);
    activate.args(["--store=memory", "--web.systemd-socket"]);
    let first = std::thread::spawn(move || {
        wait_for("the socket", 60, || {
            http_client::request(address, "GET /-/healthy", &[], b"").ok()
        })
    });
    let adapter = AdapterProcess::start(&mut activate);
    assert_eq!(adapter.address(), address);
    assert_eq!(first.join().unwrap().status, 200);
    adapter.stop();
}

#[test]
fn a_data_folder_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    for path in [file.clone(), file.join("below"), Path::new("/proc/data").to_owned()] {
        let texts = [path.to_str().unwrap(), "cannot be used", "--store.path"];
        check_ends(command().arg("--store.path").arg(&path), 1, &texts);
    }
}

#[test]
fn one_process_on_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = AdapterProcess::on_folder(folder.path());
    let texts = [folder.path().to_str().unwrap(), "in use by another process", "--store.path"];
    check_ends(command().arg("--store.path").arg(folder.path()), 1, &texts);
    // The first one has not noticed.
    let at = now_ms();
    assert_eq!(
        first.write(Protocol::V1, &[series(&[("__name__", "m")], &[(at, 1.0)])]).status,
        204
    );
    first.stop();
    let second = AdapterProcess::on_folder(folder.path());
    let expected = [read_back(&[("__name__", "m")], &[(at, 1.0)])];
    assert_eq!(second.read((at, at), &[("=", "__name__", "m")]), expected);
}

#[test]
fn other_row_keys_on_a_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    AdapterProcess::on_folder(folder.path()).stop();
    let mut other = command();
    other.arg("--store.path").arg(folder.path()).arg("--row-key.labels=guest,uuid");
    check_ends(&mut other, 1, &["--row-key.labels is guest,uuid", "made with uuid,instance_id"]);
    AdapterProcess::on_folder(folder.path()).stop();
}

#[test]
fn health_and_own_metrics() {
    let adapter = AdapterProcess::in_memory();
    for path in ["/-/healthy", "/-/ready", "/"] {
        assert_eq!(adapter.get(path).status, 200, "{path}");
    }
    let samples = [(now_ms(), 1.0), (now_ms() - 1, 2.0)];
    let request = [series(&[("__name__", "m")], &samples)];
    assert_eq!(adapter.write(Protocol::V2, &request).status, 204);
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (accept, content_type) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", open_metrics),
    ] {
        let accept = [("accept", accept)];
        let page = http_client::request(adapter.address(), "GET /metrics", &accept, b"").unwrap();
        assert_eq!((page.status, page.header("content-type")), (200, Some(content_type)));
        assert_eq!(page.text().ends_with("\n# EOF\n"), content_type == open_metrics);
        for line in [
            "kanyun_adapter_samples_written_total 2\n",
            "kanyun_http_requests_total{handler=\"/api/v1/write\",code=\"204\"} 1\n",
        ] {
            assert!(page.text().contains(line), "{line} is not in\n{}", page.text());
        }
    }
}

#[test]
fn log_lines_as_json() {
    let mut command = command();
    command.args(["--store=memory", "--log.format=json", "--log.level=debug"]);
    let adapter = AdapterProcess::start(&mut command);
    assert_eq!(adapter.write(Protocol::V1, &[]).status, 204);
    adapter.terminate();
    let (status, log) = adapter.wait();
    assert!(status.success(), "{status}");
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert!(messages.contains(&"kanyun-adapter is listening"), "{log}");
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()));
}

/// A write that is half sent when the stop is asked for is answered and stored; the process takes
/// nothing new and ends well.
#[test]
fn a_stop_lets_a_running_write_finish() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = AdapterProcess::on_folder(folder.path());
    let (address, at) = (adapter.address(), now_ms());
    let request = [series(&[("__name__", "m"), ("uuid", "a")], &[(at, 1.0)])];
    let body = remote::write_body(Protocol::V2, &request);
    let mut connection = half_sent(&adapter, &body);
    adapter.terminate();
    adapter.wait_for("closed door", || Connection::begin(address, "GET /", &[]).is_err());
    connection.send(&body[10..]).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!(answer.status, 204, "{answer:?}");
    let (status, log) = adapter.wait();
    assert!(status.success(), "{status}\n{log}");
    assert!(log.contains("stopped; everything acknowledged is stored"), "{log}");
    let adapter = AdapterProcess::on_folder(folder.path());
    let expected = [read_back(&[("__name__", "m"), ("uuid", "a")], &[(at, 1.0)])];
    assert_eq!(adapter.read((at, at), &[("=", "uuid", "a")]), expected);
}

#[test]
fn a_second_stop_waits_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = AdapterProcess::on_folder(folder.path());
    let address = adapter.address();
    let body = remote::write_body(Protocol::V2, &[series(&[("__name__", "m")], &[])]);
    let connection = half_sent(&adapter, &body);
    adapter.terminate();
    adapter.wait_for("closed door", || Connection::begin(address, "GET /", &[]).is_err());
    adapter.terminate();
    let (status, log) = adapter.wait();
    assert_eq!(status.code(), Some(1), "{status}\n{log}");
    assert!(log.contains("were cut off"), "{log}");
    assert!(connection.answer().is_err());
    // The store was closed all the same.
    AdapterProcess::on_folder(folder.path()).stop();
}

/// A write request of which the service has the head and ten bytes.
fn half_sent(adapter: &AdapterProcess, body: &[u8]) -> Connection {
    let length = body.len().to_string();
    let headers =
        [("content-type", remote::content_type(Protocol::V2)), ("content-length", &*length)];
    let mut connection =
        Connection::begin(adapter.address(), "POST /api/v1/write", &headers).unwrap();
    connection.send(&body[..10]).unwrap();
    // The other request is the one for this page.
    adapter.wait_for("running request", || {
        adapter.get("/metrics").text().contains("kanyun_http_requests_in_flight 2\n")
    });
    connection
}
