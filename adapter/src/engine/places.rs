//! Reading a guest whose groups follow from its name: its labels and samples come from these
//! groups, and no list of metrics or postings is looked into. Knows nothing of bills.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Engine;
use super::collected::BySeries;
use super::index::stored_labels;
use super::seal::Whole;
use super::select::{SelectError, bound};
use super::stored::Stored;
use crate::limits;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::row_key::{Group, RowKey};
use crate::model::sample::{Sample, sort_and_merge};
use crate::model::series::SeriesId;
use crate::model::time::{TimeRange, Week};
use crate::store::StoreError;

/// A group in a week.
pub type Place = (Week, Group);

impl Engine {
    /// Where every series lives of which the first of these labels that it has is of this value;
    /// `None` where a layout in the range packs series by other labels first.
    pub fn places(&self, range: TimeRange, labels: &[&str], value: &str) -> Option<Vec<Place>> {
        let row_key = RowKey::guest(value);
        let mut places = Vec::new();
        for week in range.weeks() {
            let packed_by = &self.layouts.rule(week).labels;
            if packed_by.len() < labels.len() || packed_by.iter().zip(labels).any(|(a, b)| a != b) {
                return None;
            }
            places.extend(row_key.groups().map(|group| (week, group)));
        }
        Some(places)
    }

    /// The series of a group in a week whose labels are wanted: a group may have more of others than
    /// are held at once.
    pub(super) async fn series_of(
        &self,
        week: Week,
        group: Group,
        wanted: &(impl Fn(&Labels) -> bool + Sync),
    ) -> Result<BTreeMap<SeriesId, Labels>, StoreError> {
        let (mut found, mut bytes) = (BTreeMap::new(), 0);
        let mut pages = self.store.series_pages(week, group);
        while let Some(rows) = pages.try_next().await? {
            for (id, encoded) in rows {
                let labels = stored_labels(&encoded)?;
                if wanted(&labels) {
                    bytes += encoded.len();
                    found.insert(id, labels);
                }
            }
            if bytes > limits::QUERY_BYTES_MAX {
                let bytes_max = limits::QUERY_BYTES_MAX;
                return Err(StoreError::TooManyBytes { table: "series", bytes_max });
            }
        }
        Ok(found)
    }

    /// Every series of some places that is wanted and has samples in the range, sorted by labels.
    /// What is at hand of a window is not read again.
    pub async fn series_at(
        &self,
        places: &[Place],
        (range, at_hand): (TimeRange, Option<&Whole>),
        wanted: &(impl Fn(&Labels) -> bool + Sync),
    ) -> Result<Vec<(Labels, Vec<Sample>)>, SelectError> {
        let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        let mut count = 0;
        for (week, group) in places {
            let of_week = TimeRange { start_ms: week.start_ms(), end_ms: week.end_ms() };
            let Some(range) = range.within(of_week) else { continue };
            let mut labels = self.series_of(*week, *group, wanted).await?;
            if labels.is_empty() {
                continue;
            }
            let samples = match at_hand.filter(|whole| whole.holds(*group, range)) {
                Some(whole) => whole.within(range, &labels),
                None => self.samples_of(*group, range, (&labels, &mut count)).await?,
            };
            for (id, samples) in samples {
                if let Some(labels) = labels.remove(&id).filter(|_| !samples.is_empty()) {
                    found.entry(labels).or_default().extend(samples);
                }
            }
        }
        // A layout that changed in between can put one time into two groups.
        for samples in found.values_mut() {
            sort_and_merge(samples);
        }
        Ok(found.into_iter().collect())
    }

    /// The labels of the series that match and may have samples in the range, each with the places
    /// where it lives.
    pub async fn placed(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
    ) -> Result<Vec<(Labels, Vec<Place>)>, SelectError> {
        self.selection(range, matchers).placed().await
    }

    /// A number that grows with every new series: where it did not, what was not in the index then
    /// is not there now. `None` where others write to the index as well. To be read before the index.
    pub fn index_generation(&self) -> Option<u64> {
        (!self.store.is_shared()).then(|| self.known.generation.load(Ordering::Acquire))
    }

    /// Those of some weeks that have any series, each with whether it has some of these metrics.
    pub async fn weeks_with(
        &self,
        weeks: Vec<Week>,
        metrics: &[&str],
    ) -> Result<BTreeMap<Week, bool>, SelectError> {
        let mut reads = stream::iter(weeks)
            .map(|week| async move {
                let of_week = self.store.metrics(week, limits::QUERY_ROWS_MAX).await?;
                let found = of_week.iter().any(|metric| metrics.contains(&metric.as_str()));
                Ok::<_, SelectError>((!of_week.is_empty()).then_some((week, found)))
            })
            .buffer_unordered(self.store.reads_at_once());
        let mut found = BTreeMap::new();
        while let Some(week) = reads.try_next().await? {
            found.extend(week);
        }
        Ok(found)
    }

    async fn samples_of(
        &self,
        group: Group,
        range: TimeRange,
        (labels, count): (&BTreeMap<SeriesId, Labels>, &mut usize),
    ) -> Result<Vec<(SeriesId, Vec<Sample>)>, SelectError> {
        let ids: Vec<SeriesId> = labels.keys().copied().collect();
        let stored = Stored { store: &self.store, layouts: &self.layouts };
        let mut samples = BySeries::default();
        stored
            .samples(group, range, &ids, &mut |series, sample| {
                samples.push(series, sample);
                *count += 1;
                bound("samples", *count, limits::QUERY_SAMPLES_MAX)
            })
            .await?;
        Ok(samples.sorted())
    }
}
