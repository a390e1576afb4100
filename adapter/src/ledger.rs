//! The ledger: a guest's stored series as the minutes that Kanyun bills, by the rules of ledger.md.
//! Pure: rows depend on the samples that are handed in and on nothing else, not on the order of
//! their arrival. Knows the model only; who a guest is and where samples are kept, others know.

mod counter;
mod family;
pub mod guest;
mod history;
mod host;
pub mod owner;
pub mod past;
mod track;

use crate::model::labels::Labels;
use crate::model::sample::Sample;
use crate::model::time::{DAY_MS, HOUR_MS, Hour};
pub use family::{Family, NoFamily, TOTAL};
pub use history::{History, Sufficiency};

/// Milliseconds in a minute.
pub const MINUTE_MS: i64 = 60_000;

/// How far back the sample before a minute may lie (ledger.md, "A minute's value").
pub const PREDECESSOR_MS_MAX: i64 = 7 * DAY_MS;

/// How much of a counter's past is walked to find its mark (ledger.md, "A minute's value").
const MARK_MS: i64 = 10 * MINUTE_MS;

/// What an hour's rows can depend on, back from the hour's begin: the predecessor, the walk before
/// it, and whole hours, because it is hours that a source supplies.
pub const LOOKBACK_MS: i64 = PREDECESSOR_MS_MAX + 2 * HOUR_MS;

/// One stored series of a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels, the metric's name among them.
    pub labels: Labels,
    /// Sorted by time, one a timestamp.
    pub samples: Vec<Sample>,
    /// Whether its samples are counted for another guest ([`owner`]): of these hours nothing is
    /// counted here, and no counter counts across them.
    pub elsewhere: bool,
}

/// A minute of one device of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// column1: a device, an address, or [`TOTAL`].
    pub column: String,
    /// The minute's first unix millisecond.
    pub minute_ms: i64,
    /// In the family's unit; bytes are whole numbers.
    pub value: f64,
    /// Samples that it was made of.
    pub samples: u32,
    /// How often the counter began anew.
    pub resets: u32,
    /// What a biller should know of it.
    pub flags: Flags,
}

/// What is special about a row (ledger.md, "A minute's value").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts, each named in ledger.md"
)]
pub struct Flags {
    /// The sample before lies before the minute before, or there is none and what the counter had
    /// counted until then is not billed.
    pub gap: bool,
    /// The counter went back a little and was not taken at its word.
    pub dip: bool,
    /// Another source supplied an hour in between, and the first sample counted nothing.
    pub column: bool,
    /// Two hosts counted at the same time for over an hour without a known start time; both count.
    pub overlap: bool,
}

impl Flags {
    /// As they are stored: a bit each.
    pub fn bits(self) -> u8 {
        let bits = [self.gap, self.dip, self.column, self.overlap];
        bits.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag))
    }

    /// Stored flags; bits that are unknown here are left out.
    pub fn of_bits(bits: u8) -> Flags {
        Flags {
            gap: bits & 1 != 0,
            dip: bits & 2 != 0,
            column: bits & 4 != 0,
            overlap: bits & 8 != 0,
        }
    }

    /// Both rows' flags.
    #[must_use]
    pub fn or(self, other: Flags) -> Flags {
        Flags {
            gap: self.gap || other.gap,
            dip: self.dip || other.dip,
            column: self.column || other.column,
            overlap: self.overlap || other.overlap,
        }
    }
}

/// The rows of one hour of a guest, sorted by minute and column1. The series are those of this
/// guest, of any metric and time; what the rows depend on lies in [`LOOKBACK_MS`] before the hour
/// and in the hour itself.
pub fn rows_of_hour(series: &[Series], family: Family, hour: Hour) -> Vec<Row> {
    History::new(family, series).rows(hour)
}

/// The first millisecond of the minute that holds a time.
fn minute_of(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(MINUTE_MS) * MINUTE_MS
}

#[cfg(test)]
pub(crate) mod tests;
