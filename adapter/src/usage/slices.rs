//! A guest's rows of a family, a part of the range at a time: as they stand in the ledger, or
//! counted from samples where they do not.

use std::sync::Arc;

use super::{Minutes, Usage};
use crate::ledger::guest::Guest;
use crate::ledger::{Family, Row};
use crate::legacy::Devices;
use crate::limits;
use crate::meter::{Counted, Run, Standing};
use crate::model::time::Hour;
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
    /// The hours that are left to plan, both included.
    hours: Option<(Hour, Hour)>,
    /// Planned, the next one last.
    runs: Vec<Run>,
    counted: Option<Counted>,
}

impl Slices {
    /// Rows of what is asked for, as far as it is kept.
    pub fn new(usage: &Arc<Usage>, asked: Asked) -> Slices {
        let range = asked.minutes.samples().and_then(|range| usage.engine.billed_range(range));
        let hours = range.map(|range| (Hour::of(range.start_ms), Hour::of(range.end_ms)));
        Slices { usage: Arc::clone(usage), asked, hours, runs: Vec::new(), counted: None }
    }

    /// The next rows, sorted by minute and device; `None` at the end. Takes a slot for as long as
    /// it works: a client that takes its answer slowly keeps nobody else waiting.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, QueryError> {
        let usage = Arc::clone(&self.usage);
        let _slot = usage.slots.acquire().await?;
        let Some(mut rows) = self.rows().await? else { return Ok(None) };
        let Asked { devices, minutes, .. } = &self.asked;
        rows.retain(|row| minutes.hold(row.minute_ms) && devices.hold(&row.column));
        usage.metrics.minutes(&rows);
        Ok(Some(rows))
    }

    async fn rows(&mut self) -> Result<Option<Vec<Row>>, QueryError> {
        let meter = Arc::clone(&self.usage.meter);
        loop {
            if let Some(counted) = &mut self.counted {
                if let Some(hours) = counted.next().await? {
                    return Ok(Some(hours.into_iter().flat_map(|hour| hour.rows).collect()));
                }
                self.counted = None;
            }
            let Asked { guest, family, .. } = &self.asked;
            match self.runs.pop() {
                Some(Run { standing: Standing::Stored, hours }) => {
                    return meter.stored(guest, *family, hours).await.map(Some);
                }
                Some(Run { standing: Standing::Counted, hours }) => {
                    let families = vec![*family];
                    self.counted = Some(Counted::new(&meter, guest.clone(), families, hours));
                }
                None => {
                    let Some((first, last)) = self.hours.take() else { return Ok(None) };
                    // Planned in parts: what is sealed while a long answer is taken stands then.
                    let end = Hour(last.0.min(first.0 + limits::REPORT_PLAN_HOURS - 1));
                    self.runs = meter.runs(guest, (first, end)).await?;
                    self.runs.reverse();
                    self.hours = (end < last).then_some((Hour(end.0 + 1), last));
                }
            }
        }
    }
}
