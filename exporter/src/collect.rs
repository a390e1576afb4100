//! One collection a scrape, within a deadline, whatever libvirtd does. Scrapes that overlap share a collection; a thread
//! that does not come back is given up, up to a bound. Knows no HTTP.

mod kept;
mod merge;
mod monitors;
mod pools;
mod word;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serve::clock::Clock;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::libvirt::CallCounts;
use crate::recording::{Recording, RecordingError};
use crate::selection::{CollectorName, Collectors};
use crate::snapshot::{Guest, Host, Pool, Scrape, Snapshot, Step, Traffic};
use crate::tally::{self, Tally};
use crate::traffic::firewall::Firewall;
use crate::worker::roster::{self, Identity, PARTS_MAX, Part};
use crate::worker::{self, Source, Status, Worker, monitor};

use kept::{Kept, Set};
use merge::Past;
use monitors::{Details, Monitors};
use pools::Pools;
use word::Word;

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
    /// Oldest figures that are shown of a guest that does not answer.
    max_age: Duration,
    /// Whose accounting rules are read, if any's.
    firewall: Option<Firewall>,
    counts: Arc<CallCounts>,
    state: Mutex<State>,
    /// Only ever taken by who has the state: pools are read beside what changes that.
    pools: Mutex<Pools>,
    /// The newest pictures, complete or partial, for scrapes that get none of their own.
    kept: StdMutex<Kept>,
    word: StdMutex<Word>,
    waiting: AtomicUsize,
    attempted: AtomicBool,
    clock: Clock,
    /// When this began. What follows from the time stands still in a recording.
    created: Instant,
}

struct State {
    roster: Option<Worker<roster::Job>>,
    /// Threads that read the roster and did not come back.
    given_up: Vec<Arc<Status>>,
    given_up_total: u64,
    monitors: Monitors,
    tally: Tally,
    /// When the newest collection began, what it was for, and what it brought.
    newest: Option<(Instant, Collectors, Arc<Snapshot>)>,
}

impl Collector {
    /// Collects as `config` says; no thread is started and nothing is connected before the first scrape.
    pub(crate) fn new(config: &Config, firewall: Option<Firewall>) -> Result<Self, RecordingError> {
        let recording = config.replay.as_deref().map(Recording::read).transpose()?;
        let recorded_at = recording.as_ref().map(Recording::recorded_at_ms);
        let (source, counts) = (Source::of(config), Arc::<CallCounts>::default());
        let (monitored, counted) = (source.clone(), Arc::clone(&counts));
        let start = move || monitor::start(&monitored, Arc::clone(&counted));
        let (read, counted) = (source.clone(), Arc::clone(&counts));
        let pools = Pools::new(move || worker::pools::start(&read, Arc::clone(&counted)));
        let state = State {
            roster: None,
            given_up: Vec::new(),
            given_up_total: 0,
            monitors: Monitors::new(usize::from(config.connections()), start),
            tally: Tally::default(),
            newest: None,
        };
        Ok(Self {
            recording,
            source,
            max_age: config.scrape_max_age,
            firewall,
            counts,
            state: Mutex::new(state),
            pools: Mutex::new(pools),
            kept: StdMutex::default(),
            word: StdMutex::default(),
            waiting: AtomicUsize::new(0),
            attempted: AtomicBool::new(false),
            clock: recorded_at.map_or_else(Clock::system, Clock::fixed),
            created: Instant::now(),
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
            return Ok(Arc::new(self.overtaken(arrived, wanted)));
        };
        if let Some((began, had, snapshot)) = &state.newest
            && *began >= arrived
            && had.covers(wanted)
        {
            return Ok(Arc::clone(snapshot));
        }
        let began = Instant::now();
        let mut pool_threads = self.pools.lock().await;
        let pools = wanted.has(CollectorName::Pool) && self.recording.is_none();
        let is_up = || locked(&self.word).is_up(arrived);
        let read_pools = pool_threads.read((deadline, BESIDE_TIME_MAX), is_up);
        let (mut found, (traffic, step), pools) = tokio::join!(
            self.collect(&mut state, wanted, (began, deadline)),
            self.traffic(wanted, deadline),
            async { if pools { Some(read_pools.await) } else { None } }
        );
        let (pools, pool_step) = pools.unzip();
        let pools = found.pools.take().or(pools.flatten());
        self.count(&mut state.tally, &mut found);
        self.attempted.store(true, Ordering::Release);
        let scrape = Scrape {
            steps: found.steps.iter().cloned().chain(pool_step).chain(step).collect(),
            calls: self.counts.read(),
            given_up_threads: state.stuck() + as_figure(pool_threads.stuck()),
            given_up_threads_total: state.given_up_total() + pool_threads.given_up_total(),
            ..Scrape::default()
        };
        let snapshot = Arc::new(Snapshot { pools, traffic, ..found.snapshot(arrived, scrape) });
        locked(&self.kept).keep(wanted, began, Arc::clone(&snapshot));
        // Only with the result: a scrape that was cancelled half-way has none to share.
        state.newest = Some((began, wanted, Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    /// What a scrape gets whose time is over before the collection of another one is: that one keeps the books.
    fn overtaken(&self, arrived: Instant, wanted: Collectors) -> Snapshot {
        let set = self.last(wanted);
        let past = self.past(&set, Instant::now());
        let scrape = Scrape { steps: Vec::new(), ..set.snapshot.scrape.clone() };
        let found = unanswered(&set, &past);
        let up = locked(&self.word).is_up(arrived);
        let host = found.host.as_ref().map(Host::versions);
        // How many guests there are, and what the host does, only the other one knows.
        Snapshot { up, host, ..found.snapshot(arrived, scrape) }
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
        let now = if self.recording.is_some() { self.created } else { Instant::now() };
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are below 2^53")]
        tally.look(now.into_std(), now_ms as f64 / 1e3, guests);
    }

    fn last(&self, wanted: Collectors) -> Set {
        locked(&self.kept).newest(wanted)
    }

    /// What of it is of use at `now`: figures that are not too old, where it has all that is wanted.
    fn past<'s>(&self, set: &'s Set, now: Instant) -> Past<'s> {
        let max_age = if set.is_whole { self.max_age } else { Duration::ZERO };
        Past::new(&set.snapshot, now.saturating_duration_since(set.began), max_age)
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
        let set = self.last(wanted);
        let past = self.past(&set, began);
        locked(&self.word).asked();
        let (parts, mut received) = mpsc::channel(PARTS_MAX);
        if let Err(error) = self.ask(state, roster::Job::Read(parts)) {
            tracing::warn!(error, "libvirt is not asked");
            locked(&self.word).came(false);
            return unanswered(&set, &past);
        }
        let part = state.part(&mut received, deadline).await;
        locked(&self.word).came(matches!(part, Some(Part::Guests { .. })));
        let (host, mut guests, mut steps) = match part {
            None => return unanswered(&set, &past),
            Some(Part::Down { error, steps }) => {
                tracing::warn!(error, "libvirt is down");
                return Found { steps, guests: past.fresh_guests(), ..Found::default() };
            }
            Some(Part::Identities { steps, .. }) => return Found { steps, ..Found::default() },
            Some(Part::Guests { host, guests, steps }) => (*host, guests, steps),
        };
        state.monitors.idle = Arc::new(past.idle(set.turn));
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
        } else {
            merge::without_details(&mut guests);
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
}

/// A number of things as the page's figures are.
fn as_figure(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// libvirtd said nothing in time: the guests of the last time, flagged.
fn unanswered(set: &Set, past: &Past<'_>) -> Found {
    Found { host: set.snapshot.host.clone(), guests: past.guests(), ..Found::default() }
}

/// What it guards is whole after every statement that changes it.
fn locked<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        as_figure(self.given_up.len() + self.monitors.stuck())
    }

    fn given_up_total(&self) -> u64 {
        self.given_up_total + self.monitors.given_up_total()
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
