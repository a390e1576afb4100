//! The samples of one write request on their way to a commit.
//! Works on borrowed, canonical labels; only a series that is new to the index is copied.

use std::collections::HashSet;

use super::index::{self, KnownSeries};
use super::layout::Layouts;
use super::pack::Point;
use crate::model::labels::encode_pairs;
use crate::model::row_key::Group;
use crate::model::sample::Sample;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};
use crate::store::rows::IndexRow;

/// A sample and the partition it goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    pub(super) group: Group,
    pub(super) hour: Hour,
    pub(super) point: Point,
}

/// Samples of one request, placed; made by [`super::Engine::batch`].
#[derive(Debug)]
pub struct Batch<'e> {
    layouts: &'e Layouts,
    known: &'e KnownSeries,
    pub(super) placements: Vec<Placement>,
    pub(super) unknown: Vec<IndexRow>,
    // The same label set may come several times in one request.
    pending: HashSet<(Week, SeriesId)>,
    encoded: Vec<u8>,
}

impl<'e> Batch<'e> {
    pub(super) fn new(layouts: &'e Layouts, known: &'e KnownSeries) -> Batch<'e> {
        Batch {
            layouts,
            known,
            placements: Vec::new(),
            unknown: Vec::new(),
            pending: HashSet::new(),
            encoded: Vec::new(),
        }
    }

    /// Adds a series. `labels` are canonical: sorted by name, no name twice, no empty value, a
    /// metric name among them.
    pub fn add(&mut self, labels: &[(&str, &str)], samples: &[Sample]) {
        self.encoded.clear();
        encode_pairs(labels.iter().copied(), &mut self.encoded);
        let series = SeriesId::of_encoded(&self.encoded);
        let mut placed: Option<(Week, Group)> = None;
        for sample in samples {
            let week = Week::of(sample.timestamp_ms);
            let group = match placed {
                Some((of, group)) if of == week => group,
                _ => self.place(week, series, labels),
            };
            placed = Some((week, group));
            let hour = Hour::of(sample.timestamp_ms);
            self.placements.push(Placement {
                group,
                hour,
                point: Point { series, sample: *sample },
            });
        }
    }

    fn place(&mut self, week: Week, series: SeriesId, labels: &[(&str, &str)]) -> Group {
        // A series' group never changes within a week, as the layout does not.
        if let Some(group) = self.known.group_of(week, series) {
            return group;
        }
        let row_key = self.layouts.rule(week).row_key(|name| value_of(labels, name));
        let group = row_key.group_of(series);
        if self.pending.insert((week, series)) {
            self.unknown.push(index::row(week, series, row_key, labels, &self.encoded));
        }
        group
    }

    /// About how much memory its index rows take until they are stored, bytes: twice as strings,
    /// once in the store's own tables.
    pub fn index_bytes(&self) -> usize {
        let rows = self.unknown.iter();
        rows.map(|row| row.postings.len() * 160 + row.labels.len() * 4 + 256).sum()
    }

    /// How many samples it holds.
    pub fn len(&self) -> usize {
        self.placements.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.placements.is_empty()
    }
}

fn value_of<'a>(labels: &[(&'a str, &'a str)], name: &str) -> &'a str {
    let found = labels.binary_search_by(|(candidate, _)| (*candidate).cmp(name));
    found.ok().and_then(|index| labels.get(index)).map_or("", |(_, value)| value)
}
