//! remote_write's door: methods, headers, sizes and damaged bodies, before any sample is judged.

use std::time::{Duration, Instant};

use adapter::wire::messages;
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;
use prost::Message;

use crate::adapter_process::{AdapterProcess, now_ms};
use crate::http_client::{self, Answer, Connection};
use crate::remote::{self, BOTH, content_type, series};

const COUNTS: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

/// The three counts of an answer: all of them on 2.0, none on 1.0.
pub(super) fn check_counts(answer: &Answer, protocol: Protocol, samples: usize) {
    let counts = COUNTS.map(|name| answer.header(name).map(str::to_owned));
    let expected = match protocol {
        Protocol::V1 => [None, None, None],
        Protocol::V2 => [Some(samples.to_string()), Some("0".to_owned()), Some("0".to_owned())],
    };
    assert_eq!(counts, expected, "{answer:?}");
}

/// A refusal that Prometheus can log whole.
pub(super) fn check_refusal(answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.text().contains(text), "{:?} is not in {:?}", text, answer.text());
    assert!(answer.body.len() <= 1024, "{} bytes", answer.body.len());
    assert!(answer.text().ends_with('\n') && answer.text().lines().count() == 1, "{answer:?}");
}

fn one_sample() -> Vec<messages::TimeSeries> {
    vec![series(&[("__name__", "up"), ("uuid", "a")], &[(now_ms(), 1.0)])]
}

#[test]
fn other_methods() {
    let adapter = AdapterProcess::in_memory();
    for path in ["/api/v1/write", "/api/v1/read"] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let line = format!("{method} {path}");
            let answer = http_client::request(adapter.address(), &line, &[], b"").unwrap();
            assert_eq!(answer.status, 405, "{line}");
            assert_eq!(answer.header("allow"), Some("POST"), "{line}");
        }
    }
    assert_eq!(adapter.get("/api/v1/other").status, 404);
}

/// The headers are judged before the body: a damaged one must not change 415 into 400.
#[test]
fn content_types_and_encodings() {
    const V1: &str = "application/x-protobuf";
    const V2: &str = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
    let adapter = AdapterProcess::in_memory();
    for (headers, status_whole, status_damaged) in [
        (vec![], 204, 400),
        (vec![("content-type", V1)], 204, 400),
        (vec![("content-type", V1), ("content-encoding", "Snappy")], 204, 400),
        (vec![("Content-Type", "Application/X-Protobuf;charset=utf-8")], 204, 400),
        (vec![("content-type", "application/x-protobuf;proto=prometheus.WriteRequest")], 204, 400),
        (vec![("content-type", V1), ("content-encoding", "gzip")], 415, 415),
        (vec![("content-type", V1), ("content-encoding", "zstd")], 415, 415),
        (vec![("content-type", V1), ("content-encoding", "identity")], 415, 415),
        (vec![("content-encoding", "sn\u{e4}ppy")], 415, 415),
        (vec![("content-type", "application/json")], 415, 415),
        (vec![("content-type", "text/plain")], 415, 415),
        (vec![("content-type", "application/x-protobuf;proto=io.prometheus.write.v3")], 415, 415),
        (vec![("content-type", "application/x-protobuf;proto=")], 415, 415),
        (vec![("content-type", V2), ("content-encoding", "gzip")], 415, 415),
        (vec![("content-type", V2)], 204, 400),
        // The content type decides, not this.
        (vec![("content-type", V2), ("x-prometheus-remote-write-version", "0.1.0")], 204, 400),
    ] {
        let is_v2 = headers.iter().any(|(_, value)| *value == V2);
        let protocol = if is_v2 { Protocol::V2 } else { Protocol::V1 };
        let whole = remote::write_body(protocol, &one_sample());
        for (body, status) in [(&whole[..], status_whole), (b"damaged", status_damaged)] {
            let answer =
                http_client::request(adapter.address(), "POST /api/v1/write", &headers, body)
                    .unwrap();
            assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
            if status == 415 {
                check_refusal(&answer, 415, "not");
                assert_eq!(COUNTS.map(|name| answer.header(name)), [None; 3], "{headers:?}");
            } else {
                check_counts(&answer, protocol, usize::from(status == 204));
            }
        }
    }
}

#[test]
fn bodies_that_cannot_be_read() {
    let adapter = AdapterProcess::in_memory();
    for protocol in BOTH {
        let good = remote::write_body(protocol, &one_sample());
        let other = BOTH.into_iter().find(|other| *other != protocol).unwrap();
        let other_version = remote::write_body(other, &one_sample());
        let not_protobuf = snappy::compress(b"\xff\xff\xff\xff\xff\xff").unwrap();
        for (body, text) in [
            (&b""[..], "the body is empty"),
            (b"\xff\x06\x00\x00sNaPpY\x01\x05", "framed format"),
            (b"a text instead", "not a valid snappy block"),
            (&good[..good.len() - 1], "not a valid snappy block"),
            (&not_protobuf, "not a valid remote_write request"),
            (&other_version, "but the content type says"),
            // A header that promises 4 GiB, and one of 32 MiB in front of nothing.
            (b"\xff\xff\xff\xff\x0f", "4294967295 bytes"),
            (b"\x80\x80\x80\x10", "more than 4 can expand to"),
        ] {
            let started = Instant::now();
            let answer = adapter.post_write(content_type(protocol), body).unwrap();
            check_refusal(&answer, 400, text);
            check_counts(&answer, protocol, 0);
            assert!(started.elapsed() < Duration::from_secs(10), "{text}");
        }
    }
    assert!(adapter.read((0, now_ms()), &[("=", "__name__", "up")]).is_empty());
}

/// A length over the bound is refused before the body is sent, a body that grows beyond it as soon
/// as it does.
#[test]
fn too_large() {
    let adapter = AdapterProcess::in_memory();
    for protocol in BOTH {
        let head = [("content-type", content_type(protocol))];
        let announced = (32_usize << 20) + 1;
        let announced = announced.to_string();
        let headers = [head[0], ("content-length", &announced)];
        let connection =
            Connection::begin(adapter.address(), "POST /api/v1/write", &headers).unwrap();
        let answer = connection.answer().unwrap();
        check_refusal(&answer, 413, "larger than 33554432 bytes");
        check_counts(&answer, protocol, 0);
    }
    let headers = [("content-type", content_type(Protocol::V2)), ("transfer-encoding", "chunked")];
    let mut connection =
        Connection::begin(adapter.address(), "POST /api/v1/write", &headers).unwrap();
    let mut chunk = format!("{:x}\r\n", 1 << 20).into_bytes();
    chunk.extend_from_slice(&vec![0; 1 << 20]);
    chunk.extend_from_slice(b"\r\n");
    for _mebibyte in 0..33 {
        if connection.send(&chunk).is_err() {
            break;
        }
    }
    check_refusal(&connection.answer().unwrap(), 413, "larger than 33554432 bytes");
}

#[test]
fn a_chunked_body() {
    let adapter = AdapterProcess::in_memory();
    let headers = [("content-type", content_type(Protocol::V2)), ("transfer-encoding", "chunked")];
    let mut connection =
        Connection::begin(adapter.address(), "POST /api/v1/write", &headers).unwrap();
    for byte in remote::write_body(Protocol::V2, &one_sample()) {
        connection.send(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']).unwrap();
    }
    connection.send(b"0\r\n\r\n").unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!(answer.status, 204, "{answer:?}");
    check_counts(&answer, Protocol::V2, 1);
}

/// A body that ends before its announced length is nothing that was written.
#[test]
fn a_body_that_is_cut_short_stores_nothing() {
    let adapter = AdapterProcess::in_memory();
    for protocol in BOTH {
        let body = remote::write_body(protocol, &one_sample());
        let length = (body.len() + 1).to_string();
        let headers =
            [("content-type", content_type(protocol)), ("content-length", length.as_str())];
        let mut connection =
            Connection::begin(adapter.address(), "POST /api/v1/write", &headers).unwrap();
        connection.send(&body).unwrap();
        connection.end_of_request().unwrap();
        check_refusal(&connection.answer().unwrap(), 400, "the request's body ended early");
    }
    assert!(adapter.read((0, now_ms()), &[("=", "__name__", "up")]).is_empty());
}

/// A body of the largest size, or of none that is announced, keeps nobody else out by itself; as many
/// of them as fill the memory do.
#[test]
fn memory_for_bodies_is_bounded() {
    let adapter = AdapterProcess::in_memory();
    let begin = |length: usize| {
        let headers = [("content-length", &*length.to_string())];
        // A body is asked for after its share of the memory was taken.
        Connection::begin_expected(adapter.address(), "POST /api/v1/write", &headers).unwrap()
    };
    // In KiB, each rounded up to one more: together 2 less than all there are.
    let lengths = [[33_500_000; 8].as_slice(), &[400 << 10, 20 << 10]].concat();
    let held: Vec<Connection> = lengths.into_iter().map(begin).collect();
    let busy = || adapter.write(Protocol::V2, &one_sample());
    let answer = busy();
    check_refusal(&answer, 503, "too many write requests at once");
    assert_eq!(answer.header("retry-after"), Some("1"));
    check_counts(&answer, Protocol::V2, 0);
    drop(held);
    adapter.wait_for("memory", || busy().status == 204);
}

/// Prometheus sends metadata of 1.0 in requests of its own, every minute.
#[test]
fn requests_without_samples() {
    let adapter = AdapterProcess::in_memory();
    let metadata = messages::MetricMetadata {
        r#type: 1,
        metric_family_name: "up".to_owned(),
        help: "Whether the target answers".to_owned(),
        unit: String::new(),
    };
    let request = messages::WriteRequest { timeseries: vec![], metadata: vec![metadata; 300] };
    let body = snappy::compress(&request.encode_to_vec()).unwrap();
    let answer = adapter.post_write(content_type(Protocol::V1), &body).unwrap();
    assert_eq!(answer.status, 204, "{answer:?}");
    let page = adapter.get("/metrics");
    assert!(page.text().contains("kanyun_adapter_metadata_received_total 300\n"));

    for protocol in BOTH {
        let answer = adapter.write(protocol, &[]);
        assert_eq!(answer.status, 204, "{answer:?}");
        assert!(answer.body.is_empty());
        check_counts(&answer, protocol, 0);
    }
    let nothing = snappy::compress(b"").unwrap();
    for protocol in BOTH {
        assert_eq!(adapter.post_write(content_type(protocol), &nothing).unwrap().status, 204);
    }
}
