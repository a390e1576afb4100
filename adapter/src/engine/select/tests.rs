//! Parts: they cover what is asked for, once and in order, and are divided where they are large.

use proptest::prelude::*;

use super::*;
use crate::engine::tests::{NOW_MS, engine, sample, write};
use crate::model::labels::METRIC_NAME;
use crate::model::time::{DAY_MS, HOUR_MS};

const ALL: TimeRange = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn value(n: i64) -> f64 {
    n as f64
}

proptest! {
    /// Every hour of the range in every week of the unit is in one part, oldest first, and a part
    /// that is not cut by the range or a week begins where its length says.
    #[test]
    fn parts_cover_a_range_once(
        n_series in 1..20_000usize,
        start_hour in 490_000..490_400i32,
        hours in 0..400i32,
    ) {
        let (first, last) = (Hour(start_hour), Hour(start_hour + hours));
        let range = TimeRange { start_ms: first.start_ms() + 5, end_ms: last.end_ms() - 5 };
        let weeks: Vec<Week> = range.weeks().collect();
        let series = (0..n_series).map(|place| (SeriesId(place as u128), place)).collect();
        let places = weeks.iter().map(|week| (*week, BTreeSet::new())).collect();
        let unit = Unit { series, places };
        let mut next = first.0;
        for part in unit.parts(range) {
            prop_assert_eq!(part.hours.0, next);
            prop_assert!(part.hours.1 >= next && part.hours.1 <= last.0);
            prop_assert_eq!(part.series.clone(), 0..n_series);
            let length = part.hours.1 - part.hours.0 + 1;
            let expected = n_series * usize::try_from(length).unwrap() * limits::READ_PART_HOUR_SAMPLES;
            prop_assert!(length == 1 || expected <= limits::READ_PART_SAMPLES);
            next = part.hours.1 + 1;
        }
        prop_assert_eq!(next, last.0 + 1);
    }

    /// However often parts are divided, nothing is left out or comes twice, and hours stay in order.
    #[test]
    fn halves_cover_their_part(first in 0..100i32, hours in 0..40i32, n_series in 1..40usize) {
        let mut stack = vec![Part { hours: (first, first + hours), series: 0..n_series }];
        let mut seen = BTreeSet::new();
        let mut hour_before = first;
        while let Some(part) = stack.pop() {
            if !part.is_one() {
                stack.extend(part.halves());
                continue;
            }
            prop_assert!(part.hours.0 >= hour_before);
            hour_before = part.hours.0;
            prop_assert!(seen.insert((part.hours.0, part.series.start)));
        }
        prop_assert_eq!(seen.len(), usize::try_from(hours + 1).unwrap() * n_series);
    }
}

fn labels(metric: &str, guest: &str) -> Labels {
    Labels::new([(METRIC_NAME, metric), ("uuid", guest)])
}

/// All parts, by the place of their series.
async fn by_place(found: &mut Found<'_>) -> (usize, BTreeMap<usize, Vec<Vec<Sample>>>) {
    let keep = |samples: Vec<Sample>| samples;
    let (mut n_parts, mut by_place) = (0, BTreeMap::<usize, Vec<Vec<Sample>>>::new());
    let mut parts = found.parts(&keep);
    while let Some(part) = parts.try_next().await.unwrap() {
        n_parts += usize::from(!part.is_empty());
        for (place, samples) in part {
            by_place.entry(place).or_default().push(samples);
        }
    }
    (n_parts, by_place)
}

#[tokio::test]
async fn a_series_comes_in_order_of_time_whatever_its_length() {
    let engine = engine().await;
    let mut sent = Vec::new();
    for guest in ["a", "b", "c"] {
        for metric in ["cpu", "mem"] {
            let samples = (0..40).map(|n| sample(NOW_MS - (40 - n) * 6 * HOUR_MS, value(n)));
            sent.push((labels(metric, guest), samples.collect::<Vec<_>>()));
        }
    }
    write(&engine, &sent).await;
    sent.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut found = engine.find(ALL, &[]).await.unwrap().unwrap();
    assert!(found.labels.iter().eq(sent.iter().map(|(labels, _)| labels)));
    let (n_parts, by_place) = by_place(&mut found).await;
    assert!(n_parts > 3, "{n_parts} parts for three guests and ten days");
    for (place, parts) in by_place {
        assert_eq!(parts.concat(), sent[place].1, "{}", sent[place].0.get(METRIC_NAME));
    }
    let range = TimeRange { start_ms: NOW_MS - DAY_MS, end_ms: NOW_MS - DAY_MS };
    let of_metric = [Matcher::equal(METRIC_NAME, "cpu")];
    let mut found = engine.find(range, &of_metric).await.unwrap().unwrap();
    let (_, found) = self::by_place(&mut found).await;
    assert_eq!(found.len(), 3);
    assert!(found.values().all(|parts| parts.concat() == [sample(range.start_ms, 36.0)]));
}

/// A million samples in one hour: the series come one after the other.
#[tokio::test]
async fn what_is_too_much_for_one_part_is_divided() {
    let engine = engine().await;
    let hour = Hour::of(NOW_MS).start_ms();
    let count = i64::try_from(limits::READ_PART_SAMPLES_MAX).unwrap() / 2 + 1;
    let samples: Vec<Sample> = (0..count).map(|n| sample(hour + n, value(n))).collect();
    for metric in ["cpu", "mem"] {
        write(&engine, &[(labels(metric, "a"), samples.clone())]).await;
    }
    let mut found = engine.find(ALL, &[]).await.unwrap().unwrap();
    let (n_parts, by_place) = by_place(&mut found).await;
    assert_eq!(n_parts, 2);
    assert!(by_place.values().all(|parts| parts.len() == 1 && parts.concat() == samples));
    assert_eq!(by_place.len(), 2);
}
