//! The values of a chunk's samples as whole numbers: decimals with a few places are whole numbers
//! of their last place, and libvirt's nanoseconds and bytes are such; other floats by their bits.
//! What is neither, as a stale marker, is noted beside them.

use super::{Unreadable, column, take_byte, take_count};
use crate::model::sample::Sample;
use crate::model::varint;

/// One value: its bits follow.
const EQUAL: u8 = 0;
/// Decimals: the exponent is in the upper half of the byte.
const DECIMALS: u8 = 1;
/// Bits of floats, in an order that follows their values.
const FLOATS: u8 = 2;
const KIND: u8 = 0b11;
/// The numbers are the first one and the distances from each to the next.
const DISTANCES: u8 = 0b100;

const POWERS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Far within what i64 holds, so that distances do not overflow.
const DECIMAL_MAX: f64 = 4e18;

/// A value that is no decimal, and where it is.
struct Exception {
    /// Samples since the last exception.
    after: usize,
    bits: u64,
}

struct Decimals {
    exponent: u8,
    numbers: Vec<i64>,
    exceptions: Vec<Exception>,
}

/// Appends the values.
pub(super) fn push(samples: &[Sample], bytes: &mut Vec<u8>) {
    let first = samples.first().map_or(0, |sample| sample.value.to_bits());
    if samples.iter().all(|sample| sample.value.to_bits() == first) {
        bytes.push(EQUAL);
        bytes.extend_from_slice(&first.to_be_bytes());
    } else if let Some(Decimals { exponent, numbers, exceptions }) = decimals(samples) {
        let distances = distances_are_shorter(&numbers);
        bytes.push(DECIMALS | if distances { DISTANCES } else { 0 } | exponent << 4);
        varint::push(exceptions.len() as u64, bytes);
        for Exception { after, bits } in exceptions {
            varint::push(after as u64, bytes);
            bytes.extend_from_slice(&bits.to_be_bytes());
        }
        push_numbers(&numbers, distances, bytes);
    } else {
        let numbers: Vec<i64> =
            samples.iter().map(|sample| ordered(sample.value.to_bits().cast_signed())).collect();
        let distances = distances_are_shorter(&numbers);
        bytes.push(FLOATS | if distances { DISTANCES } else { 0 });
        push_numbers(&numbers, distances, bytes);
    }
}

/// Fills in the values of the samples.
pub(super) fn take(rest: &mut &[u8], samples: &mut [Sample]) -> Result<(), Unreadable> {
    let kind = take_byte(rest)?;
    let distances = kind & DISTANCES != 0;
    match kind & KIND {
        EQUAL if kind == EQUAL => {
            let value = f64::from_bits(take_bits(rest)?);
            for sample in samples {
                sample.value = value;
            }
            Ok(())
        }
        DECIMALS => {
            let power = POWERS.get(usize::from(kind >> 4)).ok_or(Unreadable::Damaged)?;
            let n_exceptions = take_count(rest)?;
            let mut exceptions = Vec::new();
            for _ in 0..n_exceptions {
                let after = take_count(rest)?;
                exceptions.push(Exception { after, bits: take_bits(rest)? });
            }
            take_numbers(rest, distances, samples, |number| value(number, *power))?;
            let mut place = 0usize;
            for Exception { after, bits } in exceptions {
                place = place.checked_add(after).ok_or(Unreadable::Damaged)?;
                samples.get_mut(place).ok_or(Unreadable::Damaged)?.value = f64::from_bits(bits);
                place += 1;
            }
            Ok(())
        }
        FLOATS if kind >> 4 == 0 => take_numbers(rest, distances, samples, |number| {
            f64::from_bits(ordered(number).cast_unsigned())
        }),
        _ => Err(Unreadable::Damaged),
    }
}

fn push_numbers(numbers: &[i64], distances: bool, bytes: &mut Vec<u8>) {
    if !distances {
        return column::push(numbers, bytes);
    }
    varint::push(varint::zigzag(numbers.first().copied().unwrap_or(0)), bytes);
    let distances: Vec<i64> = steps(numbers).collect();
    column::push(&distances, bytes);
}

fn take_numbers(
    rest: &mut &[u8],
    distances: bool,
    samples: &mut [Sample],
    value: impl Fn(i64) -> f64,
) -> Result<(), Unreadable> {
    let mut places = samples.iter_mut();
    let mut count = places.len();
    let mut number = 0i64;
    if distances {
        number = varint::take(rest).map(varint::unzigzag).ok_or(Unreadable::Damaged)?;
        places.next().ok_or(Unreadable::Damaged)?.value = value(number);
        count -= 1;
    }
    column::take(rest, count, |taken| {
        number = if distances { number.wrapping_add(taken) } else { taken };
        if let Some(sample) = places.next() {
            sample.value = value(number);
        }
    })
}

/// The values as whole numbers of one power of ten; `None` where too many are none.
fn decimals(samples: &[Sample]) -> Option<Decimals> {
    let exceptions_max = samples.len() / 16 + 1;
    let mut exponent = 0u8;
    let mut n_exceptions = 0;
    for sample in samples {
        match POWERS
            .iter()
            .skip(exponent.into())
            .position(|power| decimal(sample.value, *power).is_some())
        {
            Some(more) => exponent += u8::try_from(more).ok()?,
            None => n_exceptions += 1,
        }
        if n_exceptions > exceptions_max {
            return None;
        }
    }
    let power = *POWERS.get(usize::from(exponent))?;
    let mut found =
        Decimals { exponent, numbers: Vec::with_capacity(samples.len()), exceptions: Vec::new() };
    let (mut after, mut last) = (0, 0);
    for sample in samples {
        if let Some(number) = decimal(sample.value, power) {
            last = number;
            after += 1;
        } else {
            found.exceptions.push(Exception { after, bits: sample.value.to_bits() });
            // A large number among those that need many places can be an exception, too.
            if found.exceptions.len() > exceptions_max {
                return None;
            }
            after = 0;
        }
        // Costs least where it is like its neighbours.
        found.numbers.push(last);
    }
    Some(found)
}

/// The whole number that gives this very float when it is divided by the power.
fn decimal(float: f64, power: f64) -> Option<i64> {
    let scaled = float * power;
    if scaled.is_nan() || scaled.abs() > DECIMAL_MAX {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "judged in the line below")]
    let number = (scaled + 0.5f64.copysign(scaled)) as i64;
    (value(number, power).to_bits() == float.to_bits()).then_some(number)
}

#[expect(clippy::cast_precision_loss, reason = "who encodes compares with the float it was")]
fn value(number: i64, power: f64) -> f64 {
    number as f64 / power
}

/// Bits of floats so that their order is the floats' order, and back: it is its own inverse.
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

fn steps(numbers: &[i64]) -> impl Iterator<Item = i64> + '_ {
    numbers.iter().zip(numbers.iter().skip(1)).map(|(one, next)| next.wrapping_sub(*one))
}

/// Judged by how many bits each number has above the least, and each distance by itself.
fn distances_are_shorter(numbers: &[i64]) -> bool {
    let bits = |number: u64| u64::from(u64::BITS - number.leading_zeros());
    let least = numbers.iter().copied().min().unwrap_or(0);
    let plain: u64 =
        numbers.iter().map(|number| bits(number.wrapping_sub(least).cast_unsigned())).sum();
    let distances: u64 = steps(numbers).map(|step| bits(varint::zigzag(step))).sum();
    distances < plain
}

fn take_bits(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    let (bits, after) = rest.split_first_chunk::<8>().ok_or(Unreadable::Damaged)?;
    *rest = after;
    Ok(u64::from_be_bytes(*bits))
}
