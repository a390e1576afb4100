//! What a store holds as an operator counts it: spans of time and bytes on disk.
//! Plain values; knows no store.

use crate::model::time::TimeRange;

/// A store on a local disk, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Its tables: `heads`, `index`, `chunks`, `ledger`, `journal` and `other`.
    pub tables: Vec<Table>,
    /// Bytes that are free for it on its file system.
    pub free_bytes: u64,
}

/// One kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Days of arrival (heads), weeks (index) or months (chunks, ledger) that it is divided into;
    /// 0 where it is not divided by time.
    pub spans: usize,
    /// The sample time that these spans cover; `None` where there are none.
    pub range: Option<TimeRange>,
    /// Bytes of its files. What is written newly is in the journal first.
    pub bytes: u64,
}
