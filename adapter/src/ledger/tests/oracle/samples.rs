//! The oracle's reading of ledger.md's table of families: which samples of which series each
//! column has, whose they are, and their start times. Knows no rule about minutes.

use crate::ledger::{Family, Series};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::series::SeriesId;

use super::TOLERANCE;

pub(super) const START_TIME: &str = "libvirt_domain_start_time_seconds";
pub(super) const CPU_TIME: &str = "libvirt_domain_info_cpu_time_seconds_total";

/// The columns of the table of families, left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Exporter,
    Worker,
    Import,
}

pub(super) const SOURCES: [Source; 3] = [Source::Exporter, Source::Worker, Source::Import];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Delta,
    Gauge,
}

/// One sample of one family and source.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) t: i64,
    /// A counter's or a delta's value as a whole number: bytes, or nanoseconds of cpu.
    pub(super) whole: i128,
    /// A gauge's value, in the family's unit.
    pub(super) gauge: f64,
    /// The start time, where it is known.
    pub(super) start: Option<i64>,
    pub(super) column: String,
    pub(super) copy: SeriesId,
    pub(super) host: String,
}

/// § Families: the series of each column of the table.
fn metric(family: Family, source: Source) -> &'static str {
    let [exporter, worker, import] = match family {
        Family::Cpu => [CPU_TIME, "kanyun_cpu_percent", "kanyun_cpu_percent"],
        Family::MemMax => {
            ["libvirt_domain_info_maximum_memory_bytes", "kanyun_mem_max_kib", "kanyun_mem_max_kib"]
        }
        // The exporter's is made of two series: see `free_memory`.
        Family::MemFree => ["", "kanyun_mem_free_kib", "kanyun_mem_free_kib"],
        Family::NicIncoming => [
            "libvirt_domain_interface_stats_receive_bytes_total",
            "kanyun_nic_incoming_bytes_total",
            "kanyun_nic_incoming_bytes",
        ],
        Family::NicOutgoing => [
            "libvirt_domain_interface_stats_transmit_bytes_total",
            "kanyun_nic_outgoing_bytes_total",
            "kanyun_nic_outgoing_bytes",
        ],
        Family::BlkRead => [
            "libvirt_domain_block_stats_read_bytes_total",
            "kanyun_blk_read_bytes_total",
            "kanyun_blk_read_bytes",
        ],
        Family::BlkWrite => [
            "libvirt_domain_block_stats_write_bytes_total",
            "kanyun_blk_write_bytes_total",
            "kanyun_blk_write_bytes",
        ],
        Family::Vmnetwork => [
            "libvirt_domain_external_traffic_bytes_total",
            "kanyun_vmnetwork_bytes",
            "kanyun_vmnetwork_bytes",
        ],
    };
    match source {
        Source::Exporter => exporter,
        Source::Worker => worker,
        Source::Import => import,
    }
}

/// § Families: the kind of each column of the table.
pub(super) fn kind(family: Family, source: Source) -> Kind {
    match (family, source) {
        (Family::MemMax | Family::MemFree, _) => Kind::Gauge,
        (Family::Cpu, source) if source != Source::Exporter => Kind::Gauge,
        (Family::Vmnetwork, Source::Worker) | (_, Source::Import) => Kind::Delta,
        _ => Kind::Counter,
    }
}

/// § Families: column1 of a series; `None` where it lacks the label that names its device.
fn column(family: Family, labels: &Labels) -> Option<String> {
    let column = match family {
        Family::Cpu | Family::MemMax | Family::MemFree => "total",
        Family::Vmnetwork => labels.get("ip"),
        _ => labels.get("target_device"),
    };
    (!column.is_empty()).then(|| column.to_owned())
}

fn is_of_source(labels: &Labels, source: Source) -> bool {
    match labels.get("job") {
        "kanyun-worker" => source == Source::Worker,
        "kanyun-import" => source == Source::Import,
        _ => source == Source::Exporter,
    }
}

/// § Whose counter: "A copy of it is a label set without `__name__` and device"; "their order is
/// that of the hash of the label set, one order for all families".
pub(crate) fn copy_id(labels: &Labels) -> SeriesId {
    let device = [METRIC_NAME, "target_device", "ip", "direction"];
    Labels::new(labels.iter().filter(|(name, _)| !device.contains(name))).id()
}

/// § Whose counter: "the first of `host`, `node`, `instance` without its port".
pub(super) fn host(labels: &Labels) -> String {
    let instance = labels.get("instance");
    let without_port = instance.rsplit_once(':').map_or(instance, |(host, _)| host);
    [labels.get("host"), labels.get("node"), without_port]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default()
        .to_owned()
}

/// What `libvirt_domain_start_time_seconds` says: copy, time of the sample, start time.
pub(super) fn start_samples(series: &[Series]) -> Vec<(SeriesId, i64, i64)> {
    let of_metric = series.iter().filter(|one| one.labels.get(METRIC_NAME) == START_TIME);
    of_metric
        .flat_map(|one| {
            let copy = copy_id(&one.labels);
            let finite = one.samples.iter().filter(|sample| sample.value.is_finite());
            finite.map(move |sample| (copy, sample.timestamp_ms, rounded_ms(sample.value)))
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a time beyond 64 bits is no time; it saturates"
)]
pub(super) fn rounded_ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

/// A start time that lies more than the tolerance after its sample is not known.
pub(super) fn plausible(start: i64, t: i64) -> bool {
    start <= t + TOLERANCE
}

/// Every sample of a family and a source. § A minute's value: "A *sample* is a finite one".
pub(super) fn points(series: &[Series], family: Family, source: Source) -> Vec<Point> {
    if matches!((family, source), (Family::MemFree, Source::Exporter)) {
        return free_memory(series);
    }
    let starts = start_samples(series);
    let mut points = Vec::new();
    for one in series {
        let outgoing = one.labels.get("direction") == "out";
        let is_wanted = one.labels.get(METRIC_NAME) == metric(family, source)
            && is_of_source(&one.labels, source)
            && (metric(family, source) != "libvirt_domain_external_traffic_bytes_total"
                || outgoing);
        let Some(column) = column(family, &one.labels).filter(|_| is_wanted) else { continue };
        let copy = copy_id(&one.labels);
        for sample in one.samples.iter().filter(|sample| sample.value.is_finite()) {
            let t = sample.timestamp_ms;
            if kind(family, source) != Kind::Gauge && sample.value < 0.0 {
                continue;
            }
            // "its own start timestamp, else libvirt_domain_start_time_seconds of the same guest,
            // host and copy at the same timestamp, else unknown"
            let beside = starts.iter().find(|(of, at, _)| *of == copy && *at == t);
            let own = sample.start_ms.map(std::num::NonZero::get);
            // A guest's start is not its firewall rules'.
            let beside = beside.filter(|_| family != Family::Vmnetwork);
            let start = own.or(beside.map(|(_, _, start)| *start));
            points.push(Point {
                t,
                whole: whole(family, source, sample.value),
                gauge: gauge(family, source, sample.value),
                start: start.filter(|start| plausible(*start, t)),
                column: column.clone(),
                copy,
                host: host(&one.labels),
            });
        }
    }
    points
}

/// § A minute's value, 2 and 4: nanoseconds and bytes are whole numbers. One beyond 64 bits is no
/// plausible counter; it counts as the greatest of them.
#[expect(clippy::cast_possible_truncation, reason = "it saturates, as said above")]
fn whole(family: Family, source: Source, value: f64) -> i128 {
    let whole = match (family, source) {
        (Family::Cpu, Source::Exporter) => (value * 1e9).round() as i64,
        _ => value.round() as i64,
    };
    i128::from(whole)
}

/// § Families: the unit of mem_max is KiB.
fn gauge(family: Family, source: Source, value: f64) -> f64 {
    match (family, source) {
        (Family::MemMax, Source::Exporter) => value / 1024.0,
        _ => value,
    }
}

/// § Families: mem_free is "(maximum_memory − memory_usage) / 1024, both of one copy at one
/// timestamp".
fn free_memory(series: &[Series]) -> Vec<Point> {
    let samples_of = |name: &'static str| {
        let of_metric = series.iter().filter(move |one| {
            one.labels.get(METRIC_NAME) == name && is_of_source(&one.labels, Source::Exporter)
        });
        of_metric.flat_map(|one| {
            let finite = one.samples.iter().filter(|sample| sample.value.is_finite());
            finite.map(|sample| (copy_id(&one.labels), host(&one.labels), sample))
        })
    };
    let usages: Vec<_> = samples_of("libvirt_domain_info_memory_usage_bytes").collect();
    let mut points = Vec::new();
    for (copy, host, maximum) in samples_of("libvirt_domain_info_maximum_memory_bytes") {
        let t = maximum.timestamp_ms;
        let usage = usages.iter().find(|(of, _, usage)| *of == copy && usage.timestamp_ms == t);
        let Some((_, _, usage)) = usage else { continue };
        let gauge = (maximum.value - usage.value) / 1024.0;
        let column = "total".to_owned();
        points.push(Point { t, whole: 0, gauge, start: None, column, copy, host });
    }
    points
}
