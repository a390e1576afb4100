//! libvirt's bulk statistics, a flat list of (field name, value) a guest, folded into a `Guest`. Pure; knows the field
//! names of virConnectGetAllDomainStats and nothing of how they are fetched. Unknown fields are passed over: newer
//! libvirts report more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::snapshot::{Block, Guest, Interface, Memory, Vcpu};

mod rarities;

/// One guest's statistics as libvirt's bulk calls return them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    /// libvirt's name of the guest.
    pub(crate) name: String,
    /// Its UUID.
    pub(crate) uuid: String,
    /// libvirt's number of this run; `None` while it is shut off.
    pub(crate) id: Option<u32>,
    /// Field names and values.
    pub(crate) params: Vec<(String, Param)>,
}

impl From<Record> for Guest {
    fn from(record: Record) -> Self {
        let Record { name, uuid, id, params } = record;
        let mut guest = Self { name, uuid, id, ..Self::default() };
        fold(&mut guest, params);
        guest
    }
}

/// The value of a typed parameter; on file a number, a text or null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Param {
    /// Any of libvirt's integers that is not negative; booleans are 0 and 1.
    Whole(u64),
    /// A text, as far as it was UTF-8.
    Text(String),
    /// Negative integers and floating point: no field read here has them.
    Other,
}

impl Param {
    fn whole(&self) -> Option<u64> {
        match self {
            Self::Whole(value) => Some(*value),
            Self::Text(_) | Self::Other => None,
        }
    }
}

/// The fields that are whole numbers.
pub(crate) fn numbers(params: Vec<(String, Param)>) -> Vec<(String, u64)> {
    params.into_iter().filter_map(|(field, value)| Some((field, value.whole()?))).collect()
}

/// Whether libvirtd passed a guest over because another job held its monitor: its disks then have names but no counters,
/// and its process's memory is missing.
pub(crate) fn is_busy(detail: &Guest) -> bool {
    let no_counters = detail.blocks.iter().all(|block| block.read_requests.is_none());
    no_counters && detail.memory.rss_kib.is_none()
}

/// Adds the fields of one record to `guest`. Devices are numbered by libvirt, with holes; a device without a name
/// cannot be labelled and is left out, and so is a second one of the same name.
pub(crate) fn fold(guest: &mut Guest, params: impl IntoIterator<Item = (String, Param)>) {
    let mut blocks: BTreeMap<u32, Block> = BTreeMap::new();
    let mut interfaces: BTreeMap<u32, Interface> = BTreeMap::new();
    let mut vcpus: BTreeMap<u32, Vcpu> = BTreeMap::new();
    let mut rarities = rarities::Rarities::default();
    for (field, value) in params {
        let Some((group, rest)) = field.split_once('.') else { continue };
        let numbered =
            rest.split_once('.').and_then(|(n, key)| Some((n.parse::<u32>().ok()?, key)));
        match (group, numbered) {
            ("block", Some((number, key))) => block(blocks.entry(number).or_default(), key, value),
            ("net", Some((number, key))) => {
                interface(interfaces.entry(number).or_default(), key, value);
            }
            ("vcpu", Some((number, key))) => {
                let entry = vcpus.entry(number).or_insert(Vcpu { number, ..Vcpu::default() });
                if !vcpu(entry, key, &value) {
                    rarities.kvm(Some(number), key, &value);
                }
            }
            ("balloon", _) => memory(&mut guest.memory, rest, &value),
            _ if rarities.take(group, rest, &value) => {}
            _ => whole_guest(guest, &field, &value),
        }
    }
    rarities.finish(guest);
    guest.vcpus.each.extend(vcpus.into_values());
    for block in blocks.into_values() {
        let known = guest.blocks.iter().any(|other| other.device == block.device);
        if !block.device.is_empty() && !known {
            guest.blocks.push(block);
        }
    }
    for interface in interfaces.into_values() {
        let known = guest.interfaces.iter().any(|other| other.device == interface.device);
        if !interface.device.is_empty() && !known {
            guest.interfaces.push(interface);
        }
    }
}

fn whole_guest(guest: &mut Guest, field: &str, value: &Param) {
    let value = value.whole();
    match field {
        "state.state" => guest.state = value,
        "state.reason" => guest.state_reason = value,
        "cpu.time" => guest.cpu.time_ns = value,
        "cpu.user" => guest.cpu.user_ns = value,
        "cpu.system" => guest.cpu.system_ns = value,
        "cpu.haltpoll.success.time" => guest.cpu.haltpoll_success_ns = value,
        "cpu.haltpoll.fail.time" => guest.cpu.haltpoll_fail_ns = value,
        "vcpu.current" => guest.vcpus.current = value,
        "vcpu.maximum" => guest.vcpus.maximum = value,
        _ => {}
    }
}

fn memory(memory: &mut Memory, key: &str, value: &Param) {
    let value = value.whole();
    match key {
        "current" => memory.current_kib = value,
        "maximum" => memory.maximum_kib = value,
        "swap_in" => memory.swap_in_kib = value,
        "swap_out" => memory.swap_out_kib = value,
        "major_fault" => memory.major_fault = value,
        "minor_fault" => memory.minor_fault = value,
        "unused" => memory.unused_kib = value,
        "available" => memory.available_kib = value,
        "usable" => memory.usable_kib = value,
        // 0 as long as the balloon driver has never reported.
        "last-update" => memory.last_update_seconds = value.filter(|seconds| *seconds > 0),
        "disk_caches" => memory.disk_caches_kib = value,
        "hugetlb_pgalloc" => memory.hugetlb_pgalloc = value,
        "hugetlb_pgfail" => memory.hugetlb_pgfail = value,
        "rss" => memory.rss_kib = value,
        _ => {}
    }
}

/// False where the field is none of these.
fn vcpu(vcpu: &mut Vcpu, key: &str, value: &Param) -> bool {
    let value = value.whole();
    match key {
        "state" => vcpu.state = value,
        "time" => vcpu.time_ns = value,
        "wait" => vcpu.wait_ns = value,
        "delay" => vcpu.delay_ns = value,
        "halted" => vcpu.halted = value,
        _ => return false,
    }
    true
}

fn block(block: &mut Block, key: &str, value: Param) {
    if key == "name" {
        if let Param::Text(name) = value {
            block.device = name;
        }
        return;
    }
    let value = value.whole();
    match key {
        "rd.reqs" => block.read_requests = value,
        "rd.bytes" => block.read_bytes = value,
        "rd.times" => block.read_time_ns = value,
        "wr.reqs" => block.write_requests = value,
        "wr.bytes" => block.write_bytes = value,
        "wr.times" => block.write_time_ns = value,
        "fl.reqs" => block.flush_requests = value,
        "fl.times" => block.flush_time_ns = value,
        "capacity" => block.capacity_bytes = value,
        "allocation" => block.allocation_bytes = value,
        "physical" => block.physical_bytes = value,
        "errors" => block.errors = value,
        "threshold" => block.threshold_bytes = value,
        _ => {}
    }
}

fn interface(interface: &mut Interface, key: &str, value: Param) {
    if key == "name" {
        if let Param::Text(name) = value {
            interface.device = name;
        }
        return;
    }
    let value = value.whole();
    match key {
        "rx.bytes" => interface.receive_bytes = value,
        "rx.pkts" => interface.receive_packets = value,
        "rx.errs" => interface.receive_errors = value,
        "rx.drop" => interface.receive_drops = value,
        "tx.bytes" => interface.transmit_bytes = value,
        "tx.pkts" => interface.transmit_packets = value,
        "tx.errs" => interface.transmit_errors = value,
        "tx.drop" => interface.transmit_drops = value,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as `virsh domstats` prints them.
    fn guest(lines: &str) -> Guest {
        let mut guest = Guest::default();
        fold(
            &mut guest,
            lines.lines().map(|line| {
                let (field, value) = line.trim().split_once('=').unwrap();
                let param = value.parse().map_or_else(|_| Param::Text(value.into()), Param::Whole);
                (field.to_owned(), param)
            }),
        );
        guest
    }

    #[test]
    fn fields_reach_their_places_and_missing_ones_stay_missing() {
        let guest = guest(
            "state.state=1\ncpu.time=3900333000\ncpu.user=3121034000\nballoon.current=131072\n\
             balloon.last-update=1795235828\nvcpu.current=1\nvcpu.0.time=3380000000\nblock.count=1\n\
             block.0.name=vda\nblock.0.rd.bytes=4198912\nblock.0.fl.times=0\nnet.count=1\n\
             net.0.name=tap201\nnet.0.rx.pkts=34\nsome.new.field=7\nodd=1",
        );
        assert_eq!(guest.state, Some(1));
        assert_eq!(guest.cpu.time_ns, Some(3_900_333_000));
        assert_eq!(guest.cpu.system_ns, None);
        assert_eq!(guest.memory.current_kib, Some(131_072));
        assert_eq!(guest.memory.last_update_seconds, Some(1_795_235_828));
        assert_eq!(guest.memory.rss_kib, None);
        assert_eq!(guest.vcpus.current, Some(1));
        assert_eq!(guest.vcpus.each[0].time_ns, Some(3_380_000_000));
        assert_eq!(guest.vcpus.each[0].delay_ns, None);
        assert_eq!(guest.blocks[0].read_bytes, Some(4_198_912));
        assert_eq!(guest.blocks[0].flush_time_ns, Some(0));
        assert_eq!(guest.blocks[0].write_bytes, None);
        assert_eq!(guest.interfaces[0].receive_packets, Some(34));
    }

    #[test]
    fn holes_in_the_numbering_keep_the_numbers() {
        let guest = guest(
            "vcpu.current=2\nvcpu.7.state=1\nvcpu.0.state=1\nnet.count=3\nnet.2.name=tap2\n\
             net.2.tx.drop=5\nnet.0.name=tap0\nvcpu.4000000000.time=1",
        );
        let numbers: Vec<u32> = guest.vcpus.each.iter().map(|vcpu| vcpu.number).collect();
        assert_eq!(numbers, [0, 7, 4_000_000_000]);
        let devices: Vec<&str> = guest.interfaces.iter().map(|nic| nic.device.as_str()).collect();
        assert_eq!(devices, ["tap0", "tap2"]);
        assert_eq!(guest.interfaces[1].transmit_drops, Some(5));
    }

    #[test]
    fn nameless_and_repeated_devices_are_left_out() {
        let guest = guest(
            "block.0.rd.bytes=1\nblock.1.name=vda\nblock.1.rd.bytes=2\nblock.2.name=vda\n\
             block.2.rd.bytes=3\nblock.x.name=vdx\nblock.-1.name=vdy",
        );
        assert_eq!(guest.blocks.len(), 1);
        assert_eq!(guest.blocks[0].read_bytes, Some(2));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_missing_not_zero() {
        let mut guest = Guest::default();
        fold(
            &mut guest,
            [
                ("cpu.time".to_owned(), Param::Text("1".to_owned())),
                ("state.state".to_owned(), Param::Other),
                ("block.0.name".to_owned(), Param::Whole(5)),
            ],
        );
        assert_eq!(guest, Guest::default());
    }
}
