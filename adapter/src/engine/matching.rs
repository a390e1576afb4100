//! From matchers to series by the index: which series match, and in which weeks and groups they
//! live. Knows nothing of samples.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::index::stored_labels;
use super::select::{SelectError, Selection, bound};
use crate::limits;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::matcher::{Matcher, all_accept};
use crate::model::row_key::{Group, RowKey};
use crate::model::series::SeriesId;
use crate::model::time::Week;
use crate::store::rows::{Placed, PostingsKey};

impl Selection<'_> {
    /// Every matching series and its places.
    pub(super) async fn matching(
        &self,
    ) -> Result<HashMap<SeriesId, (Labels, Vec<(Week, Group)>)>, SelectError> {
        let mut found: HashMap<SeriesId, (Labels, Vec<(Week, Group)>)> = HashMap::new();
        let mut bytes = 0;
        let weeks = stream::iter(self.range.weeks())
            .map(|week| async move { Ok((week, self.matching_in(week).await?)) });
        let mut weeks = weeks.buffered(4);
        while let Some((week, series)) =
            weeks.try_next().await.map_err(|error: SelectError| error)?
        {
            for (placed, labels) in series {
                let (_, places) = found.entry(placed.series).or_insert_with(|| {
                    // Once a series, however many weeks it lives.
                    bytes += labels
                        .iter()
                        .map(|(name, value)| name.len() + value.len() + 48)
                        .sum::<usize>();
                    (labels, Vec::new())
                });
                places.push((week, placed.group));
            }
            bound("series", found.len(), limits::QUERY_SERIES_MAX)?;
            bound("bytes of labels", bytes, limits::QUERY_BYTES_MAX)?;
        }
        Ok(found)
    }

    async fn matching_in(&self, week: Week) -> Result<Vec<(Placed, Labels)>, SelectError> {
        let candidates = self.candidates(week).await?;
        let groups = stream::iter(candidates).map(|(group, wanted)| async move {
            let mut matching = Vec::new();
            for (series, encoded) in self.store.series(week, group, limits::QUERY_ROWS_MAX).await? {
                if wanted.as_ref().is_none_or(|wanted| wanted.contains(&series)) {
                    let labels = stored_labels(&encoded)?;
                    if all_accept(self.matchers, &labels) {
                        matching.push((Placed { group, series }, labels));
                    }
                }
            }
            Ok::<_, SelectError>(matching)
        });
        let parts: Vec<Vec<_>> =
            groups.buffer_unordered(self.store.reads_at_once()).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The groups that may hold matching series; `None` stands for all series of a group.
    async fn candidates(
        &self,
        week: Week,
    ) -> Result<BTreeMap<Group, Option<BTreeSet<SeriesId>>>, SelectError> {
        if let Some(row_keys) = self.named_row_keys(week) {
            return Ok(row_keys
                .iter()
                .flat_map(RowKey::groups)
                .map(|group| (group, None))
                .collect());
        }
        let mut metrics = match self.lookup(METRIC_NAME) {
            Some(metrics) => metrics.into_iter().map(str::to_owned).collect(),
            None => self.store.metrics(week, limits::QUERY_ROWS_MAX).await?,
        };
        let names: Vec<&Matcher> =
            self.matchers.iter().filter(|matcher| matcher.name == METRIC_NAME).collect();
        metrics.retain(|metric| names.iter().all(|matcher| matcher.accepts(metric)));
        let mut candidates: BTreeMap<Group, Option<BTreeSet<SeriesId>>> = BTreeMap::new();
        for metric in &metrics {
            for placed in self.candidates_of(week, metric).await? {
                candidates
                    .entry(placed.group)
                    .or_insert_with(|| Some(BTreeSet::new()))
                    .as_mut()
                    .map(|ids| ids.insert(placed.series));
            }
        }
        Ok(candidates)
    }

    /// The series of a metric, narrowed by every label that must have one value.
    async fn candidates_of(&self, week: Week, metric: &str) -> Result<Vec<Placed>, SelectError> {
        let mut narrowed: Option<BTreeSet<Placed>> = None;
        for matcher in self.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
            let Some(values) = matcher.values(limits::LOOKUP_VALUES_MAX) else { continue };
            let mut list = BTreeSet::new();
            for value in values {
                let key = PostingsKey { week, metric, label: &matcher.name, value };
                list.extend(self.store.postings(key, limits::QUERY_ROWS_MAX).await?);
            }
            narrowed = Some(match narrowed {
                None => list,
                Some(narrowed) => narrowed.intersection(&list).copied().collect(),
            });
        }
        match narrowed {
            Some(narrowed) => Ok(narrowed.into_iter().collect()),
            None => Ok(self.store.metric_series(week, metric, limits::QUERY_ROWS_MAX).await?),
        }
    }

    /// The row keys that all matching series have: a series that has the first row-key label is in
    /// the group of its value. (One that has a later row-key label may have the first one, too.)
    fn named_row_keys(&self, week: Week) -> Option<Vec<RowKey>> {
        let label = self.layouts.rule(week).labels.first()?;
        self.lookup(label).map(|values| values.into_iter().map(RowKey::guest).collect())
    }

    /// The values of a label that an index can look up.
    fn lookup(&self, label: &str) -> Option<Vec<&str>> {
        let mut of_label = self.matchers.iter().filter(|matcher| matcher.name == label);
        of_label.find_map(|matcher| matcher.values(limits::LOOKUP_VALUES_MAX))
    }
}
