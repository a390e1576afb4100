//! Copies everything from one store into another: index, heads, chunks, the ledger and how far
//! sealing has come, group by group, each compared with what was read. Knows what a store holds,
//! not which stores there are.

mod bills;
mod groups;
mod progress;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serve::clock::Clock;

use crate::engine::Keeping;
use crate::engine::layout::{Layout, LayoutError, Layouts, are_alike, of_this_format};
use crate::limits;
use crate::model::instant;
use crate::model::row_key::Group;
use crate::model::time::{Hour, Week};
use crate::store::rows::{LayoutRow, SealMark, Shard};
use crate::store::{Store, StoreError};
use progress::Progress;
pub use progress::{Counts, Done};

/// Why nothing more is copied. What was copied stays, and the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the stores.
    #[error("{side}: {error}")]
    Store {
        /// `--from` or `--to`.
        side: &'static str,
        /// What it said.
        error: StoreError,
    },
    /// The layouts cannot be brought together.
    #[error("{0}")]
    Layout(String),
    /// What arrived is not what was sent.
    #[error("the copy differs: {0}")]
    Differs(String),
    /// The progress file.
    #[error("{0}")]
    Progress(String),
}

/// Two stores, and how far the copy is. Others may work on that which is written: what they hold
/// stays, and hours of which both have something are counted again by them.
#[derive(Debug)]
pub struct Copy {
    from: Arc<Store>,
    to: Arc<Store>,
    layouts: Layouts,
    clock: Clock,
    keeping: Keeping,
    progress: Progress,
}

/// What is copied.
#[derive(Debug)]
pub struct Plan {
    /// The store that is read.
    pub source: Source,
    /// The store that is written.
    pub to: Arc<Store>,
    /// What is older is left out.
    pub keeping: Keeping,
}

/// A store that is to be copied, with all that can be judged before there is another.
#[derive(Debug)]
pub struct Source {
    store: Arc<Store>,
    rows: Vec<LayoutRow>,
    layouts: Layouts,
    progress: Progress,
}

/// How far a copy is.
#[derive(Debug)]
pub struct Known {
    /// Says how far one is that was cut off, and will say it again.
    pub file: PathBuf,
    /// In words, from where to where: a file of another copy is refused.
    pub title: String,
}

impl Source {
    /// Reads how far an earlier run came, and whether the store has the layout that both are to have
    /// now.
    pub async fn open(
        store: Arc<Store>,
        layout: &Layout,
        known: Known,
        clock: &Clock,
    ) -> Result<Source, CopyError> {
        let progress = Progress::open(known.file, &known.title)?;
        let rows = store.layouts().await.map_err(of_from)?;
        if rows.is_empty() {
            return Err(CopyError::Layout("--from holds no store of ours".to_owned()));
        }
        let layouts = Layouts::open(&store, layout, Week::of(clock.now_ms())).await;
        let layouts = layouts.map_err(|error| of_layout(&error))?;
        Ok(Source { store, rows, layouts, progress })
    }
}

impl Plan {
    /// Both stores, to be closed in the end.
    pub fn stores(&self) -> [Arc<Store>; 2] {
        [&self.to, &self.source.store].map(Arc::clone)
    }
}

impl Copy {
    /// Brings layouts and marks over.
    pub async fn begin(plan: Plan, clock: Clock) -> Result<Copy, CopyError> {
        let Plan { source, to, keeping } = plan;
        let Source { store: from, rows, layouts, progress } = source;
        let stores = [&from, &to].map(|store| store.identity().to_owned());
        if progress.is_of_others(&stores) {
            return Err(progress.wrong(
                &"it tells how far a copy is between other stores of these names, as in another \
                  cluster; name another file, or remove it to copy everything",
            ));
        }
        let known = to.layouts().await.map_err(of_to)?;
        if !known.is_empty() && !are_alike(&rows, &known).map_err(|error| of_layout(&error))? {
            return Err(CopyError::Layout(
                "the store of --to has other layouts than that of --from: copy into a new one"
                    .to_owned(),
            ));
        }
        if known.is_empty() && progress.used().is_some() {
            return Err(progress.wrong(
                &"it tells how far a copy is, but the store of --to is a new one; remove the file to \
                  copy everything into this one",
            ));
        }
        for row in rows {
            let row = of_this_format(&row).map_err(|error| of_layout(&error))?;
            to.add_layout(row).await.map_err(of_to)?;
        }
        marks(&from, &to, clock.now_ms()).await?;
        let mut copy = Copy { from, to, layouts, clock, keeping, progress };
        if copy.progress.used().is_none() {
            let used = copy.weeks_of(&copy.to).await.map_err(of_to)?;
            copy.progress.begin(stores, used.into_iter().map(|week| week.0).collect())?;
        }
        Ok(copy)
    }

    /// The store that is written.
    #[cfg(test)]
    pub(crate) fn to(&self) -> Arc<Store> {
        Arc::clone(&self.to)
    }

    /// Copies what is not copied yet; `tell` is told now and then. Gives what was copied, by this run
    /// and those before it.
    pub async fn run(mut self, tell: &mut (dyn FnMut(&Done) + Send)) -> Result<Done, CopyError> {
        self.say_what_is_left_out().await?;
        for week in self.weeks_of(&self.from).await.map_err(of_from)? {
            if !self.progress.is_done(week) {
                self.week(week, tell).await?;
            }
        }
        self.bills(tell).await?;
        self.note_who_came().await?;
        self.count_again().await?;
        let done = self.progress.done().clone();
        self.progress.close()?;
        tell(&done);
        Ok(done)
    }

    /// The weeks of which a store has anything that is kept: none has a list of them.
    async fn weeks_of(&self, store: &Store) -> Result<Vec<Week>, StoreError> {
        let first = Week::of(self.oldest_ms());
        let mut weeks = Vec::new();
        // Next week's index is written ahead.
        for week in (first.0..=Week::of(self.clock.now_ms()).0 + 2).map(Week) {
            if !store.metrics(week, limits::QUERY_ROWS_MAX).await?.is_empty() {
                weeks.push(week);
            }
        }
        Ok(weeks)
    }

    /// A store drops what has expired by and by, and so may have more than is kept; or the retention
    /// that was given is not its own.
    async fn say_what_is_left_out(&self) -> Result<(), CopyError> {
        let kept = Week::of(self.oldest_ms());
        for week in (kept.0 - limits::COPY_WEEKS_BACK..kept.0).map(Week) {
            let metrics = self.from.metrics(week, limits::QUERY_ROWS_MAX).await.map_err(of_from)?;
            if !metrics.is_empty() {
                let (from, kept) = (week.start_ms(), self.oldest_ms());
                tracing::warn!(
                    samples_from = %instant::format(from),
                    kept_from = %instant::format(kept),
                    "--from has samples that are older than --retention; they are left out"
                );
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where the hours of a week were not the same on both sides, all of them are counted once more
    /// from the samples of both, by who seals the store.
    async fn count_again(&self) -> Result<(), CopyError> {
        for week in self.progress.done().again.iter().copied().map(Week) {
            let (first, last) = week.hours();
            let counted = Hour::of(self.counted_ms());
            let mut window = self.layouts.window(first);
            if window.first < counted {
                window = self.layouts.window(Hour(self.layouts.window(counted).last().0 + 1));
            }
            if window.first > last {
                continue;
            }
            let mut after: Option<(String, Group)> = None;
            loop {
                let page =
                    self.to.row_key_page((week, None), after.as_ref(), limits::COPY_PAGE_ROWS);
                let page = page.await.map_err(of_to)?;
                for (_, group) in &page {
                    let windows = BTreeSet::from([window.first]);
                    self.mark((*group, 2), &windows).await.map_err(of_to)?;
                }
                after = page.into_iter().next_back();
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether somebody else may hold samples of a week, or so near of it that the hours of one
    /// depend on the samples of the other: it is as long as that is far.
    fn is_shared(&self, week: Week) -> bool {
        let near = week.0 - 2..=week.0 + 2;
        self.progress.used().is_some_and(|used| used.range(near).next().is_some())
    }

    /// Where an adapter began to work on an empty store during the copy, what it counted before all
    /// was there is counted again.
    async fn note_who_came(&mut self) -> Result<(), CopyError> {
        if self.progress.used().is_none_or(|used| !used.is_empty()) {
            return Ok(());
        }
        let begun = |store: Arc<Store>| async move {
            let sealed = store.sealed_until().await?;
            Ok::<_, StoreError>((sealed, store.seal_mark(SealMark::Begun).await?))
        };
        let from = begun(Arc::clone(&self.from)).await.map_err(of_from)?;
        let to = begun(Arc::clone(&self.to)).await.map_err(of_to)?;
        let looked = self.to.seal_mark(SealMark::Checked(Shard(0))).await.map_err(of_to)?;
        if looked.is_some() || (from.0.is_some() && from != to) {
            let now = Week::of(self.clock.now_ms()).0;
            self.progress.done_mut().again.extend(now - 2..=now);
        }
        Ok(())
    }

    /// Samples before it are not kept.
    fn oldest_ms(&self) -> i64 {
        before(self.clock.now_ms(), self.keeping.samples)
    }

    /// Hours before it are never counted again, because some of what they are counted from may be
    /// gone.
    fn counted_ms(&self) -> i64 {
        self.oldest_ms().saturating_add(limits::FROZEN_BEFORE_EXPIRY_MS)
    }
}

/// Sealing of the copy begins where that of the source is, unless it has begun.
async fn marks(from: &Store, to: &Store, now_ms: i64) -> Result<(), CopyError> {
    let sealed = if let Some(until) = from.sealed_until().await.map_err(of_from)? {
        until
    } else {
        let oldest = from.oldest_head().await.map_err(of_from)?;
        oldest.unwrap_or_else(|| Hour::of(now_ms))
    };
    for shard in (0..to.shards()).map(Shard) {
        to.begin_seal_mark(shard, sealed).await.map_err(of_to)?;
    }
    let begun = from.seal_mark(SealMark::Begun).await.map_err(of_from)?;
    let known = to.seal_mark(SealMark::Begun).await.map_err(of_to)?;
    if let Some(begun) = begun.max(known) {
        to.set_seal_mark(SealMark::Begun, begun).await.map_err(of_to)?;
    }
    Ok(())
}

/// So long ago.
fn before(now_ms: i64, kept: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX / 2))
}

fn of_from(error: StoreError) -> CopyError {
    CopyError::Store { side: "--from", error }
}

fn of_to(error: StoreError) -> CopyError {
    CopyError::Store { side: "--to", error }
}

fn of_layout(error: &LayoutError) -> CopyError {
    CopyError::Layout(error.to_string())
}
