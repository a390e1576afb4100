//! A guest's past, kept thin: what hours from some time on can still depend on, and nothing more,
//! so that seven days of look-back fit in memory at any scrape interval. Knows no rule of counting.

use super::family::START_TIME;
use super::{Series, minute_of};
use crate::model::labels::METRIC_NAME;
use crate::model::sample::Sample;
use crate::model::time::Hour;

/// Leaves out of the hours before `before` what rows of later hours cannot depend on. Kept are, of
/// each series, its last hour and the one before that (a counter's mark is found in them), and of
/// earlier hours one sample a minute (which source supplies an hour is judged by its minutes) and
/// each that tells another start time. Start times themselves are kept whole.
pub fn thin(series: &mut [Series], before: Hour) {
    let before_ms = before.start_ms();
    for one in series.iter_mut().filter(|one| one.labels.get(METRIC_NAME) != START_TIME) {
        let past = one.samples.iter().rev().find(|sample| {
            sample.timestamp_ms < before_ms && sample.value.is_finite() && sample.value >= 0.0
        });
        let Some(last) = past.map(|sample| Hour::of(sample.timestamp_ms)) else { continue };
        let whole_from_ms = Hour(last.0 - 1).start_ms();
        let mut kept: Option<Sample> = None;
        one.samples.retain(|sample| {
            let is_kept = sample.timestamp_ms >= whole_from_ms
                || sample.value.is_finite()
                    && kept.is_none_or(|kept| {
                        minute_of(kept.timestamp_ms) != minute_of(sample.timestamp_ms)
                            || kept.start_ms != sample.start_ms
                            // A counter has no negative samples.
                            || kept.value < 0.0
                    });
            if is_kept {
                kept = Some(*sample);
            }
            is_kept
        });
    }
}

/// Leaves out everything before an hour, and series that have nothing else.
pub fn forget(series: &mut Vec<Series>, before: Hour) {
    for one in series.iter_mut() {
        let begin = one.samples.partition_point(|sample| sample.timestamp_ms < before.start_ms());
        one.samples.drain(..begin);
    }
    series.retain(|one| !one.samples.is_empty());
}

/// Joins a guest's series of two spans of time; sorted by labels.
pub fn join(earlier: Vec<Series>, later: Vec<Series>) -> Vec<Series> {
    let mut all: Vec<Series> = earlier.into_iter().chain(later).collect();
    // Stable: of one series, the earlier samples stay first.
    all.sort_by(|left, right| {
        left.labels.cmp(&right.labels).then(left.elsewhere.cmp(&right.elsewhere))
    });
    all.dedup_by(|next, kept| {
        let same = next.labels == kept.labels && next.elsewhere == kept.elsewhere;
        if same {
            kept.samples.append(&mut next.samples);
        }
        same
    });
    all
}
