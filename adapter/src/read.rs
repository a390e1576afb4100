//! A remote_read request from its decompressed body to its answer, sampled or streamed.
//! Everything is collected within bounds before the first byte is sent, so that an error is a
//! status and never a short answer. Knows no HTTP and no store.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::limits;
use crate::metrics::Metrics;
use crate::model::labels::Labels;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::TimeRange;
use crate::query::{QueryError, Slot, Slots};
use crate::wire::frame::{FRAME_BYTES_MAX, frame};
use crate::wire::read::{MatcherKind, Query, ReadLimits, ResponseType, decode};
use crate::wire::sampled::SampledResponse;
use crate::wire::snappy;
use crate::wire::xor::{Chunk, encode_chunks};

/// An answer, complete in memory.
#[derive(Debug)]
pub enum Answer {
    /// One compressed `ReadResponse`.
    Sampled(Bytes),
    /// Frames to be sent one after another.
    Streamed(Frames),
}

/// Series with encoded chunks, query after query; each becomes one frame, never two: Prometheus'
/// client doubles a series that is split and loses the second series of a frame.
#[derive(Debug)]
pub struct Frames {
    series: std::vec::IntoIter<(usize, Labels, Vec<Chunk>)>,
    // Held until the last frame is sent: an answer in memory counts as a read under way.
    _slot: Slot,
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

impl Iterator for Frames {
    type Item = Result<Bytes, QueryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (query_idx, labels, chunks) = self.series.next()?;
        Some(
            frame(query_idx, labels.pairs(), &chunks)
                .map_err(|error| QueryError::TooMuch(error.to_string())),
        )
    }
}

/// Answers read requests.
#[derive(Debug)]
pub struct Reader {
    engine: Arc<Engine>,
    metrics: Metrics,
    slots: Slots,
}

impl Reader {
    /// Reads from this engine.
    pub fn new(engine: Arc<Engine>, metrics: Metrics) -> Reader {
        Reader {
            engine,
            metrics,
            slots: Slots::new(limits::READS_IN_FLIGHT_MAX, limits::READS_WAITING_MAX),
        }
    }

    /// Answers a compressed request. Dropping the future ends the query; a read of the local disk that runs already ends by itself.
    pub async fn read(&self, body: &[u8]) -> Result<Answer, QueryError> {
        let answer = async {
            let slot = self.slots.acquire().await?;
            self.answer(body, slot).await
        };
        let late = || {
            QueryError::TryAgain(
                "the query took too long; narrow its matchers or its time range".to_owned(),
            )
        };
        let answer = timeout(limits::READ_DEADLINE, answer).await.unwrap_or_else(|_| Err(late()));
        if answer.is_err() {
            self.metrics.unanswered();
        }
        answer
    }

    async fn answer(&self, body: &[u8], slot: Slot) -> Result<Answer, QueryError> {
        let client = |error: &dyn std::fmt::Display| QueryError::Client(error.to_string());
        let decoded = snappy::decompress(body, limits::READ_BODY_BYTES_MAX)
            .map_err(|error| client(&error))?;
        let read_limits =
            ReadLimits { queries: limits::READ_QUERIES_MAX, matchers: limits::QUERY_MATCHERS_MAX };
        let request = decode(&decoded, &read_limits).map_err(|error| client(&error))?;
        let mut queries = Vec::with_capacity(request.queries.len());
        for query in request.queries {
            queries.push((matchers(&query)?, query));
        }
        match request.response {
            ResponseType::Sampled => self.sampled(&queries, slot).await,
            ResponseType::Streamed => self.streamed(&queries, slot).await,
        }
    }

    async fn sampled(
        &self,
        queries: &[(Vec<Matcher>, Query)],
        slot: Slot,
    ) -> Result<Answer, QueryError> {
        let mut response = SampledResponse::new(queries.len());
        for (query_idx, (matchers, query)) in queries.iter().enumerate() {
            if labels_only(query) {
                let series = self.engine.series(range(query), matchers).await?;
                self.metrics.answered(series.len());
                for labels in series {
                    response.push(query_idx, labels.pairs(), &[]);
                }
                continue;
            }
            let encode = |samples: &[Sample]| (samples.to_vec(), size_of_val(samples));
            let series = self.engine.select(range(query), matchers, &encode).await?;
            self.metrics.answered(series.len());
            for (labels, samples) in series {
                response.push(query_idx, labels.pairs(), &samples);
            }
            if response.len() > limits::QUERY_BYTES_MAX {
                return Err(QueryError::TooMuch(format!(
                    "the answer has more than {} bytes; ask for less at once",
                    limits::QUERY_BYTES_MAX
                )));
            }
        }
        let bytes = response.finish().map_err(|error| QueryError::TooMuch(error.to_string()))?;
        Ok(Answer::Sampled(Bytes::from_owner(Sampled { bytes, _slot: slot })))
    }

    async fn streamed(
        &self,
        queries: &[(Vec<Matcher>, Query)],
        slot: Slot,
    ) -> Result<Answer, QueryError> {
        let mut all = Vec::new();
        let mut bytes = 0;
        for (query_idx, (matchers, query)) in queries.iter().enumerate() {
            if labels_only(query) {
                let series = self.engine.series(range(query), matchers).await?;
                self.metrics.answered(series.len());
                all.extend(series.into_iter().map(|labels| (query_idx, labels, Vec::new())));
                continue;
            }
            let encode = |samples: &[Sample]| {
                let chunks = encode_chunks(samples);
                let bytes = chunks.iter().map(|chunk| chunk.data.len() + 64).sum();
                (chunks, bytes)
            };
            let series = self.engine.select(range(query), matchers, &encode).await?;
            self.metrics.answered(series.len());
            for (labels, chunks) in series {
                let of_series: usize = chunks.iter().map(|chunk| chunk.data.len() + 64).sum();
                bytes += of_series;
                // Judged here, where it still is a status.
                if of_series > FRAME_BYTES_MAX / 10 * 9 || bytes > limits::QUERY_BYTES_MAX {
                    let text = "the answer is larger than the protocol or this server allows; ask for less at once";
                    return Err(QueryError::TooMuch(text.to_owned()));
                }
                all.push((query_idx, labels, chunks));
            }
        }
        Ok(Answer::Streamed(Frames { series: all.into_iter(), _slot: slot }))
    }
}

fn range(query: &Query) -> TimeRange {
    TimeRange { start_ms: query.start_ms, end_ms: query.end_ms }
}

/// `/api/v1/series` asks for labels only, over the widest range there is.
fn labels_only(query: &Query) -> bool {
    query.hints.as_ref().is_some_and(|hints| hints.func == "series")
}

fn matchers(query: &Query) -> Result<Vec<Matcher>, QueryError> {
    let mut matchers = Vec::with_capacity(query.matchers.len());
    for (kind, name, value) in &query.matchers {
        let matcher = match kind {
            MatcherKind::Equal => Ok(Matcher::equal(name, value)),
            MatcherKind::NotEqual => Ok(Matcher::not_equal(name, value)),
            MatcherKind::Matches => Matcher::matching(name, value),
            MatcherKind::NotMatches => Matcher::not_matching(name, value),
        };
        matchers.push(
            matcher.map_err(|error| QueryError::Client(format!("matcher on {name:?}: {error}")))?,
        );
    }
    Ok(matchers)
}
