//! Network interfaces of a guest, seen from the guest: receive is what it received.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, Value, encode_info, of_device, whole};
use crate::snapshot::{Guest, Interface, Nic};

const SERIES: [Series<Interface>; 8] = [
    Series {
        name: "libvirt_domain_interface_stats_receive",
        unit: Some(Unit::Bytes),
        kind: Kind::Counter,
        help: "Bytes that the domain received on the interface",
        value: |i| whole(i.receive_bytes),
    },
    number(
        "libvirt_domain_interface_stats_receive_packets",
        "Packets that the domain received on the interface",
        |i| whole(i.receive_packets),
    ),
    number(
        "libvirt_domain_interface_stats_receive_errors",
        "Errors in receiving on the interface",
        |i| whole(i.receive_errors),
    ),
    number(
        "libvirt_domain_interface_stats_receive_drops",
        "Packets dropped in receiving on the interface",
        |i| whole(i.receive_drops),
    ),
    Series {
        name: "libvirt_domain_interface_stats_transmit",
        unit: Some(Unit::Bytes),
        kind: Kind::Counter,
        help: "Bytes that the domain sent on the interface",
        value: |i| whole(i.transmit_bytes),
    },
    number(
        "libvirt_domain_interface_stats_transmit_packets",
        "Packets that the domain sent on the interface",
        |i| whole(i.transmit_packets),
    ),
    number(
        "libvirt_domain_interface_stats_transmit_errors",
        "Errors in sending on the interface",
        |i| whole(i.transmit_errors),
    ),
    number(
        "libvirt_domain_interface_stats_transmit_drops",
        "Packets dropped in sending on the interface",
        |i| whole(i.transmit_drops),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Guest], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for series in &SERIES {
        let interfaces = guests.iter().flat_map(|guest| {
            guest.interfaces.iter().map(move |nic| (of_device(guest, &nic.device), nic))
        });
        series.encode(encoder, interfaces)?;
    }
    let nics = guests.iter().flat_map(|guest| {
        let nics = guest.description.iter().flat_map(|description| &description.nics);
        nics.map(move |nic| labels(guest, nic))
    });
    let help = "What the interface is and where it is plugged in";
    encode_info(encoder, "libvirt_domain_interface_stats", help, nics)
}

fn labels<'a>(guest: &'a Guest, nic: &'a Nic) -> [(&'static str, Option<&'a str>); 8] {
    [
        ("domain", Some(&guest.name)),
        ("uuid", Some(&guest.uuid)),
        ("target_device", Some(&nic.device)),
        ("interface_type", nic.interface_type.as_deref()),
        ("source_bridge", nic.source_bridge.as_deref()),
        ("mac_address", nic.mac_address.as_deref()),
        ("model_type", nic.model_type.as_deref()),
        ("mtu_size", nic.mtu_size.as_deref()),
    ]
}

const fn number(
    name: &'static str,
    help: &'static str,
    value: fn(&Interface) -> Option<Value>,
) -> Series<Interface> {
    Series { name, unit: None, kind: Kind::Counter, help, value }
}
