//! Properties of the ledger over generated guests (`guest.rs`): production is the oracle, and rows
//! depend on the stored samples alone. `KANYUN_LEDGER_CASES` sets the number of guests.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::guest::{Arrival, any_guest, divided, stored};
use super::oracle;
use crate::ledger::{
    Family, History, LOOKBACK_MS, MINUTE_MS, Row, Series, Sufficiency, past, rows_of_hour,
};
use crate::model::time::{HOUR_MS, Hour};

/// Some seconds on a slow machine.
const CASES: u32 = 64;

#[expect(clippy::disallowed_methods, reason = "a soak is asked for through the environment")]
fn config() -> ProptestConfig {
    let cases = std::env::var("KANYUN_LEDGER_CASES");
    let cases =
        cases.map_or(CASES, |cases| cases.parse().expect("KANYUN_LEDGER_CASES is a number"));
    ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(cases) }
}

/// Every hour with a sample, and the one after it.
fn hours(series: &[Series]) -> BTreeSet<Hour> {
    let samples = series.iter().flat_map(|one| &one.samples);
    let hours: BTreeSet<i32> = samples.map(|sample| Hour::of(sample.timestamp_ms).0).collect();
    hours.into_iter().flat_map(|hour| [Hour(hour), Hour(hour + 1)]).collect()
}

/// The samples of [from, until).
fn cut(series: &[Series], from: i64, until: i64) -> Vec<Series> {
    let mut cut = series.to_vec();
    for one in &mut cut {
        one.samples.retain(|sample| (from..until).contains(&sample.timestamp_ms));
    }
    cut.retain(|one| !one.samples.is_empty());
    cut
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn production_is_the_oracle(arrived in any_guest(), elsewhere in 0..8_u8) {
        let series = divided(stored(&arrived), elsewhere);
        for family in Family::ALL {
            for hour in hours(&series) {
                let rows = rows_of_hour(&series, family, hour);
                prop_assert_eq!(
                    &rows,
                    &oracle::rows_of_hour(&series, family, hour),
                    "production (left) and the oracle, {} of {:?}", family.name(), hour
                );
                check_places(&rows, hour)?;
            }
        }
    }

    #[test]
    fn neither_order_of_arrival_nor_of_series_matters(
        (arrived, in_other_order) in any_guest().prop_flat_map(|guest| {
            (Just(guest.clone()), Just(guest).prop_shuffle())
        }),
        middle in any::<prop::sample::Index>(),
    ) {
        let rows = rows_of_everything(&stored(&arrived));
        let mut series = stored(&in_other_order);
        prop_assert_eq!(&rows, &rows_of_everything(&series), "arrival shuffled");
        if !series.is_empty() {
            let middle = middle.index(series.len());
            series.rotate_left(middle);
        }
        prop_assert_eq!(&rows, &rows_of_everything(&series), "series rotated");
        series.reverse();
        prop_assert_eq!(&rows, &rows_of_everything(&series), "series rotated and reversed");
    }

    #[test]
    fn what_lies_outside_the_lookback_changes_nothing(
        arrived in any_guest(),
        elsewhere in 0..8_u8,
    ) {
        let series = divided(stored(&arrived), elsewhere);
        for hour in hours(&series) {
            let (start, end) = (hour.start_ms(), hour.start_ms() + HOUR_MS);
            let needed = cut(&series, start - LOOKBACK_MS, end);
            for family in Family::ALL {
                prop_assert_eq!(
                    rows_of_hour(&series, family, hour),
                    rows_of_hour(&needed, family, hour),
                    "all (left) and what is needed, {} of {:?}", family.name(), hour
                );
            }
        }
    }

    /// As reports read: hour after hour, with the past thinned behind them, and read in two parts.
    #[test]
    fn a_thinned_past_gives_the_same_rows(arrived in any_guest(), elsewhere in 0..8_u8) {
        let series = divided(stored(&arrived), elsewhere);
        for family in Family::ALL {
            let mut past: Vec<Series> = Vec::new();
            let mut next = i64::MIN;
            for hour in hours(&series) {
                let mut part = cut(&series, next, hour.start_ms());
                past::thin(&mut part, hour);
                next = hour.start_ms() + HOUR_MS;
                let current = cut(&series, hour.start_ms(), next);
                past = past::join(past::join(past, part), current);
                let oldest = Hour::of(hour.start_ms() - LOOKBACK_MS);
                past::forget(&mut past, oldest);
                prop_assert_eq!(
                    rows_of_hour(&series, family, hour),
                    rows_of_hour(&past, family, hour),
                    "all (left) and with a thin past, {} of {:?}", family.name(), hour
                );
                past::thin(&mut past, Hour(hour.0 + 1));
            }
        }
    }

    #[test]
    fn a_past_that_is_said_to_be_enough_is_enough(arrived in any_guest(), elsewhere in 0..8_u8) {
        let series = divided(stored(&arrived), elsewhere);
        let hours = hours(&series);
        for (first, loaded_from) in hours.iter().flat_map(|hour| hours.range(..=hour).map(move |from| (*hour, *from))) {
            let part = cut(&series, loaded_from.start_ms(), i64::MAX);
            for family in Family::ALL {
                let history = History::new(family, &part);
                let last = Hour(first.0 + 1);
                if history.sufficiency(first, last, loaded_from) == Sufficiency::Enough {
                    for hour in [first, last] {
                        prop_assert_eq!(
                            rows_of_hour(&series, family, hour),
                            history.rows(hour),
                            "all (left) and loaded from {:?}, {} of {:?}", loaded_from, family.name(), hour
                        );
                    }
                }
            }
        }
    }
}

/// Rows lie in their hour, on whole minutes, sorted, each (minute, column1) once.
fn check_places(rows: &[Row], hour: Hour) -> Result<(), TestCaseError> {
    let places: Vec<_> = rows.iter().map(|row| (row.minute_ms, row.column.as_str())).collect();
    prop_assert!(places.is_sorted_by(|one, next| one < next), "{places:?}");
    for row in rows {
        prop_assert!(row.minute_ms % MINUTE_MS == 0 && Hour::of(row.minute_ms) == hour, "{row:?}");
        prop_assert!(row.samples > 0 && row.value.is_finite(), "{row:?}");
    }
    Ok(())
}

fn rows_of_everything(series: &[Series]) -> Vec<(&'static str, Row)> {
    let hours = hours(series);
    let of_family = |family: Family| {
        let rows = hours.iter().flat_map(move |hour| rows_of_hour(series, family, *hour));
        rows.map(move |row| (family.name(), row)).collect::<Vec<_>>()
    };
    Family::ALL.into_iter().flat_map(of_family).collect()
}

/// The generator reaches what the rules speak of; else the properties would hold of nothing.
#[test]
fn generated_guests_have_every_kind_of_row() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let arrived: Vec<Arrival> = any_guest().new_tree(&mut runner).unwrap().current();
        for (family, row) in rows_of_everything(&stored(&arrived)) {
            let is_counted = row.value > 0.0;
            let kinds = [
                (row.flags.gap && is_counted, "a gap that counts"),
                (row.flags.gap && !is_counted, "a gap that counts 0"),
                (row.flags.dip, "dip"),
                (row.flags.column, "change of column"),
                (row.flags.overlap, "overlap"),
                (row.resets == 1, "reset"),
                (row.resets > 1, "resets"),
                (row.samples > 2, "samples of several hosts or scrapes"),
                (is_counted, "value"),
            ];
            seen.extend(kinds.iter().filter(|(is_so, _)| *is_so).map(|(_, kind)| (family, *kind)));
        }
    }
    for family in Family::ALL.map(Family::name) {
        let is_gauge = family.starts_with("mem_");
        let of_all = ["value", "samples of several hosts or scrapes"];
        let of_counters =
            ["a gap that counts", "dip", "change of column", "overlap", "reset", "resets"];
        let of_counters = of_counters.into_iter().filter(|_| !is_gauge);
        for kind in of_all.into_iter().chain(of_counters) {
            assert!(seen.contains(&(family, kind)), "no {kind} in {family}");
        }
    }
}
