//! What an operator wants to know of a store: what is kept, since when and how much of the disk
//! that takes, and how far behind sealing is. Knows no HTTP and no store.

mod page;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serve::clock::Clock;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::limits;
use crate::model::instant;
use crate::model::time::{TimeRange, Window};
use crate::query::QueryError;

/// The answer: times in UTC as ISO 8601, durations in seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The adapter's version.
    pub version: String,
    /// Which store, and where.
    pub store: String,
    /// When it was asked.
    pub at: String,
    /// Why it takes no writes; `None` where it takes them.
    pub trouble: Option<String>,
    /// Samples.
    pub samples: Kept,
    /// Billing's minutes.
    pub ledger: Kept,
    /// Sealing.
    pub sealing: Sealing,
    /// The disk; `None` where the store cannot tell.
    pub disk: Option<Disk>,
}

/// How long something is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The retention.
    pub retention_seconds: u64,
    /// What is older is not answered any more.
    pub from: String,
}

/// How far sealing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealing {
    /// Length of the oldest window that is not sealed.
    pub window_seconds: i64,
    /// How long after its end a window is due.
    pub grace_seconds: u64,
    /// Begin of the oldest window that is not sealed; windows before it are, late ones apart.
    pub unsealed_from: String,
    /// How long that window has been due; 0 where it is not due yet.
    pub lag_seconds: i64,
    /// Windows of groups that something came late to and that wait to be sealed again.
    pub late_windows: usize,
    /// Begin of the oldest of them.
    pub late_from: Option<String>,
}

/// The store's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// By table.
    pub tables: Vec<TableSize>,
    /// Of all tables.
    pub bytes: u64,
    /// Free on their file system.
    pub free_bytes: u64,
    /// Free bytes below which no writes are taken.
    pub reserve_bytes: u64,
}

/// One table's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSize {
    /// Its name.
    pub table: String,
    /// Days of arrival (heads), weeks (index) or months of 28 days (chunks, ledger).
    pub spans: usize,
    /// Begin of the sample time that its spans cover.
    pub from: Option<String>,
    /// Its end.
    pub to: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Answers an operator.
#[derive(Debug)]
pub struct Observer {
    engine: Arc<Engine>,
    clock: Clock,
    version: &'static str,
    store: String,
}

impl Observer {
    /// Looks at this engine, whose store is shown by this name.
    pub fn new(
        engine: Arc<Engine>,
        clock: Clock,
        version: &'static str,
        store: String,
    ) -> Observer {
        Observer { engine, clock, version, store }
    }

    /// What there is now.
    pub async fn status(&self) -> Result<Status, QueryError> {
        let late = "the store took too long to tell; ask again".to_owned();
        let status = timeout(limits::READ_DEADLINE, self.look()).await;
        status.unwrap_or(Err(QueryError::TryAgain(late)))
    }

    async fn look(&self) -> Result<Status, QueryError> {
        let now_ms = self.clock.now_ms();
        let keeping = self.engine.keeping();
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let kept = |retention: std::time::Duration, range: Option<TimeRange>| Kept {
            retention_seconds: retention.as_secs(),
            from: instant::format(range.map_or(now_ms, |range| range.start_ms)),
        };
        let window = self.engine.first_unsealed().await?;
        let (late_windows, late_from) = self.late().await?;
        Ok(Status {
            version: self.version.to_owned(),
            store: self.store.clone(),
            at: instant::format(now_ms),
            trouble: self.engine.ready().err(),
            samples: kept(keeping.samples, self.engine.stored_range(all)),
            ledger: kept(keeping.ledger, self.engine.billed_range(all)),
            sealing: Sealing {
                window_seconds: i64::from(window.hours) * 3600,
                grace_seconds: keeping.grace.as_secs(),
                unsealed_from: instant::format(window.first.start_ms()),
                lag_seconds: (now_ms - self.engine.due_ms(window)).max(0) / 1000,
                late_windows,
                late_from: late_from.map(|window| instant::format(window.first.start_ms())),
            },
            disk: self.disk().await?,
        })
    }

    /// How many windows of groups are late, and the oldest of them.
    async fn late(&self) -> Result<(usize, Option<Window>), QueryError> {
        let mut windows = 0;
        let mut oldest: Option<Window> = None;
        let mut last = None;
        // Rows come sorted: those of one window follow each other.
        let mut counted = BTreeSet::new();
        loop {
            let page = self.engine.late_page(None, last).await?;
            let Some(end) = page.last().copied() else { return Ok((windows, oldest)) };
            last = Some(end);
            for row in page {
                if counted.insert((row.group, row.window)) {
                    windows += 1;
                    let window = self.engine.window_of(row.window);
                    oldest = Some(oldest.map_or(window, |oldest| oldest.min(window)));
                }
            }
            // The last one may go on on the next page.
            counted.retain(|window| *window == (end.group, end.window));
        }
    }

    async fn disk(&self) -> Result<Option<Disk>, QueryError> {
        let Some(inventory) = self.engine.inventory().await? else { return Ok(None) };
        let tables = inventory.tables.iter().map(|table| TableSize {
            table: table.name.to_owned(),
            spans: table.spans,
            from: table.range.map(|range| instant::format(range.start_ms)),
            to: table.range.map(|range| instant::format(range.end_ms + 1)),
            bytes: table.bytes,
        });
        Ok(Some(Disk {
            bytes: inventory.tables.iter().map(|table| table.bytes).sum(),
            tables: tables.collect(),
            free_bytes: inventory.free_bytes,
            reserve_bytes: limits::DISK_RESERVE_BYTES,
        }))
    }
}
