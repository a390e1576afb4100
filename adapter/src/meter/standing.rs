//! Which of a guest's hours stand in the ledger, and which must be counted from samples: an hour
//! stands when its window is sealed and nothing that can change it came late since.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::counted::LOOKBACK_HOURS_MAX;
use super::{Meter, labels_of, matchers, metrics_needed};
use crate::engine::Place;
use crate::ledger::Family;
use crate::ledger::guest::Guest;
use crate::model::labels::Labels;
use crate::model::time::{Hour, TimeRange, Window};
use crate::query::QueryError;

/// Where the rows of an hour come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// From the ledger.
    Stored,
    /// From samples.
    Counted,
}

/// Hours, both included, whose rows come from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From where.
    pub standing: Standing,
    /// The first and the last hour.
    pub hours: (Hour, Hour),
}

/// Why hours are not in the ledger, or not as they will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waits {
    /// Their windows are not sealed yet.
    Unsealed,
    /// Something came late that can change them.
    Late,
}

/// The last hour whose rows a sample of a window can change: its predecessor may lie seven days
/// back, and which source supplies an hour, or which hosts are one, is judged by whole hours.
pub(crate) fn affected_until(window: Window) -> Hour {
    Hour(window.last().0 + LOOKBACK_HOURS_MAX)
}

impl Meter {
    /// The first hour of which all that it depends on is kept. Hours before it that were counted once
    /// stand for good. Samples are taken from 22 hours after it on, so that their seal finds everything
    /// unless it is a day behind.
    pub(crate) fn frozen_until(&self) -> Hour {
        Hour(self.oldest_kept(Hour(i32::MIN)).0.saturating_add(LOOKBACK_HOURS_MAX))
    }

    /// Divides a range of hours, both included, into runs.
    pub async fn runs(&self, guest: &Guest, hours: (Hour, Hour)) -> Result<Vec<Run>, QueryError> {
        // What no sample is kept of stands as it is, or not at all: but for what is not sealed yet,
        // whose samples are kept until it is.
        let oldest = self.oldest_kept(hours.0);
        let unsealed = self.engine.first_unsealed().await?.first;
        let sealed_from = oldest.min(unsealed).max(hours.0).min(Hour(hours.1.0.saturating_add(1)));
        let seals = self.seals(guest, (hours.0, hours.1), sealed_from).await?;
        let frozen_until = self.frozen_until();
        let mut runs = Vec::new();
        let mut hour = hours.0;
        while hour <= hours.1 {
            let window = self.engine.window_of(hour);
            let last = window.last().min(hours.1);
            let changed = seals
                .late
                .range(..=last)
                .any(|late| affected_until(self.engine.window_of(*late)) >= hour);
            let is_sealed = last < sealed_from || seals.sealed.contains(&window.first);
            let stands = is_sealed && (!changed || last < frozen_until);
            let standing = if stands { Standing::Stored } else { Standing::Counted };
            add(&mut runs, standing, (hour, last));
            hour = Hour(last.0 + 1);
        }
        Ok(runs)
    }

    /// From which hour on samples are kept, whatever is sealed; at least the given one.
    fn oldest_kept(&self, least: Hour) -> Hour {
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let kept = self.engine.stored_range(all);
        kept.map_or(least, |range| Hour::of(range.start_ms).max(least))
    }

    /// The hours of a range, both included, whose rows are not in the ledger yet or may still be
    /// other ones there; sorted. Other than [`Meter::runs`], hours without any sample are not among
    /// them once their window has been looked at.
    pub async fn missing(
        &self,
        guest: &Guest,
        hours: (Hour, Hour),
    ) -> Result<Vec<(Waits, (Hour, Hour))>, QueryError> {
        // First: a window that is sealed meanwhile is then missing once more, and not forgotten.
        let unsealed = self.engine.first_unsealed().await?.first;
        let mut missing: Vec<(Waits, (Hour, Hour))> = Vec::new();
        let nothing_sealed = Hour(hours.1.0.saturating_add(1));
        for window in self.seals(guest, hours, nothing_sealed).await?.late {
            let last = affected_until(self.engine.window_of(window));
            let last = last.min(hours.1).min(Hour(unsealed.0 - 1));
            let first = window.max(hours.0);
            match missing.last_mut() {
                Some((_, before)) if first.0 <= before.1.0 + 1 => before.1 = before.1.max(last),
                _ if first <= last => missing.push((Waits::Late, (first, last))),
                _ => {}
            }
        }
        if unsealed <= hours.1 {
            missing.push((Waits::Unsealed, (unsealed.max(hours.0), hours.1)));
        }
        Ok(missing)
    }

    /// The sealed windows of a guest from some hour on, and the windows that something came late to
    /// and that can change a range of hours.
    async fn seals(
        &self,
        guest: &Guest,
        (first, last): (Hour, Hour),
        sealed_from: Hour,
    ) -> Result<Seals, QueryError> {
        // A window has at most 24 hours.
        let from = Hour(first.0.saturating_sub(LOOKBACK_HOURS_MAX + 24));
        let sealed_from = self.engine.window_of(sealed_from).first;
        let mut seals = Seals::default();
        let mut groups = BTreeSet::new();
        // What is late of who shares its name can change its rows as well.
        let relatives = self.relatives(guest, (from, last)).await?;
        for (_, group) in relatives.into_values().flatten() {
            if groups.insert(group) {
                let rows = self.engine.late_of(group, (from, last)).await?;
                seals.late.extend(rows.iter().map(|row| row.window));
            }
        }
        groups.clear();
        for (week, group) in self.guest_places(guest, (from, last)).await? {
            // Its other weeks may be of others, whose windows say nothing about this guest.
            let (of_week, until) = week.hours();
            let within = (of_week.max(sealed_from), until.min(last));
            if within.0 <= within.1 {
                seals.sealed.extend(self.engine.markers(group, within).await?);
            }
            if groups.insert(group) {
                let rows = self.engine.late_of(group, (from, last)).await?;
                seals.late.extend(rows.iter().map(|row| row.window));
            }
        }
        Ok(seals)
    }

    /// Where a guest's billed series live.
    async fn guest_places(
        &self,
        guest: &Guest,
        (first, last): (Hour, Hour),
    ) -> Result<BTreeSet<Place>, QueryError> {
        let range = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
        if let Some(places) = self.places(guest, range) {
            return Ok(places.into_iter().collect());
        }
        let metrics = metrics_needed(&Family::ALL);
        let is_of_guest = |labels: &Labels| Guest::of(labels).as_ref() == Some(guest);
        let mut places = BTreeSet::new();
        for (label, value) in labels_of(guest) {
            let matchers = matchers(&metrics, label, value)?;
            places.extend(self.engine.places_of(range, &matchers, &is_of_guest).await?);
        }
        Ok(places)
    }
}

/// What is sealed of a guest; first hours of windows.
#[derive(Debug, Default)]
struct Seals {
    sealed: BTreeSet<Hour>,
    late: BTreeSet<Hour>,
}

fn add(runs: &mut Vec<Run>, standing: Standing, hours: (Hour, Hour)) {
    match runs.last_mut() {
        Some(run) if run.standing == standing => run.hours.1 = hours.1,
        _ => runs.push(Run { standing, hours }),
    }
}
