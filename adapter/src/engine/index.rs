//! Which series the index knows already, so that a known series costs no index row.
//! A bounded cache in front of the store; forgetting an entry costs a repeated row, nothing else.

use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::limits;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::row_key::{Group, RowKey};
use crate::model::series::SeriesId;
use crate::model::time::Week;
use crate::store::rows::IndexRow;
use crate::store::{Store, StoreError};

/// Ids are hashes already: mixing their parts once more is all that a table needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is a hash, too")]
    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
    }
}

type SeriesCache =
    Cache<u128, Group, UnitWeighter, BuildHasherDefault<IdHasher>, DefaultLifecycle<u128, Group>>;

/// A series of a week in one number, which is as unlikely to be another's as the id alone. Half of
/// the write path's waiting for memory is for these entries, so they are kept small.
fn key(week: Week, series: SeriesId) -> u128 {
    let week = u128::from(week.0.cast_unsigned());
    series.0 ^ week.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

/// Series and groups that are known to be in the index, by week.
#[derive(Debug)]
pub(super) struct KnownSeries {
    series: SeriesCache,
    groups: Cache<(Week, Group), ()>,
}

impl KnownSeries {
    pub(super) fn new() -> KnownSeries {
        KnownSeries {
            series: Cache::with(
                limits::SEEN_SERIES_MAX,
                limits::SEEN_SERIES_MAX as u64,
                UnitWeighter,
                BuildHasherDefault::default(),
                DefaultLifecycle::default(),
            ),
            groups: Cache::new(limits::SEEN_SERIES_MAX / 16),
        }
    }

    /// The group of a series that is known in a week.
    pub(super) fn group_of(&self, week: Week, series: SeriesId) -> Option<Group> {
        self.series.get(&key(week, series))
    }

    /// Rows are durable: their series are known from now on.
    pub(super) fn learn(&self, series: &[(Week, SeriesId, Group)]) {
        for (week, series, group) in series {
            self.series.insert(key(*week, *series), *group);
        }
    }

    /// Takes the rows of series that the store knows out of `rows`. A group that this process has
    /// not written in that week is read once: so a restart reads a row a guest instead of writing
    /// ten a series again.
    pub(super) async fn drop_known(
        &self,
        store: &Store,
        rows: &mut Vec<IndexRow>,
    ) -> Result<(), StoreError> {
        let mut asked: Vec<(Week, Group)> = rows.iter().map(|row| (row.week, row.group)).collect();
        asked.sort_unstable();
        asked.dedup();
        for (week, group) in asked {
            if self.groups.get(&(week, group)).is_some() {
                continue;
            }
            match store.series(week, group, limits::QUERY_ROWS_MAX).await {
                Ok(known) => {
                    for (series, _) in known {
                        self.series.insert(key(week, series), group);
                    }
                }
                // More series than one read may hold: writing rows again is the cheaper way.
                Err(StoreError::TooManyRows { .. }) => {}
                Err(error) => return Err(error),
            }
            self.groups.insert((week, group), ());
        }
        rows.retain(|row| self.group_of(row.week, row.series).is_none());
        Ok(())
    }
}

/// The index row of a series in a week.
pub(super) fn row(
    week: Week,
    series: SeriesId,
    row_key: RowKey,
    labels: &[(&str, &str)],
    encoded: &[u8],
) -> IndexRow {
    let group = row_key.group_of(series);
    let mut metric = String::new();
    let mut postings = Vec::with_capacity(labels.len());
    for (name, value) in labels {
        if *name == METRIC_NAME {
            (*value).clone_into(&mut metric);
        } else {
            postings.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    IndexRow {
        week,
        series,
        group,
        row_key: row_key.text,
        metric,
        postings,
        labels: Bytes::copy_from_slice(encoded),
    }
}

/// Stored labels, read back; damage is an error of the store.
pub(super) fn stored_labels(encoded: &[u8]) -> Result<Labels, StoreError> {
    Labels::decode(encoded).map_err(|error| StoreError::Damaged(error.to_string()))
}
