//! Reading a page in the classic text format, strictly enough to find what is there twice.

use std::collections::{BTreeMap, HashSet};

/// A page's samples by series, labels included as they are written.
pub(crate) type Samples = BTreeMap<String, f64>;

/// Reads a page; panics where a family or a series comes twice, or a sample stands outside its family.
pub(crate) fn samples(page: &str) -> Samples {
    let mut families = HashSet::new();
    let mut family = String::new();
    let mut samples = Samples::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            rest.split(' ').next().unwrap().clone_into(&mut family);
            assert!(families.insert(family.clone()), "family {family} comes twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let own = ["", "_total", "_info", "_bucket", "_sum", "_count"];
        assert!(
            own.iter().any(|end| *name == format!("{family}{end}")),
            "{name} stands under {family}"
        );
        let value = value.parse().unwrap();
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
    }
    samples
}

/// The value of the one series of `name` that has all of `labels` (as `key="value"`).
pub(crate) fn value(samples: &Samples, name: &str, labels: &[&str]) -> Option<f64> {
    let mut found = samples.iter().filter(|(series, _)| {
        series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
    });
    let first = found.next().map(|(_, value)| *value);
    assert!(found.next().is_none(), "{name} with {labels:?} is more than one series");
    first
}

#[test]
#[should_panic(expected = "comes twice")]
fn a_repeated_series_is_found() {
    samples("# HELP a x\na{b=\"1\"} 1\na{b=\"1\"} 2\n");
}

#[test]
#[should_panic(expected = "family a comes twice")]
fn a_repeated_family_is_found() {
    samples("# HELP a x\na 1\n# HELP b x\nb 1\n# HELP a x\n");
}
