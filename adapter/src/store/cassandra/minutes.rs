//! An hour of the ledger as rows of a minute, as Kanyun's column families show them.
//! Pure; knows no driver and no rule of the ledger.

use std::sync::Arc;

use crate::model::time::Day;
use crate::store::rows::LedgerRow;

/// key, day, column1, column2 (the minute's unix second), value, resets, flags, samples; then the
/// time to live and the turn.
pub(super) type MinuteValues = (Arc<str>, i32, Arc<str>, i64, String, i32, i32, i32, i32, i64);

const MINUTE_SECONDS: i64 = 60;
/// A number of more characters is written with an exponent. None that is an amount of anything is
/// as long.
const PLAIN_CHARS_MAX: usize = 24;

/// All sixty minutes of every column of an hour: those without a value have an empty one, in place
/// of what may be there.
pub(super) fn write(
    row: &LedgerRow,
    key: &Arc<str>,
    (ttl, turn): (i32, i64),
    values: &mut Vec<MinuteValues>,
) {
    let day = Day::of(row.hour.start_ms()).0;
    let start = row.hour.start_ms() / 1000;
    for column in &row.columns {
        let name: Arc<str> = column.name.as_str().into();
        let mut minutes = column.minutes.iter().peekable();
        for number in 0..60_u8 {
            let minute = minutes.next_if(|minute| minute.minute == number);
            let column2 = start + i64::from(number) * MINUTE_SECONDS;
            let value = minute.map_or_else(String::new, |minute| text(minute.value));
            let (resets, flags, samples) = minute.map_or((0, 0, 0), |minute| {
                (minute.resets.cast_signed(), minute.flags.into(), minute.samples.cast_signed())
            });
            let (key, name) = (Arc::clone(key), Arc::clone(&name));
            values.push((key, day, name, column2, value, resets, flags, samples, ttl, turn));
        }
    }
}

/// The shortest text that reads back the same, without an exponent where that is readable.
fn text(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= PLAIN_CHARS_MAX { plain } else { format!("{value:e}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::time::Hour;
    use crate::store::rows::{LedgerColumn, LedgerMinute};

    fn minute(minute: u8, value: f64) -> LedgerMinute {
        LedgerMinute { minute, value, samples: u32::MAX, resets: 7, flags: u8::MAX }
    }

    fn row(hour: Hour, minutes: Vec<LedgerMinute>) -> LedgerRow {
        let columns = vec![LedgerColumn { name: "vda".to_owned(), minutes }];
        LedgerRow { family: "blk_read".to_owned(), guest: "u".to_owned(), hour, columns }
    }

    #[test]
    fn values_are_readable() {
        for (value, expected) in [
            (0.0, "0"),
            (100.0, "100"),
            (130.48, "130.48"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-0.0, "-0"),
            (1e-300, "1e-300"),
            (1.5e300, "1.5e300"),
        ] {
            assert_eq!(text(value), expected);
        }
    }

    #[test]
    fn an_hour_is_written_whole() {
        let mut values = Vec::new();
        let hour = Hour(490_896);
        write(&row(hour, vec![minute(0, 1.0), minute(59, 2.0)]), &"u".into(), (5, 9), &mut values);
        assert_eq!(values.len(), 60);
        let texts: Vec<&str> = values.iter().map(|row| row.4.as_str()).collect();
        assert_eq!((texts[0], texts[59]), ("1", "2"));
        assert!(texts[1..59].iter().all(|text| text.is_empty()));
        assert_eq!(
            (values[0].1, values[0].3, values[59].3),
            (20_454, 1_767_225_600, 1_767_229_140)
        );
    }

    proptest! {
        #[test]
        fn an_hour_is_shown_to_the_bit(
            hour in -600_000..600_000_i32,
            values in proptest::collection::btree_map(0..60_u8, any::<f64>(), 1..60),
        ) {
            let finite = values.into_iter().filter(|(_, value)| value.is_finite());
            let row = row(Hour(hour), finite.map(|(at, value)| minute(at, value)).collect());
            let mut written = Vec::new();
            write(&row, &"u".into(), (5, 9), &mut written);
            let shown = written.iter().filter(|row| !row.4.is_empty()).map(|row| {
                let minute = (row.3 - i64::from(hour) * 3_600) / MINUTE_SECONDS;
                LedgerMinute {
                    minute: u8::try_from(minute).unwrap(),
                    value: row.4.parse().unwrap(),
                    samples: row.7.cast_unsigned(),
                    resets: row.5.cast_unsigned(),
                    flags: u8::try_from(row.6).unwrap(),
                }
            });
            let shown: Vec<LedgerMinute> = shown.collect();
            let bits = |minutes: &[LedgerMinute]| -> Vec<u64> {
                minutes.iter().map(|minute| minute.value.to_bits()).collect()
            };
            let minutes = &row.columns[0].minutes;
            prop_assert_eq!(bits(&shown), bits(minutes));
            prop_assert_eq!(&shown, minutes);
        }
    }
}
