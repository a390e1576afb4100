//! What a guest's XML allows it: limits of disks, interfaces, processors and memory, beside the use that they limit.
//! What is not limited has no series. Limits of disks have Tinkoff's names in both profiles.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Series, Sheet, Value, encode_guest_info, gauge, whole};
use crate::snapshot::{Bandwidth, Description, Disk, Guest, Nic, Quota};

/// An element of `<iotune>`, and the family that shows it.
struct Limit {
    element: &'static str,
    series: Series<u64>,
}

const DISK: [Limit; 19] = [
    rate("total_bytes_sec", "libvirt_domain_block_stats_limit_total"),
    rate("read_bytes_sec", "libvirt_domain_block_stats_limit_read"),
    rate("write_bytes_sec", "libvirt_domain_block_stats_limit_write"),
    requests("total_iops_sec", "libvirt_domain_block_stats_limit_total_requests"),
    requests("read_iops_sec", "libvirt_domain_block_stats_limit_read_requests"),
    requests("write_iops_sec", "libvirt_domain_block_stats_limit_write_requests"),
    burst("total_bytes_sec_max", "libvirt_domain_block_stats_limit_burst_total"),
    burst("read_bytes_sec_max", "libvirt_domain_block_stats_limit_burst_read"),
    burst("write_bytes_sec_max", "libvirt_domain_block_stats_limit_burst_write"),
    burst_requests("total_iops_sec_max", "libvirt_domain_block_stats_limit_burst_total_requests"),
    burst_requests("read_iops_sec_max", "libvirt_domain_block_stats_limit_burst_read_requests"),
    burst_requests("write_iops_sec_max", "libvirt_domain_block_stats_limit_burst_write_requests"),
    length(
        "total_bytes_sec_max_length",
        "libvirt_domain_block_stats_limit_burst_total_bytes_length",
    ),
    length("read_bytes_sec_max_length", "libvirt_domain_block_stats_limit_burst_read_bytes_length"),
    length(
        "write_bytes_sec_max_length",
        "libvirt_domain_block_stats_limit_burst_write_bytes_length",
    ),
    length(
        "total_iops_sec_max_length",
        "libvirt_domain_block_stats_limit_burst_length_total_requests",
    ),
    length(
        "read_iops_sec_max_length",
        "libvirt_domain_block_stats_limit_burst_length_read_requests",
    ),
    length(
        "write_iops_sec_max_length",
        "libvirt_domain_block_stats_limit_burst_length_write_requests",
    ),
    Limit {
        element: "size_iops_sec",
        series: limit(
            "libvirt_domain_block_stats_size_iops",
            Some(Unit::Bytes),
            "Size up to which a request to the disk counts as one",
        ),
    },
];

const CPU: Series<Description> = gauge(
    "libvirt_domain_cpu_shares",
    None,
    "Weight of the domain among all that want the host's CPUs",
    |description| whole(description.cpu_tune.shares),
);

const QUOTA: [Series<Quota>; 2] = [
    gauge(
        "libvirt_domain_cpu_quota",
        Some(Unit::Seconds),
        "CPU time that each of the domain's threads of this kind may use in a period",
        |quota| microseconds(quota.quota_us),
    ),
    gauge(
        "libvirt_domain_cpu_period",
        Some(Unit::Seconds),
        "The period that the quota is of",
        |quota| microseconds(quota.period_us),
    ),
];

const MEMORY: Series<u64> = limit(
    "libvirt_domain_memory_limit",
    Some(Unit::Bytes),
    "Memory of the host that the domain's process may use",
);

const STATS_PERIOD: Series<Description> = gauge(
    "libvirt_domain_memory_stats_period",
    Some(Unit::Seconds),
    "How often the guest's balloon driver is asked",
    |description| whole(description.stats_period_seconds),
);

/// Limits of one direction.
type OfNic = fn(&Nic) -> &Bandwidth;

const INTERFACE: [(OfNic, [Series<Bandwidth>; 3]); 2] = [
    (
        |nic| &nic.receive_limit,
        [
            bandwidth(
                "libvirt_domain_interface_stats_limit_receive_average",
                "Bytes a second that the domain may receive on average",
                |limit| whole(limit.average_bytes),
            ),
            bandwidth(
                "libvirt_domain_interface_stats_limit_receive_peak",
                "Bytes a second that the domain may receive at most",
                |limit| whole(limit.peak_bytes),
            ),
            bandwidth(
                "libvirt_domain_interface_stats_limit_receive_burst",
                "Bytes that the domain may receive at the peak's speed",
                |limit| whole(limit.burst_bytes),
            ),
        ],
    ),
    (
        |nic| &nic.transmit_limit,
        [
            bandwidth(
                "libvirt_domain_interface_stats_limit_transmit_average",
                "Bytes a second that the domain may send on average",
                |limit| whole(limit.average_bytes),
            ),
            bandwidth(
                "libvirt_domain_interface_stats_limit_transmit_peak",
                "Bytes a second that the domain may send at most",
                |limit| whole(limit.peak_bytes),
            ),
            bandwidth(
                "libvirt_domain_interface_stats_limit_transmit_burst",
                "Bytes that the domain may send at the peak's speed",
                |limit| whole(limit.burst_bytes),
            ),
        ],
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for Limit { element, series } in &DISK {
        let limits = described(guests).flat_map(|(one, description)| {
            description
                .disks
                .iter()
                .filter_map(move |disk| Some((one.device(&disk.device), of_disk(disk, element)?)))
        });
        series.encode(sheet, limits)?;
    }
    for (limit, table) in &INTERFACE {
        for series in table {
            let nics = described(guests).flat_map(|(one, description)| {
                description.nics.iter().map(move |nic| (one.device(&nic.device), limit(nic)))
            });
            series.encode(sheet, nics)?;
        }
    }
    processors(guests, sheet)?;
    let limits = described(guests).flat_map(|(one, description)| {
        let limits = description.memory_limits.iter();
        limits.map(move |(name, limit)| {
            (one.with([("limit", name.strip_suffix("_limit").unwrap_or(name))]), limit)
        })
    });
    MEMORY.encode(sheet, limits)?;
    STATS_PERIOD.encode(sheet, described(guests).map(|(one, text)| (one.labels(), text)))?;
    huge_pages(guests, sheet)
}

fn processors(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    CPU.encode(sheet, described(guests).map(|(one, text)| (one.labels(), text)))?;
    for series in &QUOTA {
        let quotas = described(guests).flat_map(|(one, description)| {
            let quotas = description.cpu_tune.quotas.iter();
            quotas.map(move |quota| (one.with([("threads", quota.threads)]), quota))
        });
        series.encode(sheet, quotas)?;
    }
    let pins = described(guests).flat_map(|(one, description)| {
        let pins = description.cpu_tune.pins.iter();
        pins.map(move |pin| {
            (one, [("thread", Some(pin.thread.as_str())), ("cpus", Some(pin.cpus.as_str()))])
        })
    });
    let help = "The host's CPUs on which the domain's thread may run";
    encode_guest_info(sheet, "libvirt_domain_cpu_pin", help, pins)
}

fn huge_pages(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let pages: Vec<(&Subject<'_>, String, Option<&str>)> = described(guests)
        .flat_map(|(one, description)| description.huge_pages.iter().map(move |page| (one, page)))
        .map(|(one, page)| {
            let size = page.bytes.map_or_else(|| "default".to_owned(), |bytes| bytes.to_string());
            (one, size, page.nodeset.as_deref())
        })
        .collect();
    let labelled = pages.iter().map(|(one, size, nodeset)| {
        (*one, [("page_bytes", Some(size.as_str())), ("nodeset", *nodeset)])
    });
    let help = "Huge pages that hold the domain's memory, by their size";
    encode_guest_info(sheet, "libvirt_domain_hugepages", help, labelled)
}

fn described<'a>(
    guests: &'a [Subject<'a>],
) -> impl Iterator<Item = (&'a Subject<'a>, &'a Description)> {
    let of = |guest: &'a Guest| guest.description.as_deref();
    guests.iter().filter_map(move |one| Some((one, of(one.guest)?)))
}

fn of_disk<'a>(disk: &'a Disk, element: &str) -> Option<&'a u64> {
    disk.limits.iter().find(|(name, _)| *name == element).map(|(_, limit)| limit)
}

const fn rate(element: &'static str, name: &'static str) -> Limit {
    let help = "Bytes a second that the disk may move";
    Limit { element, series: limit(name, Some(Unit::Bytes), help) }
}

const fn burst(element: &'static str, name: &'static str) -> Limit {
    let help = "Bytes a second that the disk may move in a burst";
    Limit { element, series: limit(name, Some(Unit::Bytes), help) }
}

const fn requests(element: &'static str, name: &'static str) -> Limit {
    Limit { element, series: limit(name, None, "Requests a second that the disk may serve") }
}

const fn burst_requests(element: &'static str, name: &'static str) -> Limit {
    let help = "Requests a second that the disk may serve in a burst";
    Limit { element, series: limit(name, None, help) }
}

const fn length(element: &'static str, name: &'static str) -> Limit {
    Limit { element, series: limit(name, Some(Unit::Seconds), "How long a burst may last") }
}

const fn limit(name: &'static str, unit: Option<Unit>, help: &'static str) -> Series<u64> {
    gauge(name, unit, help, |limit| Some(Value::Whole(*limit)))
}

const fn bandwidth(
    name: &'static str,
    help: &'static str,
    value: fn(&Bandwidth) -> Option<Value>,
) -> Series<Bandwidth> {
    gauge(name, Some(Unit::Bytes), help, value)
}

#[expect(clippy::cast_precision_loss, reason = "libvirt's periods end at a second")]
fn microseconds(microseconds: Option<u64>) -> Option<Value> {
    microseconds.map(|microseconds| Value::Real(microseconds as f64 / 1e6))
}
