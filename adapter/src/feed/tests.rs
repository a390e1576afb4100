//! What the feed stores, and what it does while it cannot, on a store in memory.

mod month;

use prometheus_client::registry::Registry;

use super::*;
use crate::engine::layout::Layout;
use crate::engine::tests::KEEPING;
use crate::metrics::Metrics;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::{DAY_MS, TimeRange};
use crate::store::Store;
use crate::store::memory::Memory;
use crate::worker::roster::Status;

const NOW_S: i64 = 1_700_000_040;

struct Fed {
    engine: Arc<Engine>,
    clock: Clock,
    workers: Workers,
    registry: Registry,
}

impl Fed {
    async fn new() -> Fed {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let layout = Layout::new(vec!["uuid".into()], 7200);
        let (store, clock) = (Store::Memory(Memory::new()), Clock::fixed(NOW_S * 1000));
        let engine = Engine::start(store, &layout, KEEPING, clock.clone(), metrics.clone());
        let workers = Workers::new(clock.clone(), metrics.feed().clone());
        Fed { engine: Arc::new(engine.await.unwrap()), clock, workers, registry }
    }

    fn feed(&self) -> Feed {
        Feed::new(Arc::clone(&self.engine), self.workers.clone())
    }

    /// Feeds messages until all of them are stored.
    async fn feed_all(&self, messages: &[(&str, &str)]) {
        let (sender, arriving) = mpsc::channel(limits::WORKER_MESSAGES_WAITING_MAX);
        let feed = tokio::spawn(self.feed().run(arriving));
        for message in messages {
            sender.send(frames(message)).await.unwrap();
        }
        drop(sender);
        feed.await.unwrap();
    }

    async fn stored(&self) -> Vec<String> {
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let copy = |samples: &[Sample]| (samples.to_vec(), 0);
        let none = [Matcher::not_equal("none", "x")];
        let found = self.engine.select(all, &none, &copy).await.unwrap();
        let line = |(labels, samples): (crate::model::labels::Labels, Vec<Sample>)| {
            let samples = samples.iter().map(|s| format!("{}@{}", s.value, s.timestamp_ms / 1000));
            format!("{labels:?} {}", samples.collect::<Vec<_>>().join(" "))
        };
        found.into_iter().map(line).collect()
    }

    fn metric(&self, name: &str) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let name = format!("kanyun_adapter_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
    }
}

fn frames((kind, body): &(&str, &str)) -> Frames {
    vec![kind.as_bytes().to_vec(), body.as_bytes().to_vec()]
}

#[tokio::test]
async fn a_minute_of_a_worker_and_the_same_again() {
    let fed = Fed::new().await;
    let info = format!(
        r#"{{"i-1@h": [["cpu","total",[{NOW_S}, 12.5]], ["nic","vnet0",[{NOW_S}, 7, 8]]]}}"#
    );
    let traffic = format!(r#"{{"1@h": ["10.0.0.2", {NOW_S}, "9"]}}"#);
    let minute = [("0", r#"["w", 1, 1]"#), ("3", &*info), ("2", &*traffic), ("1", ""), ("x", "")];
    fed.feed_all(&minute).await;
    let job = r#"job="kanyun-worker""#;
    let expected = [
        format!(r#"{{__name__="kanyun_cpu_percent", domain="i-1", host="h", {job}}} 12.5@{NOW_S}"#),
        format!(
            r#"{{__name__="kanyun_nic_incoming_bytes_total", domain="i-1", host="h", {job}, target_device="vnet0"}} 7@{NOW_S}"#
        ),
        format!(
            r#"{{__name__="kanyun_nic_outgoing_bytes_total", domain="i-1", host="h", {job}, target_device="vnet0"}} 8@{NOW_S}"#
        ),
        format!(
            r#"{{__name__="kanyun_vmnetwork_bytes", domain="instance-00000001", host="h", ip="10.0.0.2", {job}}} 9@{NOW_S}"#
        ),
    ];
    assert_eq!(fed.stored().await, expected);
    fed.feed_all(&minute).await;
    assert_eq!(fed.stored().await, expected);
    for (name, value) in [
        (r#"worker_messages_total{type="heartbeat"}"#, "2"),
        (r#"worker_messages_total{type="vm_info"}"#, "2"),
        (r#"worker_messages_total{type="traffic"}"#, "2"),
        (r#"worker_messages_total{type="local_info"}"#, "2"),
        (r#"worker_messages_total{type="unknown"}"#, "2"),
        ("worker_samples_total", "8"),
    ] {
        assert_eq!(fed.metric(name), value, "{name}");
    }
    let listed = fed.workers.list();
    assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["w"]);
}

/// The same judgement as over remote_write.
#[tokio::test]
async fn times_that_are_not_taken() {
    let fed = Fed::new().await;
    let ahead = NOW_S + limits::AHEAD_MS_MAX / 1000;
    let old = NOW_S - 393 * DAY_MS / 1000;
    let cpu = |time: i64| format!(r#"["cpu","total",[{time}, 1]]"#);
    let records = [ahead, ahead + 1, old, NOW_S].map(cpu).join(",");
    fed.feed_all(&[("3", &format!(r#"{{"i@h": [{records}]}}"#))]).await;
    let labels = r#"{__name__="kanyun_cpu_percent", domain="i", host="h", job="kanyun-worker"}"#;
    assert_eq!(fed.stored().await, [format!("{labels} 1@{NOW_S} 1@{ahead}")]);
    assert_eq!(fed.metric(r#"worker_refused_total{reason="ahead"}"#), "1");
    assert_eq!(fed.metric(r#"worker_refused_total{reason="too_old"}"#), "1");
}

#[tokio::test]
async fn more_samples_than_one_write_takes() {
    let fed = Fed::new().await;
    let count = limits::WORKER_WRITE_SAMPLES_MAX + 1;
    let guests = (0..count).map(|n| format!(r#""i{n}@h": [["cpu","total",[{NOW_S}, {n}]]]"#));
    let body = format!("{{{}}}", guests.collect::<Vec<_>>().join(","));
    fed.feed_all(&[("3", &body)]).await;
    assert_eq!(fed.stored().await.len(), count);
}

/// What was read waits, nothing more is taken, no worker dies of it, and then all of it is stored.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_makes_the_feed_wait() {
    let fed = Fed::new().await;
    let (sender, arriving) = mpsc::channel(limits::WORKER_MESSAGES_WAITING_MAX);
    let feed = tokio::spawn(fed.feed().run(arriving));
    sender.send(frames(&("0", r#"["w", 1, 1]"#))).await.unwrap();
    let taken = fed.engine.admit(limits::WRITE_BYTES_IN_FLIGHT_MAX - 1024).unwrap();
    let body = |n: i64| format!(r#"{{"i@h": [["cpu","total",[{}, {n}]]]}}"#, NOW_S + n);
    // More than are gathered and wait: the last ones find no place.
    let (mut sent, metrics) = (0, fed.workers.metrics.clone());
    while let Ok(Ok(permit)) =
        tokio::time::timeout(Duration::from_secs(300), sender.reserve()).await
    {
        permit.send(frames(&("3", &body(sent))));
        metrics.arrived();
        sent += 1;
        // The time within which messages are gathered passes.
        sleep(Duration::from_millis(1)).await;
        assert!(sent < 1000, "the feed takes messages without end");
    }
    assert!(sent >= i64::try_from(limits::WORKER_MESSAGES_WAITING_MAX).unwrap(), "{sent}");
    assert!(fed.stored().await.is_empty());
    assert_ne!(fed.metric("worker_retries_total"), "0");
    assert_eq!(fed.metric("worker_messages_waiting"), sent.to_string());
    fed.clock.set((NOW_S + 600) * 1000);
    assert!(fed.workers.list().iter().all(|worker| worker.status == Status::Alive));
    drop(taken);
    drop(sender);
    feed.await.unwrap();
    let stored = fed.stored().await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(stored[0].matches('@').count(), usize::try_from(sent).unwrap(), "{stored:?}");
    assert_eq!(fed.metric("worker_samples_total"), sent.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_silent_and_one_that_leaves() {
    let fed = Fed::new().await;
    let (sender, arriving) = mpsc::channel(limits::WORKER_MESSAGES_WAITING_MAX);
    let feed = tokio::spawn(fed.feed().run(arriving));
    for body in [r#"["silent", 1, 1]"#, r#"["leaving", 1, 1]"#, r#"["leaving", 2, 0]"#] {
        sender.send(frames(&("0", body))).await.unwrap();
    }
    sleep(limits::WORKER_LOOK_INTERVAL * 2).await;
    assert_eq!(fed.metric(r#"workers{state="alive"}"#), "1");
    fed.clock.set(NOW_S * 1000 + limits::WORKER_SILENT_MS_MAX);
    sleep(limits::WORKER_LOOK_INTERVAL * 2).await;
    assert_eq!(fed.metric(r#"workers{state="alive"}"#), "0");
    assert_eq!(fed.metric(r#"workers{state="dead"}"#), "1");
    sender.send(frames(&("0", r#"["silent", 3, 1]"#))).await.unwrap();
    sleep(limits::WORKER_LOOK_INTERVAL * 2).await;
    assert_eq!(fed.metric(r#"workers{state="dead"}"#), "0");
    drop(sender);
    feed.await.unwrap();
}
