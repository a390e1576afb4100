//! What only some guests have: hardware counters, monitored caches and bandwidth, threads for input and output, and a
//! measured dirty rate.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Series, Sheet, Value, counter, gauge, seconds, whole};
use crate::snapshot::{BandwidthMonitor, CacheMonitor, DirtyRate, Iothread, PerfEvent};

/// Events of perf whose value is a size that goes up and down.
const SIZES: [&str; 3] = ["cmt", "mbmt", "mbml"];

const PERF: [Series<PerfEvent>; 2] = [
    counter(
        "libvirt_domain_perf_events",
        None,
        "Hardware and kernel events of the domain's process that its XML has counted (clocks: nanoseconds)",
        |perf| Some(Value::Whole(perf.value)).filter(|_| !is_size(perf)),
    ),
    gauge(
        "libvirt_domain_perf",
        Some(Unit::Bytes),
        "Cache and memory bandwidth of the domain's process that its XML has counted",
        |perf| Some(Value::Whole(perf.value)).filter(|_| is_size(perf)),
    ),
];

const CACHE: Series<CacheMonitor> = gauge(
    "libvirt_domain_cache_monitor",
    Some(Unit::Bytes),
    "Bytes in the cache's bank by the monitored virtual CPUs",
    |cache| Some(Value::Whole(cache.bytes)),
);

const BANDWIDTH: [Series<BandwidthMonitor>; 2] = [
    counter(
        "libvirt_domain_memory_bandwidth_local",
        Some(Unit::Bytes),
        "Bytes between the NUMA node's cache and its own memory by the monitored virtual CPUs",
        |monitor| whole(monitor.local_bytes),
    ),
    counter(
        "libvirt_domain_memory_bandwidth",
        Some(Unit::Bytes),
        "Bytes between the NUMA node's cache and any memory by the monitored virtual CPUs",
        |monitor| whole(monitor.total_bytes),
    ),
];

const IOTHREAD: [Series<Iothread>; 3] = [
    gauge(
        "libvirt_domain_iothread_poll_max",
        Some(Unit::Seconds),
        "Longest time that the thread polls for input and output",
        |thread| seconds(thread.poll_max_ns),
    ),
    gauge("libvirt_domain_iothread_poll_grow", None, "Factor by which that time grows", |thread| {
        whole(thread.poll_grow)
    }),
    gauge(
        "libvirt_domain_iothread_poll_shrink",
        None,
        "Divisor by which that time shrinks",
        |thread| whole(thread.poll_shrink),
    ),
];

const DIRTY: [Series<DirtyRate>; 3] = [
    gauge(
        "libvirt_domain_dirty_rate_bytes_per_second",
        None,
        "Memory that the guest wrote to in a second, when somebody last had it measured",
        |rate| mib(rate.mib_per_second),
    ),
    gauge(
        "libvirt_domain_dirty_rate_start_timestamp",
        Some(Unit::Seconds),
        "When that measurement began, since the epoch",
        |rate| whole(rate.start_seconds.filter(|_| rate.mib_per_second.is_some())),
    ),
    gauge(
        "libvirt_domain_dirty_rate_period",
        Some(Unit::Seconds),
        "How long that measurement took",
        |rate| whole(rate.period_seconds.filter(|_| rate.mib_per_second.is_some())),
    ),
];

const DIRTY_VCPU: Series<u64> = gauge(
    "libvirt_domain_vcpu_dirty_rate_bytes_per_second",
    None,
    "Memory that the virtual CPU wrote to in a second, when somebody last had it measured",
    |rate| mib(Some(*rate)),
);

/// Writes hardware counters.
pub(super) fn encode_perf(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &PERF {
        let events = guests.iter().flat_map(|one| {
            one.guest.perf.iter().map(move |perf| (one.with([("event", &perf.event)]), perf))
        });
        series.encode(sheet, events)?;
    }
    Ok(())
}

/// Writes monitored caches and bandwidth.
pub(super) fn encode_monitors(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let caches: Vec<(&Subject<'_>, &CacheMonitor, String)> = guests
        .iter()
        .flat_map(|one| one.guest.cache_monitors.iter().map(move |cache| (one, cache)))
        .map(|(one, cache)| (one, cache, cache.bank.to_string()))
        .collect();
    let labelled = caches.iter().map(|(one, cache, bank)| {
        (one.with([("monitor", cache.monitor.as_str()), ("bank", bank)]), *cache)
    });
    CACHE.encode(sheet, labelled)?;
    let bandwidths: Vec<(&Subject<'_>, &BandwidthMonitor, String)> = guests
        .iter()
        .flat_map(|one| one.guest.bandwidth_monitors.iter().map(move |monitor| (one, monitor)))
        .map(|(one, monitor)| (one, monitor, monitor.node.to_string()))
        .collect();
    for series in &BANDWIDTH {
        let labelled = bandwidths.iter().map(|(one, found, node)| {
            (one.with([("monitor", found.monitor.as_str()), ("node", node)]), *found)
        });
        series.encode(sheet, labelled)?;
    }
    Ok(())
}

/// Writes threads for input and output.
pub(super) fn encode_iothreads(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let threads: Vec<(&Subject<'_>, &Iothread, String)> = guests
        .iter()
        .flat_map(|one| one.guest.iothreads.iter().map(move |thread| (one, thread)))
        .map(|(one, thread)| (one, thread, thread.number.to_string()))
        .collect();
    for series in &IOTHREAD {
        let labelled = threads.iter();
        let labelled =
            labelled.map(|(one, thread, number)| (one.with([("iothread", number)]), *thread));
        series.encode(sheet, labelled)?;
    }
    Ok(())
}

/// Writes the dirty rate.
pub(super) fn encode_dirty_rate(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &DIRTY {
        let rates = guests.iter().map(|one| (one.labels(), &one.guest.dirty_rate));
        series.encode(sheet, rates)?;
    }
    let vcpus: Vec<(&Subject<'_>, String, u64)> = guests
        .iter()
        .flat_map(|one| {
            one.guest.dirty_rate.vcpus.iter().map(move |(vcpu, rate)| (one, vcpu, rate))
        })
        .map(|(one, vcpu, rate)| (one, vcpu.to_string(), *rate))
        .collect();
    let labelled = vcpus.iter().map(|(one, vcpu, rate)| (one.with([("vcpu", vcpu)]), rate));
    DIRTY_VCPU.encode(sheet, labelled)
}

fn is_size(perf: &PerfEvent) -> bool {
    SIZES.contains(&perf.event.as_str())
}

/// MiB as bytes; absent where they do not fit.
fn mib(mib: Option<u64>) -> Option<Value> {
    mib.and_then(|mib| mib.checked_mul(1 << 20)).map(Value::Whole)
}
