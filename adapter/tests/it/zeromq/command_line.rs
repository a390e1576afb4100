//! `kanyun` as a program: today's commands over HTTP, the forms of 2012 over ZeroMQ, and its exit
//! codes.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use adapter::limits;

use super::adapter_of_2012;
use crate::adapter_process::{AdapterProcess, run, without_settings};
use crate::part::free_port;

fn kanyun(folder: &Path) -> Command {
    let mut command = without_settings(Command::new(env!("CARGO_BIN_EXE_kanyun")));
    command.current_dir(folder);
    command
}

/// How it ended, and what it said on both outputs.
fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = run(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn printed(command: &mut Command) -> String {
    let (code, stdout, stderr) = said(command);
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

/// A folder whose kanyun.conf names the adapter.
fn folder_of(adapter: &AdapterProcess) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let port = adapter.api_address().port();
    let conf = format!("[client]\napi_host: 127.0.0.1\napi_port: {port}\n");
    std::fs::write(folder.path().join("kanyun.conf"), conf).unwrap();
    folder
}

#[test]
fn commands_of_today() {
    let adapter = adapter_of_2012();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("--url=http://{}", adapter.address());
    let ask = |line: &str| printed(kanyun(folder.path()).args(line.split(' ')).arg(&url));
    let range = "--from 2012-04-09T12:00:00 --to 2012-04-09T13:00:00";
    let hour = "start                 value\n2012-04-09T12:06:00Z  143\n";
    assert_eq!(ask(&format!("usage u1 vmnetwork {range}")), hour);
    let line = format!("usage u1 vmnetwork --device 10.0.0.2 --statistic max --period 5 {range}");
    assert_eq!(ask(&format!("{line} --format csv")), "start,value\n2012-04-09T12:06:00Z,20\n");
    let minutes = ask(&format!("data instance-00000001 network {range} --format csv"));
    assert_eq!(minutes.lines().count(), 6, "{minutes}");
    assert!(minutes.contains("\n2012-04-09T12:06:00Z,102\n"), "{minutes}");
    assert_eq!(ask("list vmnetwork --format csv"), "id\nu1\n");
    assert_eq!(ask("list vmnetwork --from 2013-01-01T00:00:00"), "id\n");
    let json: serde_json::Value =
        serde_json::from_str(&ask("list blk_read --format json")).unwrap();
    assert_eq!(json, serde_json::json!([{"id": "u2"}]));
    // What says whom to ask may stand in front.
    let mut in_front = kanyun(folder.path());
    in_front.args(["--format", "csv", &url, "usage", "u1", "vmnetwork"]).args(range.split(' '));
    assert_eq!(printed(&mut in_front), "start,value\n2012-04-09T12:06:00Z,143\n");
    adapter.stop();
}

#[test]
fn workers_that_report() {
    let workers = format!("tcp://127.0.0.1:{}", free_port());
    let mut command = crate::adapter_process::command();
    command.args(["--store=memory", "--legacy.ingest-address", &workers]);
    let adapter = AdapterProcess::start(&mut command);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("--url=http://{}", adapter.address());
    let ask = || printed(kanyun(folder.path()).args(["workers", "--format=csv", &url]));
    assert_eq!(ask(), "id,last_seen,status\n");
    let socket = zmq::Context::new().socket(zmq::PUSH).unwrap();
    socket.connect(&workers).unwrap();
    socket.send_multipart(["0", r#"["worker1", 1, 1]"#], 0).unwrap();
    adapter.wait_for("the worker", || ask().lines().count() == 2);
    let said = ask();
    let row: Vec<&str> = said.lines().last().unwrap().split(',').collect();
    assert!(matches!(row[..], ["worker1", _, "alive"]), "{said}");
    adapter.stop();
}

#[test]
fn forms_of_2012() {
    let adapter = adapter_of_2012();
    let folder = folder_of(&adapter);
    let ask = |line: &str| printed(kanyun(folder.path()).args(line.split(' ')));
    assert_eq!(ask("-l vmnetwork"), "u1\n");
    assert_eq!(ask("network"), "u1\n");
    assert_eq!(ask("-k u1"), "vmnetwork 10.0.0.2\nvmnetwork 10.0.0.3\n");
    let points = "1333973160 2\n1333973220 2\n1333973280 9\n1333973340 10\n1333973400 20\n";
    assert_eq!(ask("u1 vmnetwork 10.0.0.2"), points);
    assert_eq!(ask("-get u1 vmnetwork 10.0.0.2 1333972800 1333976400"), points);
    assert_eq!(ask("u2 blk_read"), "1333973160 7\n");
    let report = "1333973160.0 43\n";
    assert_eq!(ask("u1 vmnetwork 10.0.0.2 0 5 1333972800 1333976400"), report);
    assert_eq!(ask("instance-00000001 vmnetwork 10.0.0.2 sum 5 2012-04-09T12:00:00"), report);
    assert_eq!(ask("u1 mem mem_free"), "");
    assert_eq!(ask("-t 1332896400"), "2012-03-28T01:00:00Z\n");
    let client = folder.path().join("api-client");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kanyun"), &client).unwrap();
    let mut command = without_settings(Command::new(&client));
    assert_eq!(printed(command.current_dir(folder.path()).args(["-l", "vmnetwork"])), "u1\n");
    adapter.stop();
}

#[test]
fn exit_codes() {
    let adapter = adapter_of_2012();
    let folder = folder_of(&adapter);
    let url = format!("--url=http://{}", adapter.address());
    let nobody = format!("--url=http://127.0.0.1:{}", free_port());
    for (line, code, told) in [
        ("-n 5", 2, "kanyun-exporter traffic show"),
        ("listip -a", 2, "kanyun-exporter traffic apply"),
        ("u1 disk total", 2, "none of cpu"),
        ("usage u1 vmnetwork", 2, "--from"),
        ("list disk", 2, "none of cpu"),
        ("u1 vmnetwork total sum 5 1333976400 1333972800", 1, "is not before"),
        (&format!("usage u1 vmnetwork --from 1 --to 1 {url}"), 1, "is not before"),
        (&format!("list cpu {nobody}"), 1, "nobody listens"),
        (&format!("{url} u1 vmnetwork"), 2, "unrecognized subcommand"),
    ] {
        let (ended, stdout, stderr) = said(kanyun(folder.path()).args(line.split(' ')));
        assert_eq!((ended, stdout.as_str()), (Some(code), ""), "{line}: {stderr}");
        assert!(stderr.contains(told), "{line}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("error: error"), "{stderr}");
    }
    let (ended, _, stderr) = said(&mut kanyun(folder.path()));
    assert!(ended == Some(2) && stderr.contains("Usage: kanyun"), "{stderr}");
    let (ended, stdout, _) = said(kanyun(folder.path()).arg("--help"));
    assert!(ended == Some(0) && stdout.contains("api-client"), "{stdout}");
    adapter.stop();
    let (ended, _, stderr) = said(kanyun(folder.path()).args(["-l", "cpu"]));
    assert!(ended == Some(1) && stderr.contains("nobody can be reached at tcp://"), "{stderr}");
    std::fs::write(folder.path().join("kanyun.conf"), "[client\n").unwrap();
    let (ended, _, stderr) = said(kanyun(folder.path()).args(["-l", "cpu"]));
    assert!(ended == Some(2) && stderr.contains("kanyun.conf"), "{stderr}");
}

/// An address where HTTP is spoken, or nothing at all, is told long before an answer is given up.
#[test]
fn an_address_that_is_no_api() {
    let adapter = AdapterProcess::in_memory();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (port, told) in [
        (adapter.address().port(), "is no API over ZeroMQ: "),
        (silent.local_addr().unwrap().port(), "nothing was said within 10 s"),
    ] {
        let conf = format!("[client]\napi_host: 127.0.0.1\napi_port: {port}\n");
        std::fs::write(folder.path().join("kanyun.conf"), conf).unwrap();
        let begin = Instant::now();
        let (ended, stdout, stderr) = said(kanyun(folder.path()).arg("cpu"));
        assert_eq!((ended, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(told) && stderr.contains("kanyun.conf"), "{stderr}");
        assert!(begin.elapsed() < limits::CLIENT_ANSWER, "{:?}", begin.elapsed());
    }
    adapter.stop();
}
