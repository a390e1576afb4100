//! The ledger's rows as lines, JSON or text, in the words of Kanyun's column families: a family is
//! a table, `column1` the device, `column2` the minute in unix seconds. Pure.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::ledger::{Family, Row};
use crate::meter::Waits;
use crate::model::instant;
use crate::report::Amount;

/// One line. The begin comes first, the end last: without it, the rest is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What was asked for.
    Begin(Begin),
    /// A row.
    Row(Entry),
    /// What is not in the ledger.
    End(End),
}

/// What was asked for; times in UTC as ISO 8601.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Whose rows; `None` where nobody by that name has any.
    pub guest: Option<String>,
    /// Begin of the range.
    pub from: String,
    /// End of the range.
    pub to: String,
    /// From when on the ledger is kept.
    pub kept_from: String,
}

/// A minute of one device of a family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The family, which was a table.
    pub family: String,
    /// The device, the address, or `total`.
    pub column1: String,
    /// The minute's begin, ISO 8601.
    pub minute: String,
    /// The minute's begin in unix seconds.
    pub column2: i64,
    /// In the family's unit.
    #[serde(serialize_with = "amount")]
    pub value: f64,
    /// The unit.
    pub unit: String,
    /// Samples that it was made of.
    pub samples: u32,
    /// How often the counter began anew.
    pub resets: u32,
    /// What is special about it, as `GET /api/v1/usage` names it.
    pub flags: Vec<String>,
}

/// What is not in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Hours of the range, oldest first.
    pub missing: Vec<Missing>,
}

/// Hours that the ledger does not hold, or not as they will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Their begin.
    pub from: String,
    /// Their end.
    pub to: String,
    /// Why.
    pub why: Waits,
}

impl Entry {
    pub(super) fn new(family: Family, row: &Row) -> Entry {
        let flags = [
            (row.flags.gap, "gap"),
            (row.flags.dip, "dip"),
            (row.flags.column, "source_changed"),
            (row.flags.overlap, "hosts_overlap"),
        ];
        let flags = flags.into_iter().filter(|(set, _)| *set);
        Entry {
            family: family.name().to_owned(),
            column1: row.column.clone(),
            minute: instant::format(row.minute_ms),
            column2: row.minute_ms.div_euclid(1000),
            value: row.value,
            unit: family.unit().to_owned(),
            samples: row.samples,
            resets: row.resets,
            flags: flags.map(|(_, name)| name.to_owned()).collect(),
        }
    }
}

/// Whole numbers without a fraction.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn amount<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Amount::of(*value).serialize(serializer)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Begin(begin) => write!(f, "{begin}"),
            Line::Row(entry) => write!(f, "{entry}"),
            Line::End(end) => write!(f, "{end}"),
        }
    }
}

impl fmt::Display for Begin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Begin { guest, from, to, kept_from } = self;
        let Some(guest) = guest else {
            return writeln!(
                f,
                "no guest of this name has minutes from {from} to {to}; the ledger is kept from {kept_from}"
            );
        };
        writeln!(f, "key {guest}, from {from} to {to}; the ledger is kept from {kept_from}\n")?;
        writeln!(
            f,
            "{:<12}  {:<15}  {:<20}  {:>10}  {:>16} {:<7}  {:>7}  {:>6}  flags",
            "family", "column1", "minute", "column2", "value", "unit", "samples", "resets"
        )
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { family, column1, minute, column2, unit, samples, resets, .. } = self;
        let value = match Amount::of(self.value) {
            Amount::Whole(whole) => whole.to_string(),
            Amount::Real(real) => real.to_string(),
        };
        let flags = if self.flags.is_empty() { "-".to_owned() } else { self.flags.join(",") };
        writeln!(
            f,
            "{family:<12}  {column1:<15}  {minute:<20}  {column2:>10}  {value:>16} {unit:<7}  {samples:>7}  {resets:>6}  {flags}"
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.missing.is_empty() {
            writeln!(f, "\nnot in the ledger yet, and billed from samples until then:")?;
        }
        self.missing.iter().try_for_each(|missing| {
            let why = match missing.why {
                Waits::Unsealed => "not sealed yet",
                Waits::Late => "something came late, and these hours are counted again",
            };
            writeln!(f, "{} to {}  {why}", missing.from, missing.to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Flags;

    fn lines() -> Vec<Line> {
        let row = |value, resets, flags| Row {
            column: "tap1".to_owned(),
            minute_ms: 1_793_534_400_000,
            value,
            samples: 4,
            resets,
            flags,
        };
        let all = Flags { gap: true, dip: true, column: true, overlap: true };
        let missing = |why| Missing { from: "a".to_owned(), to: "b".to_owned(), why };
        vec![
            Line::Begin(Begin {
                guest: Some("u1".to_owned()),
                from: "2026-11-01T00:00:00Z".to_owned(),
                to: "2026-11-02T00:00:00Z".to_owned(),
                kept_from: "2021-11-03T00:00:00Z".to_owned(),
            }),
            Line::Row(Entry::new(Family::NicOutgoing, &row(621_737.0, 0, Flags::default()))),
            Line::Row(Entry::new(Family::Cpu, &row(12.5, 2, all))),
            Line::End(End { missing: vec![missing(Waits::Late), missing(Waits::Unsealed)] }),
        ]
    }

    #[test]
    fn text_to_read() {
        let text: String = lines().iter().map(Line::to_string).collect();
        let expected = "\
key u1, from 2026-11-01T00:00:00Z to 2026-11-02T00:00:00Z; the ledger is kept from 2021-11-03T00:00:00Z

family        column1          minute                   column2             value unit     samples  resets  flags
nic_outgoing  tap1             2026-11-01T12:00:00Z  1793534400            621737 bytes          4       0  -
cpu           tap1             2026-11-01T12:00:00Z  1793534400              12.5 percent        4       2  gap,dip,source_changed,hosts_overlap

not in the ledger yet, and billed from samples until then:
a to b  something came late, and these hours are counted again
a to b  not sealed yet
";
        assert_eq!(text, expected);
    }

    #[test]
    fn nobody_and_nothing_missing() {
        let begin = Begin {
            guest: None,
            from: "a".to_owned(),
            to: "b".to_owned(),
            kept_from: "c".to_owned(),
        };
        let expected = "no guest of this name has minutes from a to b; the ledger is kept from c\n";
        assert_eq!(Line::Begin(begin).to_string(), expected);
        assert_eq!(Line::End(End::default()).to_string(), "");
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for line in lines() {
            let text = serde_json::to_string(&line).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
        let text = serde_json::to_string(&lines()[1]).unwrap();
        assert!(text.contains(r#""value":621737,"#), "{text}");
    }
}
