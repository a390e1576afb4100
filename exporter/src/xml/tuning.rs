//! What a guest's XML allows it: `<cputune>`, `<memtune>`, `<memoryBacking>`, and how often the balloon driver is asked.

use roxmltree::Node;

use super::{attribute, child, children, number_of, text_of};
use crate::snapshot::{CpuTune, HugePages, Pin, Quota};

/// Kinds of threads, and what their period and quota are called.
const QUOTAS: [(&str, &str, &str); 4] = [
    ("vcpu", "period", "quota"),
    ("global", "global_period", "global_quota"),
    ("emulator", "emulator_period", "emulator_quota"),
    ("iothread", "iothread_period", "iothread_quota"),
];
/// Limits of `<memtune>`.
const MEMORY_LIMITS: [&str; 4] = ["hard_limit", "soft_limit", "swap_hard_limit", "min_guarantee"];

/// `<cputune>`. A quota that is negative, or missing, is no limit.
pub(super) fn cpu(tune: Node<'_, '_>) -> CpuTune {
    let number = |name| child(tune, name).and_then(number_of);
    let quotas = QUOTAS.iter().map(|(threads, period, quota)| Quota {
        threads,
        period_us: number(period),
        quota_us: number(quota).filter(|quota| *quota > 0),
    });
    let pin = |node: Node<'_, '_>, thread: String| {
        attribute(node, "cpuset").map(|cpus| Pin { thread, cpus })
    };
    let numbered = |name: &'static str, number: &'static str, kind: &'static str| {
        children(tune, name).filter_map(move |node| {
            let number: u32 = attribute(node, number)?.parse().ok()?;
            pin(node, format!("{kind} {number}"))
        })
    };
    let mut pins: Vec<Pin> = numbered("vcpupin", "vcpu", "vcpu").collect();
    pins.extend(child(tune, "emulatorpin").and_then(|node| pin(node, "emulator".to_owned())));
    pins.extend(numbered("iothreadpin", "iothread", "iothread"));
    let mut seen = std::collections::HashSet::new();
    pins.retain(|pin| seen.insert(pin.thread.clone()));
    CpuTune {
        shares: number("shares"),
        quotas: quotas.filter(|one| one.period_us.is_some() || one.quota_us.is_some()).collect(),
        pins,
    }
}

/// `<memtune>` in bytes.
pub(super) fn memory_limits(tune: Node<'_, '_>) -> Vec<(&'static str, u64)> {
    let limits = MEMORY_LIMITS.iter().filter_map(|name| {
        let node = child(tune, name)?;
        Some((*name, scaled(&text_of(node)?, attribute(node, "unit").as_deref())?))
    });
    limits.collect()
}

/// `<hugepages>`, of the host's default size where no `<page>` says another.
pub(super) fn huge_pages(backing: Node<'_, '_>) -> Vec<HugePages> {
    let Some(pages) = child(backing, "hugepages") else { return Vec::new() };
    let mut found: Vec<HugePages> = Vec::new();
    for page in children(pages, "page") {
        let size = attribute(page, "size");
        let bytes = size.and_then(|size| scaled(&size, attribute(page, "unit").as_deref()));
        let one = HugePages { bytes, nodeset: attribute(page, "nodeset") };
        if bytes.is_some() && !found.contains(&one) {
            found.push(one);
        }
    }
    if found.is_empty() {
        found.push(HugePages::default());
    }
    found
}

/// `<memballoon><stats period="10"/></memballoon>`; 0 is never.
pub(super) fn stats_period(devices: Node<'_, '_>) -> Option<u64> {
    let stats = child(child(devices, "memballoon")?, "stats")?;
    attribute(stats, "period")?.parse().ok().filter(|seconds| *seconds > 0)
}

/// A size in libvirt's units, KiB where none is said.
fn scaled(number: &str, unit: Option<&str>) -> Option<u64> {
    let factor: u64 = match unit.unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}
