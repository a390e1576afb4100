//! Network interfaces of a guest, seen from the guest: receive is what it received.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::profile::Profile;
use super::{Info, Kind, Series, Sheet, Value, encode_guest_info, encode_guest_meta, whole};
use crate::snapshot::{Interface, Nic};

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
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &SERIES {
        let interfaces = guests.iter().flat_map(|one| {
            one.guest.interfaces.iter().map(move |nic| (one.device(&nic.device), nic))
        });
        series.encode(sheet, interfaces)?;
    }
    Ok(())
}

/// Writes what the interfaces are.
pub(super) fn encode_infos(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let nics = guests.iter().flat_map(|one| {
        let nics = one.guest.description.iter().flat_map(|description| &description.nics);
        nics.map(move |nic| (one, nic))
    });
    let help = "What the interface is and where it is plugged in";
    match sheet.profile {
        Profile::Inovex => {
            let nics = nics.map(|(one, nic)| (one, inovex(nic)));
            encode_guest_info(sheet, "libvirt_domain_interface_stats", help, nics)
        }
        Profile::Tinkoff => {
            let nics = nics.map(|(one, nic)| (one, tinkoff(nic)));
            encode_guest_meta(sheet, "libvirt_domain_interface_meta", help, nics)
        }
    }
}

fn inovex(nic: &Nic) -> Info<'_, 7> {
    [
        ("target_device", Some(&nic.device)),
        ("interface_type", nic.interface_type.as_deref()),
        ("source_bridge", nic.source_bridge.as_deref()),
        ("mac_address", nic.mac_address.as_deref()),
        ("model_type", nic.model_type.as_deref()),
        ("mtu_size", nic.mtu_size.as_deref()),
        // Beside inovex' own labels.
        ("port_id", nic.port_id.as_deref()),
    ]
}

fn tinkoff(nic: &Nic) -> Info<'_, 5> {
    [
        ("target_device", Some(&nic.device)),
        ("source_bridge", nic.source_bridge.as_deref()),
        ("virtual_interface", nic.virtual_interface.as_deref()),
        // Beside Tinkoff's own labels.
        ("mac_address", nic.mac_address.as_deref()),
        ("port_id", nic.port_id.as_deref()),
    ]
}

const fn number(
    name: &'static str,
    help: &'static str,
    value: fn(&Interface) -> Option<Value>,
) -> Series<Interface> {
    Series { name, unit: None, kind: Kind::Counter, help, value }
}
