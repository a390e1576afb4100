//! One text format from another, line by line: raw prometheus-client output to valid
//! OpenMetrics 1.0, and that to Prometheus' classic text format 0.0.4.
//! It must not know registries or HTTP.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The lines of a page that prometheus-client wrote, with their ends and with escaped help texts: it writes them raw,
/// always followed by the TYPE line of the same family, so that a text with newlines can still be told.
pub(super) fn lines(raw: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let line_end = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(line_end);
        if line.is_empty() {
            return None;
        }
        let Some((name, _)) = line.strip_prefix("# HELP ").and_then(|tail| tail.split_once(' '))
        else {
            rest = after;
            return Some(Cow::Borrowed(line));
        };
        let head = "# HELP ".len() + name.len() + 1;
        let next = format!("\n# TYPE {name} ");
        let (_, tail) = rest.split_at(head);
        let help_len =
            tail.find(&next).unwrap_or(line_end - head - usize::from(line.ends_with('\n')));
        let (help, tail) = tail.split_at(help_len);
        let mut escaped = format!("# HELP {name} ");
        escape(&mut escaped, help, Quotes::Escaped);
        escaped.push('\n');
        rest = tail.strip_prefix('\n').unwrap_or(tail);
        Some(Cow::Owned(escaped))
    })
}

/// A page of valid OpenMetrics 1.0 as a page of Prometheus' text format 0.0.4:
/// - a counter family is named as its samples are, with `_total`;
/// - an info family becomes a gauge named `…_info`, a stateset a gauge, a gauge histogram a
///   gauge for each of its three names' sakes untyped, unknown untyped;
/// - UNIT and EOF lines and exemplars go, for the classic format has none;
/// - `_created` samples go too: classic readers would take them for series of their own;
/// - timestamps become milliseconds, infinite values `+Inf` and `-Inf`;
/// - help texts lose the escape of the quotation mark, which classic readers do not know.
///
/// A line that is not OpenMetrics is left out.
pub fn classic(openmetrics: &str) -> String {
    let mut page = String::with_capacity(openmetrics.len());
    let mut family = Family::default();
    for line in openmetrics.lines() {
        family.line(line, &mut page);
    }
    family.flush_help(&mut page);
    page
}

/// The family whose lines are being read: [`classic`], line by line.
#[derive(Default)]
pub(super) struct Family {
    name: String,
    /// Held back until the type is known, for the type decides about the name.
    help: Option<String>,
    kind: Kind,
}

impl Family {
    /// Adds to the page what the next line becomes.
    pub(super) fn line(&mut self, line: &str, page: &mut String) {
        if let Some(comment) = line.strip_prefix("# ") {
            match comment.split_once(' ') {
                Some(("HELP", rest)) => {
                    self.flush_help(page);
                    let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                    let (name, help) = (name.to_owned(), Some(help.to_owned()));
                    *self = Self { name, help, kind: Kind::default() };
                }
                Some(("TYPE", rest)) => {
                    let Some((name, kind)) = rest.split_once(' ') else { return };
                    if name != self.name {
                        self.flush_help(page);
                        *self = Self { name: name.to_owned(), ..Self::default() };
                    }
                    self.kind = Kind::of(kind);
                    self.flush_help(page);
                    let (suffix, kind) = self.kind.classic();
                    page.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
                }
                _ => {}
            }
        } else if let Some(sample) = Sample::of(line)
            && !self.is_created(sample.name)
        {
            self.flush_help(page);
            sample.write(page);
        }
    }

    /// To be called after the last line.
    pub(super) fn flush_help(&mut self, page: &mut String) {
        let Some(help) = self.help.take() else { return };
        page.extend(["# HELP ", self.name.as_str(), self.kind.classic().0, " "]);
        escape(page, &unescape(&help), Quotes::AsTheyAre);
        page.push('\n');
    }

    /// Only these kinds have `_created`; a gauge may be named so.
    fn is_created(&self, sample: &str) -> bool {
        matches!(self.kind, Kind::Counter | Kind::Histogram | Kind::Summary | Kind::GaugeHistogram)
            && sample.strip_prefix(self.name.as_str()) == Some("_created")
    }
}

#[derive(Clone, Copy, Default)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
    #[default]
    Unknown,
}

impl Kind {
    fn of(openmetrics: &str) -> Self {
        match openmetrics {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "gaugehistogram" => Self::GaugeHistogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            _ => Self::Unknown,
        }
    }

    /// What the classic format adds to the family's name, and how it calls the type.
    fn classic(self) -> (&'static str, &'static str) {
        match self {
            Self::Counter => ("_total", "counter"),
            Self::Gauge | Self::StateSet => ("", "gauge"),
            Self::Histogram => ("", "histogram"),
            Self::Summary => ("", "summary"),
            Self::Info => ("_info", "gauge"),
            Self::GaugeHistogram | Self::Unknown => ("", "untyped"),
        }
    }
}

/// One sample line: `name{labels} value timestamp # exemplar`.
struct Sample<'p> {
    name: &'p str,
    /// With their braces, or empty.
    labels: &'p str,
    value: &'p str,
    /// Seconds since 1970 with a fraction.
    timestamp: Option<&'p str>,
}

impl<'p> Sample<'p> {
    fn of(line: &'p str) -> Option<Self> {
        let (name, tail) = line.split_at(line.find(['{', ' '])?);
        let (labels, tail) = tail.split_at(labels_len(tail)?);
        let mut words = tail.split_ascii_whitespace();
        let value = words.next()?;
        let timestamp = words.next().filter(|word| *word != "#");
        let whole = !name.is_empty() && value.parse::<f64>().is_ok();
        whole.then_some(Self { name, labels, value, timestamp })
    }

    fn write(&self, page: &mut String) {
        // OpenMetrics allows `{}`, and so do classic readers, but nobody writes it.
        let labels = if self.labels == "{}" { "" } else { self.labels };
        page.extend([self.name, labels, " ", value(self.value)]);
        if let Some(seconds) = self.timestamp.and_then(|text| text.parse::<f64>().ok())
            && seconds.is_finite()
        {
            // Writing to a String cannot fail.
            let _ok = write!(page, " {:.0}", seconds * 1000.0);
        }
        page.push('\n');
    }
}

/// The length of the label part at the start of `text`: braces in quotes do not count.
fn labels_len(text: &str) -> Option<usize> {
    if !text.starts_with('{') {
        return Some(0);
    }
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn value(text: &str) -> &str {
    match text {
        "inf" | "+inf" | "Inf" => "+Inf",
        "-inf" => "-Inf",
        "nan" => "NaN",
        finite => finite,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Escaped,
    AsTheyAre,
}

fn escape(page: &mut String, text: &str, quotes: Quotes) {
    for character in text.chars() {
        match character {
            '\\' => page.push_str("\\\\"),
            '\n' => page.push_str("\\n"),
            '"' if quotes == Quotes::Escaped => page.push_str("\\\""),
            other => page.push(other),
        }
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other @ ('\\' | '"')) => plain.push(other),
                Some(other) => plain.extend(['\\', other]),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    plain
}
