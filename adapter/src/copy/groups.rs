//! A group's week: its series, its chunks and markers, and what of its head is not sealed; written
//! where they are not there yet, read back and compared. Knows no payload.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use xxhash_rust::xxh3::xxh3_64;

use super::{Copy, CopyError, Counts, Done, of_from, of_to};
use crate::engine;
use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{DAY_MS, Hour, Week};
use crate::store::rows::{ChunkRow, HeadKey, HeadRow, LateRow, MarkerRow, Rows, SealMark, Sealed};
use crate::store::{Store, StoreError};

/// A group in the part of a week that is kept.
#[derive(Clone, Copy, Debug)]
struct Part {
    week: Week,
    group: Group,
    /// Both included.
    hours: (Hour, Hour),
}

/// What a store holds of it.
#[derive(Debug, Default)]
struct Held {
    /// Bytes and hash of the labels: all of them may be more than is held at once.
    series: BTreeMap<SeriesId, (usize, u64)>,
    /// By series, window and hash of the payload.
    chunks: BTreeMap<(SeriesId, Hour, u64), Bytes>,
    markers: BTreeSet<Hour>,
    /// Of some windows.
    head: BTreeMap<(Hour, HeadKey), Bytes>,
}

/// The windows whose heads are read.
#[derive(Clone, Copy, Debug)]
enum Heads<'a> {
    /// Those that are not sealed or that something came late to, and these.
    UnsealedAnd(&'a BTreeSet<Hour>),
    /// These.
    Of(&'a BTreeSet<Hour>),
}

impl Held {
    /// What another store does not hold.
    fn without(&self, other: &Held) -> Held {
        let series = self.series.iter().filter(|(id, _)| !other.series.contains_key(id));
        let chunks = self.chunks.iter().filter(|(key, _)| !other.chunks.contains_key(key));
        let head = self.head.iter().filter(|(key, _)| !other.head.contains_key(key));
        Held {
            series: series.map(|(id, labels)| (*id, *labels)).collect(),
            chunks: chunks.map(|(key, payload)| (*key, payload.clone())).collect(),
            markers: self.markers.difference(&other.markers).copied().collect(),
            head: head.map(|(key, payload)| (*key, payload.clone())).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        let Held { series, chunks, markers, head } = self;
        series.is_empty() && chunks.is_empty() && markers.is_empty() && head.is_empty()
    }
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
        let oldest = self.layouts.window(Hour::of(self.oldest_ms())).first;
        let (first, last) = week.hours();
        let part = Part { week, group, hours: (first.max(oldest), last) };
        let nothing = BTreeSet::new();
        let read = self.read(&self.from, part, Heads::UnsealedAnd(&nothing)).await;
        let read = read.map_err(of_from)?;
        let windows = self.windows_of_head(&read);
        // A week that nobody else knows anything near of is written without looking.
        let there = if self.is_shared(week) {
            Some(self.there(part, &windows).await.map_err(of_to)?)
        } else {
            None
        };
        let missing = read.without(there.as_ref().unwrap_or(&Held::default()));
        let copied = match there {
            Some(there) if missing.is_empty() => there,
            there => {
                let late = there.map_or_else(BTreeSet::new, |there| self.late(&missing, &there));
                self.write((part, row_key), &missing, &late).await?;
                self.read(&self.to, part, Heads::Of(&windows)).await.map_err(of_to)?
            }
        };
        self.compare(part, row_key, (&read, &copied))
    }

    /// What the store that is written holds already. Without a series it holds nothing: the index is
    /// written first.
    async fn there(&self, part: Part, windows: &BTreeSet<Hour>) -> Result<Held, StoreError> {
        let Part { week, group, .. } = part;
        if self.to.series_page(week, group, None).await?.rows.is_empty() {
            return Ok(Held::default());
        }
        self.read(&self.to, part, Heads::UnsealedAnd(windows)).await
    }

    /// The windows that are late once they are written, because whoever works on the store holds
    /// something beside them. One whose head holds what no chunk does must be
    /// sealed again; and what is counted again with the first and the last one are the hours of
    /// these and of the seven days behind them, which their samples can change.
    fn late(&self, missing: &Held, there: &Held) -> BTreeSet<Hour> {
        let of_chunks = missing.chunks.keys().map(|(_, window, _)| *window);
        let mut late: BTreeSet<Hour> = of_chunks.chain(missing.markers.iter().copied()).collect();
        let (now_ms, counted_ms) = (self.clock.now_ms(), self.counted_ms());
        let counted = || late.iter().filter(|window| window.start_ms() >= counted_ms).copied();
        let ends: BTreeSet<Hour> =
            counted().next().into_iter().chain(counted().next_back()).collect();
        let headed = self.windows_of_head(there);
        late.retain(|window| {
            // A grace has at most a day.
            let is_recent = self.layouts.window(*window).end_ms() + DAY_MS > now_ms;
            ends.contains(window) || headed.contains(window) || is_recent
        });
        late
    }

    fn windows_of_head(&self, held: &Held) -> BTreeSet<Hour> {
        held.head.keys().map(|(hour, _)| self.layouts.window(*hour).first).collect()
    }

    async fn write(
        &self,
        (part, row_key): (Part, &str),
        missing: &Held,
        late: &BTreeSet<Hour>,
    ) -> Result<(), CopyError> {
        self.index((part, row_key), missing).await?;
        // Late before a marker hides what is in the head, and again when all is there: a seal in
        // between has seen a part of it, and takes the first ones away.
        self.mark((part.group, 0), late).await.map_err(of_to)?;
        self.seals(part.group, missing).await.map_err(of_to)?;
        self.mark((part.group, 1), late).await.map_err(of_to)?;
        self.heads(part.group, missing).await.map_err(of_to)
    }

    /// Series whose labels are read once more, a page at a time.
    async fn index(
        &self,
        (Part { week, group, .. }, row_key): (Part, &str),
        missing: &Held,
    ) -> Result<(), CopyError> {
        if missing.series.is_empty() {
            return Ok(());
        }
        let mut pages = self.from.series_pages(week, group);
        while let Some(rows) = pages.try_next().await.map_err(of_from)? {
            let rows = rows.into_iter().filter(|(id, _)| missing.series.contains_key(id));
            let index = rows.map(|(series, labels)| {
                engine::index_row((week, series), (group, row_key.to_owned()), labels)
            });
            let index = index.collect::<Result<Vec<_>, _>>().map_err(of_from)?;
            // Each append has a write's deadline.
            for index in index.chunks(limits::COPY_INDEX_AT_ONCE) {
                let index = index.to_vec();
                self.to.append(Rows { index, ..Rows::default() }).await.map_err(of_to)?;
            }
        }
        Ok(())
    }

    /// Has windows sealed again. The number tells rows of one millisecond apart.
    pub(super) async fn mark(
        &self,
        (group, hash): (Group, u64),
        windows: &BTreeSet<Hour>,
    ) -> Result<(), StoreError> {
        let arrived_ms = self.clock.now_ms();
        let row = |window: &Hour| LateRow { group, window: *window, arrived_ms, hash };
        let late = windows.iter().map(row).collect();
        self.to.append(Rows { late, ..Rows::default() }).await
    }

    async fn seals(&self, group: Group, missing: &Held) -> Result<(), StoreError> {
        let row = |((series, window, hash), payload): (&(SeriesId, Hour, u64), &Bytes)| ChunkRow {
            group,
            series: *series,
            window: *window,
            hash: *hash,
            payload: payload.clone(),
        };
        let chunks: Vec<ChunkRow> = missing.chunks.iter().map(row).collect();
        for chunks in chunks.chunks(limits::COPY_CHUNKS_AT_ONCE) {
            self.to.seal(Sealed { chunks: chunks.to_vec(), ..Sealed::default() }).await?;
        }
        // Heads that were sealed are not copied: the markers go last.
        let marker = |window: &Hour| MarkerRow { group, window: *window };
        let markers = missing.markers.iter().map(marker).collect();
        self.to.seal(Sealed { markers, ..Sealed::default() }).await
    }

    /// Heads, and a late row for each whose window is sealed here or there, or may be before its head
    /// is written.
    async fn heads(&self, group: Group, missing: &Held) -> Result<(), StoreError> {
        let arrived_ms = self.clock.now_ms();
        let rows: Vec<_> = missing.head.iter().collect();
        for rows in rows.chunks(limits::COPY_HEADS_AT_ONCE) {
            let row = |((hour, (first_ms, hash)), payload): &(&(Hour, HeadKey), &Bytes)| HeadRow {
                group,
                hour: *hour,
                first_ms: *first_ms,
                hash: *hash,
                payload: (*payload).clone(),
            };
            let head: Vec<HeadRow> = rows.iter().map(row).collect();
            let windows: BTreeSet<Hour> =
                head.iter().map(|row| self.layouts.window(row.hour).first).collect();
            let begun = self.begun().await?;
            let late = head.iter().filter_map(|row| {
                let window = self.layouts.window(row.hour).first;
                let is_late = window < begun || missing.markers.contains(&window);
                is_late.then_some(LateRow { group, window, arrived_ms, hash: row.hash })
            });
            let late = late.collect();
            self.to.append(Rows { late, head, ..Rows::default() }).await?;
            // Whoever begins with a window from now on finds its head.
            let begun_since = begun..self.begun().await?.max(begun);
            let since = windows.into_iter().filter(|window| begun_since.contains(window));
            self.mark((group, 3), &since.collect()).await?;
        }
        Ok(())
    }

    /// Before which hour windows of the store that is written are sealed, or being sealed.
    async fn begun(&self) -> Result<Hour, StoreError> {
        let begun = self.to.seal_mark(SealMark::Begun).await?;
        let sealed = self.to.sealed_until().await?;
        Ok(begun.max(sealed).unwrap_or(Hour(i32::MIN)))
    }

    async fn read(
        &self,
        store: &Store,
        Part { week, group, hours }: Part,
        heads: Heads<'_>,
    ) -> Result<Held, StoreError> {
        // Markers before heads before chunks: what is sealed meanwhile is found in one of them.
        let markers: BTreeSet<Hour> = store.markers(group, hours).await?.into_iter().collect();
        let late = store.late(group, hours, limits::QUERY_ROWS_MAX).await?;
        let late: BTreeSet<Hour> = late.iter().map(|row| row.window).collect();
        let mut held = Held { markers, ..Held::default() };
        let mut wanted = Vec::new();
        let mut hour = hours.0;
        while hour <= hours.1 {
            let window = self.layouts.window(hour);
            let is_unsealed = !held.markers.contains(&window.first) || late.contains(&window.first);
            let is_wanted = match heads {
                Heads::Of(windows) => windows.contains(&window.first),
                Heads::UnsealedAnd(windows) => is_unsealed || windows.contains(&window.first),
            };
            let last = window.last().min(hours.1);
            if is_wanted {
                wanted.extend((hour.0..=last.0).map(Hour));
            }
            hour = Hour(last.0 + 1);
        }
        let heads = stream::iter(wanted).map(|hour| head(store, group, hour));
        let mut heads = heads.buffer_unordered(store.reads_at_once());
        while let Some(rows) = heads.try_next().await? {
            held.head.extend(rows);
        }
        held.series = series(store, week, group).await?;
        let ids: Vec<SeriesId> = held.series.keys().copied().collect();
        chunks(store, group, (&ids, hours), &mut held.chunks).await?;
        Ok(held)
    }

    /// Everything that was read is there, to the bit.
    fn compare(
        &mut self,
        part: Part,
        row_key: &str,
        (read, copied): (&Held, &Held),
    ) -> Result<(), CopyError> {
        let missing = read.without(copied);
        let lost = [
            ("a series", !missing.series.is_empty()),
            ("a chunk", !missing.chunks.is_empty()),
            ("a row of the head", !missing.head.is_empty()),
            ("a marker", !missing.markers.is_empty()),
        ];
        let is_other = |(key, payload): (&(SeriesId, Hour, u64), &Bytes)| {
            copied.chunks.get(key).is_some_and(|copied| copied != payload)
        };
        let is_other_head = |(key, payload): (&(Hour, HeadKey), &Bytes)| {
            copied.head.get(key).is_some_and(|copied| copied != payload)
        };
        let is_other_series = |(id, labels): (&SeriesId, &(usize, u64))| {
            copied.series.get(id).is_some_and(|copied| copied != labels)
        };
        let other = [
            ("a series", read.series.iter().any(is_other_series)),
            ("a chunk", read.chunks.iter().any(is_other)),
            ("a row of the head", read.head.iter().any(is_other_head)),
        ];
        if let Some((what, _)) = lost.iter().chain(&other).find(|(_, differs)| *differs) {
            return Err(CopyError::Differs(format!(
                "{what} of {row_key} in the week that begins at hour {} cannot be read back; run \
                 the copy again",
                part.week.hours().0.0
            )));
        }
        let (mut series, mut chunks, mut head) =
            (Counts::default(), Counts::default(), Counts::default());
        for (bytes, hash) in read.series.values() {
            series.add(*bytes, *hash);
        }
        for payload in read.chunks.values() {
            chunks.add(payload.len(), xxh3_64(payload));
        }
        for payload in read.head.values() {
            head.add(payload.len(), xxh3_64(payload));
        }
        let done = self.progress.done_mut();
        done.series.plus(series);
        done.chunks.plus(chunks);
        done.head.plus(head);
        done.groups += 1;
        Ok(())
    }
}

/// Every series of a group in a week.
async fn series(
    store: &Store,
    week: Week,
    group: Group,
) -> Result<BTreeMap<SeriesId, (usize, u64)>, StoreError> {
    let mut series = BTreeMap::new();
    let mut pages = store.series_pages(week, group);
    while let Some(rows) = pages.try_next().await? {
        series.extend(rows.iter().map(|(id, labels)| (*id, (labels.len(), xxh3_64(labels)))));
    }
    Ok(series)
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
) -> Result<Vec<((Hour, HeadKey), Bytes)>, StoreError> {
    let (mut after, mut rows) = (None, Vec::new());
    loop {
        let page = store.head_page(group, hour, after).await?;
        let Some((last, _)) = page.last() else { return Ok(rows) };
        after = Some(*last);
        rows.extend(page.into_iter().map(|(key, payload)| ((hour, key), payload)));
    }
}
