//! One collection a scrape, within a deadline, whatever libvirtd does. Scrapes that overlap share a collection; a thread
//! that does not come back is given up, up to a bound. Knows no HTTP.

mod merge;
mod monitors;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serve::clock::Clock;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::libvirt::CallCounts;
use crate::recording::{Recording, RecordingError};
use crate::selection::{CollectorName, Collectors};
use crate::snapshot::{Guest, Host, Pool, Scrape, Snapshot, Step, Traffic};
use crate::tally::{self, Tally};
use crate::traffic::firewall::Firewall;
use crate::worker::roster::{self, Identity, PARTS_MAX, Part};
use crate::worker::{Source, Status, Worker, monitor, pools};

use merge::Past;
use monitors::{Details, Monitors};

/// Threads that may be stuck in asking who is there, which libvirtd answers by itself: it hangs as a whole then, and to
/// ask once more will not help. Beyond it scrapes are answered without asking.
const STUCK_MAX: usize = 4;
/// Longest time for reading the firewall's rules, or storage pools, and never more than half of what a scrape has: scrapes
/// wait for one another, and a helper or a pool that hangs must not cost the next one its answer from libvirt. Ten thousand
/// rules take a second.
const BESIDE_TIME_MAX: Duration = Duration::from_secs(3);
/// Scrapes that may wait for one another.
const WAITING_MAX: usize = 32;

/// Too many scrapes wait already.
#[derive(Debug, thiserror::Error)]
#[error("{WAITING_MAX} scrapes are waiting for libvirt already")]
pub(crate) struct Crowded;

/// Collects snapshots.
pub(crate) struct Collector {
    source: Source,
    /// What is shown instead of a libvirtd, if anything.
    recording: Option<Recording>,
    /// What a scrape gets that asks for nothing less. Only such a snapshot is kept for the next.
    whole: Collectors,
    /// Oldest figures that are shown of a guest that does not answer.
    max_age: Duration,
    /// Whose accounting rules are read, if any's.
    firewall: Option<Firewall>,
    counts: Arc<CallCounts>,
    state: Mutex<State>,
    /// The newest complete or partial picture, for scrapes that get none of their own, and when it was taken.
    last: StdMutex<(Instant, Arc<Snapshot>)>,
    waiting: AtomicUsize,
    attempted: AtomicBool,
    clock: Clock,
}

struct State {
    roster: Option<Worker<roster::Job>>,
    /// Threads that read the roster and did not come back.
    given_up: Vec<Arc<Status>>,
    given_up_total: u64,
    monitors: Monitors,
    /// Reads storage pools. It is never given up: while it hangs, pools are not asked for.
    pools: Option<Worker<pools::Job>>,
    tally: Tally,
    /// Counts collections.
    turn: u64,
    /// When the newest collection began, and what it was for.
    began: Option<(Instant, Collectors)>,
}

impl Collector {
    /// Collects as `config` says; no thread is started and nothing is connected before the first scrape.
    pub(crate) fn new(config: &Config, firewall: Option<Firewall>) -> Result<Self, RecordingError> {
        let recording = config.replay.as_deref().map(Recording::read).transpose()?;
        let recorded_at = recording.as_ref().map(Recording::recorded_at_ms);
        let (source, counts) = (Source::of(config), Arc::<CallCounts>::default());
        let (monitored, counted) = (source.clone(), Arc::clone(&counts));
        let start = move || monitor::start(&monitored, Arc::clone(&counted));
        let state = State {
            roster: None,
            given_up: Vec::new(),
            given_up_total: 0,
            monitors: Monitors::new(usize::from(config.connections()), start),
            pools: None,
            tally: Tally::default(),
            turn: 0,
            began: None,
        };
        Ok(Self {
            recording,
            source,
            whole: config.collected(),
            max_age: config.scrape_max_age,
            firewall,
            counts,
            state: Mutex::new(state),
            last: StdMutex::new((Instant::now(), Arc::default())),
            waiting: AtomicUsize::new(0),
            attempted: AtomicBool::new(false),
            clock: recorded_at.map_or_else(Clock::system, Clock::fixed),
        })
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
            let (taken, last) = self.last();
            let scrape = Scrape { steps: Vec::new(), ..last.scrape.clone() };
            let found = self.unanswered(&Past::new(&last, taken.elapsed(), self.max_age));
            return Ok(Arc::new(found.snapshot(arrived, scrape)));
        };
        if state.began.is_some_and(|(began, had)| began >= arrived && had.covers(wanted)) {
            return Ok(self.last().1);
        }
        let began = Instant::now();
        let pools = self.ask_pools(&mut state, wanted);
        let (mut found, (traffic, step), (pools, pool_step)) = tokio::join!(
            self.collect(&mut state, wanted, (began, deadline)),
            self.traffic(wanted, deadline),
            read_pools(pools, deadline)
        );
        let pools = found.pools.take().or(pools);
        self.count(&mut state.tally, &mut found);
        self.attempted.store(true, Ordering::Release);
        let scrape = Scrape {
            steps: found.steps.iter().cloned().chain(pool_step).chain(step).collect(),
            calls: self.counts.read(),
            given_up_threads: state.stuck(),
            given_up_threads_total: state.given_up_total + state.monitors.given_up_total(),
            ..Scrape::default()
        };
        let snapshot = Arc::new(Snapshot { pools, traffic, ..found.snapshot(arrived, scrape) });
        if !wanted.covers(self.whole) {
            return Ok(snapshot);
        }
        // Its figures are taken to be as old as its beginning.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (began, Arc::clone(&snapshot));
        drop(last);
        // Only with the result: a scrape that was cancelled half-way has none to share.
        state.began = Some((began, wanted));
        Ok(snapshot)
    }

    /// What the accounting rules counted, beside libvirt: neither waits for the other.
    async fn traffic(
        &self,
        wanted: Collectors,
        deadline: Instant,
    ) -> (Option<Traffic>, Option<Step>) {
        let wanted = wanted.has(CollectorName::Traffic);
        let Some(firewall) = self.firewall.as_ref().filter(|_| wanted) else {
            return (None, None);
        };
        let began = Instant::now();
        let time = (deadline.saturating_duration_since(began) / 2).min(BESIDE_TIME_MAX);
        let (traffic, success) = firewall.traffic(began + time).await;
        let duration_seconds = began.elapsed().as_secs_f64();
        (traffic, Some(Step { collector: "traffic", success, duration_seconds }))
    }

    /// What follows from the time: allocations, and how old the balloon drivers' figures are.
    fn count(&self, tally: &mut Tally, found: &mut Found) {
        let Some(guests) = found.guests.as_mut().filter(|_| found.up) else { return };
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        tally::ages(now_ms, guests);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
        tally.look(Instant::now().into_std(), now_ms as f64 / 1e3, guests);
    }

    /// Asks for the storage pools. Where the thread has not come back from the last time, no answer will come.
    fn ask_pools(
        &self,
        state: &mut State,
        wanted: Collectors,
    ) -> Option<oneshot::Receiver<pools::Answer>> {
        if !wanted.has(CollectorName::Pool) || self.recording.is_some() {
            return None;
        }
        if state.pools.as_ref().is_none_or(|worker| !worker.is_alive()) {
            state.pools = pools::start(&self.source, Arc::clone(&self.counts)).ok();
        }
        let (answer, receiver) = oneshot::channel();
        if let Some(worker) = &state.pools {
            worker.ask(pools::Job(answer));
        }
        Some(receiver)
    }

    fn last(&self) -> (Instant, Arc<Snapshot>) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.0, Arc::clone(&last.1))
    }

    /// Who is there, and then side by side who they are and what their monitors say.
    async fn collect(
        &self,
        state: &mut State,
        wanted: Collectors,
        (began, deadline): (Instant, Instant),
    ) -> Found {
        if let Some(recording) = &self.recording {
            let Snapshot { host, guests, pools, .. } = recording.snapshot();
            return Found { up: true, host, guests, pools, steps: Vec::new() };
        }
        let (taken, last) = self.last();
        let past = Past::new(&last, began.saturating_duration_since(taken), self.max_age);
        let (parts, mut received) = mpsc::channel(PARTS_MAX);
        if let Err(error) = self.ask(state, roster::Job::Read(parts)) {
            tracing::warn!(error, "libvirt is not asked");
            return self.unanswered(&past);
        }
        let (host, mut guests, mut steps) = match state.part(&mut received, deadline).await {
            None => return self.unanswered(&past),
            Some(Part::Down { error, steps }) => {
                tracing::warn!(error, "libvirt is down");
                return Found { steps, guests: past.fresh_guests(), ..Found::default() };
            }
            Some(Part::Identities { steps, .. }) => return Found { steps, ..Found::default() },
            Some(Part::Guests { host, guests, steps }) => (*host, guests, steps),
        };
        state.turn = state.turn.wrapping_add(1);
        state.monitors.idle = Arc::new(past.idle(state.turn));
        let started = Instant::now();
        let details = async {
            if !wanted.needs_monitors() {
                return None;
            }
            let details = state.monitors.read(&guests, wanted, deadline).await;
            Some((details, started.elapsed()))
        };
        let identities = timeout_at(deadline, received.recv());
        let (identities, details) = tokio::join!(identities, details);
        let identities = if let Ok(Some(Part::Identities { identities, steps: more })) = identities
        {
            steps.extend(more);
            Some(identities)
        } else {
            state.give_up_roster("the guests' XML");
            None
        };
        merge::identify(&mut guests, identities, &past);
        if let Some((details, elapsed)) = details {
            steps.push(detail_step(&details, elapsed));
            merge::add_details(&mut guests, details, &past);
        }
        // Where disks were not asked for, it is not known that they changed.
        let reread = !wanted.has(CollectorName::Block)
            || self.reread(state, &mut guests, (&past, deadline)).await;
        if let Some(step) = steps.iter_mut().find(|step| step.collector == "metadata") {
            step.success &= reread;
        }
        Found { up: true, host: Some(host), guests: Some(guests), pools: None, steps }
    }

    /// Reads the XML of guests whose disks are others than before; false if one could not be read.
    async fn reread(
        &self,
        state: &mut State,
        guests: &mut [Guest],
        (past, deadline): (&Past<'_>, Instant),
    ) -> bool {
        let changed = merge::other_disks(guests, past);
        if changed.is_empty() {
            return true;
        }
        let (parts, mut received) = mpsc::channel(PARTS_MAX);
        let wanted = changed.iter().filter_map(|idx| guests.get(*idx)).map(Guest::identity);
        if let Err(error) = self.ask(state, roster::Job::Reread(wanted.collect(), parts)) {
            tracing::warn!(error, "guests' XML is not read anew");
            return false;
        }
        let part = state.part(&mut received, deadline).await;
        let Some(Part::Identities { identities, steps }) = part else { return false };
        for (idx, Identity { description, .. }) in changed.into_iter().zip(identities) {
            if let Some(guest) = guests.get_mut(idx) {
                guest.description = description;
            }
        }
        steps.iter().all(|step| step.success)
    }

    /// Hands the job to the thread, or to a new one where that is stuck or gone. Says why if there is none.
    fn ask(&self, state: &mut State, job: roster::Job) -> Result<(), String> {
        if state.roster.as_ref().is_some_and(|worker| worker.is_busy() || !worker.is_alive()) {
            state.give_up_roster("a scrape that was cut off");
        }
        if state.roster.is_none() {
            state.given_up.retain(|status| !status.is_finished());
            if state.given_up.len() >= STUCK_MAX {
                return Err(format!("{STUCK_MAX} threads are stuck in libvirt already"));
            }
            let started = roster::start(&self.source, Arc::clone(&self.counts));
            state.roster =
                Some(started.map_err(|error| format!("no thread can be started: {error}"))?);
        }
        let asked = state.roster.as_ref().is_some_and(|worker| worker.ask(job));
        asked.then_some(()).ok_or_else(|| "a new libvirt thread ended at once".to_owned())
    }

    /// libvirtd said nothing in time: the guests of the last time, flagged.
    fn unanswered(&self, past: &Past<'_>) -> Found {
        let host = self.last().1.host.clone();
        Found { host, guests: past.guests(), ..Found::default() }
    }
}

impl State {
    /// The next part of what is read of the roster; none where it does not come in time, and its thread is given up.
    async fn part(
        &mut self,
        received: &mut mpsc::Receiver<Part>,
        deadline: Instant,
    ) -> Option<Part> {
        match timeout_at(deadline, received.recv()).await {
            Ok(Some(part)) => return Some(part),
            // The thread is dead.
            Ok(None) => tracing::error!("the libvirt thread ended unexpectedly"),
            Err(_) => {}
        }
        self.give_up_roster("who is there");
        None
    }

    fn give_up_roster(&mut self, question: &str) {
        if let Some(worker) = self.roster.take() {
            tracing::warn!(question, "libvirt did not answer in time; the thread is given up");
            self.given_up.push(worker.give_up());
            self.given_up_total += 1;
        }
    }

    /// Threads that have not come back.
    fn stuck(&mut self) -> u64 {
        self.given_up.retain(|status| !status.is_finished());
        u64::try_from(self.given_up.len() + self.monitors.stuck()).unwrap_or(u64::MAX)
    }
}

/// What a collection brought.
#[derive(Default)]
struct Found {
    up: bool,
    host: Option<Host>,
    guests: Option<Vec<Guest>>,
    /// Those of a recording.
    pools: Option<Vec<Pool>>,
    steps: Vec<Step>,
}

impl Found {
    fn snapshot(self, arrived: Instant, scrape: Scrape) -> Snapshot {
        let Self { up, host, guests, .. } = self;
        // Of an earlier time, their number is not what libvirtd knows now.
        let count = guests.as_ref().filter(|_| up).map(Vec::len);
        let domains = count.and_then(|count| u64::try_from(count).ok());
        let duration_seconds = arrived.elapsed().as_secs_f64();
        let scrape = Scrape { duration_seconds, ..scrape };
        Snapshot { up, host, domains, guests, scrape, ..Snapshot::default() }
    }
}

/// The storage pools, where they were asked for and come in time.
async fn read_pools(
    asked: Option<oneshot::Receiver<pools::Answer>>,
    deadline: Instant,
) -> (Option<Vec<Pool>>, Option<Step>) {
    let Some(asked) = asked else { return (None, None) };
    let began = Instant::now();
    let time = (deadline.saturating_duration_since(began) / 2).min(BESIDE_TIME_MAX);
    let answer = timeout_at(began + time, asked).await.ok().and_then(Result::ok);
    let (pools, success) = match answer {
        Some(Ok((pools, all))) => (Some(pools), all),
        Some(Err(error)) => {
            tracing::warn!(error, "storage pools are missing");
            (None, false)
        }
        None => {
            tracing::warn!("libvirt did not tell its storage pools in time");
            (None, false)
        }
    };
    let collector = CollectorName::Pool.name();
    let duration_seconds = began.elapsed().as_secs_f64();
    (pools, Some(Step { collector, success, duration_seconds }))
}

/// Whether every running guest was there to be read, and how long it took. A guest that another job keeps busy is not a
/// failure of the exporter's; it is flagged by itself.
fn detail_step(details: &Details, duration: Duration) -> Step {
    let success = details.unanswered.is_empty();
    Step { collector: "detail", success, duration_seconds: duration.as_secs_f64() }
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
