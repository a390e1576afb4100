//! Billing's questions: a guest's minutes, reports over them, and who can be billed. A range is
//! answered whole or not at all. Knows no HTTP and no store.

pub mod account;
pub mod minutes;
pub mod printout;
mod slices;
#[cfg(test)]
mod tests;
mod who;

use std::collections::BTreeSet;
use std::sync::Arc;

use serve::clock::Clock;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::ledger::guest::Guest;
use crate::ledger::{MINUTE_MS, Row};
use crate::legacy::{self, Call, Data, Devices, NotJson, Point, Points, UsageReport};
use crate::limits;
use crate::meter::Meter;
use crate::metrics::{Metrics, RequestMetrics};
use crate::model::time::{Day, TimeRange};
use crate::query::{QueryError, Slots};
use crate::report::{Amount, Bucket, Grouping};
pub use slices::{Asked, Slices};

/// Answers billing.
#[derive(Debug)]
pub struct Usage {
    engine: Arc<Engine>,
    meter: Arc<Meter>,
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

/// From a minute's begin to its last second.
const LAST_SECOND_MS: i64 = MINUTE_MS - 1000;

impl Minutes {
    /// All there are.
    pub const ALL: Minutes = Minutes { from_ms: i64::MIN, to_ms: i64::MAX };

    /// Whether the minute that begins at this time belongs to the range.
    pub fn hold(self, minute_ms: i64) -> bool {
        let last_second = minute_ms.saturating_add(LAST_SECOND_MS);
        self.from_ms < last_second && last_second <= self.to_ms
    }

    /// The times of all samples of its minutes; `None` where it holds no minute.
    fn samples(self) -> Option<TimeRange> {
        let minutes_after = |unix_ms: i64| {
            unix_ms.saturating_sub(LAST_SECOND_MS).div_euclid(MINUTE_MS).saturating_add(1)
        };
        let range = TimeRange {
            start_ms: minutes_after(self.from_ms).saturating_mul(MINUTE_MS),
            end_ms: minutes_after(self.to_ms).saturating_mul(MINUTE_MS).saturating_sub(1),
        };
        (range.start_ms <= range.end_ms).then_some(range)
    }
}

impl Usage {
    /// Reads from this engine.
    pub fn new(engine: Arc<Engine>, clock: Clock, metrics: Metrics) -> Usage {
        let slots = Slots::new(limits::REPORTS_IN_FLIGHT_MAX, limits::REPORTS_WAITING_MAX);
        let meter = Arc::new(Meter::new(Arc::clone(&engine)));
        Usage { engine, meter, clock, metrics, slots }
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
                let report = in_time(self.report(&report)).await;
                self.answer(report.map(Data::Report))
            }
            Ok(Call::Points(asked)) => {
                let points = in_time(self.points(&asked)).await;
                self.answer(points.map(Data::Points))
            }
            Ok(Call::ListMetric(name)) => {
                let devices = in_time(self.devices(&name)).await;
                self.answer(devices.map(Data::Devices))
            }
            Ok(Call::ListInstance(family, range)) => {
                let minutes =
                    range.map_or(Minutes::ALL, |(from_ms, to_ms)| Minutes { from_ms, to_ms });
                let guests = in_time(self.guests(family, minutes)).await;
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
                let text = "stored data cannot be read; see this server's log";
                legacy::Answer::Failure(text.to_owned())
            }
            Err(error) => legacy::Answer::Failure(error.to_string()),
        }
    }

    /// A usage report over a guest's minutes; empty where there is no such guest.
    pub async fn report(self: &Arc<Self>, asked: &UsageReport) -> Result<Vec<Bucket>, QueryError> {
        let minutes = Minutes { from_ms: asked.from_ms, to_ms: asked.to_ms };
        let mut grouping = Grouping::new(asked.statistic, asked.period_minutes);
        let Some(guest) = self.guest(&asked.id, &[asked.family], minutes).await? else {
            return Ok(grouping.finish());
        };
        let devices = asked.devices.clone();
        let mut slices = Slices::new(self, Asked { guest, family: asked.family, devices, minutes });
        while let Some(rows) = slices.next().await? {
            for (minute_ms, value) in by_minute(&rows) {
                grouping.push(minute_ms, value);
            }
            if grouping.complete() > limits::REPORT_BUCKETS_MAX {
                return Err(QueryError::TooMuch(format!(
                    "the report has more than {} periods; ask for longer ones, or for a shorter \
                     range",
                    limits::REPORT_BUCKETS_MAX
                )));
            }
        }
        Ok(grouping.finish())
    }

    /// A guest's minutes one by one; none where there is no such guest.
    pub async fn points(self: &Arc<Self>, asked: &Points) -> Result<Vec<Point>, QueryError> {
        let minutes = Minutes { from_ms: asked.from_ms, to_ms: asked.to_ms };
        let mut points = Vec::new();
        let Some(guest) = self.guest(&asked.id, &[asked.family], minutes).await? else {
            return Ok(points);
        };
        let devices = asked.devices.clone();
        let mut slices = Slices::new(self, Asked { guest, family: asked.family, devices, minutes });
        while let Some(rows) = slices.next().await? {
            let of_rows = by_minute(&rows);
            points.extend(
                of_rows.map(|(minute_ms, value)| Point { minute_ms, amount: Amount::of(value) }),
            );
            if points.len() > limits::POINTS_MAX {
                return Err(QueryError::TooMuch(format!(
                    "there are more than {} points; ask for a shorter range, or for a report",
                    limits::POINTS_MAX
                )));
            }
        }
        Ok(points)
    }

    /// Where the doors count requests of the 2012 API.
    pub fn requests(&self) -> &RequestMetrics {
        self.metrics.requests()
    }

    /// Counts an answer to billing.
    pub fn reported(&self, answered: bool) {
        self.metrics.report(answered);
    }

    /// Until which time minutes are settled: by then senders have delivered, unless they were down.
    pub fn settled_until_ms(&self) -> i64 {
        self.clock.now_ms() - limits::SETTLED_AFTER_MS
    }

    /// From which time on minutes are kept: what lies before it cannot be answered any more.
    pub fn kept_from_ms(&self) -> i64 {
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let kept = self.engine.billed_range(all).map(|range| range.start_ms);
        kept.unwrap_or_else(|| Day::of(self.clock.now_ms()).start_ms())
    }

    /// The time that stands for now.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

/// Minutes and their values over all devices, out of rows that are sorted by minute.
fn by_minute(rows: &[Row]) -> impl Iterator<Item = (i64, f64)> {
    let minutes = rows.chunk_by(|left, right| left.minute_ms == right.minute_ms);
    minutes.filter_map(|of_minute| {
        let value = of_minute.iter().map(|row| row.value).sum();
        of_minute.first().map(|first| (first.minute_ms, value))
    })
}

/// What is not answered within this time is not waited for.
async fn in_time<T>(answer: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
    let late = "the answer took too long; ask for a shorter range";
    let answer = timeout(limits::REPORT_DEADLINE, answer).await;
    answer.unwrap_or_else(|_| Err(QueryError::TryAgain(late.to_owned())))
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
