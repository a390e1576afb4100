//! Chunks read back every bit, refuse damage, and are as small as they are meant to be.

#![expect(clippy::cast_precision_loss, clippy::cast_possible_wrap, reason = "small numbers")]

use std::num::NonZeroI64;

use proptest::prelude::*;

use super::*;
use crate::model::sample::{STALE_MARKER_BITS, sort_and_merge};

fn at(timestamp_ms: i64, value: f64) -> Sample {
    Sample { timestamp_ms, value, start_ms: None }
}

fn decoded(bytes: &[u8]) -> Result<Vec<Sample>, Unreadable> {
    let mut samples = Vec::new();
    decode(bytes, &mut samples).map(|()| samples)
}

fn check(samples: &[Sample]) -> Vec<u8> {
    let bytes = encode(samples);
    assert_eq!(decoded(&bytes).unwrap(), samples);
    let (first, last) = (samples.first().unwrap(), samples.last().unwrap());
    let said =
        Span { count: samples.len(), first_ms: first.timestamp_ms, last_ms: last.timestamp_ms };
    assert_eq!(span(&bytes), Ok(said));
    bytes
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1_000_000_000_000i64..1_000_000_000_000).prop_map(|n| n as f64 / 1e9),
        4 => (0..1_000_000i64).prop_map(|n| n as f64 * 4096.0),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![
            f64::from_bits(STALE_MARKER_BITS),
            f64::NAN,
            -0.0,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            9_007_199_254_740_993.0,
            4e18,
            -4e18,
        ]),
    ]
}

/// How often one of a series' values is like the others: decimals with few exceptions, or none.
fn any_values() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        prop::collection::vec(any_value(), 1..300),
        (any_value(), 1..300usize).prop_map(|(value, count)| vec![value; count]),
        (prop::collection::vec(0..1_000_000u32, 1..300), any::<usize>(), any_value()).prop_map(
            |(steps, place, odd)| {
                let mut sum = 0.0;
                let mut values: Vec<f64> = steps
                    .iter()
                    .map(|step| {
                        sum += f64::from(*step);
                        sum
                    })
                    .collect();
                let place = place % values.len();
                values[place] = odd;
                values
            }
        ),
    ]
}

fn any_times(count: usize) -> impl Strategy<Value = Vec<i64>> {
    let near_grid = (1..100_000i64, prop::collection::vec((-4..=4i64, 0..40u8), count)).prop_map(
        |(interval, offs)| {
            let mut grid = 1_700_000_000_000;
            let offs = offs.iter().map(|(off, missed)| {
                // Now and then a scrape or ten are missing.
                grid += interval * if *missed == 0 { 11 } else { 1 };
                grid + off
            });
            offs.collect()
        },
    );
    let every_ms = (any::<i32>())
        .prop_map(move |first| (0..count).map(|place| i64::from(first) + place as i64).collect());
    prop_oneof![near_grid, every_ms, prop::collection::vec(any::<i64>(), count)]
}

fn any_starts(count: usize) -> impl Strategy<Value = Vec<Option<NonZeroI64>>> {
    prop_oneof![
        Just(vec![None; count]),
        any::<i64>().prop_map(move |start| vec![NonZeroI64::new(start); count]),
        prop::collection::vec(any::<i64>().prop_map(NonZeroI64::new), count),
        prop::collection::vec(prop::option::of(any::<i64>()), count)
            .prop_map(|starts| starts.into_iter().map(|s| s.and_then(NonZeroI64::new)).collect()),
    ]
}

fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
    any_values().prop_flat_map(|values| {
        let count = values.len();
        (Just(values), any_times(count), any_starts(count)).prop_map(|(values, times, starts)| {
            let mut samples: Vec<Sample> = values
                .into_iter()
                .zip(times)
                .zip(starts)
                .map(|((value, timestamp_ms), start_ms)| Sample { timestamp_ms, value, start_ms })
                .collect();
            sort_and_merge(&mut samples);
            samples
        })
    })
}

proptest! {
    #[test]
    fn every_bit_reads_back(samples in any_samples()) {
        check(&samples);
    }

    #[test]
    fn what_was_encoded_before_changes_nothing(all in prop::collection::vec(any_samples(), 1..4)) {
        let mut encoder = Encoder::default();
        for samples in &all {
            prop_assert_eq!(encoder.encode(samples), encode(samples));
            prop_assert_eq!(encoder.encode(samples), encode(samples));
        }
    }

    #[test]
    fn what_is_cut_short_is_damaged(samples in any_samples()) {
        let bytes = encode(&samples);
        for end in 0..bytes.len() {
            prop_assert_eq!(decoded(&bytes[..end]), Err(Unreadable::Damaged));
        }
    }

    #[test]
    fn damage_never_panics_and_leaves_nothing(
        samples in any_samples(),
        place in any::<usize>(),
        byte in any::<u8>(),
        more in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = encode(&samples);
        let place = place % bytes.len();
        bytes[place] = byte;
        let mut out = vec![at(1, 1.0)];
        if let Ok(span) = span(&bytes) {
            // A count changed to millions is read as what it says where the rest allows it.
            prop_assume!(span.count < 100_000);
        }
        let read = decode(&bytes, &mut out).and_then(|()| span(&bytes));
        prop_assert_eq!(out.len(), 1 + read.map_or(0, |span| span.count));
        bytes.truncate(place);
        bytes.extend(more);
        drop(decoded(&bytes));
    }
}

#[test]
fn odd_samples_read_back() {
    check(&[at(0, 0.0)]);
    check(&[at(i64::MIN, f64::NAN)]);
    check(&[at(i64::MIN, 1.0), at(i64::MAX, 2.0)]);
    check(&[at(i64::MIN, 1.0), at(0, 1.0), at(i64::MAX, 2.0)]);
    check(&[at(i64::MIN, -0.0), at(i64::MIN + 1, 0.0), at(i64::MAX, -0.0)]);
    check(&[at(1, f64::MAX), at(2, f64::MIN), at(4, f64::from_bits(STALE_MARKER_BITS))]);
    let ends = [i64::MIN, i64::MAX, 0].map(NonZeroI64::new);
    let starts = ends.into_iter().enumerate();
    let samples: Vec<Sample> = starts
        .map(|(place, start_ms)| Sample { timestamp_ms: place as i64, value: 1.0, start_ms })
        .collect();
    check(&samples);
}

#[test]
fn more_than_a_batch_of_pco_reads_back() {
    for count in [255i64, 256, 257, 512, 7_200, 300_000] {
        let samples: Vec<Sample> = (0..count)
            .map(|place| at(place * 15_000 + place * place % 7, (place * place % 1_013) as f64))
            .collect();
        check(&samples);
    }
}

/// A guest that stops leaves a stale marker, and libvirt counts nanoseconds: neither may turn a
/// column of small numbers into one of floats.
#[test]
fn what_the_exporter_sends_stays_small() {
    let mut samples: Vec<Sample> =
        (0..480).map(|place| at(place * 15_000, (place * 1_000_000) as f64 / 1e9)).collect();
    let steady = check(&samples).len();
    assert!(steady < 60, "{steady} bytes for a counter of nanoseconds that grows steadily");
    samples[479].value = f64::from_bits(STALE_MARKER_BITS);
    let stopped = check(&samples).len();
    assert!(stopped < steady + 40, "{stopped} bytes with a stale marker");
    for sample in &mut samples {
        sample.value = 1.0;
        sample.start_ms = NonZeroI64::new(1_700_000_000_000);
    }
    let constant = check(&samples).len();
    assert!(constant < 40, "{constant} bytes for one value and one start time");
}

#[test]
fn a_claim_is_judged_before_memory_is_spent() {
    // 2^40 samples; then as many as a window can hold, in a time that cannot hold them.
    let mut bytes = vec![VERSION, 0];
    varint::push(1 << 40, &mut bytes);
    bytes.extend_from_slice(&0i64.to_be_bytes());
    varint::push(u64::MAX >> 1, &mut bytes);
    bytes.extend_from_slice(&[0; 20]);
    assert_eq!(decoded(&bytes), Err(Unreadable::Damaged));
    let mut bytes = vec![VERSION, 0];
    varint::push(SAMPLES_MAX as u64, &mut bytes);
    bytes.extend_from_slice(&0i64.to_be_bytes());
    varint::push(1_000, &mut bytes);
    bytes.extend_from_slice(&[0; 20]);
    assert_eq!(span(&bytes), Err(Unreadable::Damaged));
    assert_eq!(decoded(&bytes), Err(Unreadable::Damaged));
}

#[test]
fn a_newer_format_says_so() {
    let mut bytes = encode(&[at(0, 1.0)]);
    bytes[0] = 2;
    assert_eq!(decoded(&bytes), Err(Unreadable::Version(2)));
    bytes[..2].copy_from_slice(&[1, 2]);
    assert_eq!(span(&bytes), Err(Unreadable::Version(1)));
}

#[test]
fn the_bytes_are_pinned() {
    let mut samples: Vec<Sample> = (0..100i64)
        .map(|place| {
            let off = place * place % 5;
            at(1_700_000_000_000 + place * 15_000 + off, (place * place % 97) as f64 / 100.0)
        })
        .collect();
    samples[70].value = f64::from_bits(STALE_MARKER_BITS);
    for (place, sample) in samples.iter_mut().enumerate() {
        sample.start_ms = NonZeroI64::new(if place < 50 { 0 } else { 1_700_000_700_000 });
    }
    let bytes = check(&samples);
    let hex = format!("{bytes:02x?}").replace(", ", "");
    expect_test::expect!["[0101640000018bcfe56800c9d15a019875000200010025009000008111000051d1004208218616a30f1fc33ba14d6cdbb66ddbb66d1b2101467ff000000000000202000100100000003880002101c99062c0e800f3420a3ebe6fc8c8a88159db955786086eb0364bb6375a58853090c4d0ad3e97c9e4f259ed1a242098d0ba18f5b2161b76134420bcab2d0b5c6318435fdf47807c610651608c94812408014080000200e0acc0ffbc31001000000008000000000000fcffffffffff0f]"].assert_eq(&hex);
}

#[test]
fn the_example_of_the_documentation() {
    let bytes = encode(&[at(1_767_225_615_000, 12.5)]);
    let hex = |bytes: &[u8]| format!("{bytes:02x?}").replace(['[', ']', ',', ' '], "");
    assert_eq!(hex(&bytes), "0100010000019b76dae2980000004029000000000000");
    // Its hash ends the chunk's key.
    assert_eq!(hex(&xxhash_rust::xxh3::xxh3_64(&bytes).to_be_bytes()), "a65f3d20328bdc25");
}
