//! KVM's own counters, under the kernel's names for them.

use std::fmt;

use super::labels::Subject;
use super::{Series, Sheet, counter, gauge, whole};
use crate::snapshot::KvmStat;

const GUEST: [Series<KvmStat>; 3] = [
    counter("libvirt_domain_kvm_stat", None, "KVM's counter of the domain", |kvm| whole(kvm.sum)),
    gauge("libvirt_domain_kvm_stat_current", None, "KVM's figure of the domain now", |kvm| {
        whole(kvm.current)
    }),
    gauge("libvirt_domain_kvm_stat_peak", None, "The greatest value of KVM's figure", |kvm| {
        whole(kvm.peak)
    }),
];

const VCPU: [Series<KvmStat>; 3] = [
    counter("libvirt_domain_vcpu_kvm_stat", None, "KVM's counter of the virtual CPU", |kvm| {
        whole(kvm.sum)
    }),
    gauge(
        "libvirt_domain_vcpu_kvm_stat_current",
        None,
        "KVM's figure of the virtual CPU now",
        |kvm| whole(kvm.current),
    ),
    gauge(
        "libvirt_domain_vcpu_kvm_stat_peak",
        None,
        "The greatest value of KVM's figure of the virtual CPU",
        |kvm| whole(kvm.peak),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let all = || guests.iter().flat_map(|one| one.guest.kvm.iter().map(move |stat| (one, stat)));
    for series in &GUEST {
        let own = all().filter(|(_, kvm)| kvm.vcpu.is_none());
        series.encode(sheet, own.map(|(one, kvm)| (one.with([("stat", &kvm.stat)]), kvm)))?;
    }
    let of_vcpus: Vec<(&Subject<'_>, &KvmStat, String)> =
        all().filter_map(|(one, kvm)| Some((one, kvm, kvm.vcpu?.to_string()))).collect();
    for series in &VCPU {
        let labelled = of_vcpus.iter().map(|(one, kvm, vcpu)| {
            (one.with([("vcpu", vcpu.as_str()), ("stat", &kvm.stat)]), *kvm)
        });
        series.encode(sheet, labelled)?;
    }
    Ok(())
}
