//! Virtual processors: how many, and what each did.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Kind, Series, Sheet, gauge, seconds, whole};
use crate::snapshot::{Guest, Vcpu};

const GUEST: [Series<Guest>; 3] = [
    Series {
        name: "libvirt_domain_info_virtual_cpus",
        unit: None,
        kind: Kind::Gauge,
        help: "Number of virtual CPUs for the domain",
        value: |guest| whole(guest.vcpus.current),
    },
    Series {
        name: "libvirt_domain_vcpu_current",
        unit: None,
        kind: Kind::Gauge,
        help: "Number of virtual CPUs that are online",
        value: |guest| whole(guest.vcpus.current),
    },
    Series {
        name: "libvirt_domain_vcpu_maximum",
        unit: None,
        kind: Kind::Gauge,
        help: "Number of virtual CPUs that can be online",
        value: |guest| whole(guest.vcpus.maximum),
    },
];

const VCPU: [Series<Vcpu>; 5] = [
    Series {
        name: "libvirt_domain_vcpu_state",
        unit: None,
        kind: Kind::Gauge,
        help: "State of the virtual CPU: 0 offline, 1 running, 2 blocked",
        value: |vcpu| whole(vcpu.state),
    },
    Series {
        name: "libvirt_domain_vcpu_time",
        unit: Some(Unit::Seconds),
        kind: Kind::Counter,
        help: "Time that the virtual CPU ran",
        value: |vcpu| seconds(vcpu.time_ns),
    },
    Series {
        name: "libvirt_domain_vcpu_wait",
        unit: Some(Unit::Seconds),
        kind: Kind::Counter,
        help: "Time that the virtual CPU waited on input and output",
        value: |vcpu| seconds(vcpu.wait_ns),
    },
    Series {
        name: "libvirt_domain_vcpu_delay",
        unit: Some(Unit::Seconds),
        kind: Kind::Counter,
        help: "Time that the virtual CPU waited in the host's run queue, which the domain sees as steal",
        value: |vcpu| seconds(vcpu.delay_ns),
    },
    gauge(
        "libvirt_domain_vcpu_halted",
        None,
        "Whether the virtual CPU is halted, waiting for an interrupt",
        |vcpu| whole(vcpu.halted),
    ),
];

/// Only where it was asked for.
const PLACE: Series<Vcpu> = gauge(
    "libvirt_domain_vcpu_cpu",
    None,
    "Number of the host's CPU that the virtual CPU ran on last",
    |vcpu| whole(vcpu.host_cpu),
);

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &GUEST {
        series.encode(sheet, guests.iter().map(|one| (one.labels(), one.guest)))?;
    }
    of_each(&VCPU, guests, sheet)
}

/// Writes on which of the host's CPUs they ran.
pub(super) fn encode_places(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    of_each(&[PLACE], guests, sheet)
}

fn of_each(table: &[Series<Vcpu>], guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let numbered: Vec<(&Subject<'_>, &Vcpu, String)> = guests
        .iter()
        .flat_map(|one| one.guest.vcpus.each.iter().map(move |vcpu| (one, vcpu)))
        .map(|(one, vcpu)| (one, vcpu, vcpu.number.to_string()))
        .collect();
    for series in table {
        let items = numbered.iter();
        series.encode(
            sheet,
            items.map(|(one, vcpu, number)| (one.with([("vcpu", number)]), *vcpu)),
        )?;
    }
    Ok(())
}
