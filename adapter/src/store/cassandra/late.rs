//! What came late, as a queue: windows are listed by the hour of their arrival, so that who looks for
//! work reads hours that are not done with, and never passes over what was taken away before. Knows no
//! payload and no rule of sealing.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use super::leases::LATE;
use super::read::partitions;
use super::schema::{LISTED_EXTRA_DAYS, TTL_SECONDS_MAX};
use super::sealed::limit;
use super::stage::{Stage, batches};
use super::write::{Ages, group_shard, late_key};
use super::{Cassandra, Shared};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::time::{DAY_MS, Hour, Week};
use crate::store::StoreError;
use crate::store::rows::{LateRow, Shard};

/// A group and a window of it, as the cluster sorts them.
type Listed = (i64, i32);
/// A late row without its week, sorted as the windows are listed.
type Found = (i64, i32, i64, i64);
/// shard, hour of arrival, group, window, time to live.
type ListedValues = (i16, i32, i64, i32, i32);
type LateValues = (i64, i32, i32, i64, i64, i32);

const WEEK_HOURS: i32 = 168;
/// Before all rows of a window.
const BEFORE: (i64, i64) = (i64::MIN, i64::MIN);
/// The last that a row of a window can be.
const BEHIND: (i64, i64) = (i64::MAX, i64::MAX);

/// Lists the windows of some late rows at this hour; gives the time at which it did.
pub(super) async fn list(
    shared: &Arc<Shared>,
    rows: &[LateRow],
    ages: &Ages,
    deadline: Instant,
) -> Result<i64, StoreError> {
    let now_ms = shared.clock.now_ms();
    let (hour, ttl) = (Hour::of(now_ms), ages.ttl_of_listed());
    let values = rows.iter().map(|row| {
        let shard = group_shard(row.group, shared.index_shards);
        (shard, hour.0, row.group.0.cast_signed(), row.window.0, ttl)
    });
    let values: BTreeSet<ListedValues> = values.collect();
    let rows = batches(values.into_iter().collect(), |a: &ListedValues, b| a.0 == b.0, |_| 0);
    let mut stage = Stage::of_commit(shared, deadline);
    stage.write(&shared.statements.sealed.write_late_windows, rows).await?;
    stage.finish().await?;
    Ok(now_ms)
}

/// Lists them again where that was too long ago, because this process slept meanwhile: sealers may
/// have done with the hour before the rows were there.
pub(super) async fn keep_listed(
    shared: &Arc<Shared>,
    rows: &[LateRow],
    (mut listed_ms, ages): (i64, &Ages),
    deadline: Instant,
) -> Result<(), StoreError> {
    while shared.clock.now_ms().abs_diff(listed_ms) > limits::LATE_LISTED_AGO_MS_MAX {
        listed_ms = list(shared, rows, ages, deadline).await?;
    }
    Ok(())
}

/// Writes late rows, whose windows are listed already.
pub(super) async fn write(
    shared: &Arc<Shared>,
    rows: &[LateRow],
    ages: &Ages,
    deadline: Instant,
) -> Result<(), StoreError> {
    let values = rows.iter().filter_map(|row| {
        let ttl = ages.ttl_of_window(row.window)?;
        let (group, week, window, arrived_ms, hash) = late_key(row);
        Some((group, week, window, arrived_ms, hash, ttl))
    });
    let rows = batches(values.collect(), |a: &LateValues, b| (a.0, a.1) == (b.0, b.1), |_| 0);
    let mut stage = Stage::of_commit(shared, deadline);
    stage.write(&shared.statements.sealed.write_late, rows).await?;
    stage.finish().await
}

impl Shared {
    /// Takes out the rows whose windows this process has listed again.
    fn drop_listed(&self, rows: &mut Vec<LateRow>) {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|row| !listed.contains(&(row.group, row.window)));
    }

    fn note_listed(&self, rows: &[LateRow]) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() >= limits::LATE_LISTED_AGAIN_MAX {
            listed.clear();
        }
        listed.extend(rows.iter().map(|row| (row.group, row.window)));
    }
}

impl Cassandra {
    /// See [`crate::store::Store::late`]. Some windows at a time: what was taken away of a group in
    /// the last minutes may be more than a node passes over in one read.
    pub async fn late(
        &self,
        group: Group,
        windows: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        // No row lives for longer, and nothing is late yet of what is further ahead than samples are taken.
        let now_ms = self.shared.clock.now_ms();
        let oldest = Hour::of(now_ms.saturating_sub(TTL_SECONDS_MAX * 1000));
        let newest = Hour::of(now_ms.saturating_add(limits::AHEAD_MS_MAX + DAY_MS));
        let keys = parts((windows.0.max(oldest), windows.1.min(newest)))
            .map(|(week, from, to)| (group.0.cast_signed(), week, from, to));
        let select = &self.shared.statements.sealed.late;
        let rows = partitions(&self.shared, select, keys, rows_max).await?;
        let mut rows: Vec<LateRow> = rows.into_iter().map(late_row).collect();
        rows.sort_unstable();
        if let Err(error) = self.list_old(&rows).await {
            // The rows are here, and whoever reads them next lists them.
            tracing::warn!(%error, "late rows of long ago could not be listed again");
        }
        Ok(rows)
    }

    /// Lists late rows again that came long ago, once in a process: a replica that missed their deletion
    /// may have brought them back when sealers had done with their hour.
    async fn list_old(&self, rows: &[LateRow]) -> Result<(), StoreError> {
        let shared = &self.shared;
        let old_ms = shared.clock.now_ms().saturating_sub(limits::LATE_OLD_MS);
        let mut old: Vec<LateRow> =
            rows.iter().filter(|row| row.arrived_ms < old_ms).copied().collect();
        old.dedup_by_key(|row| (row.group, row.window));
        shared.drop_listed(&mut old);
        if old.is_empty() || shared.check_trouble().is_err() {
            return Ok(());
        }
        let deadline = Instant::now() + limits::WRITE_DEADLINE;
        list(shared, &old, &Ages::now(shared), deadline).await?;
        shared.note_listed(&old);
        Ok(())
    }

    /// See [`crate::store::Store::late_page`]. Sorted by shard, then as the cluster sorts; a page
    /// ends with its shard, or before.
    pub async fn late_page(
        &self,
        shard: Option<Shard>,
        after: Option<LateRow>,
        rows: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        let of_group = |row: &LateRow| group_shard(row.group, self.shared.index_shards);
        let next = after.as_ref().map_or(0, of_group);
        for shard in self.asked(shard).filter(|shard| *shard >= next) {
            let of_shard = after.filter(|row| of_group(row) == shard);
            let hours = self.waiting(shard).await?;
            let page = self.page((shard, hours), of_shard, rows).await?;
            if !page.is_empty() {
                return Ok(page.into_iter().map(late_row).collect());
            }
        }
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::finish_late`].
    pub async fn finish_late(&self, shard: Shard) -> Result<(), StoreError> {
        let shard = shard.0.cast_signed();
        let settled_ms = self.shared.clock.now_ms().saturating_sub(limits::LATE_SETTLED_AFTER_MS);
        let first = *self.waiting(shard).await?.start();
        let over = Hour::of(settled_ms).0;
        let mut finished = None;
        if first < over && self.page((shard, first..=over - 1), None, 1).await?.is_empty() {
            finished = Some(Hour(over));
        } else {
            for hour in first..over {
                if !self.page((shard, hour..=hour), None, 1).await?.is_empty() {
                    break;
                }
                finished = Some(Hour(hour + 1));
            }
        }
        match finished {
            Some(hour) => self.move_mark((LATE, shard), hour).await,
            None => Ok(()),
        }
    }

    /// See [`crate::store::Store::late_since`].
    pub async fn late_since(&self) -> Result<Option<i64>, StoreError> {
        let oldest = self.marks(LATE).await?.into_iter().map(|(_, hour)| Hour(hour)).min();
        let settled_ms = self.shared.clock.now_ms().saturating_sub(limits::LATE_SETTLED_AFTER_MS);
        // One that is not over, or was a moment ago, is looked at all the time.
        Ok(oldest.filter(|hour| hour.end_ms() < settled_ms).map(Hour::start_ms))
    }

    /// The hours of arrival of a shard that are not done with. What was listed before the first of
    /// them leads to heads that have expired.
    async fn waiting(&self, shard: i16) -> Result<RangeInclusive<i32>, StoreError> {
        let now_ms = self.shared.clock.now_ms();
        let kept_ms = self.shared.head_ms.saturating_add(LISTED_EXTRA_DAYS * DAY_MS);
        let oldest = Hour::of(now_ms.saturating_sub(kept_ms)).0;
        let marks = self.marks(LATE).await?;
        let mark = marks.into_iter().find(|(of, _)| *of == shard).map_or(oldest, |(_, hour)| hour);
        // Another adapter's clock may be ahead of ours.
        Ok(mark.max(oldest)..=Hour::of(now_ms.saturating_add(limits::LATE_SETTLED_AFTER_MS)).0)
    }

    /// The first late rows of the windows that are listed at these hours, behind `after`.
    async fn page(
        &self,
        (shard, hours): (i16, RangeInclusive<i32>),
        after: Option<LateRow>,
        rows: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let after = after.map(|row| late_key(&row));
        let first = after.map_or((i64::MIN, i32::MIN), |(group, _, window, ..)| (group, window));
        let after = after.map_or(BEFORE, |(.., arrived_ms, hash)| (arrived_ms, hash));
        let (mut next, mut page) = (Some(first), Vec::new());
        while let Some(from) = next {
            let listed;
            (listed, next) = self.listed((shard, hours.clone()), from).await?;
            let listed: Vec<Listed> = listed.into_iter().collect();
            let runs: Vec<&[Listed]> = runs(&listed).collect();
            for runs in runs.chunks(limits::CLUSTER_READS_AT_ONCE) {
                let keys = runs.iter().filter_map(|run| {
                    let (begin, end) = (*run.first()?, *run.last()?);
                    let after = if begin == first { after } else { BEFORE };
                    let (group, week, end) = (begin.0, week_of(begin.1).0, end.1);
                    let limit = limit(rows);
                    Some((group, week, begin.1, after.0, after.1, end, BEHIND.0, BEHIND.1, limit))
                });
                let keys: Vec<_> = keys.collect();
                let rows_max = rows.saturating_mul(keys.len());
                let select = &self.shared.statements.sealed.late_after;
                let mut found: Vec<Found> =
                    partitions(&self.shared, select, keys, rows_max).await?;
                found.sort_unstable();
                page.append(&mut found);
                if page.len() >= rows {
                    // Also where a run has more than this: they are behind.
                    page.truncate(rows);
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// The first windows from `from` on that are listed at these hours, and from where on there may be
    /// more.
    async fn listed(
        &self,
        (shard, hours): (i16, RangeInclusive<i32>),
        from: Listed,
    ) -> Result<(BTreeSet<Listed>, Option<Listed>), StoreError> {
        let rows = limits::LATE_LISTED_ROWS;
        let select = &self.shared.statements.sealed.late_windows;
        let rows_max = rows * hours.clone().count();
        let keys = hours.map(|hour| (shard, hour, from.0, from.1, limit(rows)));
        let found: Vec<(i32, i64, i32)> = partitions(&self.shared, select, keys, rows_max).await?;
        // Rows of one hour follow each other, sorted: where it has as many as were asked for, there
        // may be more behind its last.
        let full = found.chunk_by(|a, b| a.0 == b.0).filter(|of_hour| of_hour.len() >= rows);
        let last =
            full.filter_map(|of_hour| of_hour.last()).map(|(_, group, window)| (*group, *window));
        let last: Option<Listed> = last.min();
        let listed = found.into_iter().map(|(_, group, window)| (group, window));
        let listed = listed.filter(|one| last.is_none_or(|last| *one <= last)).collect();
        Ok((listed, last.map(|(group, window)| (group, window.saturating_add(1)))))
    }
}

/// Windows of one group, no more of them than are read at once.
fn runs(listed: &[Listed]) -> impl Iterator<Item = &[Listed]> {
    let part = |window: i32| {
        let week = week_of(window);
        (week, (window - week.hours().0.0) / limits::LATE_READ_HOURS)
    };
    listed.chunk_by(move |a, b| a.0 == b.0 && part(a.1) == part(b.1))
}

/// A week and some of its hours, for each of the reads into which a range of windows is divided.
fn parts((first, last): (Hour, Hour)) -> impl Iterator<Item = (i32, i32, i32)> {
    let is_long = last.0.saturating_sub(first.0) > limits::LATE_RANGE_HOURS_MAX;
    let step = if is_long { WEEK_HOURS } else { limits::LATE_READ_HOURS };
    let weeks = week_of(first.0).0..=week_of(last.0).0;
    weeks.flat_map(move |week| {
        let of_week = Week(week).hours();
        let begins = (0..=WEEK_HOURS / step).map(move |part| of_week.0.0 + part * step);
        begins.filter_map(move |begin| {
            let from = begin.max(first.0);
            let to = (begin + step - 1).min(of_week.1.0).min(last.0);
            (from <= to).then_some((week, from, to))
        })
    })
}

fn week_of(window: i32) -> Week {
    Week::of(Hour(window).start_ms())
}

fn late_row((group, window, arrived_ms, hash): Found) -> LateRow {
    let (group, hash) = (Group(group.cast_unsigned()), hash.cast_unsigned());
    LateRow { group, window: Hour(window), arrived_ms, hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_group_and_some_windows() {
        let step = limits::LATE_READ_HOURS;
        let begin = Week(2900).hours().0.0;
        let listed = [(-7, 0), (-7, 2), (-7, step), (1, step), (1, step + 2), (2, -1), (2, 0)];
        let listed = listed.map(|(group, window)| (group, begin + window));
        let found: Vec<&[Listed]> = runs(&listed).collect();
        assert_eq!(
            found,
            [&listed[..2], &listed[2..3], &listed[3..5], &listed[5..6], &listed[6..]]
        );
    }

    #[test]
    fn a_range_is_read_whole_and_never_across_weeks() {
        let begin = Week(2900).hours().0.0;
        for (first, last) in [(0, 0), (0, 167), (5, 60), (167, 168), (-20, 700), (3, 30_000)] {
            let range = (Hour(begin + first), Hour(begin + last));
            let mut next = range.0.0;
            for (week, from, to) in parts(range) {
                assert_eq!(from, next);
                assert!(from <= to && week_of(from) == Week(week) && week_of(to) == Week(week));
                next = to + 1;
            }
            assert_eq!(next, range.1.0 + 1);
        }
        assert_eq!(parts((Hour(begin), Hour(begin + 167))).count(), 4);
        assert_eq!(parts((Hour(begin), Hour(begin + 9_999))).count(), 60);
    }
}
