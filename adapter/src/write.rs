//! A remote_write request from its decompressed body to its verdict: what is stored, what is
//! refused, whose fault it is and whether to try again. Knows no HTTP and no store.

mod refusals;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Batch, Engine, Known, NoMemory, Ticket, Window};
use crate::limits;
use crate::metrics::{Metrics, Reason};
use crate::model::labels::METRIC_NAME;
use crate::model::sample::Sample;
use crate::model::time::TimeRange;
use crate::wire::negotiate::Protocol;
use crate::wire::snappy;
use crate::wire::write::{DecodeError, DecodeLimits, Pair, Series, WriteRequest, decode};
use refusals::Refusals;

/// What one request may hold (`limits.rs`).
pub const DECODE_LIMITS: DecodeLimits = DecodeLimits {
    series: limits::REQUEST_SERIES_MAX,
    samples: limits::REQUEST_SAMPLES_MAX,
    labels: limits::REQUEST_LABELS_MAX,
    labels_per_series: limits::SERIES_LABELS_MAX,
    expanded_label_bytes: limits::REQUEST_LABEL_BYTES_MAX,
    symbols: limits::REQUEST_SYMBOLS_MAX,
};

/// Memory of one series while its request is judged, and of what its commit teaches, bytes.
const SERIES_BYTES: usize = 250;
/// Memory of one sample from its decoding to the end of its commit, bytes.
const SAMPLE_BYTES: usize = 150;

/// How a request went. `samples_written` is exact whatever the outcome: the count that
/// remote_write 2.0 puts into its headers ("Required Written Response Headers").
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Samples that are durable now.
    pub samples_written: u64,
    /// What to answer.
    pub outcome: Outcome,
}

/// The three answers of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was stored: 204.
    Stored,
    /// Something in the request can never be stored; the valid rest is: 400, do not send again.
    Refused(String),
    /// Passing trouble: 503, send the whole request again after this time.
    TryAgain(String, Duration),
}

thread_local! {
    /// Each thread decompresses into memory of its own, one request after another.
    static DECODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Takes write requests.
#[derive(Debug)]
pub struct Writer {
    engine: Arc<Engine>,
    metrics: Metrics,
}

impl Writer {
    /// Writes into this engine.
    pub fn new(engine: Arc<Engine>, metrics: Metrics) -> Writer {
        Writer { engine, metrics }
    }

    /// Lets a request in whose body has this many bytes; `None` where it should come again.
    pub fn admit(&self, body_bytes: usize) -> Option<Ticket> {
        self.engine.admit(body_bytes)
    }

    /// Decompresses, decodes, judges and stores a request. Returns when it is durable or refused.
    /// Memory is asked for before it is spent, at every step that may need much of it.
    pub async fn write(&self, protocol: Protocol, body: &[u8], mut ticket: Ticket) -> Verdict {
        ticket.arrived(&self.engine);
        let mut decoded = DECODED.take();
        let judged = self.judge((protocol, body), &mut decoded, &mut ticket);
        if decoded.capacity() <= limits::DECODED_KEPT_BYTES_MAX {
            DECODED.set(decoded);
        }
        let (batch, refusals) = match judged {
            Ok(judged) => judged,
            Err(verdict) => return verdict,
        };
        let samples = batch.len() as u64;
        if let Err(error) = self.engine.append(batch, ticket).await {
            // Damage of the store is not the sender's fault either, and it keeps the samples.
            let after = error.retry_after().unwrap_or(Duration::from_secs(60));
            return try_again(error.to_string(), after);
        }
        self.metrics.written(samples);
        refusals.report(&self.metrics);
        let outcome = refusals.text(samples).map_or(Outcome::Stored, Outcome::Refused);
        Verdict { samples_written: samples, outcome }
    }

    /// What is to be stored of a request, and what is refused; or its verdict, where nothing is.
    /// `decoded` is space for the decompressed body, which nothing of the outcome refers to.
    fn judge(
        &self,
        (protocol, body): (Protocol, &[u8]),
        decoded: &mut Vec<u8>,
        ticket: &mut Ticket,
    ) -> Result<(Batch<'_>, Refusals), Verdict> {
        let refused = |error: &dyn std::error::Error| refused(error.to_string());
        let bytes_max = limits::DECODED_BYTES_MAX;
        let declared = snappy::declared_len(body, bytes_max).map_err(|error| refused(&error))?;
        ticket.grow(declared).map_err(no_memory)?;
        let decoded =
            snappy::decompress_into(body, bytes_max, decoded).map_err(|error| refused(&error))?;
        let request = decode(protocol, decoded, &DECODE_LIMITS).map_err(|error| refused(&error))?;
        let pools = request.series.len() * SERIES_BYTES + request.samples.len() * SAMPLE_BYTES;
        ticket.grow(pools).map_err(no_memory)?;
        self.metrics.metadata(request.metadata);

        let mut judged = Judged {
            refusals: Refusals::default(),
            batch: self.engine.batch(),
            window: self.engine.window(),
        };
        judged.all(&request).map_err(|error| refused(&error))?;
        let Judged { refusals, batch, .. } = judged;
        if refusals.count(Reason::Ahead) * 2 > request.samples.len() as u64 {
            self.metrics.request_ahead();
            let text = "most samples are more than 10 minutes ahead of this server's clock; check both clocks".to_owned();
            return Err(try_again(text, Duration::from_secs(30)));
        }
        ticket.grow(batch.index_bytes()).map_err(no_memory)?;
        Ok((batch, refusals))
    }
}

/// A request that can never fit must not be sent again: it would stop everything behind it.
fn no_memory(why: NoMemory) -> Verdict {
    match why {
        NoMemory::Now => {
            try_again("too many write requests at once".to_owned(), Duration::from_secs(1))
        }
        NoMemory::Ever => refused(
            "the request needs more memory than all requests may have; send smaller ones"
                .to_owned(),
        ),
    }
}

fn refused(text: String) -> Verdict {
    Verdict { samples_written: 0, outcome: Outcome::Refused(text) }
}

fn try_again(text: String, after: Duration) -> Verdict {
    Verdict { samples_written: 0, outcome: Outcome::TryAgain(text, after) }
}

/// Space that is used again for each series of a request.
#[derive(Default)]
struct Scratch<'a> {
    sent: Vec<Pair<'a>>,
    labels: Vec<Pair<'a>>,
    kept: Vec<Sample>,
}

struct Judged<'e> {
    refusals: Refusals,
    batch: Batch<'e>,
    window: Window,
}

impl Judged<'_> {
    /// An error refuses the whole request; nothing of it is stored then.
    fn all(&mut self, request: &WriteRequest<'_>) -> Result<(), DecodeError> {
        let mut scratch = Scratch::default();
        self.batch.reserve(request.samples.len());
        let known = self.batch.recall(request.series.iter().map(|series| series.fingerprint));
        for (series, known) in request.series.iter().zip(known) {
            let samples = request.samples_of(series);
            match known {
                Some(known) if self.is_plain(series, samples, &known) => {
                    self.batch.add_known(&known, samples);
                }
                _ => self.one(request, series, &mut scratch)?,
            }
        }
        Ok(())
    }

    /// Whether nothing of a known series can be refused or is new.
    fn is_plain(&self, series: &Series<'_>, samples: &[Sample], known: &Known) -> bool {
        let Window { oldest_ms, latest_ms } = self.window;
        let times = known.times().within(TimeRange { start_ms: oldest_ms, end_ms: latest_ms });
        series.fault.is_none()
            && series.histograms == 0
            && series.exemplars == 0
            && times.is_some_and(|times| samples.iter().all(|s| times.contains(s.timestamp_ms)))
    }

    /// Judges one series; the scratch space is reused over a request.
    fn one<'a>(
        &mut self,
        request: &WriteRequest<'a>,
        series: &Series<'a>,
        scratch: &mut Scratch<'a>,
    ) -> Result<(), DecodeError> {
        let Scratch { sent, labels, kept } = scratch;
        let fault = request.labels_of(series, sent)?;
        self.refusals.add(
            Reason::Histogram,
            u64::from(series.histograms),
            "native histograms are not stored",
            sent,
        );
        self.refusals.add(
            Reason::Exemplar,
            u64::from(series.exemplars),
            "exemplars are not stored",
            sent,
        );
        let samples = request.samples_of(series);
        let fault = match fault {
            Some(fault) => Err(fault.to_string()),
            None => canonical(sent, labels).map_err(str::to_owned),
        };
        if let Err(fault) = fault {
            // A series without samples still counts as one thing refused.
            self.refusals.add(Reason::InvalidSeries, samples.len().max(1) as u64, &fault, sent);
            return Ok(());
        }
        kept.clear();
        let (mut old, mut ahead) = (0, 0);
        for sample in samples {
            if sample.timestamp_ms < self.window.oldest_ms {
                old += 1;
            } else if sample.timestamp_ms > self.window.latest_ms {
                ahead += 1;
            } else {
                kept.push(*sample);
            }
        }
        self.refusals.add(Reason::TooOld, old, "older than the retention allows", sent);
        self.refusals.add(
            Reason::Ahead,
            ahead,
            "more than 10 minutes ahead of this server's clock",
            sent,
        );
        if !kept.is_empty() {
            self.batch.add(series.fingerprint, labels, kept);
        }
        Ok(())
    }
}

/// Whether a name is less than the next. The first byte decides it for almost all, without a call;
/// and to call memcmp with an empty text, whose address is none, costs as much as everything else
/// here: it loads under an empty mask, which the processor finishes in microcode.
fn comes_before(one: &str, two: &str) -> bool {
    match (one.as_bytes().first(), two.as_bytes().first()) {
        (None, second) => second.is_some(),
        (Some(_), None) => false,
        (Some(first), Some(second)) if first != second => first < second,
        _ => one < two,
    }
}

/// Sorts labels and drops those with an empty value, which equal absent ones; an error says what
/// the protocol or a bound forbids (remote_write 1.0 and 2.0, "Labels").
fn canonical<'a>(
    sent: &[(&'a str, &'a str)],
    labels: &mut Vec<(&'a str, &'a str)>,
) -> Result<(), &'static str> {
    labels.clear();
    // Senders must sort, and almost all do: then nothing is left to do but to look.
    let (mut sorted, mut empty_values, mut has_metric) = (true, false, false);
    let mut before = "";
    for (name, value) in sent {
        if name.is_empty() {
            return Err("an empty label name");
        }
        if name.len() > limits::LABEL_NAME_BYTES_MAX {
            return Err("a label name of more than 1024 bytes");
        }
        if value.len() > limits::LABEL_VALUE_BYTES_MAX {
            return Err("a label value of more than 4096 bytes");
        }
        sorted &= comes_before(before, name);
        empty_values |= value.is_empty();
        has_metric |= *name == METRIC_NAME && !value.is_empty();
        before = name;
        labels.push((name, value));
    }
    if !sorted {
        labels.sort_unstable();
        if labels.windows(2).any(|pair| matches!(pair, [(one, _), (two, _)] if one == two)) {
            return Err("a label name twice");
        }
    }
    if empty_values {
        labels.retain(|(_, value)| !value.is_empty());
    }
    if !has_metric {
        return Err("no metric name");
    }
    Ok(())
}
