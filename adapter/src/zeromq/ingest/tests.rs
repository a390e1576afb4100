//! The door on a real socket, before a store that takes nothing for a while.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use serve::clock::Clock;
use tokio::sync::oneshot;
use zmq::{Context, DONTWAIT, POLLOUT, SNDMORE};

use super::*;
use crate::engine::Engine;
use crate::engine::tests::{NOW_MS, engine};
use crate::feed::Workers;
use crate::metrics::Metrics;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::TimeRange;

/// More than all buffers on the way hold, at 60 KB each.
const FAR_TOO_MANY: i64 = 2_000;

/// Pushes messages until nobody takes one for some seconds, and tells how many went; ends when all
/// of them have left.
fn push(address: &str, stuck: oneshot::Sender<i64>) {
    let context = Context::new();
    let socket = context.socket(zmq::PUSH).unwrap();
    socket.set_sndhwm(5).unwrap();
    socket.connect(address).unwrap();
    let mut sent = 0;
    while sent < FAR_TOO_MANY && socket.poll(POLLOUT, 5_000).unwrap() > 0 {
        let at = NOW_MS / 1000 - FAR_TOO_MANY + sent;
        let body = format!(r#"{{"i@h": [["cpu","total",[{at}, {sent}]]]{:60000}}}"#, "");
        socket.send("3", DONTWAIT | SNDMORE).unwrap();
        socket.send(&body, DONTWAIT).unwrap();
        sent += 1;
    }
    stuck.send(sent).unwrap();
}

async fn stored(engine: &Engine) -> usize {
    let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
    let count = |samples: &[Sample]| (samples.len(), 0);
    let found = engine.select(all, &[Matcher::not_equal("none", "x")], &count).await.unwrap();
    found.into_iter().map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_does_not_take_waits_with_the_worker() {
    let engine = Arc::new(engine().await);
    let metrics = Metrics::register(&mut Registry::default());
    let workers = Workers::new(Clock::fixed(NOW_MS), metrics.feed().clone());
    let ingest = Ingest::bind("tcp://127.0.0.1:0", &[]).await.unwrap();
    let address = format!("tcp://{}", ingest.bound.address());
    let (stop, shutdown) = Shutdown::manual();
    // All memory for writes is somebody else's.
    let taken = engine.admit(limits::WRITE_BYTES_IN_FLIGHT_MAX - 1024).unwrap();
    let open = ingest.open(Feed::new(Arc::clone(&engine), workers), shutdown).unwrap();
    let (stuck, told) = oneshot::channel();
    let pushing = tokio::task::spawn_blocking(move || push(&address, stuck));
    let sent = told.await.unwrap();
    assert!(sent < FAR_TOO_MANY, "the door takes messages without end");
    assert_eq!(stored(&engine).await, 0);
    drop(taken);
    pushing.await.unwrap();
    let all = async {
        while stored(&engine).await < usize::try_from(sent).unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(120), all).await.unwrap();
    assert_eq!(stored(&engine).await, usize::try_from(sent).unwrap());
    stop.request();
    open.finish(limits::WORKER_STOP_DEADLINE).await;
    assert_eq!(metrics.feed().waiting(), 0);
}

/// A stop does not wait for ever, and what was read and not stored is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_before_a_store_that_takes_nothing() {
    let engine = Arc::new(engine().await);
    let metrics = Metrics::register(&mut Registry::default());
    let workers = Workers::new(Clock::fixed(NOW_MS), metrics.feed().clone());
    let ingest = Ingest::bind("tcp://127.0.0.1:0", &[]).await.unwrap();
    let address = format!("tcp://{}", ingest.bound.address());
    let (stop, shutdown) = Shutdown::manual();
    let _taken = engine.admit(limits::WRITE_BYTES_IN_FLIGHT_MAX - 1024).unwrap();
    let mut open = ingest.open(Feed::new(Arc::clone(&engine), workers), shutdown).unwrap();
    let socket = Context::new().socket(zmq::PUSH).unwrap();
    socket.connect(&address).unwrap();
    let body = format!(r#"{{"i@h": [["cpu","total",[{}, 1]]]}}"#, NOW_MS / 1000);
    socket.send_multipart(["3", &*body], 0).unwrap();
    let read = async {
        while metrics.feed().waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        read = timeout(Duration::from_secs(120), read) => read.unwrap(),
        why = open.failed() => panic!("{why}"),
    }
    stop.request();
    open.finish(Duration::from_millis(100)).await;
    assert_eq!(metrics.feed().waiting(), 1);
    assert_eq!(stored(&engine).await, 0);
}
