//! Metrics of the workers of 2012: what they send, what is refused of it, who lives, and what waits
//! to be stored.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::worker::roster::Count;
use crate::worker::{Kind, Reason, Refusals};

/// Handles of all families; cheap to clone.
#[derive(Clone, Debug)]
pub struct FeedMetrics {
    messages: Family<OfType, Counter>,
    refused: Family<Refused, Counter>,
    workers: Family<InState, Gauge>,
    samples: Counter,
    waiting: Gauge,
    retries: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfType {
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

impl FeedMetrics {
    /// Registers all families.
    pub(super) fn register(registry: &mut Registry) -> FeedMetrics {
        let metrics = FeedMetrics {
            messages: Family::default(),
            refused: Family::default(),
            workers: Family::default(),
            samples: Counter::default(),
            waiting: Gauge::default(),
            retries: Counter::default(),
        };
        let help = "Messages of workers of 2012 that were read, by type";
        registry.register("worker_messages", help, metrics.messages.clone());
        let help = "Values, records, guests, messages and connections of workers that were refused for good, by reason";
        registry.register("worker_refused", help, metrics.refused.clone());
        let help = "Workers that were heard and did not take their leave: heard in the last 120 s, or silent for longer";
        registry.register("workers", help, metrics.workers.clone());
        let help = "Samples of workers that are durable";
        registry.register("worker_samples", help, metrics.samples.clone());
        let help = "Messages of workers that were read and are not stored yet";
        registry.register("worker_messages_waiting", help, metrics.waiting.clone());
        let help = "Writes of workers' samples that the store did not take and that were tried again; nothing is read meanwhile";
        registry.register("worker_retries", help, metrics.retries.clone());
        // All are there from the start: a counter that appears with its first event has no increase.
        for kind in Kind::ALL {
            drop(metrics.messages.get_or_create(&OfType { r#type: kind.name() }));
        }
        for reason in Reason::ALL {
            drop(metrics.refused.get_or_create(&Refused { reason: reason.name() }));
        }
        metrics.workers(Count::default());
        metrics
    }

    /// A message was read, and waits.
    pub fn arrived(&self) {
        self.waiting.inc();
    }

    /// A message was taken apart.
    pub fn decoded(&self, kind: Kind) {
        self.messages.get_or_create(&OfType { r#type: kind.name() }).inc();
    }

    /// What came of so many messages is durable.
    pub fn settled(&self, messages: usize) {
        self.waiting.dec_by(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Messages that were read and are not stored.
    pub fn waiting(&self) -> i64 {
        self.waiting.get()
    }

    /// Samples are durable.
    pub fn written(&self, samples: usize) {
        self.samples.inc_by(samples as u64);
    }

    /// Something was refused.
    pub fn refused(&self, refusals: &Refusals) {
        for (reason, count) in refusals.counts() {
            self.refused.get_or_create(&Refused { reason: reason.name() }).inc_by(count);
        }
    }

    /// A write was not taken and is tried again.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Who lives, at the last look.
    pub fn workers(&self, count: Count) {
        for (state, count) in [("alive", count.alive), ("dead", count.dead)] {
            let gauge = self.workers.get_or_create(&InState { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
