//! The JSON of workers, read so that one odd value costs itself and not its message: leaves stay
//! texts until somebody wants a number. Lists are bounded as they are read.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The first items of a list, and how many came beyond them.
#[derive(Debug)]
pub(super) struct Items<'a> {
    pub(super) kept: Vec<&'a RawValue>,
    pub(super) beyond: usize,
}

/// A JSON list; `None` where the text is none. At most `most` items are kept.
pub(super) fn items(text: &str, most: usize) -> Option<Items<'_>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let items = AtMost(most).deserialize(&mut json).ok()?;
    json.end().ok().map(|()| items)
}

struct AtMost(usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Items<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Items<'de>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
        let mut items = Items { kept: Vec::new(), beyond: 0 };
        while let Some(item) = list.next_element::<&RawValue>()? {
            if items.kept.len() < self.0 {
                items.kept.push(item);
            } else {
                items.beyond += 1;
            }
        }
        Ok(items)
    }
}

/// A JSON string.
pub(super) fn text(raw: &RawValue) -> Option<String> {
    if !raw.get().starts_with('"') {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
}

/// A number, also one that is written as a decimal string; `None` where it is none, or none that
/// is finite. Whole numbers below 2^53 are exact.
pub(super) fn number(raw: &RawValue) -> Option<f64> {
    let string = text(raw);
    let digits = string.as_deref().unwrap_or(raw.get()).trim();
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Python writes `NaN`, `Infinity` and `-Infinity`, which JSON does not know: here they become
/// strings of the same length that are no numbers either, so that the rest can be read.
pub(super) fn with_numbers_only(text: &str) -> Cow<'_, str> {
    const WORDS: [(&str, &str); 3] =
        [("-Infinity", r#""-Infini""#), ("Infinity", r#""Infini""#), ("NaN", r#""N""#)];
    if !WORDS.iter().any(|(word, _)| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let (mut changed, mut rest) = (String::with_capacity(text.len()), text);
    let mut within_string = false;
    while let Some(first) = rest.chars().next() {
        let word = WORDS.iter().find(|(word, _)| !within_string && rest.starts_with(word));
        let (length, put) = match (word, first) {
            (Some((word, put)), _) => (word.len(), *put),
            // The character after a backslash ends no string.
            (None, '\\') => (1 + rest.chars().nth(1).map_or(0, char::len_utf8), ""),
            (None, _) => (first.len_utf8(), ""),
        };
        within_string ^= word.is_none() && first == '"';
        let (taken, left) = rest.split_at(length);
        changed.push_str(if put.is_empty() { taken } else { put });
        rest = left;
    }
    Cow::Owned(changed)
}
