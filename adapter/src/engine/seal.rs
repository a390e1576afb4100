//! Sealing one group's window: what its head holds and its chunks do not becomes chunks, one a
//! series. Knows which windows are due and what comes late to them; the ledger and the order of
//! work are the sealer's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{RwLock, RwLockReadGuard};
use xxhash_rust::xxh3::xxh3_64;

use super::Engine;
use super::chunk;
use super::collected::BySeries;
use super::select::SelectError;
use super::stored::Stored;
use crate::limits;
use crate::model::labels::Labels;
use crate::model::row_key::Group;
use crate::model::sample::Sample;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, TimeRange, Week, Window};
use crate::store::StoreError;
use crate::store::rows::{ChunkRow, LateRow, LedgerRow, MarkerRow, Rows, SealMark, Sealed, Shard};

/// When windows are sealed, and up to where sealing has come: what decides whether a sample is late.
#[derive(Debug)]
pub(super) struct Sealing {
    grace_ms: i64,
    /// How long after its end a sample of a window is late.
    late_after_ms: i64,
    /// Windows that begin before this hour may have been sealed.
    until: AtomicI32,
    /// Held by each commit from when it judges what is late until its rows can be read.
    commits: RwLock<()>,
}

impl Sealing {
    /// Half of the grace is left for a commit under way at another adapter: it is more than the
    /// deadline of a write. On a shared store another adapter may have a shorter grace than this one,
    /// so that it is half of the shortest that is allowed there.
    pub(super) fn new(grace: Duration, until: Hour, is_shared: bool) -> Sealing {
        let ms = |grace: Duration| i64::try_from(grace.as_millis()).unwrap_or(i64::MAX / 4);
        let shortest = if is_shared { grace.min(limits::CLUSTER_GRACE_MIN) } else { grace };
        Sealing {
            grace_ms: ms(grace),
            late_after_ms: ms(shortest) / 2,
            until: AtomicI32::new(until.0),
            commits: RwLock::new(()),
        }
    }

    /// To be held by a commit from before it asks [`Sealing::is_late`] until its rows can be read.
    pub(super) async fn commit(&self) -> RwLockReadGuard<'_, ()> {
        self.commits.read().await
    }

    /// Whether a sample of this window comes when the window may have been sealed. Where a clock was
    /// set back, what has been sealed counts and not the time.
    pub(super) fn is_late(&self, window: Window, now_ms: i64) -> bool {
        window.first.0 < self.until.load(Ordering::SeqCst)
            || window.end_ms().saturating_add(self.late_after_ms) < now_ms
    }

    /// From when on a window's samples that are in time have come.
    fn due_ms(&self, window: Window) -> i64 {
        window.end_ms().saturating_add(self.grace_ms)
    }

    fn until(&self) -> Hour {
        Hour(self.until.load(Ordering::SeqCst))
    }

    /// From now on, what comes to windows before this hour is late; and what was judged before can
    /// be read when this returns. The time cannot promise that: a machine may be suspended in the
    /// middle of a commit, and a clock set forward.
    async fn begin(&self, until: Hour) {
        self.learn(until);
        drop(self.commits.write().await);
    }

    /// The same without waiting: for a store whose commits judge once more when they are durable.
    pub(super) fn learn(&self, until: Hour) {
        self.until.fetch_max(until.0, Ordering::SeqCst);
    }
}

/// One group's window, read and encoded, but for what the ledger adds.
#[derive(Debug)]
pub struct GroupWindow {
    /// Chunks, the marker, and the late rows that may go.
    pub sealed: Sealed,
    /// Samples in the chunks.
    pub samples: usize,
    /// Whether the window was not sealed before.
    pub is_first: bool,
    /// The window's samples, where they are all that is stored of it and not too many to keep.
    pub whole: Option<Arc<Whole>>,
}

/// Everything that is stored of a group's window.
#[derive(Debug)]
pub struct Whole {
    group: Group,
    window: Window,
    /// Sorted by id; samples sorted by time, one a timestamp.
    series: Vec<(SeriesId, Vec<Sample>)>,
}

impl Whole {
    /// Whether all of a group in a range is here.
    pub(super) fn holds(&self, group: Group, range: TimeRange) -> bool {
        let of_window = self.window.range();
        self.group == group
            && of_window.contains(range.start_ms)
            && of_window.contains(range.end_ms)
    }

    /// The samples of some series in a range.
    pub(super) fn within<T>(
        &self,
        range: TimeRange,
        wanted: &BTreeMap<SeriesId, T>,
    ) -> Vec<(SeriesId, Vec<Sample>)> {
        let of_series = self.series.iter().filter(|(id, _)| wanted.contains_key(id));
        of_series
            .map(|(id, samples)| {
                let within = samples.iter().filter(|sample| range.contains(sample.timestamp_ms));
                (*id, within.copied().collect())
            })
            .collect()
    }
}

impl Engine {
    /// The window after this one.
    pub fn next_window(&self, window: Window) -> Window {
        self.layouts.window(Hour(window.last().0 + 1))
    }

    /// The window that holds an hour.
    pub fn window_of(&self, hour: Hour) -> Window {
        self.layouts.window(hour)
    }

    /// Whether a window has ended and its grace is over.
    pub fn is_due(&self, window: Window) -> bool {
        self.due_ms(window) < self.clock.now_ms()
    }

    /// When a window's grace is over; unix milliseconds.
    pub fn due_ms(&self, window: Window) -> i64 {
        self.sealing.due_ms(window)
    }

    /// From when on something that came late at a time should be sealed. On a shared store it may have
    /// come before the grace of its window was over.
    pub fn late_due_ms(&self, arrived_ms: i64) -> i64 {
        let grace_ms = if self.store.is_shared() { self.sealing.grace_ms } else { 0 };
        arrived_ms.saturating_add(grace_ms)
    }

    /// Samples of this window and of those before it are late from now on, whatever the clock says,
    /// also after a restart; the commits of those that were not are waited for.
    pub async fn begin_sealing(&self, window: Window) -> Result<(), StoreError> {
        let until = Hour(window.last().0 + 1);
        if until > self.sealing.until() {
            self.store.set_seal_mark(SealMark::Begun, until).await?;
            if self.store.is_shared() {
                self.sealing.learn(until);
            } else {
                self.sealing.begin(until).await;
            }
        }
        Ok(())
    }

    /// Whether [`Engine::begin_sealing`] holds for a window.
    pub fn is_sealing(&self, window: Window) -> bool {
        window.first < self.sealing.until()
    }

    /// Up to which hour sealing has come: windows that begin before it are sealed, or being sealed.
    pub fn sealing_until(&self) -> Hour {
        self.sealing.until()
    }

    /// Whether a group's window has its marker.
    pub async fn is_sealed(&self, group: Group, window: Window) -> Result<bool, StoreError> {
        Ok(!self.store.markers(group, (window.first, window.first)).await?.is_empty())
    }

    /// The next groups of a window's week and of a shard, or of all, behind the last of those before;
    /// none at the end.
    pub async fn group_page(
        &self,
        (window, shard): (Window, Option<Shard>),
        after: Option<&(String, Group)>,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let week = Week::of(window.first.start_ms());
        self.store.row_key_page((week, shard), after, limits::SEAL_PAGE_ROWS).await
    }

    /// The next late rows of a shard's groups, or of all, behind the last of those before; none at the
    /// end.
    pub async fn late_page(
        &self,
        shard: Option<Shard>,
        after: Option<LateRow>,
    ) -> Result<Vec<LateRow>, StoreError> {
        self.store.late_page(shard, after, limits::SEAL_PAGE_ROWS).await
    }

    /// Has a window sealed again that is short of something which is in the head.
    pub async fn mark_late(&self, group: Group, window: Window) -> Result<(), StoreError> {
        let (window, arrived_ms) = (window.first, self.clock.now_ms());
        let late = vec![LateRow { group, window, arrived_ms, hash: 0 }];
        self.store.append(Rows { late, ..Rows::default() }).await
    }

    /// The labels of a group's series in the week of a window, of those that are wanted.
    pub async fn labels_of(
        &self,
        group: Group,
        window: Window,
        wanted: &(impl Fn(&Labels) -> bool + Sync),
    ) -> Result<Vec<Labels>, StoreError> {
        let week = Week::of(window.first.start_ms());
        let series = self.series_of(week, group, wanted).await?;
        Ok(series.into_values().collect())
    }

    /// Makes a seal durable.
    pub async fn seal(&self, sealed: Sealed) -> Result<(), StoreError> {
        self.store.seal(sealed).await
    }

    /// Which of a group's windows that begin in a range of hours are sealed. To be asked before
    /// [`Engine::late_of`]: what is sealed again in between is in its chunks and in the ledger.
    pub async fn markers(
        &self,
        group: Group,
        hours: (Hour, Hour),
    ) -> Result<Vec<Hour>, StoreError> {
        self.store.markers(group, hours).await
    }

    /// What came late to a group's windows that begin in a range of hours and is not sealed yet.
    pub async fn late_of(
        &self,
        group: Group,
        hours: (Hour, Hour),
    ) -> Result<Vec<LateRow>, StoreError> {
        self.store.late(group, hours, limits::QUERY_ROWS_MAX).await
    }

    /// A guest's stored rows of one family in a range of hours.
    pub async fn ledger(
        &self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
    ) -> Result<Vec<LedgerRow>, StoreError> {
        self.store.ledger(family, guest, hours, limits::QUERY_ROWS_MAX).await
    }

    /// The guests that have stored rows of a family about a range of hours.
    pub async fn ledger_guests(
        &self,
        family: &str,
        hours: (Hour, Hour),
    ) -> Result<Vec<String>, StoreError> {
        self.store.ledger_guests(family, hours, limits::QUERY_ROWS_MAX).await
    }

    /// Reads a group's window and encodes what its chunks do not hold yet; `late` are the late rows
    /// that may go with it, from [`Engine::late_rows`]. `None` where there is nothing at all, and such
    /// a window gets no marker, or nothing that is not sealed.
    pub async fn encode_window(
        &self,
        group: Group,
        window: Window,
        late: Vec<LateRow>,
    ) -> Result<Option<GroupWindow>, SelectError> {
        // Without a marker the head holds everything. Chunks that a crash left would be made again.
        let is_first = !self.is_sealed(group, window).await?;
        let stored = Stored { store: &self.store, layouts: &self.layouts };
        let (mut slices, mut slice) = (1, 0);
        let (mut chunks, mut count, mut any, mut whole) = (Vec::new(), 0, false, None);
        while slice < slices {
            let Some(samples) = collect(&stored, group, window, (slice, slices)).await? else {
                // Too much for memory: the same again, by more and smaller parts of the series.
                slices *= 8;
                (slice, chunks, count) = (0, Vec::new(), 0);
                continue;
            };
            any |= !samples.is_empty();
            let fresh = if is_first {
                samples
            } else {
                without_sealed(&stored, group, window, samples).await?
            };
            let samples: usize = fresh.iter().map(|(_, samples)| samples.len()).sum();
            count += samples;
            let fresh = Arc::new(Whole { group, window, series: fresh });
            chunks.extend(encode(Arc::clone(&fresh)).await?);
            let is_kept = is_first && slices == 1 && samples <= limits::SEAL_KEPT_SAMPLES_MAX;
            whole = is_kept.then_some(fresh);
            slice += 1;
        }
        // Nothing at all, or nothing that is not sealed already.
        if late.is_empty() && (!any || !is_first && count == 0) {
            return Ok(None);
        }
        let sealed = Sealed {
            chunks,
            markers: vec![MarkerRow { group, window: window.first }],
            late,
            ..Sealed::default()
        };
        Ok(Some(GroupWindow { sealed, samples: count, is_first, whole }))
    }

    /// The late rows of a window, or the first of them: the rest keeps it late. To be read before
    /// anything else of a seal, so that a row that comes in between is not taken away unread.
    pub async fn late_rows(
        &self,
        group: Group,
        window: Window,
    ) -> Result<Vec<LateRow>, StoreError> {
        let window = window.first;
        let all = self.store.late(group, (window, window), limits::SEAL_LATE_ROWS_MAX).await;
        let too_many = match all {
            Err(error) if error.is_too_much() => error,
            all => return all,
        };
        tracing::debug!(%too_many, "the late rows of a window are taken away in parts");
        let first = LateRow { group, window, arrived_ms: i64::MIN, hash: 0 };
        let mut rows = self.store.late_page(None, Some(first), limits::SEAL_LATE_ROWS_MAX).await?;
        rows.retain(|row| row.group == group && row.window == window);
        Ok(rows)
    }
}

/// The head's samples of a window, of every series in one of some slices of them; `None` where they
/// are too many for memory.
async fn collect(
    stored: &Stored<'_>,
    group: Group,
    window: Window,
    (slice, slices): (u128, u128),
) -> Result<Option<Vec<(SeriesId, Vec<Sample>)>>, SelectError> {
    let range = window.range();
    let mut samples = BySeries::default();
    let mut count = 0_usize;
    stored
        .head(group, (window.first, window.last()), &mut |series, sample| {
            if range.contains(sample.timestamp_ms) && (slices == 1 || series.0 % slices == slice) {
                count += 1;
                // Counted on, and not kept: what is kept would not be used.
                if count <= limits::SEAL_SAMPLES_MAX {
                    samples.push(series, sample);
                }
            }
            Ok(())
        })
        .await?;
    Ok((count <= limits::SEAL_SAMPLES_MAX).then(|| samples.sorted()))
}

/// Leaves out what the window's chunks hold already.
async fn without_sealed(
    stored: &Stored<'_>,
    group: Group,
    window: Window,
    mut samples: Vec<(SeriesId, Vec<Sample>)>,
) -> Result<Vec<(SeriesId, Vec<Sample>)>, SelectError> {
    let ids: Vec<SeriesId> = samples.iter().map(|(id, _)| *id).collect();
    let mut sealed = BySeries::default();
    stored
        .chunks(group, (window.first, window.last()), &ids, &mut |series, sample| {
            sealed.push(series, sample);
            Ok(())
        })
        .await?;
    let sealed: BTreeMap<SeriesId, Vec<Sample>> = sealed.sorted().into_iter().collect();
    for (series, samples) in &mut samples {
        let Some(sealed) = sealed.get(series) else { continue };
        samples.retain(|sample| {
            let key = |sealed: &Sample| sealed.timestamp_ms;
            let found = sealed.binary_search_by_key(&sample.timestamp_ms, key).ok();
            let held = found.and_then(|found| sealed.get(found));
            held.is_none_or(|held| held.merge(*sample) != *held)
        });
    }
    samples.retain(|(_, samples)| !samples.is_empty());
    Ok(samples)
}

/// Chunks; on a thread that may be busy for a while.
async fn encode(fresh: Arc<Whole>) -> Result<Vec<ChunkRow>, StoreError> {
    let encoded = tokio::task::spawn_blocking(move || {
        let mut encoder = chunk::Encoder::default();
        let mut row = |series: SeriesId, samples: &[Sample]| {
            let payload = encoder.encode(samples);
            let hash = xxh3_64(&payload);
            let payload = Bytes::from(payload);
            let Whole { group, window, .. } = *fresh;
            ChunkRow { group, series, window: window.first, hash, payload }
        };
        let mut rows = Vec::with_capacity(fresh.series.len());
        for (series, samples) in &fresh.series {
            let parts = samples.chunks(limits::CHUNK_SAMPLES_MAX);
            rows.extend(parts.map(|part| row(*series, part)));
        }
        rows
    });
    encoded.await.map_err(|error| {
        // It would be so again: the others are not to wait for it.
        if error.is_panic() {
            StoreError::Damaged(format!("a window cannot be encoded: {error}"))
        } else {
            StoreError::Unavailable(format!("a seal was cut off: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn sealing_waits_for_what_was_judged_before_it_began() {
        let sealing = Sealing::new(Duration::from_mins(15), Hour(100), false);
        let window = |hour| Window { first: Hour(hour), hours: 2 };
        let committing = sealing.commit().await;
        assert!(!sealing.is_late(window(100), window(100).end_ms()));
        let mut begin = Box::pin(sealing.begin(Hour(102)));
        assert!((&mut begin).now_or_never().is_none(), "a commit is under way");
        assert!(sealing.is_late(window(100), window(100).end_ms()), "late at once for the next");
        drop(committing);
        begin.await;
        assert!(sealing.commit().now_or_never().is_some());
    }

    #[test]
    fn adapters_of_one_cluster_agree_on_what_is_late() {
        let window = Window { first: Hour(100), hours: 2 };
        let of = |minutes, is_shared| {
            let sealing = Sealing::new(Duration::from_mins(minutes), Hour(0), is_shared);
            let is_late = |ago_ms: &i64| sealing.is_late(window, window.end_ms() + ago_ms);
            (0..24 * 3600 * 1000).step_by(30_000).find(is_late).unwrap()
        };
        assert_eq!([of(5, true), of(15, true), of(24 * 60, true)], [180_000; 3]);
        assert_eq!([of(2, true), of(2, false), of(15, false)], [90_000, 90_000, 480_000]);
    }
}
