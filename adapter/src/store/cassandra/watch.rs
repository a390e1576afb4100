//! Looks at the cluster again and again: which nodes are connected, what their clocks say, what the
//! driver counts. Readiness rests on what was seen. Knows no rows.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use scylla::client::session::Session;
use scylla::cluster::Node;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use serve::clock::Clock;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Shared;
use crate::limits;
use crate::store::observed::{Driven, NodeState};

/// Looks until the store is dropped.
pub(super) async fn regularly(shared: Weak<Shared>) {
    let mut interval = interval(limits::CASSANDRA_LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        look(&shared).await;
    }
}

/// One look at every node of the datacenter.
pub(super) async fn look(shared: &Arc<Shared>) {
    let state = shared.session.get_cluster_state();
    let datacenter = shared.datacenter.as_deref();
    let in_use =
        |node: &&Arc<Node>| datacenter.is_none_or(|of| node.datacenter.as_deref() == Some(of));
    let mut nodes = Vec::new();
    for node in state.get_nodes_info().iter().filter(in_use) {
        let clock = if node.is_connected() { difference(shared, node).await } else { None };
        let (name, is_connected) = (node.address.to_string(), node.is_connected());
        nodes.push(NodeState { node: name, is_connected, clock });
    }
    let counted = shared.session.get_metrics();
    shared.metrics.looked(&nodes);
    shared.metrics.driven(Driven {
        connections: counted.get_total_connections(),
        connection_timeouts: counted.get_connection_timeouts(),
        request_timeouts: counted.get_request_timeouts(),
        other_nodes: counted.get_retries_num(),
    });
    let trouble = clock_trouble(&nodes);
    if let Some(trouble) = &trouble {
        tracing::warn!("{trouble}");
    }
    *shared.clock_trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
}

/// A node's clock less ours in seconds, if it answers.
async fn difference(shared: &Shared, node: &Arc<Node>) -> Option<f64> {
    let mut statement = shared.statements.leases.clock.statement.clone();
    let target = NodeIdentifier::Node(Arc::clone(node));
    let policy = SingleTargetLoadBalancingPolicy::new(target, None);
    statement.set_load_balancing_policy(Some(policy));
    let asked = asked_clock(&shared.session, &statement, &shared.clock);
    timeout(limits::CASSANDRA_ATTEMPT, asked).await.ok().flatten()
}

async fn asked_clock(
    session: &Session,
    statement: &PreparedStatement,
    clock: &Clock,
) -> Option<f64> {
    let begin = tokio::time::Instant::now();
    let answer = session.execute_unpaged(statement, ()).await.ok()?;
    let way: Duration = begin.elapsed() / 2;
    let now_ms = clock.now_ms();
    let (CqlTimestamp(theirs_ms),) = answer.into_rows_result().ok()?.first_row().ok()?;
    let difference_ms = theirs_ms.saturating_sub(now_ms);
    let difference = Duration::from_millis(difference_ms.unsigned_abs()).as_secs_f64();
    let difference = if difference_ms < 0 { -difference } else { difference };
    Some(difference + way.as_secs_f64())
}

/// What to say where most nodes' clocks differ from ours: one of them alone is its own fault, which
/// a metric shows.
fn clock_trouble(nodes: &[NodeState]) -> Option<String> {
    let is_off = |node: &&NodeState| {
        node.clock.is_some_and(|clock| clock.abs() >= limits::CLUSTER_CLOCK_DIFFERENCE_MAX)
    };
    let known = nodes.iter().filter(|node| node.clock.is_some()).count();
    let off: Vec<&NodeState> = nodes.iter().filter(is_off).collect();
    let first = off.first().filter(|_| off.len() * 2 > known)?;
    let seconds = first.clock.unwrap_or_default();
    let way = if seconds < 0.0 { "behind" } else { "ahead of" };
    Some(format!(
        "the clock of the Cassandra node {} is {:.0} s {way} ours: set the clocks by NTP, this \
         machine's or the cluster's",
        first.node,
        seconds.abs()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_clock_alone_is_the_nodes_own_fault() {
        let node =
            |name: &str, clock| NodeState { node: name.to_owned(), is_connected: true, clock };
        let nodes = [node("a:1", Some(-61.0)), node("b:1", Some(0.1)), node("c:1", None)];
        assert_eq!(clock_trouble(&nodes), None);
        let text = clock_trouble(&nodes[..1]).unwrap();
        assert!(text.contains("a:1 is 61 s behind ours"), "{text}");
        let text = clock_trouble(&[node("a:1", Some(60.0))]).unwrap();
        assert!(text.contains("60 s ahead of ours"), "{text}");
        assert_eq!(clock_trouble(&[node("a:1", Some(59.0))]), None);
        assert_eq!(clock_trouble(&[]), None);
    }
}
