//! Reads over a store in memory: memory or disk, the answer is the same, and a read that is given
//! up gives everything back.

use std::num::NonZeroI64;

use prometheus_client::registry::Registry;
use prost::Message;

use super::room::Sizes;
use super::*;
use crate::engine::tests::{NOW_MS, engine, write};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::wire::messages;

const AMPLE: Sizes = Sizes { step: 1 << 20, least: 4, most: 32, shared: 96, disk: 64 };
const SCARCE: Sizes = Sizes { step: 1 << 10, least: 1, most: 4, shared: 8, disk: 1 << 16 };

/// Guests with some series each, a sample a minute over some days.
async fn filled() -> Arc<Engine> {
    let engine = engine().await;
    for guest in 0..20u32 {
        let of_metric = |metric: u32| {
            let labels =
                [(METRIC_NAME, &*format!("m{metric}")), ("uuid", &*format!("guest {guest}"))];
            let samples = (0..600u32).map(|n| Sample {
                timestamp_ms: NOW_MS - i64::from(600 - n) * 600_000,
                value: f64::from(n * guest + metric).sqrt(),
                start_ms: NonZeroI64::new(1),
            });
            (Labels::new(labels), samples.collect::<Vec<_>>())
        };
        write(&engine, &(0..5).map(of_metric).collect::<Vec<_>>()).await;
    }
    Arc::new(engine)
}

fn reader(engine: &Arc<Engine>, sizes: Sizes) -> (tempfile::TempDir, Reader) {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let room = Room::sized(folder.path().to_owned(), metrics.clone(), sizes);
    (folder, Reader::new(Arc::clone(engine), metrics, room))
}

/// Several queries for everything, or for nothing.
fn body(names: &[&str], types: &[i32]) -> Vec<u8> {
    let query = |name: &&str| messages::Query {
        start_timestamp_ms: 0,
        end_timestamp_ms: NOW_MS,
        matchers: vec![messages::LabelMatcher {
            r#type: 2,
            name: METRIC_NAME.to_owned(),
            value: (*name).to_owned(),
        }],
        hints: None,
    };
    let request = messages::ReadRequest {
        queries: names.iter().map(query).collect(),
        accepted_response_types: types.to_vec(),
    };
    snappy::compress(&request.encode_to_vec()).unwrap()
}

async fn bytes(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Sampled(bytes) => bytes.to_vec(),
        Answer::Streamed(mut frames) => {
            let mut all = Vec::new();
            while let Some(frame) = frames.next().await {
                all.extend(frame.unwrap());
            }
            all
        }
    }
}

#[tokio::test]
async fn an_answer_is_the_same_wherever_it_waited() {
    let engine = filled().await;
    for types in [[0], [1]] {
        let body = body(&["m.*", "nothing", "m3", "m.*"], &types);
        let mut answers = Vec::new();
        for sizes in [AMPLE, SCARCE] {
            let (_folder, reader) = reader(&engine, sizes);
            let answer = reader.read(&body).await.unwrap();
            if let Answer::Streamed(_) = answer {
                let on_disk = reader.room.free().1 < sizes.disk;
                assert_eq!(on_disk, sizes.step == SCARCE.step);
            }
            answers.push(bytes(answer).await);
            assert_eq!(reader.room.free(), (sizes.shared, sizes.disk));
            assert_eq!(reader.slots.free(), limits::READS_IN_FLIGHT_MAX);
        }
        assert!(answers[0].len() > 100_000, "{} bytes", answers[0].len());
        assert_eq!(answers[0], answers[1]);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_its_first_frame() {
    let engine = filled().await;
    let (_folder, reader) = reader(&engine, Sizes { disk: 8, ..SCARCE });
    let refused = reader.read(&body(&["m.*"], &[1])).await;
    assert!(matches!(refused, Err(QueryError::TryAgain(_))), "{refused:?}");
    assert_eq!(reader.room.free(), (SCARCE.shared, 8));
    assert_eq!(reader.slots.free(), limits::READS_IN_FLIGHT_MAX);
}

/// Given up when it has a temporary file and is not whole yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_given_up_gives_everything_back() {
    let engine = filled().await;
    let (folder, reader) = reader(&engine, SCARCE);
    let names = ["m.*"; 64];
    let body = body(&names, &[1]);
    {
        let mut read = Box::pin(reader.read(&body));
        while reader.room.free().1 == SCARCE.disk {
            let polled = futures_util::poll!(read.as_mut());
            assert!(polled.is_pending(), "a read of 64 queries is not whole with its first run");
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.slots.free(), limits::READS_IN_FLIGHT_MAX - 1);
    }
    assert_eq!(reader.slots.free(), limits::READS_IN_FLIGHT_MAX);
    while reader.room.free() != (SCARCE.shared, SCARCE.disk) {
        tokio::task::yield_now().await;
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// As above, but for a client that goes away in the middle of its answer.
#[tokio::test]
async fn an_answer_that_is_given_up_gives_everything_back() {
    let engine = filled().await;
    let (_folder, reader) = reader(&engine, SCARCE);
    let Answer::Streamed(mut frames) = reader.read(&body(&["m.*"], &[1])).await.unwrap() else {
        panic!("a streamed answer was asked for");
    };
    frames.next().await.unwrap().unwrap();
    assert_eq!(reader.room.free().0, SCARCE.shared, "a spilled answer holds no memory");
    assert!(reader.room.free().1 < SCARCE.disk);
    assert_eq!(reader.slots.free(), limits::READS_IN_FLIGHT_MAX - 1);
    drop(frames);
    assert_eq!(reader.room.free(), (SCARCE.shared, SCARCE.disk));
    assert_eq!(reader.slots.free(), limits::READS_IN_FLIGHT_MAX);
}
