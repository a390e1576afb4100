//! A message of a worker of 2012: decoded to sound samples, or refused; and all that is taken of it
//! can be stored, once, however often it comes.
#![no_main]

use std::sync::Arc;

use adapter::feed::{Feed, Workers};
use adapter::metrics::Metrics;
use adapter::worker::{Message, Refusals, decode};
use fuzz::{Adapter, NOW_MS};
use libfuzzer_sys::fuzz_target;
use prometheus_client::registry::Registry;
use serve::clock::Clock;
use tokio::sync::mpsc;

// The first byte is the type, the rest the body.
fuzz_target!(|message: &[u8]| {
    let (kind, body) = message.split_at(message.len().min(1));
    let frames = vec![kind.to_vec(), body.to_vec()];
    let (_, decoded) = decode(&frames, &mut Refusals::default());
    let Message::Points(points) = &decoded else { return };
    for point in points {
        let labels = point.labels();
        assert!(labels.is_sorted_by(|one, two| one.0 < two.0), "{labels:?}");
        assert!(labels.iter().all(|(_, value)| (1..=255).contains(&value.len())), "{labels:?}");
        assert!(point.sample.value.is_finite() && point.sample.value >= 0.0, "{point:?}");
        assert!(point.sample.timestamp_ms >= 0, "{point:?}");
    }
    let adapter = Adapter::new();
    feed(&adapter, &frames);
    let found = adapter.found();
    feed(&adapter, &frames);
    assert_eq!(adapter.found(), found);
});

fn feed(adapter: &Adapter, frames: &[Vec<u8>]) {
    let metrics = Metrics::register(&mut Registry::default());
    let workers = Workers::new(Clock::fixed(NOW_MS), metrics.feed().clone());
    let feed = Feed::new(Arc::clone(&adapter.engine), workers);
    adapter.run(async {
        let (sender, arriving) = mpsc::channel(1);
        let send = async move { sender.send(frames.to_vec()).await.unwrap() };
        tokio::join!(feed.run(arriving), send);
    });
}
