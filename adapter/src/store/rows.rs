//! The rows of every table, as values: what a commit carries and what a read returns.
//! `docs/storage.md` draws them. Knows no store.

use bytes::Bytes;

use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};

/// Everything one commit writes.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Written first.
    pub index: Vec<IndexRow>,
    /// Written before the head and, where a commit is not atomic, once more after it.
    pub late: Vec<LateRow>,
    /// Written after the index.
    pub head: Vec<HeadRow>,
}

impl Rows {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.late.is_empty() && self.head.is_empty()
    }
}

/// Some of a group's series in a week, sorted as their store sorts: id and encoded labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesPage {
    /// At most [`crate::limits::SERIES_PAGE_ROWS`].
    pub rows: Vec<(SeriesId, Bytes)>,
    /// Behind which series more may be; `None` at the end.
    pub next: Option<SeriesId>,
}

impl SeriesPage {
    /// A page of these rows, which are all that there are if they do not fill it.
    pub(super) fn new(rows: Vec<(SeriesId, Bytes)>) -> SeriesPage {
        let is_full = rows.len() >= limits::SERIES_PAGE_ROWS;
        let next = rows.last().filter(|_| is_full).map(|(series, _)| *series);
        SeriesPage { rows, next }
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

/// Where a row of the head is within its group and hour: its earliest sample (unix milliseconds) and
/// its hash.
pub type HeadKey = (i64, u64);

/// A head row came after its window may have been sealed: table `late`. The sealer seals the window
/// again, and takes away the rows that it had read before it read the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LateRow {
    /// Whose samples.
    pub group: Group,
    /// The first hour of the window.
    pub window: Hour,
    /// When the head row came; unix milliseconds.
    pub arrived_ms: i64,
    /// The head row's hash, so that no two late rows are one.
    pub hash: u64,
}

/// Samples of one series and one window, sealed: table `chunks`. The hash of the payload makes a
/// repeated seal the same row, and two different ones a union.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkRow {
    /// Whose series.
    pub group: Group,
    /// The series.
    pub series: SeriesId,
    /// The first hour of the window.
    pub window: Hour,
    /// xxh3-64 of the payload.
    pub hash: u64,
    /// The samples, encoded by `engine::chunk`; a store does not look inside.
    pub payload: Bytes,
}

/// An hour of one guest in one of Kanyun's column families: the tables `cpu`, `mem_max` and so on.
/// Written whole and in place of what was there.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerRow {
    /// The family's name.
    pub family: String,
    /// The guest's name.
    pub guest: String,
    /// The hour.
    pub hour: Hour,
    /// Every column1 that has a sample in the hour, sorted by name.
    pub columns: Vec<LedgerColumn>,
}

/// One column1 in an hour.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerColumn {
    /// column1: a device, an address, or `total`.
    pub name: String,
    /// The minutes that have a value, in order; a store writes an empty value for the others where
    /// it keeps a row a minute.
    pub minutes: Vec<LedgerMinute>,
}

/// A minute's value and what is said of it (ledger.md, "A minute's value").
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LedgerMinute {
    /// The minute of the hour.
    pub minute: u8,
    /// In the family's unit.
    pub value: f64,
    /// Samples that it was made of.
    pub samples: u32,
    /// How often the counter began anew.
    pub resets: u32,
    /// One bit each, as the ledger numbers them.
    pub flags: u8,
}

/// A group's window is sealed: its chunks hold what the head held, and the ledger's rows are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkerRow {
    /// Whose window.
    pub group: Group,
    /// The window's first hour.
    pub window: Hour,
}

/// A part of the groups: sealers share the work by shards, and each shard has one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// How far sealing has come: an hour before which something holds for all windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealMark {
    /// Those of the shard are sealed, but for what came late to them.
    Sealed(Shard),
    /// Those of the shard were looked at once more, before their heads expire.
    Checked(Shard),
    /// Some may be sealed: what comes to them is late, also after a restart with another clock.
    Begun,
}

/// Hours of the ledger that were counted together, each guest's at most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    /// From [`crate::store::Store::turns`]: of two projections of an hour that with the greater turn
    /// stands, whichever is written last.
    pub turn: i64,
    /// The hours.
    pub rows: Vec<LedgerRow>,
}

/// What one seal writes.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    /// Written first.
    pub chunks: Vec<ChunkRow>,
    /// Written after the chunks; sorted by turn.
    pub ledger: Vec<Projection>,
    /// Written after the ledger.
    pub markers: Vec<MarkerRow>,
    /// Taken away last.
    pub late: Vec<LateRow>,
}

impl Sealed {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
            && self.ledger_rows().next().is_none()
            && self.markers.is_empty()
            && self.late.is_empty()
    }

    /// About how much memory it takes, bytes.
    pub fn bytes(&self) -> usize {
        let columns = self.ledger_rows().flat_map(|row| &row.columns);
        let minutes: usize = columns.map(|column| 64 + column.minutes.len() * 32).sum();
        let chunks: usize = self.chunks.iter().map(|row| 128 + row.payload.len()).sum();
        chunks + minutes + self.ledger_rows().count() * 128 + self.late.len() * size_of::<LateRow>()
    }

    /// The hours of all projections.
    pub fn ledger_rows(&self) -> impl Iterator<Item = &LedgerRow> {
        self.ledger.iter().flat_map(|projection| &projection.rows)
    }

    /// Adds what another seal writes.
    pub fn append(&mut self, mut other: Sealed) {
        self.chunks.append(&mut other.chunks);
        self.ledger.append(&mut other.ledger);
        self.markers.append(&mut other.markers);
        self.late.append(&mut other.late);
    }
}

/// One series of a window as it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunk {
    /// The series.
    pub series: SeriesId,
    /// The first hour of the window.
    pub window: Hour,
    /// The samples, encoded by `engine::chunk`.
    pub payload: Bytes,
}

/// Until when things are kept; unix milliseconds of sample time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Samples and their index from here on.
    pub samples_ms: i64,
    /// Rows of the ledger from here on.
    pub ledger_ms: i64,
    /// All windows before this hour are sealed, but for late rows.
    pub sealed_until: Hour,
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

/// The postings of one label of a metric, sorted by its values: table `postings`.
#[derive(Clone, Copy, Debug)]
pub struct PostingsKey<'a> {
    /// The week.
    pub week: Week,
    /// The metric's name.
    pub metric: &'a str,
    /// The label's name.
    pub label: &'a str,
}

/// Which series of a group are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The group.
    pub group: Group,
    /// These of them, each once and sorted; all where there is none.
    pub series: Option<Vec<SeriesId>>,
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
