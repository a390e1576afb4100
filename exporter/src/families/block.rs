//! Disks of a guest.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, Value, encode_info, of_device, seconds, whole};
use crate::snapshot::{Block, Disk, Guest};

const SERIES: [Series<Block>; 11] = [
    size("libvirt_domain_block_stats_read", Kind::Counter, "Bytes read from the disk", |b| {
        whole(b.read_bytes)
    }),
    number("libvirt_domain_block_stats_read_requests", "Read requests to the disk", |b| {
        whole(b.read_requests)
    }),
    time("libvirt_domain_block_stats_read_time", "Time spent on reads from the disk", |b| {
        seconds(b.read_time_ns)
    }),
    size("libvirt_domain_block_stats_write", Kind::Counter, "Bytes written to the disk", |b| {
        whole(b.write_bytes)
    }),
    number("libvirt_domain_block_stats_write_requests", "Write requests to the disk", |b| {
        whole(b.write_requests)
    }),
    time("libvirt_domain_block_stats_write_time", "Time spent on writes to the disk", |b| {
        seconds(b.write_time_ns)
    }),
    number("libvirt_domain_block_stats_flush_requests", "Flush requests to the disk", |b| {
        whole(b.flush_requests)
    }),
    time("libvirt_domain_block_stats_flush_time", "Time spent on flushes of the disk", |b| {
        seconds(b.flush_time_ns)
    }),
    size("libvirt_domain_block_stats_capacity", Kind::Gauge, "Size of the disk", |b| {
        whole(b.capacity_bytes)
    }),
    size(
        "libvirt_domain_block_stats_allocation",
        Kind::Gauge,
        "Bytes that the disk's image takes on the host's storage",
        |b| whole(b.allocation_bytes),
    ),
    size(
        "libvirt_domain_block_stats_physical",
        Kind::Gauge,
        "Size of the file or device that holds the disk's image",
        |b| whole(b.physical_bytes),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Guest], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for series in &SERIES {
        let blocks = guests.iter().flat_map(|guest| {
            guest.blocks.iter().map(move |block| (of_device(guest, &block.device), block))
        });
        series.encode(encoder, blocks)?;
    }
    let disks = guests.iter().flat_map(|guest| {
        let disks = guest.description.iter().flat_map(|description| &description.disks);
        disks.map(move |disk| labels(guest, disk))
    });
    encode_info(encoder, "libvirt_domain_block_stats", "What the disk is and where it lies", disks)
}

fn labels<'a>(guest: &'a Guest, disk: &'a Disk) -> [(&'static str, Option<&'a str>); 12] {
    [
        ("domain", Some(&guest.name)),
        ("uuid", Some(&guest.uuid)),
        ("target_device", Some(&disk.device)),
        ("disk_type", disk.disk_type.as_deref()),
        ("target_bus", disk.target_bus.as_deref()),
        ("driver_name", disk.driver_name.as_deref()),
        ("driver_type", disk.driver_type.as_deref()),
        ("driver_cache", disk.driver_cache.as_deref()),
        ("driver_discard", disk.driver_discard.as_deref()),
        ("source_file", disk.source_file.as_deref()),
        ("source_protocol", disk.source_protocol.as_deref()),
        ("serial", disk.serial.as_deref()),
    ]
}

const fn size(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&Block) -> Option<Value>,
) -> Series<Block> {
    Series { name, unit: Some(Unit::Bytes), kind, help, value }
}

const fn number(
    name: &'static str,
    help: &'static str,
    value: fn(&Block) -> Option<Value>,
) -> Series<Block> {
    Series { name, unit: None, kind: Kind::Counter, help, value }
}

const fn time(
    name: &'static str,
    help: &'static str,
    value: fn(&Block) -> Option<Value>,
) -> Series<Block> {
    Series { name, unit: Some(Unit::Seconds), kind: Kind::Counter, help, value }
}
