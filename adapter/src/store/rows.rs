//! The rows of every table, as values: what a commit carries and what a read returns.
//! `docs/storage.md` draws them. Knows no store.

use bytes::Bytes;

use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};

/// Everything one commit writes.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Written first.
    pub index: Vec<IndexRow>,
    /// Written after the index.
    pub head: Vec<HeadRow>,
}

impl Rows {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.head.is_empty()
    }
}

/// Packed samples of one group and hour: table `head`, partition `(group, hour)`, clustered by
/// `(first_ms, hash)`. The hash of the payload makes a repeated commit the same row and two
/// different ones never overwrite each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadRow {
    /// Whose samples.
    pub group: Group,
    /// The hour of all its samples.
    pub hour: Hour,
    /// Its earliest sample, unix milliseconds.
    pub first_ms: i64,
    /// xxh3-64 of the payload.
    pub hash: u64,
    /// The samples, packed by `engine::pack`; a store does not look inside.
    pub payload: Bytes,
}

/// One new series of a week: what the index must know before its first sample is acknowledged.
/// A store writes it to the five index tables, `series` last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRow {
    /// The week of its samples.
    pub week: Week,
    /// The series.
    pub series: SeriesId,
    /// The group that its samples are packed with.
    pub group: Group,
    /// The row key that the group is a part of.
    pub row_key: String,
    /// Its metric name.
    pub metric: String,
    /// Every other label, name and value: the postings.
    pub postings: Vec<(String, String)>,
    /// The canonical encoding of all labels.
    pub labels: Bytes,
}

/// A series and where its samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Placed {
    /// The group that its samples are packed with.
    pub group: Group,
    /// The series.
    pub series: SeriesId,
}

/// One list of postings: table `postings`.
#[derive(Clone, Copy, Debug)]
pub struct PostingsKey<'a> {
    /// The week.
    pub week: Week,
    /// The metric's name.
    pub metric: &'a str,
    /// The label's name.
    pub label: &'a str,
    /// The label's value.
    pub value: &'a str,
}

/// A layout as it is stored: from when it holds, and its settings as text that `engine::layout`
/// reads. The first one holds for all time before it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRow {
    /// The first week it holds for.
    pub from: Week,
    /// The settings.
    pub settings: String,
}
