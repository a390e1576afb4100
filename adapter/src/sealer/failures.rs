//! What could not be sealed: whether it is one group's fault or the whole store's, and when it is tried
//! again. Knows no store.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits;
use crate::metrics::Metrics;
use crate::model::row_key::Group;
use crate::model::time::Hour;
use crate::query::QueryError;
use crate::store::rows::Shard;

/// What to try again, and when: a window of which a group cannot be sealed must not have the sealer
/// walk over everything behind it at every look.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    /// Windows of shards behind the mark that are sealed.
    pub(super) complete: BTreeSet<(Shard, Hour)>,
    /// Those that are not.
    failed: Failed<(Shard, Hour)>,
    /// Windows of groups that something came late to and that cannot be sealed.
    pub(super) late: Failed<(Group, Hour)>,
}

/// What failed: when it is due again (unix milliseconds), and the pause before that.
#[derive(Debug)]
pub(super) struct Failed<T>(BTreeMap<T, (i64, i64)>);

/// Which groups failed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) groups: BTreeSet<Group>,
    /// How many of the last ones by a fault that may pass.
    pub(super) in_a_row: usize,
}

impl Failures {
    /// Takes notice of a group that failed; gives the fault back where it is the whole store's. One that
    /// may pass is that where it meets more groups, one after the other, than are sealed at once: else
    /// it is of what one partition holds.
    pub(super) fn add(
        &mut self,
        group: Group,
        error: QueryError,
        metrics: &Metrics,
    ) -> Result<(), QueryError> {
        let is_passing = matches!(error, QueryError::TryAgain(_));
        self.in_a_row = if is_passing { self.in_a_row + 1 } else { 0 };
        if self.in_a_row > limits::SEAL_GROUPS_AT_ONCE {
            return Err(error);
        }
        metrics.sealing().failed();
        tracing::error!(?group, %error, "a group's window cannot be sealed; its samples stay in the head");
        self.groups.insert(group);
        Ok(())
    }
}

impl<T> Default for Failed<T> {
    fn default() -> Failed<T> {
        Failed(BTreeMap::new())
    }
}

impl<T: Ord> Failed<T> {
    /// Whether it is not due again yet.
    pub(super) fn waits(&self, what: &T, now_ms: i64) -> bool {
        self.0.get(what).is_some_and(|(due_ms, _)| *due_ms > now_ms)
    }

    /// Remembers how it went; the pauses between tries double.
    pub(super) fn note(&mut self, what: T, is_failed: bool, now_ms: i64) {
        let before = self.0.remove(&what);
        if is_failed {
            let pause_ms = before.map_or(SEAL_RETRY_MS.0, |(_, pause_ms)| pause_ms * 2);
            let pause_ms = pause_ms.min(SEAL_RETRY_MS.1);
            self.0.insert(what, (now_ms.saturating_add(pause_ms), pause_ms));
        }
    }
}

impl Stuck {
    /// Whether a window is neither known to be sealed nor waiting for its next try.
    pub(super) fn is_asked_for(&self, window: (Shard, Hour), now_ms: i64) -> bool {
        !self.failed.waits(&window, now_ms) && !self.complete.contains(&window)
    }

    /// Remembers how it went.
    pub(super) fn note(&mut self, window: (Shard, Hour), sealed: bool, now_ms: i64) {
        self.failed.note(window, !sealed, now_ms);
        if sealed {
            self.complete.insert(window);
        }
    }
}

/// The first and the longest pause before a window that failed is tried again.
const SEAL_RETRY_MS: (i64, i64) = (10_000, 3_600_000);

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_fault_that_several_meet_in_a_row_is_the_whole_stores() {
        let metrics = Metrics::register(&mut Registry::default());
        let mut failures = Failures::default();
        let passing = || QueryError::TryAgain("no answer".to_owned());
        let damaged = || QueryError::Damaged("cannot be read".to_owned());
        for group in 0..100 {
            failures.add(Group(group), damaged(), &metrics).unwrap();
        }
        for group in (100..102).map(Group) {
            failures.add(group, passing(), &metrics).unwrap();
        }
        // One that works in between.
        failures.in_a_row = 0;
        for group in (102..104).map(Group) {
            failures.add(group, passing(), &metrics).unwrap();
        }
        assert!(failures.add(Group(104), passing(), &metrics).is_err());
        assert_eq!(failures.groups.len(), 104);
    }
}
