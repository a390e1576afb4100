//! A guest's rows counted from samples, a day at a time, each sample read once: what later days
//! depend on is carried along thin, and what lies before is read only as far back as it matters.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::workers::{Name, names_in};
use super::{Meter, metrics_needed};
use crate::engine::Whole;
use crate::ledger::guest::Guest;
use crate::ledger::past::{forget, join, thin};
use crate::ledger::{Family, History, LOOKBACK_MS, Row, Series, Sufficiency};
use crate::limits;
use crate::model::time::{HOUR_MS, Hour, TimeRange};
use crate::query::QueryError;

/// How far back the samples before a range are looked for, in hours, one after another: mostly the
/// hour before holds all that matters.
const LOOKBACK_HOURS: [i32; 3] = [1, 24, LOOKBACK_HOURS_MAX];
#[expect(clippy::cast_possible_truncation, reason = "170 hours")]
pub(super) const LOOKBACK_HOURS_MAX: i32 = (LOOKBACK_MS / HOUR_MS) as i32;

/// One family of a guest in one hour that has a sample of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedHour {
    /// The family.
    pub family: Family,
    /// The hour.
    pub hour: Hour,
    /// Every column1 that has a sample in the hour, also of a source that does not supply it.
    pub columns: Vec<String>,
    /// Its rows, sorted by minute and column1.
    pub rows: Vec<Row>,
}

/// Rows under way, oldest first.
#[derive(Debug)]
pub struct Counted {
    meter: Arc<Meter>,
    guest: Guest,
    families: Vec<Family>,
    next: Hour,
    last: Hour,
    past: Past,
    at_hand: Option<Arc<Whole>>,
}

/// What is known of the guest so far.
#[derive(Debug)]
struct Past {
    /// Thinned, but for the hours that are counted now.
    series: Vec<Series>,
    /// From which hour on everything that matters is in them.
    from: Hour,
    /// The names by which workers' series are in them.
    names: BTreeSet<Name>,
}

impl Counted {
    /// The rows of some families in a range of hours, both included.
    pub fn new(
        meter: &Arc<Meter>,
        guest: Guest,
        families: Vec<Family>,
        (first, last): (Hour, Hour),
    ) -> Counted {
        let (meter, past) = (Arc::clone(meter), Past::unknown(first));
        Counted { meter, guest, families, next: first, last, past, at_hand: None }
    }

    /// What is at hand of a window is not read again.
    #[must_use]
    pub fn with(self, at_hand: Option<&Arc<Whole>>) -> Counted {
        Counted { at_hand: at_hand.cloned(), ..self }
    }

    /// The next hours, sorted by hour and family; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<CountedHour>>, QueryError> {
        if self.next > self.last {
            return Ok(None);
        }
        let hours = self.last.0 - self.next.0 + 1;
        let span = (self.next, hours.min(limits::REPORT_SLICE_HOURS));
        let (current, last) = self.read(span).await?;
        // Who asks again after a fault begins without a past, and reads it anew.
        let mut past = std::mem::replace(&mut self.past, Past::unknown(self.next));
        let mut names = names_in(&self.guest, &current);
        if !names.is_subset(&past.names) {
            // A worker may have gone by this name before an exporter did.
            names.append(&mut past.names);
            past = Past { names, ..Past::unknown(self.next) };
        }
        let current = self.joined(current, &past.names, (self.next, last)).await?;
        if past.from == self.next && !current.is_empty() {
            // A counter needs the sample before: to find that out would take a count.
            past = self.further_back(past).await?;
        }
        past.series = join(past.series, current);
        let hours = loop {
            let (counted, hours) = self.count(past, last).await?;
            past = counted;
            match hours {
                Some(hours) => break hours,
                None => past = self.further_back(past).await?,
            }
        };
        self.next = Hour(last.0 + 1);
        self.past = past.before(self.next);
        Ok(Some(hours))
    }

    /// The last hour that is counted.
    pub fn until(&self) -> Hour {
        Hour(self.next.0 - 1)
    }

    /// The guest's series in some hours, or in the first of them where all are too much at once;
    /// says which hour is the last of them.
    async fn read(&self, (first, hours): (Hour, i32)) -> Result<(Vec<Series>, Hour), QueryError> {
        let metrics = metrics_needed(&self.families);
        let mut hours = hours;
        loop {
            let last = Hour(first.0 + hours - 1);
            let range = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
            let at_hand = self.at_hand.as_deref();
            match self.meter.series(&self.guest, &metrics, (range, at_hand)).await {
                Err(QueryError::TooMuch(_)) if hours > 1 => hours /= 2,
                read => return Ok((read?, last)),
            }
        }
    }

    /// The guest's series in some hours, and the workers' that go by its names.
    async fn joined(
        &self,
        series: Vec<Series>,
        names: &BTreeSet<Name>,
        (first, last): (Hour, Hour),
    ) -> Result<Vec<Series>, QueryError> {
        let range = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
        self.meter
            .joined(&self.guest, series, (names, &metrics_needed(&self.families), range))
            .await
    }

    /// The hours from `next` to `last`, where the past is enough for them. On a thread of its own: a
    /// guest of many devices takes a while.
    async fn count(
        &self,
        past: Past,
        last: Hour,
    ) -> Result<(Past, Option<Vec<CountedHour>>), QueryError> {
        let (families, first) = (self.families.clone(), self.next);
        let counted = tokio::task::spawn_blocking(move || {
            let whole = first.0 - past.from.0 >= LOOKBACK_HOURS_MAX;
            let histories = History::all(families, &past.series);
            let is_enough = whole
                || histories.iter().all(|(_, history)| {
                    history.sufficiency(first, last, past.from) == Sufficiency::Enough
                });
            let hours = is_enough.then(|| hours_of(&histories, first, last));
            drop(histories);
            (past, hours)
        });
        counted.await.map_err(|error| {
            if error.is_panic() {
                QueryError::Damaged(format!("minutes cannot be counted: {error}"))
            } else {
                QueryError::TryAgain(error.to_string())
            }
        })
    }

    /// Reads the next part of the past, up to where it is known.
    async fn further_back(&self, known: Past) -> Result<Past, QueryError> {
        let Past { series, from: end, names } = known;
        let wanted = LOOKBACK_HOURS.into_iter().find(|hours| *hours > self.next.0 - end.0);
        let from = Hour(self.next.0 - wanted.unwrap_or(LOOKBACK_HOURS_MAX));
        let mut next = from;
        let mut earlier = Vec::new();
        while next < end {
            let hours = (end.0 - next.0).min(limits::REPORT_SLICE_HOURS);
            let (part, last) = self.read((next, hours)).await?;
            let mut part = self.joined(part, &names, (next, last)).await?;
            next = Hour(last.0 + 1);
            thin(&mut part, next);
            earlier = join(earlier, part);
        }
        Ok(Past { series: join(earlier, series), from, names })
    }
}

fn hours_of(histories: &[(Family, Arc<History>)], first: Hour, last: Hour) -> Vec<CountedHour> {
    let mut hours = Vec::new();
    for hour in (first.0..=last.0).map(Hour) {
        for (family, history) in histories {
            let columns: Vec<String> =
                history.columns(hour).into_iter().map(str::to_owned).collect();
            if !columns.is_empty() {
                let rows = history.rows(hour);
                hours.push(CountedHour { family: *family, hour, columns, rows });
            }
        }
    }
    hours
}

impl Past {
    /// Nothing of what lies before an hour.
    fn unknown(next: Hour) -> Past {
        Past { series: Vec::new(), from: next, names: BTreeSet::new() }
    }

    /// What the rows from an hour on can depend on.
    fn before(mut self, next: Hour) -> Past {
        let oldest = Hour(next.0 - LOOKBACK_HOURS_MAX);
        forget(&mut self.series, oldest);
        thin(&mut self.series, next);
        Past { series: self.series, from: self.from.max(oldest), names: self.names }
    }
}
