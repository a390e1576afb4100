//! `<disk>` and `<interface>` of a guest's XML: what they are, where they lie, what limits them.

use std::collections::HashSet;

use roxmltree::Node;

use super::{attribute, child, children, number_of, text_of};
use crate::snapshot::{Bandwidth, Disk, Nic};

/// The limits that `<iotune>` knows, in the order of virDomainGetBlockIoTune.
const IO_LIMITS: [&str; 19] = [
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
    "total_bytes_sec_max",
    "read_bytes_sec_max",
    "write_bytes_sec_max",
    "total_iops_sec_max",
    "read_iops_sec_max",
    "write_iops_sec_max",
    "total_bytes_sec_max_length",
    "read_bytes_sec_max_length",
    "write_bytes_sec_max_length",
    "total_iops_sec_max_length",
    "read_iops_sec_max_length",
    "write_iops_sec_max_length",
    "size_iops_sec",
];
/// Characters of a port's id in the name of the device that Neutron makes for it (`tap0a1b2c3d-4e`).
const PORT_PREFIX: usize = 11;

/// Disks that have a target device; no device twice.
pub(super) fn disks(devices: Node<'_, '_>) -> Vec<Disk> {
    let mut seen = HashSet::new();
    let disks = children(devices, "disk").filter_map(disk);
    disks.filter(|disk| seen.insert(disk.device.clone())).collect()
}

/// Interfaces that can be named; no name twice. `ports` are Neutron's.
pub(super) fn nics(devices: Node<'_, '_>, ports: &[String]) -> Vec<Nic> {
    let mut seen = HashSet::new();
    let nics = children(devices, "interface").filter_map(|node| nic(node, ports));
    nics.filter(|nic| seen.insert(nic.device.clone())).collect()
}

fn disk(node: Node<'_, '_>) -> Option<Disk> {
    let target = child(node, "target")?;
    let driver = child(node, "driver");
    let source = child(node, "source");
    let of_driver = |name| driver.and_then(|driver| attribute(driver, name));
    let of_source = |name| source.and_then(|source| attribute(source, name));
    let source_protocol = of_source("protocol");
    let name = of_source("name");
    let is_rbd = source_protocol.as_deref() == Some("rbd");
    let (pool, image) = match name.as_deref().filter(|_| is_rbd).map(|name| name.split_once('/')) {
        Some(Some((pool, image))) => (Some(pool.to_owned()), Some(image.to_owned())),
        _ => (None, None),
    };
    let serial = child(node, "serial").and_then(text_of);
    let of_image =
        image.as_deref().and_then(|image| image.rsplit('/').next()?.strip_prefix("volume-"));
    let volume_id = of_image.or(serial.as_deref()).filter(|id| is_uuid(id)).map(str::to_owned);
    Some(Disk {
        device: attribute(target, "dev")?,
        disk_type: attribute(node, "type"),
        target_bus: attribute(target, "bus"),
        driver_name: of_driver("name"),
        driver_type: of_driver("type"),
        driver_cache: of_driver("cache"),
        driver_discard: of_driver("discard"),
        source_file: of_source("file").or_else(|| of_source("dev")).or(name),
        source_protocol,
        serial,
        pool,
        image,
        volume_id,
        limits: child(node, "iotune").map(io_limits).unwrap_or_default(),
    })
}

/// Limits that are set; 0 means none.
fn io_limits(iotune: Node<'_, '_>) -> Vec<(&'static str, u64)> {
    let limits =
        IO_LIMITS.iter().filter_map(|name| Some((*name, number_of(child(iotune, name)?)?)));
    limits.filter(|(_, limit)| *limit > 0).collect()
}

fn nic(node: Node<'_, '_>, ports: &[String]) -> Option<Nic> {
    let of = |element, name| child(node, element).and_then(|element| attribute(element, name));
    let mac_address = of("mac", "address");
    let target = of("target", "dev");
    let virtual_interface = child(node, "virtualport")
        .and_then(|port| child(port, "parameters"))
        .and_then(|parameters| attribute(parameters, "interfaceid"));
    let named_after = |port: &&String| {
        let begin = port.get(..PORT_PREFIX);
        target.as_deref().zip(begin).is_some_and(|(device, begin)| device.ends_with(begin))
    };
    let port_id = virtual_interface.clone().or_else(|| ports.iter().find(named_after).cloned());
    let limit = |name| {
        let limits = child(node, "bandwidth").and_then(|bandwidth| child(bandwidth, name));
        limits.map(bandwidth).unwrap_or_default()
    };
    Some(Nic {
        device: target.or_else(|| of("alias", "name")).or_else(|| mac_address.clone())?,
        interface_type: attribute(node, "type"),
        source_bridge: of("source", "bridge"),
        mac_address,
        model_type: of("model", "type"),
        mtu_size: of("mtu", "size"),
        virtual_interface,
        port_id,
        // libvirt's words are the guest's: inbound is what it receives.
        receive_limit: limit("inbound"),
        transmit_limit: limit("outbound"),
    })
}

/// libvirt hands average and peak to tc as kbps, thousands of bytes a second, and burst as kb, KiB.
fn bandwidth(node: Node<'_, '_>) -> Bandwidth {
    let of = |name, factor: u64| attribute(node, name)?.parse::<u64>().ok()?.checked_mul(factor);
    Bandwidth {
        average_bytes: of("average", 1000),
        peak_bytes: of("peak", 1000),
        burst_bytes: of("burst", 1024),
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}
