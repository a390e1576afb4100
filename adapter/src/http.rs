//! The HTTP doors: which path leads to which use case, and each verdict as an answer.
//! A status for an error is chosen by `serve::answer::Refusal`'s constructors alone.

mod billing;
pub mod operator;
mod parameters;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use serve::answer::{Aborted, Answer, Refusal, end_of_stream};
use serve::call::Call;
use serve::exposition;
use serve::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use serve::http::{HeaderName, HeaderValue, StatusCode};
use serve::routes::Routes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::engine::Ticket;
use crate::feed::Workers;
use crate::limits;
use crate::query::QueryError;
use crate::read::{self, Frames, Reader};
use crate::status::Observer;
use crate::usage::Usage;
use crate::wire::negotiate::{self, CONTENT_TYPE_SAMPLED, CONTENT_TYPE_STREAMED, Protocol};
use crate::write::{Outcome, Verdict, Writer};

// remote_write 2.0, "Required Written Response Headers".
const SAMPLES_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// Frames that wait for a slow reader; each is one series.
const FRAMES_WAITING_MAX: usize = 16;

/// The use cases behind the doors.
#[derive(Debug)]
pub struct Doors {
    /// remote_write.
    pub writer: Writer,
    /// remote_read.
    pub reader: Reader,
    /// Billing.
    pub usage: Arc<Usage>,
    /// An operator's questions.
    pub observer: Arc<Observer>,
    /// The workers of 2012, where their door is open.
    pub workers: Option<Workers>,
    /// The page of our own metrics.
    pub registry: Registry,
}

impl Doors {
    /// The route table.
    pub fn routes(self) -> Routes {
        let doors = Arc::new(self);
        let (write, read, metrics) = (Arc::clone(&doors), Arc::clone(&doors), Arc::clone(&doors));
        let routes = billing::routes(Routes::new(), &doors.usage);
        let routes = operator::routes(routes, &doors.observer, &doors.usage);
        operator::workers_route(routes, doors.workers.clone())
            .get("/", async |_call: Call| Answer::text(StatusCode::OK, LANDING))
            .get("/metrics", move |call: Call| {
                let answer = exposition::page(&metrics.registry, &call.head);
                async move { answer }
            })
            .post("/api/v1/write", move |call: Call| {
                let doors = Arc::clone(&write);
                async move { doors.write(call).await.unwrap_or_else(Answer::from) }
            })
            .post("/api/v1/read", move |call: Call| {
                let doors = Arc::clone(&read);
                async move { doors.read(call).await.unwrap_or_else(Answer::from) }
            })
    }

    async fn write(&self, call: Call) -> Result<Answer, Refusal> {
        let protocol = negotiate::write_protocol(
            header(&call, &CONTENT_TYPE)?,
            header(&call, &CONTENT_ENCODING)?,
        )
        .map_err(|error| Refusal::client(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))?;
        let ticket = self.admit(&call).map_err(|refusal| counted(refusal, protocol, 0))?;
        let (_, body) = call
            .body(limits::BODY_BYTES_MAX)
            .await
            .map_err(|refusal| counted(refusal, protocol, 0))?;
        let Verdict { samples_written, outcome } = self.writer.write(protocol, &body, ticket).await;
        match outcome {
            Outcome::Stored => {
                Ok(counted_answer(Answer::new(StatusCode::NO_CONTENT), protocol, samples_written))
            }
            Outcome::Refused(text) => Err(counted(
                Refusal::client(StatusCode::BAD_REQUEST, text),
                protocol,
                samples_written,
            )),
            Outcome::TryAgain(text, after) => {
                Err(counted(Refusal::busy(text, after), protocol, samples_written))
            }
        }
    }

    /// The body's share of the memory for writes is taken before it is read.
    fn admit(&self, call: &Call) -> Result<Ticket, Refusal> {
        let announced = call.header(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        let bytes = announced.unwrap_or(limits::BODY_BYTES_MAX).min(limits::BODY_BYTES_MAX);
        let busy = || Refusal::busy("too many write requests at once", Duration::from_secs(1));
        self.writer.admit(bytes).ok_or_else(busy)
    }

    async fn read(&self, call: Call) -> Result<Answer, Refusal> {
        negotiate::read_supported(header(&call, &CONTENT_ENCODING)?).map_err(|error| {
            Refusal::client(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string())
        })?;
        let (_, body) = call.body(limits::READ_BODY_BYTES_MAX).await?;
        match self.reader.read(&body).await.map_err(refusal)? {
            read::Answer::Sampled(bytes) => {
                Ok(Answer::bytes(StatusCode::OK, CONTENT_TYPE_SAMPLED, bytes)
                    .header(CONTENT_ENCODING, HeaderValue::from_static("snappy")))
            }
            read::Answer::Streamed(frames) => Ok(stream(frames)),
        }
    }
}

const LANDING: &str = "kanyun-adapter: Prometheus remote storage\n\
    POST /api/v1/write   remote_write 1.0 and 2.0\n\
    POST /api/v1/read    remote_read, sampled and streamed\n\
    POST /query_usage_report, and POST /   Kanyun's API of 2012\n\
    GET  /api/v1/usage   a guest's minutes, JSON or CSV\n\
    GET  /api/v1/status, GET /api/v1/ledger   what is kept; a guest's stored rows\n\
    GET  /api/v1/workers   Kanyun's workers that send here, alive and dead\n\
    GET  /metrics        this process' own metrics\n\
    GET  /-/healthy, /-/ready\n";

/// A header that decides how the body is read must be one and be text: guessing would decode it
/// wrongly.
fn header<'c>(call: &'c Call, name: &HeaderName) -> Result<Option<&'c str>, Refusal> {
    let refused = |what: &str| {
        Refusal::client(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("header {name} {what}"))
    };
    let mut values = call.head.headers.get_all(name).iter();
    let first = values.next().map(|value| value.to_str().map_err(|_| refused("is not text")));
    if values.next().is_some() {
        return Err(refused("came more than once"));
    }
    first.transpose()
}

/// The three counts, on 2.0 only: wrong ones on 1.0 made senders report false failures, and none
/// are asked for there.
fn counts(protocol: Protocol, samples: u64) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let all = [(SAMPLES_WRITTEN, samples), (HISTOGRAMS_WRITTEN, 0), (EXEMPLARS_WRITTEN, 0)];
    all.into_iter()
        .filter(move |_| protocol == Protocol::V2)
        .map(|(name, count)| (name, HeaderValue::from(count)))
}

fn counted_answer(answer: Answer, protocol: Protocol, samples: u64) -> Answer {
    counts(protocol, samples).fold(answer, |answer, (name, value)| answer.header(name, value))
}

fn counted(refusal: Refusal, protocol: Protocol, samples: u64) -> Refusal {
    counts(protocol, samples).fold(refusal, |refusal, (name, value)| refusal.header(name, value))
}

fn refusal(error: QueryError) -> Refusal {
    match error {
        QueryError::Client(text) => Refusal::client(StatusCode::BAD_REQUEST, text),
        QueryError::TooMuch(text) => Refusal::client(StatusCode::UNPROCESSABLE_ENTITY, text),
        QueryError::TryAgain(text) => Refusal::busy(text, Duration::from_secs(5)),
        QueryError::Damaged(text) => {
            Refusal::internal("stored data cannot be read; see this server's log", text)
        }
    }
}

/// Sends frames as the client takes them. A frame that cannot be made aborts the connection: a
/// clean end would look like a whole answer.
fn stream(frames: Frames) -> Answer {
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
    tokio::spawn(async move {
        // Given up, too, when the client takes too long: the answer's memory and its slot are held.
        if timeout(limits::ANSWER_DEADLINE, send(frames, sender)).await.is_err() {
            tracing::warn!("an answer was given up: its client took it too slowly");
        }
    });
    Answer::stream(StatusCode::OK, CONTENT_TYPE_STREAMED, receiver)
}

async fn send(mut frames: Frames, sender: mpsc::Sender<Result<Bytes, Aborted>>) {
    while let Some(frame) = frames.next().await {
        let frame: Result<Bytes, Aborted> = frame.map_err(|error| {
            tracing::error!(%error, "an answer was given up after its first frame");
            Aborted
        });
        let failed = frame.is_err();
        // A client that has gone away needs no more frames.
        if sender.send(frame).await.is_err() || failed {
            return;
        }
    }
    drop(sender.send(end_of_stream()).await);
}
