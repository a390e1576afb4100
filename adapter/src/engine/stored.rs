//! The samples of one group as they are stored, sealed or not: head rows and chunks become samples
//! here and nowhere else. Knows no matchers and no order; who asks merges.

use std::collections::BTreeSet;

use super::chunk;
use super::layout::Layouts;
use super::pack::unpack;
use super::select::SelectError;
use crate::limits;
use crate::model::row_key::Group;
use crate::model::sample::Sample;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, TimeRange};
use crate::store::{Store, StoreError};

/// Hours of head rows that are asked for at once: of a guest about 2 MiB.
const HOURS_AT_ONCE: i32 = 6;
/// Hours whose windows of chunks are asked for at once.
const CHUNK_HOURS_AT_ONCE: i32 = 28 * 24;

/// A view of what is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'e> {
    pub(super) store: &'e Store,
    pub(super) layouts: &'e Layouts,
}

impl Stored<'_> {
    /// Hands every sample of these series of a group in a range to `each`, in no order; a sample
    /// that is stored twice comes twice. Windows that are sealed are read from chunks alone.
    ///
    /// The markers are read before the head, and the head before the chunks: a window that is
    /// sealed meanwhile is found in one of them, also where its head is dropped at once.
    pub(super) async fn samples(
        &self,
        group: Group,
        range: TimeRange,
        series: &[SeriesId],
        each: &mut (impl FnMut(SeriesId, Sample) -> Result<(), SelectError> + Send),
    ) -> Result<(), SelectError> {
        let hours = (Hour::of(range.start_ms), Hour::of(range.end_ms));
        let mut taken = |series: SeriesId, sample: Sample| {
            if range.contains(sample.timestamp_ms) { each(series, sample) } else { Ok(()) }
        };
        for run in self.unsealed(group, hours).await? {
            self.head(group, run, &mut |id, sample| {
                if series.binary_search(&id).is_ok() { taken(id, sample) } else { Ok(()) }
            })
            .await?;
        }
        self.chunks(group, hours, series, &mut taken).await
    }

    /// The runs of hours of which the head must be read: of windows that have no marker, or that
    /// something came late to.
    async fn unsealed(
        &self,
        group: Group,
        hours: (Hour, Hour),
    ) -> Result<Vec<(Hour, Hour)>, SelectError> {
        let windows = (self.layouts.window(hours.0).first, hours.1);
        let mut sealed: BTreeSet<Hour> =
            self.store.markers(group, windows).await?.into_iter().collect();
        if !sealed.is_empty() {
            match self.store.late(group, windows, limits::QUERY_ROWS_MAX).await {
                Ok(late) => {
                    let late: BTreeSet<Hour> = late.iter().map(|row| row.window).collect();
                    sealed.retain(|window| !late.contains(window));
                }
                Err(error) if error.is_too_much() => sealed.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        let mut runs: Vec<(Hour, Hour)> = Vec::new();
        let mut hour = hours.0;
        while hour <= hours.1 {
            let window = self.layouts.window(hour);
            let last = window.last().min(hours.1);
            if !sealed.contains(&window.first) {
                match runs.last_mut() {
                    Some(run) if run.1.0 + 1 == hour.0 => run.1 = last,
                    _ => runs.push((hour, last)),
                }
            }
            hour = Hour(window.last().0 + 1);
        }
        Ok(runs)
    }

    /// Hands every sample of a group's head rows in a range of hours to `each`.
    pub(super) async fn head(
        &self,
        group: Group,
        hours: (Hour, Hour),
        each: &mut (impl FnMut(SeriesId, Sample) -> Result<(), SelectError> + Send),
    ) -> Result<(), SelectError> {
        for mut part in parts(hours, HOURS_AT_ONCE) {
            while let Some((from, to)) = part.pop() {
                match self.store.head(group, (from, to), limits::QUERY_ROWS_MAX).await {
                    Ok(rows) => rows.iter().try_for_each(|payload| hand_out(payload, each))?,
                    Err(error) if error.is_too_much() && from < to => halve(&mut part, (from, to)),
                    Err(error) if error.is_too_much() => self.pages(group, from, each).await?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// The same for an hour that is too much for one read.
    async fn pages(
        &self,
        group: Group,
        hour: Hour,
        each: &mut (impl FnMut(SeriesId, Sample) -> Result<(), SelectError> + Send),
    ) -> Result<(), SelectError> {
        let mut after = None;
        loop {
            let page = self.store.head_page(group, hour, after).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            page.iter().try_for_each(|(_, payload)| hand_out(payload, each))?;
        }
    }

    /// Hands every sample of these series' chunks whose windows touch a range of hours to `each`.
    pub(super) async fn chunks(
        &self,
        group: Group,
        hours: (Hour, Hour),
        series: &[SeriesId],
        each: &mut (impl FnMut(SeriesId, Sample) -> Result<(), SelectError> + Send),
    ) -> Result<(), SelectError> {
        let mut samples = Vec::new();
        let windows = (self.layouts.window(hours.0).first, hours.1);
        for part in parts(windows, CHUNK_HOURS_AT_ONCE) {
            let mut left: Vec<_> = part.into_iter().map(|hours| (hours, series)).collect();
            while let Some(((from, to), series)) = left.pop() {
                match self.store.chunks(group, series, (from, to)).await {
                    Ok(chunks) => {
                        for found in chunks {
                            samples.clear();
                            chunk::decode(&found.payload, &mut samples)
                                .map_err(|error| StoreError::Damaged(error.to_string()))?;
                            samples.iter().try_for_each(|sample| each(found.series, *sample))?;
                        }
                    }
                    Err(error) if error.is_too_much() && from < to => {
                        let middle = i32::midpoint(from.0, to.0);
                        left.push(((Hour(middle + 1), to), series));
                        left.push(((from, Hour(middle)), series));
                    }
                    Err(error) if error.is_too_much() && series.len() > 1 => {
                        let (one, other) = series.split_at(series.len() / 2);
                        left.extend([other, one].map(|series| ((from, to), series)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Hands every sample of a head row to `each`.
fn hand_out(
    payload: &[u8],
    each: &mut impl FnMut(SeriesId, Sample) -> Result<(), SelectError>,
) -> Result<(), SelectError> {
    let mut result = Ok(());
    let unpacked = unpack(payload, |point| {
        if result.is_ok() {
            result = each(point.series, point.sample);
        }
    });
    unpacked.map_err(|error| StoreError::Damaged(error.to_string()))?;
    result
}

/// A range of hours in parts, each as a stack that can be divided further.
fn parts(hours: (Hour, Hour), length: i32) -> impl Iterator<Item = Vec<(Hour, Hour)>> {
    let step = usize::try_from(length).unwrap_or(1);
    (hours.0.0..=hours.1.0)
        .step_by(step)
        .map(move |from| vec![(Hour(from), Hour(hours.1.0.min(from + length - 1)))])
}

fn halve(parts: &mut Vec<(Hour, Hour)>, (from, to): (Hour, Hour)) {
    let middle = i32::midpoint(from.0, to.0);
    parts.extend([(Hour(middle + 1), to), (from, Hour(middle))]);
}
