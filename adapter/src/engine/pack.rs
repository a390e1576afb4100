//! The payload of a head row: samples of one group and hour, packed by column.
//! Reads back every bit; damage is an error, never a panic. `docs/storage.md` draws the bytes.

use std::num::NonZeroI64;

use crate::model::sample::Sample;
use crate::model::series::SeriesId;
use crate::model::varint;

const VERSION: u8 = 1;
const FLAG_STARTS: u8 = 1;

/// One sample and its series, within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which series.
    pub series: SeriesId,
    /// Its sample.
    pub sample: Sample,
}

/// A payload that cannot be read: damage on disk, or a newer version wrote it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a later release.
    #[error(
        "a head row has format {0}, which this release cannot read; use the release that wrote it"
    )]
    Version(u8),
    /// The bytes contradict themselves.
    #[error("a head row is damaged")]
    Damaged,
}

/// Packs samples; sort them by series and time first, so that equal sets give equal bytes.
///
/// Version byte, flags byte, count as LEB128, base time (the earliest, 8 bytes big-endian); then by
/// column: series ids (16 bytes each), times less the base (LEB128), values (8 bytes each,
/// big-endian), and, where a flag says so, start times: 0 for unknown, else 1 + zig-zag of time
/// less start.
pub fn pack(points: &[Point]) -> Vec<u8> {
    let base_ms = points.iter().map(|point| point.sample.timestamp_ms).min().unwrap_or(0);
    let has_starts = points.iter().any(|point| point.sample.start_ms.is_some());
    let mut bytes = Vec::with_capacity(20 + points.len() * 28);
    bytes.extend_from_slice(&[VERSION, if has_starts { FLAG_STARTS } else { 0 }]);
    varint::push(points.len() as u64, &mut bytes);
    bytes.extend_from_slice(&base_ms.to_be_bytes());
    for point in points {
        bytes.extend_from_slice(&point.series.to_bytes());
    }
    for point in points {
        varint::push(point.sample.timestamp_ms.wrapping_sub(base_ms).cast_unsigned(), &mut bytes);
    }
    for point in points {
        bytes.extend_from_slice(&point.sample.value.to_bits().to_be_bytes());
    }
    if has_starts {
        for Point { sample, .. } in points {
            let start = sample
                .start_ms
                .map(|start| varint::zigzag(sample.timestamp_ms.wrapping_sub(start.get())));
            // Saturates for a start 2^63 ms before its sample, which reads back 1 ms off; none is real.
            varint::push(start.map_or(0, |distance| distance.saturating_add(1)), &mut bytes);
        }
    }
    bytes
}

/// Hands every sample of a payload to `each`, in the order it was packed in.
pub fn unpack(payload: &[u8], mut each: impl FnMut(Point)) -> Result<(), Unreadable> {
    let (header, mut rest) = payload.split_first_chunk::<2>().ok_or(Unreadable::Damaged)?;
    let [version, flags] = *header;
    // A flag that is unknown here stands for a column that must not be passed over.
    if version != VERSION || flags & !FLAG_STARTS != 0 {
        return Err(Unreadable::Version(version));
    }
    let count = varint::take(&mut rest)
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(Unreadable::Damaged)?;
    let (base, rest) = rest.split_first_chunk::<8>().ok_or(Unreadable::Damaged)?;
    let base_ms = i64::from_be_bytes(*base);
    let id_bytes = count.checked_mul(16).ok_or(Unreadable::Damaged)?;
    let (ids, mut times) = rest.split_at_checked(id_bytes).ok_or(Unreadable::Damaged)?;
    let mut values = times;
    for _ in 0..count {
        varint::take(&mut values).ok_or(Unreadable::Damaged)?;
    }
    let (mut values, mut starts) = values.split_at_checked(count * 8).ok_or(Unreadable::Damaged)?;
    let (ids, _) = ids.as_chunks::<16>();
    for id in ids {
        let offset = varint::take(&mut times).ok_or(Unreadable::Damaged)?;
        let timestamp_ms = base_ms.wrapping_add(offset.cast_signed());
        let (bits, after) = values.split_first_chunk::<8>().ok_or(Unreadable::Damaged)?;
        values = after;
        let start_ms =
            if flags & FLAG_STARTS == 0 { None } else { take_start(&mut starts, timestamp_ms)? };
        let value = f64::from_bits(u64::from_be_bytes(*bits));
        each(Point {
            series: SeriesId::from_bytes(*id),
            sample: Sample { timestamp_ms, value, start_ms },
        });
    }
    Ok(())
}

fn take_start(starts: &mut &[u8], timestamp_ms: i64) -> Result<Option<NonZeroI64>, Unreadable> {
    let coded = varint::take(starts).ok_or(Unreadable::Damaged)?;
    let distance = coded.checked_sub(1).map(varint::unzigzag);
    Ok(distance.and_then(|distance| NonZeroI64::new(timestamp_ms.wrapping_sub(distance))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_point() -> impl Strategy<Value = Point> {
        let times = prop_oneof![Just(1_700_000_000_000), 0..3_600_000i64, any::<i64>()];
        (any::<u128>(), times, any::<u64>(), prop::option::of(any::<i64>())).prop_map(
            |(id, timestamp_ms, bits, start)| Point {
                series: SeriesId(id),
                sample: Sample {
                    timestamp_ms,
                    value: f64::from_bits(bits),
                    start_ms: start.and_then(NonZeroI64::new),
                },
            },
        )
    }

    fn unpacked(payload: &[u8]) -> Result<Vec<Point>, Unreadable> {
        let mut points = Vec::new();
        unpack(payload, |point| points.push(point)).map(|()| points)
    }

    proptest! {
        #[test]
        fn every_bit_reads_back(points in prop::collection::vec(any_point(), 0..50)) {
            let payload = pack(&points);
            prop_assert_eq!(unpacked(&payload).unwrap(), points);
            for end in 0..payload.len() {
                prop_assert!(unpacked(&payload[..end]).is_err());
            }
        }

        #[test]
        fn damage_never_panics(mut payload in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(unpacked(&payload));
            if let Some(version) = payload.first_mut() {
                *version = VERSION;
            }
            drop(unpacked(&payload));
        }
    }

    #[test]
    fn a_newer_format_says_so() {
        assert_eq!(unpacked(&[2, 0, 0]), Err(Unreadable::Version(2)));
    }

    #[test]
    fn the_bytes_are_pinned() {
        let sample = Sample { timestamp_ms: 1_000, value: 1.5, start_ms: NonZeroI64::new(900) };
        let packed = pack(&[Point { series: SeriesId(7), sample }]);
        let bytes = format!("{packed:02x?}").replace(", ", "");
        assert_eq!(
            bytes,
            "[01010100000000000003e800000000000000000000000000000007003ff8000000000000c901]"
        );
    }
}
