//! How rows become keys of fjall: numbers big-endian, so that keys sort as rows do, and texts
//! escaped and ended, so that no text runs into its neighbour. `docs/storage.md` draws them.

use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Day, Hour};
use crate::store::StoreError;

/// The tables of the keyspaces for the index, for chunks and for the ledger, by the first byte of a
/// key.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Table {
    Chunks = b'c',
    LedgerGuests = b'g',
    RowKeys = b'k',
    MetricSeries = b'm',
    Markers = b'z',
    Metrics = b'n',
    Postings = b'p',
    Ledger = b'r',
    Series = b's',
}

/// What usually follows a text in its key: the end of the text, a series and a group.
const KEY_END_BYTES: usize = 32;

/// A key under construction, or the prefix of some.
#[derive(Clone, Debug, Default)]
pub(super) struct Key(pub(super) Vec<u8>);

impl Key {
    pub(super) fn of_table(table: Table) -> Key {
        Key(vec![table as u8])
    }

    pub(super) fn group(mut self, group: Group) -> Key {
        self.0.extend_from_slice(&group.0.to_be_bytes());
        self
    }

    pub(super) fn series(mut self, series: SeriesId) -> Key {
        self.0.extend_from_slice(&series.to_bytes());
        self
    }

    pub(super) fn hour(mut self, hour: Hour) -> Key {
        self.0.extend_from_slice(&sortable(hour.0).to_be_bytes());
        self
    }

    pub(super) fn day(mut self, day: Day) -> Key {
        self.0.extend_from_slice(&sortable(day.0).to_be_bytes());
        self
    }

    pub(super) fn millisecond(mut self, unix_ms: i64) -> Key {
        self.0.extend_from_slice(&(unix_ms.cast_unsigned() ^ (1 << 63)).to_be_bytes());
        self
    }

    pub(super) fn hash(mut self, hash: u64) -> Key {
        self.0.extend_from_slice(&hash.to_be_bytes());
        self
    }

    /// A zero byte becomes 0x00 0xff, and 0x00 0x00 ends the text: shorter texts sort first.
    pub(super) fn text(mut self, text: &str) -> Key {
        self.0.reserve(text.len() + KEY_END_BYTES);
        for (place, part) in text.split('\0').enumerate() {
            if place > 0 {
                self.0.extend_from_slice(&[0, 0xff]);
            }
            self.0.extend_from_slice(part.as_bytes());
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }
}

// Flips the sign bit, so that negative numbers sort before positive ones.
fn sortable(number: i32) -> u32 {
    number.cast_unsigned() ^ (1 << 31)
}

/// Reads a key back, part by part; an error means damage on disk.
#[derive(Debug)]
pub(super) struct KeyReader<'a> {
    rest: &'a [u8],
    table: &'static str,
}

impl<'a> KeyReader<'a> {
    pub(super) fn new(key: &'a [u8], table: &'static str) -> KeyReader<'a> {
        KeyReader { rest: key, table }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (part, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*part)
    }

    pub(super) fn tag(&mut self) -> Result<(), StoreError> {
        self.take::<1>().map(|_| ())
    }

    pub(super) fn group(&mut self) -> Result<Group, StoreError> {
        self.take().map(|bytes| Group(u64::from_be_bytes(bytes)))
    }

    pub(super) fn series(&mut self) -> Result<SeriesId, StoreError> {
        self.take().map(SeriesId::from_bytes)
    }

    pub(super) fn hour(&mut self) -> Result<Hour, StoreError> {
        self.take().map(|bytes| Hour((u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed()))
    }

    pub(super) fn millisecond(&mut self) -> Result<i64, StoreError> {
        self.take().map(|bytes| (u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
    }

    pub(super) fn hash(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(super) fn day(&mut self) -> Result<Day, StoreError> {
        self.take().map(|bytes| Day((u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed()))
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        let mut text = Vec::new();
        loop {
            match self.rest {
                [0, 0, rest @ ..] => {
                    self.rest = rest;
                    return String::from_utf8(text).map_err(|_| self.damaged());
                }
                [0, 0xff, rest @ ..] => {
                    text.push(0);
                    self.rest = rest;
                }
                [0, ..] | [] => return Err(self.damaged()),
                [byte, rest @ ..] => {
                    text.push(*byte);
                    self.rest = rest;
                }
            }
        }
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged(format!(
            "a key of table {} on disk cannot be read; restore the data folder from a backup",
            self.table
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_as_their_parts(a in ("[\\x00-\\x02a]{0,4}", any::<i32>()), b in ("[\\x00-\\x02a]{0,4}", any::<i32>())) {
            let key = |(text, day): &(String, i32)| Key::default().text(text).day(Day(*day)).0;
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn keys_read_back(text in ".{0,20}", day in any::<i32>(), id in any::<u128>(), group in any::<u64>()) {
            let key = Key::of_table(Table::Series).text(&text).day(Day(day)).series(SeriesId(id)).group(Group(group));
            let mut reader = KeyReader::new(&key.0, "series");
            reader.tag().unwrap();
            prop_assert_eq!(reader.text().unwrap(), text);
            prop_assert_eq!(reader.day().unwrap(), Day(day));
            prop_assert_eq!(reader.series().unwrap(), SeriesId(id));
            prop_assert_eq!(reader.group().unwrap(), Group(group));
            prop_assert!(reader.group().is_err());
        }

        #[test]
        fn damage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = KeyReader::new(&bytes, "series");
            while reader.text().is_ok() {}
            let left = reader.rest.len();
            prop_assert_eq!(reader.series().is_ok(), left >= 16);
        }
    }
}
