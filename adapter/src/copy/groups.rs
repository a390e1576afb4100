//! A group's week: its series, its chunks and markers, and what of its head is not sealed; written,
//! read back and compared. Knows no payload.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{Copy, CopyError, Counts, Done, of_from, of_to};
use crate::engine;
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};
use crate::store::rows::{ChunkRow, HeadKey, HeadRow, LateRow, MarkerRow, Rows, Sealed};
use crate::store::{Store, StoreError};

/// What a group holds of a week.
#[derive(Debug, Default)]
struct OfWeek {
    series: Vec<(SeriesId, Bytes)>,
    /// By series, window and hash of the payload.
    chunks: BTreeMap<(SeriesId, Hour, u64), Bytes>,
    markers: BTreeSet<Hour>,
    /// Of windows that are not sealed, or that something came late to.
    head: BTreeMap<(Hour, HeadKey), Bytes>,
}

impl Copy {
    /// Copies the groups of a week that are not finished.
    pub(super) async fn week(
        &mut self,
        week: Week,
        tell: &mut (dyn FnMut(&Done) + Send),
    ) -> Result<(), CopyError> {
        let mut last = self.progress.after(week);
        self.progress.finish(week, last.as_ref())?;
        loop {
            let page =
                self.from.row_key_page((week, None), last.as_ref(), limits::COPY_PAGE_ROWS).await;
            let page = page.map_err(of_from)?;
            if page.is_empty() {
                // The next week may have nothing, and this one is finished.
                return self.progress.finish(Week(week.0 + 1), None);
            }
            for (row_key, group) in &page {
                self.group(week, row_key, *group).await?;
            }
            last = page.into_iter().next_back();
            self.progress.finish(week, last.as_ref())?;
            tell(self.progress.done());
        }
    }

    async fn group(&mut self, week: Week, row_key: &str, group: Group) -> Result<(), CopyError> {
        let read = self.read(&self.from, week, group, None).await.map_err(of_from)?;
        let mut index = Vec::with_capacity(read.series.len());
        for (series, labels) in &read.series {
            let placed = (group, row_key.to_owned());
            index
                .push(engine::index_row((week, *series), placed, labels.clone()).map_err(of_from)?);
        }
        self.to.append(Rows { index, ..Rows::default() }).await.map_err(of_to)?;
        self.seals(group, &read).await.map_err(of_to)?;
        self.heads(group, &read).await.map_err(of_to)?;
        self.compare(week, row_key, group, &read).await
    }

    async fn seals(&self, group: Group, read: &OfWeek) -> Result<(), StoreError> {
        let row = |((series, window, hash), payload): (&(SeriesId, Hour, u64), &Bytes)| ChunkRow {
            group,
            series: *series,
            window: *window,
            hash: *hash,
            payload: payload.clone(),
        };
        let chunks: Vec<ChunkRow> = read.chunks.iter().map(row).collect();
        for chunks in chunks.chunks(limits::COPY_CHUNKS_AT_ONCE) {
            self.to.seal(Sealed { chunks: chunks.to_vec(), ..Sealed::default() }).await?;
        }
        // Heads that were sealed are not copied: the markers go last.
        let marker = |window: &Hour| MarkerRow { group, window: *window };
        let markers = read.markers.iter().map(marker).collect();
        self.to.seal(Sealed { markers, ..Sealed::default() }).await
    }

    /// Heads, and a late row for each whose window is sealed, or would not be swept any more.
    async fn heads(&self, group: Group, read: &OfWeek) -> Result<(), StoreError> {
        let arrived_ms = self.clock.now_ms();
        let rows: Vec<_> = read.head.iter().collect();
        for rows in rows.chunks(limits::COPY_HEADS_AT_ONCE) {
            let row = |((hour, (first_ms, hash)), payload): &(&(Hour, HeadKey), &Bytes)| HeadRow {
                group,
                hour: *hour,
                first_ms: *first_ms,
                hash: *hash,
                payload: (*payload).clone(),
            };
            let head: Vec<HeadRow> = rows.iter().map(row).collect();
            let late = head.iter().filter_map(|row| {
                let window = self.layouts.window(row.hour).first;
                let is_late = window < self.swept_until || read.markers.contains(&window);
                is_late.then_some(LateRow { group, window, arrived_ms, hash: row.hash })
            });
            let late = late.collect();
            self.to.append(Rows { late, head, ..Rows::default() }).await?;
        }
        Ok(())
    }

    /// Reads a group's week; of the head the given windows, or those that are not sealed.
    async fn read(
        &self,
        store: &Store,
        week: Week,
        group: Group,
        windows: Option<&BTreeSet<Hour>>,
    ) -> Result<OfWeek, StoreError> {
        let hours = week.hours();
        let series = store.series(week, group, limits::QUERY_ROWS_MAX).await?;
        let ids: Vec<SeriesId> = series.iter().map(|(id, _)| *id).collect();
        let markers: BTreeSet<Hour> = store.markers(group, hours).await?.into_iter().collect();
        let late = store.late(group, hours, limits::QUERY_ROWS_MAX).await?;
        let dirty: BTreeSet<Hour> = late.iter().map(|row| row.window).collect();
        let mut read = OfWeek { series, markers, ..OfWeek::default() };
        chunks(store, group, (&ids, hours), &mut read.chunks).await?;
        let mut hour = hours.0;
        while hour <= hours.1 {
            let window = self.layouts.window(hour);
            let is_wanted = match windows {
                Some(windows) => windows.contains(&window.first),
                None => !read.markers.contains(&window.first) || dirty.contains(&window.first),
            };
            let last = window.last().min(hours.1);
            if is_wanted {
                for hour in (hour.0..=last.0).map(Hour) {
                    head(store, group, hour, &mut read.head).await?;
                }
            }
            hour = Hour(last.0 + 1);
        }
        Ok(read)
    }

    /// Reads back what was written: everything that was read is there, to the bit.
    async fn compare(
        &mut self,
        week: Week,
        row_key: &str,
        group: Group,
        read: &OfWeek,
    ) -> Result<(), CopyError> {
        let window = |(hour, _): &(Hour, HeadKey)| self.layouts.window(*hour).first;
        let windows: BTreeSet<Hour> = read.head.keys().map(window).collect();
        let copied = self.read(&self.to, week, group, Some(&windows)).await.map_err(of_to)?;
        let lost = |what: &str| {
            Err(CopyError::Differs(format!(
                "{what} of {row_key} in the week that begins at hour {} cannot be read back; run \
                 the copy again",
                week.hours().0.0
            )))
        };
        let (mut series, mut chunks, mut head) =
            (Counts::default(), Counts::default(), Counts::default());
        for (id, labels) in &read.series {
            if copied.series.binary_search_by_key(id, |(id, _)| *id).is_err() {
                return lost("a series");
            }
            series.add(labels.len(), xxh3_64(labels));
        }
        for (key, payload) in &read.chunks {
            if copied.chunks.get(key) != Some(payload) {
                return lost("a chunk");
            }
            chunks.add(payload.len(), xxh3_64(payload));
        }
        for (key, payload) in &read.head {
            if copied.head.get(key) != Some(payload) {
                return lost("a row of the head");
            }
            head.add(payload.len(), xxh3_64(payload));
        }
        if !read.markers.is_subset(&copied.markers) {
            return lost("a marker");
        }
        let done = self.progress.done_mut();
        done.series.plus(series);
        done.chunks.plus(chunks);
        done.head.plus(head);
        done.groups += 1;
        Ok(())
    }
}

/// Every chunk of some series in a range of hours; divided where it is too much for one read.
async fn chunks(
    store: &Store,
    group: Group,
    (series, hours): (&[SeriesId], (Hour, Hour)),
    found: &mut BTreeMap<(SeriesId, Hour, u64), Bytes>,
) -> Result<(), StoreError> {
    let mut left = vec![(series, hours)];
    while let Some((series, (from, to))) = left.pop() {
        match store.chunks(group, series, (from, to)).await {
            Ok(chunks) => found.extend(chunks.into_iter().map(|chunk| {
                ((chunk.series, chunk.window, xxh3_64(&chunk.payload)), chunk.payload)
            })),
            Err(error) if error.is_too_much() && from < to => {
                let middle = i32::midpoint(from.0, to.0);
                left.push((series, (from, Hour(middle))));
                left.push((series, (Hour(middle + 1), to)));
            }
            Err(error) if error.is_too_much() && series.len() > 1 => {
                let (one, other) = series.split_at(series.len() / 2);
                left.extend([(one, (from, to)), (other, (from, to))]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Every row of the head of one hour.
async fn head(
    store: &Store,
    group: Group,
    hour: Hour,
    found: &mut BTreeMap<(Hour, HeadKey), Bytes>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.head_page(group, hour, after).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        found.extend(page.into_iter().map(|(key, payload)| ((hour, key), payload)));
    }
}
