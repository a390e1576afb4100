//! Disks of a guest.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::profile::Profile;
use super::{
    Info, Kind, Series, Sheet, Value, encode_guest_info, encode_guest_meta, seconds, whole,
};
use crate::snapshot::{Block, Disk};

const SERIES: [Series<Block>; 13] = [
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
    number("libvirt_domain_block_stats_errors", "Requests to the disk that failed", |b| {
        whole(b.errors)
    }),
    size(
        "libvirt_domain_block_stats_threshold",
        Kind::Gauge,
        "Offset in the image which, once written to, libvirt tells whoever set it",
        |b| whole(b.threshold_bytes),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &SERIES {
        let blocks = guests.iter().flat_map(|one| {
            one.guest.blocks.iter().map(move |block| (one.device(&block.device), block))
        });
        series.encode(sheet, blocks)?;
    }
    Ok(())
}

/// Writes what the disks are.
pub(super) fn encode_infos(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let disks = guests.iter().flat_map(|one| {
        let disks = one.guest.description.iter().flat_map(|description| &description.disks);
        disks.map(move |disk| (one, disk))
    });
    let help = "What the disk is and where it lies";
    match sheet.profile {
        Profile::Inovex => {
            let disks = disks.map(|(one, disk)| (one, inovex(disk)));
            encode_guest_info(sheet, "libvirt_domain_block_stats", help, disks)
        }
        Profile::Tinkoff => {
            let disks = disks.map(|(one, disk)| (one, tinkoff(disk)));
            encode_guest_meta(sheet, "libvirt_domain_block_meta", help, disks)
        }
    }
}

fn inovex(disk: &Disk) -> Info<'_, 13> {
    [
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
        // Beside inovex' own labels.
        ("pool", disk.pool.as_deref()),
        ("image", disk.image.as_deref()),
        ("volume_id", disk.volume_id.as_deref()),
    ]
}

fn tinkoff(disk: &Disk) -> Info<'_, 11> {
    [
        ("target_device", Some(&disk.device)),
        ("source_file", disk.source_file.as_deref()),
        ("serial", disk.serial.as_deref()),
        ("bus", disk.target_bus.as_deref()),
        ("disk_type", disk.disk_type.as_deref()),
        ("driver_type", disk.driver_type.as_deref()),
        ("cache", disk.driver_cache.as_deref()),
        ("discard", disk.driver_discard.as_deref()),
        // Beside Tinkoff's own labels.
        ("pool", disk.pool.as_deref()),
        ("image", disk.image.as_deref()),
        ("volume_id", disk.volume_id.as_deref()),
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
