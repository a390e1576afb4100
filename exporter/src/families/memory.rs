//! Memory: what the host gave, and what the guest's balloon driver reports of its use.
//! Swap only grows, but its established names have no `_total`: they are written as they are, as type unknown (untyped
//! in the classic format).

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Kind, Series, Sheet, Value, bytes, milliseconds, whole};
use crate::snapshot::Memory;

const SERIES: [Series<Memory>; 19] = [
    kib("libvirt_domain_info_maximum_memory", "Most memory that the domain may have", |m| {
        bytes(m.maximum_kib)
    }),
    kib(
        "libvirt_domain_info_memory_usage",
        "Memory given to the domain (the balloon's size, not what the guest uses of it)",
        |m| bytes(m.current_kib),
    ),
    kib("libvirt_domain_memory_stats_maximum", "Most memory that the domain may have", |m| {
        bytes(m.maximum_kib)
    }),
    kib("libvirt_domain_memory_stats_current_balloon", "Memory given to the domain", |m| {
        bytes(m.current_kib)
    }),
    kib("libvirt_domain_memory_stats_unused", "Memory free in the guest (its MemFree)", |m| {
        bytes(m.unused_kib)
    }),
    kib(
        "libvirt_domain_memory_stats_available",
        "Memory that the guest's system sees (its MemTotal)",
        |m| bytes(m.available_kib),
    ),
    kib(
        "libvirt_domain_memory_stats_usable",
        "Memory that the guest could use without swapping (its MemAvailable)",
        |m| bytes(m.usable_kib),
    ),
    kib("libvirt_domain_memory_stats_disk_caches", "Page cache of the guest", |m| {
        bytes(m.disk_caches_kib)
    }),
    kib(
        "libvirt_domain_memory_stats_rss",
        "Resident memory of the domain's process on the host",
        |m| bytes(m.rss_kib),
    ),
    Series {
        name: "libvirt_domain_memory_stats_swap_in",
        unit: Some(Unit::Bytes),
        kind: Kind::Unknown,
        help: "Bytes that the guest read from its swap so far",
        value: |m| bytes(m.swap_in_kib),
    },
    Series {
        name: "libvirt_domain_memory_stats_swap_out",
        unit: Some(Unit::Bytes),
        kind: Kind::Unknown,
        help: "Bytes that the guest wrote to its swap so far",
        value: |m| bytes(m.swap_out_kib),
    },
    number(
        "libvirt_domain_memory_stats_major_fault",
        Kind::Counter,
        "Page faults in the guest that needed its disk",
        |m| whole(m.major_fault),
    ),
    number(
        "libvirt_domain_memory_stats_minor_fault",
        Kind::Counter,
        "Page faults in the guest that did not need its disk",
        |m| whole(m.minor_fault),
    ),
    number(
        "libvirt_domain_memory_stats_hugetlb_pgalloc",
        Kind::Counter,
        "Huge pages that the guest allocated so far",
        |m| whole(m.hugetlb_pgalloc),
    ),
    number(
        "libvirt_domain_memory_stats_hugetlb_pgfail",
        Kind::Counter,
        "Huge pages that the guest failed to allocate so far",
        |m| whole(m.hugetlb_pgfail),
    ),
    Series {
        name: "libvirt_domain_memory_stats_last_update_timestamp",
        unit: Some(Unit::Seconds),
        kind: Kind::Gauge,
        help: "When the guest's balloon driver last reported, since the epoch",
        value: |m| whole(m.last_update_seconds),
    },
    Series {
        name: "libvirt_domain_memory_stats_age",
        unit: Some(Unit::Seconds),
        kind: Kind::Gauge,
        help: "How long ago that was, at this scrape",
        value: |m| milliseconds(m.age_ms),
    },
    number(
        "libvirt_domain_memory_stats_used_percent",
        Kind::Gauge,
        "Part of the memory that the guest's system sees and cannot hand out, in percent",
        used_percent,
    ),
    kib(
        "libvirt_domain_memory_used",
        "Memory that the guest uses: what its system sees less what it could hand out (MemAvailable, else MemFree)",
        used,
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &SERIES {
        series.encode(sheet, guests.iter().map(|one| (one.labels(), &one.guest.memory)))?;
    }
    Ok(())
}

const fn kib(
    name: &'static str,
    help: &'static str,
    value: fn(&Memory) -> Option<Value>,
) -> Series<Memory> {
    Series { name, unit: Some(Unit::Bytes), kind: Kind::Gauge, help, value }
}

const fn number(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&Memory) -> Option<Value>,
) -> Series<Memory> {
    Series { name, unit: None, kind, help, value }
}

/// available - usable, where the guest reports no usable memory available - unused: ceilometer's rule.
fn used(memory: &Memory) -> Option<Value> {
    let free = memory.usable_kib.or(memory.unused_kib)?;
    bytes(memory.available_kib?.checked_sub(free))
}

/// (available - usable) / available, 0 to 100; absent where the guest reports neither, or nonsense.
#[expect(clippy::cast_precision_loss, reason = "2^53 KiB are 8 EiB")]
fn used_percent(memory: &Memory) -> Option<Value> {
    let available = memory.available_kib.filter(|kib| *kib > 0)?;
    let used = available.checked_sub(memory.usable_kib?)?;
    Some(Value::Real(used as f64 / available as f64 * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(available: Option<u64>, usable: Option<u64>) -> Option<Value> {
        used_percent(&Memory { available_kib: available, usable_kib: usable, ..Memory::default() })
    }

    #[test]
    fn used_percent_only_where_it_can_be_computed() {
        assert_eq!(percent(Some(200), Some(50)), Some(Value::Real(75.0)));
        assert_eq!(percent(Some(200), Some(200)), Some(Value::Real(0.0)));
        assert_eq!(percent(Some(200), Some(0)), Some(Value::Real(100.0)));
        assert_eq!(percent(Some(200), None), None);
        assert_eq!(percent(None, Some(50)), None);
        assert_eq!(percent(Some(0), Some(0)), None);
        assert_eq!(percent(Some(50), Some(200)), None);
    }

    #[test]
    fn used_memory_by_ceilometers_rule() {
        let used = |available, usable, unused| {
            let (available_kib, usable_kib, unused_kib) = (available, usable, unused);
            used(&Memory { unused_kib, available_kib, usable_kib, ..Memory::default() })
        };
        assert_eq!(used(Some(100), Some(60), Some(10)), Some(Value::Whole(40 << 10)));
        assert_eq!(used(Some(100), None, Some(10)), Some(Value::Whole(90 << 10)));
        assert_eq!(used(Some(100), None, None), None);
        assert_eq!(used(None, Some(60), Some(10)), None);
        assert_eq!(used(Some(100), Some(101), None), None);
    }

    #[test]
    fn kib_become_bytes_and_never_wrap() {
        assert_eq!(bytes(Some(131_072)), Some(Value::Whole(134_217_728)));
        assert_eq!(bytes(Some(u64::MAX)), None);
        assert_eq!(bytes(None), None);
    }
}
