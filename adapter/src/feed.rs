//! The workers' feed: from the messages that were read to samples that are durable. No answer tells
//! a worker to send again, so what was read is tried until the store takes it, and nothing more is
//! read meanwhile. Knows no ZeroMQ, no HTTP and no particular store.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serve::clock::Clock;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::engine::{Engine, NoMemory};
use crate::limits;
use crate::metrics::FeedMetrics;
use crate::worker::roster::{Count, Roster, Worker};
use crate::worker::{self, Message, Point, Reason, Refusals};

/// The frames of a message.
pub type Frames = Vec<Vec<u8>>;

/// Memory of one sample of a worker from its decoding to the end of its commit, bytes.
const POINT_BYTES: usize = 400;

/// Who feeds: shared with who asks for the workers. Clones are the same.
#[derive(Clone, Debug)]
pub struct Workers {
    roster: Arc<Mutex<Roster>>,
    clock: Clock,
    metrics: FeedMetrics,
}

impl Workers {
    /// Nobody yet.
    pub fn new(clock: Clock, metrics: FeedMetrics) -> Workers {
        let roster = Arc::new(Mutex::new(Roster::new(clock.now_ms())));
        Workers { roster, clock, metrics }
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Count {
        let count = self.roster().look(self.clock.now_ms());
        self.metrics.workers(count);
        count
    }

    /// All workers that were heard and did not take their leave, by their names.
    pub fn list(&self) -> Vec<Worker> {
        self.look();
        self.roster().list()
    }
}

/// What was refused: counted at once, and logged when enough time has passed. Clones are the same.
#[derive(Clone, Debug)]
pub struct Refused {
    unsaid: Arc<Mutex<Refusals>>,
    metrics: FeedMetrics,
}

impl Refused {
    fn merge(&self, refusals: Refusals) {
        self.metrics.refused(&refusals);
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner).merge(refusals);
    }

    /// A connection that is not let in, or that was cut off; `text` tells of it.
    pub fn add(&self, reason: Reason, text: impl FnOnce() -> String) {
        let mut refusals = Refusals::default();
        refusals.add(reason, 1, text);
        self.merge(refusals);
    }

    fn say(&self) {
        let unsaid =
            std::mem::take(&mut *self.unsaid.lock().unwrap_or_else(PoisonError::into_inner));
        if !unsaid.is_empty() {
            tracing::warn!(refused = unsaid.text(), "workers sent what cannot be stored");
        }
    }
}

/// Stores what workers send.
#[derive(Debug)]
pub struct Feed {
    engine: Arc<Engine>,
    metrics: FeedMetrics,
    workers: Workers,
    refused: Refused,
    said: Said,
}

/// When something was logged.
#[derive(Debug, Default)]
struct Said {
    dead: Seldom,
    refused: Seldom,
    retried: Seldom,
}

#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it may be logged again; then it is as good as done.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now - last >= limits::WORKER_LOG_INTERVAL);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

/// What is stored together.
#[derive(Default)]
struct Batch {
    messages: usize,
    points: Vec<Point>,
    refusals: Refusals,
}

impl Feed {
    /// Feeds this engine.
    pub fn new(engine: Arc<Engine>, workers: Workers) -> Feed {
        let metrics = workers.metrics.clone();
        let refused = Refused { unsaid: Arc::default(), metrics: metrics.clone() };
        Feed { engine, metrics, workers, refused, said: Said::default() }
    }

    /// The handle that counts connections that are not let in or cut off.
    pub fn refused(&self) -> Refused {
        self.refused.clone()
    }

    /// The handle that counts messages that are handed over.
    pub fn metrics(&self) -> FeedMetrics {
        self.metrics.clone()
    }

    /// Stores what arrives until nobody can send any more. All of it is durable then.
    pub async fn run(mut self, mut arriving: mpsc::Receiver<Frames>) {
        let mut looking = interval(limits::WORKER_LOOK_INTERVAL);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                first = arriving.recv() => {
                    let Some(first) = first else { break };
                    let batch = self.gather(first, &mut arriving).await;
                    self.store(batch).await;
                }
                _ = looking.tick() => self.look(),
            }
        }
        self.refused.say();
    }

    /// A message, and those that come shortly after it.
    async fn gather(&self, first: Frames, arriving: &mut mpsc::Receiver<Frames>) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = self.open(&first, &mut batch);
        let until = Instant::now() + limits::WORKER_BATCH_WAIT;
        while bytes < limits::WORKER_BATCH_BYTES_MAX {
            let Ok(Some(next)) = timeout_at(until, arriving.recv()).await else { break };
            bytes += self.open(&next, &mut batch);
        }
        batch
    }

    /// Takes a message apart; gives its bytes.
    fn open(&self, frames: &Frames, batch: &mut Batch) -> usize {
        let (kind, message) = worker::decode(frames, &mut batch.refusals);
        self.metrics.decoded(kind);
        batch.messages += 1;
        match message {
            Message::Heartbeat(heartbeat) => {
                let id = heartbeat.worker.clone();
                let now_ms = self.workers.clock.now_ms();
                if self.workers.roster().heard(heartbeat, now_ms).is_err() {
                    batch.refusals.add(Reason::TooMany, 1, || format!("worker {id:?}"));
                }
            }
            Message::Points(points) => batch.points.extend(points),
            Message::Ignored => {}
        }
        frames.iter().map(Vec::len).sum()
    }

    /// Stores what may be stored; returns when that is durable.
    async fn store(&mut self, batch: Batch) {
        let Batch { messages, mut points, mut refusals } = batch;
        self.judge(&mut points, &mut refusals);
        if !refusals.is_empty() {
            self.refused.merge(refusals);
        }
        for part in points.chunks(limits::WORKER_WRITE_SAMPLES_MAX) {
            while let Err((why, pause)) = self.write(part).await {
                self.metrics.retried();
                self.workers.roster().deaf();
                if self.said.retried.is_due() {
                    tracing::warn!(%why, "workers' samples cannot be stored now; nothing more is read from workers until they are");
                }
                sleep(pause).await;
            }
            self.metrics.written(part.len());
        }
        self.workers.roster().listening(self.workers.clock.now_ms());
        self.metrics.settled(messages);
        self.say_refused();
    }

    /// Takes away samples of times that are not taken, as remote_write does.
    fn judge(&self, points: &mut Vec<Point>, refusals: &mut Refusals) {
        let window = self.engine.window();
        points.retain(|point| {
            let at_ms = point.sample.timestamp_ms;
            let reason = if at_ms < window.oldest_ms {
                Reason::TooOld
            } else if at_ms > window.latest_ms {
                Reason::Ahead
            } else {
                return true;
            };
            let time = || crate::model::instant::format(at_ms);
            refusals
                .add(reason, 1, || format!("{} of {} at {}", point.metric, point.domain, time()));
            false
        });
    }

    /// Returns when the samples are durable; else with why not, and when to try again.
    async fn write(&self, points: &[Point]) -> Result<(), (String, Duration)> {
        let busy = |why: NoMemory| match why {
            NoMemory::Now => ("too many writes at once".to_owned(), limits::WORKER_WRITE_PAUSE),
            // A part of this size cannot need it; a store that takes it later loses nothing.
            NoMemory::Ever => {
                ("a write needs too much memory".to_owned(), limits::WORKER_WRITE_PAUSE)
            }
        };
        let ticket = self.engine.admit(points.len() * POINT_BYTES);
        let mut ticket = ticket.ok_or_else(|| busy(NoMemory::Now))?;
        ticket.arrived(&self.engine);
        let mut batch = self.engine.batch();
        batch.reserve(points.len());
        for point in points {
            batch.add(None, &point.labels(), &[point.sample]);
        }
        ticket.grow(batch.index_bytes()).map_err(busy)?;
        self.engine.append(batch, ticket).await.map_err(|error| {
            let pause = error.retry_after().unwrap_or(Duration::from_secs(60));
            (error.to_string(), pause)
        })
    }

    fn look(&mut self) {
        let count = self.workers.look();
        if count.dead > 0 && self.said.dead.is_due() {
            let roster = self.workers.roster();
            let names: Vec<&str> = roster.dead().into_iter().take(10).collect();
            tracing::warn!(
                dead = count.dead,
                alive = count.alive,
                workers = names.join(", "),
                "workers have been silent for 120 s"
            );
        }
        self.say_refused();
    }

    fn say_refused(&mut self) {
        let nothing = self.refused.unsaid.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if !nothing && self.said.refused.is_due() {
            self.refused.say();
        }
    }
}
