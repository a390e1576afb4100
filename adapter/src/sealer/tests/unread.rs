//! What an operator is told where a real cluster cannot read one shard's list of what came late, or
//! how far sealing is: all the rest, and what is missing; and no figure that was right before.

use prometheus_client::encoding::text::encode;

use super::shared::{send_and_seal, two, until};
use super::*;
use crate::status::{Status, Unreadable};
use crate::store::cassandra::CassandraSettings;
use crate::store::cassandra::tests::faults::{
    behind_proxy, damaged_late_marks, damaged_late_windows, damaged_sealing,
};
use crate::store::cassandra::tests::{node, settings};

/// An operator's view of one adapter.
struct Seen {
    works: Works,
    registry: Registry,
}

impl Seen {
    fn new(mut works: Works) -> Seen {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let engine = Arc::clone(&works.engine);
        works.sealer = Sealer::new(engine, works.clock.clone(), metrics, PAUSE);
        Seen { works, registry }
    }

    /// Passes, those that lost a shard to their own slowness among them, until the gauges say so.
    async fn until_gauges(&self, wanted: [Option<i64>; 4]) {
        until(&format!("gauges are {wanted:?}"), async || {
            self.works.sealer.pass().await.ok();
            self.gauges() == wanted
        })
        .await;
    }

    async fn status(&self) -> Status {
        let engine = Arc::clone(&self.works.engine);
        let clock = self.works.clock.clone();
        Observer::new(engine, clock, "1", "cassandra".to_owned()).status().await
    }

    /// What a gauge says.
    fn gauge(&self, name: &str) -> Option<i64> {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        assert!(page.contains("kanyun_adapter_"), "{page}");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|figure| figure.parse().unwrap())
    }

    fn gauges(&self) -> [Option<i64>; 4] {
        [
            "seal_lag_seconds",
            "unsealed_from_timestamp_seconds",
            "late_waiting_seconds",
            "late_windows",
        ]
        .map(|name| self.gauge(&format!("kanyun_adapter_{name}")))
    }
}

fn parts(unreadable: &[Unreadable]) -> Vec<&str> {
    assert!(unreadable.iter().all(|one| one.why.contains("in Cassandra")), "{unreadable:?}");
    unreadable.iter().map(|one| one.part.as_str()).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_hides_nothing_else() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let (mut proxy, address) = behind_proxy(node).await;
    let settings = CassandraSettings { nodes: vec![address], ..settings(node, "unread") };
    let [a, _] = Box::pin(two(&settings, begin)).await;
    let seen = Seen::new(a);
    let (engine, clock) = (&seen.works.engine, &seen.works.clock);
    let all = scrapes(begin, begin + HOUR_MS);
    let (first, second) = all.split_at(120);
    send_and_seal(&seen.works, first, begin).await;
    send(&seen.works, second).await;
    let late = engine.late_page(None, None).await.unwrap();
    let shard = u8::try_from(late[0].group.0 % 16).unwrap();
    let other = (shard + 1) % 16;
    let now_ms = begin + 3 * HOUR_MS;
    assert_eq!(clock.now_ms(), now_ms);
    // What came late came a moment ago, so that it is not sealed yet.
    let unsealed = engine.first_unsealed().await.unwrap().first.start_ms();
    let well = [Some(0), Some(unsealed / 1000), Some(0), Some(1)];
    seen.until_gauges(well).await;

    // Of a shard in which nothing waits, and of that in which something does.
    for (bad, read) in [(other, 1), (shard, 0)] {
        let rules = damaged_late_windows(bad, Hour::of(now_ms));
        proxy.running_nodes[0].change_request_rules(Some(rules));
        let Status { sealing, unreadable, .. } = seen.status().await;
        assert_eq!(parts(&unreadable), [format!("what came late to shard {bad}")]);
        assert_eq!((sealing.late_windows, sealing.late_windows_read), (None, read));
        assert_eq!(sealing.late_from, (read == 1).then(|| instant::format(begin)));
        assert_eq!(sealing.unsealed_from, Some(instant::format(unsealed)));
        assert_eq!(sealing.lag_seconds, Some(0));
        seen.until_gauges([well[0], well[1], well[2], None]).await;
    }

    proxy.running_nodes[0].change_request_rules(Some(damaged_late_marks()));
    seen.works.sealer.report_lag().await.unwrap_err();
    assert_eq!(seen.gauges()[..3], [well[0], well[1], None]);

    proxy.running_nodes[0].change_request_rules(Some(damaged_sealing()));
    let Status { sealing, unreadable, .. } = seen.status().await;
    assert_eq!(parts(&unreadable), ["how far sealing is"]);
    assert_eq!((sealing.lag_seconds, sealing.unsealed_from), (None, None));
    assert_eq!((sealing.late_windows, sealing.late_windows_read), (Some(1), 1));
    seen.works.sealer.report_lag().await.unwrap_err();
    assert_eq!(seen.gauges()[..3], [None, None, well[2]]);

    // It is not taken to be well for ever: so long it was not known.
    let both = [damaged_sealing(), damaged_late_marks()].concat();
    proxy.running_nodes[0].change_request_rules(Some(both));
    clock.set(begin + 4 * DAY_MS);
    seen.works.sealer.report_lag().await.unwrap_err();
    let labels = [(METRIC_NAME, "m"), ("uuid", "u2")];
    let mut batch = engine.batch();
    batch.add(None, &labels, &[sample(begin + 4 * DAY_MS, 1.0)]);
    let refused = engine.append(batch, crate::engine::tests::ticket(engine)).await.unwrap_err();
    assert!(refused.to_string().contains("sealing is 93 h behind"), "{refused}");

    proxy.running_nodes[0].change_request_rules(None);
    assert_eq!(seen.status().await.unreadable, []);
    seen.works.sealer.report_lag().await.unwrap();
    assert!(seen.gauges()[..3].iter().all(Option::is_some), "{:?}", seen.gauges());
    drop(seen);
    // The driver's connections end after this.
    proxy.finish().await.ok();
}
