//! Under which names a guest's rows are stored, week by week: the hours in which no exporter saw it
//! stand under the name that a 2012 worker gave. `ledger/owner.rs` judges; here the index is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use super::workers::of_domain;
use super::{Meter, labels_of, matchers};
use crate::ledger::guest::Guest;
use crate::ledger::owner::{self, Owners, is_of_worker};
use crate::limits;
use crate::model::labels::Labels;
use crate::model::time::{TimeRange, Week};
use crate::query::QueryError;

/// What is known of some weeks: those with series of workers, and those that had none when they were
/// looked at.
#[derive(Debug, Default)]
pub(super) struct WorkerWeeks {
    with: BTreeSet<Week>,
    without: BTreeMap<Week, (Look, Holds)>,
}

/// What a week without workers' series holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Others,
    Nothing,
}

/// When the index was looked at.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// At this generation, where nobody else writes.
    Generation(u64),
    /// At this time, where others do.
    At(Instant),
}

impl Look {
    /// Whether it is worth as much as a look at `now`.
    fn holds(self, now: Look) -> bool {
        match (self, now) {
            (Look::Generation(then), Look::Generation(now)) => then == now,
            (Look::At(then), Look::At(now)) => {
                now.duration_since(then) < limits::WORKERS_UNSEEN_TIME
            }
            (Look::Generation(_), Look::At(_)) | (Look::At(_), Look::Generation(_)) => false,
        }
    }
}

/// A name under which rows are stored, and whose they are.
#[derive(Clone, Debug)]
pub struct Named {
    /// The guest's own, or the one that a worker gave it.
    pub name: Guest,
    /// The guest whose rows are wanted.
    guest: Guest,
    /// Where workers use the name.
    owners: Option<Owners>,
}

impl Named {
    /// A guest's rows under its own name, where no worker uses it.
    fn itself(guest: &Guest) -> Named {
        Named { name: guest.clone(), guest: guest.clone(), owners: None }
    }

    /// Whether the rows of a week are the guest's.
    pub fn holds(&self, week: Week) -> bool {
        self.owners
            .as_ref()
            .is_none_or(|owners| owners.of(week).as_ref().unwrap_or(&self.name) == &self.guest)
    }
}

/// All that goes by one domain, with the weeks in which it does.
type OfDomain = Vec<(Labels, BTreeSet<Week>)>;

impl Meter {
    /// Whether workers have any series in the weeks of a range: where they have none, as in most
    /// clouds of today, nothing of them is looked up.
    pub(super) async fn has_workers(&self, range: TimeRange) -> Result<bool, QueryError> {
        let has_any = |known: &WorkerWeeks| range.weeks().any(|week| known.with.contains(&week));
        if has_any(&self.worker_weeks()) {
            return Ok(true);
        }
        self.look(range).await?;
        Ok(has_any(&self.worker_weeks()))
    }

    /// Looks at the weeks of which nothing is known.
    async fn look(&self, range: TimeRange) -> Result<(), QueryError> {
        let generation = self.engine.index_generation();
        let now = generation.map_or_else(|| Look::At(Instant::now()), Look::Generation);
        let unknown: Vec<Week> = {
            let mut known = self.worker_weeks();
            known.without.retain(|_, (look, _)| look.holds(now));
            let is_known =
                |week: &Week| known.with.contains(week) || known.without.contains_key(week);
            range.weeks().filter(|week| !is_known(week)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let found = self.engine.weeks_with(unknown.clone(), &owner::worker_metrics()).await?;
        let mut known = self.worker_weeks();
        for week in unknown {
            match found.get(&week) {
                Some(true) => {
                    known.with.insert(week);
                }
                Some(false) => {
                    known.without.insert(week, (now, Holds::Others));
                }
                None => {
                    known.without.insert(week, (now, Holds::Nothing));
                }
            }
        }
        Ok(())
    }

    /// The weeks of a range that hold anything, where workers have series in any of them.
    async fn worked(&self, range: TimeRange) -> Result<Option<TimeRange>, QueryError> {
        if !self.has_workers(range).await? {
            return Ok(None);
        }
        self.look(range).await?;
        let known = self.worker_weeks();
        let is_empty = |week: &Week| {
            known.without.get(week).is_some_and(|(_, holds)| *holds == Holds::Nothing)
        };
        let mut weeks = range.weeks().filter(|week| !is_empty(week));
        let Some(first) = weeks.next() else { return Ok(None) };
        let last = weeks.next_back().unwrap_or(first);
        Ok(range.within(TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() }))
    }

    // Held for single steps, none of which can panic half way.
    fn worker_weeks(&self) -> MutexGuard<'_, WorkerWeeks> {
        self.worker_weeks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All names under which a guest's rows are stored, itself first. Judged by all weeks that are
    /// kept, whatever is asked for, so that parts of a range add up to the whole.
    pub async fn names(&self, guest: &Guest, kept: TimeRange) -> Result<Vec<Named>, QueryError> {
        let mut names = vec![Named::itself(guest)];
        let Some(range) = self.worked(kept).await? else { return Ok(names) };
        for domain in self.domains(guest, range).await? {
            let of_domain = self.of_domain(&domain, range).await?;
            let workers = of_domain.iter().filter(|(labels, _)| is_of_worker(labels));
            let candidates: BTreeSet<Guest> =
                workers.filter_map(|(labels, _)| Guest::of(labels)).collect();
            for name in candidates {
                let owners = Some(Owners::new(&name, &of_domain));
                let named = Named { name, guest: guest.clone(), owners };
                if named.name == *guest {
                    names = vec![named];
                } else if range.weeks().any(|week| named.holds(week)) {
                    names.push(named);
                }
            }
        }
        Ok(names)
    }

    /// Who is meant by some guests in a range: the guest itself or, for a worker's name, those to
    /// whom its weeks belong.
    pub async fn meant(
        &self,
        guests: BTreeSet<Guest>,
        (range, kept): (TimeRange, TimeRange),
    ) -> Result<BTreeSet<Guest>, QueryError> {
        let Some(worked) = self.worked(kept).await? else { return Ok(guests) };
        let mut domains: BTreeMap<String, OfDomain> = BTreeMap::new();
        let mut meant = BTreeSet::new();
        for guest in guests {
            let Guest::Name { domain, .. } = &guest else {
                meant.insert(guest);
                continue;
            };
            if !domains.contains_key(domain) {
                domains.insert(domain.clone(), self.of_domain(domain, worked).await?);
            }
            let of_domain = domains.get(domain).map(Vec::as_slice).unwrap_or_default();
            let of_name = |labels: &Labels| {
                is_of_worker(labels) && Guest::of(labels).as_ref() == Some(&guest)
            };
            let of_name = of_domain.iter().filter(|(labels, _)| of_name(labels));
            let weeks: BTreeSet<Week> = of_name.flat_map(|(_, weeks)| weeks).copied().collect();
            if weeks.is_empty() {
                meant.insert(guest);
                continue;
            }
            let owners = Owners::new(&guest, of_domain);
            let owner = |week| owners.of(week).unwrap_or_else(|| guest.clone());
            let mut asked = range.weeks().filter(|week| weeks.contains(week)).peekable();
            if asked.peek().is_some() {
                meant.extend(asked.map(owner));
            } else {
                // Older than the index: what is in the ledger goes by the same rule.
                meant.extend(range.weeks().map(owner));
            }
        }
        Ok(meant)
    }

    async fn of_domain(&self, domain: &str, range: TimeRange) -> Result<OfDomain, QueryError> {
        let placed = self.engine.placed(range, &of_domain(domain)?).await?.into_iter();
        let weeks = |(labels, places): (Labels, Vec<_>)| {
            (labels, places.into_iter().map(|(week, _)| week).collect())
        };
        Ok(placed.map(weeks).collect())
    }

    /// The domains that a guest's exporters, or its name, say.
    pub(super) async fn domains(
        &self,
        guest: &Guest,
        range: TimeRange,
    ) -> Result<BTreeSet<String>, QueryError> {
        if let Guest::Name { domain, .. } = guest {
            return Ok(BTreeSet::from([domain.clone()]));
        }
        let mut domains = BTreeSet::new();
        for (label, value) in labels_of(guest) {
            let matchers = matchers(&owner::exporter_metrics(), label, value)?;
            let labels = self.engine.placed(range, &matchers).await?;
            let own = labels.iter().filter(|(labels, _)| Guest::of(labels).as_ref() == Some(guest));
            domains.extend(own.map(|(labels, _)| labels.get("domain").to_owned()));
        }
        domains.remove("");
        Ok(domains)
    }
}
