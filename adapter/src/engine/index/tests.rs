//! Weeks as a set, and index rows of the next week that are written ahead.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::engine::tests::{NOW_MS, engine, sample, ticket};
use crate::engine::{Batch, Engine};
use crate::model::series::Fingerprint;
use crate::model::time::HOUR_MS;

proptest! {
    #[test]
    fn weeks_are_a_set_that_forgets_what_is_old(
        sent in prop::collection::vec(-40..40i32, 1..20),
    ) {
        let mut weeks = Weeks::one(Week(sent[0]));
        let mut expected = BTreeSet::from([sent[0]]);
        for week in &sent {
            weeks = weeks.with(Week(*week));
            expected.insert(*week);
            let oldest = expected.last().unwrap() - 32;
            expected.retain(|week| *week >= oldest);
        }
        for week in -80..80 {
            prop_assert_eq!(weeks.contains(Week(week)), expected.contains(&week), "{}", week);
        }
    }
}

#[test]
fn weeks_far_apart_do_not_overflow() {
    let weeks = Weeks::one(Week(i32::MIN)).with(Week(i32::MAX)).with(Week(i32::MIN));
    assert!(weeks.contains(Week(i32::MAX)) && !weeks.contains(Week(i32::MIN)));
}

const STEP_MS: i64 = 10 * 60_000;

fn week() -> Week {
    Week::of(NOW_MS)
}

/// Ten guests with ten series each.
fn fleet() -> Vec<Labels> {
    let all = (0..100).map(|number| {
        Labels::new([
            (METRIC_NAME, format!("metric_{}", number % 10)),
            ("uuid", format!("guest-{}", number / 10)),
        ])
    });
    all.collect()
}

/// A scrape of the fleet, as `write` makes a batch of it.
fn scrape<'e>(mut batch: Batch<'e>, at_ms: i64) -> Batch<'e> {
    let fleet = fleet();
    let fingerprint = |labels: &Labels| Fingerprint::of(&labels.encode(), 0);
    let known = batch.recall(fleet.iter().map(fingerprint));
    for (labels, known) in fleet.iter().zip(known) {
        let pairs: Vec<(&str, &str)> = labels.iter().collect();
        match known {
            Some(known) if known.times().contains(at_ms) => {
                batch.add_known(&known, &[sample(at_ms, 1.0)]);
            }
            _ => batch.add(fingerprint(labels), &pairs, &[sample(at_ms, 1.0)]),
        }
    }
    batch
}

/// Stores a scrape; says of which weeks it had index rows to write.
async fn feed(engine: &Engine, at_ms: i64) -> Vec<Week> {
    let batch = scrape(engine.batch(), at_ms);
    let mut rows = batch.unknown.clone();
    engine.known.drop_known(&engine.store, &mut rows).await.unwrap();
    engine.append(batch, ticket(engine)).await.unwrap();
    rows.iter().map(|row| row.week).collect()
}

#[tokio::test]
async fn a_week_begins_without_index_rows_because_they_were_written_ahead() {
    let engine = engine().await;
    let (week, next) = (week(), Week(week().0 + 1));
    let from_ms = next.start_ms() - 13 * HOUR_MS;
    assert_eq!(feed(&engine, from_ms).await, [week; 100]);
    let (mut ahead, mut most) = (0, 0);
    for at_ms in (from_ms + STEP_MS..next.start_ms()).step_by(STEP_MS as usize) {
        let rows = feed(&engine, at_ms).await;
        assert!(rows.iter().all(|row| *row == next), "{rows:?}");
        assert!(rows.is_empty() || next.start_ms() - at_ms <= limits::INDEX_AHEAD_MS);
        ahead += rows.len();
        most = most.max(rows.len());
    }
    assert_eq!(ahead, 100, "once for each series");
    assert!(most < 20, "{most} rows at once");
    assert!(scrape(engine.batch(), next.start_ms()).unknown.is_empty());
    assert_eq!(feed(&engine, next.start_ms()).await, []);
    // And the new week's samples are known by their bytes from then on.
    let batch = engine.batch();
    let known = batch.recall(fleet().iter().map(|labels| Fingerprint::of(&labels.encode(), 0)));
    assert!(known.iter().all(|known| known.is_some_and(|known| known.week == next)));
}

#[tokio::test]
async fn a_restart_before_the_week_ends_reads_what_was_written_ahead() {
    let engine = engine().await;
    let next = Week(week().0 + 1);
    let late_ms = next.start_ms() - STEP_MS;
    feed(&engine, late_ms).await;
    let cold = KnownSeries::new();
    let mut rows = scrape(Batch::new(&engine.layouts, &cold), late_ms + 1).unknown;
    assert_eq!(rows.len(), 200, "of this week and of the next");
    cold.drop_known(&engine.store, &mut rows).await.unwrap();
    assert!(rows.is_empty(), "the groups' own partitions say that they are known");
    // From then on without a read, in this week and in the next.
    assert!(scrape(Batch::new(&engine.layouts, &cold), late_ms + 2).unknown.is_empty());
    assert!(scrape(Batch::new(&engine.layouts, &cold), next.start_ms()).unknown.is_empty());
}

#[tokio::test]
async fn what_was_not_stored_is_not_remembered() {
    let engine = engine().await;
    let batch = scrape(engine.batch(), NOW_MS);
    assert_eq!((batch.lessons.len(), batch.unknown.len()), (100, 100));
    drop(batch);
    let batch = scrape(engine.batch(), NOW_MS);
    assert_eq!((batch.lessons.len(), batch.unknown.len()), (100, 100));
    engine.append(batch, ticket(&engine)).await.unwrap();
    let batch = scrape(engine.batch(), NOW_MS + 1);
    assert_eq!((batch.lessons.len(), batch.unknown.len()), (0, 0));
}
