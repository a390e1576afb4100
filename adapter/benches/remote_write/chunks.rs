//! What a sample costs in a sealed chunk: bytes, and time to encode and to decode, on the fleet's
//! series. Apart from every server, so that a change to the format is seen alone.

use std::hint::black_box;
use std::time::Instant;

use adapter::engine::chunk;
use adapter::model::sample::Sample;

use crate::fleet::{self, SERIES_PER_GUEST, Size};

/// Samples in a window of two hours at intervals of a minute and of 15 s.
const LENGTHS: [usize; 2] = [120, 480];
const ROUNDS: u32 = 5;

/// Prints a line for each length of a chunk.
pub(crate) fn measure() -> Result<(), String> {
    for scrapes in LENGTHS {
        let size = Size { hosts: 4, guests_per_host: 25, scrapes };
        let series = series(size);
        let started = Instant::now();
        for _ in 1..ROUNDS {
            for samples in &series {
                drop(black_box(chunk::encode(samples)));
            }
        }
        let chunks: Vec<Vec<u8>> = series.iter().map(|samples| chunk::encode(samples)).collect();
        let encoding = started.elapsed();
        let started = Instant::now();
        let mut samples = Vec::new();
        for _ in 0..ROUNDS {
            for (chunk, expected) in chunks.iter().zip(&series) {
                samples.clear();
                chunk::decode(chunk, &mut samples).map_err(|error| error.to_string())?;
                if samples != *expected {
                    return Err("a chunk reads back other samples".to_owned());
                }
            }
        }
        let decoding = started.elapsed();
        let count = size.samples() as f64;
        let bytes = chunks.iter().map(Vec::len).sum::<usize>() as f64 / count;
        let nanoseconds =
            [encoding, decoding].map(|time| time.as_nanos() as f64 / f64::from(ROUNDS) / count);
        println!(
            "chunks of {scrapes} samples: {bytes:.2} bytes a sample, {:.0} ns to encode, {:.0} ns to decode and compare",
            nanoseconds[0], nanoseconds[1]
        );
    }
    Ok(())
}

fn series(size: Size) -> Vec<Vec<Sample>> {
    let mut series = vec![Vec::with_capacity(size.scrapes); size.series()];
    fleet::play(size, 1_700_000_000_000, |point| {
        let fleet::Point { guest, place, timestamp_ms, value } = point;
        let sample = Sample { timestamp_ms, value, start_ms: None };
        series[guest * SERIES_PER_GUEST + place].push(sample);
    });
    series
}
