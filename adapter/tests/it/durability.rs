//! Durable before the answer: the process' system calls show that a request's bytes are written to
//! the journal and synced before its 2xx goes out. No crash of a process could show a missing sync.

mod trace;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use adapter::wire::negotiate::Protocol;
use xxhash_rust::xxh3::xxh3_64;

use self::trace::Trace;
use crate::adapter_process::{AdapterProcess, now_ms, without_settings};
use crate::http_client::Connection;
use crate::libvirtd::skip;
use crate::remote::{self, series};

/// How a test sends.
#[derive(Clone, Copy)]
struct Load {
    senders: u64,
    requests: u64,
    pause: Duration,
}

const BURST: Load = Load { senders: 4, requests: 5, pause: Duration::ZERO };
/// For three seconds never as long without a request as `--store.sync=interval` waits.
const STEADY: Load = Load { senders: 1, requests: 15, pause: Duration::from_millis(200) };

/// One acknowledged request: what to look for in the trace.
struct Acknowledged {
    /// As the store writes it: big-endian bits of a float.
    value: [u8; 8],
    sender: SocketAddr,
}

/// Why system calls cannot be traced here, if they cannot.
fn untraceable() -> Option<String> {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-o", "/dev/null", "true"]).stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() && output.stderr.is_empty() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("strace cannot be started: {error}")),
    }
}

/// Sends requests to an adapter under trace; gives the trace and what was acknowledged.
fn traced(sync: &str, load: Load) -> (Trace, Vec<Acknowledged>) {
    let folder = tempfile::tempdir().unwrap();
    let trace_file = folder.path().join("trace");
    let mut command = without_settings(Command::new("strace"));
    command
        // The tracer is a grandchild, so that our child is the adapter itself.
        .args(["-D", "-f", "-xx", "-yy", "-s", "1048576", "-e"])
        .arg(format!("trace={}", trace::CALLS.join(",")))
        .arg("-o")
        .arg(&trace_file)
        .arg(env!("CARGO_BIN_EXE_kanyun-adapter"))
        .args(["--web.listen-address", "127.0.0.1:0", "--store.sync", sync, "--store.path"])
        .arg(folder.path().join("data"));
    let adapter = AdapterProcess::start(&mut command);
    let address = adapter.address();
    let acknowledged = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..load.senders)
            .map(|sender| scope.spawn(move || send(sender, address, load)))
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    adapter.terminate();
    // The end of its standard error is the end of the tracer, too, so the trace is whole.
    let (status, log) = adapter.wait();
    assert!(status.success(), "{status}\n{log}");
    (Trace::parse(&read(&trace_file)), acknowledged)
}

fn send(sender: u64, address: SocketAddr, load: Load) -> Vec<Acknowledged> {
    let request = |number: u64| {
        // Any bits will do that occur nowhere else.
        let bits = xxh3_64(&[sender, number].map(u64::to_be_bytes).concat());
        let guest = format!("guest {sender}");
        let labels = [("__name__", "m"), ("uuid", &*guest)];
        let body = [series(&labels, &[(now_ms(), f64::from_bits(bits))])];
        let body = remote::write_body(Protocol::V2, &body);
        let length = body.len().to_string();
        let headers =
            [("content-type", remote::content_type(Protocol::V2)), ("content-length", &length)];
        let mut connection = Connection::begin(address, "POST /api/v1/write", &headers).unwrap();
        let sender = connection.local_address();
        connection.send(&body).unwrap();
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 204, "{answer:?}");
        std::thread::sleep(load.pause);
        Acknowledged { value: bits.to_be_bytes(), sender }
    };
    (0..load.requests).map(request).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn answers_wait_for_the_sync() {
    if let Some(why) = untraceable() {
        return skip(&format!("cannot trace: {why}"));
    }
    let (trace, acknowledged) = traced("commit", BURST);
    for request in &acknowledged {
        trace.synced_before_answer(&request.value, request.sender).unwrap();
    }
    // The same check must see a sync that comes too late.
    let (trace, acknowledged) = traced("interval", BURST);
    let verdicts: Vec<_> = acknowledged
        .iter()
        .map(|request| trace.synced_before_answer(&request.value, request.sender))
        .collect();
    let too_late = Err("no sync between the write and the answer".to_owned());
    assert!(verdicts.contains(&too_late), "{verdicts:?}");
    assert!(verdicts.iter().all(|verdict| verdict.is_ok() || *verdict == too_late), "{verdicts:?}");
}

/// What `--store.sync=interval` promises: a power loss costs about a second, also under load.
#[test]
fn an_interval_syncs_under_steady_load() {
    if let Some(why) = untraceable() {
        return skip(&format!("cannot trace: {why}"));
    }
    let (trace, acknowledged) = traced("interval", STEADY);
    let (first, last) = (acknowledged.first().unwrap(), acknowledged.last().unwrap());
    assert!(trace.synced_between(&first.value, &last.value), "no sync in three seconds");
}
