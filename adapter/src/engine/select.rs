//! Reading: from matchers to groups by the index, then each group's rows once.
//! A query is whole or an error; every bound that it meets says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::index::stored_labels;
use super::layout::Layouts;
use super::pack::unpack;
use crate::limits;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::{Matcher, all_accept};
use crate::model::row_key::{Group, RowKey};
use crate::model::sample::{Sample, sort_and_merge};
use crate::model::series::SeriesId;
use crate::model::time::{Hour, TimeRange, Week};
use crate::store::rows::{Placed, PostingsKey};
use crate::store::{Store, StoreError};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The query asks for more than one answer may hold.
    #[error("the query selects more than {max} {what}; narrow its matchers or its time range")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

/// A query's view of the store.
pub(super) struct Selection<'e> {
    pub(super) store: &'e Store,
    pub(super) layouts: &'e Layouts,
    pub(super) range: TimeRange,
    pub(super) matchers: &'e [Matcher],
    /// Samples collected so far by all its reads.
    pub(super) collected: AtomicUsize,
}

/// Series that share their groups, and the weeks in which they have any: one unit of reading.
#[derive(Debug, Default)]
struct Unit {
    series: BTreeMap<SeriesId, Labels>,
    places: BTreeSet<(Week, Group)>,
}

impl Selection<'_> {
    /// The labels of all series that match and have rows in the range's weeks, sorted.
    pub(super) async fn series(&self) -> Result<Vec<Labels>, SelectError> {
        let found = self.matching().await?;
        let mut labels: Vec<Labels> = found.into_values().map(|(labels, _)| labels).collect();
        labels.sort_unstable();
        Ok(labels)
    }

    /// Every matching series that has samples in the range, with what `encode` makes of them
    /// (sorted, merged, within the range) and how many bytes that takes; sorted by labels.
    pub(super) async fn samples<T: Send>(
        &self,
        encode: &(impl Fn(&[Sample]) -> (T, usize) + Sync),
    ) -> Result<Vec<(Labels, T)>, SelectError> {
        let units = units(self.matching().await?);
        let mut reads = stream::iter(units)
            .map(|unit| self.read(unit, encode))
            .buffer_unordered(self.store.reads_at_once());
        let (mut answer, mut bytes) = (Vec::new(), 0usize);
        while let Some(part) = reads.try_next().await? {
            for (labels, encoded, of_series) in part {
                bytes += of_series;
                answer.push((labels, encoded));
            }
            bound("bytes", bytes, limits::QUERY_BYTES_MAX)?;
        }
        answer.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Ok(answer)
    }

    /// Every matching series and its places.
    async fn matching(
        &self,
    ) -> Result<HashMap<SeriesId, (Labels, Vec<(Week, Group)>)>, SelectError> {
        let mut found: HashMap<SeriesId, (Labels, Vec<(Week, Group)>)> = HashMap::new();
        let mut bytes = 0;
        let weeks = stream::iter(self.range.weeks())
            .map(|week| async move { Ok((week, self.matching_in(week).await?)) });
        let mut weeks = weeks.buffered(4);
        while let Some((week, series)) =
            weeks.try_next().await.map_err(|error: SelectError| error)?
        {
            for (placed, labels) in series {
                let (_, places) = found.entry(placed.series).or_insert_with(|| {
                    // Once a series, however many weeks it lives.
                    bytes += labels
                        .iter()
                        .map(|(name, value)| name.len() + value.len() + 48)
                        .sum::<usize>();
                    (labels, Vec::new())
                });
                places.push((week, placed.group));
            }
            bound("series", found.len(), limits::QUERY_SERIES_MAX)?;
            bound("bytes of labels", bytes, limits::QUERY_BYTES_MAX)?;
        }
        Ok(found)
    }

    async fn matching_in(&self, week: Week) -> Result<Vec<(Placed, Labels)>, SelectError> {
        let candidates = self.candidates(week).await?;
        let groups = stream::iter(candidates).map(|(group, wanted)| async move {
            let mut matching = Vec::new();
            for (series, encoded) in self.store.series(week, group, limits::QUERY_ROWS_MAX).await? {
                if wanted.as_ref().is_none_or(|wanted| wanted.contains(&series)) {
                    let labels = stored_labels(&encoded)?;
                    if all_accept(self.matchers, &labels) {
                        matching.push((Placed { group, series }, labels));
                    }
                }
            }
            Ok::<_, SelectError>(matching)
        });
        let parts: Vec<Vec<_>> =
            groups.buffer_unordered(self.store.reads_at_once()).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The groups that may hold matching series; `None` stands for all series of a group.
    async fn candidates(
        &self,
        week: Week,
    ) -> Result<BTreeMap<Group, Option<BTreeSet<SeriesId>>>, SelectError> {
        if let Some(row_keys) = self.named_row_keys(week) {
            return Ok(row_keys
                .iter()
                .flat_map(RowKey::groups)
                .map(|group| (group, None))
                .collect());
        }
        let mut metrics = match self.lookup(METRIC_NAME) {
            Some(metrics) => metrics.into_iter().map(str::to_owned).collect(),
            None => self.store.metrics(week, limits::QUERY_ROWS_MAX).await?,
        };
        let names: Vec<&Matcher> =
            self.matchers.iter().filter(|matcher| matcher.name == METRIC_NAME).collect();
        metrics.retain(|metric| names.iter().all(|matcher| matcher.accepts(metric)));
        let mut candidates: BTreeMap<Group, Option<BTreeSet<SeriesId>>> = BTreeMap::new();
        for metric in &metrics {
            for placed in self.candidates_of(week, metric).await? {
                candidates
                    .entry(placed.group)
                    .or_insert_with(|| Some(BTreeSet::new()))
                    .as_mut()
                    .map(|ids| ids.insert(placed.series));
            }
        }
        Ok(candidates)
    }

    /// The series of a metric, narrowed by every label that must have one value.
    async fn candidates_of(&self, week: Week, metric: &str) -> Result<Vec<Placed>, SelectError> {
        let mut narrowed: Option<BTreeSet<Placed>> = None;
        for matcher in self.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
            let Some(values) = matcher.values(limits::LOOKUP_VALUES_MAX) else { continue };
            let mut list = BTreeSet::new();
            for value in values {
                let key = PostingsKey { week, metric, label: &matcher.name, value };
                list.extend(self.store.postings(key, limits::QUERY_ROWS_MAX).await?);
            }
            narrowed = Some(match narrowed {
                None => list,
                Some(narrowed) => narrowed.intersection(&list).copied().collect(),
            });
        }
        match narrowed {
            Some(narrowed) => Ok(narrowed.into_iter().collect()),
            None => Ok(self.store.metric_series(week, metric, limits::QUERY_ROWS_MAX).await?),
        }
    }

    /// The row keys that all matching series have: a series that has the first row-key label is in
    /// the group of its value. (One that has a later row-key label may have the first one, too.)
    fn named_row_keys(&self, week: Week) -> Option<Vec<RowKey>> {
        let label = self.layouts.rule(week).labels.first()?;
        self.lookup(label).map(|values| values.into_iter().map(RowKey::guest).collect())
    }

    /// The values of a label that an index can look up.
    fn lookup(&self, label: &str) -> Option<Vec<&str>> {
        let mut of_label = self.matchers.iter().filter(|matcher| matcher.name == label);
        of_label.find_map(|matcher| matcher.values(limits::LOOKUP_VALUES_MAX))
    }

    /// Reads a unit's rows a day at a time and encodes its series.
    async fn read<T>(
        &self,
        unit: Unit,
        encode: &impl Fn(&[Sample]) -> (T, usize),
    ) -> Result<Vec<(Labels, T, usize)>, SelectError> {
        let mut samples: HashMap<SeriesId, Vec<Sample>> = HashMap::new();
        for (week, group) in &unit.places {
            let Some((first, last)) = self.range.hours_in(*week) else { continue };
            for hour in (first.0..=last.0).step_by(24) {
                let mut parts = vec![(hour, last.0.min(hour + 23))];
                while let Some((from, to)) = parts.pop() {
                    let hours = (Hour(from), Hour(to));
                    let rows = self.store.head(*group, hours, limits::QUERY_ROWS_MAX).await;
                    match rows {
                        Ok(rows) => self.collect(&rows, &unit, &mut samples)?,
                        Err(error) if error.is_too_much() && from < to => {
                            let middle = i32::midpoint(from, to);
                            parts.extend([(middle + 1, to), (from, middle)]);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        let mut answer = Vec::with_capacity(samples.len());
        for (series, labels) in unit.series {
            let Some(mut samples) = samples.remove(&series) else { continue };
            sort_and_merge(&mut samples);
            let (encoded, bytes) = encode(&samples);
            answer.push((labels, encoded, bytes));
        }
        Ok(answer)
    }

    /// Takes the unit's samples out of head rows.
    fn collect(
        &self,
        rows: &[Bytes],
        unit: &Unit,
        samples: &mut HashMap<SeriesId, Vec<Sample>>,
    ) -> Result<(), SelectError> {
        for payload in rows {
            let mut count = 0;
            let unpacked = unpack(payload, |point| {
                let wanted = self.range.contains(point.sample.timestamp_ms)
                    && unit.series.contains_key(&point.series);
                if wanted {
                    samples.entry(point.series).or_default().push(point.sample);
                    count += 1;
                }
            });
            unpacked.map_err(|error| StoreError::Damaged(error.to_string()))?;
            let before = self.collected.fetch_add(count, Ordering::Relaxed);
            bound("samples", before + count, limits::QUERY_SAMPLES_MAX)?;
        }
        Ok(())
    }
}

/// Series that live in the same groups are read together, so that each group is read once. A
/// layout that changed in between puts a series into two groups.
fn units(found: HashMap<SeriesId, (Labels, Vec<(Week, Group)>)>) -> Vec<Unit> {
    let mut units: BTreeMap<BTreeSet<Group>, Unit> = BTreeMap::new();
    for (series, (labels, places)) in found {
        let groups = places.iter().map(|(_, group)| *group).collect();
        let unit = units.entry(groups).or_default();
        unit.series.insert(series, labels);
        unit.places.extend(places);
    }
    units.into_values().collect()
}

fn bound(what: &'static str, count: usize, max: usize) -> Result<(), SelectError> {
    if count > max { Err(SelectError::TooMuch { what, max }) } else { Ok(()) }
}
