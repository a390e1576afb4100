//! The samples of one write request on their way to a commit.
//! Works on borrowed, canonical labels; only a series that is new to the index is copied.

use std::collections::HashSet;

use super::index::{self, KnownSeries};
use super::layout::Layouts;
use super::memo::{Known, Lesson, ahead_from_ms};
use super::pack::Point;
use crate::model::labels::encode_pairs;
use crate::model::row_key::Group;
use crate::model::sample::Sample;
use crate::model::series::{Fingerprint, SeriesId};
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
    pub(super) lessons: Vec<Lesson>,
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
            lessons: Vec::new(),
            pending: HashSet::new(),
            encoded: Vec::new(),
        }
    }

    /// Makes room for so many samples.
    pub fn reserve(&mut self, samples: usize) {
        self.placements.reserve(samples);
    }

    /// What is known of the series of a request, in their order.
    pub fn recall(
        &self,
        fingerprints: impl ExactSizeIterator<Item = Option<Fingerprint>>,
    ) -> Vec<Option<Known>> {
        self.known.memo.recall(fingerprints)
    }

    /// Adds a series that is known, at times that lie in [`Known::times`].
    pub fn add_known(&mut self, known: &Known, samples: &[Sample]) {
        let (series, group) = (known.series, known.group);
        self.placements.extend(samples.iter().map(|sample| Placement {
            group,
            hour: Hour::of(sample.timestamp_ms),
            point: Point { series, sample: *sample },
        }));
    }

    /// Adds a series. `labels` are canonical: sorted by name, no name twice, no empty value, a
    /// metric name among them. Once the batch is stored, their fingerprint stands for them.
    pub fn add(
        &mut self,
        fingerprint: Option<Fingerprint>,
        labels: &[(&str, &str)],
        samples: &[Sample],
    ) {
        self.encoded.clear();
        encode_pairs(labels.iter().copied(), &mut self.encoded);
        let series = SeriesId::of_encoded(&self.encoded);
        let mut placed: Option<Known> = None;
        for sample in samples {
            let at_ms = sample.timestamp_ms;
            let known = match placed {
                Some(known) if known.times().contains(at_ms) => known,
                _ => self.place(at_ms, series, labels),
            };
            placed = Some(known);
            self.placements.push(Placement {
                group: known.group,
                hour: Hour::of(at_ms),
                point: Point { series, sample: *sample },
            });
        }
        if let (Some(fingerprint), Some(known)) = (fingerprint, placed) {
            self.lessons.push(Lesson { fingerprint, known });
        }
    }

    /// Where the samples of a series go at a time. What the index does not know yet of its week,
    /// and of the next one where that is due, is noted.
    fn place(&mut self, at_ms: i64, series: SeriesId, labels: &[(&str, &str)]) -> Known {
        let week = Week::of(at_ms);
        let group = self.note(week, series, labels);
        let ahead = at_ms >= ahead_from_ms(week, series);
        if ahead {
            self.note(Week(week.0.saturating_add(1)), series, labels);
        }
        Known { series, group, week, ahead }
    }

    fn note(&mut self, week: Week, series: SeriesId, labels: &[(&str, &str)]) -> Group {
        let rule = self.layouts.rule(week);
        let row_key = rule.row_key(|name| value_of(labels, name));
        let group = row_key.group_of(series);
        if !self.known.contains(week, series) && self.pending.insert((week, series)) {
            self.unknown.push(index::row((week, series), row_key, labels, &self.encoded));
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
