//! A remote_read request from its decompressed body to its answer, sampled or streamed.
//! Everything is collected within bounds before the first byte is sent, so that an error is a
//! status and never a short answer. Knows no HTTP and no store.

mod collected;
mod room;
mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::limits;
use crate::metrics::Metrics;
use crate::model::matcher::Matcher;
use crate::model::sample::Sample;
use crate::model::time::TimeRange;
use crate::query::{QueryError, Slot, Slots};
use crate::wire::frame::chunk_fields;
use crate::wire::read::{MatcherKind, Query, ReadLimits, ResponseType, decode};
use crate::wire::sampled::sample_fields;
use crate::wire::snappy;
use crate::wire::xor::encode_chunks;
use collected::Collecting;
pub use collected::Frames;
pub use room::Room;

/// An answer that is whole: nothing can make it shorter any more.
#[derive(Debug)]
pub enum Answer {
    /// One compressed `ReadResponse`.
    Sampled(Bytes),
    /// Frames to be sent one after another.
    Streamed(Frames),
}

/// Answers read requests.
#[derive(Debug)]
pub struct Reader {
    engine: Arc<Engine>,
    metrics: Metrics,
    slots: Slots,
    room: Arc<Room>,
}

impl Reader {
    /// Reads from this engine; what does not fit into memory waits in this room.
    pub fn new(engine: Arc<Engine>, metrics: Metrics, room: Room) -> Reader {
        Reader {
            engine,
            metrics,
            slots: Slots::new(limits::READS_IN_FLIGHT_MAX, limits::READS_WAITING_MAX),
            room: Arc::new(room),
        }
    }

    /// Answers a compressed request. Dropping the future ends the query, and gives back its slot,
    /// its memory and its temporary file; a read of the local disk that runs already, of a part of
    /// a group's hours, ends by itself.
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
            ResponseType::Sampled => {
                let mut collecting = Collecting::sampled(&self.room);
                let encode = |samples: Vec<Sample>| sample_fields(&samples);
                self.collect(&queries, &mut collecting, &encode).await?;
                let collected = collecting.finish(slot).await?;
                Ok(Answer::Sampled(collected.sampled(queries.len()).await?))
            }
            ResponseType::Streamed => {
                let mut collecting = Collecting::streamed(&self.room);
                let encode = |samples: Vec<Sample>| chunk_fields(&encode_chunks(&samples));
                self.collect(&queries, &mut collecting, &encode).await?;
                Ok(Answer::Streamed(Frames::new(collecting.finish(slot).await?)))
            }
        }
    }

    async fn collect(
        &self,
        queries: &[(Vec<Matcher>, Query)],
        collecting: &mut Collecting,
        encode: &(impl Fn(Vec<Sample>) -> Vec<u8> + Sync),
    ) -> Result<(), QueryError> {
        for (query_idx, (matchers, query)) in queries.iter().enumerate() {
            if labels_only(query) {
                let series = self.engine.series(range(query), matchers).await?;
                self.metrics.answered(series.len());
                collecting.name(query_idx, series);
                continue;
            }
            let Some(mut found) = self.engine.find(range(query), matchers).await? else {
                self.metrics.answered(0);
                continue;
            };
            let first = collecting.list(query_idx, std::mem::take(&mut found.labels));
            let mut parts = found.parts(encode);
            while let Some(part) = parts.try_next().await? {
                for (place, encoded) in part {
                    collecting.push(first + place, &encoded).await?;
                }
            }
            self.metrics.answered(collecting.answered(first));
        }
        Ok(())
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

#[cfg(test)]
mod tests;
