//! Request bodies as Prometheus would send them, made before any clock is read.
//! Knows the protocols by plain prost; knows no HTTP.

use std::ops::Range;

use adapter::wire::messages::{self, v2};
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;
use prost::Message;

use crate::fleet::{self, Point, SERIES_PER_GUEST, Size};

/// Prometheus' `max_samples_per_send`.
pub(crate) const SAMPLES_PER_REQUEST: usize = 2_000;

/// One request, ready to send.
#[derive(Debug)]
pub(crate) struct Request {
    /// Which of the sender's shards sends it.
    pub(crate) shard: usize,
    pub(crate) samples: usize,
    pub(crate) body: Vec<u8>,
}

/// The label texts of a fleet, each once, and every series as places in them.
struct Texts {
    all: Vec<String>,
    series: Vec<Vec<u32>>,
}

impl Texts {
    fn of(size: Size) -> Texts {
        let mut all = vec![String::new()];
        let mut places = std::collections::HashMap::from([(String::new(), 0)]);
        let mut place_of = |text: String| {
            *places.entry(text.clone()).or_insert_with(|| {
                all.push(text);
                all.len() as u32 - 1
            })
        };
        let mut series = Vec::with_capacity(size.series());
        for guest in 0..size.guests() {
            for place in 0..SERIES_PER_GUEST {
                let labels = fleet::labels(size, guest, place);
                let texts = labels.into_iter().flat_map(|(name, value)| [name, value]);
                series.push(texts.map(&mut place_of).collect());
            }
        }
        Texts { all, series }
    }

    fn of_point(&self, point: &Point) -> &[u32] {
        &self.series[point.guest * SERIES_PER_GUEST + point.place]
    }

    fn text(&self, place: u32) -> String {
        self.all[place as usize].clone()
    }
}

/// All requests of a fleet in the order in which their last sample is scraped. Prometheus gives a
/// series to the shard that is its reference modulo their number, and a request is sent when it is
/// full; what is left at the end is sent as it is.
pub(crate) fn make(size: Size, start_ms: i64, protocol: Protocol, shards: usize) -> Vec<Request> {
    within(size, start_ms, (i64::MIN..i64::MAX, protocol, shards))
}

/// The same of the samples in a part of the time alone.
pub(crate) fn within(
    size: Size,
    start_ms: i64,
    (part_ms, protocol, shards): (Range<i64>, Protocol, usize),
) -> Vec<Request> {
    let texts = Texts::of(size);
    let mut requests = Vec::new();
    let mut queues = vec![Vec::with_capacity(SAMPLES_PER_REQUEST); shards];
    let mut encoder = Encoder { texts: &texts, places: vec![0; texts.all.len()] };
    let mut full = |shard: usize, points: &mut Vec<Point>| {
        let message = encoder.message(protocol, points);
        let body = snappy::compress(&message).unwrap();
        requests.push(Request { shard, samples: points.len(), body });
        points.clear();
    };
    fleet::play(size, start_ms, |point| {
        if !part_ms.contains(&point.timestamp_ms) {
            return;
        }
        let shard = reference(size, &point) % shards;
        queues[shard].push(point);
        if queues[shard].len() == SAMPLES_PER_REQUEST {
            full(shard, &mut queues[shard]);
        }
    });
    for (shard, points) in queues.iter_mut().enumerate().filter(|(_, points)| !points.is_empty()) {
        full(shard, points);
    }
    requests
}

/// Prometheus numbers series in the order in which it first sees them.
fn reference(size: Size, point: &Point) -> usize {
    let host = point.guest / size.guests_per_host;
    let guest = point.guest % size.guests_per_host;
    (host * SERIES_PER_GUEST + point.place) * size.guests_per_host + guest
}

struct Encoder<'a> {
    texts: &'a Texts,
    /// The symbol of each text in the request under way, 0 where it has none yet (2.0).
    places: Vec<u32>,
}

impl Encoder<'_> {
    fn message(&mut self, protocol: Protocol, points: &[Point]) -> Vec<u8> {
        match protocol {
            Protocol::V1 => self.v1(points),
            Protocol::V2 => self.v2(points),
        }
    }

    fn v1(&self, points: &[Point]) -> Vec<u8> {
        let timeseries = points.iter().map(|point| {
            let pairs = self.texts.of_point(point).chunks_exact(2);
            let label = |pair: &[u32]| messages::Label {
                name: self.texts.text(pair[0]),
                value: self.texts.text(pair[1]),
            };
            let sample = messages::Sample { value: point.value, timestamp: point.timestamp_ms };
            messages::TimeSeries {
                labels: pairs.map(label).collect(),
                samples: vec![sample],
                ..Default::default()
            }
        });
        messages::WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() }
            .encode_to_vec()
    }

    fn v2(&mut self, points: &[Point]) -> Vec<u8> {
        let mut used = vec![0];
        let mut timeseries = Vec::with_capacity(points.len());
        for point in points {
            let mut labels_refs = Vec::new();
            for text in self.texts.of_point(point) {
                let place = &mut self.places[*text as usize];
                if *place == 0 {
                    *place = used.len() as u32;
                    used.push(*text);
                }
                labels_refs.push(*place);
            }
            let sample = v2::Sample {
                value: point.value,
                timestamp: point.timestamp_ms,
                start_timestamp: 0,
            };
            timeseries.push(v2::TimeSeries {
                labels_refs,
                samples: vec![sample],
                ..Default::default()
            });
        }
        let symbols = used.iter().map(|text| self.texts.text(*text)).collect();
        for text in used {
            self.places[text as usize] = 0;
        }
        v2::Request { symbols, timeseries }.encode_to_vec()
    }
}
