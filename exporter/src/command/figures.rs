//! Guests' figures as tables: external traffic, Kanyun's families, who a guest is. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::table::Table;
use crate::snapshot::{Flow, Guest, Traffic};

/// What rules have counted and, where they were looked at before, what came since.
pub(super) fn traffic(now: &Traffic, before: Option<&Traffic>, guests: Option<&[Guest]>) -> Table {
    let mut head = vec!["GUEST", "UUID", "ADDRESS", "DIRECTION", "BYTES", "PACKETS"];
    head.extend(before.map(|_| "NEW BYTES"));
    let mut table = Table::new(&head);
    let key = |flow: &Flow| (flow.guest.clone(), flow.ip, flow.direction);
    let past: HashMap<_, u64> = before
        .into_iter()
        .flat_map(|traffic| &traffic.flows)
        .map(|flow| (key(flow), flow.bytes))
        .collect();
    for flow in &now.flows {
        let owner = guests.and_then(|guests| {
            guests.iter().find(|guest| [&guest.name, &guest.uuid].contains(&&flow.guest))
        });
        let uuid = match (owner, guests) {
            (Some(guest), _) => guest.uuid.clone(),
            (None, Some(_)) => "(not on this host)".to_owned(),
            (None, None) => "(libvirt does not answer)".to_owned(),
        };
        let new = before.map(|_| match past.get(&key(flow)) {
            Some(past) if *past <= flow.bytes => (flow.bytes - past).to_string(),
            // Zeroed or made anew since: what it shows came since.
            _ => flow.bytes.to_string(),
        });
        let name = owner.map_or(&flow.guest, |guest| &guest.name).clone();
        let ends = [name, uuid, flow.ip.to_string(), flow.direction.name().to_owned()];
        let counts = [flow.bytes.to_string(), flow.packets.to_string()];
        table.row(ends.into_iter().chain(counts).chain(new));
    }
    table
}

/// Guests' figures in Kanyun's families (kanyun-legacy.md): counters since the guest's process started and, with a look
/// into the past, what came since; cpu in percent of one processor then.
pub(super) fn guests(now: &[Guest], past: Option<(Duration, &[Guest])>) -> Table {
    let mut head = vec!["GUEST", "METRIC", "DEVICE", "VALUE", "UNIT"];
    head.extend(past.map(|_| "NEW"));
    let mut table = Table::new(&head);
    for guest in now {
        let before = past.and_then(|(_, guests)| {
            guests.iter().find(|other| other.uuid == guest.uuid && other.id == guest.id)
        });
        let before: HashMap<_, _> = before.into_iter().flat_map(figures).collect();
        for (key, value) in figures(guest) {
            let (metric, device) = &key;
            let new = past.map(|(elapsed, _)| match (before.get(&key), unit(metric)) {
                (Some(old), "seconds") => percent(value.saturating_sub(*old), elapsed),
                (Some(old), "bytes") => value.saturating_sub(*old).to_string(),
                _ => String::new(),
            });
            let shown = if unit(metric) == "seconds" { seconds(value) } else { value.to_string() };
            let unit = unit(metric).to_owned();
            let cells = [guest.name.clone(), (*metric).to_owned(), device.clone(), shown, unit];
            table.row(cells.into_iter().chain(new));
        }
    }
    table
}

type Key = (&'static str, String);

/// The figures that are known; cpu in nanoseconds.
fn figures(guest: &Guest) -> Vec<(Key, u64)> {
    let memory = &guest.memory;
    let free = memory.maximum_kib.zip(memory.current_kib);
    let total = [
        ("cpu", guest.cpu.time_ns),
        ("mem_max", memory.maximum_kib),
        ("mem_free", free.map(|(maximum, current)| maximum.saturating_sub(current))),
    ];
    let total = total.map(|(metric, value)| (metric, "total", value));
    let nics = guest.interfaces.iter().flat_map(|nic| {
        let device = nic.device.as_str();
        [("nic_incoming", device, nic.receive_bytes), ("nic_outgoing", device, nic.transmit_bytes)]
    });
    let disks = guest.blocks.iter().flat_map(|disk| {
        let device = disk.device.as_str();
        [("blk_read", device, disk.read_bytes), ("blk_write", device, disk.write_bytes)]
    });
    let all = total.into_iter().chain(nics).chain(disks);
    all.filter_map(|(metric, device, value)| Some(((metric, device.to_owned()), value?))).collect()
}

fn unit(metric: &str) -> &'static str {
    match metric {
        "cpu" => "seconds",
        "mem_max" | "mem_free" => "KiB",
        _ => "bytes",
    }
}

fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1_000)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage is shown with two digits")]
fn percent(nanoseconds: u64, elapsed: Duration) -> String {
    format!("{:.2} %", nanoseconds as f64 / 1e7 / elapsed.as_secs_f64())
}

/// Who a guest is.
pub(super) fn identity(guest: &Guest) -> Table {
    let nova = guest.description.as_ref().and_then(|text| text.nova.clone()).unwrap_or_default();
    let addresses: Vec<String> = nova.fixed_addresses.iter().map(ToString::to_string).collect();
    let number = guest.name.strip_prefix("instance-").map(|hex| u64::from_str_radix(hex, 16));
    let lines = [
        ("libvirt's name", Some(guest.name.clone())),
        ("uuid", Some(guest.uuid.clone())),
        ("nova's number", number.and_then(Result::ok).map(|number| number.to_string())),
        ("nova's name", nova.instance_name),
        ("flavor", nova.flavor_name),
        ("project", nova.project_name),
        ("project id", nova.project_id),
        ("user", nova.user_name),
        ("user id", nova.user_id),
        ("addresses", (!addresses.is_empty()).then(|| addresses.join(", "))),
    ];
    let mut table = Table::new(&["GUEST", guest.name.as_str()]);
    for (name, value) in lines {
        if let Some(value) = value {
            table.row([name.to_owned(), value]);
        }
    }
    table
}

#[cfg(test)]
mod tests;
