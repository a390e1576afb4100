//! Copies everything from one store into another: index, heads, chunks, the ledger and how far
//! sealing has come, group by group, each compared with what was read. Knows what a store holds,
//! not which stores there are.

mod bills;
mod groups;
mod progress;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serve::clock::Clock;

use crate::engine::Keeping;
use crate::engine::layout::{Layout, LayoutError, Layouts};
use crate::limits;
use crate::model::time::{Hour, Week};
use crate::store::rows::{SealMark, Shard};
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

/// Two stores that nobody else works on, and how far the copy is.
#[derive(Debug)]
pub struct Copy {
    from: Arc<Store>,
    to: Arc<Store>,
    layouts: Layouts,
    clock: Clock,
    keeping: Keeping,
    /// Before which hour what is copied must be late, because windows of it were swept.
    swept_until: Hour,
    progress: Progress,
}

/// What is copied.
#[derive(Debug)]
pub struct Plan {
    /// The store that is read.
    pub from: Arc<Store>,
    /// The store that is written.
    pub to: Arc<Store>,
    /// The layout that both are to have now.
    pub layout: Layout,
    /// How far back there can be anything.
    pub keeping: Keeping,
    /// Says how far a copy is that was cut off, and will say it again.
    pub progress: PathBuf,
    /// In words, from where to where: a progress file of another copy is refused.
    pub title: String,
}

impl Copy {
    /// Brings layouts and marks over, and reads how far an earlier run came.
    pub async fn begin(plan: Plan, clock: Clock) -> Result<Copy, CopyError> {
        let Plan { from, to, layout, keeping, progress, title } = plan;
        let progress = Progress::open(progress, &title)?;
        let now = Week::of(clock.now_ms());
        let rows = from.layouts().await.map_err(of_from)?;
        if rows.is_empty() {
            return Err(CopyError::Layout("--from holds no store of ours".to_owned()));
        }
        let layouts =
            Layouts::open(&from, &layout, now).await.map_err(|error| of_layout(&error))?;
        for row in &rows {
            to.add_layout(row.clone()).await.map_err(of_to)?;
        }
        if to.layouts().await.map_err(of_to)? != rows {
            return Err(CopyError::Layout(
                "the store of --to has other layouts than that of --from: copy into a new one"
                    .to_owned(),
            ));
        }
        let swept_until = marks(&from, &to, clock.now_ms()).await?;
        Ok(Copy { from, to, layouts, clock, keeping, swept_until, progress })
    }

    /// Copies what is not copied yet; `tell` is told now and then. Gives what was copied, by this run
    /// and those before it.
    pub async fn run(mut self, tell: &mut (dyn FnMut(&Done) + Send)) -> Result<Done, CopyError> {
        for week in self.weeks().await? {
            if !self.progress.is_done(week) {
                self.week(week, tell).await?;
            }
        }
        self.bills(tell).await?;
        let done = self.progress.done().clone();
        self.progress.close()?;
        tell(&done);
        Ok(done)
    }

    /// The weeks that have anything: a store keeps no list of them.
    async fn weeks(&self) -> Result<Vec<Week>, CopyError> {
        let now_ms = self.clock.now_ms();
        let first = Week::of(before(now_ms, self.keeping.samples));
        let mut weeks = Vec::new();
        // Next week's index is written ahead, and expired weeks stay for a while.
        for week in (first.0 - 3..=Week::of(now_ms).0 + 2).map(Week) {
            if !self.from.metrics(week, limits::QUERY_ROWS_MAX).await.map_err(of_from)?.is_empty() {
                weeks.push(week);
            }
        }
        Ok(weeks)
    }
}

/// Sealing of the copy begins where that of the source is. Gives up to where the copy was swept by
/// an adapter that worked on it before.
async fn marks(from: &Store, to: &Store, now_ms: i64) -> Result<Hour, CopyError> {
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
    let mut swept_until = sealed;
    for shard in (0..to.shards()).map(Shard) {
        let until = to.seal_mark(SealMark::Sealed(shard)).await.map_err(of_to)?;
        swept_until = swept_until.max(until.unwrap_or(sealed));
    }
    Ok(swept_until)
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
