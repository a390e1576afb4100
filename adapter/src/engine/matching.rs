//! From matchers to series by the index: which series match, and in which weeks and groups they
//! live. Knows nothing of samples, and leaves to `candidates` where to look.

mod candidates;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::select::{SelectError, Selection, bound};
use crate::limits;
use crate::model::labels::{Labels, LabelsDamaged, decode_pairs};
use crate::model::matcher::{Matcher, all_accept_pairs};
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::Week;
use crate::store::StoreError;
use crate::store::rows::{Placed, Wanted};

/// Matching series with their labels and their places.
pub(super) type Matching = HashMap<SeriesId, (Labels, Vec<(Week, Group)>)>;

/// Weeks that are looked at together: each holds its candidates in memory.
const WEEKS_AT_ONCE: usize = 2;

/// What a query has found so far in all its weeks.
#[derive(Default)]
struct Found {
    series: Matching,
    label_bytes: usize,
}

impl Selection<'_> {
    /// Every matching series and its places.
    pub(super) async fn matching(&self) -> Result<Matching, SelectError> {
        let found = Mutex::new(Found::default());
        let shared = &found;
        let mut weeks = stream::iter(self.range.weeks())
            .map(|week| async move { self.matching_in(week, shared).await })
            .buffer_unordered(WEEKS_AT_ONCE);
        while weeks.try_next().await?.is_some() {}
        drop(weeks);
        Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner).series)
    }

    async fn matching_in(&self, week: Week, found: &Mutex<Found>) -> Result<(), SelectError> {
        if let Some(row_keys) = self.named_row_keys(week) {
            let groups = row_keys.iter().flat_map(|row_key| row_key.groups().collect::<Vec<_>>());
            let mut groups: Vec<Group> = groups.collect();
            groups.sort_unstable();
            groups.dedup();
            let wanted = groups.into_iter().map(|group| Wanted { group, series: None });
            return self.judge(week, wanted.collect(), found).await;
        }
        let metrics = self.metrics(week).await?;
        let mut lists = stream::iter(metrics)
            .map(|metric| async move { self.candidates(week, &metric).await })
            .buffer_unordered(self.store.reads_at_once().div_ceil(limits::LOCAL_READS_AT_ONCE));
        let mut waiting: Vec<Placed> = Vec::new();
        while let Some(mut list) = lists.try_next().await? {
            waiting.append(&mut list);
            if waiting.len() > limits::CANDIDATES_WAITING_MAX {
                self.judge(week, by_group(std::mem::take(&mut waiting)), found).await?;
            }
        }
        self.judge(week, by_group(waiting), found).await
    }

    /// Reads the labels of candidates, some groups at a time, and keeps what matches.
    async fn judge(
        &self,
        week: Week,
        mut wanted: Vec<Wanted>,
        found: &Mutex<Found>,
    ) -> Result<(), SelectError> {
        let mut parts = Vec::with_capacity(wanted.len() / limits::SERIES_READ_GROUPS + 1);
        while !wanted.is_empty() {
            let rest = wanted.len().saturating_sub(limits::SERIES_READ_GROUPS);
            parts.push(wanted.split_off(rest));
        }
        let mut reads = stream::iter(parts)
            .map(|part| async move { self.judge_part(week, part, found).await })
            .buffer_unordered(self.store.reads_at_once().min(limits::LOCAL_READS_AT_ONCE));
        while reads.try_next().await?.is_some() {}
        Ok(())
    }

    /// In one read; group by group and in pages where the labels are too much for one.
    async fn judge_part(
        &self,
        week: Week,
        wanted: Vec<Wanted>,
        found: &Mutex<Found>,
    ) -> Result<(), SelectError> {
        let in_pages = wanted.clone();
        match self.store.labels(week, wanted, limits::QUERY_ROWS_MAX).await {
            Ok(rows) => return self.keep(week, &rows, found),
            Err(error) if error.is_too_much() => {
                tracing::debug!(%error, groups = in_pages.len(), "labels are read in pages");
            }
            Err(error) => return Err(error.into()),
        }
        for wanted in in_pages {
            self.judge_pages(week, wanted, found).await?;
        }
        Ok(())
    }

    /// A group may have far more series that do not match than are held at once.
    async fn judge_pages(
        &self,
        week: Week,
        Wanted { group, series }: Wanted,
        found: &Mutex<Found>,
    ) -> Result<(), SelectError> {
        let is_wanted =
            |id: &SeriesId| series.as_ref().is_none_or(|ids| ids.binary_search(id).is_ok());
        let mut pages = self.store.series_pages(week, group);
        while let Some(rows) = pages.try_next().await? {
            let rows = rows.into_iter().filter(|(id, _)| is_wanted(id));
            let rows = rows.map(|(series, labels)| (Placed { group, series }, labels));
            self.keep(week, &rows.collect::<Vec<_>>(), found)?;
        }
        Ok(())
    }

    fn keep(
        &self,
        week: Week,
        rows: &[(Placed, Bytes)],
        found: &Mutex<Found>,
    ) -> Result<(), SelectError> {
        // Held for this one step, which cannot panic half way.
        found.lock().unwrap_or_else(PoisonError::into_inner).take(week, rows, self.matchers)
    }
}

impl Found {
    /// Keeps those of the read series that match. A series' labels never change, so one that was
    /// found in another week is not looked at again.
    fn take(
        &mut self,
        week: Week,
        rows: &[(Placed, Bytes)],
        matchers: &[Matcher],
    ) -> Result<(), SelectError> {
        for (placed, encoded) in rows {
            let place = (week, placed.group);
            match self.series.entry(placed.series) {
                Entry::Occupied(known) => known.into_mut().1.push(place),
                Entry::Vacant(unknown) => {
                    let pairs = decode_pairs(encoded).map_err(damaged)?;
                    if !all_accept_pairs(matchers, &pairs) {
                        continue;
                    }
                    let each = pairs.iter().map(|(name, value)| name.len() + value.len() + 48);
                    self.label_bytes += each.sum::<usize>();
                    unknown.insert((Labels::of_decoded(&pairs), vec![place]));
                    bound("series", self.series.len(), limits::QUERY_SERIES_MAX)?;
                    bound("bytes of labels", self.label_bytes, limits::QUERY_BYTES_MAX)?;
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn damaged(error: LabelsDamaged) -> SelectError {
    StoreError::Damaged(error.to_string()).into()
}

/// Candidates as they are read: by group, each series once.
fn by_group(mut candidates: Vec<Placed>) -> Vec<Wanted> {
    candidates.sort_unstable();
    candidates.dedup();
    let groups = candidates.chunk_by(|one, other| one.group == other.group);
    let wanted = groups.filter_map(|of_group| {
        let group = of_group.first()?.group;
        Some(Wanted { group, series: Some(of_group.iter().map(|of| of.series).collect()) })
    });
    wanted.collect()
}
