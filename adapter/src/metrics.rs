//! The adapter's own metrics, beside those that `serve` keeps for HTTP and the process.
//! Names and meanings are generated into docs/metrics.md by a test.

mod feed;
mod keeping;
mod known;
mod requests;
mod sealing;

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::ledger::{Flags, Row};
use crate::store::observed::ClusterMetrics;
pub use feed::FeedMetrics;
pub use keeping::KeepingMetrics;
pub use requests::{RequestDoor, RequestMetrics, RequestOutcome};
pub use sealing::SealingMetrics;

/// Upper bounds, seconds: from a commit in a page cache to one at the write deadline.
const COMMIT_SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0];

/// How a query or a report can end.
const OUTCOMES: [&str; 2] = [ANSWERED, FAILED];
const ANSWERED: &str = "answered";
const FAILED: &str = "failed";

type Carries = fn(Flags) -> bool;
/// What a row of the ledger may carry.
const FLAGS: [(&str, Carries); 4] = [
    ("gap", |flags| flags.gap),
    ("dip", |flags| flags.dip),
    ("column", |flags| flags.column),
    ("overlap", |flags| flags.overlap),
];

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
    spilled: Counter,
    expired: Counter,
    reports: Family<Queries, Counter>,
    minutes: Counter,
    flagged: Family<Flagged, Counter>,
    requests: RequestMetrics,
    sealing: SealingMetrics,
    keeping: KeepingMetrics,
    feed: FeedMetrics,
    cluster: ClusterMetrics,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Refused {
    reason: Reason,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Queries {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Flagged {
    flag: &'static str,
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

impl Reason {
    const ALL: [Reason; 5] =
        [Reason::InvalidSeries, Reason::TooOld, Reason::Ahead, Reason::Histogram, Reason::Exemplar];
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
        let registry = registry.sub_registry_with_prefix("kanyun_adapter");
        let (refused, commit_seconds) = register_writes(registry);
        let (queries, spilled) = register_reads(registry);
        let (reports, flagged) = register_billing(registry);
        let requests = RequestMetrics::register(registry);
        let sealing = SealingMetrics::register(registry);
        let keeping = KeepingMetrics::register(registry);
        let (feed, cluster) = (FeedMetrics::register(registry), ClusterMetrics::register(registry));
        // All are there from the start: a counter that appears with its first event has no increase.
        for reason in Reason::ALL {
            drop(refused.get_or_create(&Refused { reason }));
        }
        for outcome in OUTCOMES {
            drop(queries.get_or_create(&Queries { outcome }));
            drop(reports.get_or_create(&Queries { outcome }));
        }
        for (flag, _) in FLAGS {
            drop(flagged.get_or_create(&Flagged { flag }));
        }
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Metrics {
            requests,
            sealing,
            keeping,
            feed,
            cluster,
            refused,
            reports,
            flagged,
            minutes: counter(
                "billed_minutes",
                "Minutes in answers to billing; each answer counts anew",
            ),
            commit_seconds,
            queries,
            samples_written: counter(
                "samples_written",
                "Float samples that were acknowledged as durable",
            ),
            metadata: counter(
                "metadata_received",
                "Entries of metadata in remote_write 1.0 requests, which are accepted and not stored",
            ),
            requests_ahead: counter(
                "requests_ahead",
                "Write requests answered 503 because most of their samples were ahead of our clock",
            ),
            commit_samples: counter(
                "commit_samples",
                "Samples in durable group commits, repeated ones included",
            ),
            commit_failures: counter(
                "commit_failures",
                "Group commits that failed; their senders were answered 503",
            ),
            head_rows: counter("head_rows", "Rows of packed samples that were stored"),
            index_rows: counter("index_rows", "Series that were written into the index of a week"),
            read_series: counter("read_series", "Series that remote_read returned"),
            spilled,
            expired: counter(
                "expired",
                "Days of heads, weeks of index and months of chunks and ledger that were dropped",
            ),
        }
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
        self.queries.get_or_create(&Queries { outcome: ANSWERED }).inc();
        self.read_series.inc_by(series as u64);
    }

    /// Bytes of a read did not fit into memory.
    pub fn spilled(&self, bytes: usize) {
        self.spilled.inc_by(bytes as u64);
    }

    /// A query was refused or failed.
    pub fn unanswered(&self) {
        self.queries.get_or_create(&Queries { outcome: FAILED }).inc();
    }

    /// Billing was answered, or was not.
    pub fn report(&self, answered: bool) {
        let outcome = if answered { ANSWERED } else { FAILED };
        self.reports.get_or_create(&Queries { outcome }).inc();
    }

    /// Minutes went into an answer to billing.
    pub fn minutes(&self, rows: &[Row]) {
        self.minutes.inc_by(rows.len() as u64);
        for (flag, carries) in FLAGS {
            let count = rows.iter().filter(|row| carries(row.flags)).count() as u64;
            self.flagged.get_or_create(&Flagged { flag }).inc_by(count);
        }
    }

    /// Requests of the 2012 API.
    pub fn requests(&self) -> &RequestMetrics {
        &self.requests
    }

    /// The families of sealing.
    pub fn sealing(&self) -> &SealingMetrics {
        &self.sealing
    }

    /// The families of what is kept.
    pub fn keeping(&self) -> &KeepingMetrics {
        &self.keeping
    }

    /// Of the cluster that is the store.
    pub fn cluster(&self) -> &ClusterMetrics {
        &self.cluster
    }

    /// The families of the workers of 2012.
    pub fn feed(&self) -> &FeedMetrics {
        &self.feed
    }

    /// Days, weeks and months were dropped.
    pub fn expired(&self, count: usize) {
        self.expired.inc_by(count as u64);
    }
}

fn register_writes(registry: &mut Registry) -> (Family<Refused, Counter>, Histogram) {
    let (refused, commit_seconds) = (Family::default(), Histogram::new(COMMIT_SECONDS));
    let help =
        "Samples, histograms, exemplars and series that were refused for good (400), by reason";
    registry.register("refused", help, refused.clone());
    let help = "Time from the begin of a group commit until it was durable";
    registry.register_with_unit("commit_duration", help, Unit::Seconds, commit_seconds.clone());
    (refused, commit_seconds)
}

fn register_reads(registry: &mut Registry) -> (Family<Queries, Counter>, Counter) {
    let (queries, spilled) = (Family::default(), Counter::default());
    registry.register("queries", "Queries of remote_read, by outcome", queries.clone());
    let help = "Bytes of remote_read's answers that waited in temporary files";
    registry.register_with_unit("read_spilled", help, Unit::Bytes, spilled.clone());
    (queries, spilled)
}

fn register_billing(
    registry: &mut Registry,
) -> (Family<Queries, Counter>, Family<Flagged, Counter>) {
    let reports = Family::default();
    let help = "Usage reports and lists that billing asked for, by outcome";
    registry.register("reports", help, reports.clone());
    let flagged = Family::default();
    let help = "Minutes in answers to billing that carry a flag, by flag; each answer counts anew";
    registry.register("flagged_minutes", help, flagged.clone());
    (reports, flagged)
}
