//! Processor time of a guest as a whole.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, of_guest, seconds};
use crate::snapshot::Guest;

const SERIES: [Series<Guest>; 3] = [
    Series {
        name: "libvirt_domain_info_cpu_time",
        unit: Some(Unit::Seconds),
        kind: Kind::Counter,
        help: "CPU time that the domain used",
        value: |guest| seconds(guest.cpu.time_ns),
    },
    Series {
        name: "libvirt_domain_cpu_user",
        unit: Some(Unit::Seconds),
        kind: Kind::Counter,
        help: "CPU time that the domain's process used in user mode",
        value: |guest| seconds(guest.cpu.user_ns),
    },
    Series {
        name: "libvirt_domain_cpu_system",
        unit: Some(Unit::Seconds),
        kind: Kind::Counter,
        help: "CPU time that the domain's process used in the host's kernel",
        value: |guest| seconds(guest.cpu.system_ns),
    },
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Guest], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for series in &SERIES {
        series.encode(encoder, guests.iter().map(|guest| (of_guest(guest), guest)))?;
    }
    Ok(())
}
