//! Samples gathered by series as head rows and chunks hand them out. Knows no store and no format.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::index::IdHasher;
use crate::model::sample::{Sample, sort_and_merge};
use crate::model::series::SeriesId;

/// Samples by series. A scrape's row names a guest's series in one order, and so does the next one:
/// a series is mostly found behind the one before, without a look into the table.
#[derive(Debug, Default)]
pub(super) struct BySeries {
    series: Vec<(SeriesId, Vec<Sample>)>,
    places: HashMap<SeriesId, usize, BuildHasherDefault<IdHasher>>,
    next: usize,
}

impl BySeries {
    /// Adds a sample.
    pub(super) fn push(&mut self, id: SeriesId, sample: Sample) {
        let next = if self.next < self.series.len() { self.next } else { 0 };
        if let Some((_, samples)) = self.series.get_mut(next).filter(|(series, _)| *series == id) {
            samples.push(sample);
            self.next = next + 1;
            return;
        }
        let place = *self.places.entry(id).or_insert_with(|| {
            self.series.push((id, Vec::new()));
            self.series.len() - 1
        });
        if let Some((_, samples)) = self.series.get_mut(place) {
            samples.push(sample);
        }
        self.next = place + 1;
    }

    /// Every series that has samples, by id; its samples sorted by time and merged.
    pub(super) fn sorted(self) -> Vec<(SeriesId, Vec<Sample>)> {
        let mut series = self.series;
        series.sort_unstable_by_key(|(id, _)| *id);
        for (_, samples) in &mut series {
            sort_and_merge(samples);
        }
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_sample_is_lost_or_given_to_another(pushed in prop::collection::vec((0..6_u128, 0..40_i64), 0..200)) {
            let mut collected = BySeries::default();
            let mut expected: BTreeMap<SeriesId, BTreeMap<i64, Sample>> = BTreeMap::new();
            for (id, timestamp_ms) in pushed {
                let sample = Sample { timestamp_ms, value: 1.0, start_ms: None };
                collected.push(SeriesId(id), sample);
                expected.entry(SeriesId(id)).or_default().insert(timestamp_ms, sample);
            }
            let expected: Vec<(SeriesId, Vec<Sample>)> = expected
                .into_iter()
                .map(|(id, samples)| (id, samples.into_values().collect()))
                .collect();
            prop_assert_eq!(collected.sorted(), expected);
        }
    }
}
