//! Which format and encoding a scraper asks for (RFC 9110, 12.4 and 12.5).
//! It must not know pages.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

/// A text format that a page can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, which everybody reads.
    Classic,
    /// OpenMetrics 1.0.0.
    OpenMetrics1,
    /// The same page for a scraper that knows the draft's version number only.
    OpenMetrics0,
}

impl Format {
    /// The exact Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics1 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::OpenMetrics0 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }
}

/// OpenMetrics only for who names it, and does not name text/plain with a higher weight: a `*/*`
/// comes from browsers and curl. Nobody gets 406: a page in another format than wished for is
/// more use than none.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let mut plain = 0;
    let mut best: Option<(u16, Format)> = None;
    for item in items(headers, &ACCEPT) {
        if item.name.eq_ignore_ascii_case("text/plain") {
            plain = plain.max(item.weight);
        }
        if !item.name.eq_ignore_ascii_case("application/openmetrics-text") || item.weight == 0 {
            continue;
        }
        let format = match item.version {
            None | Some("1.0.0") => Format::OpenMetrics1,
            Some("0.0.1") => Format::OpenMetrics0,
            Some(_) => continue,
        };
        let better = best.is_none_or(|(weight, before)| {
            item.weight > weight || item.weight == weight && before == Format::OpenMetrics0
        });
        if better {
            best = Some((item.weight, format));
        }
    }
    best.filter(|(weight, _)| *weight >= plain).map_or(Format::Classic, |(_, format)| format)
}

/// Whether gzip is acceptable: named, or by `*` when it is not named.
pub(super) fn gzip(headers: &HeaderMap) -> bool {
    let weight = |name: &str| {
        let mut same =
            items(headers, &ACCEPT_ENCODING).filter(|item| item.name.eq_ignore_ascii_case(name));
        same.next().map(|item| item.weight)
    };
    weight("gzip").or_else(|| weight("x-gzip")).or_else(|| weight("*")).is_some_and(|q| q > 0)
}

struct Item<'h> {
    name: &'h str,
    version: Option<&'h str>,
    /// In thousandths.
    weight: u16,
}

fn items<'h>(headers: &'h HeaderMap, name: &'h HeaderName) -> impl Iterator<Item = Item<'h>> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(item)
}

fn item(text: &str) -> Item<'_> {
    let mut parts = text.split(';').map(str::trim);
    let mut item = Item { name: parts.next().unwrap_or(""), version: None, weight: 1000 };
    for part in parts {
        let Some((key, value)) = part.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "q" | "Q" => item.weight = weight(value),
            key if key.eq_ignore_ascii_case("version") => item.version = Some(value),
            _ => {}
        }
    }
    item
}

/// A weight that is no number counts as the least, so that it never wins by mistake.
fn weight(text: &str) -> u16 {
    let number: f64 = text.parse().unwrap_or(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped, and `as` turns NaN into 0"
    )]
    let thousandths = (number.clamp(0.0, 1.0) * 1000.0).round() as u16;
    thousandths
}
