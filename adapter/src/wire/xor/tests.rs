//! XOR chunks: the way there and back, damage, and Prometheus' own bytes.

use proptest::prelude::*;

use super::*;

const STALE: u64 = 0x7ff0_0000_0000_0002;

fn samples(pairs: &[(i64, f64)]) -> Vec<Sample> {
    let sample = |&(timestamp_ms, value)| Sample { timestamp_ms, value, start_ms: None };
    pairs.iter().map(sample).collect()
}

fn bits(pairs: &[(i64, f64)]) -> Vec<(i64, u64)> {
    pairs.iter().map(|(time, value)| (*time, value.to_bits())).collect()
}

fn check_round_trip(pairs: &[(i64, f64)]) {
    let chunks = encode_chunks(&samples(pairs));
    let mut decoded = Vec::new();
    for chunk in &chunks {
        let part = decode(&chunk.data).unwrap();
        assert!(!part.is_empty() && part.len() <= CHUNK_SAMPLES_MAX);
        assert_eq!(chunk.min_ms, part.first().unwrap().0);
        assert_eq!(chunk.max_ms, part.last().unwrap().0);
        decoded.extend(part);
    }
    assert_eq!(bits(&decoded), bits(pairs));
}

/// Every width of the time field at both its ends and just beyond, as gaps between samples.
fn times_at_the_edges() -> Vec<i64> {
    let mut times = vec![1_763_697_600_000];
    for width in [14, 17, 20] {
        for change in [(1 << (width - 1)) - 1, 1 << (width - 1), (1 << (width - 1)) + 1] {
            for delta in [2_000_000, 2_000_000 + change, 2_000_000, 2_000_000 - change] {
                times.push(times.last().unwrap() + delta);
            }
        }
    }
    times
}

#[test]
fn nothing_makes_no_chunk() {
    assert!(encode_chunks(&[]).is_empty());
}

#[test]
fn every_field_width_round_trips() {
    let pairs: Vec<_> = times_at_the_edges().into_iter().map(|time| (time, 1.5)).collect();
    check_round_trip(&pairs);
}

#[test]
fn extreme_times_and_values_round_trip() {
    let values = [
        f64::from_bits(STALE),
        f64::NAN,
        f64::from_bits(0xffff_ffff_ffff_ffff),
        f64::from_bits(1),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        f64::MAX,
        f64::MIN_POSITIVE,
    ];
    let times = [i64::MIN, i64::MIN + 1, -1, 0, 1, 2, 1 << 40, i64::MAX - 1, i64::MAX];
    let pairs: Vec<_> = times.into_iter().zip(values).collect();
    check_round_trip(&pairs);
    check_round_trip(&[(i64::MIN, 1.0), (i64::MAX, 2.0)]);
    for value in values {
        check_round_trip(&[(5, value)]);
        check_round_trip(&[(5, 0.1), (6, value), (7, value), (9, 0.1)]);
    }
}

#[test]
fn chunks_are_cut_and_disjoint() {
    let pairs: Vec<_> = (0..1_000_i32).map(|n| (i64::from(n) * 15_000, f64::from(n))).collect();
    let chunks = encode_chunks(&samples(&pairs));
    assert_eq!(chunks.len(), 1_000_usize.div_ceil(CHUNK_SAMPLES_MAX));
    for pair in chunks.windows(2) {
        assert!(pair[0].max_ms < pair[1].min_ms);
    }
    check_round_trip(&pairs);
}

#[test]
fn damage_is_an_error_and_not_a_panic() {
    let pairs: Vec<_> = times_at_the_edges()
        .into_iter()
        .zip(0_u32..)
        .map(|(time, n)| {
            (time, if n % 7 == 0 { f64::from_bits(STALE) } else { 0.1 * f64::from(n) })
        })
        .collect();
    let data = encode_chunks(&samples(&pairs)).remove(0).data;
    for length in 0..data.len() {
        assert!(decode(&data[..length]).is_err(), "{length}");
    }
    for at in 0..data.len() {
        for byte in 0..=u8::MAX {
            let mut damaged = data.to_vec();
            damaged[at] = byte;
            if let Ok(decoded) = decode(&damaged) {
                assert!(u16::try_from(decoded.len()).is_ok());
            }
        }
    }
    // A header that promises 65535 samples, and no bytes for them.
    assert_eq!(decode(&[0xff, 0xff]), Err(BadChunk { sample: 0, samples: 65_535 }));
    assert_eq!(decode(&[0]), Err(BadChunk { sample: 0, samples: 0 }));
    assert_eq!(decode(&[0, 0]), Ok(Vec::new()));
}

proptest! {
    #[test]
    fn round_trip(
        start in any::<i64>(),
        steps in prop::collection::vec(
            (
                prop_oneof![Just(15_000_u64), 1_u64..20_000, 1_u64..3_000_000, 1_u64..u64::MAX / 400],
                prop_oneof![
                    any::<u64>(),
                    Just(STALE),
                    (0_u32..5).prop_map(|n| f64::from(n).to_bits()),
                ],
            ),
            0..300,
        ),
    ) {
        let mut time = start;
        let mut pairs = Vec::new();
        for (step, value) in steps {
            let Some(next) = time.checked_add_unsigned(step) else { break };
            time = next;
            pairs.push((time, f64::from_bits(value)));
        }
        check_round_trip(&pairs);
    }
}

/// Byte for byte what Prometheus' own encoder makes of the same samples, and the way back.
#[test]
fn equals_prometheus() {
    let vectors = include_str!("../../../tests/parts/chunks/vectors.jsonl");
    assert!(vectors.lines().count() > 10);
    for line in vectors.lines() {
        let vector: serde_json::Value = serde_json::from_str(line).unwrap();
        let pairs: Vec<_> = vector["samples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| {
                let bits = u64::from_str_radix(pair[1].as_str().unwrap(), 16).unwrap();
                (pair[0].as_i64().unwrap(), f64::from_bits(bits))
            })
            .collect();
        let chunks = encode_chunks(&samples(&pairs));
        let [chunk] = &chunks[..] else { panic!("a vector has at most {CHUNK_SAMPLES_MAX}") };
        let theirs = vector["chunk"].as_str().unwrap().as_bytes();
        let theirs: Vec<_> = theirs
            .chunks(2)
            .map(|hex| u8::from_str_radix(str::from_utf8(hex).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(chunk.data, theirs);
        assert_eq!(bits(&decode(&chunk.data).unwrap()), bits(&pairs));
    }
}
