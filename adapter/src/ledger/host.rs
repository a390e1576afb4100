//! Which host names mean one host: those on which a guest's process began at the same time
//! (ledger.md, "Whose counter is it"). Knows series' start times only.

use std::collections::{BTreeMap, BTreeSet};

use super::Series;
use super::family::{CPU_TIME, Family, START_TIME, Source};
use super::track::{START_TOLERANCE_MS, host_of, is_plausible, whole};
use crate::model::labels::METRIC_NAME;
use crate::model::time::Hour;

/// Hours for which a host's last known start times are taken to hold.
const HOURS_BACK: i32 = 7 * 24;

/// Per host name and hour, the start times of the guest that were seen.
#[derive(Debug, Default)]
pub(super) struct HostStarts(BTreeMap<String, BTreeMap<i32, BTreeSet<i64>>>);

/// Host names and the smallest name of the same host, for one hour.
#[derive(Debug)]
pub(super) struct Hosts<'h>(BTreeMap<&'h str, &'h str>);

impl HostStarts {
    pub(super) fn new(series: &[Series]) -> HostStarts {
        let mut starts = HostStarts::default();
        for one in series {
            let gauge = one.labels.get(METRIC_NAME) == START_TIME;
            let cpu = one.labels.get(METRIC_NAME) == CPU_TIME
                && Family::Cpu.source_of(&one.labels) == Some(Source::Exporter);
            if !gauge && !cpu {
                continue;
            }
            let of_host = starts.0.entry(host_of(&one.labels).to_owned()).or_default();
            let mut last = None;
            for sample in &one.samples {
                let own = sample.start_ms.map(i64::from).filter(|_| cpu && sample.value >= 0.0);
                let published = gauge.then(|| whole(sample.value * 1e3));
                let known = own.or(published).filter(|start_ms| {
                    sample.value.is_finite() && is_plausible(*start_ms, sample.timestamp_ms)
                });
                let Some(start_ms) = known else { continue };
                let seen = (Hour::of(sample.timestamp_ms).0, start_ms);
                // Most samples repeat the one before.
                if last != Some(seen) {
                    of_host.entry(seen.0).or_default().insert(seen.1);
                    last = Some(seen);
                }
            }
        }
        starts.0.retain(|_, hours| !hours.is_empty());
        starts
    }

    /// The hosts as they are known in an hour.
    pub(super) fn hosts(&self, hour: Hour) -> Hosts<'_> {
        let latest = self.0.iter().filter_map(|(name, hours)| {
            let mut recent = hours.range(hour.0.saturating_sub(HOURS_BACK)..=hour.0);
            recent.next_back().map(|(_, starts)| (name.as_str(), starts))
        });
        // Start times in order, each with its name: neighbours within the tolerance are one host,
        // and so are all of a name.
        let mut starts: Vec<(i64, &str)> = latest
            .flat_map(|(name, starts)| starts.iter().map(move |start| (*start, name)))
            .collect();
        starts.sort_unstable();
        let mut hosts: BTreeMap<&str, &str> =
            starts.iter().map(|(_, name)| (*name, *name)).collect();
        for (earlier, later) in starts.iter().zip(starts.iter().skip(1)) {
            if later.0.saturating_sub(earlier.0) <= START_TOLERANCE_MS {
                unite(&mut hosts, earlier.1, later.1);
            }
        }
        Hosts(hosts)
    }
}

/// Gives all names of both hosts the smaller name of the two.
fn unite<'h>(hosts: &mut BTreeMap<&'h str, &'h str>, one: &'h str, other: &'h str) {
    let (Some(&one), Some(&other)) = (hosts.get(one), hosts.get(other)) else { return };
    let (kept, replaced) = if one <= other { (one, other) } else { (other, one) };
    for host in hosts.values_mut().filter(|host| **host == replaced) {
        *host = kept;
    }
}

impl<'h> Hosts<'h> {
    /// The host that a name means.
    pub(super) fn of<'n: 'h>(&self, name: &'n str) -> &'h str {
        self.0.get(name).copied().unwrap_or(name)
    }
}
