//! The newest snapshot of each set of collectors that scrapes ask for, so that each scrape is compared with one that had
//! all that it shows, however many jobs of Prometheus ask for different parts. Pure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::selection::Collectors;
use crate::snapshot::Snapshot;

/// Sets that are kept; of more, the one that was asked for longest ago goes. A Prometheus has one job or a few.
const SETS_MAX: usize = 4;
/// A set that was not asked for in this time is not asked for any more.
const UNASKED_MAX: Duration = Duration::from_hours(1);

/// The newest snapshots.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The newest last.
    sets: Vec<Set>,
}

/// A snapshot of a set of collectors.
#[derive(Clone, Debug)]
pub(super) struct Set {
    collectors: Collectors,
    /// When its collection began: its figures are taken to be as old as that.
    pub(super) began: Instant,
    /// How many collections of this set there were.
    pub(super) turn: u64,
    pub(super) snapshot: Arc<Snapshot>,
    /// Whether its figures are all that the scrape wants; else only names are of use.
    pub(super) is_whole: bool,
}

impl Kept {
    /// The newest that has all of `wanted`, else the newest of all; an empty one where there is none.
    pub(super) fn newest(&self, wanted: Collectors) -> Set {
        let whole = self.sets.iter().rfind(|set| set.collectors.covers(wanted));
        let any = || self.sets.last().map(|set| Set { is_whole: false, ..set.clone() });
        whole.cloned().or_else(any).unwrap_or_else(|| Set {
            collectors: Collectors::NONE,
            began: Instant::now(),
            turn: 0,
            snapshot: Arc::default(),
            is_whole: true,
        })
    }

    /// Keeps a snapshot of these collectors. Older ones that have no more than it has go.
    pub(super) fn keep(&mut self, collectors: Collectors, began: Instant, snapshot: Arc<Snapshot>) {
        let covered = |set: &&Set| collectors.covers(set.collectors);
        let turn = self.sets.iter().filter(covered).map(|set| set.turn).max().unwrap_or(0);
        let turn = turn.wrapping_add(1);
        self.sets.retain(|set| {
            let is_asked_for = began.saturating_duration_since(set.began) < UNASKED_MAX;
            is_asked_for && !collectors.covers(set.collectors)
        });
        self.sets.push(Set { collectors, began, turn, snapshot, is_whole: true });
        if self.sets.len() > SETS_MAX {
            self.sets.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::CollectorName::{Block, Cpu, Interface, Job, Memory, Pool};

    fn snapshot(domains: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot { domains: Some(domains), ..Snapshot::default() })
    }

    fn seen(kept: &Kept, wanted: Collectors) -> (Option<u64>, u64, bool) {
        let set = kept.newest(wanted);
        (set.snapshot.domains, set.turn, set.is_whole)
    }

    #[test]
    fn each_set_is_compared_with_its_own() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let disks = Collectors::NONE.with(Block, true);
        let rest = Collectors::NONE.with(Cpu, true).with(Memory, true);
        assert_eq!(seen(&kept, disks), (None, 0, true));
        kept.keep(disks, now, snapshot(1));
        kept.keep(rest, now, snapshot(2));
        kept.keep(rest, now, snapshot(3));
        assert_eq!(seen(&kept, disks), (Some(1), 1, true));
        assert_eq!(seen(&kept, rest), (Some(3), 2, true));
        assert_eq!(seen(&kept, Collectors::NONE.with(Cpu, true)), (Some(3), 2, true));
        let both = disks.with(Cpu, true);
        assert_eq!(seen(&kept, both), (Some(3), 2, false), "only its names are of use");
        kept.keep(both.with(Memory, true), now, snapshot(4));
        assert_eq!(seen(&kept, disks), (Some(4), 3, true));
        assert_eq!(kept.sets.len(), 1);
    }

    #[test]
    fn few_are_kept_and_none_that_nobody_asks_for() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let one = |name| Collectors::NONE.with(name, true);
        for name in [Cpu, Memory, Block, Interface, Job, Pool] {
            kept.keep(one(name), now, snapshot(1));
        }
        assert_eq!(kept.sets.len(), SETS_MAX);
        assert!(!seen(&kept, one(Cpu)).2 && seen(&kept, one(Block)).2);
        kept.keep(one(Cpu), now + UNASKED_MAX, snapshot(2));
        assert_eq!(kept.sets.len(), 1);
    }
}
