//! The engine, written once above all stores: identity, index, group commit, head, selection.
//! Knows rows and samples; knows no HTTP, no wire format and no particular store.

mod batch;
pub mod chunk;
mod collected;
mod commit;
mod index;
pub mod layout;
mod matching;
mod memo;
pub mod pack;
mod places;
mod seal;
mod select;
mod shards;
mod stored;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serve::clock::Clock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::limits;
use crate::metrics::Metrics;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::{DAY_MS, Day, Hour, TimeRange, Week};
use crate::store::inventory::Inventory;
pub use crate::store::rows::Shard;
use crate::store::rows::{Kept, SealMark};
use crate::store::{Store, StoreError};
pub use batch::Batch;
use commit::{Arrivals, Arriving, Committer, Request};
use index::KnownSeries;
pub use index::index_row;
use layout::{Layout, LayoutError, Layouts};
pub use memo::Known;
pub use places::Place;
use seal::Sealing;
pub use seal::{GroupWindow, Whole};
use select::Selection;
pub use select::{Found, SelectError};

/// The adapter's data, whatever the store.
#[derive(Debug)]
pub struct Engine {
    store: Arc<Store>,
    layouts: Layouts,
    known: Arc<KnownSeries>,
    arrivals: Arc<Arrivals>,
    // Taken away to stop: the committer ends when there is no sender any more.
    requests: RwLock<Option<mpsc::Sender<Request>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    // In KiB.
    memory: Arc<Semaphore>,
    clock: Clock,
    keeping: Keeping,
    sealing: Arc<Sealing>,
    // Since when the oldest window waits to be sealed, and the oldest of what came late; as of the
    // last look that told, which is the time of that look where nothing waited. See `note_lag`.
    waits_since_ms: [AtomicI64; 2],
    // Parts that reads may read at once.
    parts: Semaphore,
}

/// How long things are kept, and when they are sealed.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    /// `--retention`: how long samples are kept, by their own time.
    pub samples: Duration,
    /// `--ledger.retention`: how long billing's rows are kept, by their own time.
    pub ledger: Duration,
    /// `--seal.grace`: how long after its end a window is sealed.
    pub grace: Duration,
}

/// A write request's place: counted as on its way to a commit, and its share of the memory for
/// writes.
#[derive(Debug)]
pub struct Ticket {
    arriving: Option<Arriving>,
    memory: OwnedSemaphorePermit,
    budget: Arc<Semaphore>,
}

/// Why a request gets no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMemory {
    /// Others have it: the request should come again.
    Now,
    /// It would need more than there is for all: coming again cannot help.
    Ever,
}

impl Ticket {
    /// Asks for more memory.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let wanted = kibibytes(bytes);
        if self.memory.num_permits() + wanted as usize > limits::WRITE_BYTES_IN_FLIGHT_MAX >> 10 {
            return Err(NoMemory::Ever);
        }
        let more = Arc::clone(&self.budget).try_acquire_many_owned(wanted);
        more.map(|more| self.memory.merge(more)).map_err(|_| NoMemory::Now)
    }

    /// The body is here: a commit waits a moment for this request from now on.
    pub fn arrived(&mut self, engine: &Engine) {
        self.arriving = Some(Arrivals::one(&engine.arrivals));
    }
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX)
}

/// The times for which samples are taken, by the clock of now.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Samples before it are frozen: their bills are made (ledger.md, "Late data").
    pub oldest_ms: i64,
    /// Samples after it come from a clock that is ahead.
    pub latest_ms: i64,
}

impl Engine {
    /// Checks the layout and starts the committer. Needs a tokio runtime.
    pub async fn start(
        store: Store,
        layout: &Layout,
        keeping: Keeping,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Engine, LayoutError> {
        let now_ms = clock.now_ms();
        let layouts = Layouts::open(&store, layout, Week::of(now_ms)).await?;
        let until = sealed_until(&store, &layouts, &clock).await?;
        let begun = store.seal_mark(SealMark::Begun).await?;
        let until = begun.map_or(until, |begun| begun.max(until));
        let sealing = Arc::new(Sealing::new(keeping.grace, until, store.is_shared()));
        let store = Arc::new(store);
        let known = Arc::new(KnownSeries::new());
        let arrivals = Arc::new(Arrivals::default());
        let (requests, waiting) = mpsc::channel(limits::COMMIT_QUEUE_MAX);
        let committer = Committer {
            store: Arc::clone(&store),
            known: Arc::clone(&known),
            arrivals: Arc::clone(&arrivals),
            layouts: layouts.clone(),
            sealing: Arc::clone(&sealing),
            clock: clock.clone(),
            metrics,
        };
        let committer = Mutex::new(Some(tokio::spawn(committer.run(waiting))));
        let requests = RwLock::new(Some(requests));
        let memory = Arc::new(Semaphore::new(limits::WRITE_BYTES_IN_FLIGHT_MAX >> 10));
        let parts = Semaphore::new(store.reads_at_once() * limits::READ_PARTS_AT_ONCE);
        Ok(Engine {
            store,
            layouts,
            known,
            arrivals,
            requests,
            committer,
            memory,
            clock,
            keeping,
            sealing,
            waits_since_ms: [now_ms, now_ms].map(AtomicI64::new),
            parts,
        })
    }

    /// Lets a request in whose body has this many bytes; `None` where there is no memory for it
    /// now, and it should come again.
    pub fn admit(&self, body_bytes: usize) -> Option<Ticket> {
        let budget = Arc::clone(&self.memory);
        let memory = Arc::clone(&budget).try_acquire_many_owned(kibibytes(body_bytes)).ok()?;
        Some(Ticket { arriving: None, memory, budget })
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.layouts, &self.known)
    }

    /// Forgets what bytes on the wire mean, so that everything goes the full way.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.known.memo.forget();
    }

    /// The window of times for which samples are taken now.
    pub fn window(&self) -> Window {
        let now_ms = self.clock.now_ms();
        let oldest_ms = self.oldest_ms(now_ms).saturating_add(limits::FROZEN_BEFORE_EXPIRY_MS);
        Window { oldest_ms, latest_ms: now_ms.saturating_add(limits::AHEAD_MS_MAX) }
    }

    fn oldest_ms(&self, now_ms: i64) -> i64 {
        before(now_ms, self.keeping.samples)
    }

    /// Stores a batch; returns when it is durable. After an error any part of it may be stored, and
    /// sending it again is harmless.
    pub async fn append(&self, batch: Batch<'_>, ticket: Ticket) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.refuse_unsealed().map_err(StoreError::Unavailable)?;
        if let Some(trouble) = self.trouble() {
            return Err(StoreError::Unavailable(trouble));
        }
        let Batch { placements, mut unknown, lessons, .. } = batch;
        let stored = async {
            if !unknown.is_empty() {
                self.known.drop_known(&self.store, &mut unknown).await?;
            }
            let (answer, answered) = oneshot::channel();
            let Ticket { arriving, memory, .. } = ticket;
            let request = Request { placements, index: unknown, lessons, answer, memory };
            self.queue(request)?;
            drop(arriving);
            answered
                .await
                .map_err(|_| StoreError::Unavailable("the adapter is stopping".to_owned()))?
        };
        timeout(limits::WRITE_DEADLINE, stored).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the store did not finish the commit in time".to_owned()))
        })
    }

    fn queue(&self, request: Request) -> Result<(), StoreError> {
        let stopping = || StoreError::Unavailable("the adapter is stopping".to_owned());
        let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        requests.as_ref().ok_or_else(stopping)?.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => {
                StoreError::Unavailable("too many requests are waiting for a commit".to_owned())
            }
            TrySendError::Closed(_) => stopping(),
        })
    }

    /// The part of a range that can hold samples: extreme ranges are cut before anything walks
    /// over them.
    pub fn stored_range(&self, range: TimeRange) -> Option<TimeRange> {
        let now_ms = self.clock.now_ms();
        let oldest = Day::of(self.oldest_ms(now_ms)).start_ms();
        // A clock that was set back must not hide what is stored: a day more than can be ahead.
        range.within(TimeRange { start_ms: oldest, end_ms: now_ms.saturating_add(DAY_MS) })
    }

    /// The part of a range that billing's minutes are kept of.
    pub fn billed_range(&self, range: TimeRange) -> Option<TimeRange> {
        let now_ms = self.clock.now_ms();
        let oldest = Day::of(before(now_ms, self.keeping.ledger)).start_ms();
        range.within(TimeRange { start_ms: oldest, end_ms: now_ms.saturating_add(DAY_MS) })
    }

    /// The labels of all series that match and may have samples in the range, sorted as Prometheus
    /// sorts them.
    pub async fn series(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<Labels>, SelectError> {
        match self.stored_range(range) {
            Some(range) => self.selection(range, matchers).series().await,
            None => Ok(Vec::new()),
        }
    }

    /// The series that match and may have samples in the range, ready to be read part by part.
    pub async fn find<'e>(
        &'e self,
        range: TimeRange,
        matchers: &'e [Matcher],
    ) -> Result<Option<Found<'e>>, SelectError> {
        match self.stored_range(range) {
            Some(range) => self.selection(range, matchers).find().await.map(Some),
            None => Ok(None),
        }
    }

    /// Every series that matches and has samples in the range, with what `encode` makes of its
    /// samples (sorted by time, one a timestamp, all within the range) and the bytes that takes.
    /// Sorted by labels. Whole, or an error.
    pub async fn select<T: Send>(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
        encode: &(impl Fn(&[Sample]) -> (T, usize) + Sync),
    ) -> Result<Vec<(Labels, T)>, SelectError> {
        match self.stored_range(range) {
            Some(range) => self.selection(range, matchers).samples(encode).await,
            None => Ok(Vec::new()),
        }
    }

    /// [`Engine::select`], also of what is past its retention and not dropped yet: a bill may need it.
    pub async fn select_all<T: Send>(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
        encode: &(impl Fn(&[Sample]) -> (T, usize) + Sync),
    ) -> Result<Vec<(Labels, T)>, SelectError> {
        self.selection(range, matchers).samples(encode).await
    }

    /// Where those of the series that match live that are wanted and may have samples in the range.
    pub async fn places_of(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
        wanted: &(impl Fn(&Labels) -> bool + Sync),
    ) -> Result<BTreeSet<Place>, SelectError> {
        self.selection(range, matchers).places(wanted).await
    }

    fn selection<'e>(&'e self, range: TimeRange, matchers: &'e [Matcher]) -> Selection<'e> {
        Selection {
            store: &self.store,
            layouts: &self.layouts,
            range,
            matchers,
            collected: AtomicUsize::new(0),
            parts: &self.parts,
        }
    }

    /// Drops what is older than the retention and heads that are sealed, by whole days, weeks and
    /// months; says how many of them. A clock that runs ahead must not empty the store: for this,
    /// it is never later than a day after the newest arrival.
    pub async fn expire(&self) -> Result<usize, StoreError> {
        let clock_ms = self.clock.now_ms();
        let newest = self.store.newest_arrival().map(|day| day.end_ms() + DAY_MS);
        let now_ms = newest.map_or(clock_ms, |newest| newest.min(clock_ms));
        let kept = Kept {
            samples_ms: self.oldest_ms(now_ms),
            ledger_ms: before(now_ms, self.keeping.ledger),
            sealed_until: self.first_unsealed().await?.first,
        };
        self.store.expire(kept).await
    }

    /// What the store holds and what that takes of its disk, where it can tell.
    pub async fn inventory(&self) -> Result<Option<Inventory>, StoreError> {
        self.store.inventory().await
    }

    /// How long things are kept.
    pub fn keeping(&self) -> Keeping {
        self.keeping
    }

    /// Whether writes can be taken; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.store.ready()?;
        self.refuse_unsealed()
    }

    /// Why the store will take no writes until the process starts again; `None` while it works.
    pub fn failure(&self) -> Option<String> {
        self.store.failure()
    }

    /// Finishes the commits under way and closes the store.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.requests.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(committer) = self.committer.lock().await.take()
            && timeout(limits::WRITE_DEADLINE, committer).await.is_err()
        {
            tracing::error!(
                "the last commits did not finish in time; their senders were not answered and will retry"
            );
        }
        self.store.close().await
    }
}

fn before(now_ms: i64, kept: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX))
}

/// Up to where a store is sealed. One that no sealer has seen begins with the oldest head, or now.
async fn sealed_until(store: &Store, layouts: &Layouts, clock: &Clock) -> Result<Hour, StoreError> {
    if let Some(until) = store.sealed_until().await? {
        return Ok(until);
    }
    let oldest = store.oldest_head().await?.unwrap_or_else(|| Hour::of(clock.now_ms()));
    let first = layouts.window(oldest).first;
    for shard in (0..store.shards()).map(Shard) {
        store.begin_seal_mark(shard, first).await?;
    }
    Ok(store.sealed_until().await?.unwrap_or(first))
}
