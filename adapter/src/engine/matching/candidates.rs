//! Where to look for a query's series in a week: the groups of row keys that its matchers name, or
//! the shortest lists of postings. What is found may match; nothing else does.

use super::super::select::{SelectError, Selection};
use crate::limits;
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::Matcher;
use crate::model::row_key::RowKey;
use crate::model::time::Week;
use crate::store::StoreError;
use crate::store::rows::{Placed, PostingsKey};

/// What the index can look up for one label.
#[derive(Debug)]
struct Lookup<'m> {
    label: &'m str,
    values: Values<'m>,
    /// All matchers of the label.
    matchers: Vec<&'m Matcher>,
}

#[derive(Debug)]
enum Values<'m> {
    /// Just these.
    Of(Vec<&'m str>),
    /// All that begin with one of these.
    Below(Vec<&'m str>),
}

impl<'m> Lookup<'m> {
    /// What the matchers of a label leave to be looked up; `None` where they only filter.
    fn of(label: &'m str, all: &'m [Matcher]) -> Option<Lookup<'m>> {
        let matchers: Vec<&Matcher> = all.iter().filter(|of| of.name == label).collect();
        let values = matchers.iter().find_map(|of| of.values(limits::LOOKUP_VALUES_MAX));
        let values = if let Some(mut values) = values {
            values.retain(|value| matchers.iter().all(|matcher| matcher.accepts(value)));
            Values::Of(values)
        } else {
            let prefixes = matchers.iter().find_map(|of| of.prefixes(limits::LOOKUP_VALUES_MAX))?;
            Values::Below(prefixes.iter().map(String::as_str).collect())
        };
        Some(Lookup { label, values, matchers })
    }
}

impl Selection<'_> {
    /// The row keys that all matching series have: a series that has the first row-key label is in
    /// the group of its value. (One that has a later row-key label may have the first one, too.)
    pub(super) fn named_row_keys(&self, week: Week) -> Option<Vec<RowKey>> {
        let label = self.layouts.rule(week).labels.first()?;
        match Lookup::of(label, self.matchers)?.values {
            Values::Of(values) => Some(values.into_iter().map(RowKey::guest).collect()),
            Values::Below(_) => None,
        }
    }

    /// The metrics of a week that matching series can have.
    pub(super) async fn metrics(&self, week: Week) -> Result<Vec<String>, SelectError> {
        if let Some(Lookup { values: Values::Of(metrics), .. }) =
            Lookup::of(METRIC_NAME, self.matchers)
        {
            return Ok(metrics.into_iter().map(str::to_owned).collect());
        }
        let names: Vec<&Matcher> =
            self.matchers.iter().filter(|matcher| matcher.name == METRIC_NAME).collect();
        let mut metrics = self.store.metrics(week, limits::QUERY_ROWS_MAX).await?;
        metrics.retain(|metric| names.iter().all(|matcher| matcher.accepts(metric)));
        Ok(metrics)
    }

    /// The series of a metric that may match. Of several lists only the short ones are read, as it
    /// costs less to judge a candidate too many than to read a million postings for three.
    pub(super) async fn candidates(
        &self,
        week: Week,
        metric: &str,
    ) -> Result<Vec<Placed>, SelectError> {
        let lookups = self.lookups();
        if lookups.is_empty() {
            return Ok(self.store.metric_series(week, metric, limits::QUERY_ROWS_MAX).await?);
        }
        for rows_max in limits::SHORT_POSTINGS_MAX {
            let mut shortest: Option<Vec<Placed>> = None;
            for lookup in &lookups {
                let list = match self.look_up(week, metric, lookup, rows_max).await {
                    Ok(list) => list,
                    Err(StoreError::TooManyRows { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                shortest = Some(match shortest {
                    None => list,
                    Some(mut shortest) => {
                        shortest.retain(|placed| list.binary_search(placed).is_ok());
                        shortest
                    }
                });
            }
            if let Some(shortest) = shortest {
                return Ok(shortest);
            }
        }
        // All are long, and one is as good as another.
        let mut last = None;
        for lookup in &lookups {
            match self.look_up(week, metric, lookup, limits::QUERY_ROWS_MAX).await {
                Ok(list) => return Ok(list),
                Err(error @ StoreError::TooManyRows { .. }) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        last.map_or(Ok(Vec::new()), |error| Err(error.into()))
    }

    /// What can be looked up, each label once.
    fn lookups(&self) -> Vec<Lookup<'_>> {
        let mut labels: Vec<&str> = self.matchers.iter().map(|of| of.name.as_str()).collect();
        labels.sort_unstable();
        labels.dedup();
        let labels = labels.into_iter().filter(|label| *label != METRIC_NAME);
        labels.filter_map(|label| Lookup::of(label, self.matchers)).collect()
    }

    /// The series that have a value that is looked up, sorted.
    async fn look_up(
        &self,
        week: Week,
        metric: &str,
        lookup: &Lookup<'_>,
        rows_max: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        let key = PostingsKey { week, metric, label: lookup.label };
        let mut list = match &lookup.values {
            Values::Of(values) => self.store.postings(key, values, rows_max).await?,
            Values::Below(prefixes) => {
                let below = self.store.postings_below(key, prefixes, rows_max).await?;
                let accepted = below.into_iter().filter(|(value, _)| {
                    lookup.matchers.iter().all(|matcher| matcher.accepts(value))
                });
                accepted.map(|(_, placed)| placed).collect()
            }
        };
        list.sort_unstable();
        Ok(list)
    }
}
