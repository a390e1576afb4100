//! Billing's questions: a guest's minutes, reports over them, and who can be billed. Finds a
//! guest's series, hands them to the ledger day by day, and never cuts a range short.
//! Knows no HTTP and no store.

pub mod minutes;

use std::collections::BTreeSet;
use std::sync::Arc;

use serve::clock::Clock;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::ledger::guest::{Guest, Resolution, domain_at_host, resolve};
use crate::ledger::{Family, History, LOOKBACK_MS, MINUTE_MS, Row, Series, Sufficiency};
use crate::legacy::{self, Call, Data, Devices, NotJson, UsageReport};
use crate::limits;
use crate::metrics::Metrics;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::{HOUR_MS, Hour, TimeRange};
use crate::query::{QueryError, Slot, Slots};
use crate::report::{Bucket, Grouping};

/// How far back the samples before a range are looked for, in hours, one after another: mostly the
/// hour before holds all that matters.
const LOOKBACK_HOURS: [i64; 3] = [1, 24, LOOKBACK_MS / HOUR_MS];

/// Answers billing.
#[derive(Debug)]
pub struct Usage {
    engine: Arc<Engine>,
    clock: Clock,
    metrics: Metrics,
    slots: Slots,
}

/// The minutes of a range, by Kanyun's new rule: those whose last second it holds, from excluded
/// and to included (ledger.md, "Reports"), so that adjacent ranges add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minutes {
    /// Unix milliseconds, excluded.
    pub from_ms: i64,
    /// Unix milliseconds, included.
    pub to_ms: i64,
}

impl Minutes {
    /// Whether the minute that begins at this time belongs to the range.
    pub fn hold(self, minute_ms: i64) -> bool {
        let last_second = minute_ms.saturating_add(MINUTE_MS - 1000);
        self.from_ms < last_second && last_second <= self.to_ms
    }

    /// The times of the samples of all its minutes; `None` where it holds none.
    fn samples(self) -> Option<TimeRange> {
        let range = TimeRange {
            start_ms: self.from_ms.saturating_sub(MINUTE_MS),
            end_ms: self.to_ms.saturating_add(1000),
        };
        (self.from_ms < self.to_ms).then_some(range)
    }
}

impl Usage {
    /// Reads from this engine.
    pub fn new(engine: Arc<Engine>, clock: Clock, metrics: Metrics) -> Usage {
        let slots = Slots::new(limits::REPORTS_IN_FLIGHT_MAX, limits::REPORTS_WAITING_MAX);
        Usage { engine, clock, metrics, slots }
    }

    /// Answers a body of the 2012 API. The error is the one fault that its answer cannot tell.
    pub async fn legacy(
        self: &Arc<Self>,
        body: &[u8],
        door: legacy::Door,
    ) -> Result<(legacy::Envelope, legacy::Answer), NotJson> {
        let legacy::Request { envelope, call } = legacy::parse(body, door, self.clock.now_ms())?;
        let answer = match call {
            Ok(Call::UsageReport(report)) => {
                let late = || {
                    let text = "the report took too long; ask for a shorter range";
                    Err(QueryError::TryAgain(text.to_owned()))
                };
                let report = timeout(limits::REPORT_DEADLINE, self.report(&report)).await;
                self.answer(report.unwrap_or_else(|_| late()).map(Data::Report))
            }
            Ok(Call::ListInstance(family)) => {
                let guests = self.guests(family).await;
                let ids = |guests: BTreeSet<Guest>| guests.iter().map(Guest::to_string).collect();
                self.answer(guests.map(|guests| Data::Ids(ids(guests))))
            }
            Ok(Call::Nothing) => legacy::Answer::Success(Data::Nothing),
            Ok(Call::Incomplete) => legacy::Answer::Empty,
            Err(fault) => legacy::Answer::Failure(fault),
        };
        Ok((envelope, answer))
    }

    fn answer(&self, data: Result<Data, QueryError>) -> legacy::Answer {
        self.metrics.report(data.is_ok());
        match data {
            Ok(data) => legacy::Answer::Success(data),
            Err(QueryError::Damaged(why)) => {
                tracing::error!(%why, "a usage report failed");
                legacy::Answer::Failure(
                    "stored data cannot be read; see this server's log".to_owned(),
                )
            }
            Err(error) => legacy::Answer::Failure(error.to_string()),
        }
    }

    /// A usage report over a guest's minutes; empty where there is no such guest.
    pub async fn report(self: &Arc<Self>, asked: &UsageReport) -> Result<Vec<Bucket>, QueryError> {
        let slot = self.slots.acquire().await?;
        let minutes = Minutes { from_ms: asked.from_ms, to_ms: asked.to_ms };
        let mut grouping = Grouping::new(asked.statistic, asked.period_minutes);
        let Some(guest) = self.guest(&asked.id, &[asked.family], minutes).await? else {
            return Ok(grouping.finish());
        };
        let mut slices = self.slices(guest, asked.family, minutes, slot);
        while let Some(rows) = slices.next().await? {
            for of_minute in rows.chunk_by(|left, right| left.minute_ms == right.minute_ms) {
                let values = of_minute.iter().filter(|row| asked.devices.hold(&row.column));
                let values: Vec<f64> = values.map(|row| row.value).collect();
                if let (Some(first), false) = (of_minute.first(), values.is_empty()) {
                    grouping.push(first.minute_ms, values.iter().sum());
                }
            }
        }
        Ok(grouping.finish())
    }

    /// The guest that a name means among those with samples of these families in a range.
    pub async fn guest(
        &self,
        name: &str,
        families: &[Family],
        minutes: Minutes,
    ) -> Result<Option<Guest>, QueryError> {
        let Some(range) = minutes.samples() else { return Ok(None) };
        let mut metrics: Vec<&str> = families.iter().flat_map(|family| family.metrics()).collect();
        metrics.sort_unstable();
        metrics.dedup();
        let mut candidates = Vec::new();
        let domain = domain_at_host(name).map(|(domain, _)| ("domain", domain));
        let asked = [("uuid", name), ("instance_id", name), ("domain", name)];
        for (label, value) in asked.into_iter().chain(domain) {
            let matchers = matchers(&metrics, label, value)?;
            candidates.extend(self.engine.series(range, &matchers).await?);
        }
        match resolve(name, &candidates) {
            Resolution::Nobody => Ok(None),
            Resolution::One(guest) => Ok(Some(guest)),
            Resolution::Several(guests) => {
                self.only_one_with_samples(name, guests, &metrics, range).await
            }
        }
    }

    /// The index knows weeks, a range may be minutes: who has no sample in it is not meant.
    async fn only_one_with_samples(
        &self,
        name: &str,
        guests: Vec<Guest>,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<Option<Guest>, QueryError> {
        let mut present = Vec::new();
        for guest in guests {
            if !self.series(&guest, metrics, range).await?.is_empty() {
                present.push(guest);
            }
        }
        match present.pop() {
            Some(guest) if !present.is_empty() => {
                present.push(guest);
                let names: Vec<String> = present.iter().map(Guest::to_string).collect();
                let text =
                    format!("{name:?} fits several guests in this range: {}", names.join(", "));
                Err(QueryError::Client(text))
            }
            guest => Ok(guest),
        }
    }

    /// A guest's rows of a family, slice by slice.
    pub fn slices(
        self: &Arc<Self>,
        guest: Guest,
        family: Family,
        minutes: Minutes,
        slot: Slot,
    ) -> Slices {
        let stored = minutes.samples().and_then(|range| self.engine.stored_range(range));
        let hours = stored
            .map_or((Hour(1), Hour(0)), |range| (Hour::of(range.start_ms), Hour::of(range.end_ms)));
        Slices {
            usage: Arc::clone(self),
            guest,
            family,
            minutes,
            next: hours.0,
            last: hours.1,
            slot,
        }
    }

    /// Waits until a report may run.
    pub async fn slot(&self) -> Result<Slot, QueryError> {
        self.slots.acquire().await
    }

    /// The rows of some hours of a guest.
    async fn rows(
        &self,
        guest: &Guest,
        family: Family,
        (first, last): (Hour, Hour),
    ) -> Result<Vec<Row>, QueryError> {
        for back in LOOKBACK_HOURS {
            let loaded_from = Hour::of(first.start_ms() - back * HOUR_MS);
            let range = TimeRange { start_ms: loaded_from.start_ms(), end_ms: last.end_ms() };
            let series = self.series(guest, &family.metrics_needed(), range).await?;
            let history = History::new(family, &series);
            if back * HOUR_MS >= LOOKBACK_MS
                || history.sufficiency(first, last, loaded_from) == Sufficiency::Enough
            {
                return Ok((first.0..=last.0).flat_map(|hour| history.rows(Hour(hour))).collect());
            }
        }
        Ok(Vec::new())
    }

    /// A guest's series of these metrics that have samples in a range.
    async fn series(
        &self,
        guest: &Guest,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<Vec<Series>, QueryError> {
        let asked: &[(&str, &str)] = match guest {
            Guest::Uuid(uuid) => &[("uuid", uuid), ("instance_id", uuid)],
            Guest::Name { domain, .. } => &[("domain", domain)],
        };
        let encode = |samples: &[Sample]| (samples.to_vec(), size_of_val(samples));
        let mut found: Vec<(Labels, Vec<Sample>)> = Vec::new();
        for (label, value) in asked {
            let matchers = matchers(metrics, label, value)?;
            found.extend(self.engine.select(range, &matchers, &encode).await?);
        }
        found.retain(|(labels, _)| Guest::of(labels).as_ref() == Some(guest));
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        // A series with both labels was found by each of them.
        found.dedup_by(|(left, _), (right, _)| left == right);
        Ok(found.into_iter().map(|(labels, samples)| Series { labels, samples }).collect())
    }

    /// Everybody who has data of a family.
    pub async fn guests(&self, family: Family) -> Result<BTreeSet<Guest>, QueryError> {
        let _slot = self.slots.acquire().await?;
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let matchers = [any_of(&family.metrics())?];
        let series = timeout(limits::REPORT_DEADLINE, self.engine.series(all, &matchers)).await;
        let late = || QueryError::TryAgain("the list took too long".to_owned());
        let series = series.map_err(|_| late())??;
        Ok(series.iter().filter(|labels| family.is_fed_by(labels)).filter_map(Guest::of).collect())
    }

    /// Counts an answer to billing.
    pub fn reported(&self, answered: bool) {
        self.metrics.report(answered);
    }

    /// Until which time minutes are settled: by then senders have delivered, unless they were down.
    pub fn settled_until_ms(&self) -> i64 {
        self.clock.now_ms() - limits::SETTLED_AFTER_MS
    }

    /// The time that stands for now.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

impl Devices {
    /// Whether a device's rows are asked for.
    pub fn hold(&self, column: &str) -> bool {
        match self {
            Devices::Total => true,
            Devices::One(device) => device == column,
        }
    }
}

/// A guest's rows, a day at a time, oldest first. Holds a slot.
#[derive(Debug)]
pub struct Slices {
    usage: Arc<Usage>,
    guest: Guest,
    family: Family,
    minutes: Minutes,
    next: Hour,
    last: Hour,
    slot: Slot,
}

impl Slices {
    /// The same guest's minutes of another family.
    #[must_use]
    pub fn of(self, family: Family) -> Slices {
        let Slices { usage, guest, minutes, slot, .. } = self;
        usage.slices(guest, family, minutes, slot)
    }

    /// The next rows, sorted by minute and device; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, QueryError> {
        if self.next > self.last {
            return Ok(None);
        }
        let last = Hour(self.last.0.min(self.next.0 + limits::REPORT_SLICE_HOURS - 1));
        let mut rows = self.usage.rows(&self.guest, self.family, (self.next, last)).await?;
        rows.retain(|row| self.minutes.hold(row.minute_ms));
        self.usage.metrics.minutes(&rows);
        self.next = Hour(last.0 + 1);
        Ok(Some(rows))
    }
}

fn matchers(metrics: &[&str], label: &str, value: &str) -> Result<[Matcher; 2], QueryError> {
    Ok([any_of(metrics)?, Matcher::equal(label, value)])
}

/// Metric names are plain words, and so a pattern of them means what it says.
fn any_of(metrics: &[&str]) -> Result<Matcher, QueryError> {
    let pattern = metrics.join("|");
    Matcher::matching(METRIC_NAME, &pattern).map_err(|error| QueryError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests;
