//! What is taken, what is refused and what the sender is told, on a store in memory.

use prometheus_client::registry::Registry;
use prost::Message;
use serve::clock::Clock;

use super::*;
use crate::engine::layout::Layout;
use crate::engine::tests::KEEPING;
use crate::model::matcher::Matcher;
use crate::model::time::{DAY_MS, TimeRange};
use crate::store::Store;
use crate::store::memory::Memory;
use crate::wire::messages;

const NOW_MS: i64 = 1_700_000_000_000;

async fn writer() -> Writer {
    let metrics = Metrics::register(&mut Registry::default());
    let layout = Layout::new(vec!["uuid".into()], 7200);
    let store = Store::Memory(Memory::new());
    let engine = Engine::start(store, &layout, KEEPING, Clock::fixed(NOW_MS), metrics.clone())
        .await
        .unwrap();
    Writer::new(Arc::new(engine), metrics)
}

fn series(labels: &[(&str, &str)], times: &[i64]) -> messages::TimeSeries {
    let samples =
        times.iter().map(|timestamp| messages::Sample { value: 1.0, timestamp: *timestamp });
    messages::TimeSeries {
        labels: messages::labels(labels),
        samples: samples.collect(),
        ..Default::default()
    }
}

async fn send(writer: &Writer, timeseries: Vec<messages::TimeSeries>) -> Verdict {
    let request = messages::WriteRequest { timeseries, ..Default::default() };
    let body = snappy::compress(&request.encode_to_vec()).unwrap();
    let ticket = writer.admit(body.len()).unwrap();
    writer.write(Protocol::V1, &body, ticket).await
}

async fn stored(writer: &Writer) -> Vec<String> {
    let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
    let count = |samples: &[Sample]| (samples.len(), 0);
    let read = writer
        .engine
        .select::<usize>(all, &[Matcher::not_equal("none", "x")], &count)
        .await
        .unwrap();
    read.into_iter().map(|(labels, samples)| format!("{labels:?} {samples}")).collect()
}

#[tokio::test]
async fn labels_are_made_canonical() {
    let writer = writer().await;
    let sent = vec![
        series(&[("job", "a"), ("__name__", "up"), ("empty", "")], &[NOW_MS]),
        series(&[("__name__", "up"), ("job", "a")], &[NOW_MS + 1]),
    ];
    let verdict = send(&writer, sent).await;
    assert_eq!(verdict, Verdict { samples_written: 2, outcome: Outcome::Stored });
    assert_eq!(stored(&writer).await, [r#"{__name__="up", job="a"} 2"#]);
}

#[tokio::test]
async fn the_valid_rest_is_stored_and_the_text_says_what_is_wrong() {
    let writer = writer().await;
    let long = "x".repeat(limits::LABEL_VALUE_BYTES_MAX + 1);
    let sent = vec![
        series(
            &[("__name__", "up")],
            &[NOW_MS, NOW_MS - 393 * DAY_MS, NOW_MS + limits::AHEAD_MS_MAX + 1],
        ),
        series(&[("job", "nameless")], &[NOW_MS]),
        series(&[("__name__", "")], &[NOW_MS]),
        series(&[("__name__", "up"), ("", "x")], &[NOW_MS]),
        series(&[("__name__", "up"), ("a", "1"), ("a", "2")], &[NOW_MS, NOW_MS]),
        series(&[("__name__", "up"), ("a", &long)], &[NOW_MS]),
    ];
    let Verdict { samples_written: 1, outcome: Outcome::Refused(text) } = send(&writer, sent).await
    else {
        panic!("one sample is valid")
    };
    for part in [
        "stored 1 samples",
        "2 samples: no metric name",
        "1 samples: an empty label name",
        "2 samples: a label name twice (first: {__name__=\"up\", a=\"1\", a=\"2\"})",
        "1 samples: a label value of more than 4096 bytes",
        "1 samples: older than the retention allows",
        "1 samples: more than 10 minutes ahead",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(text.len() < 1024, "{} bytes", text.len());
    assert_eq!(stored(&writer).await.len(), 1);
}

#[tokio::test]
async fn a_sender_whose_clock_is_ahead_is_told_to_wait_and_loses_nothing() {
    let writer = writer().await;
    let ahead = NOW_MS + limits::AHEAD_MS_MAX + 1;
    let sent = vec![series(&[("__name__", "up")], &[NOW_MS, ahead, ahead + 1])];
    let verdict = send(&writer, sent).await;
    assert!(
        matches!(verdict, Verdict { samples_written: 0, outcome: Outcome::TryAgain(..) }),
        "{verdict:?}"
    );
    assert!(stored(&writer).await.is_empty());
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_the_senders_fault() {
    let writer = writer().await;
    for body in [&b""[..], b"\xff\xff\xff\xff\x0f", b"\x04\x0c\xff\xff\xff\xff"] {
        let ticket = writer.admit(body.len()).unwrap();
        let verdict = writer.write(Protocol::V1, body, ticket).await;
        assert!(
            matches!(verdict, Verdict { samples_written: 0, outcome: Outcome::Refused(_) }),
            "{verdict:?}"
        );
    }
}

#[tokio::test]
async fn memory_is_asked_for_before_it_is_spent() {
    let writer = writer().await;
    let sent = || vec![series(&[("__name__", "up")], &[NOW_MS])];
    let taken = writer.admit(limits::WRITE_BYTES_IN_FLIGHT_MAX - (8 << 10)).unwrap();
    assert!(writer.admit(limits::BODY_BYTES_MAX).is_none());
    let many: Vec<_> = (0..1000)
        .map(|n| series(&[("__name__", "up"), ("n", &n.to_string())], &[NOW_MS]))
        .collect();
    let verdict = send(&writer, many.clone()).await;
    assert!(
        matches!(verdict, Verdict { samples_written: 0, outcome: Outcome::TryAgain(..) }),
        "{verdict:?}"
    );
    assert_eq!(send(&writer, sent()).await.outcome, Outcome::Stored);
    drop(taken);
    assert_eq!(send(&writer, many).await.outcome, Outcome::Stored);
    // All of it comes back, however a request ended.
    assert!(writer.admit(limits::WRITE_BYTES_IN_FLIGHT_MAX - (1 << 10)).is_some());
}
