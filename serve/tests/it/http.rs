//! Requests and what is answered.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use serve::answer::{Aborted, Answer, Refusal, end_of_stream};
use serve::call::Call;
use serve::exposition;
use serve::http::StatusCode;
use serve::routes::Routes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::running::{PATIENCE, Reply, Running, read_to_end};

const BODY_MAX: usize = 10;

fn routes() -> Routes {
    Routes::new()
        .get("/hello", async |_| Answer::text(StatusCode::OK, "hello\n"))
        .post("/hello", async |_| Answer::new(StatusCode::NO_CONTENT))
        .post("/length", async |call: Call| -> Result<Answer, Refusal> {
            let (_, bytes) = call.body(BODY_MAX).await?;
            Ok(Answer::text(StatusCode::OK, bytes.len().to_string()))
        })
        .get("/query", async |call: Call| {
            Answer::text(StatusCode::OK, call.query().unwrap_or("none").to_owned())
        })
        .get("/busy", async |_| Refusal::busy("full", Duration::from_secs(7)))
        .get("/panic", async |_: Call| -> Answer { panic!("a fault of the handler") })
        .get("/whole", async |_| {
            let (sender, receiver) = mpsc::channel(3);
            for frame in [Ok(Bytes::from("one ")), Ok(Bytes::from("two")), end_of_stream()] {
                sender.send(frame).await.unwrap();
            }
            Answer::stream(StatusCode::OK, "text/plain", receiver)
        })
        .get("/dropped", async |_| {
            let (sender, receiver) = mpsc::channel(1);
            sender.send(Ok(Bytes::from("one "))).await.unwrap();
            Answer::stream(StatusCode::OK, "text/plain", receiver)
        })
}

#[tokio::test]
async fn statuses_and_headers() {
    let running = Running::start(routes()).await;
    for (method, path, status, header, value) in [
        ("GET", "/hello", 200, "content-length", Some("6")),
        ("GET", "/hello", 200, "content-type", Some("text/plain; charset=utf-8")),
        ("HEAD", "/hello", 200, "content-length", Some("6")),
        ("GET", "/hello?a=b", 200, "content-length", Some("6")),
        ("POST", "/hello", 204, "content-type", None),
        ("DELETE", "/hello", 405, "allow", Some("GET, HEAD, POST")),
        ("GET", "/length", 405, "allow", Some("POST")),
        ("HEAD", "/length", 405, "allow", Some("POST")),
        ("POST", "/query", 405, "allow", Some("GET, HEAD")),
        ("GET", "/", 404, "allow", None),
        ("GET", "/hello/", 404, "allow", None),
        ("GET", "/busy", 503, "retry-after", Some("7")),
        ("GET", "/panic", 500, "retry-after", None),
        ("GET", "/-/healthy", 200, "retry-after", None),
        ("GET", "/-/ready", 200, "retry-after", None),
    ] {
        let reply = running.ask(method, path, &[]).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        assert_eq!(reply.header(header), value, "{method} {path}: {reply:?}");
        if method == "HEAD" {
            assert_eq!(reply.body, "", "{method} {path}");
        }
    }
    assert_eq!(running.ask("GET", "/query?a=%20b&c", &[]).await.body, "a=%20b&c");
    running.end().await.unwrap();
}

#[tokio::test]
async fn bodies_up_to_their_bound() {
    let running = Running::start(routes()).await;
    let post = |headers: &str, body: &str| {
        format!("POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n\r\n{body}")
    };
    for (headers, body, status, text) in [
        ("Content-Length: 10", "0123456789", 200, "10"),
        ("Content-Length: 0", "", 200, "0"),
        ("X-None: 1", "", 200, "0"),
        // Refused by its claim: no byte of the body is sent.
        ("Content-Length: 11", "", 413, "the request's body is larger than 10 bytes\n"),
        ("Content-Length: 99999999999", "", 413, "the request's body is larger than 10 bytes\n"),
        ("Transfer-Encoding: chunked", "4\r\nabcd\r\n6\r\nefghij\r\n0\r\n\r\n", 200, "10"),
        (
            "Transfer-Encoding: chunked",
            "4\r\nabcd\r\n7\r\nefghijk\r\n",
            413,
            "the request's body is larger than 10 bytes\n",
        ),
    ] {
        let reply = Reply::of(&running.raw(post(headers, body)).await);
        assert_eq!((reply.status, reply.body.as_str()), (status, text), "{headers} {body}");
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_cleanly_only_when_its_sender_says_so() {
    let running = Running::start(routes()).await;
    let whole = running.ask("GET", "/whole", &[]).await;
    assert_eq!(whole.body, "4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n");
    // Given up before the first byte was sent: the client sees no answer at all.
    assert!(!running.ask("GET", "/dropped", &[]).await.body.ends_with("0\r\n\r\n"));
    let head = running.ask("HEAD", "/whole", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    running.end().await.unwrap();
}

/// The client has the first part in hand when the sender gives up, by an error or by its end.
#[tokio::test]
async fn a_stream_that_is_given_up_half_way_is_seen_as_truncated() {
    for last in [Some(Err(Aborted)), None] {
        let (sender, receiver) = mpsc::channel(1);
        let receiver = Mutex::new(Some(receiver));
        let running = Running::start(Routes::new().get("/", move |_| {
            let frames = receiver.lock().unwrap().take().unwrap();
            std::future::ready(Answer::stream(StatusCode::OK, "text/plain", frames))
        }))
        .await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        sender.send(Ok(Bytes::from("one "))).await.unwrap();
        let mut text = String::new();
        while !text.ends_with("one \r\n") {
            let mut buffer = [0; 1000];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
            let count = read.unwrap().unwrap();
            assert!(count > 0, "{text}");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        if let Some(last) = last {
            sender.send(last).await.unwrap();
        }
        drop(sender);
        assert!(text.contains("200 OK") && text.contains("chunked"), "{text}");
        assert_eq!(read_to_end(stream).await, "", "no last chunk may follow");
        running.end().await.unwrap();
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let running = Running::start(routes()).await;
    for path in ["/hello", "/hello", "/dropped", "/some/where", "/else/where"] {
        running.ask("GET", path, &[]).await;
    }
    let page = |registry: &Arc<Registry>| {
        let head = http::Request::get("/metrics").body(()).unwrap().into_parts().0;
        let answer = exposition::page(registry, &head);
        String::from_utf8(answer.whole().unwrap().to_vec()).unwrap()
    };
    let text = page(&running.registry);
    let has = |line: &str| assert!(text.lines().any(|l| l.starts_with(line)), "{line}\n{text}");
    has("kanyun_http_requests_total{handler=\"/hello\",code=\"200\"} 2");
    has("kanyun_http_requests_total{handler=\"/dropped\",code=\"200\"} 1");
    has("kanyun_http_requests_total{handler=\"none\",code=\"404\"} 2");
    has("kanyun_http_request_duration_seconds_count{handler=\"/hello\"} 2");
    has("kanyun_http_requests_in_flight 0");
    has("kanyun_test_build_info{version=\"1.2.3\",revision=\"abc\"} 1");
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"] {
        has(&format!("process_{name} "));
    }
    let started = text.lines().find_map(|l| l.strip_prefix("process_start_time_seconds "));
    let started: f64 = started.unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((0.0..3600.0).contains(&(now.as_secs_f64() - started)), "{started}");
    running.end().await.unwrap();
}

#[tokio::test]
async fn heads_beyond_their_bound_are_refused() {
    let running = Running::start(routes()).await;
    let long = format!("X-Long: {}", "a".repeat(serve::limits::HEADER_BYTES_MAX));
    assert_eq!(running.ask("GET", "/hello", &[&long]).await.status, 431);
    let many = vec!["X-Many: 1"; serve::limits::HEADERS_MAX + 1];
    assert_eq!(running.ask("GET", "/hello", &many).await.status, 431);
    assert_eq!(Reply::of(&running.raw("hello?\r\n\r\n").await).status, 400);
    running.end().await.unwrap();
}
