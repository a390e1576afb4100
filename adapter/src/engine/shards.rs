//! How several processes share the sealing of one store: shards of the groups, each with one sealer
//! at a time, and turns that put what they count in order. Knows no lease's form.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use crate::model::time::{Hour, Window};
use crate::store::StoreError;
use crate::store::rows::{SealMark, Shard};

impl Engine {
    /// Takes notice of how long the oldest window that is not sealed has been due, and of how long the
    /// oldest of what came late has waited. What is not known is taken to wait on since it last was.
    pub fn note_lag(&self, lag_ms: Option<i64>, late_ms: Option<i64>) {
        let now_ms = self.clock.now_ms();
        for (waits_since, ms) in self.waits_since_ms.iter().zip([lag_ms, late_ms]) {
            if let Some(ms) = ms {
                waits_since.store(now_ms.saturating_sub(ms), Ordering::Relaxed);
            }
        }
    }

    /// Since when the oldest of what came late waits to be sealed, unix milliseconds; in a cluster the
    /// begin of its hour of arrival, where that is over. `None` where nothing waits.
    pub async fn late_since(&self) -> Result<Option<i64>, StoreError> {
        self.store.late_since().await
    }

    /// Remembers up to when nothing waits of what came late to a shard.
    pub async fn finish_late(&self, shard: Shard) -> Result<(), StoreError> {
        self.store.finish_late(shard).await
    }

    /// See [`crate::store::Store::trouble`].
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// Refuses where heads expire and sealing is so far behind that some may expire unsealed: windows
    /// as a whole, or what came late to them.
    pub(super) fn refuse_unsealed(&self) -> Result<(), String> {
        let Some(ttl) = self.store.head_ttl() else { return Ok(()) };
        let since_ms = self.waits_since_ms.iter().map(|since| since.load(Ordering::Relaxed));
        let lag_ms = self.clock.now_ms().saturating_sub(since_ms.min().unwrap_or(i64::MAX)).max(0);
        let lag = Duration::from_millis(lag_ms.unsigned_abs());
        if lag < ttl / 2 {
            return Ok(());
        }
        Err(format!(
            "sealing is {} h behind, or how far it is could not be read for so long, and samples \
             that are not sealed expire {} h after their arrival; no more are taken until it has \
             caught up: see why windows cannot be sealed in the adapters' logs",
            lag.as_secs() / 3600,
            ttl.as_secs() / 3600
        ))
    }

    /// Where heads expire: the oldest window of a shard that is to be looked at once more by now.
    pub async fn first_unchecked_of(&self, shard: Shard) -> Result<Option<Window>, StoreError> {
        let Some(ttl) = self.store.head_ttl() else { return Ok(None) };
        let Some(sealed) = self.store.seal_mark(SealMark::Sealed(shard)).await? else {
            return Ok(None);
        };
        let mark = SealMark::Checked(shard);
        let checked = if let Some(checked) = self.store.seal_mark(mark).await? {
            checked
        } else {
            // What was sealed before is not known to be short of anything.
            self.store.set_seal_mark(mark, sealed).await?;
            sealed
        };
        let window = self.layouts.window(checked);
        let half_ms = i64::try_from(ttl.as_millis() / 2).unwrap_or(i64::MAX);
        let is_due = self.due_ms(window).saturating_add(half_ms) < self.clock.now_ms();
        Ok((is_due && window.first < sealed).then_some(window))
    }

    /// Remembers that every window of a shard up to this one was looked at once more.
    pub async fn finish_checking(&self, shard: Shard, window: Window) -> Result<(), StoreError> {
        self.store.set_seal_mark(SealMark::Checked(shard), Hour(window.last().0 + 1)).await
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.store.shards()).map(Shard)
    }

    /// How long a shard is a sealer's once it took it; `None` where there is only one sealer.
    pub fn lease_time(&self) -> Option<Duration> {
        self.store.lease_time()
    }

    /// Takes or keeps a shard; whether it is this sealer's.
    pub async fn hold(&self, shard: Shard, sealer: &str) -> Result<bool, StoreError> {
        self.store.hold(shard, sealer).await
    }

    /// Gives a shard back.
    pub async fn release(&self, shard: Shard, sealer: &str) -> Result<(), StoreError> {
        self.store.release(shard, sealer).await
    }

    /// Says that this sealer is at work, and how many are.
    pub async fn sealers(&self, sealer: &str) -> Result<usize, StoreError> {
        self.store.sealers(sealer).await
    }

    /// See [`crate::store::Store::leave`].
    pub async fn leave(&self, sealer: &str) -> Result<(), StoreError> {
        self.store.leave(sealer).await
    }

    /// Turns for some projections: to be drawn when the late rows of all of them have been read, and
    /// before anything that they are counted from. From then on this process also knows which
    /// windows others have begun with, whose hours it must not leave as they are.
    pub async fn turns(&self, count: usize) -> Result<i64, StoreError> {
        let first = self.store.turns(u32::try_from(count).unwrap_or(u32::MAX)).await?;
        self.learn_sealing().await?;
        Ok(first)
    }

    /// Learns which windows other processes have begun to seal: what comes to them is late.
    pub async fn learn_sealing(&self) -> Result<(), StoreError> {
        if self.store.is_shared()
            && let Some(begun) = self.store.seal_mark(SealMark::Begun).await?
        {
            self.sealing.learn(begun);
        }
        Ok(())
    }

    /// The oldest window that is not sealed yet in every shard.
    pub async fn first_unsealed(&self) -> Result<Window, StoreError> {
        Ok(self.window_or_now(self.store.sealed_until().await?))
    }

    /// The oldest window of a shard that has not been swept yet.
    pub async fn first_unsealed_of(&self, shard: Shard) -> Result<Window, StoreError> {
        Ok(self.window_or_now(self.store.seal_mark(SealMark::Sealed(shard)).await?))
    }

    fn window_or_now(&self, until: Option<Hour>) -> Window {
        self.layouts.window(until.unwrap_or_else(|| Hour::of(self.clock.now_ms())))
    }

    /// Remembers that every window of a shard up to this one is sealed.
    pub async fn finish_sealing(&self, shard: Shard, window: Window) -> Result<(), StoreError> {
        let until = Hour(window.last().0 + 1);
        self.store.set_seal_mark(SealMark::Sealed(shard), until).await
    }
}
