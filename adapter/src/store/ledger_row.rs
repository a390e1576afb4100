//! An hour of a guest's family as one value, in both stores: its columns, their minutes packed.
//! Reads back every bit; damage is an error, never a panic. `docs/storage.md` draws the bytes.

use crate::model::varint;
use crate::store::StoreError;
use crate::store::rows::{LedgerColumn, LedgerMinute};

const VERSION: u8 = 1;

// What a column's kind byte says.
/// Values are whole numbers, as differences.
const WHOLE: u8 = 1;
/// Some minute has resets or flags.
const REMARKED: u8 = 2;
/// All minutes were made of as many samples.
const EVEN: u8 = 4;

/// Whole numbers below this are exact in a double (ledger.md, "A minute's value", rule 4).
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Version byte, number of columns as LEB128; then for each column: its name after its length, a
/// bit a minute (8 bytes big-endian, minute 0 the lowest), a kind byte, and by column: values
/// (whole: zig-zag LEB128 of the difference to the one before; else 8 bytes big-endian), samples
/// (LEB128; one for all where even), and where remarked, resets (LEB128) and flags (a byte).
pub(super) fn pack(columns: &[LedgerColumn]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    varint::push(columns.len() as u64, &mut bytes);
    for column in columns {
        varint::push(column.name.len() as u64, &mut bytes);
        bytes.extend_from_slice(column.name.as_bytes());
        let minutes = &column.minutes;
        let bits = minutes.iter().fold(0_u64, |bits, minute| bits | 1 << (minute.minute & 63));
        bytes.extend_from_slice(&bits.to_be_bytes());
        let kind = kind(minutes);
        bytes.push(kind);
        pack_values(kind, minutes, &mut bytes);
        let counts = if kind & EVEN != 0 { minutes.get(..1).unwrap_or_default() } else { minutes };
        for minute in counts {
            varint::push(u64::from(minute.samples), &mut bytes);
        }
        if kind & REMARKED != 0 {
            for minute in minutes {
                varint::push(u64::from(minute.resets), &mut bytes);
                bytes.push(minute.flags);
            }
        }
    }
    bytes
}

fn kind(minutes: &[LedgerMinute]) -> u8 {
    let mut kind = 0;
    if minutes.iter().all(|minute| whole(minute.value).is_some()) {
        kind |= WHOLE;
    }
    if minutes.iter().any(|minute| minute.resets != 0 || minute.flags != 0) {
        kind |= REMARKED;
    }
    if minutes.windows(2).all(|pair| matches!(pair, [a, b] if a.samples == b.samples)) {
        kind |= EVEN;
    }
    kind
}

fn pack_values(kind: u8, minutes: &[LedgerMinute], bytes: &mut Vec<u8>) {
    let mut before = 0;
    for minute in minutes {
        match whole(minute.value).filter(|_| kind & WHOLE != 0) {
            Some(value) => {
                varint::push(varint::zigzag(value - before), bytes);
                before = value;
            }
            None => bytes.extend_from_slice(&minute.value.to_bits().to_be_bytes()),
        }
    }
}

/// The value as a whole number that reads back to the same bits.
fn whole(value: f64) -> Option<i64> {
    let is_whole = value.abs() < EXACT_MAX && value.fract() == 0.0;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
    let whole = value as i64;
    (is_whole && (whole != 0 || value.is_sign_positive())).then_some(whole)
}

/// The columns of such a value.
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<LedgerColumn>, StoreError> {
    let (version, mut rest) = bytes.split_first().ok_or_else(damaged)?;
    if *version != VERSION {
        return Err(StoreError::Damaged(format!(
            "a row of the ledger has format {version}, which this release cannot read; use the release that wrote it"
        )));
    }
    read_columns(&mut rest).ok_or_else(damaged)
}

fn damaged() -> StoreError {
    StoreError::Damaged(
        "a row of the ledger is damaged; restore the store from a backup".to_owned(),
    )
}

fn read_columns(rest: &mut &[u8]) -> Option<Vec<LedgerColumn>> {
    let count = varint::take(rest)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(varint::take(rest)?).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        *rest = after;
        let name = String::from_utf8(name.to_vec()).ok()?;
        let bits = u64::from_be_bytes(take(rest)?);
        let [kind] = take(rest)?;
        columns.push(LedgerColumn { name, minutes: read_minutes(kind, bits, rest)? });
    }
    rest.is_empty().then_some(columns)
}

fn read_minutes(kind: u8, bits: u64, rest: &mut &[u8]) -> Option<Vec<LedgerMinute>> {
    if kind & !(WHOLE | REMARKED | EVEN) != 0 {
        return None;
    }
    let mut minutes = Vec::with_capacity(bits.count_ones() as usize);
    let mut before = 0_i64;
    for minute in (0..60_u8).filter(|minute| bits >> minute & 1 == 1) {
        let value = if kind & WHOLE != 0 {
            before = before.checked_add(varint::unzigzag(varint::take(rest)?))?;
            #[expect(clippy::cast_precision_loss, reason = "written from a double below 2^53")]
            let value = before as f64;
            value
        } else {
            f64::from_bits(u64::from_be_bytes(take(rest)?))
        };
        minutes.push(LedgerMinute { minute, value, samples: 0, resets: 0, flags: 0 });
    }
    let mut samples = 0;
    for (place, minute) in minutes.iter_mut().enumerate() {
        if place == 0 || kind & EVEN == 0 {
            samples = u32::try_from(varint::take(rest)?).ok()?;
        }
        minute.samples = samples;
    }
    if kind & REMARKED != 0 {
        for minute in &mut minutes {
            minute.resets = u32::try_from(varint::take(rest)?).ok()?;
            [minute.flags] = take(rest)?;
        }
    }
    Some(minutes)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (part, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_minute() -> impl Strategy<Value = LedgerMinute> {
        let value = prop_oneof![
            Just(0.0),
            Just(-0.0),
            (0..1_000_000u32).prop_map(f64::from),
            Just(EXACT_MAX - 1.0),
            Just(EXACT_MAX),
            any::<f64>(),
        ];
        let remark = prop_oneof![Just((0, 0)), (any::<u32>(), any::<u8>())];
        (0..60u8, value, 0..5u32, remark).prop_map(|(minute, value, samples, (resets, flags))| {
            LedgerMinute { minute, value, samples, resets, flags }
        })
    }

    fn any_column() -> impl Strategy<Value = LedgerColumn> {
        (".{0,8}", prop::collection::vec(any_minute(), 0..60)).prop_map(|(name, mut minutes)| {
            minutes.sort_by_key(|minute| minute.minute);
            minutes.dedup_by_key(|minute| minute.minute);
            LedgerColumn { name, minutes }
        })
    }

    fn text(columns: &[LedgerColumn]) -> String {
        // Debug tells -0.0 from 0.0, and NaN is NaN.
        format!("{columns:?}")
    }

    proptest! {
        #[test]
        fn every_bit_reads_back(columns in prop::collection::vec(any_column(), 0..4)) {
            let bytes = pack(&columns);
            prop_assert_eq!(text(&unpack(&bytes).unwrap()), text(&columns));
            for end in 0..bytes.len() {
                prop_assert!(unpack(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn damage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(unpack(&bytes));
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            drop(unpack(&bytes));
        }
    }

    #[test]
    fn the_bytes_are_pinned() {
        let minute =
            |minute, value, flags| LedgerMinute { minute, value, samples: 4, resets: 0, flags };
        let column = LedgerColumn {
            name: "vda".to_owned(),
            minutes: vec![minute(0, 4096.0, 0), minute(2, 4095.0, 1)],
        };
        let hex = format!("{:02x?}", pack(&[column])).replace(", ", "");
        assert_eq!(hex, "[0101037664610000000000000005078040010400000001]");
    }
}
