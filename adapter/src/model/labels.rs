//! A canonical label set: sorted by name, no empty value, no name twice.
//! Knows no limits and no wire format; `write` judges what a sender may send.

use std::fmt;

use super::series::SeriesId;
use super::varint;

/// The label that holds a series' metric name (Prometheus data model).
pub const METRIC_NAME: &str = "__name__";

/// Sorted by name; an empty value equals an absent label (Prometheus data model) and is dropped.
/// Ordered as Prometheus orders series: pair by pair, name before value, the shorter set first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// Makes a canonical set out of pairs in any order. A name that comes twice keeps both pairs;
    /// who takes labels from outside refuses those before.
    pub fn new<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Labels {
        let mut pairs: Vec<(String, String)> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        pairs.sort();
        Labels(pairs)
    }

    /// The value of a label; a missing label has the empty value (Prometheus data model).
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.binary_search_by(|(candidate, _)| candidate.as_str().cmp(name));
        found.ok().and_then(|index| self.0.get(index)).map_or("", |(_, value)| value.as_str())
    }

    /// The pairs in order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The pairs as they are kept.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The canonical encoding: for each pair, name and value, each after its length as an LEB128
    /// varint. Prefix-free, and so no two label sets share one.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::new();
        encode_pairs(self.iter(), &mut encoded);
        encoded
    }

    /// The inverse of [`Labels::encode`]. An error names what is wrong with the bytes: they come
    /// from a store, where it means damage.
    pub fn decode(encoded: &[u8]) -> Result<Labels, LabelsDamaged> {
        Ok(Labels::of_decoded(&decode_pairs(encoded)?))
    }

    /// The set of pairs that [`decode_pairs`] gave.
    pub fn of_decoded(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Labels(owned.collect())
    }

    /// The series with these labels.
    pub fn id(&self) -> SeriesId {
        SeriesId::of_encoded(&self.encode())
    }
}

/// The pairs of a canonical encoding, borrowed: for who judges many series and keeps few.
pub fn decode_pairs(mut encoded: &[u8]) -> Result<Vec<(&str, &str)>, LabelsDamaged> {
    let mut pairs = Vec::with_capacity(LABELS_MOSTLY);
    while !encoded.is_empty() {
        pairs.push((take_text(&mut encoded)?, take_text(&mut encoded)?));
    }
    Ok(pairs)
}

/// Most series have no more labels.
const LABELS_MOSTLY: usize = 16;

/// Stored labels that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelsDamaged {
    /// The bytes end inside a length or a text.
    #[error("stored labels end in the middle of a label")]
    Truncated,
    /// A name or a value is not UTF-8.
    #[error("stored labels hold a text that is not utf-8")]
    NotText,
}

/// Appends the canonical encoding of pairs that are sorted already; the hot path uses it with
/// borrowed labels, so that no string is made for a series that is known.
pub fn encode_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, encoded: &mut Vec<u8>) {
    for (name, value) in pairs {
        push_text(name, encoded);
        push_text(value, encoded);
    }
}

fn push_text(text: &str, encoded: &mut Vec<u8>) {
    varint::push(text.len() as u64, encoded);
    encoded.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(encoded: &mut &'a [u8]) -> Result<&'a str, LabelsDamaged> {
    let length = varint::take(encoded).and_then(|length| usize::try_from(length).ok());
    let split = length.and_then(|length| encoded.split_at_checked(length));
    let (text, rest) = split.ok_or(LabelsDamaged::Truncated)?;
    *encoded = rest;
    str::from_utf8(text).map_err(|_| LabelsDamaged::NotText)
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_whatever_the_order_and_without_empty_values() {
        let one = Labels::new([("b", "2"), ("a", "1"), ("c", "")]);
        let two = Labels::new([("a", "1"), ("b", "2")]);
        assert_eq!(one, two);
        assert_eq!(one.id(), two.id());
        assert_eq!(one.get("c"), "");
        assert_eq!(one.get("b"), "2");
    }

    #[test]
    fn no_two_sets_share_an_encoding() {
        assert_ne!(Labels::new([("a", "bc")]).encode(), Labels::new([("ab", "c")]).encode());
        assert_ne!(
            Labels::new([("a", "b"), ("c", "d")]).encode(),
            Labels::new([("a", "b\u{1}c\u{1}d")]).encode()
        );
    }

    #[test]
    fn the_id_is_pinned() {
        // Ids are on disk: another hash or encoding would orphan every stored series.
        let labels = Labels::new([(METRIC_NAME, "up"), ("job", "libvirt")]);
        assert_eq!(format!("{:?}", labels.id()), "0e665df845ffc63b1494a14560cdb4d1");
    }

    proptest! {
        #[test]
        fn encoding_reads_back(pairs in prop::collection::btree_map("[a-z]{1,5}", ".{1,200}", 0..6)) {
            let labels = Labels::new(pairs);
            prop_assert_eq!(Labels::decode(&labels.encode()).unwrap(), labels);
        }

        #[test]
        fn damage_is_an_error_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(Labels::decode(&bytes));
        }
    }
}
