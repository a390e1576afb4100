//! Metrics of sealing: what is sealed, how far behind it is, and what comes late.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

use super::known::Known;

/// Handles of all families; cheap to clone.
#[derive(Clone, Debug)]
pub struct SealingMetrics {
    windows: Counter,
    samples: Counter,
    bytes: Counter,
    ledger_rows: Counter,
    unjoined_hours: Counter,
    failures: Counter,
    late_rows: Counter,
    leases_lost: Counter,
    shards: Known,
    late_windows: Known,
    late_waiting: Known,
    lag: Known,
    unsealed_from: Known,
}

impl SealingMetrics {
    /// Registers all families.
    pub(super) fn register(registry: &mut Registry) -> SealingMetrics {
        let lag = Known::default();
        let help = "How long the oldest window that is not sealed has been due; 0 where none is, absent while that cannot be read";
        registry.register_with_unit("seal_lag", help, Unit::Seconds, lag.clone());
        let unsealed_from = Known::default();
        let help = "Begin of the oldest window that is not sealed, unix time; what came late to older ones apart, and absent while it cannot be read";
        let gauge = unsealed_from.clone();
        registry.register_with_unit("unsealed_from_timestamp", help, Unit::Seconds, gauge);
        let late_windows = Known::default();
        let late_waiting = Known::default();
        let help = "How long the oldest of what came late has waited to be sealed again, in a cluster since the grace after the begin of its hour of arrival; 0 where nothing waits, and in a cluster until five minutes after that hour; absent while it cannot be read";
        registry.register_with_unit("late_waiting", help, Unit::Seconds, late_waiting.clone());
        let help = "Windows of groups that something came late to and that wait to be sealed again, at the last look; absent where some could not be read then";
        registry.register("late_windows", help, late_windows.clone());
        let shards = Known::default();
        let help = "Shards of a cluster that this adapter seals, at the last look; absent where the store is its own";
        registry.register("seal_shards", help, shards.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        SealingMetrics {
            windows: counter(
                "sealed_windows",
                "Windows of groups that were sealed, those sealed again included",
            ),
            samples: counter("sealed_samples", "Samples that went from the head into chunks"),
            bytes: counter("sealed_payload_bytes", "Bytes of the chunks that were made of them"),
            ledger_rows: counter(
                "ledger_rows",
                "Hours of a guest and family that were written into the ledger",
            ),
            unjoined_hours: counter(
                "worker_unjoined_hours",
                "Hours of guests that went into the ledger under the name that a 2012 worker gave, as no exporter saw them then",
            ),
            failures: counter(
                "seal_failures",
                "Windows of groups that could not be sealed; they are tried again",
            ),
            late_rows: counter(
                "late_rows",
                "Head rows that came after their window may have been sealed",
            ),
            leases_lost: counter(
                "seal_leases_lost",
                "Shards that another adapter took because this one was silent for too long",
            ),
            shards,
            late_windows,
            late_waiting,
            lag,
            unsealed_from,
        }
    }

    /// Head rows came late.
    pub fn late(&self, rows: usize) {
        self.late_rows.inc_by(rows as u64);
    }

    /// Seals are durable.
    pub fn sealed(&self, windows: usize, samples: usize, bytes: usize, ledger_rows: usize) {
        self.windows.inc_by(windows as u64);
        self.samples.inc_by(samples as u64);
        self.bytes.inc_by(bytes as u64);
        self.ledger_rows.inc_by(ledger_rows as u64);
    }

    /// So many hours of workers' guests belong to none that exporters know.
    pub fn unjoined(&self, hours: usize) {
        self.unjoined_hours.inc_by(hours as u64);
    }

    /// So many shards are ours.
    pub fn shards(&self, shards: usize) {
        self.shards.set(i64::try_from(shards).unwrap_or(i64::MAX));
    }

    /// A shard is another sealer's, and was ours.
    pub fn lease_lost(&self) {
        self.leases_lost.inc();
    }

    /// A group could not be sealed.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// So many windows wait to be sealed again; `None` where not all could be read.
    pub fn waiting(&self, late_windows: Option<usize>) {
        let windows = late_windows.map(|windows| i64::try_from(windows).unwrap_or(i64::MAX));
        self.late_windows.tell(windows);
    }

    /// So long the oldest of what came late has waited; `None` where it is not known.
    pub fn late_waiting(&self, seconds: Option<i64>) {
        self.late_waiting.tell(seconds);
    }

    /// How long the oldest window that is not sealed has been due, and when it begins, unix
    /// milliseconds; `None` where it is not known.
    pub fn lag(&self, seconds_and_begin: Option<(i64, i64)>) {
        self.lag.tell(seconds_and_begin.map(|(seconds, _)| seconds));
        self.unsealed_from.tell(seconds_and_begin.map(|(_, begin_ms)| begin_ms.div_euclid(1000)));
    }
}
