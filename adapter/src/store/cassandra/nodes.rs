//! Which nodes were asked, how long they took and how they failed: around the driver's own choice of
//! nodes, so that an error names the node. Knows no statement.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use scylla::cluster::{ClusterState, Node, NodeRef};
use scylla::errors::{RequestAttemptError, RequestError};
use scylla::observability::history::{AttemptId, HistoryListener, RequestId, SpeculativeId};
use scylla::policies::load_balancing::{
    DefaultPolicy, FallbackPlan, LoadBalancingPolicy, RoutingInfo,
};
use scylla::policies::retry::RetryDecision;
use scylla::routing::Shard;

use crate::store::observed::ClusterMetrics;

tokio::task_local! {
    /// The nodes that were asked in this task, in order.
    static ASKED: RefCell<Vec<Asked>>;
}

struct Asked {
    name: String,
    /// What it listens on at another port, for one of its cores, is it too.
    ip: IpAddr,
    /// Whether anything was sent to it: one without a connection is passed over.
    is_sent: bool,
    has_failed: bool,
}

/// Runs one attempt; gives also the nodes that were asked, where one was: a second is, where the first
/// does not answer.
pub(super) async fn asked<F: Future>(attempt: F) -> (F::Output, Option<String>) {
    let attempt = async {
        let answer = attempt.await;
        let name = |asked: &Asked| asked.name.clone();
        let asked: Vec<String> = ASKED.with(|asked| asked.borrow().iter().map(name).collect());
        (answer, (!asked.is_empty()).then(|| asked.join(", ")))
    };
    ASKED.scope(RefCell::default(), attempt).await
}

/// Nodes that did not answer in a second, and are asked last until they do: a node that hangs would cost
/// every statement that second, until its connections are given up.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects(Arc<Mutex<BTreeSet<String>>>);

impl Suspects {
    /// It has answered.
    pub(super) fn clear(&self, node: &Node) {
        if self.locked().remove(&node.address.to_string()) {
            tracing::info!(node = %node.address, "the Cassandra node answers again");
        }
    }

    fn add_those_asked(&self) {
        // Not within an attempt while the session is made.
        let silent = ASKED.try_with(|asked| {
            let asked = asked.borrow();
            let silent = asked.iter().filter(|asked| !asked.has_failed);
            silent.map(|asked| asked.name.clone()).collect::<Vec<_>>()
        });
        for node in silent.unwrap_or_default() {
            if self.locked().insert(node.clone()) {
                tracing::warn!(node, "the Cassandra node does not answer; others are asked first");
            }
        }
    }

    fn holds(&self, node: NodeRef<'_>) -> bool {
        let suspects = self.locked();
        !suspects.is_empty() && suspects.contains(&node.address.to_string())
    }

    // Held for single steps, none of which can panic half way.
    fn locked(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's default, watched.
#[derive(Debug)]
pub(super) struct Watched {
    policy: Arc<dyn LoadBalancingPolicy>,
    suspects: Suspects,
    metrics: ClusterMetrics,
}

impl Watched {
    /// The nodes of a datacenter, or of all.
    pub(super) fn new(
        datacenter: Option<&str>,
        suspects: Suspects,
        metrics: ClusterMetrics,
    ) -> Watched {
        let policy = DefaultPolicy::builder();
        let policy = match datacenter {
            Some(datacenter) => policy.prefer_datacenter(datacenter.to_owned()),
            None => policy,
        };
        Watched { policy: policy.build(), suspects, metrics }
    }

    /// In the driver's order, but for those that do not answer.
    fn others<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> impl Iterator<Item = (NodeRef<'a>, Option<Shard>)> {
        let nodes: Vec<_> = self.policy.fallback(request, cluster).collect();
        let (suspect, good): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|(node, _)| self.suspects.holds(node));
        good.into_iter().chain(suspect)
    }
}

fn note(node: NodeRef<'_>) {
    let name = node.address.to_string();
    let note = |asked: &RefCell<Vec<Asked>>| {
        let mut asked = asked.borrow_mut();
        if asked.iter().all(|one| one.name != name) {
            asked.push(Asked { name, ip: node.address.ip(), is_sent: false, has_failed: false });
        }
    };
    ASKED.try_with(note).ok();
}

fn note_failure(node: NodeRef<'_>) {
    let name = node.address.to_string();
    let note = |asked: &RefCell<Vec<Asked>>| {
        let mut asked = asked.borrow_mut();
        let of_node = asked.iter_mut().filter(|one| one.name == name);
        of_node.for_each(|one| one.has_failed = true);
    };
    ASKED.try_with(note).ok();
}

/// Counts the requests that are made at a second node and a third: the driver tells it alone which they
/// are.
#[derive(Debug)]
pub(super) struct Speculation(pub(super) ClusterMetrics);

impl HistoryListener for Speculation {
    fn log_request_start(&self) -> RequestId {
        RequestId(0)
    }

    fn log_request_success(&self, _: RequestId) {}

    fn log_request_error(&self, _: RequestId, _: &RequestError) {}

    fn log_new_speculative_fiber(&self, _: RequestId) -> SpeculativeId {
        SpeculativeId(0)
    }

    fn log_attempt_start(
        &self,
        _: RequestId,
        speculative: Option<SpeculativeId>,
        node: SocketAddr,
    ) -> AttemptId {
        let sent = |asked: &RefCell<Vec<Asked>>| {
            let mut asked = asked.borrow_mut();
            let mut before = asked.iter().filter(|one| one.is_sent && one.ip != node.ip());
            let silent = before.rfind(|one| !one.has_failed).map(|one| one.name.clone());
            let of_node = asked.iter_mut().filter(|one| one.ip == node.ip());
            of_node.for_each(|one| one.is_sent = true);
            silent
        };
        let silent = ASKED.try_with(sent).ok().flatten();
        if let (Some(silent), Some(_)) = (silent, speculative) {
            self.0.silent(silent);
        }
        AttemptId(0)
    }

    fn log_attempt_success(&self, _: AttemptId) {}

    fn log_attempt_error(&self, _: AttemptId, _: &RequestAttemptError, _: &RetryDecision) {}
}

impl LoadBalancingPolicy for Watched {
    fn pick<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> Option<(NodeRef<'a>, Option<Shard>)> {
        let picked = self.policy.pick(request, cluster);
        let is_suspect = picked.is_some_and(|(node, _)| self.suspects.holds(node));
        let other = is_suspect.then(|| self.others(request, cluster).next()).flatten();
        other.or(picked).inspect(|(node, _)| note(node))
    }

    fn fallback<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> FallbackPlan<'a> {
        // Asked for when the first has failed, or has been silent for too long.
        self.suspects.add_those_asked();
        Box::new(self.others(request, cluster).inspect(|(node, _)| note(node)))
    }

    fn on_request_success(&self, request: &RoutingInfo<'_>, took: Duration, node: NodeRef<'_>) {
        self.metrics.answered(node.address.to_string(), took);
        self.policy.on_request_success(request, took, node);
    }

    fn on_request_failure(
        &self,
        request: &RoutingInfo<'_>,
        took: Duration,
        node: NodeRef<'_>,
        error: &RequestAttemptError,
    ) {
        note_failure(node);
        self.metrics.failed(node.address.to_string());
        self.policy.on_request_failure(request, took, node, error);
    }

    fn name(&self) -> String {
        format!("Watched({})", self.policy.name())
    }
}
