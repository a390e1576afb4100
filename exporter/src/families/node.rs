//! What the host has to give to its guests, and what of it is used.

use std::fmt;

use prometheus_client::registry::Unit;

use super::{Series, Sheet, bytes, counter, encode_info, gauge, seconds, whole};
use crate::snapshot::{Host, Snapshot};

const HOST: [Series<Host>; 3] = [
    gauge("libvirt_node_cpus", None, "Processors of the host that are online", |host| {
        whole(host.cpus)
    }),
    gauge("libvirt_node_memory", Some(Unit::Bytes), "Memory of the host", |host| {
        bytes(host.memory_kib)
    }),
    gauge("libvirt_node_numa_nodes", None, "NUMA nodes of the host", |host| whole(host.numa_nodes)),
];

const CPU: Series<u64> = counter(
    "libvirt_node_cpu",
    Some(Unit::Seconds),
    "CPU time of the host in each mode (kernel, user, idle, iowait)",
    |nanoseconds| seconds(Some(*nanoseconds)),
);

const MEMORY: Series<u64> = gauge(
    "libvirt_node_memory_use",
    Some(Unit::Bytes),
    "Memory of the host by its use (free, buffers, cached)",
    |kib| bytes(Some(*kib)),
);

/// Writes the families of this file; like the number of guests, only when libvirtd answered.
pub(super) fn encode(snapshot: &Snapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let Some(host) = snapshot.host.as_ref().filter(|_| snapshot.up) else { return Ok(()) };
    for series in &HOST {
        series.encode_one(sheet, host)?;
    }
    if host.hostname.is_some() || host.cpu_model.is_some() {
        let labels =
            [("hostname", host.hostname.as_deref()), ("cpu_model", host.cpu_model.as_deref())];
        encode_info(sheet, "libvirt_node", "The host", std::iter::once(labels))?;
    }
    let modes = host.cpu_ns.iter().map(|(mode, time)| ([("mode", mode.as_str())], time));
    CPU.encode(sheet, modes)?;
    let uses = host.memory_by_use_kib.iter().map(|(kind, kib)| ([("use", kind.as_str())], kib));
    MEMORY.encode(sheet, uses)
}
