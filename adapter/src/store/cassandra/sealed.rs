//! What the sealer left in the cluster, as readers and the sealer itself ask for it: chunks, markers
//! and the ledger. Knows no payload.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::Cassandra;
use super::index::series_id;
use super::read::partitions;
use super::seal;
use super::write::group_shard;
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{DAY_MS, Hour, Month, Week};
use crate::store::rows::{Chunk, LedgerRow, Sealed, Shard};
use crate::store::{StoreError, ledger_row};

impl Cassandra {
    /// See [`crate::store::Store::seal`].
    pub async fn seal(&self, sealed: Sealed) -> Result<(), StoreError> {
        seal::seal(&self.shared, sealed).await
    }

    /// See [`crate::store::Store::chunks`].
    pub async fn chunks(
        &self,
        group: Group,
        series: &[SeriesId],
        windows: (Hour, Hour),
    ) -> Result<Vec<Chunk>, StoreError> {
        let Some((from, to)) = self.live(windows) else { return Ok(Vec::new()) };
        let ids = |series: &[SeriesId]| -> Vec<Bytes> {
            series.iter().map(|id| Bytes::copy_from_slice(&id.to_bytes())).collect()
        };
        let parts: Vec<Vec<Bytes>> =
            series.chunks(limits::CASSANDRA_CHUNK_SERIES_MAX).map(ids).collect();
        let weeks = Week::of(from.start_ms()).0..=Week::of(to.start_ms()).0;
        let keys = weeks.flat_map(|week| {
            let of_week =
                move |part: &Vec<Bytes>| (group.0.cast_signed(), week, part.clone(), from.0, to.0);
            parts.iter().map(of_week).collect::<Vec<_>>()
        });
        let select = &self.shared.statements.sealed.chunks;
        let rows: Vec<(Bytes, i32, Bytes)> =
            partitions(&self.shared, select, keys, limits::QUERY_ROWS_MAX).await?;
        let chunk = |(series, window, payload): (Bytes, i32, Bytes)| {
            Ok(Chunk { series: series_id(&series)?, window: Hour(window), payload })
        };
        rows.into_iter().map(chunk).collect()
    }

    /// See [`crate::store::Store::markers`].
    pub async fn markers(
        &self,
        group: Group,
        windows: (Hour, Hour),
    ) -> Result<Vec<Hour>, StoreError> {
        let Some((from, to)) = self.live(windows) else { return Ok(Vec::new()) };
        let keys = months((from, to)).map(|month| (group.0.cast_signed(), month.0, from.0, to.0));
        let select = &self.shared.statements.sealed.markers;
        let rows: Vec<(i32,)> =
            partitions(&self.shared, select, keys, limits::QUERY_ROWS_MAX).await?;
        let mut markers: Vec<Hour> = rows.into_iter().map(|(window,)| Hour(window)).collect();
        markers.sort_unstable();
        Ok(markers)
    }

    /// See [`crate::store::Store::ledger`]. Not from the column families: an hour of those is sixty
    /// rows for each device.
    pub async fn ledger(
        &self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let Some((from, to)) = self.live_ledger(hours) else { return Ok(Vec::new()) };
        let (name, key): (Arc<str>, Arc<str>) = (family.into(), guest.into());
        let weeks = Week::of(from.start_ms()).0..=Week::of(to.start_ms()).0;
        let keys = weeks.map(|week| (Arc::clone(&name), Arc::clone(&key), week, from.0, to.0));
        let select = &self.shared.statements.sealed.ledger;
        let found: Vec<(i32, Bytes)> = partitions(&self.shared, select, keys, rows_max).await?;
        let row = |(hour, minutes): (i32, Bytes)| {
            let (family, guest) = (family.to_owned(), guest.to_owned());
            let columns = ledger_row::unpack(&minutes)?;
            Ok(LedgerRow { family, guest, hour: Hour(hour), columns })
        };
        let mut rows: Vec<LedgerRow> = found.into_iter().map(row).collect::<Result<_, _>>()?;
        rows.sort_unstable_by_key(|row| row.hour);
        Ok(rows)
    }

    /// See [`crate::store::Store::ledger_guests`].
    pub async fn ledger_guests(
        &self,
        family: &str,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<String>, StoreError> {
        let Some(hours) = self.live_ledger(hours) else { return Ok(Vec::new()) };
        let family: Arc<str> = family.into();
        let (statements, mut guests) = (&self.shared.statements, BTreeSet::new());
        // A guest is in the list of every month: what is bounded is how many there are.
        for month in months(hours) {
            let keys = self.shards().map(|shard| (Arc::clone(&family), month.0, shard));
            let rows: Vec<(String,)> =
                partitions(&self.shared, &statements.sealed.guests, keys, rows_max).await?;
            guests.extend(rows.into_iter().map(|(guest,)| guest));
            if guests.len() > rows_max {
                return Err(StoreError::TooManyRows {
                    table: statements.sealed.guests.table,
                    rows_max,
                });
            }
        }
        Ok(guests.into_iter().collect())
    }

    /// See [`crate::store::Store::oldest_head`]: the begin of the first week that has a metric,
    /// which the index knows before the head has a row.
    pub async fn oldest_head(&self) -> Result<Option<Hour>, StoreError> {
        let now_ms = self.shared.clock.now_ms();
        let first = Week::of(self.live_ms(self.shared.retention_ms));
        let last = Week::of(now_ms.saturating_add(limits::AHEAD_MS_MAX));
        let keys = (first.0..=last.0).map(|week| (week,));
        let select = &self.shared.statements.week_in_use;
        let rows: Vec<(i32,)> =
            partitions(&self.shared, select, keys, limits::QUERY_ROWS_MAX).await?;
        Ok(rows.into_iter().map(|(week,)| Week(week).hours().0).min())
    }

    /// See [`crate::store::Store::row_key_page`]. Sorted by shard, then as the cluster sorts; a
    /// page ends with its shard.
    pub async fn row_key_page(
        &self,
        (week, shard): (Week, Option<Shard>),
        after: Option<&(String, Group)>,
        rows: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        let (shared, statements) = (&self.shared, &self.shared.statements);
        let (limit, mut next) = (limit(rows), 0);
        if let Some((row_key, group)) = after {
            let of_group = group_shard(*group, shared.index_shards);
            let key = [(week.0, of_group, row_key.clone(), group.0.cast_signed(), limit)];
            let page = partitions(shared, &statements.row_key_page_after, key, rows).await?;
            if !page.is_empty() {
                return Ok(page.into_iter().map(row_key_row).collect());
            }
            next = of_group + 1;
        }
        for shard in self.asked(shard).filter(|shard| *shard >= next) {
            let key = [(week.0, shard, limit)];
            let page = partitions(shared, &statements.row_key_page, key, rows).await?;
            if !page.is_empty() {
                return Ok(page.into_iter().map(row_key_row).collect());
            }
        }
        Ok(Vec::new())
    }

    /// The shards that a page is asked of.
    pub(super) fn asked(&self, shard: Option<Shard>) -> impl Iterator<Item = i16> + use<> {
        self.shards().filter(move |one| shard.is_none_or(|shard| shard.0 == one.cast_unsigned()))
    }

    /// The part of a range of hours whose samples have not all expired.
    fn live(&self, hours: (Hour, Hour)) -> Option<(Hour, Hour)> {
        let from = hours.0.max(Hour::of(self.live_ms(self.shared.retention_ms)));
        (from <= hours.1).then_some((from, hours.1))
    }

    /// The part of a range of hours whose rows of the ledger have not all expired.
    fn live_ledger(&self, hours: (Hour, Hour)) -> Option<(Hour, Hour)> {
        let from = hours.0.max(Hour::of(self.live_ms(self.shared.ledger_ms)));
        (from <= hours.1).then_some((from, hours.1))
    }

    /// Everything older, if kept for so long, has expired.
    fn live_ms(&self, kept_ms: i64) -> i64 {
        self.shared.clock.now_ms().saturating_sub(kept_ms.saturating_add(3 * DAY_MS))
    }
}

/// The months that a range of hours touches.
fn months(hours: (Hour, Hour)) -> impl Iterator<Item = Month> + use<> {
    (Month::of(hours.0.start_ms()).0..=Month::of(hours.1.start_ms()).0).map(Month)
}

pub(super) fn limit(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}

fn row_key_row((row_key, group): (String, i64)) -> (String, Group) {
    (row_key, Group(group.cast_unsigned()))
}
