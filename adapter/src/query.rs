//! What every query of stored samples shares, remote_read's and billing's: how many run at once,
//! and why one has no answer. Knows no HTTP and no store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::SelectError;
use crate::store::StoreError;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The client's fault; asking again cannot help.
    #[error("{0}")]
    Client(String),
    /// The query is readable and asks for too much at once.
    #[error("{0}")]
    TooMuch(String),
    /// Passing trouble of ours, or too many queries at once.
    #[error("{0}")]
    TryAgain(String),
    /// What is stored cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl From<SelectError> for QueryError {
    fn from(error: SelectError) -> QueryError {
        match error {
            SelectError::TooMuch { .. } => QueryError::TooMuch(error.to_string()),
            SelectError::Store(store) => store.into(),
        }
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> QueryError {
        match error {
            StoreError::Unavailable(_) => QueryError::TryAgain(error.to_string()),
            StoreError::TooManyRows { .. } | StoreError::TooManyBytes { .. } => {
                QueryError::TooMuch(error.to_string())
            }
            StoreError::Damaged(_) | StoreError::Refused(_) => {
                QueryError::Damaged(error.to_string())
            }
        }
    }
}

/// A query that may run; it counts until this is dropped.
pub type Slot = OwnedSemaphorePermit;

/// How many queries of one kind run at once; some more wait, and more than that are sent away.
#[derive(Debug)]
pub struct Slots {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Slots {
    /// So many that run, and so many that wait.
    pub fn new(running_max: usize, waiting_max: usize) -> Slots {
        let running = Arc::new(Semaphore::new(running_max));
        Slots { running, waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Waits for a slot; [`QueryError::TryAgain`] at once where too many wait already.
    pub async fn acquire(&self) -> Result<Slot, QueryError> {
        let busy = || QueryError::TryAgain("too many queries are waiting".to_owned());
        if let Ok(slot) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(slot);
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= self.waiting_max {
            return Err(busy());
        }
        Arc::clone(&self.running).acquire_owned().await.map_err(|_| busy())
    }

    /// How many more could run.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.running.available_permits()
    }
}

/// Counts one query as waiting until it is dropped.
struct Waiting<'r> {
    count: &'r AtomicUsize,
    before: usize,
}

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        Waiting { before: count.fetch_add(1, Ordering::SeqCst), count }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot for one, which is taken, and one who waits.
    async fn full() -> (Arc<Slots>, Slot, tokio::task::JoinHandle<Result<(), QueryError>>) {
        let slots = Arc::new(Slots::new(1, 1));
        let running = slots.acquire().await.unwrap();
        let waiter = Arc::clone(&slots);
        let waiting = tokio::spawn(async move { waiter.acquire().await.map(drop) });
        while slots.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        (slots, running, waiting)
    }

    #[tokio::test]
    async fn some_run_some_wait_and_the_rest_are_sent_away() {
        let (slots, running, waiting) = full().await;
        assert!(matches!(slots.acquire().await, Err(QueryError::TryAgain(_))));
        drop(running);
        assert!(waiting.await.unwrap().is_ok());
        assert!(slots.acquire().await.is_ok());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_queue() {
        let (slots, running, waiting) = full().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(slots.waiting.load(Ordering::SeqCst), 0);
        drop(running);
        assert!(slots.acquire().await.is_ok());
    }
}
