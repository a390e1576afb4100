//! Looks at the cluster again and again: which nodes answer, what their clocks say, what the driver
//! counts. Readiness rests on what was seen, and whether our clock may be trusted. Knows no rows.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use scylla::client::session::Session;
use scylla::cluster::{ClusterState, Node};
use scylla::frame::response::result::TableSpec;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use serve::clock::Clock;
use tokio::time::{sleep, timeout};

use super::{Agreement, Shared, neighbours};
use crate::limits;
use crate::store::observed::{Driven, NodeState};

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What the cluster's clocks said, if any did.
    clock: Option<TheirClock>,
    /// Which rows cannot be written; none where all can.
    no_quorum: Option<String>,
    /// Who else writes, and need not see what this process does.
    neighbour: Option<String>,
    /// When this process last began to say that it is there, and then saw who else is.
    met: Option<Instant>,
    /// Whether that matters: replicas are in several datacenters.
    is_spread: bool,
}

/// A node's clock, which the driver's machine counts on from.
#[derive(Clone, Debug)]
struct TheirClock {
    node: String,
    unix_ms: i64,
    at: Instant,
}

impl Seen {
    /// Why nothing may be written.
    pub(super) fn trouble(&self, clock: &Clock, most: Duration) -> Option<String> {
        let neighbour = || self.neighbour.clone().or_else(|| self.unseen());
        self.clock_trouble(clock, most).or_else(neighbour)
    }

    /// Why others may not count this process, or it not them: so long ago did they meet, also because
    /// it slept since.
    fn unseen(&self) -> Option<String> {
        let since = self.met.map(|met| met.elapsed());
        let is_counted = since.is_some_and(|since| since < limits::CASSANDRA_UNSEEN_MAX);
        (self.is_spread && !is_counted).then(|| neighbours::unseen(since))
    }

    /// Why nothing may be written by our clock: the cluster's, counted on since the last look, differs
    /// by this or more. So a clock that jumps is seen at once.
    fn clock_trouble(&self, clock: &Clock, most: Duration) -> Option<String> {
        let theirs = self.clock.as_ref()?;
        let elapsed_ms = i64::try_from(theirs.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        let difference_ms =
            theirs.unix_ms.saturating_add(elapsed_ms).saturating_sub(clock.now_ms());
        let seconds = Duration::from_millis(difference_ms.unsigned_abs());
        (seconds >= most).then(|| {
            let way = if difference_ms < 0 { "behind" } else { "ahead of" };
            format!(
                "the clock of the Cassandra node {} is {} s {way} ours: set the clocks by NTP, this \
                 machine's or the cluster's; nothing is written or sealed meanwhile",
                theirs.node,
                seconds.as_secs()
            )
        })
    }

    /// Why some rows cannot be written, whatever our clock.
    pub(super) fn no_quorum(&self) -> Option<&String> {
        self.no_quorum.as_ref()
    }
}

/// Looks until the store is dropped.
pub(super) async fn regularly(shared: Weak<Shared>) {
    loop {
        let Some(pause) = shared.upgrade().map(|shared| shared.pause()) else { return };
        sleep(pause).await;
        let Some(shared) = shared.upgrade() else { return };
        look(&shared).await;
    }
}

impl Shared {
    /// Until the next look.
    fn pause(&self) -> Duration {
        let seen = self.seen();
        let trouble = seen.trouble(&self.clock, self.clock_difference_max);
        if seen.no_quorum.is_none() && trouble.is_none() {
            limits::CASSANDRA_LOOK_INTERVAL
        } else {
            limits::CASSANDRA_LOOK_AGAIN
        }
    }

    // Held for single steps, none of which can panic half way.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at every node that has replicas which count, and at who else works on them.
pub(super) async fn look(shared: &Arc<Shared>) {
    let state = shared.session.get_cluster_state();
    let datacenter = shared.counted_datacenter();
    let in_use =
        |node: &&Arc<Node>| datacenter.is_none_or(|of| node.datacenter.as_deref() == Some(of));
    let asked = state.get_nodes_info().iter().filter(in_use).map(async |node| {
        let clock = if node.is_connected() { difference(shared, node).await } else { None };
        if clock.is_some() {
            shared.suspects.clear(node);
        }
        let (name, is_connected) = (node.address.to_string(), node.is_connected());
        NodeState { node: name, is_connected, clock }
    });
    let begun = Instant::now();
    let (nodes, neighbour) = tokio::join!(join_all(asked), neighbours::look(shared));
    let counted = shared.session.get_metrics();
    shared.metrics.looked(&nodes);
    shared.metrics.driven(Driven {
        connections: counted.get_total_connections(),
        connection_timeouts: counted.get_connection_timeouts(),
        request_timeouts: counted.get_request_timeouts(),
        other_nodes: counted.get_retries_num(),
    });
    let answering = |node: &Arc<Node>| {
        let name = node.address.to_string();
        nodes.iter().any(|state| state.node == name && state.clock.is_some())
    };
    let no_quorum = no_quorum(shared, &state, answering);
    let mut seen = shared.seen();
    seen.no_quorum = no_quorum;
    seen.is_spread = neighbours::are_spread(shared);
    match neighbour {
        Ok(neighbour) => (seen.neighbour, seen.met) = (neighbour, Some(begun)),
        Err(error) => tracing::warn!(%error, "who else works on the keyspace is not known"),
    }
    if let Some(node) = typical(&nodes) {
        let difference_ms = (node.clock.unwrap_or_default() * 1000.0).round();
        // A difference of clocks in milliseconds is exact and fits.
        #[expect(clippy::cast_possible_truncation, reason = "saturates at both ends")]
        let unix_ms = shared.clock.now_ms().saturating_add(difference_ms as i64);
        seen.clock = Some(TheirClock { node: node.node.clone(), unix_ms, at: Instant::now() });
    }
    let clock = seen.clock_trouble(&shared.clock, shared.clock_difference_max);
    let unseen = seen.unseen();
    for trouble in seen.no_quorum.iter().chain(&clock).chain(&seen.neighbour).chain(&unseen) {
        tracing::warn!("{trouble}");
    }
}

/// Which rows cannot be written: those of token ranges of whose replicas too few answer.
fn no_quorum(
    shared: &Shared,
    state: &ClusterState,
    answering: impl Fn(&Arc<Node>) -> bool,
) -> Option<String> {
    let keyspace = state.get_keyspace(&shared.keyspace)?;
    let table = TableSpec::borrowed(&shared.keyspace, "head");
    let (locator, datacenter) = (state.replica_locator(), shared.counted_datacenter());
    let mut ranges = 0;
    let mut silent = BTreeSet::new();
    for (token, _) in locator.ring().iter() {
        let replicas = locator.replicas_for_token(*token, &keyspace.strategy, datacenter, &table);
        let (mut all, mut missing) = (0, Vec::new());
        for (replica, _) in replicas {
            all += 1;
            if !answering(replica) {
                missing.push(replica.address.to_string());
            }
        }
        let needed = if shared.agreement == Agreement::All { all } else { all / 2 + 1 };
        // Of a strategy that the driver does not know nothing is said.
        if all > 0 && all - missing.len() < needed {
            ranges += 1;
            silent.extend(missing);
        }
    }
    if ranges == 0 {
        return None;
    }
    let silent: Vec<String> = silent.into_iter().collect();
    Some(format!(
        "too few replicas of {ranges} of {} token ranges answer: start the Cassandra nodes that are \
         down, or see why they hang: {}",
        locator.ring().len(),
        silent.join(", ")
    ))
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

/// The node whose clock is taken for the cluster's: the nearest to ours that half of them are as near
/// as. One clock alone is its node's own fault, which a metric shows.
fn typical(nodes: &[NodeState]) -> Option<&NodeState> {
    let mut known: Vec<&NodeState> = nodes.iter().filter(|node| node.clock.is_some()).collect();
    let away = |node: &NodeState| node.clock.unwrap_or_default().abs();
    known.sort_by(|a, b| away(a).total_cmp(&away(b)));
    known.get(known.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, clock: Option<f64>) -> NodeState {
        NodeState { node: name.to_owned(), is_connected: true, clock }
    }

    #[test]
    fn one_clock_alone_is_the_nodes_own_fault() {
        let nodes = [node("a:1", Some(-61.0)), node("b:1", Some(0.1)), node("c:1", None)];
        assert_eq!(typical(&nodes).unwrap().node, "b:1");
        let nodes = [node("a:1", Some(-61.0)), node("b:1", Some(0.1)), node("c:1", Some(-62.0))];
        assert_eq!(typical(&nodes).unwrap().node, "a:1");
        assert_eq!(typical(&nodes[..1]).unwrap().node, "a:1");
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn who_was_not_seen_for_a_minute_may_not_know_of_a_process() {
        let clock = Clock::fixed(1_700_000_000_000);
        let trouble = |seen: &Seen| seen.trouble(&clock, Duration::from_mins(1));
        let ago = |time| Instant::now().checked_sub(time);
        let mut seen = Seen { is_spread: true, ..Seen::default() };
        assert!(trouble(&seen).unwrap().contains("has not been known yet"), "{seen:?}");
        seen.met = ago(limits::CASSANDRA_UNSEEN_MAX / 2);
        assert_eq!(trouble(&seen), None);
        seen.met = ago(limits::CASSANDRA_UNSEEN_MAX);
        assert!(trouble(&seen).unwrap().contains("has not been known for 60 s"), "{seen:?}");
        seen.is_spread = false;
        assert_eq!(trouble(&seen), None, "all replicas are in one datacenter");
    }

    #[test]
    fn a_clock_that_jumps_is_seen_at_once() {
        const MINUTE: Duration = Duration::from_mins(1);
        let begin_ms = 1_700_000_000_000;
        let clock = Clock::fixed(begin_ms);
        let theirs = TheirClock { node: "a:1".to_owned(), unix_ms: begin_ms, at: Instant::now() };
        let seen = Seen { clock: Some(theirs), ..Seen::default() };
        assert_eq!(seen.clock_trouble(&clock, MINUTE), None);
        clock.set(begin_ms + 86_400_000);
        let text = seen.clock_trouble(&clock, MINUTE).unwrap();
        // A moment passes: 86,400 or a second less.
        assert!(text.contains("a:1 is 86") && text.contains("s behind ours"), "{text}");
        clock.set(begin_ms - 61_000);
        let text = seen.clock_trouble(&clock, MINUTE).unwrap();
        assert!(text.contains("s ahead of ours"), "{text}");
        assert_eq!(Seen::default().clock_trouble(&clock, MINUTE), None, "nothing is known");
    }
}
