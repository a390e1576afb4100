//! The adapter's own metrics, beside those that `serve` keeps for HTTP and the process.
//! Names and meanings are generated into docs/metrics.md by a test.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Handles of all families; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples_written: Counter,
    refused: Family<Refused, Counter>,
    metadata: Counter,
    requests_ahead: Counter,
    commit_seconds: Histogram,
    commit_samples: Counter,
    commit_failures: Counter,
    head_rows: Counter,
    index_rows: Counter,
    queries: Family<Queries, Counter>,
    read_series: Counter,
    expired: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    reason: Reason,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Queries {
    outcome: &'static str,
}

/// Why something that was sent was not stored.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Labels that break the protocol or a bound, or a series without samples.
    InvalidSeries,
    /// A sample of an hour that is frozen or expired.
    TooOld,
    /// A sample too far ahead of our clock.
    Ahead,
    /// A native histogram; they are not stored.
    Histogram,
    /// An exemplar; they are not stored.
    Exemplar,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            Reason::InvalidSeries => "invalid_series",
            Reason::TooOld => "too_old",
            Reason::Ahead => "ahead",
            Reason::Histogram => "histogram",
            Reason::Exemplar => "exemplar",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl Metrics {
    /// Registers all families.
    pub fn register(registry: &mut Registry) -> Metrics {
        // From a commit in a page cache to one at the write deadline.
        let buckets =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0];
        let metrics = Metrics {
            samples_written: Counter::default(),
            refused: Family::default(),
            metadata: Counter::default(),
            requests_ahead: Counter::default(),
            commit_seconds: Histogram::new(buckets),
            commit_samples: Counter::default(),
            commit_failures: Counter::default(),
            head_rows: Counter::default(),
            index_rows: Counter::default(),
            queries: Family::default(),
            read_series: Counter::default(),
            expired: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("kanyun_adapter");
        registry.register(
            "samples_written",
            "Float samples that were acknowledged as durable",
            metrics.samples_written.clone(),
        );
        registry.register(
            "refused",
            "Samples, histograms, exemplars and series that were refused for good (400), by reason",
            metrics.refused.clone(),
        );
        registry.register(
            "metadata_received",
            "Entries of metadata in remote_write 1.0 requests, which are accepted and not stored",
            metrics.metadata.clone(),
        );
        registry.register(
            "requests_ahead",
            "Write requests answered 503 because most of their samples were ahead of our clock",
            metrics.requests_ahead.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "Time from the begin of a group commit until it was durable",
            Unit::Seconds,
            metrics.commit_seconds.clone(),
        );
        registry.register(
            "commit_samples",
            "Samples in durable group commits, repeated ones included",
            metrics.commit_samples.clone(),
        );
        registry.register(
            "commit_failures",
            "Group commits that failed; their senders were answered 503",
            metrics.commit_failures.clone(),
        );
        registry.register(
            "head_rows",
            "Rows of packed samples that were stored",
            metrics.head_rows.clone(),
        );
        registry.register(
            "index_rows",
            "Series that were written into the index of a week",
            metrics.index_rows.clone(),
        );
        registry.register("queries", "Queries of remote_read, by outcome", metrics.queries.clone());
        registry.register(
            "read_series",
            "Series that remote_read returned",
            metrics.read_series.clone(),
        );
        registry.register(
            "expired",
            "Days of heads and weeks of index that were dropped after their retention",
            metrics.expired.clone(),
        );
        metrics
    }

    /// Samples were acknowledged.
    pub fn written(&self, samples: u64) {
        self.samples_written.inc_by(samples);
    }

    /// Something was refused for good.
    pub fn refused(&self, reason: Reason, count: u64) {
        self.refused.get_or_create(&Refused { reason }).inc_by(count);
    }

    /// Metadata came and was not stored.
    pub fn metadata(&self, entries: u64) {
        self.metadata.inc_by(entries);
    }

    /// Most of a request was ahead of our clock.
    pub fn request_ahead(&self) {
        self.requests_ahead.inc();
    }

    /// A commit is durable.
    pub fn committed(&self, took: Duration, samples: usize, head_rows: usize, index_rows: usize) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.commit_samples.inc_by(samples as u64);
        self.head_rows.inc_by(head_rows as u64);
        self.index_rows.inc_by(index_rows as u64);
    }

    /// A commit failed.
    pub fn commit_failed(&self) {
        self.commit_failures.inc();
    }

    /// A query was answered with so many series.
    pub fn answered(&self, series: usize) {
        self.queries.get_or_create(&Queries { outcome: "answered" }).inc();
        self.read_series.inc_by(series as u64);
    }

    /// A query was refused or failed.
    pub fn unanswered(&self) {
        self.queries.get_or_create(&Queries { outcome: "failed" }).inc();
    }

    /// Days and weeks were dropped.
    pub fn expired(&self, count: usize) {
        self.expired.inc_by(count as u64);
    }
}
