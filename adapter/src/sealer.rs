//! The sealer: takes windows whose grace is over, and windows that something came late to, from the
//! head to chunks and into the ledger. The order of a seal is the store's contract; what is in a
//! chunk is the engine's, what a bill is, the meter's.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serve::clock::Clock;

use crate::engine::Engine;
use crate::ledger::Family;
use crate::ledger::guest::Guest;
use crate::limits;
use crate::meter::{Meter, affected_until};
use crate::metrics::Metrics;
use crate::model::row_key::Group;
use crate::model::time::{Hour, Window};
use crate::query::QueryError;
use crate::store::rows::{LateRow, Sealed};

/// Seals; one at a time works on a store.
#[derive(Debug)]
pub struct Sealer {
    engine: Arc<Engine>,
    meter: Arc<Meter>,
    clock: Clock,
    metrics: Metrics,
    late_pause: Duration,
}

/// One group's windows to be sealed together.
#[derive(Debug)]
struct Task {
    group: Group,
    windows: Vec<Window>,
}

/// What sealing one task made.
#[derive(Debug, Default)]
struct Done {
    sealed: Sealed,
    windows: usize,
    samples: usize,
}

impl Sealer {
    /// Seals what this engine holds. What came late waits for `late_pause`, because more of its kind
    /// mostly comes with it.
    pub fn new(
        engine: Arc<Engine>,
        clock: Clock,
        metrics: Metrics,
        late_pause: Duration,
    ) -> Sealer {
        let meter = Arc::new(Meter::new(Arc::clone(&engine)));
        Sealer { engine, meter, clock, metrics, late_pause }
    }

    /// Works until it is dropped, which it may be at any time: a seal that was cut off is made again.
    pub async fn run(self) {
        let mut interval = tokio::time::interval(limits::SEAL_INTERVAL.min(self.late_pause));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = self.pass().await {
                tracing::warn!(%error, "sealing stopped half-way and goes on at the next look");
            }
        }
    }

    /// Seals everything that is due now. Windows of which a part fails stay due.
    pub async fn pass(&self) -> Result<(), QueryError> {
        let swept = self.sweep().await;
        self.report_lag().await?;
        // What came late is sealed also where a window before it cannot be.
        self.seal_late().await?;
        swept
    }

    /// Seals the windows that are due, oldest first.
    async fn sweep(&self) -> Result<(), QueryError> {
        let mut window = self.engine.first_unsealed().await?;
        let mut complete = true;
        while self.engine.is_due(window) {
            self.engine.begin_sealing(window).await;
            complete &= self.sweep_window(window).await?;
            // A window that failed is met again at every pass, and those behind it are sealed.
            if complete {
                self.engine.finish_sealing(window).await?;
            }
            window = self.engine.next_window(window);
            self.report_lag().await?;
        }
        Ok(())
    }

    /// Seals a window of all groups; says whether none failed.
    async fn sweep_window(&self, window: Window) -> Result<bool, QueryError> {
        let mut complete = true;
        let mut last: Option<(String, Group)> = None;
        loop {
            let page = self.engine.group_page(window, last.as_ref()).await?;
            if page.is_empty() {
                return Ok(complete);
            }
            let mut tasks = Vec::new();
            for (_, group) in &page {
                if !self.engine.is_sealed(*group, window).await? {
                    tasks.push(Task { group: *group, windows: vec![window] });
                }
            }
            complete &= self.all(tasks).await?;
            last = page.into_iter().next_back();
        }
    }

    /// Seals what came late and has waited for its pause.
    async fn seal_late(&self) -> Result<(), QueryError> {
        let now_ms = self.clock.now_ms();
        let pause_ms = i64::try_from(self.late_pause.as_millis()).unwrap_or(i64::MAX);
        let (mut last, mut waiting) = (None, 0);
        // A group whose rows fill a page is met again on the next one.
        loop {
            let page = self.engine.late_page(last).await?;
            last = page.last().copied();
            if last.is_none() {
                break;
            }
            let mut due: BTreeMap<Group, BTreeSet<Window>> = BTreeMap::new();
            for of_window in page.chunk_by(|a, b| a.group == b.group && a.window == b.window) {
                let Some((group, window)) = self.late_window(of_window, now_ms - pause_ms) else {
                    waiting += 1;
                    continue;
                };
                due.entry(group).or_default().insert(window);
            }
            let tasks = due.into_iter().flat_map(|(group, windows)| {
                let windows: Vec<Window> = windows.into_iter().collect();
                let parts = windows.chunks(limits::SEAL_LATE_WINDOWS_MAX);
                parts.map(|part| Task { group, windows: part.to_vec() }).collect::<Vec<_>>()
            });
            self.all(tasks.collect()).await?;
        }
        self.metrics.sealing().waiting(waiting);
        Ok(())
    }

    /// The window of some late rows, where its sealing has begun and the oldest of them has waited.
    fn late_window(&self, rows: &[LateRow], arrived_until_ms: i64) -> Option<(Group, Window)> {
        let first = rows.first()?;
        let window = self.engine.window_of(first.window);
        let waited = rows.iter().any(|row| row.arrived_ms <= arrived_until_ms);
        (waited && self.engine.is_sealing(window)).then_some((first.group, window))
    }

    /// Seals tasks, several of them in one commit; says whether none failed. A fault of the whole
    /// store ends it.
    async fn all(&self, tasks: Vec<Task>) -> Result<bool, QueryError> {
        let mut done = stream::iter(tasks)
            .map(|task| async move { (task.group, self.one(&task).await) })
            .buffer_unordered(limits::SEAL_GROUPS_AT_ONCE);
        let (mut complete, mut batch, mut groups) = (true, Done::default(), 0);
        while let Some((group, result)) = done.next().await {
            match result {
                Ok(one) => batch.append(one),
                Err(QueryError::TryAgain(why)) => return Err(QueryError::TryAgain(why)),
                Err(error) => {
                    self.metrics.sealing().failed();
                    tracing::error!(?group, %error, "a group's window cannot be sealed; its samples stay in the head");
                    complete = false;
                }
            }
            groups += 1;
            if groups % limits::SEAL_GROUPS_PER_COMMIT == 0 {
                self.commit(std::mem::take(&mut batch)).await?;
            }
        }
        self.commit(batch).await?;
        Ok(complete)
    }

    async fn commit(&self, done: Done) -> Result<(), QueryError> {
        let Done { sealed, windows, samples } = done;
        let bytes = sealed.chunks.iter().map(|chunk| chunk.payload.len()).sum();
        let rows = sealed.ledger.len();
        self.engine.seal(sealed).await?;
        self.metrics.sealing().sealed(windows, samples, bytes, rows);
        Ok(())
    }

    /// Encodes a group's windows and counts the hours of its guests that they can change.
    async fn one(&self, task: &Task) -> Result<Done, QueryError> {
        let mut done = Done::default();
        let mut hours: BTreeSet<Hour> = BTreeSet::new();
        let mut guests = BTreeSet::new();
        let mut at_hand = None;
        // Hours behind this one are counted when their own windows are sealed.
        let until = self.engine.sealing_until();
        for window in &task.windows {
            let Some(encoded) = self.engine.encode_window(task.group, *window).await? else {
                continue;
            };
            done.windows += 1;
            done.samples += encoded.samples;
            done.sealed.append(encoded.sealed);
            at_hand = encoded.whole;
            let last = affected_until(*window).min(Hour(until.0 - 1)).max(window.last());
            hours.extend((window.first.0..=last.0).map(Hour));
            let labels = self.engine.labels_of(task.group, *window).await?;
            let billed = labels
                .iter()
                .filter(|labels| Family::ALL.iter().any(|family| family.is_needing(labels)));
            guests.extend(billed.filter_map(Guest::of));
        }
        for guest in &guests {
            for run in runs(&hours) {
                done.sealed.ledger.extend(self.meter.project(guest, run, at_hand.as_ref()).await?);
            }
        }
        Ok(done)
    }

    /// Says how long the oldest window that is not sealed has been due.
    async fn report_lag(&self) -> Result<(), QueryError> {
        let window = self.engine.first_unsealed().await?;
        let lag_ms = (self.clock.now_ms() - self.engine.due_ms(window)).max(0);
        self.metrics.sealing().lag(lag_ms / 1000, window.first.start_ms());
        Ok(())
    }
}

impl Done {
    fn append(&mut self, other: Done) {
        self.sealed.append(other.sealed);
        self.windows += other.windows;
        self.samples += other.samples;
    }
}

/// Hours that follow each other, as ranges with both ends.
fn runs(hours: &BTreeSet<Hour>) -> Vec<(Hour, Hour)> {
    let mut runs: Vec<(Hour, Hour)> = Vec::new();
    for hour in hours {
        match runs.last_mut() {
            Some(run) if run.1.0 + 1 == hour.0 => run.1 = *hour,
            _ => runs.push((*hour, *hour)),
        }
    }
    runs
}
