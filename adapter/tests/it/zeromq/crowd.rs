//! Many clients at once, slow ones among them, and what is no request: nobody keeps anybody else
//! from an answer, and the socket lives on.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use adapter::limits;
use adapter::wire::negotiate::Protocol;
use serde_json::Value;

use super::client::Client;
use super::{NOON, adapter_of_2012, imported};

const LIST: &str = r#"{"method": "list_instance", "args": {"metric": "vmnetwork"}}"#;

fn code(frames: &[Vec<u8>]) -> (u64, String) {
    let body: Value = serde_json::from_slice(frames.last().unwrap()).unwrap();
    (body["code"].as_u64().unwrap(), body["message"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_no_request() {
    let adapter = adapter_of_2012();
    let address = format!("tcp://{}", adapter.api_address());
    let client = Client::connect(&address);
    let large = vec![b' '; 70_000];
    let larger = vec![b'x'; 900_000];
    let requests: [(&[&[u8]], &str); 6] = [
        (&[b"kanyun", b"u", b"\xff\xfe\x00"], "not JSON"),
        (&[b"\xff", b"\x00\x01", b"{"], "not JSON"),
        (&[b"kanyun", b"u", &large], "more than 65536"),
        (&[b"kanyun", b"u", &larger], "more than 65536"),
        (&[b"kanyun", b"u"], "three frames"),
        (
            &[b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"10", b"11", b"12"],
            "three frames",
        ),
    ];
    for (frames, told) in requests {
        let answer = client.exchange(frames);
        let (code, message) = code(&answer);
        assert_eq!(code, 500);
        assert!(message.contains(told), "{message}");
        let echoed = (frames.len() - 1).min(2);
        assert_eq!(answer.len(), echoed + 1);
        assert_eq!(answer[..echoed], frames[..echoed]);
    }
    // Beyond the bound of a message the connection ends; that is one client's own trouble.
    let rude = Client::connect(&address);
    rude.send(&[&b"kanyun"[..], b"u", &vec![b'x'; 2 << 20]]);
    // No ZeroMQ at all.
    let mut http = TcpStream::connect(adapter.api_address()).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(client.ask(LIST)["code"], 200);
    let page = adapter.get("/metrics");
    let malformed = "kanyun_adapter_legacy_requests_total{door=\"zeromq\",outcome=\"malformed\"} 6";
    assert!(page.text().lines().any(|line| line == malformed), "{}", page.text());
    adapter.stop();
}

/// DEALER sends without waiting: more requests at once than one client of 2012 ever had, in flight
/// together with a report of ten years. Each is answered, and with what it asked.
#[test]
fn many_at_once_with_slow_reports_among_them() {
    let adapter = adapter_of_2012();
    let address = format!("tcp://{}", adapter.api_address());
    // A sample an hour for a year, so that the long reports have something to read.
    let points: Vec<(i64, f64)> = (0..24 * 365).map(|hour| (hour * 3600, 1.0)).collect();
    for part in points.chunks(4000) {
        let year = imported("kanyun_vmnetwork_bytes", ("u2", "ip", "10.0.0.9"), part);
        assert_eq!(adapter.write(Protocol::V2, &[year]).status, 204);
    }
    let slow = r#"{"method": "query_usage_report", "args": {"id": "u2", "metric": "vmnetwork",
        "metric_param": "total", "statistic": "sum", "period": 525600,
        "timestamp_from": "2012-01-01T00:00:00", "timestamp_to": "2022-01-01T00:00:00"}}"#;
    let slow_clients: Vec<Client> = (0..3).map(|_| Client::connect(&address)).collect();
    for client in &slow_clients {
        client.send(&["kanyun", "slow", slow]);
    }
    let (done, ended) = mpsc::channel();
    let clients: Vec<_> = (0..40)
        .map(|number| {
            let (address, done) = (address.clone(), done.clone());
            std::thread::spawn(move || {
                let client = Client::connect(&address);
                for turn in 0..5 {
                    let uuid = format!("{number}-{turn}");
                    let answer = client.exchange(&["kanyun", &uuid, LIST]);
                    assert_eq!(answer[1], uuid.as_bytes());
                    assert_eq!(code(&answer).0, 200);
                }
                done.send(()).unwrap();
            })
        })
        .collect();
    // Prometheus goes on meanwhile: each of its writes is answered before the adapter itself would
    // give it up.
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    for number in 0..20 {
        let sent = Instant::now();
        let sample = imported("kanyun_vmnetwork_bytes", ("u1", "ip", "10.0.0.4"), &[(number, 1.0)]);
        assert_eq!(adapter.write(Protocol::V2, &[sample]).status, 204);
        longest = longest.max(sent.elapsed());
    }
    assert!(longest < limits::WRITE_DEADLINE, "{longest:?}");
    println!("20 writes in {:?}, the longest in {longest:?}", begin.elapsed());
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(ended.try_iter().count(), 40);
    for client in &slow_clients {
        let answer = client.receive();
        let (code, message) = code(&answer);
        assert_eq!(code, 200, "{message}");
        let body: Value = serde_json::from_slice(&answer[2]).unwrap();
        let sum: i64 =
            body["data"].as_object().unwrap().values().map(|v| v.as_i64().unwrap()).sum();
        assert_eq!(sum, 24 * 365);
    }
    println!("the reports after {:?}", begin.elapsed());
    adapter.stop();
}

/// Points are never cut short: more of them than there may be are refused.
#[test]
fn too_many_points() {
    let adapter = adapter_of_2012();
    let client = Client::connect(&format!("tcp://{}", adapter.api_address()));
    let days = 70;
    let points: Vec<(i64, f64)> = (0..days * 1440).map(|minute| (minute * 60, 1.0)).collect();
    for part in points.chunks(20_000) {
        let all = imported("kanyun_vmnetwork_bytes", ("u2", "ip", "10.0.0.9"), part);
        assert_eq!(adapter.write(Protocol::V2, &[all]).status, 204);
    }
    let ask = |days: i64| {
        client.ask(&format!(
            r#"{{"method": "get_data", "args": {{"id": "u2", "metric": "vmnetwork",
                "timestamp_from": {NOON}, "timestamp_to": {}}}}}"#,
            NOON + days * 86_400
        ))
    };
    assert_eq!(ask(69)["data"].as_object().unwrap().len(), 69 * 1440);
    let refused = ask(70);
    assert_eq!(refused["code"], 500);
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("more than 100000 points; ask for a shorter range"), "{told}");
    adapter.stop();
}

/// Requests that are on their way when a stop is asked for are answered.
#[test]
fn a_stop_ends_what_was_begun() {
    let adapter = adapter_of_2012();
    let address = format!("tcp://{}", adapter.api_address());
    let clients: Vec<Client> = (0..8).map(|_| Client::connect(&address)).collect();
    for client in &clients {
        assert_eq!(client.ask(LIST)["code"], 200);
        client.send(&["kanyun", "last", LIST]);
    }
    adapter.terminate();
    for client in &clients {
        let (code, message) = code(&client.receive());
        assert!(code == 200 || message.contains("stopping; ask again"), "{code} {message}");
    }
    let (status, log) = adapter.wait();
    assert!(status.success(), "{log}");
}
