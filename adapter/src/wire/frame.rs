//! Frames of the streamed answer to a remote_read request: one series each.
//!
//! A frame is a length (LEB128), a CRC-32C (big endian) and a `ChunkedReadResponse`. Prometheus'
//! client loses a second series in a frame and doubles one that is split over two, although the
//! message allows both. Knows no store and no HTTP.

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint, int64};
use thiserror::Error;

use super::sampled::{encode_label, label_len, message_key, with_length};
use super::xor::Chunk;

/// The largest message that Prometheus' client takes, in bytes (its `chunked_read_limit`).
pub const FRAME_BYTES_MAX: usize = 50_000_000;

/// The number of XOR among Prometheus' chunk encodings.
const ENCODING_XOR: i64 = 1;

/// A series that is too large for the protocol: splitting it would double it at the client.
#[derive(Debug, Error)]
#[error(
    "a series of {bytes} bytes does not fit in a frame of {FRAME_BYTES_MAX}: ask for less time"
)]
pub struct FrameTooLarge {
    /// The size of the message that was to be framed, in bytes.
    pub bytes: usize,
}

/// Chunks as they stand in a series' frame. What later chunks of the series give may follow, as
/// often as need be.
pub fn chunk_fields(chunks: &[Chunk]) -> Vec<u8> {
    let bytes = chunks.iter().map(chunk_len).map(with_length).sum();
    let mut fields = Vec::with_capacity(bytes);
    for chunk in chunks {
        encode_chunk(chunk, &mut fields);
    }
    fields
}

/// Encodes one series as one frame.
///
/// `query_idx` is the position of its query in the request. Labels come sorted by name. Chunks come
/// ascending and disjoint, as [`super::xor::encode_chunks`] and [`chunk_fields`] make them; without
/// chunks the frame says only that the series exists, which is what `/api/v1/series` needs.
pub fn frame<L: AsRef<str>>(
    query_idx: usize,
    labels: &[(L, L)],
    chunks: &[u8],
) -> Result<Bytes, FrameTooLarge> {
    let series_bytes = labels.iter().map(label_len).map(with_length).sum::<usize>() + chunks.len();
    // usize is at most 64 bits wide, and a request's queries are bounded far below 2^63.
    let query_index = i64::try_from(query_idx).unwrap_or(i64::MAX);
    let bytes = with_length(series_bytes) + int64_len(2, query_index);
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameTooLarge { bytes });
    }
    let header = encoded_len_varint(bytes as u64) + size_of::<u32>();
    let mut frame = Vec::with_capacity(header + bytes);
    encode_varint(bytes as u64, &mut frame);
    let crc_at = frame.len();
    frame.extend_from_slice(&[0; size_of::<u32>()]);
    message_key(1, series_bytes, &mut frame);
    for label in labels {
        encode_label(label, &mut frame);
    }
    frame.extend_from_slice(chunks);
    encode_int64(2, query_index, &mut frame);
    let crc = crc32c::crc32c(frame.get(header..).unwrap_or_default());
    if let Some(place) = frame.get_mut(crc_at..header) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
    Ok(frame.into())
}

fn chunk_len(chunk: &Chunk) -> usize {
    int64_len(1, chunk.min_ms)
        + int64_len(2, chunk.max_ms)
        + int64_len(3, ENCODING_XOR)
        + with_length(chunk.data.len())
}

fn encode_chunk(chunk: &Chunk, message: &mut Vec<u8>) {
    message_key(2, chunk_len(chunk), message);
    encode_int64(1, chunk.min_ms, message);
    encode_int64(2, chunk.max_ms, message);
    encode_int64(3, ENCODING_XOR, message);
    message_key(4, chunk.data.len(), message);
    message.extend_from_slice(&chunk.data);
}

/// Proto3 leaves out zeros.
fn encode_int64(tag: u32, number: i64, message: &mut Vec<u8>) {
    if number != 0 {
        int64::encode(tag, &number, message);
    }
}

fn int64_len(tag: u32, number: i64) -> usize {
    if number == 0 { 0 } else { int64::encoded_len(tag, &number) }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::model::sample::Sample;
    use crate::wire::{messages, xor};

    fn check(query_idx: usize, labels: &[(&str, &str)], chunks: &[Chunk]) {
        // In two parts, as a long range comes.
        let (first, second) = chunks.split_at(chunks.len() / 2);
        let fields = [chunk_fields(first), chunk_fields(second)].concat();
        let frame = frame(query_idx, labels, &fields).unwrap();
        let mut rest = &frame[..];
        let length = prost::encoding::decode_varint(&mut rest).unwrap();
        let (crc, message) = rest.split_at(4);
        assert_eq!(message.len() as u64, length);
        assert_eq!(crc, crc32c::crc32c(message).to_be_bytes());
        let expected = messages::ChunkedReadResponse {
            chunked_series: vec![messages::ChunkedSeries {
                labels: messages::labels(labels),
                chunks: chunks
                    .iter()
                    .map(|chunk| messages::Chunk {
                        min_time_ms: chunk.min_ms,
                        max_time_ms: chunk.max_ms,
                        r#type: 1,
                        data: chunk.data.to_vec(),
                    })
                    .collect(),
            }],
            query_index: i64::try_from(query_idx).unwrap(),
        };
        assert_eq!(message, expected.encode_to_vec());
    }

    #[test]
    fn equals_plain_prost() {
        let samples: Vec<_> = (0..500_i32)
            .map(|n| Sample { timestamp_ms: i64::from(n), value: f64::from(n), start_ms: None })
            .collect();
        let chunks = xor::encode_chunks(&samples);
        check(0, &[], &[]);
        check(0, &[("__name__", "up"), ("long", &"y".repeat(200))], &[]);
        check(3, &[("__name__", "up")], &chunks);
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C in RFC 3720 appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_series_that_does_not_fit_is_refused() {
        let data = Bytes::from(vec![0; FRAME_BYTES_MAX]);
        let chunk = Chunk { min_ms: 0, max_ms: 1, data };
        assert!(frame(0, &[("a", "b")], &chunk_fields(&[chunk])).is_err());
    }
}
