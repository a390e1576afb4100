//! What a cluster's nodes do, as metrics: what they answer and how quickly, what was tried again, and
//! their clocks. They are there where the store is a cluster. Knows no driver and no row.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds, seconds: from a node on this machine to its own timeouts.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 6.0];

/// Handles of all families; cheap to clone. By default they are registered nowhere.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    seconds: Family<OfNode, Histogram, fn() -> Histogram>,
    failures: Family<OfNode, Counter>,
    speculative: Family<OfNode, Counter>,
    retries: Family<OfStatement, Counter>,
    given_up: Family<OfStatement, Counter>,
    connected: Family<OfNode, Gauge>,
    clock: Family<OfNode, Gauge<f64, std::sync::atomic::AtomicU64>>,
    connections: Family<OfState, Gauge>,
    connection_timeouts: Counter,
    request_timeouts: Counter,
    other_nodes: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfNode {
    node: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStatement {
    statement: &'static str,
}

impl Default for ClusterMetrics {
    fn default() -> ClusterMetrics {
        ClusterMetrics {
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            failures: Family::default(),
            speculative: Family::default(),
            retries: Family::default(),
            given_up: Family::default(),
            connected: Family::default(),
            clock: Family::default(),
            connections: Family::default(),
            connection_timeouts: Counter::default(),
            request_timeouts: Counter::default(),
            other_nodes: Counter::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

/// What the driver has counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Driven {
    /// Open connections.
    pub connections: u64,
    /// Connections that were not open in time.
    pub connection_timeouts: u64,
    /// Requests that were not answered in time.
    pub request_timeouts: u64,
    /// Requests that were made again at another node at once.
    pub other_nodes: u64,
}

/// A node as it was found at a look.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// Its address and port.
    pub node: String,
    /// Whether it is connected.
    pub is_connected: bool,
    /// Its clock less ours, seconds; `None` where it was not asked or did not answer.
    pub clock: Option<f64>,
}

impl ClusterMetrics {
    /// Registers all families.
    pub fn register(registry: &mut Registry) -> ClusterMetrics {
        let metrics = ClusterMetrics::default();
        let help = "How long a node took to answer a request, by node";
        let seconds = metrics.seconds.clone();
        registry.register_with_unit("cluster_request_duration", help, Unit::Seconds, seconds);
        let help = "Requests that a node answered with an error, or did not answer, by node";
        registry.register("cluster_request_failures", help, metrics.failures.clone());
        let help = "Requests that were made at another node as well because one had not answered for a second, by that one";
        let speculative = metrics.speculative.clone();
        registry.register("cluster_speculative_requests", help, speculative);
        let help = "Attempts that were made again, by what the statement is for";
        registry.register("cluster_retries", help, metrics.retries.clone());
        let help = "Statements that failed for good or until their deadline, by what they are for";
        registry.register("cluster_given_up", help, metrics.given_up.clone());
        let help = "Whether the adapter is connected to a node of its datacenter, by node";
        registry.register("cluster_node_connected", help, metrics.connected.clone());
        let help =
            "A node's clock less the adapter's, by node; half of the answer's way is taken off";
        let clock = metrics.clock.clone();
        registry.register_with_unit("cluster_clock_difference", help, Unit::Seconds, clock);
        let help = "Open connections to all nodes";
        registry.register("cluster_connections", help, metrics.connections.clone());
        let help = "Connections that were not open in time";
        registry.register("cluster_connection_timeouts", help, metrics.connection_timeouts.clone());
        let help = "Requests that a node did not answer in time";
        registry.register("cluster_request_timeouts", help, metrics.request_timeouts.clone());
        let help = "Requests that were made again at another node at once, before any pause";
        registry.register("cluster_other_nodes", help, metrics.other_nodes.clone());
        metrics
    }

    /// A node answered.
    pub fn answered(&self, node: String, took: Duration) {
        self.seconds.get_or_create(&OfNode { node }).observe(took.as_secs_f64());
    }

    /// A node failed to answer, or said that it failed.
    pub fn failed(&self, node: String) {
        self.failures.get_or_create(&OfNode { node }).inc();
    }

    /// A node has not answered for so long that another is asked as well.
    pub fn silent(&self, node: String) {
        self.speculative.get_or_create(&OfNode { node }).inc();
    }

    /// An attempt is made again.
    pub fn retried(&self, statement: &'static str) {
        self.retries.get_or_create(&OfStatement { statement }).inc();
    }

    /// No attempt is made any more.
    pub fn gave_up(&self, statement: &'static str) {
        self.given_up.get_or_create(&OfStatement { statement }).inc();
    }

    /// What the nodes are like now.
    pub fn looked(&self, nodes: &[NodeState]) {
        // A node that is gone leaves nothing behind.
        self.connected.clear();
        self.clock.clear();
        for state in nodes {
            let of_node = OfNode { node: state.node.clone() };
            self.connected.get_or_create(&of_node).set(i64::from(state.is_connected));
            if let Some(clock) = state.clock {
                self.clock.get_or_create(&of_node).set(clock);
            }
        }
    }

    /// What the driver counts by now.
    pub fn driven(&self, driven: Driven) {
        let open = i64::try_from(driven.connections).unwrap_or(i64::MAX);
        self.connections.get_or_create(&OfState { state: "open" }).set(open);
        for (counter, count) in [
            (&self.connection_timeouts, driven.connection_timeouts),
            (&self.request_timeouts, driven.request_timeouts),
            (&self.other_nodes, driven.other_nodes),
        ] {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
