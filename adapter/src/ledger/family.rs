//! The families that Kanyun bills and the stored series that feed them: the table of ledger.md,
//! "Families and their sources". Knows names and units, no samples.

use crate::model::labels::{Labels, METRIC_NAME};

/// One of Kanyun's column families (2012).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Use of cpu, percent; 100 is one core.
    Cpu,
    /// Memory that the guest may have, KiB.
    MemMax,
    /// Memory that the guest may have and does not use, KiB.
    MemFree,
    /// Bytes received, by device.
    NicIncoming,
    /// Bytes sent, by device.
    NicOutgoing,
    /// Bytes read, by device.
    BlkRead,
    /// Bytes written, by device.
    BlkWrite,
    /// Bytes sent to the outside, by address.
    Vmnetwork,
}

/// Where a family's samples come from: the columns of the table, from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    Exporter,
    Worker,
    Imported,
}

/// How the samples of a source become a minute's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Feed {
    /// Grows; differences count. Counted in whole numbers of 1 / `per_unit`.
    Counter { metric: &'static str, per_unit: f64 },
    /// Each sample is an amount of its own.
    Delta { metric: &'static str },
    /// The last sample counts, divided.
    Gauge { metric: &'static str, divisor: f64 },
    /// The difference of two gauges of one copy at one timestamp, divided.
    Difference { minuend: &'static str, subtrahend: &'static str, divisor: f64 },
}

/// The start of a guest's process, from which its counters count.
pub(super) const START_TIME: &str = "libvirt_domain_start_time_seconds";
pub(super) const CPU_TIME: &str = "libvirt_domain_info_cpu_time_seconds_total";
const MEMORY_MAX: &str = "libvirt_domain_info_maximum_memory_bytes";
const MEMORY_USED: &str = "libvirt_domain_info_memory_usage_bytes";

/// The job of the 2012 workers' series.
pub(super) const WORKER_JOB: &str = "kanyun-worker";
/// The job of imported series.
const IMPORT_JOB: &str = "kanyun-import";

/// column1 of families without devices (Kanyun).
pub const TOTAL: &str = "total";

/// Labels that name a device or an address within a guest, and so no copy of its series.
pub(super) const DEVICE_LABELS: [&str; 3] = ["target_device", "ip", "direction"];

/// A name that no family has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric {0:?} is none of {names}", names = Family::ALL.map(Family::name).join(", "))]
pub struct NoFamily(String);

impl Source {
    pub(super) const ALL: [Source; 3] = [Source::Exporter, Source::Worker, Source::Imported];

    fn of_job(job: &str) -> Source {
        match job {
            WORKER_JOB => Source::Worker,
            IMPORT_JOB => Source::Imported,
            _ => Source::Exporter,
        }
    }
}

impl Feed {
    /// The stored metrics that it reads.
    pub(super) fn metrics(self) -> impl Iterator<Item = &'static str> {
        let (first, second) = match self {
            Feed::Counter { metric, .. } | Feed::Delta { metric } | Feed::Gauge { metric, .. } => {
                (metric, None)
            }
            Feed::Difference { minuend, subtrahend, .. } => (minuend, Some(subtrahend)),
        };
        std::iter::once(first).chain(second)
    }
}

impl Family {
    /// All families, in the order of Kanyun's schema.
    pub const ALL: [Family; 8] = [
        Family::Cpu,
        Family::MemMax,
        Family::MemFree,
        Family::NicIncoming,
        Family::NicOutgoing,
        Family::BlkRead,
        Family::BlkWrite,
        Family::Vmnetwork,
    ];

    /// Its name as a column family and in requests.
    pub fn name(self) -> &'static str {
        match self {
            Family::Cpu => "cpu",
            Family::MemMax => "mem_max",
            Family::MemFree => "mem_free",
            Family::NicIncoming => "nic_incoming",
            Family::NicOutgoing => "nic_outgoing",
            Family::BlkRead => "blk_read",
            Family::BlkWrite => "blk_write",
            Family::Vmnetwork => "vmnetwork",
        }
    }

    /// The families of a list of names with commas between them. One that is named twice, by an
    /// alias perhaps, would be summed twice.
    pub fn list(names: &str) -> Result<Vec<Family>, String> {
        let mut families = Vec::new();
        for name in names.split(',').map(str::trim) {
            let family = Family::named(name).map_err(|error| error.to_string())?;
            if families.contains(&family) {
                return Err(format!("metric {name:?} names {} a second time", family.name()));
            }
            families.push(family);
        }
        Ok(families)
    }

    /// The family of a name in a request; Kanyun's API documented `network`, `nic_read` and
    /// `nic_write` besides, which nothing ever wrote. The error is for whoever asked.
    pub fn named(name: &str) -> Result<Family, NoFamily> {
        let canonical = match name {
            "network" => "vmnetwork",
            "nic_read" => "nic_incoming",
            "nic_write" => "nic_outgoing",
            name => name,
        };
        let found = Family::ALL.into_iter().find(|family| family.name() == canonical);
        found.ok_or_else(|| NoFamily(name.to_owned()))
    }

    /// The unit of its values.
    pub fn unit(self) -> &'static str {
        match self {
            Family::Cpu => "percent",
            Family::MemMax | Family::MemFree => "KiB",
            _ => "bytes",
        }
    }

    /// The label that holds column1; `None` where column1 is [`TOTAL`].
    pub fn device_label(self) -> Option<&'static str> {
        match self {
            Family::Cpu | Family::MemMax | Family::MemFree => None,
            Family::Vmnetwork => Some("ip"),
            _ => Some("target_device"),
        }
    }

    pub(super) fn feed(self, source: Source) -> Feed {
        match source {
            Source::Exporter => self.exporter_feed(),
            Source::Worker => self.worker_feed(),
            Source::Imported => self.imported_feed(),
        }
    }

    fn exporter_feed(self) -> Feed {
        let bytes = |metric| Feed::Counter { metric, per_unit: 1.0 };
        match self {
            // Whole nanoseconds, as libvirt counts them.
            Family::Cpu => Feed::Counter { metric: CPU_TIME, per_unit: 1e9 },
            Family::MemMax => Feed::Gauge { metric: MEMORY_MAX, divisor: 1024.0 },
            Family::MemFree => {
                Feed::Difference { minuend: MEMORY_MAX, subtrahend: MEMORY_USED, divisor: 1024.0 }
            }
            Family::NicIncoming => bytes("libvirt_domain_interface_stats_receive_bytes_total"),
            Family::NicOutgoing => bytes("libvirt_domain_interface_stats_transmit_bytes_total"),
            Family::BlkRead => bytes("libvirt_domain_block_stats_read_bytes_total"),
            Family::BlkWrite => bytes("libvirt_domain_block_stats_write_bytes_total"),
            Family::Vmnetwork => bytes("libvirt_domain_external_traffic_bytes_total"),
        }
    }

    fn worker_feed(self) -> Feed {
        let bytes = |metric| Feed::Counter { metric, per_unit: 1.0 };
        match self {
            Family::Cpu => Feed::Gauge { metric: "kanyun_cpu_percent", divisor: 1.0 },
            Family::MemMax => Feed::Gauge { metric: "kanyun_mem_max_kib", divisor: 1.0 },
            Family::MemFree => Feed::Gauge { metric: "kanyun_mem_free_kib", divisor: 1.0 },
            Family::NicIncoming => bytes("kanyun_nic_incoming_bytes_total"),
            Family::NicOutgoing => bytes("kanyun_nic_outgoing_bytes_total"),
            Family::BlkRead => bytes("kanyun_blk_read_bytes_total"),
            Family::BlkWrite => bytes("kanyun_blk_write_bytes_total"),
            Family::Vmnetwork => Feed::Delta { metric: "kanyun_vmnetwork_bytes" },
        }
    }

    fn imported_feed(self) -> Feed {
        match self {
            Family::NicIncoming => Feed::Delta { metric: "kanyun_nic_incoming_bytes" },
            Family::NicOutgoing => Feed::Delta { metric: "kanyun_nic_outgoing_bytes" },
            Family::BlkRead => Feed::Delta { metric: "kanyun_blk_read_bytes" },
            Family::BlkWrite => Feed::Delta { metric: "kanyun_blk_write_bytes" },
            Family::Cpu | Family::MemMax | Family::MemFree | Family::Vmnetwork => {
                self.worker_feed()
            }
        }
    }

    /// Whether its counters count since the guest's process started. A firewall's rules outlive that: after a reboot they
    /// count on, and to bill them from 0 would bill again all that they ever counted.
    pub(super) fn begins_with_guest(self) -> bool {
        self != Family::Vmnetwork
    }

    /// The source of a series among this family's, by its job; `None` where the series does not
    /// feed this family.
    pub(super) fn source_of(self, labels: &Labels) -> Option<Source> {
        let source = Source::of_job(labels.get("job"));
        let metric = labels.get(METRIC_NAME);
        let mut metrics = self.feed(source).metrics();
        let counted = self != Family::Vmnetwork
            || source != Source::Exporter
            || labels.get("direction") == "out";
        (counted && metrics.any(|fed| fed == metric)).then_some(source)
    }

    /// Whether a series is among those that this family's rows are made of.
    pub fn is_fed_by(self, labels: &Labels) -> bool {
        self.source_of(labels).is_some()
    }

    /// Whether this family's rows can depend on a series: it feeds the family, or says since when or
    /// on which host a guest runs.
    pub fn is_needing(self, labels: &Labels) -> bool {
        let metric = labels.get(METRIC_NAME);
        self.is_fed_by(labels) || metric == START_TIME || metric == CPU_TIME
    }

    /// The metrics whose samples this family's rows are made of.
    pub fn metrics(self) -> Vec<&'static str> {
        let mut metrics: Vec<_> =
            Source::ALL.into_iter().flat_map(|source| self.feed(source).metrics()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    /// The metrics that must be at hand to make this family's rows: its own, the guest's start
    /// times, and its cpu time, which says on which of two hosts it lives.
    pub fn metrics_needed(self) -> Vec<&'static str> {
        let mut metrics = self.metrics();
        metrics.push(START_TIME);
        // Of every source: which one supplies an hour is judged by all of them.
        metrics.extend(Family::Cpu.metrics());
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        for family in Family::ALL {
            assert_eq!(Family::named(family.name()), Ok(family));
        }
        assert_eq!(Family::named("network"), Ok(Family::Vmnetwork));
        assert_eq!(Family::named("nic_read"), Ok(Family::NicIncoming));
        assert_eq!(Family::named("nic_write"), Ok(Family::NicOutgoing));
        assert_eq!(Family::named("CPU"), Err(NoFamily("CPU".to_owned())));
    }

    #[test]
    fn a_series_feeds_a_family_by_its_metric_and_job() {
        let source = |family: Family, metric: &str, more: (&str, &str)| {
            family.source_of(&Labels::new([(METRIC_NAME, metric), ("uuid", "u"), more]))
        };
        assert_eq!(source(Family::Cpu, CPU_TIME, ("job", "libvirt")), Some(Source::Exporter));
        assert_eq!(source(Family::Cpu, CPU_TIME, ("job", "kanyun-worker")), None);
        assert_eq!(source(Family::MemFree, MEMORY_USED, ("host", "a")), Some(Source::Exporter));
        assert_eq!(source(Family::MemMax, MEMORY_USED, ("host", "a")), None);
        let delta = "kanyun_vmnetwork_bytes";
        assert_eq!(source(Family::Vmnetwork, delta, ("job", WORKER_JOB)), Some(Source::Worker));
        assert_eq!(source(Family::Vmnetwork, delta, ("job", IMPORT_JOB)), Some(Source::Imported));
        let traffic = "libvirt_domain_external_traffic_bytes_total";
        assert_eq!(source(Family::Vmnetwork, traffic, ("direction", "in")), None);
        assert_eq!(
            source(Family::Vmnetwork, traffic, ("direction", "out")),
            Some(Source::Exporter)
        );
    }
}
