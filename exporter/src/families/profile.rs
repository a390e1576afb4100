//! Whose metric names are used. The tables of the families have inovex' names; here is what others call the same thing.

use prometheus_client::registry::Unit;

/// Whose metric names are used; the 17 core names are the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Those of inovex/prometheus-libvirt-exporter.
    Inovex,
    /// Those of Tinkoff/libvirt-exporter; what it does not have keeps its name.
    Tinkoff,
}

/// Inovex' name without unit, Tinkoff's, and whether its unit is part of Tinkoff's too.
const TINKOFF: [(&str, &str, bool); 8] = [
    ("libvirt_domain_info_state", "libvirt_domain_info_vstate", true),
    ("libvirt_domain_block_stats_allocation", "libvirt_domain_block_stats_allocation", false),
    ("libvirt_domain_block_stats_physical", "libvirt_domain_block_stats_physicalsize", true),
    (
        "libvirt_domain_memory_stats_current_balloon",
        "libvirt_domain_memory_stats_actual_balloon",
        true,
    ),
    ("libvirt_domain_memory_stats_disk_caches", "libvirt_domain_memory_stats_disk_cache", true),
    ("libvirt_storage_pool_capacity", "libvirt_pool_info_capacity", true),
    ("libvirt_storage_pool_allocation", "libvirt_pool_info_allocation", true),
    ("libvirt_storage_pool_available", "libvirt_pool_info_available", true),
];

impl Profile {
    /// The name and the unit of a family whose inovex name this is.
    pub(crate) fn name<'a>(
        self,
        name: &'a str,
        unit: Option<&'a Unit>,
    ) -> (&'a str, Option<&'a Unit>) {
        if self == Self::Inovex {
            return (name, unit);
        }
        match TINKOFF.iter().find(|(inovex, ..)| *inovex == name) {
            Some((_, tinkoff, has_unit)) => (*tinkoff, unit.filter(|_| *has_unit)),
            None => (name, unit),
        }
    }
}
