//! What the host has to give to its guests.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, bytes, whole};
use crate::snapshot::{Host, Snapshot};

const HOST: [Series<Host>; 2] = [
    Series {
        name: "libvirt_node_cpus",
        unit: None,
        kind: Kind::Gauge,
        help: "Processors of the host that are online",
        value: |host| whole(host.cpus),
    },
    Series {
        name: "libvirt_node_memory",
        unit: Some(Unit::Bytes),
        kind: Kind::Gauge,
        help: "Memory of the host",
        value: |host| bytes(host.memory_kib),
    },
];

/// Writes the families of this file; like the number of guests, only when libvirtd answered.
pub(super) fn encode(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(host) = snapshot.host.as_ref().filter(|_| snapshot.up) else { return Ok(()) };
    for series in &HOST {
        series.encode_one(encoder, host)?;
    }
    Ok(())
}
