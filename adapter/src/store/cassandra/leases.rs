//! How sealers in several processes share the work: leases of shards that end by themselves, turns
//! that put their projections in order, and how far each shard is. Knows no rule of sealing.

use std::sync::PoisonError;
use std::time::Duration;

use scylla::value::{CqlTimestamp, CqlValue};
use tokio::time::Instant;

use super::attempt::until;
use super::read::partitions;
use super::transaction::{Decided, decide};
use super::{Cassandra, THE_PART};
use crate::limits;
use crate::model::time::Hour;
use crate::store::StoreError;
use crate::store::rows::{SealMark, Shard};

/// The partition of the marks of shards in `sealing`.
pub(super) const SEALED: i32 = 0;
/// The partition of what sealing has begun with, under shard 0.
const BEGUN: i32 = 1;
/// The partition of what was looked at once more.
const CHECKED: i32 = 2;
/// The partition of the first hours of arrival that are not done with.
pub(super) const LATE: i32 = 3;

impl Cassandra {
    /// See [`crate::store::Store::shards`].
    pub fn shard_count(&self) -> u16 {
        self.shared.index_shards
    }

    /// See [`crate::store::Store::lease_time`].
    pub fn lease_time(&self) -> Duration {
        self.shared.lease
    }

    /// See [`crate::store::Store::head_ttl`].
    pub fn head_ttl(&self) -> Duration {
        Duration::from_millis(self.shared.head_ms.unsigned_abs())
    }

    /// See [`crate::store::Store::hold`].
    pub async fn hold(&self, shard: Shard, sealer: &str) -> Result<bool, StoreError> {
        let (shared, statements) = (&self.shared, &self.shared.statements.leases);
        let (ttl, number) = (self.lease_ttl(), shard.0.cast_signed());
        let kept = decide(shared, &statements.keep, (ttl, sealer, number, sealer)).await?;
        if kept.is_made {
            return Ok(true);
        }
        if kept.found_text("sealer").is_some() {
            return Ok(false);
        }
        let taken = decide(shared, &statements.take, (number, sealer, ttl)).await?;
        Ok(taken.is_made || taken.found_text("sealer") == Some(sealer))
    }

    /// See [`crate::store::Store::release`].
    pub async fn release(&self, shard: Shard, sealer: &str) -> Result<(), StoreError> {
        let statement = &self.shared.statements.leases.give_back;
        decide(&self.shared, statement, (shard.0.cast_signed(), sealer)).await.map(drop)
    }

    /// See [`crate::store::Store::sealers`]. One that died is counted for as long as its leases hold.
    pub async fn sealers(&self, sealer: &str) -> Result<usize, StoreError> {
        self.announce(sealer, self.lease_ttl()).await?;
        let (shared, statements) = (&self.shared, &self.shared.statements.leases);
        let sealers: Vec<(String,)> =
            partitions(shared, &statements.sealers, [(THE_PART,)], limits::QUERY_ROWS_MAX).await?;
        Ok(sealers.len().max(1))
    }

    /// See [`crate::store::Store::leave`]: it is counted for a second more.
    pub async fn leave(&self, sealer: &str) -> Result<(), StoreError> {
        self.announce(sealer, 1).await
    }

    /// Says that a sealer is there, for so many seconds from now on.
    async fn announce(&self, sealer: &str, ttl: i32) -> Result<(), StoreError> {
        let (shared, announce) = (&self.shared, &self.shared.statements.leases.announce);
        let deadline = Instant::now() + limits::WRITE_DEADLINE;
        let write = || shared.session.execute_unpaged(&announce.statement, (THE_PART, sealer, ttl));
        until((announce.purpose, &shared.metrics), deadline, write).await.map(drop)
    }

    /// See [`crate::store::Store::turns`]: microseconds since 1970 by the cluster's clock, or the
    /// next numbers where others have drawn those.
    pub async fn turns(&self, count: u32) -> Result<i64, StoreError> {
        let (shared, statements) = (&self.shared, &self.shared.statements.leases);
        let deadline = Instant::now() + limits::WRITE_DEADLINE;
        let mut last = self.last_turn().await?;
        loop {
            let first = self.cluster_micros().await?.max(last.map_or(0, |last| last + 1));
            let end = first + i64::from(count.max(1)) - 1;
            let decided = match last {
                Some(last) => decide(shared, &statements.next_turn, (end, THE_PART, last)).await?,
                None => decide(shared, &statements.first_turn, (THE_PART, end)).await?,
            };
            if decided.is_made {
                *shared.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
                return Ok(first);
            }
            last = turn_of(&decided);
            if Instant::now() > deadline {
                let why = "other sealers were faster each time".to_owned();
                return Err(StoreError::Unavailable(format!("drawing a turn: {why}")));
            }
        }
    }

    /// The last turn that we know of, which is mostly the last.
    async fn last_turn(&self) -> Result<Option<i64>, StoreError> {
        let known = *self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(known);
        }
        let select = &self.shared.statements.leases.turn;
        let rows: Vec<(i64,)> = partitions(&self.shared, select, [(THE_PART,)], 1).await?;
        Ok(rows.first().map(|(turn,)| *turn))
    }

    /// The clock of a node.
    async fn cluster_micros(&self) -> Result<i64, StoreError> {
        let prepared = &self.shared.statements.leases.clock;
        let deadline = Instant::now() + limits::READ_DEADLINE;
        let session = &self.shared.session;
        let ask = || session.execute_unpaged(&prepared.statement, ());
        let answer = until((prepared.purpose, &self.shared.metrics), deadline, ask).await?;
        let damaged = |error: &dyn std::error::Error| {
            StoreError::Damaged(format!("the cluster's clock cannot be read: {error}"))
        };
        let rows = answer.into_rows_result().map_err(|error| damaged(&error))?;
        let (CqlTimestamp(now_ms),) = rows.first_row().map_err(|error| damaged(&error))?;
        Ok(now_ms.saturating_mul(1000))
    }

    /// See [`crate::store::Store::seal_mark`].
    pub async fn seal_mark(&self, mark: SealMark) -> Result<Option<Hour>, StoreError> {
        let (part, shard) = place(mark);
        let marks = self.marks(part).await?;
        Ok(marks.into_iter().find(|(of, _)| *of == shard).map(|(_, until)| Hour(until)))
    }

    /// See [`crate::store::Store::sealed_until`].
    pub async fn sealed_until(&self) -> Result<Option<Hour>, StoreError> {
        let marks = self.marks(SEALED).await?;
        let is_whole = marks.len() >= usize::from(self.shared.index_shards);
        let least = marks.into_iter().map(|(_, until)| Hour(until)).min();
        Ok(least.filter(|_| is_whole))
    }

    pub(super) async fn marks(&self, part: i32) -> Result<Vec<(i16, i32)>, StoreError> {
        let select = &self.shared.statements.sealed.sealing;
        partitions(&self.shared, select, [(part,)], limits::QUERY_ROWS_MAX).await
    }

    /// See [`crate::store::Store::begin_seal_mark`].
    pub async fn begin_seal_mark(&self, shard: Shard, hour: Hour) -> Result<(), StoreError> {
        self.shared.check_trouble()?;
        let first = &self.shared.statements.sealed.first_sealing;
        let now_ms = self.shared.clock.now_ms();
        let arrival = Hour::of(now_ms.saturating_sub(limits::LATE_SETTLED_AFTER_MS));
        // Sealing last: nothing is sealed before it is known from where on to look once more.
        for (part, hour) in [(LATE, arrival), (CHECKED, hour), (SEALED, hour)] {
            decide(&self.shared, first, (part, shard.0.cast_signed(), hour.0)).await?;
        }
        Ok(())
    }

    /// See [`crate::store::Store::set_seal_mark`].
    pub async fn set_seal_mark(&self, mark: SealMark, hour: Hour) -> Result<(), StoreError> {
        self.move_mark(place(mark), hour).await
    }

    /// Moves a mark on, and never back.
    pub(super) async fn move_mark(
        &self,
        (part, shard): (i32, i16),
        hour: Hour,
    ) -> Result<(), StoreError> {
        self.shared.check_trouble()?;
        let (shared, statements) = (&self.shared, &self.shared.statements.sealed);
        let moved = decide(shared, &statements.next_sealing, (hour.0, part, shard, hour.0)).await?;
        if moved.is_made || moved.found("sealed_until").is_some() {
            return Ok(());
        }
        let first = decide(shared, &statements.first_sealing, (part, shard, hour.0)).await?;
        if !first.is_made {
            // Another sealer was faster.
            decide(shared, &statements.next_sealing, (hour.0, part, shard, hour.0)).await?;
        }
        Ok(())
    }

    /// Whole seconds, as a time to live has.
    fn lease_ttl(&self) -> i32 {
        i32::try_from(self.shared.lease.as_secs().max(1)).unwrap_or(i32::MAX)
    }
}

fn turn_of(decided: &Decided) -> Option<i64> {
    match decided.found("turn") {
        Some(CqlValue::BigInt(turn)) => Some(*turn),
        _ => None,
    }
}

/// The partition and the row of a mark in `sealing`.
fn place(mark: SealMark) -> (i32, i16) {
    match mark {
        SealMark::Sealed(shard) => (SEALED, shard.0.cast_signed()),
        SealMark::Checked(shard) => (CHECKED, shard.0.cast_signed()),
        SealMark::Begun => (BEGUN, 0),
    }
}
