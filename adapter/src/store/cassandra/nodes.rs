//! Which nodes were asked, how long they took and how they failed: around the driver's own choice of
//! nodes, so that an error names the node. Knows no statement.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use scylla::cluster::{ClusterState, NodeRef};
use scylla::errors::RequestAttemptError;
use scylla::policies::load_balancing::{
    DefaultPolicy, FallbackPlan, LoadBalancingPolicy, RoutingInfo,
};
use scylla::routing::Shard;

use crate::store::observed::ClusterMetrics;

tokio::task_local! {
    /// The nodes that were asked in this task, in order.
    static ASKED: RefCell<Vec<String>>;
}

/// Runs one attempt; gives also the nodes that were asked, where one was: a second is, where the first
/// does not answer.
pub(super) async fn asked<F: Future>(attempt: F) -> (F::Output, Option<String>) {
    let attempt = async {
        let answer = attempt.await;
        let asked = ASKED.with(|asked| asked.borrow().join(", "));
        (answer, (!asked.is_empty()).then_some(asked))
    };
    ASKED.scope(RefCell::default(), attempt).await
}

/// The driver's default, watched.
#[derive(Debug)]
pub(super) struct Watched {
    policy: Arc<dyn LoadBalancingPolicy>,
    metrics: ClusterMetrics,
}

impl Watched {
    /// The nodes of a datacenter, or of all.
    pub(super) fn new(datacenter: Option<&str>, metrics: ClusterMetrics) -> Watched {
        let policy = DefaultPolicy::builder();
        let policy = match datacenter {
            Some(datacenter) => policy.prefer_datacenter(datacenter.to_owned()),
            None => policy,
        };
        Watched { policy: policy.build(), metrics }
    }
}

fn note(node: NodeRef<'_>) {
    // Not within an attempt while the session is made.
    let name = node.address.to_string();
    let note = |asked: &RefCell<Vec<String>>| {
        let mut asked = asked.borrow_mut();
        if !asked.contains(&name) {
            asked.push(name);
        }
    };
    ASKED.try_with(note).ok();
}

impl LoadBalancingPolicy for Watched {
    fn pick<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> Option<(NodeRef<'a>, Option<Shard>)> {
        self.policy.pick(request, cluster).inspect(|(node, _)| note(node))
    }

    fn fallback<'a>(
        &'a self,
        request: &'a RoutingInfo<'_>,
        cluster: &'a ClusterState,
    ) -> FallbackPlan<'a> {
        Box::new(self.policy.fallback(request, cluster).inspect(|(node, _)| note(node)))
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
        self.metrics.failed(node.address.to_string());
        self.policy.on_request_failure(request, took, node, error);
    }

    fn name(&self) -> String {
        format!("Watched({})", self.policy.name())
    }
}
