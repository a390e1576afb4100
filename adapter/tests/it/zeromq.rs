//! The API of 2012 over ZeroMQ: transcripts that hold at both doors, clients of every age, many of
//! them at once, and what is no request.

mod client;
mod command_line;
mod crowd;
mod endless;
mod transcripts;
mod zmtp_1;

use std::path::PathBuf;
use std::process::Command;

use adapter::wire::negotiate::Protocol;

use crate::adapter_process::{AdapterProcess, command};
use crate::libvirtd::skip;
use crate::remote::series;
use client::Client;

/// 2012-04-09, 12:00:00.
const NOON: i64 = 1_333_972_800;

/// A command of an adapter that keeps what is as old as Kanyun, with its API on a free port.
fn command_of_2012() -> Command {
    let mut command = command();
    command.args(["--retention=7300d", "--ledger.retention=7300d"]);
    // A flag goes before it.
    command.env("KANYUN_LEGACY_API_ADDRESS", "tcp://127.0.0.1:0");
    command
}

/// An adapter in memory with two guests of 2012: the points of kanyun-legacy.md's worked example as
/// what `u1` sent from 10.0.0.2, 100 bytes from its other address in the first of these minutes,
/// and a second guest whose disk was read.
fn adapter_of_2012() -> AdapterProcess {
    let adapter = AdapterProcess::start(command_of_2012().arg("--store=memory"));
    fill(&adapter);
    adapter
}

fn fill(adapter: &AdapterProcess) {
    let points = [
        (361, 1.0),
        (362, 1.0),
        (421, 2.0),
        (481, 5.0),
        (482, 1.0),
        (483, 1.0),
        (484, 1.0),
        (485, 1.0),
        (541, 10.0),
        (601, 20.0),
    ];
    let sent = [
        imported("kanyun_vmnetwork_bytes", ("u1", "ip", "10.0.0.2"), &points),
        imported("kanyun_vmnetwork_bytes", ("u1", "ip", "10.0.0.3"), &[(365, 100.0)]),
        imported("kanyun_blk_read_bytes", ("u2", "target_device", "vda"), &[(361, 7.0)]),
    ];
    let answer = adapter.write(Protocol::V2, &sent);
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// An imported series; times in seconds from noon.
fn imported(
    metric: &str,
    (uuid, label, device): (&str, &str, &str),
    points: &[(i64, f64)],
) -> adapter::wire::messages::TimeSeries {
    let mut labels = vec![
        ("__name__", metric),
        ("domain", if uuid == "u1" { "instance-00000001" } else { "instance-00000002" }),
        ("job", "kanyun-import"),
        (label, device),
        ("uuid", uuid),
    ];
    labels.sort_unstable();
    let points: Vec<(i64, f64)> =
        points.iter().map(|(seconds, value)| ((NOON + seconds) * 1000, *value)).collect();
    series(&labels, &points)
}

/// Python with pyzmq, or nothing with the reason.
fn pyzmq() -> Option<Command> {
    let path = std::env::var_os("KANYUN_PYZMQ").map(PathBuf::from);
    let Some(path) = path.filter(|path| path.is_dir()) else {
        skip("no pyzmq: scripts/tools install pyzmq, then eval \"$(scripts/tools env)\"");
        return None;
    };
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", path);
    Some(command)
}

/// The call sequence of dough's driver by an independent client: hourly sums of a guest's external
/// traffic, added up.
#[test]
fn doughs_driver() {
    let Some(mut python) = pyzmq() else { return };
    let adapter = adapter_of_2012();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts/dough.py");
    python.arg(script).arg(format!("tcp://{}", adapter.api_address())).arg("u1");
    let output = crate::adapter_process::run(&mut python);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "143\n", "{said}");
    adapter.stop();
}

/// A client that keeps its socket open finds the adapter again after a restart.
#[test]
fn restart() {
    let folder = tempfile::tempdir().unwrap();
    let start = |address: &str| {
        let mut command = command_of_2012();
        command.arg(format!("--legacy.api-address={address}"));
        AdapterProcess::start(command.arg("--store.path").arg(folder.path()))
    };
    let first = start("tcp://127.0.0.1:0");
    fill(&first);
    let address = format!("tcp://{}", first.api_address());
    let client = Client::connect(&address);
    let body = r#"{"method": "list_instance", "args": {"metric": "vmnetwork"}}"#;
    let answer = client.ask(body);
    assert_eq!(answer["data"], serde_json::json!(["u1"]));
    first.stop();
    let second = start(&address);
    assert_eq!(client.ask(body), answer);
    second.stop();
}

#[test]
fn an_address_that_is_taken_or_none() {
    let adapter = adapter_of_2012();
    let taken = format!("tcp://{}", adapter.api_address());
    let start = |address: &str| {
        let mut command = command_of_2012();
        command.arg("--store=memory").arg(format!("--legacy.api-address={address}"));
        let (status, log) = AdapterProcess::try_start(&mut command).unwrap_err();
        assert_eq!(status.code(), Some(1), "{log}");
        log
    };
    let log = start(&taken);
    for told in [&taken, "taken by another process", "--legacy.api-address"] {
        assert!(log.contains(told), "{told}\n{log}");
    }
    for address in ["127.0.0.1:5556", "tcp://127.0.0.1", "tcp://:5556", "ipc:///tmp/x"] {
        let log = start(address);
        let mut check = command_of_2012();
        check.arg("--config.check").arg(format!("--legacy.api-address={address}"));
        let checked = crate::adapter_process::run(&mut check);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        assert!(log.contains("no address to listen on; write tcp://ADDRESS:PORT"), "{log}");
    }
    adapter.stop();
}

#[test]
fn an_empty_address_closes_the_door() {
    let adapter = AdapterProcess::in_memory();
    assert!(!adapter.log().contains("ZeroMQ"), "{}", adapter.log());
    adapter.stop();
}

#[test]
fn a_file_of_2012() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kanyun.conf");
    let conf =
        "[log]\nfile: /tmp/x\n[api]\napi_host = 127.0.0.1\napi_port: PORT\nhosts: 1\n[mine]\n";
    let port = crate::part::free_port();
    std::fs::write(&file, conf.replace("PORT", &port.to_string())).unwrap();
    let start = || {
        let mut command = command();
        // Tests close the door by this variable, which goes before the file.
        command.env_remove("KANYUN_LEGACY_API_ADDRESS");
        command.arg("--store=memory").arg("--legacy.config").arg(&file);
        command
    };
    let adapter = AdapterProcess::start(&mut start());
    assert_eq!(adapter.api_address().port(), port);
    for told in ["key file of section [log]", "key hosts of section [api]", "section [mine]"] {
        assert!(adapter.log().contains(told), "{told}\n{}", adapter.log());
    }
    adapter.stop();
    let mut flag = start();
    let adapter = AdapterProcess::start(flag.arg("--legacy.api-address=tcp://127.0.0.1:0"));
    assert_ne!(adapter.api_address().port(), port);
    adapter.stop();
    std::fs::write(&file, conf.replace("PORT", "0")).unwrap();
    let (_, log) = AdapterProcess::try_start(&mut start()).unwrap_err();
    assert!(log.contains("key api_port of section [api]"), "{log}");
}
