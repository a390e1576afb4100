//! A guest's series made ready for the ledger: finite samples with their start times, and which
//! copy supplies a minute. Knows no family's rules of counting.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Series;
use super::family::{DEVICE_LABELS, Family, Feed, START_TIME, Source, TOTAL};
use super::{MINUTE_MS, minute_of};
use crate::model::labels::{Labels, METRIC_NAME, encode_pairs};
use crate::model::row_key;
use crate::model::sample::Sample;
use crate::model::series::SeriesId;
use crate::model::time::Hour;

/// A start time this much later than its sample, or than another one, is not later (ledger.md,
/// "Whose counter is it").
pub(super) const START_TOLERANCE_MS: i64 = 5_000;

/// One finite sample: a whole number of a counter or a delta, or a gauge's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point<V> {
    pub(super) t_ms: i64,
    pub(super) value: V,
    /// When the counter began, where that is known.
    pub(super) start_ms: Option<i64>,
}

/// One copy of one physical counter.
#[derive(Debug)]
pub(super) struct Track<V> {
    /// column1.
    pub(super) column: String,
    pub(super) host: String,
    pub(super) copy: SeriesId,
    pub(super) points: Vec<Point<V>>,
}

/// The tracks of one source of a family, by how they are counted.
#[derive(Debug)]
pub(super) enum Tracks {
    Counters(Vec<Track<i64>>),
    Deltas(Vec<Track<i64>>),
    Gauges(Vec<Track<f64>>),
}

/// Start times as the exporter publishes them, by copy and time.
#[derive(Debug, Default)]
pub(super) struct StartTimes(HashMap<SeriesId, Vec<(i64, i64)>>);

impl StartTimes {
    pub(super) fn new(series: &[Series]) -> StartTimes {
        let gauges = series.iter().filter(|series| series.labels.get(METRIC_NAME) == START_TIME);
        StartTimes(
            gauges
                .map(|series| {
                    let finite = series.samples.iter().filter(|sample| sample.value.is_finite());
                    let times =
                        finite.map(|sample| (sample.timestamp_ms, whole(sample.value * 1e3)));
                    (copy_id(&series.labels), times.collect())
                })
                .collect(),
        )
    }

    /// The start times of a copy, asked for in order of time.
    fn of(&self, copy: SeriesId) -> impl FnMut(i64) -> Option<i64> {
        let mut rest = self.0.get(&copy).map(Vec::as_slice).unwrap_or_default();
        move |t_ms| {
            let before = rest.iter().take_while(|(other_ms, _)| *other_ms < t_ms).count();
            rest = rest.get(before..).unwrap_or_default();
            rest.first().filter(|(other_ms, _)| *other_ms == t_ms).map(|(_, start_ms)| *start_ms)
        }
    }
}

/// A copy of a guest's series is their label set without metric and device; one order for all
/// families (ledger.md, "Whose counter is it").
pub(super) fn copy_id(labels: &Labels) -> SeriesId {
    let mut encoded = Vec::new();
    let of_copy =
        labels.iter().filter(|(name, _)| *name != METRIC_NAME && !DEVICE_LABELS.contains(name));
    encode_pairs(of_copy, &mut encoded);
    SeriesId::of_encoded(&encoded)
}

/// The host of a series (ledger.md, "Whose counter is it").
pub(super) fn host_of(labels: &Labels) -> &str {
    row_key::host(&|name: &str| labels.get(name))
}

/// Whether a start time can be that of a sample: one from a clock that is ahead says nothing.
pub(super) fn is_plausible(start_ms: i64, t_ms: i64) -> bool {
    start_ms <= t_ms.saturating_add(START_TOLERANCE_MS)
}

/// The nearest whole number; beyond 64 bits, the last one.
#[expect(clippy::cast_possible_truncation, reason = "saturates, as a counter of that size must")]
pub(super) fn whole(value: f64) -> i64 {
    value.round() as i64
}

impl Tracks {
    pub(super) fn new(
        family: Family,
        source: Source,
        series: &[&Series],
        starts: &StartTimes,
    ) -> Tracks {
        let of_source =
            || series.iter().copied().filter(|one| family.source_of(&one.labels) == Some(source));
        match family.feed(source) {
            Feed::Counter { per_unit, .. } => {
                let count = |value: f64| (value >= 0.0).then(|| whole(value * per_unit));
                Tracks::Counters(tracks(family, of_source(), starts, count))
            }
            Feed::Delta { .. } => {
                let amount = |value: f64| (value >= 0.0).then(|| whole(value));
                Tracks::Deltas(tracks(family, of_source(), starts, amount))
            }
            Feed::Gauge { divisor, .. } => {
                Tracks::Gauges(tracks(family, of_source(), starts, |value| Some(value / divisor)))
            }
            Feed::Difference { minuend, subtrahend, divisor } => {
                let of = |metric: &'static str| {
                    of_source().filter(move |one| one.labels.get(METRIC_NAME) == metric)
                };
                let joined = joined(of(minuend), &of(subtrahend).collect::<Vec<_>>());
                Tracks::Gauges(tracks(family, joined.iter(), starts, |value| Some(value / divisor)))
            }
        }
    }

    /// For every hour that has any, the minutes that have a sample: bit by bit.
    pub(super) fn minutes(&self) -> BTreeMap<i32, u64> {
        let mut minutes = BTreeMap::new();
        match self {
            Tracks::Counters(tracks) | Tracks::Deltas(tracks) => mark_minutes(tracks, &mut minutes),
            Tracks::Gauges(tracks) => mark_minutes(tracks, &mut minutes),
        }
        minutes
    }

    /// The hours that have a sample, by host name.
    pub(super) fn hours_by_host(&self) -> BTreeMap<String, BTreeSet<i32>> {
        fn of<V>(tracks: &[Track<V>]) -> BTreeMap<String, BTreeSet<i32>> {
            let mut hours: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
            for track in tracks.iter().filter(|track| !track.points.is_empty()) {
                let of_track = track.points.iter().map(|point| Hour::of(point.t_ms).0);
                hours.entry(track.host.clone()).or_default().extend(of_track);
            }
            hours
        }
        match self {
            Tracks::Counters(tracks) | Tracks::Deltas(tracks) => of(tracks),
            Tracks::Gauges(tracks) => of(tracks),
        }
    }

    /// The columns that have a sample in an hour.
    pub(super) fn columns(&self, hour: Hour) -> Vec<&str> {
        fn of<V>(tracks: &[Track<V>], hour: Hour) -> Vec<&str> {
            let present = tracks
                .iter()
                .filter(|track| !track.within(hour.start_ms(), hour.end_ms()).is_empty());
            present.map(|track| track.column.as_str()).collect()
        }
        match self {
            Tracks::Counters(tracks) | Tracks::Deltas(tracks) => of(tracks, hour),
            Tracks::Gauges(tracks) => of(tracks, hour),
        }
    }

    /// The hosts that its tracks name.
    pub(super) fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<&str> = match self {
            Tracks::Counters(tracks) | Tracks::Deltas(tracks) => {
                tracks.iter().map(|track| track.host.as_str()).collect()
            }
            Tracks::Gauges(tracks) => tracks.iter().map(|track| track.host.as_str()).collect(),
        };
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}

fn tracks<'s, V>(
    family: Family,
    series: impl Iterator<Item = &'s Series>,
    starts: &StartTimes,
    value: impl Fn(f64) -> Option<V>,
) -> Vec<Track<V>> {
    let tracks = series.filter_map(|series| {
        let column = match family.device_label() {
            Some(label) => series.labels.get(label),
            None => TOTAL,
        };
        if column.is_empty() {
            return None;
        }
        let copy = copy_id(&series.labels);
        let mut starts = starts.of(copy);
        let point = |sample: &Sample| {
            let value = sample.value.is_finite().then(|| value(sample.value)).flatten()?;
            let t_ms = sample.timestamp_ms;
            let of_guest = || starts(t_ms).filter(|_| family.begins_with_guest());
            let start_ms = sample.start_ms.map(i64::from).or_else(of_guest);
            let start_ms = start_ms.filter(|start_ms| is_plausible(*start_ms, t_ms));
            Some(Point { t_ms, value, start_ms })
        };
        let track = Track {
            column: column.to_owned(),
            host: host_of(&series.labels).to_owned(),
            copy,
            points: series.samples.iter().filter_map(point).collect(),
        };
        Some((track, &series.labels))
    });
    // Labels beside the copy: two series of one copy must not depend on the order they came in.
    let mut tracks: Vec<(Track<V>, &Labels)> = tracks.collect();
    tracks.sort_by(|(left, one), (right, other)| (left.copy, *one).cmp(&(right.copy, *other)));
    tracks.into_iter().map(|(track, _)| track).collect()
}

/// The differences of two gauges where one copy has both at one timestamp.
fn joined<'s>(minuends: impl Iterator<Item = &'s Series>, subtrahends: &[&Series]) -> Vec<Series> {
    let mut by_copy: HashMap<SeriesId, &Series> = HashMap::new();
    for &other in subtrahends {
        let kept = by_copy.entry(copy_id(&other.labels)).or_insert(other);
        if other.labels < kept.labels {
            *kept = other;
        }
    }
    let joined = minuends.filter_map(|minuend| {
        let other = by_copy.get(&copy_id(&minuend.labels))?;
        let difference = |sample: &Sample| {
            let key = |sample: &Sample| sample.timestamp_ms;
            let found = other.samples.binary_search_by_key(&sample.timestamp_ms, key).ok()?;
            let subtrahend = other.samples.get(found)?;
            let finite = sample.value.is_finite() && subtrahend.value.is_finite();
            finite.then_some(Sample { value: sample.value - subtrahend.value, ..*sample })
        };
        let samples = minuend.samples.iter().filter_map(difference).collect();
        Some(Series { labels: minuend.labels.clone(), samples, elsewhere: false })
    });
    joined.collect()
}

fn mark_minutes<V>(tracks: &[Track<V>], minutes: &mut BTreeMap<i32, u64>) {
    for track in tracks {
        let mut of_hour: Option<(i32, u64)> = None;
        for point in &track.points {
            let hour = Hour::of(point.t_ms);
            if let Some((open, bits)) = of_hour
                && open != hour.0
            {
                *minutes.entry(open).or_default() |= bits;
                of_hour = None;
            }
            of_hour.get_or_insert((hour.0, 0)).1 |= minute_bit(hour, point.t_ms);
        }
        if let Some((hour, bits)) = of_hour {
            *minutes.entry(hour).or_default() |= bits;
        }
    }
}

fn minute_bit(hour: Hour, t_ms: i64) -> u64 {
    1 << (((t_ms - hour.start_ms()) / MINUTE_MS) & 63)
}

impl<V> Track<V> {
    /// Its points within a range, both ends included.
    pub(super) fn within(&self, from_ms: i64, to_ms: i64) -> &[Point<V>] {
        let begin = self.points.partition_point(|point| point.t_ms < from_ms);
        let end = self.points.partition_point(|point| point.t_ms <= to_ms);
        self.points.get(begin..end).unwrap_or_default()
    }
}

/// The samples that supply a counter in an hour: each minute's from the first copy that has one in
/// it. The tracks are those of one physical counter, in the order of their copies.
pub(super) fn supplied<V: Copy>(tracks: &[&Track<V>], hour: Hour) -> Vec<Point<V>> {
    let mut points = Vec::new();
    let mut taken = 0;
    for track in tracks {
        let mut of_copy = 0;
        for point in track.within(hour.start_ms(), hour.end_ms()) {
            let bit = minute_bit(hour, point.t_ms);
            if taken & bit == 0 {
                of_copy |= bit;
                points.push(*point);
            }
        }
        taken |= of_copy;
    }
    points.sort_by_key(|point| point.t_ms);
    points
}

/// Cuts points that are sorted by time into those of one minute each.
pub(super) fn by_minute<V>(points: &[Point<V>]) -> impl Iterator<Item = (i64, &[Point<V>])> {
    points
        .chunk_by(|left, right| minute_of(left.t_ms) == minute_of(right.t_ms))
        .filter_map(|points| points.first().map(|first| (minute_of(first.t_ms), points)))
}
