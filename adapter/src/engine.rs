//! The engine, written once above all stores: identity, index, group commit, head, selection.
//! Knows rows and samples; knows no HTTP, no wire format and no particular store.

mod batch;
mod commit;
mod index;
pub mod layout;
pub mod pack;
mod select;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serve::clock::Clock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::limits;
use crate::metrics::Metrics;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::{DAY_MS, Day, TimeRange, Week};
use crate::store::{Store, StoreError};
pub use batch::Batch;
pub use commit::Arriving;
use commit::{Arrivals, Committer, Request};
use index::KnownSeries;
use layout::{Layout, LayoutError, Layouts};
pub use select::SelectError;
use select::Selection;

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
    clock: Clock,
    retention: Duration,
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
        retention: Duration,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Engine, LayoutError> {
        let layouts = Layouts::open(&store, layout, Week::of(clock.now_ms())).await?;
        let store = Arc::new(store);
        let known = Arc::new(KnownSeries::new());
        let arrivals = Arc::new(Arrivals::default());
        let (requests, waiting) = mpsc::channel(limits::COMMIT_QUEUE_MAX);
        let committer = Committer {
            store: Arc::clone(&store),
            known: Arc::clone(&known),
            arrivals: Arc::clone(&arrivals),
            metrics,
        };
        let committer = Mutex::new(Some(tokio::spawn(committer.run(waiting))));
        let requests = RwLock::new(Some(requests));
        Ok(Engine { store, layouts, known, arrivals, requests, committer, clock, retention })
    }

    /// Announces a request whose body is here but not yet decoded; drop it when its batch is
    /// appended or refused.
    pub fn arriving(&self) -> Arriving {
        Arrivals::one(&self.arrivals)
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(&self.layouts, &self.known)
    }

    /// The window of times for which samples are taken now.
    pub fn window(&self) -> Window {
        let now_ms = self.clock.now_ms();
        let oldest_ms = self.oldest_ms(now_ms).saturating_add(limits::FROZEN_BEFORE_EXPIRY_MS);
        Window { oldest_ms, latest_ms: now_ms.saturating_add(limits::AHEAD_MS_MAX) }
    }

    fn oldest_ms(&self, now_ms: i64) -> i64 {
        let retention_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(retention_ms)
    }

    /// Stores a batch; returns when it is durable. After an error any part of it may be stored, and
    /// sending it again is harmless. `arriving` is what [`Engine::arriving`] gave for the request.
    pub async fn append(&self, batch: Batch<'_>, arriving: Arriving) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let Batch { placements, mut unknown, .. } = batch;
        let stored = async {
            if !unknown.is_empty() {
                self.known.drop_known(&self.store, &mut unknown).await?;
            }
            let (answer, answered) = oneshot::channel();
            let request = Request { placements, index: unknown, answer };
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
    fn stored_range(&self, range: TimeRange) -> Option<TimeRange> {
        let now_ms = self.clock.now_ms();
        let oldest = Day::of(self.oldest_ms(now_ms)).start_ms();
        // A clock that was set back must not hide what is stored: a day more than can be ahead.
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

    fn selection<'e>(&'e self, range: TimeRange, matchers: &'e [Matcher]) -> Selection<'e> {
        Selection {
            store: &self.store,
            layouts: &self.layouts,
            range,
            matchers,
            collected: AtomicUsize::new(0),
        }
    }

    /// Drops what is older than the retention, by whole days; says how many days and weeks.
    pub async fn expire(&self) -> Result<usize, StoreError> {
        self.store.expire(self.oldest_ms(self.clock.now_ms())).await
    }

    /// Whether writes can be taken; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.store.ready()
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
