//! What a request was refused for: counts by reason, and a text that names the first of each.
//! The text fits what Prometheus logs of an error (1,024 bytes).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::metrics::{Metrics, Reason};

/// Bytes of labels that a refusal quotes.
const QUOTED_BYTES_MAX: usize = 120;

/// Everything that was refused of one request.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    // In order of reason and then of first appearance, by what is wrong.
    all: BTreeMap<Reason, BTreeMap<String, Refused>>,
}

#[derive(Debug)]
struct Refused {
    count: u64,
    first: String,
}

impl Refusals {
    /// Notes that `count` things of a series were refused; 0 is nothing.
    pub(super) fn add(&mut self, reason: Reason, count: u64, why: &str, labels: &[(&str, &str)]) {
        if count == 0 {
            return;
        }
        let of_reason = self.all.entry(reason).or_default();
        if let Some(refused) = of_reason.get_mut(why) {
            refused.count += count;
        } else {
            of_reason.insert(why.to_owned(), Refused { count, first: quoted(labels) });
        }
    }

    /// How many were refused for a reason.
    pub(super) fn count(&self, reason: Reason) -> u64 {
        self.all
            .get(&reason)
            .map_or(0, |of_reason| of_reason.values().map(|refused| refused.count).sum())
    }

    /// Counts them in the metrics.
    pub(super) fn report(&self, metrics: &Metrics) {
        for reason in self.all.keys() {
            metrics.refused(*reason, self.count(*reason));
        }
    }

    /// The text for the sender; `None` where nothing was refused.
    pub(super) fn text(&self, stored: u64) -> Option<String> {
        let mut parts = Vec::new();
        for (reason, of_reason) in &self.all {
            for (why, Refused { count, first }) in of_reason {
                let what = match reason {
                    Reason::Histogram => "histograms",
                    Reason::Exemplar => "exemplars",
                    Reason::InvalidSeries | Reason::TooOld | Reason::Ahead => "samples",
                };
                parts.push(format!("{count} {what}: {why} (first: {first})"));
            }
        }
        (!parts.is_empty()).then(|| {
            format!(
                "stored {stored} samples; refused for good, do not send again: {}",
                parts.join("; ")
            )
        })
    }
}

fn quoted(labels: &[(&str, &str)]) -> String {
    let mut text = "{".to_owned();
    for (index, (name, value)) in labels.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        write!(text, "{comma}{name}={value:?}").unwrap_or_default();
        if text.len() > QUOTED_BYTES_MAX {
            text.truncate(text.floor_char_boundary(QUOTED_BYTES_MAX));
            text.push('…');
            return text;
        }
    }
    text.push('}');
    text
}
