//! Virtual processors: how many, and what each did.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, of_guest, seconds, whole};
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

const VCPU: [Series<Vcpu>; 4] = [
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
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Guest], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for series in &GUEST {
        series.encode(encoder, guests.iter().map(|guest| (of_guest(guest), guest)))?;
    }
    let numbered: Vec<(&Guest, &Vcpu, String)> = guests
        .iter()
        .flat_map(|guest| guest.vcpus.each.iter().map(move |vcpu| (guest, vcpu)))
        .map(|(guest, vcpu)| (guest, vcpu, vcpu.number.to_string()))
        .collect();
    for series in &VCPU {
        series.encode(
            encoder,
            numbered.iter().map(|(guest, vcpu, number)| {
                let [domain, uuid] = of_guest(guest);
                ([domain, uuid, ("vcpu", number.as_str())], *vcpu)
            }),
        )?;
    }
    Ok(())
}
