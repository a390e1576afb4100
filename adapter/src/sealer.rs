//! The sealer: takes windows whose grace is over, and windows that something came late to, from the
//! head to chunks and into the ledger. The order of a seal is the store's contract; what is in a
//! chunk is the engine's, what a bill is, the meter's, who seals what, `shares`'.

mod failures;
mod shares;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, FuturesOrdered, StreamExt, TryStreamExt};
use serve::clock::Clock;

use crate::engine::Engine;
use crate::ledger::Family;
use crate::ledger::guest::Guest;
use crate::ledger::owner::is_of_worker;
use crate::limits;
use crate::meter::{Meter, affected_until};
use crate::metrics::Metrics;
use crate::model::labels::Labels;
use crate::model::row_key::Group;
use crate::model::time::{Hour, Window};
use crate::query::QueryError;
use crate::store::StoreError;
use crate::store::rows::{LateRow, LedgerRow, Projection, Sealed, Shard};
use failures::{Failures, Stuck};
use shares::Shares;

/// Seals the shards that are its own.
#[derive(Debug)]
pub struct Sealer {
    engine: Arc<Engine>,
    shares: Shares,
    meter: Arc<Meter>,
    clock: Clock,
    metrics: Metrics,
    late_pause: Duration,
    stuck: Mutex<Stuck>,
    /// Whether each group has a commit of its own, since the store refused one of several.
    commits_singly: AtomicBool,
}

/// One group's windows to be sealed together, each with the late rows that may go with it.
#[derive(Debug)]
struct Task {
    group: Group,
    /// Of its projection.
    turn: i64,
    windows: Vec<(Window, Vec<LateRow>)>,
}

/// What sealing one task made.
#[derive(Debug, Default)]
struct Done {
    sealed: Sealed,
    windows: usize,
    samples: usize,
    bytes: usize,
    /// Hours of workers' guests that no exporter saw.
    unjoined: usize,
}

/// Seals of some groups that become durable together.
#[derive(Debug, Default)]
struct Batch {
    groups: Vec<Group>,
    done: Done,
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
        let shares = Shares::new(Arc::clone(&engine), metrics.clone());
        let (stuck, commits_singly) = (Mutex::default(), AtomicBool::new(false));
        Sealer { engine, shares, meter, clock, metrics, late_pause, stuck, commits_singly }
    }

    /// Works until it is asked to stop, and then gives its shards back, so that another sealer need
    /// not wait for the end of their leases. May be dropped at any time: a seal that was cut off is
    /// made again.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        // A pass may take longer than a lease.
        let work = async { tokio::join!(self.shares.keep(), self.look_regularly()) };
        tokio::select! {
            _ = work => {}
            () = stop => {}
        }
        if let Err(error) = self.shares.give_back().await {
            tracing::warn!(%error, "shards could not be given back; others take them when the leases end");
        }
    }

    async fn look_regularly(&self) {
        let mut interval = tokio::time::interval(limits::SEAL_INTERVAL.min(self.late_pause));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = self.pass().await {
                tracing::warn!(%error, "sealing stopped half-way and goes on at the next look");
            }
        }
    }

    /// Seals everything of its shards that is due now. What fails stays due, and keeps nothing else from
    /// being sealed; the first fault is told when all is done. Nothing is sealed by a clock that is not the
    /// store's, or beside others that need not see it: how far sealing has come never goes back.
    pub async fn pass(&self) -> Result<(), QueryError> {
        if let Some(trouble) = self.engine.trouble() {
            return Err(QueryError::TryAgain(trouble));
        }
        if !self.shares.is_kept() {
            self.shares.look().await?;
        }
        self.engine.learn_sealing().await?;
        let mut done = Ok(());
        for shard in self.shares.held() {
            let swept = self.sweep(shard).await;
            done = done.and(of_shard(shard, swept));
        }
        done = done.and(self.report_lag().await);
        // What came late is sealed also where a window before it cannot be.
        let mut waiting = Some(0);
        for shard in self.shares.held() {
            let checked = self.check_again(shard).await;
            done = done.and(of_shard(shard, checked));
            let sealed = of_shard(shard, self.seal_late(shard).await);
            waiting = waiting.zip(sealed.as_ref().ok()).map(|(sum, of_shard)| sum + of_shard);
            done = done.and(sealed.map(drop));
        }
        self.metrics.sealing().waiting(waiting);
        done.and(self.report_lag().await)
    }

    /// Seals the windows of a shard that are due, oldest first.
    async fn sweep(&self, shard: Shard) -> Result<(), QueryError> {
        let mut window = self.engine.first_unsealed_of(shard).await?;
        let (mut complete, mut finished) = (true, Vec::new());
        let mut swept = Ok(());
        while self.engine.is_due(window) && swept.is_ok() {
            swept = self.sweep_if_asked(shard, window).await;
            // A window that failed is tried again later, and those behind it are sealed.
            complete &= self.stuck().complete.contains(&(shard, window.first));
            if complete {
                finished.push(window);
            }
            // Not each by itself: in a cluster that is a transaction, and a month has hundreds.
            if finished.len() >= limits::SEAL_WINDOWS_PER_MARK {
                self.finish(shard, std::mem::take(&mut finished)).await?;
            }
            window = self.engine.next_window(window);
        }
        self.finish(shard, finished).await?;
        swept
    }

    async fn sweep_if_asked(&self, shard: Shard, window: Window) -> Result<(), QueryError> {
        self.engine.begin_sealing(window).await?;
        let key = (shard, window.first);
        if self.stuck().is_asked_for(key, self.clock.now_ms()) {
            let sealed = self.sweep_window(shard, window).await?;
            self.stuck().note(key, sealed, self.clock.now_ms());
        }
        Ok(())
    }

    /// Remembers that some windows of a shard, which follow each other, are sealed.
    async fn finish(&self, shard: Shard, windows: Vec<Window>) -> Result<(), QueryError> {
        let Some(last) = windows.last() else { return Ok(()) };
        self.engine.finish_sealing(shard, *last).await?;
        for window in &windows {
            self.stuck().complete.remove(&(shard, window.first));
        }
        self.report_lag().await
    }

    /// Seals a window of all groups of a shard; says whether none failed.
    async fn sweep_window(&self, shard: Shard, window: Window) -> Result<bool, QueryError> {
        let mut complete = true;
        let mut last: Option<(String, Group)> = None;
        loop {
            let page = self.engine.group_page((window, Some(shard)), last.as_ref()).await?;
            if page.is_empty() {
                return Ok(complete);
            }
            let due = self.unsealed(&page, window).await?;
            complete &= self.all(shard, due).await?.is_empty();
            last = page.into_iter().next_back();
        }
    }

    /// Looks once more at windows of a shard whose heads expire before long: what slipped past their
    /// seal, because clocks of adapters were far apart, is late, and is sealed as such. So is what cannot
    /// be told of, or sealed: it is tried again and again, and what comes behind it is looked at.
    async fn check_again(&self, shard: Shard) -> Result<(), QueryError> {
        while let Some(window) = self.engine.first_unchecked_of(shard).await? {
            let mut last: Option<(String, Group)> = None;
            loop {
                let page = self.engine.group_page((window, Some(shard)), last.as_ref()).await?;
                if page.is_empty() {
                    break;
                }
                let due = self.unsealed(&page, window).await?;
                let failed = self.all(shard, due).await?;
                for (_, group) in &page {
                    if failed.contains(group) || self.is_short(*group, window).await? {
                        self.engine.mark_late(*group, window).await?;
                    }
                }
                last = page.into_iter().next_back();
            }
            self.engine.finish_checking(shard, window).await?;
        }
        Ok(())
    }

    /// Whether the head holds something of a sealed window that its chunks do not, or cannot be read.
    async fn is_short(&self, group: Group, window: Window) -> Result<bool, QueryError> {
        match self.engine.encode_window(group, window, Vec::new()).await.map_err(QueryError::from) {
            Ok(None) => Ok(false),
            Ok(Some(_)) => {
                tracing::warn!(
                    ?group,
                    hour = window.first.0,
                    "samples had slipped past the seal of their window; do the adapters' clocks differ?"
                );
                Ok(true)
            }
            Err(QueryError::TryAgain(why)) => Err(QueryError::TryAgain(why)),
            Err(error) => {
                tracing::error!(?group, hour = window.first.0, %error, "a sealed window cannot be looked at once more");
                Ok(true)
            }
        }
    }

    /// Those of some groups whose window has no marker, or of which that cannot be read: then its seal
    /// fails by itself.
    async fn unsealed(
        &self,
        groups: &[(String, Group)],
        window: Window,
    ) -> Result<Vec<(Group, Vec<Window>)>, QueryError> {
        let groups: Vec<Group> = groups.iter().map(|(_, group)| *group).collect();
        let asked = stream::iter(groups).map(|group| async move {
            let is_sealed = match self.engine.is_sealed(group, window).await {
                Err(StoreError::Refused(_) | StoreError::Damaged(_)) => false,
                asked => asked?,
            };
            Ok::<_, QueryError>((!is_sealed).then(|| (group, vec![window])))
        });
        let asked: Vec<_> = asked.buffered(limits::SEAL_MARKERS_AT_ONCE).try_collect().await?;
        Ok(asked.into_iter().flatten().collect())
    }

    /// Seals what came late to a shard and has waited for its pause; gives how many windows wait on,
    /// those that cannot be sealed among them.
    async fn seal_late(&self, shard: Shard) -> Result<usize, QueryError> {
        let mut waiting = 0;
        let now_ms = self.clock.now_ms();
        let pause_ms = i64::try_from(self.late_pause.as_millis()).unwrap_or(i64::MAX);
        let mut last = None;
        // A group whose rows fill a page is met again on the next one.
        loop {
            let page = self.engine.late_page(Some(shard), last).await?;
            last = page.last().copied();
            if last.is_none() {
                self.engine.finish_late(shard).await?;
                return Ok(waiting);
            }
            let mut due: BTreeMap<Group, BTreeSet<Window>> = BTreeMap::new();
            for of_window in page.chunk_by(|a, b| a.group == b.group && a.window == b.window) {
                match self.late_window(of_window, now_ms - pause_ms) {
                    Some((group, window)) if self.is_late_due((group, window.first)) => {
                        due.entry(group).or_default().insert(window);
                    }
                    _ => waiting += 1,
                }
            }
            let parts = due.into_iter().flat_map(|(group, windows)| {
                let windows: Vec<Window> = windows.into_iter().collect();
                let parts = windows.chunks(limits::SEAL_LATE_WINDOWS_MAX);
                parts.map(|part| (group, part.to_vec())).collect::<Vec<_>>()
            });
            let parts: Vec<_> = parts.collect();
            let failed = self.all(shard, parts.clone()).await?;
            waiting += self.note_late(&parts, &failed);
        }
    }

    fn is_late_due(&self, window: (Group, Hour)) -> bool {
        !self.stuck().late.waits(&window, self.clock.now_ms())
    }

    /// Remembers which late windows failed, to try them later; says how many.
    fn note_late(&self, tried: &[(Group, Vec<Window>)], failed: &BTreeSet<Group>) -> usize {
        let (now_ms, mut count) = (self.clock.now_ms(), 0);
        let mut stuck = self.stuck();
        for (group, windows) in tried {
            for window in windows {
                let is_failed = failed.contains(group);
                stuck.late.note((*group, window.first), is_failed, now_ms);
                count += usize::from(is_failed);
            }
        }
        count
    }

    /// The window of some late rows, where its sealing has begun and the oldest of them has waited.
    fn late_window(&self, rows: &[LateRow], arrived_until_ms: i64) -> Option<(Group, Window)> {
        let first = rows.first()?;
        let window = self.engine.window_of(first.window);
        let waited = rows.iter().any(|row| row.arrived_ms <= arrived_until_ms);
        (waited && self.engine.is_sealing(window)).then_some((first.group, window))
    }

    /// Seals some windows of a shard's groups; says which groups failed. A fault of the whole store
    /// ends it, and so does the loss of the shard.
    async fn all(
        &self,
        shard: Shard,
        due: Vec<(Group, Vec<Window>)>,
    ) -> Result<BTreeSet<Group>, QueryError> {
        let mut failed = BTreeSet::new();
        for due in due.chunks(limits::SEAL_GROUPS_PER_COMMIT) {
            if !self.shares.holds(shard) {
                let lost = format!("shard {} is another sealer's now", shard.0);
                return Err(QueryError::TryAgain(lost));
            }
            failed.append(&mut self.together(due).await?);
        }
        Ok(failed)
    }

    /// Seals some windows of groups, several groups in one commit; says which failed.
    ///
    /// Two of them, or one here and one at another sealer, may count the same hours of a guest, and
    /// what one counted before the other's late rows were there must not stand in place of the
    /// other's. So the late rows of all are read before they get their turns, and what they are
    /// counted from is read after that.
    async fn together(&self, due: &[(Group, Vec<Window>)]) -> Result<BTreeSet<Group>, QueryError> {
        let mut failures = Failures::default();
        let mut tasks = Vec::with_capacity(due.len());
        for (group, windows) in due {
            match self.task(*group, windows.clone()).await {
                Ok(task) => tasks.push(task),
                Err(error) => failures.add(*group, error, &self.metrics)?,
            }
        }
        if tasks.is_empty() {
            return Ok(failures.groups);
        }
        let first = self.engine.turns(tasks.len()).await?;
        let mut tasks = (first..).zip(tasks);
        let mut running = FuturesOrdered::new();
        let mut batch = Batch::default();
        loop {
            while running.len() < limits::SEAL_GROUPS_AT_ONCE {
                let Some((turn, task)) = tasks.next() else { break };
                let group = task.group;
                running.push_back(async move { (group, self.one(Task { turn, ..task }).await) });
            }
            let Some((group, result)) = running.next().await else { break };
            match result {
                Ok(one) => {
                    failures.in_a_row = 0;
                    batch.append(group, one);
                }
                Err(error) => {
                    if let Err(error) = failures.add(group, error, &self.metrics) {
                        self.commit(batch, &mut failures).await?;
                        return Err(error);
                    }
                }
            }
            let is_alone = self.commits_singly.load(Ordering::Relaxed);
            if batch.done.bytes >= limits::SEAL_COMMIT_BYTES || is_alone {
                self.commit(std::mem::take(&mut batch), &mut failures).await?;
            }
        }
        self.commit(batch, &mut failures).await?;
        Ok(failures.groups)
    }

    async fn task(&self, group: Group, windows: Vec<Window>) -> Result<Task, QueryError> {
        let mut task = Task { group, turn: 0, windows: Vec::with_capacity(windows.len()) };
        for window in windows {
            task.windows.push((window, self.engine.late_rows(group, window).await?));
        }
        Ok(task)
    }

    /// Makes seals of some groups durable. Where the store refuses them, those that come next have
    /// commits of their own, so that the one that it refuses keeps no other back.
    async fn commit(&self, batch: Batch, failures: &mut Failures) -> Result<(), QueryError> {
        let Batch { groups, done: Done { sealed, windows, samples, unjoined, .. } } = batch;
        let bytes = sealed.chunks.iter().map(|chunk| chunk.payload.len()).sum();
        let rows = sealed.ledger_rows().count();
        match self.engine.seal(sealed).await {
            Ok(()) => {
                self.metrics.sealing().unjoined(unjoined);
                self.metrics.sealing().sealed(windows, samples, bytes, rows);
                Ok(())
            }
            Err(error @ StoreError::Unavailable(_)) => Err(error.into()),
            Err(error) => {
                self.commits_singly.store(true, Ordering::Relaxed);
                let why = error.to_string();
                let mut groups = groups.into_iter();
                groups.try_for_each(|group| {
                    failures.add(group, QueryError::Damaged(why.clone()), &self.metrics)
                })
            }
        }
    }

    /// Encodes a group's windows and counts the hours of its guests that they can change.
    async fn one(&self, task: Task) -> Result<Done, QueryError> {
        let mut done = Done::default();
        let mut hours: BTreeSet<Hour> = BTreeSet::new();
        let mut own: BTreeSet<Hour> = BTreeSet::new();
        let (mut guests, mut workers) = (BTreeSet::new(), BTreeSet::new());
        let mut at_hand = None;
        // Hours behind this one are counted when their own windows are sealed.
        let until = self.engine.sealing_until();
        let frozen_until = self.meter.frozen_until();
        for (window, late) in task.windows {
            // The rest of what came late stays late, and is met again at the next look.
            if done.bytes >= limits::SEAL_COMMIT_BYTES {
                break;
            }
            let Some(encoded) = self.engine.encode_window(task.group, window, late).await? else {
                continue;
            };
            done.windows += 1;
            done.samples += encoded.samples;
            done.bytes += encoded.sealed.bytes();
            done.sealed.append(encoded.sealed);
            at_hand = encoded.whole;
            let last = affected_until(window).min(Hour(until.0 - 1)).max(window.last());
            let is_first = |hour: Hour| encoded.is_first && hour <= window.last();
            let affected = (window.first.0..=last.0).map(Hour);
            hours.extend(affected.filter(|hour| is_first(*hour) || *hour >= frozen_until));
            let wanted = |labels: &Labels| is_billed(labels) || is_of_worker(labels);
            let labels = self.engine.labels_of(task.group, window, &wanted).await?;
            let billed = labels.iter().filter(|labels| is_billed(labels));
            guests.extend(billed.filter_map(Guest::of));
            let of_workers = labels.iter().filter(|labels| is_of_worker(labels));
            workers.extend(of_workers.filter_map(Guest::of));
            own.extend((window.first.0..=window.last().0).map(Hour));
        }
        let mut rows = Vec::new();
        for guest in self.affected(guests, &hours).await? {
            for run in runs(&hours) {
                let counted = self.meter.project(&guest, run, at_hand.as_ref()).await?;
                if workers.contains(&guest) {
                    done.unjoined += hours_with_minutes(&counted).intersection(&own).count();
                }
                rows.extend(counted);
            }
        }
        done.sealed.ledger.push(Projection { turn: task.turn, rows });
        done.bytes = done.sealed.bytes();
        Ok(done)
    }

    /// Guests of a group, and those whose rows their samples can change because they share a name.
    async fn affected(
        &self,
        own: BTreeSet<Guest>,
        hours: &BTreeSet<Hour>,
    ) -> Result<BTreeSet<Guest>, QueryError> {
        let mut affected = own.clone();
        if let (Some(first), Some(last)) = (hours.first(), hours.last()) {
            for guest in &own {
                let relatives = self.meter.relatives(guest, (*first, *last)).await?;
                affected.extend(relatives.into_keys());
            }
        }
        Ok(affected)
    }

    // Held for single steps, none of which can panic half way.
    fn stuck(&self) -> MutexGuard<'_, Stuck> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn report_lag(&self) -> Result<(), QueryError> {
        report_lag(&self.engine, &self.clock, &self.metrics).await?;
        Ok(())
    }
}

/// Says how long the oldest window that is not sealed has been due, and how long the oldest of what came
/// late has waited; what cannot be read is not known, whatever it was before. Not by a sealer alone: one
/// that hangs would say that all is well.
pub async fn report_lag(
    engine: &Engine,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<(), StoreError> {
    let (window, late) = (engine.first_unsealed().await, engine.late_since().await);
    let now_ms = clock.now_ms();
    let lag = window.as_ref().ok().map(|window| {
        let lag_ms = (now_ms - engine.due_ms(*window)).max(0);
        (lag_ms, window.first.start_ms())
    });
    let waited = |since: i64| (now_ms - engine.late_due_ms(since)).max(0);
    let late_ms = late.as_ref().ok().map(|since| since.map_or(0, waited));
    engine.note_lag(lag.map(|(lag_ms, _)| lag_ms), late_ms);
    metrics.sealing().late_waiting(late_ms.map(|late_ms| late_ms / 1000));
    metrics.sealing().lag(lag.map(|(lag_ms, begin_ms)| (lag_ms / 1000, begin_ms)));
    window?;
    late.map(drop)
}

impl Done {
    fn append(&mut self, other: Done) {
        self.sealed.append(other.sealed);
        self.windows += other.windows;
        self.samples += other.samples;
        self.bytes += other.bytes;
        self.unjoined += other.unjoined;
    }
}

impl Batch {
    fn append(&mut self, group: Group, done: Done) {
        self.groups.push(group);
        self.done.append(done);
    }
}

/// Tells the fault of a shard, which is its own.
fn of_shard<T>(shard: Shard, done: Result<T, QueryError>) -> Result<T, QueryError> {
    done.inspect_err(|error| {
        tracing::warn!(shard = shard.0, %error, "sealing of a shard stopped half-way; others go on");
    })
}

/// Whether a bill can depend on a series.
fn is_billed(labels: &Labels) -> bool {
    Family::ALL.iter().any(|family| family.is_needing(labels))
}

/// The hours in which anything is billed.
fn hours_with_minutes(rows: &[LedgerRow]) -> BTreeSet<Hour> {
    let is_billed = |row: &&LedgerRow| row.columns.iter().any(|of| !of.minutes.is_empty());
    rows.iter().filter(is_billed).map(|row| row.hour).collect()
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
