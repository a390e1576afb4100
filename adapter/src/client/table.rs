//! Rows with named columns as a table to read, as CSV or as JSON. Pure but for writing.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::answer::text;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns to read
    Table,
    /// Lines for a spreadsheet
    Csv,
    /// A list of objects
    Json,
}

/// Rows, each as long as there are columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: &'static [&'static str],
    pub(super) rows: Vec<Vec<Value>>,
}

impl Table {
    /// Writes it. Nothing at all is a line of names, or an empty list.
    pub(super) fn write(&self, out: &mut impl Write, format: Format) -> io::Result<()> {
        match format {
            Format::Table => self.write_aligned(out),
            Format::Csv => {
                let mut lines = csv::Writer::from_writer(out);
                lines.write_record(self.columns)?;
                for row in &self.rows {
                    lines.write_record(row.iter().map(text))?;
                }
                lines.flush()
            }
            Format::Json => {
                let rows = self.rows.iter().map(|row| {
                    let pairs = self.columns.iter().zip(row);
                    pairs.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
                });
                let rows: Vec<Map<String, Value>> = rows.collect();
                serde_json::to_writer_pretty(&mut *out, &rows)?;
                writeln!(out)
            }
        }
    }

    fn write_aligned(&self, out: &mut impl Write) -> io::Result<()> {
        let names = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let lines: Vec<Vec<String>> = std::iter::once(names)
            .chain(self.rows.iter().map(|row| row.iter().map(text).collect()))
            .collect();
        let mut widths = vec![0; self.columns.len()];
        for line in &lines {
            for (width, word) in widths.iter_mut().zip(line) {
                *width = word.chars().count().max(*width);
            }
        }
        for line in &lines {
            let words = line.iter().zip(&widths).map(|(word, width)| format!("{word:<width$}"));
            writeln!(out, "{}", words.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(format: Format) -> String {
        let rows = vec![vec![json!("a,b"), json!(7)], vec![json!("c"), json!(0.5)]];
        let mut out = Vec::new();
        Table { columns: &["id", "value"], rows }.write(&mut out, format).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn three_forms_of_the_same() {
        assert_eq!(written(Format::Table), "id   value\na,b  7\nc    0.5\n");
        assert_eq!(written(Format::Csv), "id,value\n\"a,b\",7\nc,0.5\n");
        let json: Value = serde_json::from_str(&written(Format::Json)).unwrap();
        assert_eq!(json, json!([{"id": "a,b", "value": 7}, {"id": "c", "value": 0.5}]));
    }
}
