//! Which of a guest's hours stand in the ledger, and which must be counted from samples: an hour
//! stands when its window is sealed and nothing that can change it came late since.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::counted::LOOKBACK_HOURS_MAX;
use super::{Meter, labels_of, matchers, metrics_of};
use crate::ledger::Family;
use crate::ledger::guest::Guest;
use crate::model::row_key::Group;
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
    /// Divides a range of hours, both included, into runs.
    pub async fn runs(&self, guest: &Guest, hours: (Hour, Hour)) -> Result<Vec<Run>, QueryError> {
        // What no sample is kept of stands as it is, or not at all.
        let oldest = self.engine.stored_range(TimeRange { start_ms: i64::MIN, end_ms: i64::MAX });
        let oldest = oldest.map_or(hours.0, |range| Hour::of(range.start_ms));
        let mut runs = Vec::new();
        if hours.0 < oldest {
            add(&mut runs, Standing::Stored, (hours.0, hours.1.min(Hour(oldest.0 - 1))));
        }
        let mut hour = hours.0.max(oldest);
        if hour > hours.1 {
            return Ok(runs);
        }
        let (sealed, late) = self.seals(guest, (hour, hours.1)).await?;
        while hour <= hours.1 {
            let window = self.engine.window_of(hour);
            let last = window.last().min(hours.1);
            let changed = late
                .range(..=last)
                .any(|late| affected_until(self.engine.window_of(*late)) >= hour);
            let stands = sealed.contains(&window.first) && !changed;
            let standing = if stands { Standing::Stored } else { Standing::Counted };
            add(&mut runs, standing, (hour, last));
            hour = Hour(last.0 + 1);
        }
        Ok(runs)
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
        let oldest = self.engine.stored_range(TimeRange { start_ms: i64::MIN, end_ms: i64::MAX });
        let oldest = oldest.map_or(hours.0, |range| Hour::of(range.start_ms).max(hours.0));
        let mut missing: Vec<(Waits, (Hour, Hour))> = Vec::new();
        if oldest <= hours.1 {
            let (_, late) = self.seals(guest, (oldest, hours.1)).await?;
            for window in late {
                let last = affected_until(self.engine.window_of(window));
                let last = last.min(hours.1).min(Hour(unsealed.0 - 1));
                let first = window.max(hours.0);
                match missing.last_mut() {
                    Some((_, before)) if first.0 <= before.1.0 + 1 => before.1 = before.1.max(last),
                    _ if first <= last => missing.push((Waits::Late, (first, last))),
                    _ => {}
                }
            }
        }
        if unsealed <= hours.1 {
            missing.push((Waits::Unsealed, (unsealed.max(hours.0), hours.1)));
        }
        Ok(missing)
    }

    /// The sealed windows of a guest that touch a range of hours, and the windows that something
    /// came late to and that can change these hours; their first hours.
    async fn seals(
        &self,
        guest: &Guest,
        (first, last): (Hour, Hour),
    ) -> Result<(BTreeSet<Hour>, BTreeSet<Hour>), QueryError> {
        // A window has at most 24 hours.
        let from = Hour(first.0 - LOOKBACK_HOURS_MAX - 24);
        let (mut sealed, mut late) = (BTreeSet::new(), BTreeSet::new());
        for group in self.groups(guest, (from, last)).await? {
            let (markers, rows) = self.engine.seals(group, (from, last)).await?;
            sealed.extend(markers);
            late.extend(rows.iter().map(|row| row.window));
        }
        Ok((sealed, late))
    }

    /// The groups that a guest's billed series are packed with.
    async fn groups(
        &self,
        guest: &Guest,
        (first, last): (Hour, Hour),
    ) -> Result<BTreeSet<Group>, QueryError> {
        let range = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
        if let Some(places) = self.places(guest, range) {
            return Ok(places.into_iter().map(|(_, group)| group).collect());
        }
        let mut metrics = metrics_of(&Family::ALL);
        metrics.extend(Family::ALL.iter().flat_map(|family| family.metrics_needed()));
        metrics.sort_unstable();
        metrics.dedup();
        let mut groups = BTreeSet::new();
        for (label, value) in labels_of(guest) {
            groups.extend(self.engine.groups(range, &matchers(&metrics, label, value)?).await?);
        }
        Ok(groups)
    }
}

fn add(runs: &mut Vec<Run>, standing: Standing, hours: (Hour, Hour)) {
    match runs.last_mut() {
        Some(run) if run.standing == standing => run.hours.1 = hours.1,
        _ => runs.push(Run { standing, hours }),
    }
}
