//! The store contract: rows and tables, not Prometheus. What is written here is shaped by
//! Cassandra's partitions as much as by fjall's keys; `store/contract.rs` tests every promise on
//! every store. Knows the model's ids and times, never labels' meaning.

pub mod cassandra;
pub mod local;
pub mod memory;
pub mod rows;

#[cfg(test)]
pub(crate) mod contract;

use std::time::Duration;

use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Day, Hour, Week};
use rows::{LayoutRow, Placed, Rows};

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

    /// The series of a group in a week: id and encoded labels, sorted by id.
    pub async fn series(
        &self,
        week: Week,
        group: Group,
        rows_max: usize,
    ) -> Result<Vec<(SeriesId, bytes::Bytes)>, StoreError> {
        each_store!(self, store => store.series(week, group, rows_max).await)
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

    /// The series of a metric in a week whose label has this value, in no order.
    pub async fn postings(
        &self,
        key: rows::PostingsKey<'_>,
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        each_store!(self, store => store.postings(key, rows_max).await)
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

    /// Drops whole days (heads) and weeks (index) that hold nothing from `oldest_ms` on. In
    /// Cassandra the rows' time to live does it. Says how many days and weeks were dropped.
    pub async fn expire(&self, oldest_ms: i64) -> Result<usize, StoreError> {
        each_store!(self, store => store.expire(oldest_ms).await)
    }

    /// Whether it can take writes now; else why not.
    pub fn ready(&self) -> Result<(), String> {
        each_store!(self, store => store.ready())
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
