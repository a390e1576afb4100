//! One column of whole numbers: their least, what divides all of them less that, and the
//! quotients, which pco packs in the narrowest type that holds them. The only room of `pco`.

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

use super::{SAMPLES_MAX, Unreadable, take_byte};
use crate::model::varint;

const EQUAL: u8 = 0;
const VARINTS: u8 = 1;
const PACKED_16: u8 = 2;
const PACKED_32: u8 = 3;
const PACKED_64: u8 = 4;

/// Up to so many numbers may be shorter as varints than with what pco notes beside them.
const VARINTS_MAX: usize = 64;
/// pco's own format, which a version of chunks includes: a library that writes a newer one needs
/// a newer version here.
const PCO_FORMAT: [u8; 2] = [4, 1];
/// Measured on guests' samples: below it they take more bytes, above it only more time.
const LEVEL: usize = 6;
/// How many numbers pco gives at once.
const BATCH: usize = pco::FULL_BATCH_N;

/// Appends a column of `numbers`; how many they are must be known to whoever reads it.
///
/// A byte for how they are packed, their least (zig-zag, LEB128); and, unless all are equal, what
/// divides the others less the least (LEB128), then the quotients.
pub(super) fn push(numbers: &[i64], bytes: &mut Vec<u8>) {
    let least = numbers.iter().copied().min().unwrap_or(0);
    let offsets = numbers.iter().map(|number| number.wrapping_sub(least).cast_unsigned());
    let divisor = offsets.clone().fold(0, common_divisor);
    if divisor == 0 {
        bytes.push(EQUAL);
        varint::push(varint::zigzag(least), bytes);
        return;
    }
    let quotients: Vec<u64> =
        if divisor == 1 { offsets.collect() } else { offsets.map(|n| n / divisor).collect() };
    let greatest = quotients.iter().copied().max().unwrap_or(0);
    let tag_at = bytes.len();
    bytes.push(VARINTS);
    varint::push(varint::zigzag(least), bytes);
    varint::push(divisor, bytes);
    let body_at = bytes.len();
    let packed = if greatest <= u16::MAX.into() {
        pack(&narrowed::<u16>(&quotients), bytes).then_some(PACKED_16)
    } else if greatest <= u32::MAX.into() {
        pack(&narrowed::<u32>(&quotients), bytes).then_some(PACKED_32)
    } else {
        pack(&quotients, bytes).then_some(PACKED_64)
    };
    let shorter = quotients.len() <= VARINTS_MAX && {
        let length: usize = quotients.iter().map(|number| varint_length(*number)).sum();
        length <= bytes.len() - body_at
    };
    if let (Some(tag), false) = (packed, shorter) {
        if let Some(place) = bytes.get_mut(tag_at) {
            *place = tag;
        }
        return;
    }
    bytes.truncate(body_at);
    for number in quotients {
        varint::push(number, bytes);
    }
}

/// Hands the `count` numbers of a column to `each`, in order.
pub(super) fn take(
    rest: &mut &[u8],
    count: usize,
    mut each: impl FnMut(i64),
) -> Result<(), Unreadable> {
    let tag = take_byte(rest)?;
    let least = varint::take(rest).map(varint::unzigzag).ok_or(Unreadable::Damaged)?;
    if tag == EQUAL {
        (0..count).for_each(|_| each(least));
        return Ok(());
    }
    let divisor = varint::take(rest).ok_or(Unreadable::Damaged)?;
    let mut whole =
        |quotient: u64| each(least.wrapping_add(quotient.wrapping_mul(divisor).cast_signed()));
    match tag {
        VARINTS => {
            for _ in 0..count {
                whole(varint::take(rest).ok_or(Unreadable::Damaged)?);
            }
            Ok(())
        }
        PACKED_16 => unpack::<u16>(rest, count, |number| whole(number.into())),
        PACKED_32 => unpack::<u32>(rest, count, |number| whole(number.into())),
        PACKED_64 => unpack::<u64>(rest, count, whole),
        _ => Err(Unreadable::Damaged),
    }
}

/// The numbers in a type that holds the greatest of them.
fn narrowed<N: TryFrom<u64>>(quotients: &[u64]) -> Vec<N> {
    quotients.iter().filter_map(|number| N::try_from(*number).ok()).collect()
}

/// Appends what pco makes of the numbers; says whether it could.
fn pack<N: Number>(numbers: &[N], bytes: &mut Vec<u8>) -> bool {
    // The deltas are taken already, and a mode other than the classic one could let a damaged
    // chunk claim memory when it is read.
    let config = ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(DeltaSpec::NoOp)
        .with_paging_spec(PagingSpec::EqualPagesUpTo(SAMPLES_MAX));
    let packed =
        FileCompressor::default().chunk_compressor(numbers, &config).and_then(|mut packer| {
            packer.write_meta(&mut *bytes)?;
            packer.write_page(0, &mut *bytes).map(|_| ())
        });
    packed.is_ok()
}

fn unpack<N: Number>(
    rest: &mut &[u8],
    count: usize,
    mut each: impl FnMut(N),
) -> Result<(), Unreadable> {
    // Mode and delta encoding, both 0: others claim memory for dictionaries and windows.
    if rest.first() != Some(&0) {
        return Err(Unreadable::Damaged);
    }
    let damaged = |_| Unreadable::Damaged;
    let (file, _) = FileDecompressor::new(PCO_FORMAT.as_slice()).map_err(damaged)?;
    let (mut chunk, after) = file.chunk_decompressor::<N, _>(*rest).map_err(damaged)?;
    let mut page = chunk.page_decompressor(after, count).map_err(damaged)?;
    let mut numbers = [N::default(); BATCH];
    let mut left = count;
    while left > 0 {
        let n_read = page.read(&mut numbers).map_err(damaged)?.n_processed;
        if n_read == 0 || n_read > left {
            return Err(Unreadable::Damaged);
        }
        left -= n_read;
        numbers.iter().take(n_read).for_each(|number| each(*number));
    }
    *rest = page.into_src();
    Ok(())
}

/// The greatest number that divides both; 0 is divided by every number.
fn common_divisor(mut left: u64, mut right: u64) -> u64 {
    while left != 0 {
        if left == 1 {
            return 1;
        }
        (left, right) = (right % left, left);
    }
    right
}

fn varint_length(number: u64) -> usize {
    (70 - (number | 1).leading_zeros() as usize) / 7
}
