//! A status as a page of text. Pure.

use std::fmt;
use std::time::Duration;

use super::{Disk, Kept, Sealing, Status, TableSize, Unreadable};

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store     {}; kanyun-adapter {}, at {}", self.store, self.version, self.at)?;
        let writes = self.trouble.as_deref().map(|why| format!("refused: {why}"));
        writeln!(f, "writes    {}", writes.as_deref().unwrap_or("taken"))?;
        writeln!(f, "samples   {}", self.samples)?;
        writeln!(f, "ledger    {}", self.ledger)?;
        write!(f, "{}", self.sealing)?;
        self.unreadable.iter().try_for_each(|part| write!(f, "{part}"))?;
        match &self.disk {
            Some(disk) => write!(f, "{disk}"),
            None if self.store.starts_with("cassandra") => {
                writeln!(f, "disk      not known here; a cluster's nodes know theirs")
            }
            None => writeln!(f, "disk      not known"),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "unread    {}: {}", self.part, self.why)
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.retention_seconds / 86_400;
        write!(f, "kept for {days} days, by their own time: from {}", self.from)
    }
}

impl fmt::Display for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grace = seconds(self.grace_seconds);
        if let (Some(from), Some(window), Some(lag)) =
            (&self.unsealed_from, self.window_seconds, self.lag_seconds)
        {
            let window = seconds(u64::try_from(window).unwrap_or(0));
            writeln!(
                f,
                "sealed    until {from}; windows of {window} are due {grace} after their end"
            )?;
            match u64::try_from(lag) {
                Ok(lag) if lag > 0 => {
                    let lag = seconds(lag);
                    writeln!(f, "lag       the window from {from} has been due for {lag}")?;
                }
                _ => writeln!(f, "lag       none: no window is due")?,
            }
        } else {
            writeln!(f, "sealed    not known; windows are due {grace} after their end")?;
            writeln!(f, "lag       not known")?;
        }
        let read = self.late_windows_read;
        match (self.late_windows, &self.late_from) {
            (Some(late), Some(from)) => writeln!(
                f,
                "late      {late} windows of guests and targets wait to be sealed again, the oldest from {from}"
            ),
            (Some(_), None) => writeln!(f, "late      none: nothing waits to be sealed again"),
            (None, Some(from)) => writeln!(
                f,
                "late      at least {read} windows of guests and targets wait to be sealed again, one from {from}"
            ),
            (None, None) => writeln!(f, "late      not known, and none in what can be read"),
        }
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, reserve) = (bytes(self.free_bytes), bytes(self.reserve_bytes));
        writeln!(f, "disk      {} taken", bytes(self.bytes))?;
        writeln!(f, "free      {free}; writes are refused below {reserve}")?;
        writeln!(f, "\ntable    spans        size  sample time")?;
        self.tables.iter().try_for_each(|table| write!(f, "{table}"))
    }
}

impl fmt::Display for TableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans = match self.table.as_str() {
            "heads" | "index" | "chunks" | "ledger" => self.spans.to_string(),
            _ => "-".to_owned(),
        };
        write!(f, "{:<8} {spans:>5}  {:>10}  ", self.table, bytes(self.bytes))?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => writeln!(f, "{from} to {to}"),
            _ => writeln!(f, "-"),
        }
    }
}

/// Two units at most: who reads it wants the size of it.
fn seconds(seconds: u64) -> String {
    let round = match seconds {
        0..3_600 => seconds,
        3_600..86_400 => seconds / 60 * 60,
        _ => seconds / 3_600 * 3_600,
    };
    humantime::format_duration(Duration::from_secs(round)).to_string()
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["TiB", "GiB", "MiB", "KiB"];
    for (unit, bits) in UNITS.into_iter().zip([40, 30, 20, 10]) {
        if bytes >= 1 << bits {
            // In tenths, cut off: whole numbers are exact.
            let tenths = (u128::from(bytes) * 10) >> bits;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let table = |table: &str, spans, range: Option<(&str, &str)>, bytes| TableSize {
            table: table.to_owned(),
            spans,
            from: range.map(|(from, _)| from.to_owned()),
            to: range.map(|(_, to)| to.to_owned()),
            bytes,
        };
        Status {
            version: "0.1.0".to_owned(),
            store: "local, /data".to_owned(),
            at: "2026-01-01T06:00:30Z".to_owned(),
            trouble: None,
            samples: Kept {
                retention_seconds: 400 * 86_400,
                from: "2024-11-27T00:00:00Z".to_owned(),
            },
            ledger: Kept {
                retention_seconds: 1825 * 86_400,
                from: "2021-01-02T00:00:00Z".to_owned(),
            },
            sealing: Sealing {
                window_seconds: Some(7200),
                grace_seconds: 900,
                unsealed_from: Some("2026-01-01T04:00:00Z".to_owned()),
                lag_seconds: Some(0),
                late_windows: Some(0),
                late_windows_read: 0,
                late_from: None,
            },
            disk: Some(Disk {
                tables: vec![
                    table("heads", 2, Some(("2025-12-31", "2026-01-02")), 1_610_612_736),
                    table("chunks", 0, None, 0),
                    table("journal", 0, None, 1023),
                ],
                bytes: 1_610_613_759,
                free_bytes: 5 << 40,
                reserve_bytes: 1 << 30,
            }),
            unreadable: Vec::new(),
        }
    }

    #[test]
    fn a_store_that_is_well() {
        let expected = "\
store     local, /data; kanyun-adapter 0.1.0, at 2026-01-01T06:00:30Z
writes    taken
samples   kept for 400 days, by their own time: from 2024-11-27T00:00:00Z
ledger    kept for 1825 days, by their own time: from 2021-01-02T00:00:00Z
sealed    until 2026-01-01T04:00:00Z; windows of 2h are due 15m after their end
lag       none: no window is due
late      none: nothing waits to be sealed again
disk      1.5 GiB taken
free      5.0 TiB; writes are refused below 1.0 GiB

table    spans        size  sample time
heads        2     1.5 GiB  2025-12-31 to 2026-01-02
chunks       0         0 B  -
journal      -      1023 B  -
";
        assert_eq!(status().to_string(), expected);
    }

    #[test]
    fn trouble_lag_late_windows_and_a_store_without_a_disk() {
        let mut status = status();
        status.trouble = Some("the disk is full".to_owned());
        status.sealing.lag_seconds = Some(2 * 86_400 + 3_700);
        status.sealing.late_windows = Some(7);
        status.sealing.late_from = Some("2025-12-30T02:00:00Z".to_owned());
        status.disk = None;
        let text = status.to_string();
        for line in [
            "writes    refused: the disk is full",
            "lag       the window from 2026-01-01T04:00:00Z has been due for 2days 1h",
            "late      7 windows of guests and targets wait to be sealed again, the oldest from 2025-12-30T02:00:00Z",
            "disk      not known",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        status.store = "cassandra, keyspace DATA".to_owned();
        assert!(
            status
                .to_string()
                .ends_with("disk      not known here; a cluster's nodes know theirs\n")
        );
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_guessed() {
        let mut status = status();
        let sealing = &mut status.sealing;
        (sealing.window_seconds, sealing.unsealed_from, sealing.lag_seconds) = (None, None, None);
        (sealing.late_windows, sealing.late_windows_read) = (None, 3);
        sealing.late_from = Some("2025-12-30T02:00:00Z".to_owned());
        let part = "what came late to shard 3, 5".to_owned();
        status.unreadable = vec![Unreadable { part, why: "the node said no".to_owned() }];
        let text = status.to_string();
        for line in [
            "sealed    not known; windows are due 15m after their end",
            "lag       not known",
            "late      at least 3 windows of guests and targets wait to be sealed again, one from 2025-12-30T02:00:00Z",
            "unread    what came late to shard 3, 5: the node said no",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        (status.sealing.late_windows_read, status.sealing.late_from) = (0, None);
        let text = status.to_string();
        assert!(text.contains("late      not known, and none in what can be read"), "{text}");
        let sent = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&sent).unwrap(), status);
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let text = serde_json::to_string(&status()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
    }
}
