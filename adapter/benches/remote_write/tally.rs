//! What must be read back: for each metric a count and a checksum over every sample with its labels.
//! A sum of hashes, so that the order does not matter, and a sample lost, doubled or changed shows.

use std::collections::BTreeMap;

use crate::fleet::{self, Size, hash};

/// Samples of one metric.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    samples: u64,
    /// Over series, times and all bits of the values.
    sum: u64,
    /// Over series and times.
    places: u64,
    /// Of the values.
    total: f64,
}

/// How what was read compares with what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Likeness {
    /// Every bit of every sample.
    Same,
    /// Every series and time; values are off by less than a billionth in all. VictoriaMetrics keeps
    /// about twelve digits.
    Rounded,
    /// Something is lost, doubled or changed.
    Different,
}

/// Relative difference of all values together that still counts as rounded.
const ROUNDED: f64 = 1e-9;

impl Tally {
    /// Adds one sample of the series with this hash.
    pub(crate) fn add(&mut self, series: u64, timestamp_ms: i64, value: f64) {
        let place = hash(series ^ hash(timestamp_ms.cast_unsigned()));
        self.samples += 1;
        self.sum = self.sum.wrapping_add(hash(place ^ hash(value.to_bits())));
        self.places = self.places.wrapping_add(place);
        self.total += value;
    }

    pub(crate) fn likeness(&self, other: &Tally) -> Likeness {
        let complete = (self.samples, self.places) == (other.samples, other.places);
        let off = (self.total - other.total).abs();
        match (complete, self.sum == other.sum) {
            (true, true) => Likeness::Same,
            (true, false) if off <= ROUNDED * self.total.abs() => Likeness::Rounded,
            _ => Likeness::Different,
        }
    }
}

/// The hash of a label set, sorted by name (FNV-1a; a byte that is in no text ends each).
pub(crate) fn series_hash<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let texts = labels.flat_map(|(name, value)| [name, value]);
    let bytes = texts.flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What the whole fleet must read back as, by metric.
pub(crate) fn expected(size: Size, start_ms: i64) -> BTreeMap<String, Tally> {
    let mut metrics = Vec::with_capacity(size.series());
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for guest in 0..size.guests() {
        for place in 0..fleet::SERIES_PER_GUEST {
            let labels = fleet::labels(size, guest, place);
            let name = labels.iter().find(|(name, _)| name == "__name__").unwrap().1.clone();
            let next = names.len();
            let metric = *names.entry(name).or_insert(next);
            let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            metrics.push((metric, series_hash(pairs)));
        }
    }
    let mut tallies = vec![Tally::default(); names.len()];
    fleet::play(size, start_ms, |point| {
        let (metric, series) = metrics[point.guest * fleet::SERIES_PER_GUEST + point.place];
        tallies[metric].add(series, point.timestamp_ms, point.value);
    });
    names.into_iter().map(|(name, place)| (name, tallies[place])).collect()
}
