//! Which series the index knows already, so that a known series costs no index row.
//! A bounded cache in front of the store; forgetting an entry costs a repeated row, nothing else.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::memo::Memo;
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

    fn write_i32(&mut self, number: i32) {
        self.write_u64(u64::from(number.cast_unsigned()));
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
    Cache<u128, Weeks, UnitWeighter, BuildHasherDefault<IdHasher>, DefaultLifecycle<u128, Weeks>>;

/// The weeks in which the index knows a series: the latest, and the 32 before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weeks {
    latest: i32,
    // The lowest bit is the week before the latest.
    before: u32,
}

impl Weeks {
    fn one(week: Week) -> Weeks {
        Weeks { latest: week.0, before: 0 }
    }

    fn contains(self, week: Week) -> bool {
        match i64::from(self.latest) - i64::from(week.0) {
            0 => true,
            age @ 1..=32 => self.before >> (age - 1) & 1 == 1,
            _ => false,
        }
    }

    /// With one more week; one that is too old to be held is written again when it comes again.
    fn with(self, week: Week) -> Weeks {
        let later = i64::from(week.0) - i64::from(self.latest);
        let shifted = |bits: u32, by: i64| {
            u32::try_from(by).ok().and_then(|by| bits.checked_shl(by)).unwrap_or(0)
        };
        match later {
            0 => self,
            1.. => Weeks {
                latest: week.0,
                before: shifted(self.before, later) | shifted(1, later - 1),
            },
            _ => Weeks { before: self.before | shifted(1, -later - 1), ..self },
        }
    }
}

/// Series and groups that are known to be in the index, by week.
#[derive(Debug)]
pub(super) struct KnownSeries {
    series: SeriesCache,
    groups: Cache<(Week, Group), ()>,
    pub(super) memo: Memo,
    /// Grows with every commit that brings new series, whatever becomes of it.
    pub(super) generation: AtomicU64,
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
            memo: Memo::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// Whether a series is known in a week.
    pub(super) fn contains(&self, week: Week, series: SeriesId) -> bool {
        self.series.get(&series.0).is_some_and(|weeks| weeks.contains(week))
    }

    /// Rows are durable: their series are known from now on.
    pub(super) fn learn(&self, rows: &[(Week, SeriesId)]) {
        for (week, series) in rows {
            let weeks = self.series.get(&series.0);
            let weeks = weeks.map_or(Weeks::one(*week), |weeks| weeks.with(*week));
            self.series.insert(series.0, weeks);
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
                    let known: Vec<_> =
                        known.into_iter().map(|(series, _)| (week, series)).collect();
                    self.learn(&known);
                }
                // More than one read may hold: writing rows again is the cheaper way.
                Err(error) if error.is_too_much() => {}
                Err(error) => return Err(error),
            }
            self.groups.insert((week, group), ());
        }
        rows.retain(|row| !self.contains(row.week, row.series));
        Ok(())
    }
}

/// The index row of a series in a week. The first row-key label has postings, too: values of it name
/// groups, but beginnings of them are looked up as those of any label.
pub(super) fn row(
    (week, series): (Week, SeriesId),
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

/// The index row of a series whose labels are stored elsewhere.
pub fn index_row(
    (week, series): (Week, SeriesId),
    (group, row_key): (Group, String),
    labels: Bytes,
) -> Result<IndexRow, StoreError> {
    let decoded = stored_labels(&labels)?;
    let metric = decoded.get(METRIC_NAME).to_owned();
    let others = decoded.iter().filter(|(name, _)| *name != METRIC_NAME);
    let postings = others.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(IndexRow { week, series, group, row_key, metric, postings, labels })
}

/// Stored labels, read back; damage is an error of the store.
pub(super) fn stored_labels(encoded: &[u8]) -> Result<Labels, StoreError> {
    Labels::decode(encoded).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
