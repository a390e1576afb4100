//! Processor time of a guest as a whole.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Kind, Series, Sheet, counter, seconds};
use crate::snapshot::Guest;

const SERIES: [Series<Guest>; 5] = [
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
    counter(
        "libvirt_domain_cpu_haltpoll_success",
        Some(Unit::Seconds),
        "Time that KVM polled for halted virtual CPUs and was woken meanwhile",
        |guest| seconds(guest.cpu.haltpoll_success_ns),
    ),
    counter(
        "libvirt_domain_cpu_haltpoll_fail",
        Some(Unit::Seconds),
        "Time that KVM polled for halted virtual CPUs in vain",
        |guest| seconds(guest.cpu.haltpoll_fail_ns),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &SERIES {
        series.encode(sheet, guests.iter().map(|one| (one.labels(), one.guest)))?;
    }
    Ok(())
}
