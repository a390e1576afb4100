//! A guest's minutes as a page, JSON or CSV: what a biller reads to check a bill.
//! Pure: rows in, bytes out.

use serde::Serialize;

use crate::ledger::guest::Guest;
use crate::ledger::{Family, MINUTE_MS, Row};
use crate::model::instant;
use crate::report::Amount;
use crate::usage::Minutes;

/// The form of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One object: the guest, the range, since when samples are kept, whether all is settled, and the
    /// rows.
    Json,
    /// One line a row below a line of names.
    Csv,
}

/// A page under way: what is appended to it comes out as bytes.
#[derive(Debug)]
pub struct Page {
    form: Form,
    settled_until_ms: i64,
    rows: usize,
}

/// What a page is about.
#[derive(Debug)]
pub struct Title<'p> {
    /// Whose minutes; `None` where nobody by that name has any.
    pub guest: Option<&'p Guest>,
    /// The range that was asked for.
    pub minutes: Minutes,
    /// From when on samples are kept; unix milliseconds.
    pub kept_from_ms: i64,
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a line of a page: each is a column of its own")]
struct Line<'r> {
    start: String,
    end: String,
    metric: &'static str,
    device: &'r str,
    value: Amount,
    unit: &'static str,
    samples: u32,
    resets: u32,
    gap: bool,
    dip: bool,
    source_changed: bool,
    hosts_overlap: bool,
    settled: bool,
}

/// The names of a CSV page's columns: the fields of a line.
const COLUMNS: [&str; 13] = [
    "start",
    "end",
    "metric",
    "device",
    "value",
    "unit",
    "samples",
    "resets",
    "gap",
    "dip",
    "source_changed",
    "hosts_overlap",
    "settled",
];

impl Page {
    /// A page in this form; minutes that end by `settled_until_ms` are settled.
    pub fn new(form: Form, settled_until_ms: i64) -> Page {
        Page { form, settled_until_ms, rows: 0 }
    }

    /// The begin of the page.
    pub fn begin(&self, title: &Title<'_>) -> Result<Vec<u8>, std::io::Error> {
        if self.form == Form::Csv {
            return csv_line(&COLUMNS);
        }
        let guest = title.guest.map(Guest::to_string);
        let head = serde_json::json!({
            "guest": guest,
            "from": instant::format(title.minutes.from_ms),
            "to": instant::format(title.minutes.to_ms),
            "kept_from": instant::format(title.kept_from_ms),
            "settled": title.minutes.to_ms <= self.settled_until_ms,
        });
        let mut text = head.to_string();
        // The object stays open for the rows.
        text.pop();
        text.push_str(",\"rows\":[");
        Ok(text.into_bytes())
    }

    /// Rows of one family.
    pub fn rows(&mut self, family: Family, rows: &[Row]) -> Result<Vec<u8>, std::io::Error> {
        let mut bytes = Vec::new();
        for row in rows {
            let line = self.line(family, row);
            if self.form == Form::Csv {
                bytes.extend(csv_line(&line)?);
            } else {
                bytes.extend_from_slice(if self.rows == 0 { b"\n" } else { b",\n" });
                serde_json::to_writer(&mut bytes, &line)?;
            }
            self.rows += 1;
        }
        Ok(bytes)
    }

    fn line<'r>(&self, family: Family, row: &'r Row) -> Line<'r> {
        let end_ms = row.minute_ms + MINUTE_MS;
        Line {
            start: instant::format(row.minute_ms),
            end: instant::format(end_ms),
            metric: family.name(),
            device: &row.column,
            value: Amount::of(row.value),
            unit: family.unit(),
            samples: row.samples,
            resets: row.resets,
            gap: row.flags.gap,
            dip: row.flags.dip,
            source_changed: row.flags.column,
            hosts_overlap: row.flags.overlap,
            settled: end_ms <= self.settled_until_ms,
        }
    }

    /// The end of the page.
    pub fn end(&self) -> Vec<u8> {
        match self.form {
            Form::Csv => Vec::new(),
            Form::Json => b"\n]}\n".to_vec(),
        }
    }
}

fn csv_line(line: &impl Serialize) -> Result<Vec<u8>, std::io::Error> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.serialize(line)?;
    writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Flags;

    fn page(form: Form) -> String {
        let mut page = Page::new(form, 120_000);
        let guest = Guest::Uuid("u".to_owned());
        let title = Title {
            guest: Some(&guest),
            minutes: Minutes { from_ms: 0, to_ms: 180_000 },
            kept_from_ms: -86_400_000,
        };
        let row = |minute_ms, value, flags| Row {
            column: "a,\"b".to_owned(),
            minute_ms,
            value,
            samples: 4,
            resets: 1,
            flags,
        };
        let mut bytes = page.begin(&title).unwrap();
        let gap = Flags { gap: true, ..Flags::default() };
        bytes.extend(page.rows(Family::BlkRead, &[row(60_000, 800.0, gap)]).unwrap());
        bytes.extend(page.rows(Family::Cpu, &[row(120_000, 12.5, Flags::default())]).unwrap());
        bytes.extend(page.end());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn csv_can_be_read_by_a_spreadsheet() {
        let text = page(Form::Csv);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], COLUMNS.join(","));
        let first = "1970-01-01T00:01:00Z,1970-01-01T00:02:00Z,blk_read,\"a,\"\"b\",800,bytes,4,1,\
            true,false,false,false,true";
        assert_eq!(lines[1], first);
        assert!(
            lines[2].ends_with("cpu,\"a,\"\"b\",12.5,percent,4,1,false,false,false,false,false")
        );
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn json_holds_the_same() {
        let text = page(Form::Json);
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["guest"], "u");
        assert_eq!(page["to"], "1970-01-01T00:03:00Z");
        assert_eq!(page["settled"], false);
        assert_eq!(page["kept_from"], "1969-12-31T00:00:00Z");
        let rows = page["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for column in COLUMNS {
            assert!(rows.iter().all(|row| row.get(column).is_some()), "{column}");
        }
        assert_eq!(rows[0]["value"].to_string(), "800");
        assert_eq!(rows[0]["settled"], true);
        assert_eq!(rows[1]["settled"], false);
        let empty = Page::new(Form::Json, 0);
        let title =
            Title { guest: None, minutes: Minutes { from_ms: 0, to_ms: 0 }, kept_from_ms: 0 };
        let text = [empty.begin(&title).unwrap(), empty.end()].concat();
        let page: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(page["rows"], serde_json::json!([]));
    }
}
