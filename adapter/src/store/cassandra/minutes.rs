//! An hour of the ledger as rows of a minute, as Kanyun's column families show them, and back.
//! Pure; knows no driver and no rule of the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::time::{Day, HOUR_MS, Hour};
use crate::store::StoreError;
use crate::store::rows::{LedgerColumn, LedgerMinute, LedgerRow};

/// key, day, column1, column2 (the minute's unix second), value, resets, flags, samples; then the
/// time to live and the turn.
pub(super) type MinuteValues = (Arc<str>, i32, Arc<str>, i64, String, i32, i32, i32, i32, i64);
/// column1, column2, value, resets, flags, samples.
pub(super) type FoundMinute = (String, i64, String, i32, i32, i32);

const MINUTE_SECONDS: i64 = 60;
const HOUR_SECONDS: i64 = HOUR_MS / 1000;
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

/// Hours put together from minutes that come in any order of hours, but within a column sorted by
/// time. Minutes without a value are left out, and so are columns and hours without any.
#[derive(Debug, Default)]
pub(super) struct Hours {
    hours: BTreeMap<Hour, BTreeMap<String, Vec<LedgerMinute>>>,
}

impl Hours {
    /// Adds a row of `table` if it is of these hours, both included.
    pub(super) fn add(
        &mut self,
        table: &str,
        hours: (Hour, Hour),
        found: FoundMinute,
    ) -> Result<(), StoreError> {
        let (column1, column2, value, resets, flags, samples) = found;
        let hour = Hour::of(column2.saturating_mul(1000));
        if value.is_empty() || hour < hours.0 || hour > hours.1 {
            return Ok(());
        }
        let damaged = |what: &str| {
            StoreError::Damaged(format!(
                "the row of {table} with column1 {column1:?} and column2 {column2} has {what}; \
                 correct or delete it"
            ))
        };
        let minute = column2.rem_euclid(HOUR_SECONDS) / MINUTE_SECONDS;
        let minute = LedgerMinute {
            // Below 60.
            minute: u8::try_from(minute).unwrap_or(0),
            value: value.parse().map_err(|_| damaged("a value that is no number"))?,
            samples: samples.cast_unsigned(),
            resets: resets.cast_unsigned(),
            flags: u8::try_from(flags)
                .map_err(|_| damaged("flags that are not of this release"))?,
        };
        self.hours.entry(hour).or_default().entry(column1).or_default().push(minute);
        Ok(())
    }

    /// How many hours there are.
    pub(super) fn len(&self) -> usize {
        self.hours.len()
    }

    /// The rows of one family and guest, sorted by hour.
    pub(super) fn rows(self, family: &str, guest: &str) -> Vec<LedgerRow> {
        let rows = self.hours.into_iter().map(|(hour, columns)| {
            let columns = columns.into_iter();
            let columns = columns.map(|(name, minutes)| LedgerColumn { name, minutes }).collect();
            LedgerRow { family: family.to_owned(), guest: guest.to_owned(), hour, columns }
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: (Hour, Hour) = (Hour(i32::MIN), Hour(i32::MAX));

    fn found(
        (_, _, column1, column2, value, resets, flags, samples, ..): MinuteValues,
    ) -> FoundMinute {
        (column1.to_string(), column2, value, resets, flags, samples)
    }

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

    #[test]
    fn what_an_operator_changed_is_read_or_named() {
        let add = |value: &str, flags| {
            let mut hours = Hours::default();
            let row = ("vda".to_owned(), 1_767_225_600, value.to_owned(), 0, flags, 0);
            hours.add("cpu", ALL, row).map(|()| hours.len())
        };
        assert_eq!(add("", 0).unwrap(), 0);
        assert_eq!(add("12.50", 255).unwrap(), 1);
        let error = add("many", 0).unwrap_err().to_string();
        assert!(error.contains("cpu") && error.contains("1767225600"), "{error}");
        assert!(add("1", 256).unwrap_err().to_string().contains("flags"));
    }

    proptest! {
        #[test]
        fn an_hour_reads_back_to_the_bit(
            hour in -600_000..600_000_i32,
            values in proptest::collection::btree_map(0..60_u8, any::<f64>(), 1..60),
        ) {
            let finite = values.into_iter().filter(|(_, value)| value.is_finite());
            let row = row(Hour(hour), finite.map(|(at, value)| minute(at, value)).collect());
            let mut written = Vec::new();
            write(&row, &"u".into(), (5, 9), &mut written);
            let mut hours = Hours::default();
            for values in written {
                hours.add("blk_read", ALL, found(values)).unwrap();
            }
            let bits = |row: &LedgerRow| -> Vec<(u8, u64)> {
                let minutes = row.columns.iter().flat_map(|column| &column.minutes);
                minutes.map(|minute| (minute.minute, minute.value.to_bits())).collect()
            };
            let read = hours.rows("blk_read", "u");
            prop_assert_eq!(read.iter().flat_map(bits).collect::<Vec<_>>(), bits(&row));
            prop_assert!(read.iter().all(|read| *read == row));
        }
    }
}
