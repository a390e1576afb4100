//! A guest's rows of a family, a part of the range at a time: as they stand in the ledger, or
//! counted from samples where they do not; under all names that the guest had.

use std::sync::Arc;

use super::{Minutes, Usage};
use crate::ledger::guest::Guest;
use crate::ledger::{Family, Row};
use crate::legacy::Devices;
use crate::limits;
use crate::meter::{Counted, Meter, Named, Run, Standing};
use crate::model::time::{Hour, TimeRange, Week};
use crate::query::QueryError;

/// Whose rows are asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The guest.
    pub guest: Guest,
    /// The family.
    pub family: Family,
    /// Which devices.
    pub devices: Devices,
    /// Which minutes.
    pub minutes: Minutes,
}

/// Rows under way, oldest first.
#[derive(Debug)]
pub struct Slices {
    usage: Arc<Usage>,
    asked: Asked,
    /// One for each of the guest's names, itself first; found with the first rows.
    strands: Option<Vec<Strand>>,
}

/// The rows that are stored and counted under one name.
#[derive(Debug)]
struct Strand {
    named: Named,
    family: Family,
    /// The hours that are left to plan, both included.
    hours: Option<(Hour, Hour)>,
    /// Planned, the next one last.
    runs: Vec<Run>,
    counted: Option<Counted>,
    /// Rows that wait for those of other names.
    ready: Vec<Row>,
    /// The last hour whose rows are ready; all, where there is nothing left to read.
    until: Hour,
}

/// The end of a strand.
const ENDED: Hour = Hour(i32::MAX);

impl Slices {
    /// Rows of what is asked for, as far as it is kept.
    pub fn new(usage: &Arc<Usage>, asked: Asked) -> Slices {
        Slices { usage: Arc::clone(usage), asked, strands: None }
    }

    /// The next rows, sorted by minute and device; `None` at the end. Takes a slot for as long as
    /// it works: a client that takes its answer slowly keeps nobody else waiting.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, QueryError> {
        let usage = Arc::clone(&self.usage);
        let is_ended = |strand: &Strand| strand.until == ENDED;
        if self.strands.as_ref().is_some_and(|strands| strands.iter().all(is_ended)) {
            return Ok(None);
        }
        let _slot = usage.slots.acquire().await?;
        let Some(mut rows) = self.rows(&usage).await? else { return Ok(None) };
        let Asked { devices, minutes, .. } = &self.asked;
        rows.retain(|row| minutes.hold(row.minute_ms) && devices.hold(&row.column));
        usage.metrics.minutes(&rows);
        Ok(Some(rows))
    }

    async fn rows(&mut self, usage: &Usage) -> Result<Option<Vec<Row>>, QueryError> {
        let strands = match &mut self.strands {
            Some(strands) => strands,
            none => none.insert(strands(usage, &self.asked).await?),
        };
        let behind = strands.iter_mut().filter(|strand| strand.until != ENDED);
        let Some(behind) = behind.min_by_key(|strand| strand.until) else { return Ok(None) };
        behind.advance(&usage.meter).await?;
        let until = strands.iter().map(|strand| strand.until).min().unwrap_or(ENDED);
        let parts = strands.iter_mut().map(|strand| strand.take(until)).collect();
        Ok(Some(merged(self.asked.family, parts)))
    }
}

async fn strands(usage: &Usage, asked: &Asked) -> Result<Vec<Strand>, QueryError> {
    let range = asked.minutes.samples().and_then(|range| usage.engine.billed_range(range));
    let Some(TimeRange { start_ms, end_ms }) = range else { return Ok(Vec::new()) };
    let hours = (Hour::of(start_ms), Hour::of(end_ms));
    let names = usage.names(&asked.guest).await?.into_iter();
    let strand = |named| Strand {
        named,
        family: asked.family,
        hours: Some(hours),
        runs: Vec::new(),
        counted: None,
        ready: Vec::new(),
        until: Hour(hours.0.0 - 1),
    };
    Ok(names.map(strand).collect())
}

impl Strand {
    /// Reads the next rows.
    async fn advance(&mut self, meter: &Arc<Meter>) -> Result<(), QueryError> {
        loop {
            if let Some(counted) = &mut self.counted {
                if let Some(hours) = counted.next().await? {
                    self.until = counted.until();
                    self.keep(hours.into_iter().flat_map(|hour| hour.rows));
                    return Ok(());
                }
                self.counted = None;
            }
            match self.runs.pop() {
                Some(Run { standing: Standing::Stored, hours }) => {
                    let rows = meter.stored(&self.named.name, self.family, hours).await?;
                    self.keep(rows.into_iter());
                    self.until = hours.1;
                    return Ok(());
                }
                Some(Run { standing: Standing::Counted, hours }) => {
                    let families = vec![self.family];
                    self.counted =
                        Some(Counted::new(meter, self.named.name.clone(), families, hours));
                }
                None => {
                    let Some((first, last)) = self.hours.take() else {
                        self.until = ENDED;
                        return Ok(());
                    };
                    // Planned in parts: what is sealed while a long answer is taken stands then.
                    let end = Hour(last.0.min(first.0 + limits::REPORT_PLAN_HOURS - 1));
                    self.runs = meter.runs(&self.named.name, (first, end)).await?;
                    self.runs.reverse();
                    self.hours = (end < last).then_some((Hour(end.0 + 1), last));
                }
            }
        }
    }

    /// What is the guest's of rows under this name.
    fn keep(&mut self, rows: impl Iterator<Item = Row>) {
        let named = &self.named;
        self.ready.extend(rows.filter(|row| named.holds(Week::of(row.minute_ms))));
    }

    /// Its rows up to an hour.
    fn take(&mut self, until: Hour) -> Vec<Row> {
        let end = self.ready.partition_point(|row| Hour::of(row.minute_ms) <= until);
        self.ready.drain(..end).collect()
    }
}

/// The rows of several names of one guest, the guest itself first, each sorted by minute and device.
/// Where two have the same minute, it lived on two hosts: amounts are added; of a gauge, what an
/// exporter saw counts.
pub(super) fn merged(family: Family, mut parts: Vec<Vec<Row>>) -> Vec<Row> {
    parts.retain(|part| !part.is_empty());
    if parts.len() < 2 {
        return parts.pop().unwrap_or_default();
    }
    let mut rows: Vec<Row> = parts.into_iter().flatten().collect();
    // Stable: what came first stays first.
    rows.sort_by(|one, other| {
        one.minute_ms.cmp(&other.minute_ms).then_with(|| one.column.cmp(&other.column))
    });
    rows.dedup_by(|next, kept| {
        let is_same = next.minute_ms == kept.minute_ms && next.column == kept.column;
        if is_same && !matches!(family, Family::MemMax | Family::MemFree) {
            kept.value += next.value;
            kept.samples = kept.samples.saturating_add(next.samples);
            kept.resets = kept.resets.saturating_add(next.resets);
            kept.flags = kept.flags.or(next.flags);
        }
        is_same
    });
    rows
}
