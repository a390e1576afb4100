//! The workers' door: an independent worker by pyzmq, bytes of ZMTP 1.0 by hand, and an adapter
//! that is killed, restarted and asked who may send.

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use adapter::wire::negotiate::Protocol;
use serde_json::{Value, json};

use crate::adapter_process::{AdapterProcess, command, now_ms, run};
use crate::http_client;
use crate::libvirtd::skip;
use crate::part::free_port;
use crate::remote::{self, read_back};

/// Far more than anything here takes.
const LINGER_MS: &str = "60000";
const GUEST: &str = "instance-000000ba@sws-yz-5";

type Message = (&'static str, Value);

/// A worker that pushes these messages and then ends; `None` where there is no pyzmq.
fn worker(address: &str, linger_ms: &str, messages: &[Message]) -> Option<Child> {
    let Some(pyzmq) = std::env::var_os("KANYUN_PYZMQ").map(PathBuf::from).filter(|f| f.is_dir())
    else {
        skip("KANYUN_PYZMQ names no folder (scripts/tools install pyzmq makes it)");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/ingest/worker.py");
    let mut command = Command::new("python3");
    command.args([script, address, linger_ms]).env("PYTHONPATH", pyzmq).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = String::new();
    for (kind, body) in messages {
        let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        lines.push_str(&json!([kind, body]).to_string());
        lines.push('\n');
    }
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    Some(child)
}

/// The same, until it has ended.
fn send(address: &str, messages: &[Message]) -> Option<()> {
    let status = worker(address, LINGER_MS, messages)?.wait().unwrap();
    assert!(status.success(), "{status}");
    Some(())
}

/// What a worker sends in one minute about a guest whose counters all stand at a figure.
fn minute(at: i64, counters: u64) -> Vec<Message> {
    let info = json!([
        ["cpu", "total", [at, 12.5]],
        ["mem", "total", [at, 4_194_304, 1024]],
        ["nic", "vnet7", [at, counters, 10 * counters]],
        ["blk", "vda", [at, counters, counters]],
    ]);
    // Accounting rules name the guest by its decimal id, and count since the last report.
    let traffic = json!(["10.0.0.2", at, "70"]);
    vec![
        ("0", json!(["worker1", at, 1])),
        ("3", json!({ GUEST: info })),
        ("2", json!({ "186@sws-yz-5": traffic })),
    ]
}

/// An adapter in memory with its door on a free port, and the door's address.
fn with_door(more: &[&str]) -> (AdapterProcess, String) {
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let mut command = command();
    command.args(["--store=memory", "--legacy.ingest-address", &address]).args(more);
    (AdapterProcess::start(&mut command), address)
}

fn figure(adapter: &AdapterProcess, name: &str) -> u64 {
    let page = adapter.get("/metrics").text().to_owned();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("kanyun_adapter_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

fn wait_for_figure(adapter: &AdapterProcess, name: &str, value: u64) {
    adapter.wait_for(&format!("{name} {value}"), || figure(adapter, name) >= value);
    assert_eq!(figure(adapter, name), value, "{name}");
}

fn report(adapter: &AdapterProcess, metric: &str, range: (i64, i64)) -> Value {
    report_of(adapter, GUEST, metric, range)
}

fn report_of(adapter: &AdapterProcess, guest: &str, metric: &str, range: (i64, i64)) -> Value {
    let args = json!({
        "id": guest, "metric": metric, "statistic": "sum", "period": 60,
        "timestamp_from": range.0, "timestamp_to": range.1,
    });
    let body = args.to_string();
    let line = "POST /query_usage_report";
    let answer = http_client::request(adapter.address(), line, &[], body.as_bytes()).unwrap();
    let mut answer: Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(answer["code"], 200, "{answer}");
    answer["data"].take()
}

/// A whole minute an hour ago, unix seconds.
fn some_minute() -> i64 {
    now_ms() / 60_000 * 60 - 3600
}

fn check_billed(adapter: &AdapterProcess, at: i64) {
    let key = format!("{at}.0");
    let later = format!("{}.0", at + 60);
    for (metric, data) in [
        ("nic_incoming", json!({ &key: 500 })),
        ("nic_outgoing", json!({ &key: 5000 })),
        ("blk_write", json!({ &key: 500 })),
        ("vmnetwork", json!({ &key: 140 })),
        ("cpu", json!({ &key: 25 })),
    ] {
        assert_eq!(report(adapter, metric, (at, at + 120)), data, "{metric}");
    }
    assert_eq!(report(adapter, "nic_incoming", (at + 60, at + 120)), json!({ &later: 500 }));
}

#[test]
fn a_worker_is_stored_read_and_billed_and_a_resend_changes_nothing() {
    let (adapter, address) = with_door(&[]);
    let at = some_minute();
    let messages = [minute(at + 2, 1000), minute(at + 62, 1500)].concat();
    let range = (at * 1000, (at + 120) * 1000);
    let labels = [
        ("__name__", "kanyun_nic_incoming_bytes_total"),
        ("domain", "instance-000000ba"),
        ("host", "sws-yz-5"),
        ("job", "kanyun-worker"),
        ("target_device", "vnet7"),
    ];
    let samples = [((at + 2) * 1000, 1000.0), ((at + 62) * 1000, 1500.0)];
    for sent in 1..=2 {
        if send(&address, &messages).is_none() {
            return;
        }
        wait_for_figure(&adapter, "worker_samples_total", sent * 16);
        let matchers = [("=", "__name__", "kanyun_nic_incoming_bytes_total")];
        assert_eq!(adapter.read(range, &matchers), [read_back(&labels, &samples)]);
        assert_eq!(adapter.read(range, &[("=", "job", "kanyun-worker")]).len(), 8);
        check_billed(&adapter, at);
    }
    let workers: Value = serde_json::from_str(adapter.get("/api/v1/workers").text()).unwrap();
    let [worker] = &workers["workers"].as_array().unwrap()[..] else { panic!("{workers}") };
    assert_eq!((&worker["id"], &worker["status"]), (&json!("worker1"), &json!("alive")));
    send(&address, &[("0", json!(["worker1", at, 0]))]).unwrap();
    adapter.wait_for("worker's leave", || {
        adapter.get("/api/v1/workers").text().parse::<Value>().unwrap() == json!({ "workers": [] })
    });
    adapter.stop();
}

/// Workers may say no host; then the guest is its name alone.
#[test]
fn a_guest_whose_worker_says_no_host() {
    let (adapter, address) = with_door(&[]);
    let at = some_minute();
    let body = |time: i64, bytes: u64| {
        json!({
            "instance-000000bb": [["nic", "vnet1", [time, bytes, bytes]]],
            "instance-000000bc": [["nic", "vnet1", [time, 3 * bytes, bytes]]],
        })
    };
    if send(&address, &[("3", body(at + 2, 100)), ("3", body(at + 62, 150))]).is_none() {
        return;
    }
    wait_for_figure(&adapter, "worker_samples_total", 8);
    for (guest, bytes) in [("instance-000000bb", 50), ("instance-000000bc", 150)] {
        let data = report_of(&adapter, guest, "nic_incoming", (at, at + 120));
        assert_eq!(data.as_object().unwrap().values().collect::<Vec<_>>(), [&json!(bytes)]);
    }
    adapter.stop();
}

/// A worker first, then an exporter beside it: one guest, asked for by any of its names, and what
/// both counted is billed once.
#[test]
fn a_guest_that_an_exporter_knows_as_well() {
    let (adapter, address) = with_door(&[]);
    let at = now_ms() / 3_600_000 * 3600 - 3 * 3600;
    let later = at + 3600;
    let counters = [(at, 1000), (at + 60, 1500), (later, 4000), (later + 60, 4500)];
    let messages = counters.map(|(minute_at, counters)| minute(minute_at + 2, counters)).concat();
    if send(&address, &messages).is_none() {
        return;
    }
    wait_for_figure(&adapter, "worker_samples_total", 4 * 8);
    let labels = [
        ("__name__", "libvirt_domain_interface_stats_receive_bytes_total"),
        ("domain", "instance-000000ba"),
        ("instance", "sws-yz-5:9177"),
        ("job", "libvirt"),
        ("target_device", "vnet7"),
        ("uuid", "9d2cbb27-ee43-4e57-a2ee-9bca4c1b3ec8"),
    ];
    let samples = [((later + 20) * 1000, 4100.0), ((later + 80) * 1000, 4600.0)];
    let answer = adapter.write(Protocol::V1, &[remote::series(&labels, &samples)]);
    assert_eq!(answer.status, 204, "{}", answer.text());

    let uuid = labels[5].1;
    let (first, second) = (format!("{at}.0"), format!("{later}.0"));
    for guest in [uuid, GUEST, "instance-000000ba"] {
        let of = |range| report_of(&adapter, guest, "nic_incoming", range);
        assert_eq!(of((at, later + 3600)), json!({ &first: 500, &second: 500 }), "{guest}");
        // Also where it is asked for the hour in which only the worker saw it.
        assert_eq!(of((at, later)), json!({ &first: 500 }), "{guest}");
        assert_eq!(of((later, later + 3600)), json!({ &second: 500 }), "{guest}");
    }
    let list = br#"{"method": "list_instance", "args": {"metric": "nic_incoming"}}"#;
    let answer = http_client::request(adapter.address(), "POST /", &[], list).unwrap();
    let answer: Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(answer["data"], json!([uuid]), "{answer}");
    adapter.stop();
}

/// A frame of ZMTP 1.0: its length with the flags, the flags, the body.
fn frame(more: bool, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u64 + 1;
    let mut frame = match u8::try_from(length) {
        Ok(length) if length < 255 => vec![length],
        _ => [&[255][..], &length.to_be_bytes()].concat(),
    };
    frame.push(u8::from(more));
    frame.extend_from_slice(body);
    frame
}

#[test]
fn the_zmtp_that_workers_spoke_in_2012() {
    let (adapter, address) = with_door(&[]);
    let at = some_minute();
    let mut stream = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    // The greeting is a frame with the sender's identity, and it has none.
    stream.write_all(&frame(false, b"")).unwrap();
    let mut sent = 0;
    for (kind, body) in [minute(at + 2, 1000), minute(at + 62, 1500)].concat() {
        stream.write_all(&frame(true, kind.as_bytes())).unwrap();
        stream.write_all(&frame(false, body.to_string().as_bytes())).unwrap();
        sent += 1;
        // What is no message of a worker disturbs nobody.
        stream.write_all(&frame(false, b"3")).unwrap();
        stream.write_all(&frame(true, b"3")).unwrap();
        stream.write_all(&frame(false, b"\xff{")).unwrap();
    }
    wait_for_figure(&adapter, "worker_samples_total", 16);
    wait_for_figure(&adapter, r#"worker_refused_total{reason="malformed"}"#, 2 * sent);
    check_billed(&adapter, at);
    // How many a line tells of depends on how fast they come; all are counted above.
    let said = "malformed (first: a message of 1 frames)";
    adapter.wait_for("log of what is refused", || adapter.log().contains(said));
    adapter.stop();
}

/// What was committed before a kill is there after it, the worker goes on by itself, and to send
/// everything again closes the gap that PUSH leaves.
#[test]
fn a_kill_between_two_messages() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let start = || {
        let mut command = command();
        command.args(["--legacy.ingest-address", &address]).arg("--store.path").arg(folder.path());
        AdapterProcess::start(&mut command)
    };
    let begin = some_minute() - 86_400;
    let count = 1000;
    let body = |n: i64| json!({ GUEST: [["nic", "vnet7", [begin + n * 60, 3 * n, n]]] });
    let messages: Vec<Message> = (0..count).map(|n| ("3", body(n))).collect();
    let adapter = start();
    let Some(mut first) = worker(&address, LINGER_MS, &messages) else { return };
    adapter.wait_for("a commit", || figure(&adapter, "worker_samples_total") > 0);
    let committed = figure(&adapter, "worker_samples_total") / 2;
    adapter.kill();
    let adapter = start();
    let range = (begin * 1000, (begin + count * 60) * 1000);
    let query = [remote::query(range, &[("=", "__name__", "kanyun_nic_outgoing_bytes_total")])];
    // One read, not two that are to say the same: the worker is still sending.
    let stored = || {
        let answer = adapter.post_read(&remote::read_body(&query, &[0]));
        let series = remote::sampled(&answer.body).remove(0);
        series.into_iter().flat_map(|(_, samples)| samples).collect::<Vec<_>>()
    };
    let expected: Vec<_> =
        (0..count).map(|n| ((begin + n * 60) * 1000, (n as f64).to_bits())).collect();
    assert!(stored().starts_with(&expected[..committed as usize]), "{committed} were committed");
    // It has not noticed.
    assert!(first.wait().unwrap().success());
    send(&address, &messages).unwrap();
    adapter.wait_for("everything", || stored().len() == expected.len());
    assert_eq!(stored(), expected);
    let billed = report(&adapter, "nic_incoming", (begin, begin + count * 60));
    let sum: u64 = billed.as_object().unwrap().values().map(|value| value.as_u64().unwrap()).sum();
    assert_eq!(sum, 3 * (count as u64 - 1));
    adapter.stop();
}

/// A stop stores what was read, and says nothing of a loss.
#[test]
fn a_stop_stores_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("tcp://127.0.0.1:{}", free_port());
    let start = || {
        let mut command = command();
        command.args(["--legacy.ingest-address", &address]).arg("--store.path").arg(folder.path());
        AdapterProcess::start(&mut command)
    };
    let at = some_minute();
    let adapter = start();
    if send(&address, &minute(at, 1)).is_none() {
        return;
    }
    adapter.wait_for("messages", || {
        let read = |kind| figure(&adapter, &format!("worker_messages_total{{type={kind:?}}}"));
        read("traffic") == 1
    });
    adapter.terminate();
    let (status, log) = adapter.wait();
    assert!(status.success() && !log.contains("are lost"), "{status}\n{log}");
    let adapter = start();
    let range = (at * 1000, at * 1000);
    assert_eq!(adapter.read(range, &[("=", "job", "kanyun-worker")]).len(), 8);
    adapter.stop();
}

#[test]
fn only_named_addresses_may_send() {
    let (adapter, address) = with_door(&["--legacy.ingest-allow", "10.0.0.0/8,127.0.0.5"]);
    let at = some_minute();
    let port = address.rsplit_once(':').unwrap().1;
    let from = |source: &str| format!("tcp://{source}:0;127.0.0.1:{port}");
    let Some(mut stranger) = worker(&from("127.0.0.6"), "0", &minute(at, 1)) else { return };
    assert!(stranger.wait().unwrap().success());
    // It may have ended before it connected; this one stays until it is killed.
    let mut stranger = worker(&from("127.0.0.6"), LINGER_MS, &minute(at, 1)).unwrap();
    let refused = r#"worker_refused_total{reason="source"}"#;
    adapter.wait_for("refused connections", || figure(&adapter, refused) > 0);
    send(&from("127.0.0.5"), &minute(at + 60, 1)).unwrap();
    wait_for_figure(&adapter, "worker_samples_total", 8);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let range = ((at - 60) * 1000, (at + 59) * 1000);
    assert!(adapter.read(range, &[("=", "job", "kanyun-worker")]).is_empty());
    adapter.wait_for("the stranger in the log", || {
        adapter.log().contains("a connection from 127.0.0.6")
    });
    adapter.stop();
}

#[test]
fn a_door_that_cannot_be_opened_and_one_that_is_closed() {
    for (arguments, texts) in [
        (
            &["--legacy.ingest-address=tcp://0.0.0.0:0"][..],
            &["tcp://0.0.0.0:0", "--legacy.ingest-allow", "loopback"][..],
        ),
        (&["--legacy.ingest-address=tcp://*:*"], &["--legacy.ingest-allow"]),
        (&["--legacy.ingest-address=5551"], &["--legacy.ingest-address", "tcp://127.0.0.1"]),
        (&["--legacy.ingest-allow=10.0.0"], &["10.0.0", "--legacy.ingest-allow", "10.0.0.0/16"]),
    ] {
        for checking in [&[][..], &["--config.check"]] {
            let output = run(command().arg("--store=memory").args(arguments).args(checking));
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{said}");
            for text in texts {
                assert!(said.contains(text), "{text:?} is not in {said:?}");
            }
        }
    }
    let adapter = AdapterProcess::in_memory();
    let answer = adapter.get("/api/v1/workers");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("--legacy.ingest-address"), "{answer:?}");
    adapter.stop();
}
