//! A walk over the fields of one protobuf message that borrows from the message's bytes.
//!
//! Thin over prost's own primitives, so that what is well formed is decided there. Knows no message.

use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field,
};
use thiserror::Error;

/// Bytes that are not a protobuf message of the expected kind.
#[derive(Debug, Error)]
pub enum Malformed {
    /// Refused by prost.
    #[error("{0}")]
    Protobuf(#[from] DecodeError),
    /// A field is longer than what is left of its message.
    #[error("a field's length goes beyond the end of its message")]
    Truncated,
}

/// The number and wire type of a field.
pub(super) type Key = (u32, WireType);

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's key, or `None` at the end of the message. Its value must be taken by one of
    /// the methods below before the next call.
    #[inline]
    pub(super) fn next_key(&mut self) -> Result<Option<Key>, Malformed> {
        match *self.rest {
            [] => Ok(None),
            // A small number and a known type in one byte, as almost every key is: the number is
            // not 0, and no bit says that there are more bytes.
            [byte @ 0x08..0x80, ref rest @ ..] => {
                self.rest = rest;
                let wire_type = WireType::try_from(u64::from(byte & 7))?;
                Ok(Some((u32::from(byte >> 3), wire_type)))
            }
            _ => Ok(Some(decode_key(&mut self.rest)?)),
        }
    }

    /// How many bytes are left.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match *self.rest {
            [byte @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            // Two bytes, as most references to symbols are.
            [low @ 0x80..=0xff, high @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => Ok(decode_varint(&mut self.rest)?),
        }
    }

    /// A string, bytes, embedded message or packed list.
    #[inline]
    pub(super) fn bytes(&mut self, key: Key) -> Result<&'a [u8], Malformed> {
        check_wire_type(WireType::LengthDelimited, key.1)?;
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    /// An `int64`, in two's complement.
    #[inline]
    pub(super) fn int64(&mut self, key: Key) -> Result<i64, Malformed> {
        check_wire_type(WireType::Varint, key.1)?;
        Ok(self.varint()?.cast_signed())
    }

    /// A `uint32`. Protobuf cuts a longer number to its low 32 bits.
    #[inline]
    pub(super) fn uint32(&mut self, key: Key) -> Result<u32, Malformed> {
        check_wire_type(WireType::Varint, key.1)?;
        self.varint32()
    }

    /// An `enum`, on the wire an `int32`.
    pub(super) fn enumeration(&mut self, key: Key) -> Result<i32, Malformed> {
        Ok(self.uint32(key)?.cast_signed())
    }

    /// A `double`, bit for bit.
    #[inline]
    pub(super) fn double(&mut self, key: Key) -> Result<f64, Malformed> {
        check_wire_type(WireType::SixtyFourBit, key.1)?;
        let (value, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*value)))
    }

    /// A `repeated uint32`, packed or not: calls `each` with every number.
    #[inline]
    pub(super) fn uint32s<E: From<Malformed>>(
        &mut self,
        key: Key,
        mut each: impl FnMut(u32) -> Result<(), E>,
    ) -> Result<(), E> {
        if key.1 != WireType::LengthDelimited {
            return each(self.uint32(key)?);
        }
        let mut packed = Fields::new(self.bytes(key)?);
        while !packed.rest.is_empty() {
            each(packed.varint32()?)?;
        }
        Ok(())
    }

    /// Jumps over the value of a field that we do not know.
    pub(super) fn skip(&mut self, key: Key) -> Result<(), Malformed> {
        Ok(skip_field(key.1, key.0, &mut self.rest, DecodeContext::default())?)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "protobuf's rule for a 32-bit field")]
    fn varint32(&mut self) -> Result<u32, Malformed> {
        Ok(self.varint()? as u32)
    }
}
