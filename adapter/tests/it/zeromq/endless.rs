//! Messages that never end, and ones that are too large, at both doors and in the oldest and the
//! newest ZMTP: their connection is cut, memory stays, it is counted and told, and others are served.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use adapter::limits;
use serde_json::json;

use super::client::Client;
use super::{command_of_2012, fill};
use crate::adapter_process::{AdapterProcess, now_ms};
use crate::part::free_port;

const LIST: &str = r#"{"method": "list_instance", "args": {"metric": "vmnetwork"}}"#;
const PATIENCE: Duration = Duration::from_secs(60);
/// What is sent where nobody ends the connection; its socket's buffers hold some MB at most.
const FLOOD_BYTES: usize = 256 << 20;
/// What all that may cost, MiB: the largest message at a time, and what the allocator keeps.
const MEMORY_MIB_MAX: u64 = 96;

#[derive(Clone, Copy, Debug)]
enum Version {
    One,
    Three,
}

/// The first bytes of a peer of a socket type.
fn greeting(version: Version, kind: &str) -> Vec<u8> {
    match version {
        Version::One => vec![1, 0],
        Version::Three => {
            let mut bytes = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".to_vec();
            bytes.resize(64, 0);
            let kind_length = u8::try_from(kind.len()).unwrap();
            bytes.extend([4, 22 + kind_length]);
            bytes.extend(b"\x05READY\x0bSocket-Type\0\0\0");
            bytes.push(kind_length);
            bytes.extend(kind.as_bytes());
            bytes
        }
    }
}

/// The header of a frame that others follow.
fn header(version: Version, length: u64) -> Vec<u8> {
    match version {
        Version::One => [&[255][..], &(length + 1).to_be_bytes(), &[1]].concat(),
        Version::Three => [&[3][..], &length.to_be_bytes()].concat(),
    }
}

/// Sends the same again and again until the connection is cut.
fn flood(address: &str, greeting: &[u8], bytes: &[u8]) {
    let mut stream = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(greeting).unwrap();
    for _ in 0..FLOOD_BYTES / bytes.len() {
        match stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) => {
                let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(kinds.contains(&error.kind()), "{error}");
                return;
            }
        }
    }
    panic!("{address} takes a message without end");
}

fn memory_mib(adapter: &AdapterProcess, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", adapter.id())).unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    line.trim_matches(|other: char| !other.is_ascii_digit()).parse::<u64>().unwrap() / 1024
}

fn wait_for_line(adapter: &AdapterProcess, name: &str, value: u64) {
    let line = format!("kanyun_adapter_{name} {value}");
    adapter.wait_for(&line, || adapter.get("/metrics").text().lines().any(|found| found == line));
}

#[test]
fn messages_without_end() {
    let workers = format!("tcp://127.0.0.1:{}", free_port());
    let mut command = command_of_2012();
    let adapter = AdapterProcess::start(command.args([
        "--store=memory",
        "--legacy.ingest-address",
        &workers,
    ]));
    fill(&adapter);
    let api = format!("tcp://{}", adapter.api_address());
    let client = Client::connect(&api);
    assert_eq!(client.ask(LIST)["code"], 200);
    let worker = zmq::Context::new().socket(zmq::PUSH).unwrap();
    worker.connect(&workers).unwrap();
    let before = memory_mib(&adapter, "VmRSS:");

    let size = r#"worker_refused_total{reason="size"}"#;
    let cut = r#"legacy_requests_total{door="zeromq",outcome="cut"}"#;
    // A frame that is too large by its header alone.
    let largest = u64::try_from(limits::WORKER_MESSAGE_BYTES_MAX).unwrap();
    let mut large = header(Version::Three, largest + 1);
    large.resize(1 << 20, b' ');
    flood(&workers, &greeting(Version::Three, "PUSH"), &large);
    wait_for_line(&adapter, size, 1);
    adapter.wait_for("the cut in the log", || {
        adapter.log().contains(&format!("a message of more than {largest} bytes from 127.0.0.1"))
    });
    let mut floods = 0;
    for version in [Version::One, Version::Three] {
        let mut large = header(version, 1 << 20);
        large.resize(large.len() + (1 << 20), b'x');
        let small = [header(version, 1), b"x".to_vec()].concat().repeat(1000);
        for bytes in [large, small] {
            floods += 1;
            flood(&workers, &greeting(version, "PUSH"), &bytes);
            wait_for_line(&adapter, size, 1 + floods);
            flood(&api, &greeting(version, "DEALER"), &bytes);
            wait_for_line(&adapter, cut, floods);
        }
    }
    let log = adapter.log();
    assert!(log.contains("clients of the API over ZeroMQ were cut off"), "{log}");
    let peak = memory_mib(&adapter, "VmHWM:");
    println!("{before} MiB before, {peak} MiB at the peak");
    assert!(peak < before + MEMORY_MIB_MAX, "{before} MiB before, {peak} MiB at the peak");

    assert_eq!(client.ask(LIST)["code"], 200);
    // A message that is nearly too large is stored.
    let at = now_ms() / 1000 - 3600;
    let body = json!({ "instance-000000ba": [["cpu", "total", [at, 12.5]]] }).to_string();
    let padding = limits::WORKER_MESSAGE_BYTES_MAX - 1 - body.len();
    let padded = body + &" ".repeat(padding);
    worker.send_multipart(["3", &padded], 0).unwrap();
    wait_for_line(&adapter, "worker_samples_total", 1);
    adapter.stop();
}
