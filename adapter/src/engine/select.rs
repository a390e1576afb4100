//! Reading: from the groups that `matching` finds in the index to samples, each group's rows once.
//! A query is whole or an error; every bound that it meets says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::layout::Layouts;
use super::pack::unpack;
use crate::limits;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::row_key::Group;
use crate::model::sample::{Sample, sort_and_merge};
use crate::model::series::SeriesId;
use crate::model::time::{Hour, TimeRange, Week};
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

/// Refuses a query that asks for more than one answer may hold.
pub(super) fn bound(what: &'static str, count: usize, max: usize) -> Result<(), SelectError> {
    if count > max { Err(SelectError::TooMuch { what, max }) } else { Ok(()) }
}
