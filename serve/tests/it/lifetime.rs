//! How connections and the service begin and end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serve::answer::Answer;
use serve::http::StatusCode;
use serve::limits::Limits;
use serve::routes::Routes;
use serve::server::{BindError, ServeError, Server};
use serve::sockets::Sockets;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::running::{PATIENCE, Reply, Running, flags, read_to_end};

const GET: &str = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";

fn hello() -> Routes {
    Routes::new().get("/hello", async |_| Answer::text(StatusCode::OK, "hello"))
}

/// A route that says when it was reached and answers when it is told to.
fn held() -> (Routes, Arc<Notify>, Arc<Notify>) {
    let (reached, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&reached), Arc::clone(&release));
    let routes = hello().get("/held", move |_| {
        let (tell, wait) = (Arc::clone(&tell), Arc::clone(&wait));
        async move {
            tell.notify_one();
            wait.notified().await;
            Answer::text(StatusCode::OK, "at last")
        }
    });
    (routes, reached, release)
}

async fn connect(running: &Running, request: &str) -> TcpStream {
    connect_to(running.address, request).await
}

async fn connect_to(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

const HELD: &str = "GET /held HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_running_request_is_finished_and_no_new_one_is_taken() {
    let (routes, reached, release) = held();
    let running = Running::start(routes).await;
    let stream = connect(&running, HELD).await;
    reached.notified().await;
    running.stop.request();
    // The listener goes before the requests do.
    let refused = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(!running.ended.is_finished());
    release.notify_one();
    let reply = Reply::of(&read_to_end(stream).await);
    assert_eq!((reply.status, reply.body.as_str()), (200, "at last"));
    tokio::time::timeout(PATIENCE, running.ended).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let running = Running::start(hello()).await;
    let silent = connect(&running, "").await;
    let mut kept = connect(&running, GET).await;
    let mut buffer = [0; 1000];
    assert!(kept.read(&mut buffer).await.unwrap() > 0);
    let started = Instant::now();
    running.end().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop((silent, kept));
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off_and_reported() {
    let limits = Limits { drain_timeout: Duration::from_millis(100), ..Limits::default() };
    let (routes, reached, _release) = held();
    let running = Running::with(routes, limits, None).await;
    let stream = connect(&running, HELD).await;
    reached.notified().await;
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, ServeError::Unfinished { connections: 1, .. }), "{error}");
    assert_eq!(read_to_end(stream).await, "");
}

#[tokio::test]
async fn a_second_stop_signal_does_not_wait() {
    let (routes, reached, _release) = held();
    let running = Running::start(routes).await;
    let _stream = connect(&running, HELD).await;
    reached.notified().await;
    running.stop.request();
    let error = running.end().await.unwrap_err();
    assert!(matches!(error, ServeError::Unfinished { connections: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_slow_head_is_dropped_the_first_one_and_a_later_one() {
    let limits = Limits { header_read_timeout: Duration::from_millis(200), ..Limits::default() };
    let running = Running::with(hello(), limits, None).await;
    for begun in ["", "GET /hello HTTP/1.1\r\nHo"] {
        let started = Instant::now();
        let text = read_to_end(connect(&running, begun).await).await;
        assert!(!text.contains("200 OK"), "{text}");
        assert!(started.elapsed() >= limits.header_read_timeout);
    }
    // A kept-alive connection may be idle for longer than a head may take ...
    let mut stream = connect(&running, GET).await;
    let mut buffer = [0; 1000];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    tokio::time::sleep(2 * limits.header_read_timeout).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    // ... but the head must come at once when it has begun.
    stream.write_all(b"GET").await.unwrap();
    let text = read_to_end(stream).await;
    assert!(!text.contains("200 OK"), "{text}");
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_told_to_come_again() {
    let limits = Limits { request_timeout: Duration::from_millis(100), ..Limits::default() };
    let (routes, _reached, _release) = held();
    let running = Running::with(routes, limits, None).await;
    let reply = running.ask("GET", "/held", &[]).await;
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    running.end().await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let (routes, reached, release) = held();
    let running = Running::with(routes, limits, None).await;
    let first = connect(&running, &HELD.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    reached.notified().await;
    let mut second = connect(&running, GET).await;
    let mut buffer = [0; 1000];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut buffer)).await;
    assert!(early.is_err(), "the second connection was served at the same time");
    release.notify_one();
    assert!(read_to_end(first).await.ends_with("at last"));
    let count = tokio::time::timeout(PATIENCE, second.read(&mut buffer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&buffer[..count]).ends_with("hello"));
    running.end().await.unwrap();
}

/// Whether an address of IPv6 is there, which not every machine has; says so where it is left out.
fn can_bind(address: &str) -> bool {
    let bound = std::net::TcpListener::bind(address);
    bound.inspect_err(|error| eprintln!("left out: {address} cannot be bound: {error}")).is_ok()
}

async fn bind(addresses: &str) -> Result<Server, BindError> {
    Server::bind(&flags(addresses, None), Sockets::none()).await
}

async fn refused(addresses: &str) -> BindError {
    bind(addresses).await.unwrap_err()
}

#[tokio::test]
async fn every_address_is_served_within_the_limits_of_one_service() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let (routes, reached, release) = held();
    let third = if can_bind("[::1]:0") { "[::1]:0" } else { "127.0.0.3:0" };
    let given = format!("127.0.0.1:0,127.0.0.2:0,{third}");
    let running = Running::listening(&given, (routes, limits, None)).await;
    let addresses = running.addresses.clone();
    let any_port = |address: &SocketAddr| SocketAddr::new(address.ip(), 0).to_string();
    assert_eq!(addresses.iter().map(any_port).collect::<Vec<_>>().join(","), given);
    let request = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    for _ in 0..3 {
        for address in &addresses {
            let text = read_to_end(connect_to(*address, &request).await).await;
            assert!(text.ends_with("hello"), "{address}: {text}");
        }
    }
    // One connection in all: who comes by another address waits as well.
    let slow = HELD.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let first = connect_to(addresses[1], &slow).await;
    reached.notified().await;
    let mut second = connect_to(addresses[2], &request).await;
    let mut buffer = [0; 1000];
    let early = tokio::time::timeout(Duration::from_millis(200), second.read(&mut buffer)).await;
    assert!(early.is_err(), "the second connection was served at the same time");
    release.notify_one();
    assert!(read_to_end(first).await.ends_with("at last"));
    assert!(read_to_end(second).await.ends_with("hello"));
    running.end().await.unwrap();
    for address in addresses {
        assert!(TcpStream::connect(address).await.is_err(), "{address} is still there");
    }
}

/// A crowd that fills the queue of one address does not keep the others waiting for ever.
#[tokio::test]
async fn addresses_take_turns() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let (routes, reached, release) = held();
    let running = Running::listening("127.0.0.1:0,127.0.0.2:0", (routes, limits, None)).await;
    let slow = HELD.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut crowd = Vec::new();
    for _ in 0..6 {
        crowd.push(connect_to(running.addresses[0], &slow).await);
    }
    let request = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let other = connect_to(running.addresses[1], &request).await;
    // The third of the crowd is held now: whoever comes by the other address was before it.
    reached.notified().await;
    for _ in 0..2 {
        release.notify_one();
        reached.notified().await;
    }
    assert!(read_to_end(other).await.ends_with("hello"));
    for _ in 0..3 {
        release.notify_one();
        reached.notified().await;
    }
    release.notify_one();
    for one in crowd {
        assert!(read_to_end(one).await.ends_with("at last"));
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn all_addresses_or_none() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let error = refused(&format!("{free},{taken}")).await;
    assert!(matches!(&error, BindError::Taken { address } if *address == taken.to_string()));
    assert!(TcpStream::connect(free).await.is_err(), "the first one is listened on");
    drop(held);
    // Two that are the same, or of which one has the other's connections.
    let port = taken.port();
    let every = if can_bind("[::]:0") { "[::]" } else { "0.0.0.0" };
    for (addresses, text) in [
        (
            format!("{taken},{taken}"),
            format!("{taken} cannot be listened on beside {taken}, which"),
        ),
        (
            format!(":{port},{taken}"),
            format!("{taken} cannot be listened on beside {every}:{port}"),
        ),
        (format!("{taken},:{port}"), format!("address :{port} cannot be listened on beside")),
    ] {
        let error = refused(&addresses).await;
        assert!(matches!(error, BindError::Twice { .. }), "{addresses}: {error}");
        assert!(error.to_string().contains(&text), "{addresses}: {error}");
    }
    let error = refused(&format!("{free},nonsense")).await;
    assert!(matches!(&error, BindError::Unusable { address, .. } if address == "nonsense"));
    let error = Server::check(&flags(&format!("{free},nonsense"), None)).await.unwrap_err();
    assert!(matches!(&error, BindError::Unusable { address, .. } if address == "nonsense"));
}

#[tokio::test]
async fn without_sockets_of_systemds_nothing_is_served() {
    let mut flags = flags("127.0.0.1:0", None);
    flags.systemd_socket = true;
    let error = Server::bind(&flags, Sockets::none()).await.unwrap_err().to_string();
    assert!(error.contains("--web.systemd-socket") && error.contains("socket unit"), "{error}");
    // Whoever checks settings by hand was not started by systemd.
    Server::check(&flags).await.unwrap();
}

#[tokio::test]
async fn unusable_addresses_are_named() {
    let running = Running::start(hello()).await;
    let taken = running.address.to_string();
    let error = refused(&taken).await.to_string();
    let expected = format!(
        "address {taken} is taken by another process; choose another with --web.listen-address"
    );
    assert_eq!(error, expected);
    for bad in ["nonsense", "127.0.0.1:99999", "192.0.2.1:1"] {
        let error = refused(bad).await.to_string();
        assert!(error.starts_with(&format!("cannot listen on {bad} (--web.listen-")), "{error}");
    }
    // A port alone is all interfaces.
    let everywhere = bind(":0").await.unwrap().local_addresses()[0];
    assert!(everywhere.ip().is_unspecified(), "{everywhere}");
    running.end().await.unwrap();
}
