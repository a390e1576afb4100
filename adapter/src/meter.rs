//! A guest's minutes: counted from samples by the rules of the ledger, or as the sealer stored them.
//! Both are the same; which of them holds for an hour is decided here. Knows no HTTP and no store.

mod counted;
mod names;
mod standing;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::engine::{Engine, Place, Whole};
use crate::ledger::guest::{Guest, UUID_LABELS};
use crate::ledger::{Family, Flags, MINUTE_MS, Row, Series};
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::{Hour, TimeRange};
use crate::query::QueryError;
use crate::store::rows::{LedgerColumn, LedgerMinute, LedgerRow};
pub use counted::{Counted, CountedHour};
pub use names::Named;
use names::WorkerWeeks;
pub(crate) use standing::affected_until;
pub use standing::{Run, Standing, Waits};

/// Counts and finds minutes.
#[derive(Debug)]
pub struct Meter {
    engine: Arc<Engine>,
    /// Weeks of which it is known whether workers sent anything.
    worker_weeks: Mutex<WorkerWeeks>,
}

impl Meter {
    /// Reads from this engine.
    pub fn new(engine: Arc<Engine>) -> Meter {
        Meter { engine, worker_weeks: Mutex::default() }
    }

    /// A guest's series of these metrics, which are sorted, that have samples in a range; sorted by
    /// labels. What is at hand is not read again.
    async fn series(
        &self,
        guest: &Guest,
        metrics: &[&str],
        (range, at_hand): (TimeRange, Option<&Whole>),
    ) -> Result<Vec<Series>, QueryError> {
        let found = match self.places(guest, range) {
            Some(places) => {
                let wanted = |labels: &Labels| {
                    metrics.binary_search(&labels.get(METRIC_NAME)).is_ok()
                        && Guest::of(labels).as_ref() == Some(guest)
                };
                self.engine.series_at(&places, (range, at_hand), &wanted).await?
            }
            None => self.selected(guest, metrics, range).await?,
        };
        Ok(found
            .into_iter()
            .map(|(labels, samples)| Series { labels, samples, elsewhere: false })
            .collect())
    }

    /// Where all series of a guest live, where that follows from its name.
    fn places(&self, guest: &Guest, range: TimeRange) -> Option<Vec<Place>> {
        match guest {
            Guest::Uuid(uuid) => self.engine.places(range, &UUID_LABELS, uuid),
            Guest::Name { .. } => None,
        }
    }

    /// A guest's series by the index.
    async fn selected(
        &self,
        guest: &Guest,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<Sample>)>, QueryError> {
        let encode = |samples: &[Sample]| (samples.to_vec(), size_of_val(samples));
        let mut found: Vec<(Labels, Vec<Sample>)> = Vec::new();
        for (label, value) in labels_of(guest) {
            let matchers = matchers(metrics, label, value)?;
            found.extend(self.engine.select_all(range, &matchers, &encode).await?);
        }
        found.retain(|(labels, _)| Guest::of(labels).as_ref() == Some(guest));
        found.sort_by(|(left, _), (right, _)| left.cmp(right));
        // A series with both labels was found by each of them.
        found.dedup_by(|(left, _), (right, _)| left == right);
        Ok(found)
    }

    /// A guest's hours as they are stored: every family that has a sample in one of these hours,
    /// whole (ledger.md, "Late data").
    pub async fn project(
        self: &Arc<Self>,
        guest: &Guest,
        hours: (Hour, Hour),
        at_hand: Option<&Arc<Whole>>,
    ) -> Result<Vec<LedgerRow>, QueryError> {
        let counted = Counted::new(self, guest.clone(), Family::ALL.to_vec(), hours);
        let mut counted = counted.with(at_hand);
        let mut rows = Vec::new();
        while let Some(part) = counted.next().await? {
            rows.extend(part.into_iter().map(|hour| stored(guest, hour)));
        }
        Ok(rows)
    }

    /// A guest's stored rows of one family, sorted by minute and device.
    pub async fn stored(
        &self,
        guest: &Guest,
        family: Family,
        hours: (Hour, Hour),
    ) -> Result<Vec<Row>, QueryError> {
        let mut stored = self.engine.ledger(family.name(), &guest.to_string(), hours).await?;
        stored.sort_by_key(|row| row.hour);
        let minutes =
            |row: &LedgerRow| row.columns.iter().map(|of| of.minutes.len()).sum::<usize>();
        let mut rows = Vec::with_capacity(stored.iter().map(minutes).sum());
        for of_hour in stored {
            // Hours are in order, and an hour holds its devices one after another.
            let begin = rows.len();
            let several = of_hour.columns.len() > 1;
            rows.extend(billed(of_hour));
            if let Some(of_hour) = rows.get_mut(begin..).filter(|_| several) {
                of_hour.sort_by(|left: &Row, right| {
                    left.minute_ms
                        .cmp(&right.minute_ms)
                        .then_with(|| left.column.cmp(&right.column))
                });
            }
        }
        Ok(rows)
    }
}

/// An hour as it is stored.
fn stored(guest: &Guest, hour: CountedHour) -> LedgerRow {
    let CountedHour { family, hour, columns, rows } = hour;
    let mut by_column: BTreeMap<String, Vec<LedgerMinute>> =
        columns.into_iter().map(|column| (column, Vec::new())).collect();
    for row in rows {
        let minute = (row.minute_ms - hour.start_ms()) / MINUTE_MS;
        by_column.entry(row.column).or_default().push(LedgerMinute {
            // Below 60: the row is of this hour.
            minute: u8::try_from(minute).unwrap_or(0),
            value: row.value,
            samples: row.samples,
            resets: row.resets,
            flags: row.flags.bits(),
        });
    }
    let columns = by_column.into_iter().map(|(name, minutes)| LedgerColumn { name, minutes });
    LedgerRow {
        family: family.name().to_owned(),
        guest: guest.to_string(),
        hour,
        columns: columns.collect(),
    }
}

/// The rows of a stored hour.
fn billed(stored: LedgerRow) -> impl Iterator<Item = Row> {
    let start_ms = stored.hour.start_ms();
    stored.columns.into_iter().flat_map(move |LedgerColumn { name, minutes }| {
        minutes.into_iter().map(move |minute| Row {
            column: name.clone(),
            minute_ms: start_ms + i64::from(minute.minute) * MINUTE_MS,
            value: minute.value,
            samples: minute.samples,
            resets: minute.resets,
            flags: Flags::of_bits(minute.flags),
        })
    })
}

/// The labels that a guest's series may carry.
pub fn labels_of(guest: &Guest) -> Vec<(&str, &str)> {
    match guest {
        Guest::Uuid(uuid) => vec![("uuid", uuid), ("instance_id", uuid)],
        Guest::Name { domain, .. } => vec![("domain", domain)],
    }
}

/// Series of any of these metrics whose label has this value.
pub fn matchers(metrics: &[&str], label: &str, value: &str) -> Result<[Matcher; 2], QueryError> {
    Ok([any_of(metrics)?, Matcher::equal(label, value)])
}

/// Series of any of these metrics. Metric names are plain words, and so a pattern of them means
/// what it says.
pub fn any_of(metrics: &[&str]) -> Result<Matcher, QueryError> {
    let pattern = metrics.join("|");
    Matcher::matching(METRIC_NAME, &pattern).map_err(|error| QueryError::Damaged(error.to_string()))
}

/// The metrics that must be at hand to count several families, sorted, each once.
fn metrics_needed(families: &[Family]) -> Vec<&'static str> {
    each_once(families.iter().flat_map(|family| family.metrics_needed()))
}

/// The metrics of several families, sorted, each once.
pub fn metrics_of(families: &[Family]) -> Vec<&'static str> {
    each_once(families.iter().flat_map(|family| family.metrics()))
}

fn each_once(metrics: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut metrics: Vec<&str> = metrics.collect();
    metrics.sort_unstable();
    metrics.dedup();
    metrics
}
