//! What a network and a busy node do to a statement, by a proxy between the driver and a real node:
//! frames that are dropped and delayed, and errors in place of answers.

use scylla_proxy::{
    Condition, Node as Proxied, Proxy, Reaction as _, RequestOpcode, RequestReaction, RequestRule,
    RunningProxy, ShardAwareness, example_db_errors as errors,
};

use super::*;

/// The shared node behind a proxy, and the address of that.
pub(crate) async fn behind_proxy(node: &Node) -> (RunningProxy, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let real = node.address.parse().unwrap();
    let proxied = Proxied::new(real, free, ShardAwareness::Unaware, None, None);
    (Proxy::new([proxied]).run().await.unwrap(), free.to_string())
}

/// What befalls the next writes of a payload, so many times.
fn befalls(payload: &str, times: usize, reaction: RequestReaction) -> Vec<RequestRule> {
    let condition = Condition::RequestOpcode(RequestOpcode::Execute)
        .and(Condition::BodyContainsCaseSensitive(payload.as_bytes().into()))
        .and(Condition::TrueForLimitedTimes(times));
    vec![RequestRule(condition, reaction)]
}

/// The node fails at every read of one partition of `row_keys`, as at a damaged file.
pub(crate) fn damaged_row_keys(week: Week, shard: u8) -> Vec<RequestRule> {
    damaged([&[0, 0, 0, 4][..], &week.0.to_be_bytes(), &[0, 0, 0, 2, 0, shard]].concat())
}

/// And of one partition of `late_windows`.
pub(crate) fn damaged_late_windows(shard: u8, hour: Hour) -> Vec<RequestRule> {
    damaged([&[0, 0, 0, 2, 0, shard, 0, 0, 0, 4][..], &hour.0.to_be_bytes()].concat())
}

/// And of that of `sealing` that says which hours of arrival are done with.
pub(crate) fn damaged_late_marks() -> Vec<RequestRule> {
    damaged(marks(leases::LATE))
}

/// And of that which says how far sealing is.
pub(crate) fn damaged_sealing() -> Vec<RequestRule> {
    damaged(marks(leases::SEALED))
}

/// The one value of a SELECT, which is all that a partition of marks is asked by.
fn marks(part: i32) -> Vec<u8> {
    [&[0, 1, 0, 0, 0, 4][..], &part.to_be_bytes()].concat()
}

fn damaged(values: Vec<u8>) -> Vec<RequestRule> {
    let condition = Condition::RequestOpcode(RequestOpcode::Execute)
        .and(Condition::BodyContainsCaseSensitive(values.into()));
    vec![RequestRule(condition, RequestReaction::forge_with_error(errors::read_failure()))]
}

#[tokio::test]
async fn passing_faults_cost_time_and_nothing_else() {
    let Some(node) = node().await else { return };
    let (mut proxy, address) = behind_proxy(node).await;
    let attempt = Duration::from_secs(2);
    let settings = CassandraSettings { nodes: vec![address], attempt, ..settings(node, "faults") };
    let store = open(settings).await;
    let now_ms = Clock::system().now_ms();
    let hour = Hour::of(now_ms);
    let faults: Vec<(&'static str, RequestReaction)> = vec![
        ("write-timeout", RequestReaction::forge_with_error(errors::write_timeout())),
        ("overloaded", RequestReaction::forge_with_error(errors::overloaded())),
        ("unavailable", RequestReaction::forge_with_error(errors::unavailable())),
        ("server-error", RequestReaction::forge_with_error(errors::server_error())),
        ("dropped", RequestReaction::drop_frame()),
        ("delayed", RequestReaction::delay(Duration::from_secs(3))),
        ("cut-off", RequestReaction::drop_connection()),
    ];
    for (number, (name, reaction)) in faults.into_iter().enumerate() {
        proxy.running_nodes[0].change_request_rules(Some(befalls(name, 3, reaction)));
        let group = u64::try_from(number).unwrap();
        let head = vec![head_row(group, now_ms, Bytes::from_static(name.as_bytes()))];
        let written = store.append(Rows { head, ..Rows::default() }).await;
        written.unwrap_or_else(|error| panic!("{name}: {error}"));
        proxy.running_nodes[0].change_request_rules(None);
        let read = store.head(Group(group), (hour, hour), 9).await.unwrap();
        assert_eq!(read, [name.as_bytes()], "{name}");
    }

    // One that does not pass is said, with the node and its own words.
    let refused = RequestReaction::forge_with_error(errors::unauthorized());
    proxy.running_nodes[0].change_request_rules(Some(befalls("refused", 1, refused)));
    let head = vec![head_row(99, now_ms, Bytes::from_static(b"refused"))];
    let error = store.append(Rows { head, ..Rows::default() }).await.unwrap_err().to_string();
    assert!(error.contains("writing samples in Cassandra: node 127.0.0.1:"), "{error}");
    drop(store);
    // The driver's connections end after this.
    proxy.finish().await.ok();
}
