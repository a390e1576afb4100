//! Fields of libvirt's bulk statistics that only some guests have: hardware counters, monitored caches and bandwidth,
//! threads for input and output, dirty rate, KVM's counters. Pure.

use std::collections::BTreeMap;

use super::Param;
use crate::snapshot::{
    BandwidthMonitor, CacheMonitor, DirtyRate, Guest, Iothread, KvmStat, PerfEvent,
};

/// virDomainDirtyRateStatus: the last measurement has come to its end, so that its figures are whole.
const MEASURED: u64 = 2;

/// What was found so far of one guest.
#[derive(Default)]
pub(super) struct Rarities {
    perf: Vec<PerfEvent>,
    iothreads: BTreeMap<u32, Iothread>,
    kvm: BTreeMap<(Option<u32>, String), KvmStat>,
    dirty_status: Option<u64>,
    dirty_rate: DirtyRate,
    caches: BTreeMap<u32, Monitored>,
    bandwidths: BTreeMap<u32, Monitored>,
}

/// A monitored group: its name, and the figures of each bank or node.
#[derive(Default)]
struct Monitored {
    name: Option<String>,
    parts: BTreeMap<u32, Part>,
}

#[derive(Default)]
struct Part {
    id: Option<u64>,
    bytes: Option<u64>,
    local: Option<u64>,
    total: Option<u64>,
}

impl Rarities {
    /// Takes a field, split after its first word; false where it is none of these.
    pub(super) fn take(&mut self, group: &str, rest: &str, value: &Param) -> bool {
        match group {
            "perf" => {
                let value = value.whole();
                self.perf.extend(value.map(|value| PerfEvent { event: rest.to_owned(), value }));
            }
            "iothread" => self.iothread(rest, value),
            "dirtyrate" => self.dirty_rate(rest, value),
            "vm" => self.kvm(None, rest, value),
            "cpu" => match rest.strip_prefix("cache.monitor.") {
                Some(rest) => monitored(&mut self.caches, "bank", rest, value),
                None => return false,
            },
            "memory" => match rest.strip_prefix("bandwidth.monitor.") {
                Some(rest) => monitored(&mut self.bandwidths, "node", rest, value),
                None => return false,
            },
            _ => return false,
        }
        true
    }

    /// Takes `<stat>.cur`, `<stat>.sum` or `<stat>.max`.
    pub(super) fn kvm(&mut self, vcpu: Option<u32>, key: &str, value: &Param) {
        let (Some((stat, kind)), Some(value)) = (key.rsplit_once('.'), value.whole()) else {
            return;
        };
        let entry = self.kvm.entry((vcpu, stat.to_owned())).or_default();
        match kind {
            "cur" => entry.current = Some(value),
            "sum" => entry.sum = Some(value),
            "max" => entry.peak = Some(value),
            _ => {}
        }
    }

    fn iothread(&mut self, rest: &str, value: &Param) {
        let Some((number, key)) = numbered(rest) else { return };
        let thread = self.iothreads.entry(number).or_default();
        thread.number = number;
        let value = value.whole();
        match key {
            "poll-max-ns" => thread.poll_max_ns = value,
            "poll-grow" => thread.poll_grow = value,
            "poll-shrink" => thread.poll_shrink = value,
            _ => {}
        }
    }

    fn dirty_rate(&mut self, rest: &str, value: &Param) {
        let value = value.whole();
        match rest {
            "calc_status" => self.dirty_status = value,
            "calc_start_time" => self.dirty_rate.start_seconds = value,
            "calc_period" => self.dirty_rate.period_seconds = value,
            "megabytes_per_second" => self.dirty_rate.mib_per_second = value,
            _ => {
                let vcpu = rest.strip_prefix("vcpu.").and_then(numbered);
                if let (Some((number, "megabytes_per_second")), Some(value)) = (vcpu, value) {
                    self.dirty_rate.vcpus.push((u64::from(number), value));
                }
            }
        }
    }

    /// Hands all of it over.
    pub(super) fn finish(self, guest: &mut Guest) {
        guest.perf.extend(self.perf);
        guest.iothreads.extend(self.iothreads.into_values());
        if self.dirty_status == Some(MEASURED) {
            guest.dirty_rate = self.dirty_rate;
        }
        let stats = self.kvm.into_iter();
        guest.kvm.extend(stats.map(|((vcpu, stat), found)| KvmStat { vcpu, stat, ..found }));
        for (monitor, part) in parts(self.caches) {
            if let (Some(bank), Some(bytes)) = (part.id, part.bytes) {
                guest.cache_monitors.push(CacheMonitor { monitor, bank, bytes });
            }
        }
        for (monitor, part) in parts(self.bandwidths) {
            if let Some(node) = part.id {
                let (local_bytes, total_bytes) = (part.local, part.total);
                let found = BandwidthMonitor { monitor, node, local_bytes, total_bytes };
                guest.bandwidth_monitors.push(found);
            }
        }
    }
}

/// `0.name`, `0.bank.1.id`, `0.bank.1.bytes`, `0.node.1.bytes.local`.
fn monitored(groups: &mut BTreeMap<u32, Monitored>, what: &str, rest: &str, value: &Param) {
    let Some((number, key)) = numbered(rest) else { return };
    let group = groups.entry(number).or_default();
    if let ("name", Param::Text(name)) = (key, value) {
        group.name = Some(name.clone());
        return;
    }
    let part = key.strip_prefix(what).and_then(|key| numbered(key.strip_prefix('.')?));
    let Some((number, key)) = part else { return };
    let part = group.parts.entry(number).or_default();
    let value = value.whole();
    match key {
        "id" => part.id = value,
        "bytes" => part.bytes = value,
        "bytes.local" => part.local = value,
        "bytes.total" => part.total = value,
        _ => {}
    }
}

/// Each part with its group's name; a group without one cannot be labelled, and of two of one name and id the first is
/// kept.
fn parts(groups: BTreeMap<u32, Monitored>) -> Vec<(String, Part)> {
    let mut found: Vec<(String, Part)> = Vec::new();
    for group in groups.into_values() {
        let Some(name) = group.name else { continue };
        for part in group.parts.into_values() {
            let known = found.iter().any(|(other, known)| *other == name && known.id == part.id);
            if !known {
                found.push((name.clone(), part));
            }
        }
    }
    found
}

fn numbered(rest: &str) -> Option<(u32, &str)> {
    let (number, key) = rest.split_once('.')?;
    Some((number.parse().ok()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(fields: &[(&str, u64)], names: &[(&str, &str)]) -> Guest {
        let mut guest = Guest::default();
        let numbers =
            fields.iter().map(|(field, value)| ((*field).to_owned(), Param::Whole(*value)));
        let texts = names
            .iter()
            .map(|(field, text)| ((*field).to_owned(), Param::Text((*text).to_owned())));
        super::super::fold(&mut guest, numbers.chain(texts));
        guest
    }

    #[test]
    fn each_rarity_reaches_its_place() {
        let guest = guest(
            &[
                ("perf.instructions", 7),
                ("iothread.count", 1),
                ("iothread.3.poll-max-ns", 32_768),
                ("vm.remote_tlb_flush.sum", 11),
                ("vcpu.0.exits.sum", 12),
                ("vcpu.0.exits.cur", 1),
                ("vcpu.0.halted", 1),
                ("cpu.cache.monitor.count", 1),
                ("cpu.cache.monitor.0.bank.0.id", 1),
                ("cpu.cache.monitor.0.bank.0.bytes", 4096),
                ("cpu.cache.monitor.1.bank.0.bytes", 4096),
                ("memory.bandwidth.monitor.0.node.1.id", 0),
                ("memory.bandwidth.monitor.0.node.1.bytes.local", 10),
                ("memory.bandwidth.monitor.0.node.1.bytes.total", 20),
                ("cpu.haltpoll.success.time", 5),
                ("dirtyrate.calc_status", 2),
                ("dirtyrate.megabytes_per_second", 3),
                ("dirtyrate.vcpu.0.megabytes_per_second", 4),
            ],
            &[
                ("cpu.cache.monitor.0.name", "vcpus_0-1"),
                ("memory.bandwidth.monitor.0.name", "vcpus_0-1"),
            ],
        );
        assert_eq!(guest.perf, [PerfEvent { event: "instructions".into(), value: 7 }]);
        assert_eq!(guest.iothreads[0].poll_max_ns, Some(32_768));
        assert_eq!(guest.kvm.len(), 2);
        assert_eq!((guest.kvm[0].vcpu, guest.kvm[0].sum), (None, Some(11)));
        assert_eq!((guest.kvm[1].vcpu, guest.kvm[1].current), (Some(0), Some(1)));
        assert_eq!(guest.vcpus.each[0].halted, Some(1));
        let cache = CacheMonitor { monitor: "vcpus_0-1".into(), bank: 1, bytes: 4096 };
        assert_eq!(guest.cache_monitors, [cache]);
        assert_eq!(guest.bandwidth_monitors[0].local_bytes, Some(10));
        assert_eq!(guest.bandwidth_monitors[0].total_bytes, Some(20));
        assert_eq!(guest.cpu.haltpoll_success_ns, Some(5));
        assert_eq!(guest.dirty_rate.mib_per_second, Some(3));
        assert_eq!(guest.dirty_rate.vcpus, [(0, 4)]);
    }

    #[test]
    fn a_measurement_that_is_not_over_is_none() {
        let guest =
            guest(&[("dirtyrate.calc_status", 1), ("dirtyrate.megabytes_per_second", 0)], &[]);
        assert_eq!(guest.dirty_rate, DirtyRate::default());
    }

    #[test]
    fn odd_fields_are_passed_over() {
        let fields =
            ["perf", "iothread.x.poll-grow", "iothread.1", "vm.x", "vm", "dirtyrate.vcpu.x"];
        let numbers: Vec<(&str, u64)> = fields.iter().map(|field| (*field, 1)).collect();
        let twice = [("cpu.cache.monitor.0.bank.0.id", 1), ("cpu.cache.monitor.0.bank.0.bytes", 1)];
        let guest = guest(&[&numbers, &twice[..]].concat(), &[]);
        assert_eq!(guest, Guest::default());
    }
}
