//! A series' identity: a hash of its canonical labels.
//! Knows labels only by their canonical encoding.

use std::fmt;
use std::num::NonZeroU128;

use xxhash_rust::xxh3::xxh3_128;

/// xxh3-128 of the canonical encoding of a label set (see [`Labels`]). 128 bits make a collision
/// among a billion series less likely than a disk error that no checksum sees (about 10^-21).
///
/// [`Labels`]: super::labels::Labels
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u128);

impl SeriesId {
    /// The id of the label set with this canonical encoding.
    pub fn of_encoded(encoded: &[u8]) -> SeriesId {
        SeriesId(xxh3_128(encoded))
    }

    /// Big-endian, so that bytes sort as ids do.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`SeriesId::to_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> SeriesId {
        SeriesId(u128::from_be_bytes(bytes))
    }

    /// Which of `shards` index partitions holds this series; 0 where there is only one.
    pub fn shard(self, shards: u16) -> u16 {
        u16::try_from(self.0 % u128::from(shards.max(1))).unwrap_or(0)
    }
}

/// The bytes in which a sender gave a series' labels, as a hash of 128 bits. Equal fingerprints stand
/// for equal bytes, and so for the same labels in the same order: as sure as equal series ids are.
/// Nothing of it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(NonZeroU128);

impl Fingerprint {
    /// The fingerprint of these bytes; `form` keeps apart what is written in different ways. `None`
    /// for the one hash that stands for no fingerprint.
    pub fn of(bytes: &[u8], form: u128) -> Option<Fingerprint> {
        NonZeroU128::new(xxh3_128(bytes) ^ form).map(Fingerprint)
    }

    /// What stands for a text of any length among the bytes of a fingerprint.
    pub fn part(text: &[u8]) -> u128 {
        xxh3_128(text)
    }

    /// All its bits.
    pub fn bits(self) -> u128 {
        self.0.get()
    }
}

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
