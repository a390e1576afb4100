//! What an operator wants to know of a store: what is kept, since when and how much of the disk
//! that takes, and how far behind sealing is. Knows no HTTP and no store.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use serve::clock::Clock;
use tokio::time::{Instant, timeout_at};

use crate::engine::{Engine, Shard};
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
    /// What the store was asked and could not tell. What hangs on it is `None` above.
    #[serde(default)]
    pub unreadable: Vec<Unreadable>,
}

/// A part of the store that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// What it would have told.
    pub part: String,
    /// What the store said instead.
    pub why: String,
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
    /// Length of the oldest window that is not sealed; `None` where it is not known.
    pub window_seconds: Option<i64>,
    /// How long after its end a window is due.
    pub grace_seconds: u64,
    /// Begin of the oldest window that is not sealed; windows before it are, late ones apart. `None`
    /// where it is not known.
    pub unsealed_from: Option<String>,
    /// How long that window has been due; 0 where it is not due yet, `None` where it is not known.
    pub lag_seconds: Option<i64>,
    /// Windows of groups that something came late to and that wait to be sealed again; `None` where
    /// a shard could not be read.
    pub late_windows: Option<usize>,
    /// Those of them that could be read: all, or those of the other shards.
    #[serde(default)]
    pub late_windows_read: usize,
    /// Begin of the oldest of those that could be read.
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

    /// What there is now. Each part that cannot be read, or not in time, is named, and costs no other.
    pub async fn status(&self) -> Status {
        let deadline = Instant::now() + limits::READ_DEADLINE;
        let now_ms = self.clock.now_ms();
        let keeping = self.engine.keeping();
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let kept = |retention: std::time::Duration, range: Option<TimeRange>| Kept {
            retention_seconds: retention.as_secs(),
            from: instant::format(range.map_or(now_ms, |range| range.start_ms)),
        };
        let unsealed = async { Ok(self.engine.first_unsealed().await?) };
        let (unsealed, late, disk) = tokio::join!(
            told(deadline, unsealed),
            self.late(deadline),
            told(deadline, self.disk())
        );
        let unread = |part: &str, why: Option<&String>| {
            why.map(|why| Unreadable { part: part.to_owned(), why: why.clone() })
        };
        let of_marks = unread("how far sealing is", unsealed.as_ref().err());
        let of_disk = unread("the disk", disk.as_ref().err());
        let is_whole = late.unreadable.is_empty();
        let unreadable = of_marks.into_iter().chain(late.unreadable).chain(of_disk).collect();
        let window = unsealed.ok();
        let begin = |window: Window| instant::format(window.first.start_ms());
        let lag_ms = |window| (now_ms - self.engine.due_ms(window)).max(0);
        Status {
            version: self.version.to_owned(),
            store: self.store.clone(),
            at: instant::format(now_ms),
            trouble: self.engine.ready().err(),
            samples: kept(keeping.samples, self.engine.stored_range(all)),
            ledger: kept(keeping.ledger, self.engine.billed_range(all)),
            sealing: Sealing {
                window_seconds: window.map(|window| i64::from(window.hours) * 3600),
                grace_seconds: keeping.grace.as_secs(),
                unsealed_from: window.map(begin),
                lag_seconds: window.map(|window| lag_ms(window) / 1000),
                late_windows: is_whole.then_some(late.windows),
                late_windows_read: late.windows,
                late_from: late.oldest.map(begin),
            },
            disk: disk.ok().flatten(),
            unreadable,
        }
    }

    /// What is late in all shards that can be read.
    async fn late(&self, deadline: Instant) -> Late {
        let asked = stream::iter(self.engine.shards())
            .map(|shard| async move { (shard, told(deadline, self.late_of(shard)).await) });
        let mut asked = asked.buffered(limits::CLUSTER_READS_AT_ONCE);
        let (mut late, mut failed) = (Late::default(), BTreeMap::<String, Vec<String>>::new());
        while let Some((shard, told)) = asked.next().await {
            match told {
                Ok((windows, oldest)) => {
                    late.windows += windows;
                    late.oldest = late.oldest.into_iter().chain(oldest).min();
                }
                // Where no node answers, all of them say the same.
                Err(why) => failed.entry(why).or_default().push(shard.0.to_string()),
            }
        }
        let unreadable = failed.into_iter().map(|(why, shards)| Unreadable {
            part: format!("what came late to shard {}", shards.join(", ")),
            why,
        });
        late.unreadable = unreadable.collect();
        late
    }

    /// How many windows of a shard's groups are late, and the oldest of them.
    async fn late_of(&self, shard: Shard) -> Result<(usize, Option<Window>), QueryError> {
        let mut windows = 0;
        let mut oldest: Option<Window> = None;
        let mut last = None;
        // Rows come sorted: those of one window follow each other.
        let mut counted = BTreeSet::new();
        loop {
            let page = self.engine.late_page(Some(shard), last).await?;
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

/// Windows that something came late to.
#[derive(Debug, Default)]
struct Late {
    windows: usize,
    oldest: Option<Window>,
    /// Shards that may have more.
    unreadable: Vec<Unreadable>,
}

/// What a part of the store tells in time, or why it does not.
async fn told<T>(
    deadline: Instant,
    part: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, String> {
    match timeout_at(deadline, part).await {
        Ok(told) => told.map_err(|error| error.to_string()),
        Err(_) => Err("the store took too long to tell; ask again".to_owned()),
    }
}
