//! A read's answer as it comes together: its series, each with what waits for it, judged against
//! every bound before the first byte is sent. Knows the wire's frames; no engine and no HTTP.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::room::Room;
use super::waiting::{Sorted, Waiting};
use crate::limits;
use crate::model::labels::Labels;
use crate::query::{QueryError, Slot};
use crate::wire::frame::{FRAME_BYTES_MAX, frame};
use crate::wire::sampled::SampledResponse;

/// Bytes of frames that are made at once where they come from the disk.
const BATCH_BYTES: usize = 1 << 20;

/// Series of all queries, and what was read of them so far.
#[derive(Debug)]
pub(super) struct Collecting {
    series: Vec<Listed>,
    waiting: Waiting,
    bytes: usize,
    bounds: Bounds,
}

/// What one answer may be, in bytes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    all: usize,
    series: usize,
}

/// A series of a query.
#[derive(Debug)]
struct Listed {
    query_idx: usize,
    labels: Labels,
    /// `None` where the query asks for samples, and none was found.
    bytes: Option<usize>,
}

/// An answer that is whole and within all bounds.
#[derive(Debug)]
pub(super) struct Collected {
    series: std::iter::Enumerate<std::vec::IntoIter<Listed>>,
    sorted: Sorted,
    // Until the last byte is sent: an answer that waits counts as a read under way.
    slot: Slot,
}

/// Series with encoded chunks, query after query; each becomes one frame, never two: Prometheus'
/// client doubles a series that is split and loses the second series of a frame.
#[derive(Debug)]
pub struct Frames {
    collected: Option<Box<Collected>>,
    ready: VecDeque<Bytes>,
}

/// A sampled answer, which holds its slot until it is sent.
struct Sampled {
    bytes: Vec<u8>,
    _slot: Slot,
}

impl AsRef<[u8]> for Sampled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Collecting {
    /// For frames: a series must fit into one.
    pub(super) fn streamed(room: &Arc<Room>) -> Collecting {
        let series = FRAME_BYTES_MAX / 10 * 9;
        Collecting::new(room, Bounds { all: limits::READ_BYTES_MAX, series })
    }

    /// For one message, which must be whole in memory.
    pub(super) fn sampled(room: &Arc<Room>) -> Collecting {
        let all = limits::QUERY_BYTES_MAX;
        Collecting::new(room, Bounds { all, series: all })
    }

    fn new(room: &Arc<Room>, bounds: Bounds) -> Collecting {
        let waiting = Waiting::new(Arc::clone(room));
        Collecting { series: Vec::new(), waiting, bytes: 0, bounds }
    }

    /// Adds series, of which samples may follow; says at which place the first one is.
    pub(super) fn list(&mut self, query_idx: usize, labels: Vec<Labels>) -> usize {
        let first = self.series.len();
        self.series.extend(labels.into_iter().map(|labels| Listed {
            query_idx,
            labels,
            bytes: None,
        }));
        first
    }

    /// Adds series that are answered without samples.
    pub(super) fn name(&mut self, query_idx: usize, labels: Vec<Labels>) {
        self.series.extend(labels.into_iter().map(|labels| Listed {
            query_idx,
            labels,
            bytes: Some(0),
        }));
    }

    /// Adds what was encoded of the series at a place, behind what there is of it.
    pub(super) async fn push(&mut self, place: usize, encoded: &[u8]) -> Result<(), QueryError> {
        self.bytes += encoded.len();
        let Some(series) = self.series.get_mut(place) else { return Ok(()) };
        let of_series = series.bytes.unwrap_or(0) + encoded.len();
        series.bytes = Some(of_series);
        if of_series > self.bounds.series || self.bytes > self.bounds.all {
            let text = "the answer is larger than the protocol or this server allows; ask for less at once";
            return Err(QueryError::TooMuch(text.to_owned()));
        }
        // The number of series is bounded far below.
        let place = u32::try_from(place).map_err(|error| QueryError::TooMuch(error.to_string()))?;
        self.waiting.push(place, encoded).await
    }

    /// How many series from a place on are in the answer.
    pub(super) fn answered(&self, first: usize) -> usize {
        self.series.iter().skip(first).filter(|series| series.bytes.is_some()).count()
    }

    /// Everything came.
    pub(super) async fn finish(self, slot: Slot) -> Result<Collected, QueryError> {
        let sorted = self.waiting.finish().await?;
        Ok(Collected { series: self.series.into_iter().enumerate(), sorted, slot })
    }
}

impl Collected {
    /// The next series and its bytes. May block.
    fn next(&mut self) -> Option<io::Result<(usize, Labels, Vec<u8>)>> {
        let (place, Listed { query_idx, labels, .. }) =
            self.series.find(|(_, series)| series.bytes.is_some())?;
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Some(self.sorted.take(place).map(|bytes| (query_idx, labels, bytes)))
    }

    fn frame(&mut self) -> Option<Result<Bytes, QueryError>> {
        let (query_idx, labels, chunks) = match self.next()? {
            Ok(next) => next,
            Err(error) => return Some(Err(lost(&error))),
        };
        let frame = frame(query_idx, labels.pairs(), &chunks);
        Some(frame.map_err(|error| QueryError::TooMuch(error.to_string())))
    }

    /// One compressed `ReadResponse` to so many queries; on a thread that may be busy for a while.
    pub(super) async fn sampled(mut self, queries: usize) -> Result<Bytes, QueryError> {
        let encode = move || {
            let mut response = SampledResponse::new(queries);
            while let Some(next) = self.next() {
                let (query_idx, labels, samples) = next.map_err(|error| lost(&error))?;
                response.push(query_idx, labels.pairs(), &samples);
                if response.len() > limits::QUERY_BYTES_MAX {
                    return Err(QueryError::TooMuch(format!(
                        "the answer has more than {} bytes; ask for less at once",
                        limits::QUERY_BYTES_MAX
                    )));
                }
            }
            let bytes =
                response.finish().map_err(|error| QueryError::TooMuch(error.to_string()))?;
            Ok(Bytes::from_owner(Sampled { bytes, _slot: self.slot }))
        };
        on_a_thread(encode).await?
    }
}

impl Frames {
    pub(super) fn new(collected: Collected) -> Frames {
        Frames { collected: Some(Box::new(collected)), ready: VecDeque::new() }
    }

    /// The next frame; `None` after the last one. After an error, or where this was given up
    /// before it returned, the answer cannot be continued.
    pub async fn next(&mut self) -> Option<Result<Bytes, QueryError>> {
        if let Some(frame) = self.ready.pop_front() {
            return Some(Ok(frame));
        }
        let mut collected = self.collected.take()?;
        if !collected.sorted.blocks() {
            let frame = collected.frame();
            self.collected = Some(collected);
            return frame;
        }
        let read = on_a_thread(move || {
            let (mut frames, mut bytes) = (VecDeque::new(), 0);
            while bytes < BATCH_BYTES {
                let Some(frame) = collected.frame().transpose()? else { break };
                bytes += frame.len();
                frames.push_back(frame);
            }
            Ok((frames, collected))
        });
        match read.await.and_then(|read| read) {
            Ok((frames, collected)) => {
                self.ready = frames;
                self.collected = Some(collected);
                self.ready.pop_front().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| QueryError::TryAgain(format!("the read was interrupted: {error}")))
}

fn lost(error: &io::Error) -> QueryError {
    QueryError::Damaged(format!("a temporary file cannot be read: {error}"))
}
