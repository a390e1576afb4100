//! What of workers' messages was refused: counts by reason, and the first of each for the log.
//! Knows no metrics and no log.

use std::collections::BTreeMap;

/// Why something that a worker sent was not stored. Each value, record, guest or message that is
/// refused counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A message, guest or record that is not built as the contract says.
    Malformed,
    /// A record of something else than cpu, mem, nic and blk.
    UnknownRecord,
    /// A name that is missing, too long, has control characters, or is no address where one belongs.
    Name,
    /// A value that is no finite number.
    NotANumber,
    /// A value below zero.
    Negative,
    /// A value that is too large to be what it says: more than 100,000 percent, or an amount that
    /// cannot be written exactly.
    TooLarge,
    /// A time that is none.
    Time,
    /// A sample of an hour that is frozen or expired.
    TooOld,
    /// A sample too far ahead of our clock.
    Ahead,
    /// More guests, records or workers than we keep.
    TooMany,
    /// A message from an address that is not allowed.
    Source,
    /// A message of more bytes or frames than are taken; its connection is cut, and all of it is
    /// lost.
    Size,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 12] = [
        Reason::Malformed,
        Reason::UnknownRecord,
        Reason::Name,
        Reason::NotANumber,
        Reason::Negative,
        Reason::TooLarge,
        Reason::Time,
        Reason::TooOld,
        Reason::Ahead,
        Reason::TooMany,
        Reason::Source,
        Reason::Size,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::UnknownRecord => "unknown_record",
            Reason::Name => "name",
            Reason::NotANumber => "not_a_number",
            Reason::Negative => "negative",
            Reason::TooLarge => "too_large",
            Reason::Time => "time",
            Reason::TooOld => "too_old",
            Reason::Ahead => "ahead",
            Reason::TooMany => "too_many",
            Reason::Source => "source",
            Reason::Size => "size",
        }
    }
}

/// What was refused. Holds one text a reason, whatever comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Reason, (u64, String)>);

impl Refusals {
    /// Notes that `count` things were refused; `first` tells of them where they are the first.
    pub fn add(&mut self, reason: Reason, count: usize, first: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let refused = self.0.entry(reason).or_insert_with(|| (0, first()));
        refused.0 = refused.0.saturating_add(count as u64);
    }

    /// Adds what another noted, later than this one.
    pub fn merge(&mut self, later: Refusals) {
        for (reason, (count, first)) in later.0 {
            let refused = self.0.entry(reason).or_insert((0, first));
            refused.0 = refused.0.saturating_add(count);
        }
    }

    /// How many were refused, by reason.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.0.iter().map(|(reason, (count, _))| (*reason, *count))
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line for the log.
    pub fn text(&self) -> String {
        let parts = self
            .0
            .iter()
            .map(|(reason, (count, first))| format!("{count} {} (first: {first})", reason.name()));
        parts.collect::<Vec<_>>().join("; ")
    }
}
