//! The store contract: rows and tables, not Prometheus. What is written here is shaped by
//! Cassandra's partitions as much as by fjall's keys; `store/contract.rs` tests every promise on
//! every store. Knows the model's ids and times, never labels' meaning.

pub mod cassandra;
mod chance;
pub mod inventory;
mod ledger_row;
pub mod local;
pub mod memory;
pub mod observed;
pub mod rows;

pub(crate) use cassandra::process_name;
pub(crate) use chance::chance;

#[cfg(test)]
pub(crate) mod contract;

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Day, Hour, Week};
use inventory::Inventory;
use rows::{
    Chunk, HeadKey, Kept, LateRow, LayoutRow, LedgerRow, Placed, PostingsKey, Rows, SealMark,
    Sealed, SeriesPage, Shard, Wanted,
};

/// The closed set of stores.
#[derive(Debug)]
pub enum Store {
    /// In memory, for tests and trials; gone with the process.
    Memory(memory::Memory),
    /// fjall on a local disk.
    Local(local::Local),
    /// A Cassandra or ScyllaDB cluster.
    Cassandra(Box<cassandra::Cassandra>),
}

/// What went wrong in a store, by how one reacts to it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Passing trouble: the caller may try again. Nothing that was not stored was acknowledged.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A read met more rows than it may hold. Never answered with a part of them.
    #[error("more than {rows_max} rows in one read of {table}; ask for less at once")]
    TooManyRows {
        /// Which table.
        table: &'static str,
        /// The bound that was reached.
        rows_max: usize,
    },
    /// A read met more bytes than it may hold.
    #[error("more than {bytes_max} bytes in one read of {table}; ask for less at once")]
    TooManyBytes {
        /// Which table.
        table: &'static str,
        /// The bound that was reached.
        bytes_max: usize,
    },
    /// What is stored cannot be read: damage, or a newer format.
    #[error("{0}")]
    Damaged(String),
    /// The store works and does not do this one thing, however often it is asked.
    #[error("the store refuses: {0}")]
    Refused(String),
}

/// A store that cannot be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

macro_rules! each_store {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Store::Memory($store) => $call,
            Store::Local($store) => $call,
            Store::Cassandra($store) => $call,
        }
    };
}

impl Store {
    /// Stores the rows of one commit and returns when they are durable: fsynced in Local,
    /// LOCAL_QUORUM in Cassandra. Index rows are there before head rows, series rows last among
    /// them, so that a series row proves the others. Upserts: the same rows twice are the same as
    /// once. After an error any part may be stored, which is harmless.
    pub async fn append(&self, rows: Rows) -> Result<(), StoreError> {
        each_store!(self, store => store.append(rows).await)
    }

    /// The payloads of a group's head rows in a range of hours, both included, in no order; at most
    /// [`limits::HEAD_READ_BYTES_MAX`] of them.
    pub async fn head(
        &self,
        group: Group,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<bytes::Bytes>, StoreError> {
        each_store!(self, store => store.head(group, hours, rows_max).await)
    }

    /// The next payloads of a group's head rows in one hour, behind the last of those before, by
    /// their earliest sample, and then as the store sorts; none at the end. For an hour that holds more than [`Store::head`] reads.
    pub async fn head_page(
        &self,
        group: Group,
        hour: Hour,
        after: Option<HeadKey>,
    ) -> Result<Vec<(HeadKey, bytes::Bytes)>, StoreError> {
        each_store!(self, store => store.head_page(group, hour, after).await)
    }

    /// What tells this store from another one that has its name: a keyspace that was made anew, or that
    /// of another cluster. Empty where the name is a folder's.
    pub fn identity(&self) -> &str {
        match self {
            Store::Memory(_) | Store::Local(_) => "",
            Store::Cassandra(cassandra) => cassandra.identity(),
        }
    }

    /// The series of a group in a week: id and encoded labels, sorted by id.
    pub async fn series(
        &self,
        week: Week,
        group: Group,
        rows_max: usize,
    ) -> Result<Vec<(SeriesId, bytes::Bytes)>, StoreError> {
        each_store!(self, store => store.series(week, group, rows_max).await)
    }

    /// The next of a group's series in a week, behind one: for a group that has more than
    /// [`Store::series`] reads, or of which little is wanted.
    pub async fn series_page(
        &self,
        week: Week,
        group: Group,
        after: Option<SeriesId>,
    ) -> Result<SeriesPage, StoreError> {
        each_store!(self, store => store.series_page(week, group, after).await)
    }

    /// All of a group's series in a week, sorted by id, page by page.
    pub fn series_pages(
        &self,
        week: Week,
        group: Group,
    ) -> BoxStream<'_, Result<Vec<(SeriesId, bytes::Bytes)>, StoreError>> {
        // Behind which series the next page begins; none after the last.
        let begin = Some(None);
        stream::try_unfold(begin, move |after| async move {
            let Some(after) = after else { return Ok(None) };
            let page = self.series_page(week, group, after).await?;
            Ok(Some((page.rows, page.next.map(Some))))
        })
        .boxed()
    }

    /// The series of a metric in a week, in no order.
    pub async fn metric_series(
        &self,
        week: Week,
        metric: &str,
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        each_store!(self, store => store.metric_series(week, metric, rows_max).await)
    }

    /// The series of a metric in a week whose label has one of these values, in no order. A value
    /// that is asked for twice may be answered twice.
    pub async fn postings(
        &self,
        key: PostingsKey<'_>,
        values: &[&str],
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        each_store!(self, store => store.postings(key, values, rows_max).await)
    }

    /// The series of a metric in a week whose label's value begins with one of these texts, none of
    /// which is empty or begins with another; with the values, in no order.
    pub async fn postings_below(
        &self,
        key: PostingsKey<'_>,
        prefixes: &[&str],
        rows_max: usize,
    ) -> Result<Vec<(String, Placed)>, StoreError> {
        each_store!(self, store => store.postings_below(key, prefixes, rows_max).await)
    }

    /// The encoded labels of series of some groups in a week, in no order; at most
    /// [`limits::SERIES_READ_BYTES_MAX`] of them. A series that is asked for and not there is left
    /// out.
    pub async fn labels(
        &self,
        week: Week,
        wanted: Vec<Wanted>,
        rows_max: usize,
    ) -> Result<Vec<(Placed, bytes::Bytes)>, StoreError> {
        each_store!(self, store => store.labels(week, wanted, rows_max).await)
    }

    /// The metric names of a week, sorted.
    pub async fn metrics(&self, week: Week, rows_max: usize) -> Result<Vec<String>, StoreError> {
        each_store!(self, store => store.metrics(week, rows_max).await)
    }

    /// The row keys of a week and their groups, sorted.
    pub async fn row_keys(
        &self,
        week: Week,
        rows_max: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        each_store!(self, store => store.row_keys(week, rows_max).await)
    }

    /// The layouts that were ever set, oldest first.
    pub async fn layouts(&self) -> Result<Vec<LayoutRow>, StoreError> {
        each_store!(self, store => store.layouts().await)
    }

    /// Adds a layout unless one with the same starting week is there; says whether it was added.
    pub async fn add_layout(&self, layout: LayoutRow) -> Result<bool, StoreError> {
        each_store!(self, store => store.add_layout(layout).await)
    }

    /// Stores what a seal made, in the order of [`Sealed`], and returns when it is durable. The same
    /// twice is the same as once. After an error any part may be stored: a seal that is repeated
    /// completes it.
    pub async fn seal(&self, sealed: Sealed) -> Result<(), StoreError> {
        each_store!(self, store => store.seal(sealed).await)
    }

    /// The chunks of some series of a group whose windows begin in a range of hours, both included,
    /// in no order; at most [`limits::CHUNK_READ_BYTES_MAX`] of them.
    pub async fn chunks(
        &self,
        group: Group,
        series: &[SeriesId],
        windows: (Hour, Hour),
    ) -> Result<Vec<Chunk>, StoreError> {
        each_store!(self, store => store.chunks(group, series, windows).await)
    }

    /// The windows of a group that are sealed and begin in a range of hours, both included: their
    /// first hours, sorted.
    pub async fn markers(
        &self,
        group: Group,
        windows: (Hour, Hour),
    ) -> Result<Vec<Hour>, StoreError> {
        each_store!(self, store => store.markers(group, windows).await)
    }

    /// The late rows of a group whose windows begin in a range of hours, both included, sorted.
    pub async fn late(
        &self,
        group: Group,
        windows: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        each_store!(self, store => store.late(group, windows, rows_max).await)
    }

    /// The first late rows of a shard's groups, or of all, behind `after`, sorted: who asks again
    /// with the last of them gets the next.
    pub async fn late_page(
        &self,
        shard: Option<Shard>,
        after: Option<LateRow>,
        rows: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        match self {
            Store::Memory(memory) => memory.late_page(after, rows).await,
            Store::Local(local) => local.late_page(after, rows).await,
            Store::Cassandra(cassandra) => cassandra.late_page(shard, after, rows).await,
        }
    }

    /// Where late rows are listed by when they came: remembers up to when nothing of a shard waits any
    /// more. To be called again and again by its sealer, or [`Store::late_since`] goes back for ever.
    pub async fn finish_late(&self, shard: Shard) -> Result<(), StoreError> {
        match self {
            Store::Memory(_) | Store::Local(_) => Ok(()),
            Store::Cassandra(cassandra) => cassandra.finish_late(shard).await,
        }
    }

    /// Since when the oldest late row waits, unix milliseconds; in a cluster the begin of its hour of
    /// arrival, where that is over. `None` where none waits.
    pub async fn late_since(&self) -> Result<Option<i64>, StoreError> {
        each_store!(self, store => store.late_since().await)
    }

    /// A guest's rows of one family in a range of hours, both included, sorted by hour.
    pub async fn ledger(
        &self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        each_store!(self, store => store.ledger(family, guest, hours, rows_max).await)
    }

    /// The guests that have rows of a family in the months of a range of hours, sorted, each once.
    pub async fn ledger_guests(
        &self,
        family: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        each_store!(self, store => store.ledger_guests(family, hours, rows_max).await)
    }

    /// How far sealing has come; `None` where no sealer ever was.
    pub async fn seal_mark(&self, mark: SealMark) -> Result<Option<Hour>, StoreError> {
        each_store!(self, store => store.seal_mark(mark).await)
    }

    /// Before which hour all windows of all shards are sealed, but for what came late to them; `None`
    /// where a shard has no mark yet.
    pub async fn sealed_until(&self) -> Result<Option<Hour>, StoreError> {
        match self {
            Store::Cassandra(cassandra) => cassandra.sealed_until().await,
            Store::Memory(_) | Store::Local(_) => self.seal_mark(SealMark::Sealed(Shard(0))).await,
        }
    }

    /// Says where the sealing of a shard begins, unless somebody said so before.
    pub async fn begin_seal_mark(&self, shard: Shard, hour: Hour) -> Result<(), StoreError> {
        match self {
            Store::Cassandra(cassandra) => cassandra.begin_seal_mark(shard, hour).await,
            Store::Memory(_) | Store::Local(_) => {
                let mark = SealMark::Sealed(shard);
                match self.seal_mark(mark).await? {
                    Some(_) => Ok(()),
                    None => self.set_seal_mark(mark, hour).await,
                }
            }
        }
    }

    /// Says how far sealing has come. Where several processes seal, a mark never goes back: a lesser
    /// hour than the store's is left unsaid.
    pub async fn set_seal_mark(&self, mark: SealMark, hour: Hour) -> Result<(), StoreError> {
        each_store!(self, store => store.set_seal_mark(mark, hour).await)
    }

    /// The first hour of which there may be head rows that no sealer has seen, where none ever was.
    pub async fn oldest_head(&self) -> Result<Option<Hour>, StoreError> {
        each_store!(self, store => store.oldest_head().await)
    }

    /// The first row keys of a week, and of a shard's groups or of all, behind `after`, sorted: who
    /// asks again with the last of them gets the next.
    pub async fn row_key_page(
        &self,
        (week, shard): (Week, Option<Shard>),
        after: Option<&(String, Group)>,
        rows: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        match self {
            Store::Memory(memory) => memory.row_key_page(week, after, rows).await,
            Store::Local(local) => local.row_key_page(week, after, rows).await,
            Store::Cassandra(cassandra) => cassandra.row_key_page((week, shard), after, rows).await,
        }
    }

    /// Whether other processes may work on the same data.
    pub fn is_shared(&self) -> bool {
        matches!(self, Store::Cassandra(_))
    }

    /// Into how many shards the groups are divided.
    pub fn shards(&self) -> u16 {
        match self {
            Store::Memory(_) | Store::Local(_) => 1,
            Store::Cassandra(cassandra) => cassandra.shard_count(),
        }
    }

    /// How long a shard is a sealer's before it must be taken anew; `None` where there is only one
    /// sealer, whose they all are.
    pub fn lease_time(&self) -> Option<Duration> {
        match self {
            Store::Memory(_) | Store::Local(_) => None,
            Store::Cassandra(cassandra) => Some(cassandra.lease_time()),
        }
    }

    /// How long a row of the head is kept after its arrival, sealed or not; `None` where it is kept
    /// until it is sealed.
    pub fn head_ttl(&self) -> Option<Duration> {
        match self {
            Store::Memory(_) | Store::Local(_) => None,
            Store::Cassandra(cassandra) => Some(cassandra.head_ttl()),
        }
    }

    /// Takes a shard, or keeps it, for [`Store::lease_time`] from now on; whether it is this
    /// sealer's. Shares out the work, and no more: that seals do not harm each other rests on
    /// [`Store::turns`].
    pub async fn hold(&self, shard: Shard, sealer: &str) -> Result<bool, StoreError> {
        match self {
            Store::Memory(_) | Store::Local(_) => Ok(true),
            Store::Cassandra(cassandra) => cassandra.hold(shard, sealer).await,
        }
    }

    /// Gives a shard back, if it is this sealer's.
    pub async fn release(&self, shard: Shard, sealer: &str) -> Result<(), StoreError> {
        match self {
            Store::Memory(_) | Store::Local(_) => Ok(()),
            Store::Cassandra(cassandra) => cassandra.release(shard, sealer).await,
        }
    }

    /// Says that this sealer is at work, and how many are, itself among them.
    pub async fn sealers(&self, sealer: &str) -> Result<usize, StoreError> {
        match self {
            Store::Memory(_) | Store::Local(_) => Ok(1),
            Store::Cassandra(cassandra) => cassandra.sealers(sealer).await,
        }
    }

    /// Says that this sealer stops, and is to be counted no more.
    pub async fn leave(&self, sealer: &str) -> Result<(), StoreError> {
        match self {
            Store::Memory(_) | Store::Local(_) => Ok(()),
            Store::Cassandra(cassandra) => cassandra.leave(sealer).await,
        }
    }

    /// The first of so many numbers that follow each other, greater than all that any process was
    /// given before. Who draws one and reads the samples then sees all that was durable when lesser
    /// ones were drawn: so the projection with the greatest turn holds what the others hold.
    pub async fn turns(&self, count: u32) -> Result<i64, StoreError> {
        match self {
            // Their seals are written in order.
            Store::Memory(_) | Store::Local(_) => Ok(0),
            Store::Cassandra(cassandra) => cassandra.turns(count).await,
        }
    }

    /// Drops what need not be kept, by whole days of arrival (heads), weeks (index) and months
    /// (chunks, ledger). Heads go as soon as all in them is sealed, and nothing goes before. In
    /// Cassandra the rows' time to live does it. Says how many of them were dropped.
    pub async fn expire(&self, kept: Kept) -> Result<usize, StoreError> {
        each_store!(self, store => store.expire(kept).await)
    }

    /// Whether it can take writes now; else why not.
    pub fn ready(&self) -> Result<(), String> {
        each_store!(self, store => store.ready())
    }

    /// Why nothing may be written or sealed, though the store could: our clock is not the store's, or
    /// another process works on it that need not see, or would not bill, what is written here.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Store::Memory(_) | Store::Local(_) => None,
            Store::Cassandra(cassandra) => cassandra.trouble(),
        }
    }

    /// Why it will take no writes until the process starts again; `None` while it works.
    pub fn failure(&self) -> Option<String> {
        match self {
            Store::Local(local) => local.failure(),
            Store::Memory(_) | Store::Cassandra(_) => None,
        }
    }

    /// The newest day on which anything arrived, where the store drops old days by our clock.
    pub fn newest_arrival(&self) -> Option<Day> {
        match self {
            Store::Local(local) => local.newest_arrival(),
            Store::Memory(_) | Store::Cassandra(_) => None,
        }
    }

    /// What it holds and how much of its disk that takes; `None` where the store cannot tell: in
    /// memory, and in a cluster, whose nodes are asked (`nodetool tablestats`).
    pub async fn inventory(&self) -> Result<Option<Inventory>, StoreError> {
        match self {
            Store::Local(local) => local.inventory().await.map(Some),
            Store::Memory(_) | Store::Cassandra(_) => Ok(None),
        }
    }

    /// How many reads of one query it serves at once with profit.
    pub fn reads_at_once(&self) -> usize {
        match self {
            Store::Memory(_) => 1,
            Store::Local(_) => limits::LOCAL_READS_AT_ONCE,
            Store::Cassandra(_) => limits::CLUSTER_READS_AT_ONCE,
        }
    }

    /// Waits for running commits and makes everything durable; the store is not used after it.
    pub async fn close(&self) -> Result<(), StoreError> {
        each_store!(self, store => store.close().await)
    }
}

impl StoreError {
    /// Whether asking for a part of it could succeed.
    pub fn is_too_much(&self) -> bool {
        matches!(self, StoreError::TooManyRows { .. } | StoreError::TooManyBytes { .. })
    }

    /// How long a sender should wait before it tries again; `None` where trying again cannot help.
    pub fn retry_after(&self) -> Option<Duration> {
        matches!(self, StoreError::Unavailable(_)).then_some(Duration::from_secs(5))
    }
}
