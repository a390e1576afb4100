//! The series of 2012 workers, joined to the guests that they are of: which of their hours are a
//! guest's, and whose rows a sample can change because they share a name. `ledger/owner.rs` judges.

use std::collections::{BTreeMap, BTreeSet};

use super::{Meter, any_of, matchers, metrics_needed};
use crate::engine::Place;
use crate::ledger::guest::Guest;
use crate::ledger::owner::{self, Sightings, is_of_worker, sighted};
use crate::ledger::{Family, Series};
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::{Hour, TimeRange};
use crate::query::QueryError;

/// The domain and host that an exporter knows a guest by.
pub(super) type Name = (String, String);

/// Who shares a name with a guest, and where their series live.
pub(crate) type Relatives = BTreeMap<Guest, BTreeSet<Place>>;

/// The names of a guest that workers may use, among its series: those that its exporters say, or
/// its own where it has series of workers.
pub(super) fn names_in(guest: &Guest, series: &[Series]) -> BTreeSet<Name> {
    let says = |one: &&Series| match guest {
        Guest::Uuid(_) => sighted(&one.labels).is_some(),
        Guest::Name { .. } => is_of_worker(&one.labels),
    };
    let name =
        |one: &Series| (one.labels.get("domain").to_owned(), owner::host(&one.labels).to_owned());
    let names = series.iter().filter(says).map(name);
    names.filter(|(domain, _)| !domain.is_empty()).collect()
}

impl Meter {
    /// A guest's series, with those of workers that go by its names, as far as their hours are its
    /// own; what is another guest's is marked so. In no order.
    pub(super) async fn joined(
        &self,
        guest: &Guest,
        series: Vec<Series>,
        (names, metrics, range): (&BTreeSet<Name>, &[&str], TimeRange),
    ) -> Result<Vec<Series>, QueryError> {
        if names.is_empty() {
            return Ok(series);
        }
        let (mut series, workers) = match guest {
            Guest::Name { .. } => {
                let (workers, others): (Vec<Series>, Vec<Series>) =
                    series.into_iter().partition(|one| is_of_worker(&one.labels));
                (others, workers)
            }
            Guest::Uuid(_) => (series, self.workers(names, metrics, range).await?),
        };
        let mut sightings: BTreeMap<String, Sightings> = BTreeMap::new();
        if let Guest::Name { domain, .. } = guest {
            let of_domain = self.sightings(domain, range).await?;
            series.extend(of_domain.beside(guest));
            sightings.insert(domain.clone(), of_domain);
        }
        for worker in workers {
            let domain = worker.labels.get("domain").to_owned();
            let of_domain = match sightings.remove(&domain) {
                Some(known) => known,
                None => self.sightings(&domain, range).await?,
            };
            series.extend(of_domain.divide(worker, guest));
            sightings.insert(domain, of_domain);
        }
        Ok(series)
    }

    /// The workers' series that go by some names: of the same domain, on the same host or on none.
    async fn workers(
        &self,
        names: &BTreeSet<Name>,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<Vec<Series>, QueryError> {
        let mut workers = Vec::new();
        if !self.has_workers(range).await? {
            return Ok(workers);
        }
        let domains: BTreeSet<&str> = names.iter().map(|(domain, _)| domain.as_str()).collect();
        let of_workers = owner::worker_metrics();
        let metrics: Vec<&str> =
            metrics.iter().copied().filter(|metric| of_workers.contains(metric)).collect();
        let whole = |samples: &[Sample]| (samples.to_vec(), size_of_val(samples));
        for domain in domains {
            let matchers = matchers(&metrics, "domain", domain)?;
            for (labels, samples) in self.engine.select_all(range, &matchers, &whole).await? {
                let name = (domain.to_owned(), owner::host(&labels).to_owned());
                if is_of_worker(&labels) && (name.1.is_empty() || names.contains(&name)) {
                    workers.push(Series { labels, samples, elsewhere: false });
                }
            }
        }
        Ok(workers)
    }

    /// In which hours exporters saw guests of a domain.
    async fn sightings(&self, domain: &str, range: TimeRange) -> Result<Sightings, QueryError> {
        let hourly = |samples: &[Sample]| {
            let hourly = owner::hourly(samples);
            let bytes = size_of_val(&hourly[..]);
            (hourly, bytes)
        };
        let matchers = matchers(&owner::exporter_metrics(), "domain", domain)?;
        let mut sightings = Sightings::default();
        for (labels, hourly) in self.engine.select_all(range, &matchers, &hourly).await? {
            sightings.note(labels, hourly);
        }
        Ok(sightings)
    }

    /// Everybody else whose rows can change by what is stored of a guest in some hours, or the
    /// other way round: those who share its name, where workers use that name.
    pub(crate) async fn relatives(
        &self,
        guest: &Guest,
        (first, last): (Hour, Hour),
    ) -> Result<Relatives, QueryError> {
        let range = TimeRange { start_ms: first.start_ms(), end_ms: last.end_ms() };
        let mut relatives = Relatives::new();
        if !self.has_workers(range).await? {
            return Ok(relatives);
        }
        for domain in self.domains(guest, range).await? {
            let found = self.engine.placed(range, &of_domain(&domain)?).await?;
            if !found.iter().any(|(labels, _)| is_of_worker(labels)) {
                continue;
            }
            for (labels, places) in found {
                if let Some(relative) = Guest::of(&labels).filter(|relative| relative != guest) {
                    relatives.entry(relative).or_default().extend(places);
                }
            }
        }
        Ok(relatives)
    }
}

/// All billed series of a domain.
pub(super) fn of_domain(domain: &str) -> Result<[Matcher; 2], QueryError> {
    Ok([any_of(&metrics_needed(&Family::ALL))?, Matcher::equal("domain", domain)])
}
