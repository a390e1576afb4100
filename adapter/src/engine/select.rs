//! Reading: from the groups that `matching` finds in the index to samples, each group's rows once.
//! A query is whole or an error; every bound that it meets says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::layout::Layouts;
use super::stored::Stored;
use crate::limits;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::row_key::Group;
use crate::model::sample::{Sample, sort_and_merge};
use crate::model::series::SeriesId;
use crate::model::time::{TimeRange, Week};
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

    /// The groups of all series that match and have rows in the range's weeks.
    pub(super) async fn groups(&self) -> Result<BTreeSet<Group>, SelectError> {
        let found = self.matching().await?;
        let places = found.into_values().flat_map(|(_, places)| places);
        Ok(places.map(|(_, group)| group).collect())
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

    /// Reads a unit's samples and encodes its series.
    async fn read<T>(
        &self,
        unit: Unit,
        encode: &impl Fn(&[Sample]) -> (T, usize),
    ) -> Result<Vec<(Labels, T, usize)>, SelectError> {
        let stored = Stored { store: self.store, layouts: self.layouts };
        let ids: Vec<SeriesId> = unit.series.keys().copied().collect();
        let mut samples: HashMap<SeriesId, Vec<Sample>> = HashMap::new();
        for (week, group) in &unit.places {
            let of_week = TimeRange { start_ms: week.start_ms(), end_ms: week.end_ms() };
            let Some(range) = self.range.within(of_week) else { continue };
            stored
                .samples(*group, range, &ids, &mut |series, sample| {
                    samples.entry(series).or_default().push(sample);
                    let before = self.collected.fetch_add(1, Ordering::Relaxed);
                    bound("samples", before + 1, limits::QUERY_SAMPLES_MAX)
                })
                .await?;
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

/// Refuses a query that asks for more than one answer may hold.
pub(super) fn bound(what: &'static str, count: usize, max: usize) -> Result<(), SelectError> {
    if count > max { Err(SelectError::TooMuch { what, max }) } else { Ok(()) }
}
