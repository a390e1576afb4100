//! Snappy's block format, with its declared length judged before anything is allocated.
//!
//! Knows nothing about what is inside. Trusting the length in the header was CVE-2026-42154 in
//! Prometheus: five bytes made it allocate gigabytes.

use thiserror::Error;

/// The first bytes of snappy's framed format, which remote_write forbids.
const FRAMED: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Why a body could not be decompressed. All of them are the sender's fault.
#[derive(Debug, Error)]
pub enum SnappyError {
    /// There is no body; even an empty message has a one-byte header.
    #[error("the body is empty: expected a snappy block")]
    Empty,
    /// The other snappy format.
    #[error("the body is in snappy's framed format: send the block format")]
    Framed,
    /// The declared length is over the bound.
    #[error("the body decompresses to {declared} bytes, but at most {bytes_max} are accepted")]
    TooLarge {
        /// What the header says, in bytes.
        declared: usize,
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// The declared length cannot be reached from this few bytes.
    #[error("the snappy header declares {declared} bytes, more than {compressed} can expand to")]
    Impossible {
        /// What the header says, in bytes.
        declared: usize,
        /// The size of the body, in bytes.
        compressed: usize,
    },
    /// Not snappy, or damaged.
    #[error("the body is not a valid snappy block: {0}")]
    Corrupt(#[from] snap::Error),
}

/// What a body declares to decompress to, once that is possible and within the bound; so that the
/// memory can be asked for before it is spent.
pub fn declared_len(body: &[u8], bytes_max: usize) -> Result<usize, SnappyError> {
    if body.is_empty() {
        return Err(SnappyError::Empty);
    }
    if body.starts_with(FRAMED) {
        return Err(SnappyError::Framed);
    }
    let declared = snap::raw::decompress_len(body)?;
    if declared > bytes_max {
        return Err(SnappyError::TooLarge { declared, bytes_max });
    }
    if declared > expansion_max(body.len()) {
        return Err(SnappyError::Impossible { declared, compressed: body.len() });
    }
    Ok(declared)
}

/// Decompresses one block. Allocates at most `bytes_max` bytes, and never more than about 22 times
/// the size of `body`.
pub fn decompress(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, SnappyError> {
    let mut decompressed = Vec::new();
    let written = decompress_into(body, bytes_max, &mut decompressed)?.len();
    decompressed.truncate(written);
    Ok(decompressed)
}

/// [`decompress`] into a buffer that may be used again, and is only ever made longer: memory that is
/// new to the process, or must be zeroed first, costs as much as the decompression.
pub fn decompress_into<'b>(
    body: &[u8],
    bytes_max: usize,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b [u8], SnappyError> {
    let declared = declared_len(body, bytes_max)?;
    if buffer.len() < declared {
        buffer.clear();
        buffer.resize(declared, 0);
    }
    let room = buffer.get_mut(..declared).unwrap_or_default();
    let written = snap::raw::Decoder::new().decompress(body, room)?;
    Ok(buffer.get(..written).unwrap_or_default())
}

/// Compresses into one block. Fails only over 4 GiB, the format's own bound.
pub fn compress(bytes: &[u8]) -> Result<Vec<u8>, SnappyError> {
    Ok(snap::raw::Encoder::new().compress_vec(bytes)?)
}

/// The most that `compressed` bytes can decompress to: the densest element is a three-byte copy of
/// 64 bytes.
fn expansion_max(compressed: usize) -> usize {
    compressed.saturating_mul(64) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(body: &[u8], expected: &str) {
        let refusal = decompress(body, 1 << 20).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }

    #[test]
    fn round_trip() {
        for bytes in [&b""[..], b"a", &[7].repeat(100_000)] {
            assert_eq!(decompress(&compress(bytes).unwrap(), 1 << 20).unwrap(), bytes);
        }
    }

    #[test]
    fn a_buffer_is_used_again() {
        let mut buffer = Vec::new();
        for bytes in [&b"a longer text"[..], b"", b"short"] {
            let body = compress(bytes).unwrap();
            assert_eq!(decompress_into(&body, 1 << 20, &mut buffer).unwrap(), bytes);
        }
        assert_eq!(buffer.len(), 13);
        assert!(decompress_into(b"\x04\x0c\xff", 1 << 20, &mut buffer).is_err());
    }

    #[test]
    fn the_densest_real_block_passes_the_expansion_bound() {
        // The encoder makes nothing denser than this, and it is close to the bound.
        let compressed = compress(&[0].repeat(1 << 20)).unwrap();
        assert!(expansion_max(compressed.len()) >= 1 << 20);
        assert!(expansion_max(compressed.len()) < 3 << 19);
        assert_eq!(decompress(&compressed, 1 << 20).unwrap().len(), 1 << 20);
    }

    #[test]
    fn bombs_and_other_formats_are_refused() {
        check_refused(b"", "empty");
        check_refused(b"\xff\x06\x00\x00sNaPpY\x01\x05", "framed");
        // 4 GiB - 1 declared in five bytes.
        check_refused(b"\xff\xff\xff\xff\x0f", "at most 1048576");
        // Within the bound, but not reachable.
        check_refused(b"\x80\x80\x40\x00a", "more than 5 can expand to");
        check_refused(b"hello, this is not snappy at all", "not a valid snappy block");
        check_refused(b"\xff\xff\xff\xff\xff\xff\xff", "not a valid snappy block");
    }

    #[test]
    fn a_length_that_is_not_reached_is_refused() {
        let mut body = compress(b"abcdef").unwrap();
        body[0] += 1;
        check_refused(&body, "not a valid snappy block");
    }
}
