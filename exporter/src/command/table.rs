//! Rows of text in columns, for a terminal. Knows nothing of what it shows.

use std::io::{self, Write};

/// A head and rows of as many cells.
#[derive(Clone, Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    /// Adds a row. What a tenant chose (names) must not move the terminal's cursor.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let clean =
            |cell: String| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// Writes all rows, each column as wide as its widest cell.
    pub(super) fn print(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            for (idx, cell) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(idx) {
                    Some(widest) => *widest = width.max(*widest),
                    None => widths.push(width),
                }
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
