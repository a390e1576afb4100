//! A string of bits, most significant first, padded with zeros to whole bytes.
//!
//! Knows nothing of samples.

use bytes::Bytes;

/// Writes a string of bits.
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, the first of them in the highest place.
    pending: u8,
    pending_bits: u32,
}

impl BitWriter {
    /// Begins with a 16-bit number, and room for `bytes` more.
    pub(super) fn new(header: u16, bytes: usize) -> Self {
        let mut all = Vec::with_capacity(size_of::<u16>() + bytes);
        all.extend_from_slice(&header.to_be_bytes());
        Self { bytes: all, pending: 0, pending_bits: 0 }
    }

    /// Writes the low `width` bits of `number`, 1 to 64; those above must be zero.
    pub(super) fn push(&mut self, number: u64, width: u32) {
        // Up to seven pending bits and 64 new ones.
        let pending = u128::from(self.pending) << 120;
        let all = pending | (u128::from(number) << (128 - width - self.pending_bits));
        let bits = self.pending_bits + width;
        let whole = (bits / 8) as usize;
        let bytes = all.to_be_bytes();
        self.bytes.extend_from_slice(bytes.get(..whole).unwrap_or_default());
        self.pending = bytes.get(whole).copied().unwrap_or_default();
        self.pending_bits = bits % 8;
    }

    /// LEB128.
    pub(super) fn uvarint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number & 0x7f | 0x80, 8);
            number >>= 7;
        }
        self.push(number, 8);
    }

    /// LEB128 of the zig-zag form.
    pub(super) fn varint(&mut self, number: i64) {
        self.uvarint((number << 1 ^ number >> 63).cast_unsigned());
    }

    pub(super) fn finish(mut self) -> Bytes {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending);
        }
        self.bytes.into()
    }
}

/// Reads a string of bits; `None` means that there are not enough.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits of the first byte that are already read, 0 to 7.
    used: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// Reads `width` bits, 1 to 64.
    pub(super) fn pull(&mut self, width: u32) -> Option<u64> {
        let mut number = 0;
        let mut wanted = width;
        while wanted > 0 {
            let (first, rest) = self.bytes.split_first()?;
            let here = (8 - self.used).min(wanted);
            let bits = u64::from(first << self.used) >> (8 - here) & ((1 << here) - 1);
            number = number << here | bits;
            wanted -= here;
            self.used += here;
            if self.used == 8 {
                self.bytes = rest;
                self.used = 0;
            }
        }
        Some(number)
    }

    /// LEB128 of at most 64 bits.
    pub(super) fn uvarint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.pull(8)?;
            if shift == 63 && byte > 1 {
                return None;
            }
            number |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// LEB128 of the zig-zag form.
    pub(super) fn varint(&mut self) -> Option<i64> {
        let number = self.uvarint()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}
