//! Which shards this sealer works on: those whose leases it holds, no more than its share of them.
//! Leases keep sealers from doing the same work twice; nothing that is right or wrong hangs on them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::engine::Engine;
use crate::limits;
use crate::metrics::Metrics;
use crate::store::rows::Shard;
use crate::store::{StoreError, chance, process_name};

/// The shards of one sealer.
#[derive(Debug)]
pub(super) struct Shares {
    engine: Arc<Engine>,
    metrics: Metrics,
    /// The sealer's name among all that work on the store.
    sealer: String,
    /// Until when each is ours without being asked for again.
    held: Mutex<BTreeMap<Shard, Instant>>,
    /// Whether [`Shares::keep`] is at work.
    is_kept: AtomicBool,
}

impl Shares {
    pub(super) fn new(engine: Arc<Engine>, metrics: Metrics) -> Shares {
        let held = Mutex::default();
        Shares { engine, metrics, sealer: process_name(), held, is_kept: AtomicBool::new(false) }
    }

    /// Holds shards until it is dropped; ends at once where there is only one sealer.
    pub(super) async fn keep(&self) {
        let Some(time) = self.engine.lease_time() else { return };
        self.is_kept.store(true, Ordering::Relaxed);
        let mut interval = tokio::time::interval(time / limits::SEAL_LEASE_RENEWALS);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "shards to seal cannot be taken or kept; trying again");
            }
        }
    }

    /// Whether somebody else calls [`Shares::look`] in time.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Keeps the shards that are ours, gives back what is more than our share, and takes what is
    /// free of it.
    pub(super) async fn look(&self) -> Result<(), StoreError> {
        let Some(time) = self.engine.lease_time() else { return Ok(()) };
        let sealers = self.engine.sealers(&self.sealer).await?;
        let shards: Vec<Shard> = self.engine.shards().collect();
        let share = shards.len().div_ceil(sealers.max(1));
        let mut ours = self.held();
        let more = ours.split_off(share.min(ours.len()));
        self.hold_each(&ours, time).await?;
        for shard in more {
            // First: no work begins on it any more.
            self.locked().remove(&shard);
            self.engine.release(shard, &self.sealer).await?;
        }
        // Sealers that start together do not ask for the same ones.
        let begin = usize::try_from(chance()).unwrap_or_default() % shards.len().max(1);
        let others = shards.iter().cycle().skip(begin).take(shards.len()).copied();
        let mut others: VecDeque<Shard> = others.filter(|shard| !self.holds(*shard)).collect();
        while !others.is_empty() && self.held().len() < share {
            let missing = (share - self.held().len()).min(others.len());
            let asked: Vec<Shard> = others.drain(..missing).collect();
            self.hold_each(&asked, time).await?;
        }
        self.metrics.sealing().shards(self.held().len());
        Ok(())
    }

    /// Gives back all that it holds, and is counted no more.
    pub(super) async fn give_back(&self) -> Result<(), StoreError> {
        if self.engine.lease_time().is_none() {
            return Ok(());
        }
        let ours = std::mem::take(&mut *self.locked());
        let released = ours.keys().map(|shard| self.engine.release(*shard, &self.sealer));
        try_join_all(released).await?;
        self.engine.leave(&self.sealer).await
    }

    /// Asks for some shards at once: each answer takes several rounds of the cluster's.
    async fn hold_each(&self, shards: &[Shard], time: Duration) -> Result<(), StoreError> {
        try_join_all(shards.iter().map(|shard| self.hold(*shard, time))).await.map(drop)
    }

    async fn hold(&self, shard: Shard, time: Duration) -> Result<(), StoreError> {
        // The lease begins after this, when the cluster has heard of it.
        let asked = Instant::now();
        let was_ours = self.holds(shard);
        if self.engine.hold(shard, &self.sealer).await? {
            // A cluster counts in whole seconds, and so may end it by one too early.
            let ours = time.saturating_sub(Duration::from_secs(1));
            self.locked().insert(shard, asked + ours);
        } else {
            self.locked().remove(&shard);
            if was_ours {
                self.metrics.sealing().lease_lost();
                tracing::warn!(shard = shard.0, "another sealer took the shard");
            }
        }
        Ok(())
    }

    /// The shards that are ours now.
    pub(super) fn held(&self) -> Vec<Shard> {
        self.engine.shards().filter(|shard| self.holds(*shard)).collect()
    }

    /// Whether a shard is ours now.
    pub(super) fn holds(&self, shard: Shard) -> bool {
        if self.engine.lease_time().is_none() {
            return true;
        }
        self.locked().get(&shard).is_some_and(|until| Instant::now() < *until)
    }

    // Held for single steps, none of which can panic half way.
    fn locked(&self) -> MutexGuard<'_, BTreeMap<Shard, Instant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
