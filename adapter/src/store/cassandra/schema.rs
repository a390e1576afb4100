//! The tables in CQL that Cassandra and ScyllaDB share: one description that makes the statements
//! which create them and that a cluster's own schema is compared with. `docs/storage.md` shows
//! the result. Knows no rows.

use std::fmt::Write;
use std::time::Duration;

/// The longest time to live that CQL takes: 20 years.
pub(super) const TTL_SECONDS_MAX: i64 = 20 * 365 * 86_400;
/// Head rows outlive the retention by a day, so that an hour is whole until it is asked for no more.
pub(super) const HEAD_EXTRA_DAYS: i64 = 1;
/// Index rows outlive the last sample of their week by a day.
pub(super) const INDEX_EXTRA_DAYS: i64 = 8;
/// Chunks, markers and late rows are kept by the first hour of their window, which has at most 24.
pub(super) const WINDOW_EXTRA_DAYS: i64 = 2;
/// The list of what came late outlives the head rows that it leads to by a day.
pub(super) const LISTED_EXTRA_DAYS: i64 = 1;
/// Rows of the ledger outlive their retention by a day.
pub(super) const LEDGER_EXTRA_DAYS: i64 = 1;
/// The lists of guests outlive the last hour of their month by a day.
pub(super) const GUESTS_EXTRA_DAYS: i64 = 29;
/// Expired and deleted rows stay on disk for so long: as long as hints are kept by default. Only late
/// rows are deleted, and one that comes back costs another seal of its window.
const GC_GRACE_SECONDS: u32 = 10_800;
/// Time windows over a table's life. ScyllaDB refuses more than 50.
const WINDOWS: i64 = 30;

/// A table of ours.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    columns: &'static [(Role, &'static str, &'static str)],
    life: Life,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Partition,
    Clustering,
    Value,
}

/// How long rows of a table live.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// As long as rows of the head are kept after their arrival, and so many days.
    Head(i64),
    /// For the retention and so many days.
    Days(i64),
    /// For the ledger's retention and so many days.
    LedgerDays(i64),
    /// Until they are deleted, and no longer than the retention and so many days.
    Deleted(i64),
    /// For a minute or two, as their own time to live says.
    Passing,
    /// For ever; there are a handful of them.
    Always,
}

use Role::{Clustering, Partition, Value};

/// How long what is stored is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Samples and their index.
    pub(super) samples: Duration,
    /// Rows of the ledger.
    pub(super) ledger: Duration,
    /// Rows of the head, after their arrival.
    pub(super) head: Duration,
}

/// What bills are counted from; the column families show the same minutes.
pub(super) const LEDGER: &str = "ledger";

/// Kanyun's column families, each a table.
pub(super) const FAMILIES: [&str; 8] = [
    "cpu",
    "mem_max",
    "mem_free",
    "nic_incoming",
    "nic_outgoing",
    "blk_read",
    "blk_write",
    "vmnetwork",
];

const fn family(name: &'static str) -> Table {
    Table {
        name,
        columns: &[
            (Partition, "key", "text"),
            (Partition, "day", "int"),
            (Clustering, "column1", "text"),
            (Clustering, "column2", "bigint"),
            (Value, "value", "text"),
            (Value, "resets", "int"),
            (Value, "flags", "int"),
            (Value, "samples", "int"),
        ],
        life: Life::LedgerDays(LEDGER_EXTRA_DAYS),
    }
}

/// All tables.
pub(super) const TABLES: [Table; 25] = [
    Table {
        name: "head",
        columns: &[
            (Partition, "group_id", "bigint"),
            (Partition, "hour", "int"),
            (Clustering, "first_ms", "bigint"),
            (Clustering, "hash", "bigint"),
            (Value, "samples", "blob"),
        ],
        life: Life::Head(0),
    },
    Table {
        name: "series",
        columns: &[
            (Partition, "week", "int"),
            (Partition, "group_id", "bigint"),
            (Clustering, "series", "blob"),
            (Value, "labels", "blob"),
        ],
        life: Life::Days(INDEX_EXTRA_DAYS),
    },
    Table {
        name: "metric_series",
        columns: &[
            (Partition, "week", "int"),
            (Partition, "metric", "text"),
            (Partition, "shard", "smallint"),
            (Clustering, "series", "blob"),
            (Value, "group_id", "bigint"),
        ],
        life: Life::Days(INDEX_EXTRA_DAYS),
    },
    Table {
        name: "postings",
        columns: &[
            (Partition, "week", "int"),
            (Partition, "metric", "text"),
            (Partition, "label", "text"),
            (Partition, "shard", "smallint"),
            (Clustering, "value", "text"),
            (Clustering, "series", "blob"),
            (Value, "group_id", "bigint"),
        ],
        life: Life::Days(INDEX_EXTRA_DAYS),
    },
    Table {
        name: "metrics",
        columns: &[(Partition, "week", "int"), (Clustering, "metric", "text")],
        life: Life::Days(INDEX_EXTRA_DAYS),
    },
    Table {
        name: "row_keys",
        columns: &[
            (Partition, "week", "int"),
            (Partition, "shard", "smallint"),
            (Clustering, "row_key", "text"),
            (Clustering, "group_id", "bigint"),
        ],
        life: Life::Days(INDEX_EXTRA_DAYS),
    },
    Table {
        name: "chunks",
        columns: &[
            (Partition, "group_id", "bigint"),
            (Partition, "week", "int"),
            (Clustering, "series", "blob"),
            (Clustering, "window", "int"),
            (Clustering, "hash", "bigint"),
            (Value, "samples", "blob"),
        ],
        life: Life::Days(WINDOW_EXTRA_DAYS),
    },
    Table {
        name: "markers",
        columns: &[
            (Partition, "group_id", "bigint"),
            (Partition, "month", "int"),
            (Clustering, "sealed_window", "int"),
        ],
        life: Life::Days(WINDOW_EXTRA_DAYS),
    },
    Table {
        name: "late",
        columns: &[
            (Partition, "group_id", "bigint"),
            (Partition, "week", "int"),
            (Clustering, "window", "int"),
            (Clustering, "arrived_ms", "bigint"),
            (Clustering, "hash", "bigint"),
        ],
        life: Life::Deleted(WINDOW_EXTRA_DAYS),
    },
    Table {
        name: "late_windows",
        columns: &[
            (Partition, "shard", "smallint"),
            (Partition, "hour", "int"),
            (Clustering, "group_id", "bigint"),
            (Clustering, "window", "int"),
        ],
        life: Life::Head(LISTED_EXTRA_DAYS),
    },
    Table {
        name: LEDGER,
        columns: &[
            (Partition, "family", "text"),
            (Partition, "guest", "text"),
            (Partition, "week", "int"),
            (Clustering, "hour", "int"),
            (Value, "minutes", "blob"),
        ],
        life: Life::LedgerDays(LEDGER_EXTRA_DAYS),
    },
    family(FAMILIES[0]),
    family(FAMILIES[1]),
    family(FAMILIES[2]),
    family(FAMILIES[3]),
    family(FAMILIES[4]),
    family(FAMILIES[5]),
    family(FAMILIES[6]),
    family(FAMILIES[7]),
    Table {
        name: "guests",
        columns: &[
            (Partition, "family", "text"),
            (Partition, "month", "int"),
            (Partition, "shard", "smallint"),
            (Clustering, "guest", "text"),
        ],
        life: Life::LedgerDays(GUESTS_EXTRA_DAYS),
    },
    Table {
        name: "sealing",
        columns: &[
            (Partition, "part", "int"),
            (Clustering, "shard", "smallint"),
            (Value, "sealed_until", "int"),
        ],
        life: Life::Always,
    },
    Table {
        name: "leases",
        columns: &[(Partition, "shard", "smallint"), (Value, "sealer", "text")],
        life: Life::Always,
    },
    Table {
        name: "sealers",
        columns: &[
            (Partition, "part", "int"),
            (Clustering, "sealer", "text"),
            (Value, "datacenter", "text"),
            (Value, "retention", "bigint"),
            (Value, "ledger_retention", "bigint"),
        ],
        life: Life::Passing,
    },
    Table {
        name: "turns",
        columns: &[(Partition, "part", "int"), (Value, "turn", "bigint")],
        life: Life::Always,
    },
    Table {
        name: "layout",
        columns: &[
            (Partition, "part", "int"),
            (Clustering, "from_week", "int"),
            (Value, "settings", "text"),
        ],
        life: Life::Always,
    },
];

/// The columns of a table of ours, its key first.
pub(super) fn columns(table: &str) -> Vec<&'static str> {
    let of_table = TABLES.iter().filter(|one| one.name == table);
    of_table.flat_map(|one| one.columns.iter().map(|(_, column, _)| *column)).collect()
}

/// A column as a cluster describes it in `system_schema.columns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) table: String,
    pub(super) column: String,
    /// `partition_key`, `clustering`, `regular` or `static`.
    pub(super) kind: String,
    /// Its place in the key; -1 outside it.
    pub(super) position: i32,
    pub(super) cql_type: String,
    /// `asc`, `desc` or, outside the clustering key, `none`.
    pub(super) order: String,
}

/// A keyspace name as CQL takes it: quoted, so that `DATA` and `data` differ. An error says what
/// is wrong with it.
pub(super) fn quoted(keyspace: &str) -> Result<String, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if keyspace.is_empty() || keyspace.len() > 48 || !keyspace.chars().all(is_word) {
        return Err(format!(
            "--cassandra.keyspace={keyspace} is no name for a keyspace; use 1 to 48 letters, \
             digits and underscores"
        ));
    }
    Ok(format!("\"{keyspace}\""))
}

impl Table {
    /// The statement that creates the table in a (quoted) keyspace unless it is there.
    pub(super) fn create(&self, keyspace: &str, kept: Kept) -> String {
        let mut cql = format!("CREATE TABLE IF NOT EXISTS {keyspace}.{} (\n", self.name);
        for (_, column, cql_type) in self.columns {
            // Writing to a String cannot fail.
            writeln!(cql, "  {column} {cql_type},").ok();
        }
        let key = |role| {
            let of_role = self.columns.iter().filter(move |(of, ..)| *of == role);
            of_role.map(|(_, column, _)| *column).collect::<Vec<_>>()
        };
        let mut primary = vec![format!("({})", key(Partition).join(", "))];
        primary.extend(key(Clustering).into_iter().map(str::to_owned));
        write!(cql, "  PRIMARY KEY ({})\n)", primary.join(", ")).ok();
        cql + &self.life.options(kept)
    }

    /// What differs from the table that a cluster has, in words; empty where nothing does.
    /// Columns of later releases do no harm.
    pub(super) fn difference(&self, found: &[Found]) -> Vec<String> {
        let of_table: Vec<&Found> = found.iter().filter(|one| one.table == self.name).collect();
        if of_table.is_empty() {
            return vec![format!("table {} is missing", self.name)];
        }
        let mut places = [0, 0];
        let mut differences = Vec::new();
        for (role, column, cql_type) in self.columns {
            let (kind, position) = match role {
                Partition => ("partition_key", next(&mut places[0])),
                Clustering => ("clustering", next(&mut places[1])),
                Value => ("regular", -1),
            };
            let name = format!("{}.{column}", self.name);
            match of_table.iter().find(|one| one.column == *column) {
                None => differences.push(format!("column {name} is missing")),
                Some(one) if one.cql_type != *cql_type => differences
                    .push(format!("column {name} has type {} instead of {cql_type}", one.cql_type)),
                Some(one) if one.kind != kind || one.position != position => differences
                    .push(format!("column {name} is not where it should be in the primary key")),
                // Pages go on behind the last row before them.
                Some(one) if *role == Clustering && one.order != "asc" => {
                    differences.push(format!("column {name} is not in ascending order"));
                }
                Some(_) => {}
            }
        }
        differences
    }
}

impl Life {
    /// The end of a statement that creates a table.
    fn options(self, kept: Kept) -> String {
        let days = match self {
            Life::Head(extra) => days(kept.head) + extra,
            Life::Days(extra) | Life::Deleted(extra) => days(kept.samples) + extra,
            Life::LedgerDays(extra) => days(kept.ledger) + extra,
            // Each process that starts leaves one, and a read passes over them until this time is over.
            Life::Passing => return format!(" WITH gc_grace_seconds = {GC_GRACE_SECONDS}"),
            Life::Always => return String::new(),
        };
        let (ttl, window) = (days * 86_400, (days + WINDOWS - 1) / WINDOWS);
        let compaction = match self {
            Life::Deleted(_) => "'class': 'LeveledCompactionStrategy'".to_owned(),
            _ => format!(
                "'class': 'TimeWindowCompactionStrategy', \
                 'compaction_window_unit': 'DAYS', 'compaction_window_size': {window}"
            ),
        };
        format!(
            " WITH default_time_to_live = {ttl}\n  AND gc_grace_seconds = {GC_GRACE_SECONDS}\n  \
             AND compaction = {{{compaction}}}"
        )
    }
}

fn next(place: &mut i32) -> i32 {
    *place += 1;
    *place - 1
}

/// Whole days, rounded up.
fn days(retention: Duration) -> i64 {
    i64::try_from(retention.as_secs().div_ceil(86_400)).unwrap_or(i64::MAX / 86_400 / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept {
        samples: Duration::from_hours(400 * 24),
        ledger: Duration::from_hours(1825 * 24),
        head: Duration::from_hours(7 * 24),
    };

    /// The table as a cluster would describe it.
    fn described(table: &Table) -> Vec<Found> {
        let mut places = [0, 0];
        let columns = table.columns.iter().map(|(role, column, cql_type)| {
            let (kind, position) = match role {
                Partition => ("partition_key", next(&mut places[0])),
                Clustering => ("clustering", next(&mut places[1])),
                Value => ("regular", -1),
            };
            let (kind, cql_type) = (kind.to_owned(), (*cql_type).to_owned());
            let (table, column) = (table.name.to_owned(), (*column).to_owned());
            let order = if *role == Clustering { "asc" } else { "none" }.to_owned();
            Found { table, column, kind, position, cql_type, order }
        });
        columns.collect()
    }

    #[test]
    fn the_documentation_shows_the_statements() {
        let document = include_str!("../../../../docs/storage.md");
        for table in &TABLES {
            let statement = table.create("\"DATA\"", KEPT) + ";";
            // The column families are alike: the first is shown, and it says so of the others.
            let of_family = format!("\"DATA\".{} (", table.name);
            let statement = match FAMILIES.iter().position(|family| *family == table.name) {
                Some(1..) => {
                    assert!(document.contains(&format!("`{}`", table.name)), "{}", table.name);
                    statement.replacen(&of_family, "\"DATA\".cpu (", 1)
                }
                _ => statement,
            };
            let statement = statement.replace("IF NOT EXISTS ", "");
            assert!(document.contains(&statement), "docs/storage.md lacks\n{statement}");
        }
    }

    #[test]
    fn windows_are_few_and_times_to_live_within_bounds() {
        for days in [9, 30, 400, 7271] {
            let retention = Duration::from_secs(days * 86_400);
            for table in &TABLES {
                let kept = Kept { samples: retention, ledger: retention, head: retention };
                let statement = table.create("\"k\"", kept);
                let number = |after: &str| -> Option<i64> {
                    let (_, rest) = statement.split_once(after)?;
                    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
                };
                let Some(ttl) = number("default_time_to_live = ") else { continue };
                assert!(ttl <= TTL_SECONDS_MAX);
                let Some(window) = number("'compaction_window_size': ") else {
                    assert_eq!(table.name, "late", "{statement}");
                    continue;
                };
                assert!(ttl / (window * 86_400) <= 50, "{statement}");
            }
        }
    }

    #[test]
    fn differences_are_named() {
        let head = &TABLES[0];
        assert_eq!(head.difference(&described(&TABLES[1])), ["table head is missing"]);
        let found = described(head);
        assert!(head.difference(&found).is_empty());
        let without: Vec<Found> =
            found.iter().filter(|one| one.column != "samples").cloned().collect();
        assert_eq!(head.difference(&without), ["column head.samples is missing"]);
        let mut other = found.clone();
        other[1].cql_type = "bigint".to_owned();
        other[2].kind = "regular".to_owned();
        assert_eq!(
            head.difference(&other),
            [
                "column head.hour has type bigint instead of int",
                "column head.first_ms is not where it should be in the primary key"
            ]
        );
        let mut turned = found.clone();
        turned[2].order = "desc".to_owned();
        assert_eq!(head.difference(&turned), ["column head.first_ms is not in ascending order"]);
    }

    #[test]
    fn keyspaces_are_quoted_or_refused() {
        assert_eq!(quoted("DATA").unwrap(), "\"DATA\"");
        for bad in ["", "a\"b", "a b", "ü", &"k".repeat(49)] {
            assert!(quoted(bad).unwrap_err().contains("--cassandra.keyspace"));
        }
    }
}
