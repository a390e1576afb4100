//! One collection a scrape, within a deadline, whatever libvirtd does. Scrapes that overlap share a collection; a thread
//! that does not come back is given up, up to a bound. Knows no HTTP.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::libvirt::CallCounts;
use crate::selection::Collectors;
use crate::snapshot::{Guest, Scrape, Snapshot, Step, Traffic};
use crate::traffic::firewall::Firewall;
use crate::worker::{Job, PARTS_MAX, Part, Source, Status, Worker};

/// Threads that may be stuck in libvirt at once; beyond it scrapes are answered without asking libvirtd.
const GIVEN_UP_MAX: usize = 8;
/// Of these, stuck asking the guests' monitors; beyond it only what libvirtd knows itself is asked. Each stuck call
/// holds its guest's job, so that the next one passes that guest over (NOWAIT): more than a few means dead storage.
const GIVEN_UP_IN_DETAIL_MAX: usize = 4;
/// Longest time for reading the firewall's rules, and never more than half of what a scrape has: scrapes wait for one
/// another, and a helper that hangs must not cost the next one its answer from libvirt. Ten thousand rules take a second.
const TRAFFIC_TIME_MAX: Duration = Duration::from_secs(3);
/// Scrapes that may wait for one another.
const WAITING_MAX: usize = 32;

/// Too many scrapes wait already.
#[derive(Debug, thiserror::Error)]
#[error("{WAITING_MAX} scrapes are waiting for libvirt already")]
pub(crate) struct Crowded;

/// Collects snapshots.
pub(crate) struct Collector {
    source: Source,
    /// Whose accounting rules are read, if any's.
    firewall: Option<Firewall>,
    counts: Arc<CallCounts>,
    state: Mutex<State>,
    /// The newest complete or partial picture, for scrapes that get none of their own.
    last: StdMutex<Arc<Snapshot>>,
    waiting: AtomicUsize,
    attempted: AtomicBool,
}

#[derive(Default)]
struct State {
    worker: Option<Worker>,
    given_up: Vec<Arc<Status>>,
    given_up_total: u64,
    /// When the newest collection began, and what it was for.
    began: Option<(Instant, Collectors)>,
}

impl Collector {
    /// Collects from `source`; no thread is started and nothing is connected before the first scrape.
    pub(crate) fn new(source: Source, firewall: Option<Firewall>) -> Self {
        Self {
            source,
            firewall,
            counts: Arc::default(),
            state: Mutex::default(),
            last: StdMutex::default(),
            waiting: AtomicUsize::new(0),
            attempted: AtomicBool::new(false),
        }
    }

    /// Whether libvirtd was asked at least once, successfully or not.
    pub(crate) fn attempted(&self) -> bool {
        self.attempted.load(Ordering::Acquire)
    }

    /// What libvirtd says now for these collectors, or as much of it as came before `deadline`.
    pub(crate) async fn snapshot(
        &self,
        deadline: Instant,
        wanted: Collectors,
    ) -> Result<Arc<Snapshot>, Crowded> {
        let arrived = Instant::now();
        let _place = Place::take(&self.waiting)?;
        let Ok(mut state) = timeout_at(deadline, self.state.lock()).await else {
            // Another scrape's collection is stuck; it keeps the books.
            return Ok(Arc::new(unanswered(&self.last(), arrived.elapsed())));
        };
        if state.began.is_some_and(|(began, had)| began >= arrived && had.covers(wanted)) {
            return Ok(self.last());
        }
        let began = Instant::now();
        let (outcome, (traffic, step)) =
            tokio::join!(self.collect(&mut state, deadline, wanted), self.traffic(deadline));
        self.attempted.store(true, Ordering::Release);
        let mut snapshot = self.judge(outcome, arrived.elapsed());
        snapshot.traffic = traffic;
        snapshot.scrape.steps.extend(step);
        snapshot.scrape.calls = self.counts.read();
        snapshot.scrape.given_up_threads = u64::try_from(state.given_up.len()).unwrap_or(u64::MAX);
        snapshot.scrape.given_up_threads_total = state.given_up_total;
        let snapshot = Arc::new(snapshot);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&snapshot);
        // Only with the result: a scrape that was cancelled half-way has none to share.
        state.began = Some((began, wanted));
        Ok(snapshot)
    }

    /// What the accounting rules counted, beside libvirt: neither waits for the other.
    async fn traffic(&self, deadline: Instant) -> (Option<Traffic>, Option<Step>) {
        let Some(firewall) = &self.firewall else { return (None, None) };
        let began = Instant::now();
        let time = (deadline.saturating_duration_since(began) / 2).min(TRAFFIC_TIME_MAX);
        let (traffic, success) = firewall.traffic(began + time).await;
        let duration_seconds = began.elapsed().as_secs_f64();
        (traffic, Some(Step { collector: "traffic", success, duration_seconds }))
    }

    fn last(&self) -> Arc<Snapshot> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs one job; gives its thread up when the deadline comes first.
    async fn collect(&self, state: &mut State, deadline: Instant, wanted: Collectors) -> Outcome {
        state.given_up.retain(|status| !status.is_finished());
        let in_detail = state.given_up.iter().filter(|status| status.is_in_detail()).count();
        let detail = in_detail < GIVEN_UP_IN_DETAIL_MAX;
        let (parts, mut received) = mpsc::channel(PARTS_MAX);
        if let Some(error) = self.ask(state, Job { detail, wanted, parts }) {
            tracing::warn!(error, "libvirt is not asked");
            return Outcome { part: None, complete: false };
        }
        let mut newest = None;
        loop {
            match timeout_at(deadline, received.recv()).await {
                Ok(Some(part)) => newest = Some(part),
                Ok(None) => {
                    // The thread is through with the job, or dead.
                    let alive = state.worker.as_ref().is_some_and(Worker::is_alive);
                    if !alive {
                        tracing::error!("the libvirt thread ended unexpectedly");
                        state.worker = None;
                    }
                    return Outcome { complete: alive && detail, part: newest };
                }
                Err(_) => break,
            }
        }
        tracing::warn!(
            "libvirt did not answer before the scrape's deadline; its thread is given up"
        );
        give_up(state);
        Outcome { part: newest, complete: false }
    }

    /// Hands the job to the worker, or to a new one where that is stuck or gone. Says why if there is none.
    fn ask(&self, state: &mut State, job: Job) -> Option<String> {
        let Job { detail, wanted, parts } = job;
        if let Some(worker) = &state.worker {
            if worker.ask(Job { detail, wanted, parts: parts.clone() }) {
                return None;
            }
            give_up(state);
            state.given_up.retain(|status| !status.is_finished());
        }
        if state.given_up.len() >= GIVEN_UP_MAX {
            return Some(format!("{GIVEN_UP_MAX} threads are stuck in libvirt already"));
        }
        match Worker::start(self.source.clone(), Arc::clone(&self.counts)) {
            Ok(worker) => {
                let asked = worker.ask(Job { detail, wanted, parts });
                state.worker = Some(worker);
                (!asked).then(|| "a new libvirt thread ended at once".to_owned())
            }
            Err(error) => Some(format!("no thread can be started: {error}")),
        }
    }

    fn judge(&self, outcome: Outcome, elapsed: Duration) -> Snapshot {
        let last = self.last();
        match outcome.part {
            None => unanswered(&last, elapsed),
            Some(Part::Down { error, steps }) => {
                tracing::warn!(error, "libvirt is down");
                let scrape = scrape(elapsed, steps);
                Snapshot { up: false, scrape, ..Snapshot::default() }
            }
            Some(Part::Guests { host, mut guests, steps }) => {
                if !outcome.complete {
                    keep_identity(&mut guests, last.guests.as_deref().unwrap_or_default());
                }
                let scrape = scrape(elapsed, steps);
                Snapshot { up: true, host: Some(host), guests: Some(guests), traffic: None, scrape }
            }
        }
    }
}

/// What a collection brought.
struct Outcome {
    part: Option<Part>,
    complete: bool,
}

/// libvirtd said nothing: the guests of the last time, by name only, and flagged.
fn unanswered(last: &Snapshot, elapsed: Duration) -> Snapshot {
    let guests = last.guests.as_ref().map(|guests| guests.iter().map(Guest::identity).collect());
    let scrape = Scrape { steps: Vec::new(), ..last.scrape.clone() };
    let scrape = Scrape { duration_seconds: elapsed.as_secs_f64(), ..scrape };
    Snapshot { up: false, host: last.host.clone(), guests, traffic: None, scrape }
}

/// Flags running guests of a collection that was cut short, and fills in who they are from the last one.
fn keep_identity(guests: &mut [Guest], last: &[Guest]) {
    for guest in guests {
        guest.timed_out |= guest.is_active();
        let before = last.iter().find(|other| other.uuid == guest.uuid && other.id == guest.id);
        if let Some(before) = before {
            guest.description = guest.description.take().or_else(|| before.description.clone());
            guest.start_time_seconds = guest.start_time_seconds.or(before.start_time_seconds);
        }
    }
}

fn scrape(elapsed: Duration, steps: Vec<Step>) -> Scrape {
    Scrape { duration_seconds: elapsed.as_secs_f64(), steps, ..Scrape::default() }
}

fn give_up(state: &mut State) {
    if let Some(worker) = state.worker.take() {
        state.given_up.push(worker.give_up());
        state.given_up_total += 1;
    }
}

/// A place among the waiting scrapes, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, Crowded> {
        let before = waiting.fetch_add(1, Ordering::AcqRel);
        let place = Self(waiting);
        if before < WAITING_MAX { Ok(place) } else { Err(Crowded) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
