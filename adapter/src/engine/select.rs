//! Reading: from the groups that `matching` finds in the index to samples, each group's rows once
//! and a part of its time at once. A query is whole or an error; every bound that it meets says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;

use super::layout::Layouts;
use super::stored::Stored;
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

impl SelectError {
    /// Whether less of it might be read.
    fn is_too_much(&self) -> bool {
        match self {
            SelectError::TooMuch { .. } => true,
            SelectError::Store(error) => error.is_too_much(),
        }
    }
}

/// A query's view of the store.
pub(super) struct Selection<'e> {
    pub(super) store: &'e Store,
    pub(super) layouts: &'e Layouts,
    pub(super) range: TimeRange,
    pub(super) matchers: &'e [Matcher],
    /// Samples collected so far by all its reads.
    pub(super) collected: AtomicUsize,
    /// Parts that all queries read at once.
    pub(super) parts: &'e Semaphore,
}

/// The series that a query means, in the order of their labels, before their samples are read.
pub struct Found<'e> {
    /// The labels of all series that match, sorted as Prometheus sorts them. Some may have no
    /// samples in the range.
    pub labels: Vec<Labels>,
    selection: Selection<'e>,
    units: Vec<Unit>,
}

/// Series that share their groups, and the weeks in which they have any: one unit of reading.
#[derive(Debug, Default)]
struct Unit {
    /// Each with its place in the order of labels; sorted by id.
    series: Vec<(SeriesId, usize)>,
    places: BTreeMap<Week, BTreeSet<Group>>,
}

/// A part of a unit: some hours of one week, and some of its series.
#[derive(Clone, Debug)]
struct Part {
    hours: (i32, i32),
    series: Range<usize>,
}

impl Found<'_> {
    /// The samples of all series, part by part: each with its series' place among the labels and
    /// what `encode` makes of them. A series' parts come in order of time; its samples are sorted,
    /// one a timestamp, at least one a part, all within the range. To be called once.
    pub fn parts<'f, T: Send + 'f>(
        &'f mut self,
        encode: &'f (impl Fn(Vec<Sample>) -> T + Sync),
    ) -> BoxStream<'f, Result<Vec<(usize, T)>, SelectError>> {
        let selection = &self.selection;
        let units = std::mem::take(&mut self.units);
        stream::iter(units)
            .map(move |unit| selection.unit(unit, encode))
            .flatten_unordered(selection.store.reads_at_once())
            .boxed()
    }
}

impl<'e> Selection<'e> {
    /// The labels of all series that match and have rows in the range's weeks, sorted.
    pub(super) async fn series(&self) -> Result<Vec<Labels>, SelectError> {
        let found = self.matching().await?;
        let mut labels: Vec<Labels> = found.into_values().map(|(labels, _)| labels).collect();
        labels.sort_unstable();
        Ok(labels)
    }

    /// The labels of all series that match and have rows in the range's weeks, and their places.
    pub(super) async fn placed(&self) -> Result<Vec<(Labels, Vec<(Week, Group)>)>, SelectError> {
        Ok(self.matching().await?.into_values().collect())
    }

    /// Where the wanted of all series live that match and have rows in the range's weeks.
    pub(super) async fn places(
        &self,
        wanted: &(impl Fn(&Labels) -> bool + Sync),
    ) -> Result<BTreeSet<(Week, Group)>, SelectError> {
        let found = self.matching().await?.into_values();
        Ok(found.filter(|(labels, _)| wanted(labels)).flat_map(|(_, places)| places).collect())
    }

    /// All series that match and have rows in the range's weeks, ready to be read.
    pub(super) async fn find(self) -> Result<Found<'e>, SelectError> {
        let mut found: Vec<_> = self.matching().await?.into_iter().collect();
        found.sort_unstable_by(|(_, (left, _)), (_, (right, _))| left.cmp(right));
        let mut labels = Vec::with_capacity(found.len());
        let placed = found.into_iter().enumerate().map(|(place, (series, (of_series, places)))| {
            labels.push(of_series);
            (series, place, places)
        });
        let units = units(placed);
        Ok(Found { labels, selection: self, units })
    }

    /// Every matching series that has samples in the range, with what `encode` makes of them
    /// (sorted, merged, within the range) and how many bytes that takes; sorted by labels.
    pub(super) async fn samples<T: Send>(
        self,
        encode: &(impl Fn(&[Sample]) -> (T, usize) + Sync),
    ) -> Result<Vec<(Labels, T)>, SelectError> {
        let Found { labels, selection, units } = self.find().await?;
        let selection = &selection;
        let mut reads = stream::iter(units)
            .map(|unit| async move {
                let mut whole: HashMap<usize, Vec<Sample>> = HashMap::new();
                let mut parts = selection.unit(unit, &|samples| samples);
                while let Some(part) = parts.try_next().await? {
                    for (place, mut samples) in part {
                        whole.entry(place).or_default().append(&mut samples);
                    }
                }
                let encoded = whole.into_iter().map(|(place, samples)| (place, encode(&samples)));
                Ok::<_, SelectError>(encoded.collect::<Vec<_>>())
            })
            .buffer_unordered(selection.store.reads_at_once());
        let mut answer: Vec<Option<T>> = Vec::new();
        answer.resize_with(labels.len(), || None);
        let mut bytes = 0usize;
        while let Some(unit) = reads.try_next().await? {
            for (place, (encoded, of_series)) in unit {
                bytes += of_series;
                if let Some(slot) = answer.get_mut(place) {
                    *slot = Some(encoded);
                }
            }
            bound("bytes", bytes, limits::QUERY_BYTES_MAX)?;
        }
        let answer = labels.into_iter().zip(answer);
        Ok(answer.filter_map(|(labels, encoded)| Some((labels, encoded?))).collect())
    }

    /// A unit's samples, part by part and in order of time.
    fn unit<'s, T: Send + 's>(
        &'s self,
        unit: Unit,
        encode: &'s (impl Fn(Vec<Sample>) -> T + Sync),
    ) -> BoxStream<'s, Result<Vec<(usize, T)>, SelectError>> {
        let mut parts = unit.parts(self.range);
        // Taken from the end: the oldest is last.
        parts.reverse();
        let left = (unit, parts);
        stream::try_unfold(left, move |(unit, mut parts)| async move {
            while let Some(part) = parts.pop() {
                let Some(samples) = self.part(&unit, &part).await? else {
                    parts.extend(part.halves());
                    continue;
                };
                let of_part = samples.into_iter().map(|(place, samples)| (place, encode(samples)));
                return Ok(Some((of_part.collect(), (unit, parts))));
            }
            Ok(None)
        })
        .boxed()
    }

    /// The samples of one part; `None` where they are more than should be held at once and the
    /// part can be divided.
    async fn part(
        &self,
        unit: &Unit,
        part: &Part,
    ) -> Result<Option<Vec<(usize, Vec<Sample>)>>, SelectError> {
        let series = unit.series.get(part.series.clone()).unwrap_or_default();
        let ids: Vec<SeriesId> = series.iter().map(|(id, _)| *id).collect();
        let (first, last) = (Hour(part.hours.0), Hour(part.hours.1));
        let hours = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
        let Some(range) = self.range.within(hours) else { return Ok(Some(Vec::new())) };
        let closed = |_| StoreError::Unavailable("the adapter is stopping".to_owned());
        let _reading = self.parts.acquire().await.map_err(closed)?;
        let most =
            if part.is_one() { limits::QUERY_SAMPLES_MAX } else { limits::READ_PART_SAMPLES_MAX };
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); ids.len()];
        let mut count = 0;
        let stored = Stored { store: self.store, layouts: self.layouts };
        for group in unit.places.get(&Week::of(first.start_ms())).into_iter().flatten() {
            let mut each = |id, sample| {
                let place = ids.binary_search(&id).ok();
                if let Some(of_series) = place.and_then(|place| samples.get_mut(place)) {
                    of_series.push(sample);
                    count += 1;
                }
                bound("samples", count, most)
            };
            match stored.samples(*group, range, &ids, &mut each).await {
                Err(error) if error.is_too_much() && !part.is_one() => return Ok(None),
                read => read?,
            }
        }
        let before = self.collected.fetch_add(count, Ordering::Relaxed);
        bound("samples", before + count, limits::QUERY_SAMPLES_MAX)?;
        let places = series.iter().map(|(_, place)| *place);
        let found = places.zip(samples).filter(|(_, samples)| !samples.is_empty());
        let merged = found.map(|(place, mut samples)| {
            sort_and_merge(&mut samples);
            (place, samples)
        });
        Ok(Some(merged.collect()))
    }
}

impl Unit {
    /// What is read at once of it, oldest first: as many hours as a number of series should have
    /// samples in, at the interval that is usual.
    fn parts(&self, range: TimeRange) -> Vec<Part> {
        let hourly = self.series.len().max(1) * limits::READ_PART_HOUR_SAMPLES;
        let fitting = limits::READ_PART_SAMPLES / hourly;
        // What divides a week, so that a part begins where a sealed window does.
        let lengths = [168, 24, 12, 6, 2];
        let length = lengths.into_iter().find(|hours| *hours <= fitting).unwrap_or(1);
        let length = i32::try_from(length).unwrap_or(1);
        let mut parts = Vec::new();
        for week in self.places.keys() {
            let Some((first, last)) = range.hours_in(*week) else { continue };
            let mut from = first.0;
            while from <= last.0 {
                let to = (from.div_euclid(length) + 1) * length - 1;
                let hours = (from, to.min(last.0));
                parts.push(Part { hours, series: 0..self.series.len() });
                from = to + 1;
            }
        }
        parts
    }
}

impl Part {
    /// Whether there is no smaller part.
    fn is_one(&self) -> bool {
        self.hours.0 == self.hours.1 && self.series.len() <= 1
    }

    /// Its two halves, the later one first.
    fn halves(self) -> [Part; 2] {
        let (first, last) = self.hours;
        if first < last {
            let middle = i32::midpoint(first, last);
            let part = |hours| Part { hours, series: self.series.clone() };
            return [part((middle + 1, last)), part((first, middle))];
        }
        let Range { start, end } = self.series;
        let middle = usize::midpoint(start, end);
        [middle..end, start..middle].map(|series| Part { hours: self.hours, series })
    }
}

/// Series that live in the same groups are read together, so that each group is read once. A
/// layout that changed in between puts a series into two groups.
fn units(found: impl Iterator<Item = (SeriesId, usize, Vec<(Week, Group)>)>) -> Vec<Unit> {
    let mut units: BTreeMap<BTreeSet<Group>, Unit> = BTreeMap::new();
    for (series, place, places) in found {
        let groups = places.iter().map(|(_, group)| *group).collect();
        let unit = units.entry(groups).or_default();
        unit.series.push((series, place));
        for (week, group) in places {
            unit.places.entry(week).or_default().insert(group);
        }
    }
    let mut units: Vec<Unit> = units.into_values().collect();
    for unit in &mut units {
        unit.series.sort_unstable();
    }
    units
}

/// Refuses a query that asks for more than one answer may hold.
pub(super) fn bound(what: &'static str, count: usize, max: usize) -> Result<(), SelectError> {
    if count > max { Err(SelectError::TooMuch { what, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
