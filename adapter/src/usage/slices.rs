//! A guest's rows of a family, a day at a time, each sample read once: what later days depend on is
//! carried along thin, and what lies before the range is read only as far back as it matters.

use std::sync::Arc;

use super::{Minutes, Usage};
use crate::ledger::guest::Guest;
use crate::ledger::past::{forget, join, thin};
use crate::ledger::{Family, History, LOOKBACK_MS, Row, Series, Sufficiency};
use crate::legacy::Devices;
use crate::limits;
use crate::model::time::{HOUR_MS, Hour, TimeRange};
use crate::query::QueryError;

/// How far back the samples before a range are looked for, in hours, one after another: mostly the
/// hour before holds all that matters.
const LOOKBACK_HOURS: [i32; 3] = [1, 24, LOOKBACK_HOURS_MAX];
#[expect(clippy::cast_possible_truncation, reason = "170 hours")]
const LOOKBACK_HOURS_MAX: i32 = (LOOKBACK_MS / HOUR_MS) as i32;

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
    next: Hour,
    last: Hour,
    past: Past,
}

/// What is known of the guest so far.
#[derive(Debug)]
struct Past {
    /// Thinned, but for the hours that are counted now.
    series: Vec<Series>,
    /// From which hour on everything that matters is in them.
    from: Hour,
}

impl Slices {
    /// Rows of what is asked for, as far as it is kept.
    pub fn new(usage: &Arc<Usage>, asked: Asked) -> Slices {
        let range = asked.minutes.samples().and_then(|range| usage.engine.stored_range(range));
        let (next, last) = range
            .map_or((Hour(1), Hour(0)), |range| (Hour::of(range.start_ms), Hour::of(range.end_ms)));
        let usage = Arc::clone(usage);
        Slices { usage, asked, next, last, past: Past::unknown(next) }
    }

    /// The next rows, sorted by minute and device; `None` at the end. Takes a slot for as long as
    /// it works: a client that takes its answer slowly keeps nobody else waiting.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, QueryError> {
        if self.next > self.last {
            return Ok(None);
        }
        let usage = Arc::clone(&self.usage);
        let _slot = usage.slots.acquire().await?;
        let hours = self.last.0 - self.next.0 + 1;
        let span = (self.next, hours.min(limits::REPORT_SLICE_HOURS));
        let (current, last) = self.read(span).await?;
        // Who asks again after a fault begins without a past, and reads it anew.
        let mut past = std::mem::replace(&mut self.past, Past::unknown(self.next));
        past.series = join(past.series, current);
        let mut rows = loop {
            let (counted, rows) = self.count(past, last).await?;
            past = counted;
            match rows {
                Some(rows) => break rows,
                None => past = self.further_back(past).await?,
            }
        };
        self.next = Hour(last.0 + 1);
        self.past = past.before(self.next);
        let Asked { devices, minutes, .. } = &self.asked;
        rows.retain(|row| minutes.hold(row.minute_ms) && devices.hold(&row.column));
        self.usage.metrics.minutes(&rows);
        Ok(Some(rows))
    }

    /// The guest's series in some hours, or in the first of them where all are too much at once;
    /// says which hour is the last of them.
    async fn read(&self, (first, hours): (Hour, i32)) -> Result<(Vec<Series>, Hour), QueryError> {
        let mut hours = hours;
        loop {
            let last = Hour(first.0 + hours - 1);
            let range = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
            let metrics = self.asked.family.metrics_needed();
            match self.usage.series(&self.asked.guest, &metrics, range).await {
                Err(QueryError::TooMuch(_)) if hours > 1 => hours /= 2,
                read => return Ok((read?, last)),
            }
        }
    }

    /// The rows from `next` to `last`, where the past is enough for them. On a thread of its own: a
    /// guest of many devices takes a while.
    async fn count(&self, past: Past, last: Hour) -> Result<(Past, Option<Vec<Row>>), QueryError> {
        let (family, first) = (self.asked.family, self.next);
        let counted = tokio::task::spawn_blocking(move || {
            let history = History::new(family, &past.series);
            let is_enough = first.0 - past.from.0 >= LOOKBACK_HOURS_MAX
                || history.sufficiency(first, last, past.from) == Sufficiency::Enough;
            let rows = is_enough
                .then(|| (first.0..=last.0).flat_map(|hour| history.rows(Hour(hour))).collect());
            (past, rows)
        });
        counted.await.map_err(|error| QueryError::TryAgain(error.to_string()))
    }

    /// Reads the next part of the past, up to where it is known.
    async fn further_back(&self, known: Past) -> Result<Past, QueryError> {
        let Past { series, from: end } = known;
        let wanted = LOOKBACK_HOURS.into_iter().find(|hours| *hours > self.next.0 - end.0);
        let from = Hour(self.next.0 - wanted.unwrap_or(LOOKBACK_HOURS_MAX));
        let mut next = from;
        let mut earlier = Vec::new();
        while next < end {
            let hours = (end.0 - next.0).min(limits::REPORT_SLICE_HOURS);
            let (mut part, last) = self.read((next, hours)).await?;
            next = Hour(last.0 + 1);
            thin(&mut part, next);
            earlier = join(earlier, part);
        }
        Ok(Past { series: join(earlier, series), from })
    }
}

impl Past {
    /// Nothing of what lies before an hour.
    fn unknown(next: Hour) -> Past {
        Past { series: Vec::new(), from: next }
    }

    /// What the rows from an hour on can depend on.
    fn before(mut self, next: Hour) -> Past {
        let oldest = Hour(next.0 - LOOKBACK_HOURS_MAX);
        forget(&mut self.series, oldest);
        thin(&mut self.series, next);
        Past { series: self.series, from: self.from.max(oldest) }
    }
}
