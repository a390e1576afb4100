//! Reads guests' monitors side by side: shares of the guests, given out to a few threads. The guests of a share that does
//! not come back are asked for once more, each by itself, and the one that hangs is passed over (libvirt's NOWAIT), so that
//! a hung guest costs its neighbours nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, sleep, timeout_at};

use crate::selection::Collectors;
use crate::snapshot::Guest;
use crate::snapshot::Idle;
use crate::stats::is_busy;
use crate::worker::monitor::{Answer, Job, Share};
use crate::worker::{Status, Worker};

/// Threads that may be stuck in a guest's monitor at once; beyond it no guest is asked that did not answer the last time.
/// Each holds its guest's job, so that the next one passes that guest over, and one of libvirtd's 20 threads (max_workers),
/// which nova needs as well.
const STUCK_MAX: usize = 10;
/// So many more may ask guests that did answer the last time; while they are stuck too, monitors are not asked any more.
const SPARE: usize = 2;
/// Guests of one share at least, where there are more: a call costs less than the monitors of a few guests.
const SHARE_MIN: usize = 8;
/// And at most: what one hung guest holds up until its share is asked for again.
const SHARE_MAX: usize = 32;
/// Shares for each thread, so that one with slow guests does not keep the others waiting at the end.
const SHARES_PER_THREAD: usize = 3;
/// After this time another thread asks for a share that has not come, or after a quarter of the time that is left: ten
/// times what a share takes on a busy host.
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// How often guests are asked again that libvirtd passed over, as another of its clients was at them just then; those that
/// it passed over the last time too are not.
const AGAIN: usize = 3;
/// How long before: a client's question to a guest's monitor takes a few milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// The threads that read guests' monitors.
pub(super) struct Monitors {
    /// Starts one more.
    start: Box<dyn Fn() -> std::io::Result<Worker<Job>> + Send + Sync>,
    /// How many share the work.
    connections: usize,
    /// Guests that are not asked for their job the next time.
    pub(super) idle: Arc<Idle>,
    threads: Vec<Thread>,
    given_up: Vec<Arc<Status>>,
    given_up_total: u64,
    /// Guests that were not answered for the last time: each is asked by itself, so that it holds up no other.
    silent: HashSet<String>,
    /// Guests whose job another held the last time, at the end too.
    passed_over: HashSet<String>,
}

/// A thread and when it was asked last.
struct Thread {
    worker: Worker<Job>,
    asked: Option<Instant>,
}

/// What the monitors said.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// Guests by uuid.
    pub(super) found: HashMap<String, Guest>,
    /// Guests of shares that did not come or failed. Those that are in neither have ended since they were listed.
    pub(super) unanswered: HashSet<String>,
}

/// A share that is still to come.
struct Open {
    share: Share,
    uuids: Arc<[String]>,
    number: usize,
    asked: Option<Instant>,
    /// Whether it is of a guest that may hang.
    is_doubtful: bool,
}

impl Monitors {
    /// Up to `connections` threads, none of which is started before there is something to read.
    pub(super) fn new(
        connections: usize,
        start: impl Fn() -> std::io::Result<Worker<Job>> + Send + Sync + 'static,
    ) -> Self {
        let start = Box::new(start);
        let (threads, given_up) = (Vec::new(), Vec::new());
        let (idle, silent, passed_over) = (Arc::default(), HashSet::new(), HashSet::new());
        let given_up_total = 0;
        Self { start, connections, idle, threads, given_up, given_up_total, silent, passed_over }
    }

    /// Threads that were given up and have not come back.
    pub(super) fn stuck(&mut self) -> usize {
        self.given_up.retain(|status| !status.is_finished());
        self.given_up.len()
    }

    /// Threads ever given up.
    pub(super) fn given_up_total(&self) -> u64 {
        self.given_up_total
    }

    /// Reads the guests, or what comes of them before `deadline`.
    pub(super) async fn read(
        &mut self,
        guests: &[Guest],
        wanted: Collectors,
        deadline: Instant,
    ) -> Details {
        // Those of a scrape that was cancelled, as its client went away, may be stuck.
        self.give_up_busy();
        let patience = (deadline.saturating_duration_since(Instant::now()) / 4).min(PATIENCE_MAX);
        // Room for an answer of every thread that may be asked, so that none waits for this one.
        let (sender, mut answers) = channel(self.connections + STUCK_MAX + SPARE);
        let idle = Arc::clone(&self.idle);
        let job = |share, number| {
            let (idle, answers) = (Arc::clone(&idle), sender.clone());
            Job { share, wanted, idle, number, answers }
        };
        let mut open = shares(guests, self.connections, &self.silent);
        let mut details = Details::default();
        for again in 0..=AGAIN {
            let told = (&mut open, &mut details);
            self.ask(told, &mut answers, (patience, deadline), job).await;
            let busy = details.busy(&self.passed_over);
            let is_over = !open.is_empty() || Instant::now() + PAUSE * 2 >= deadline;
            if busy.is_empty() || is_over || again == AGAIN {
                break;
            }
            sleep(PAUSE).await;
            let (share, uuids) = (Share::Some(Arc::clone(&busy)), busy);
            let number = guests.len() * 2 + again;
            open.push(Open { share, uuids, number, asked: None, is_doubtful: false });
        }
        if self.give_up_busy() > 0 {
            tracing::warn!("libvirt did not answer in time; threads that asked it are given up");
        }
        let left = open.iter().flat_map(|left| left.uuids.iter());
        // A second answer that did not come takes nothing away from the first.
        let left = left.filter(|uuid| !details.found.contains_key(*uuid));
        details.unanswered.extend(left.cloned().collect::<Vec<_>>());
        self.silent.clone_from(&details.unanswered);
        self.passed_over = details.busy(&HashSet::new()).iter().cloned().collect();
        details
    }

    /// Asks for these shares until all have come, nobody is left to be asked, or the time is over.
    async fn ask(
        &mut self,
        (open, details): (&mut Vec<Open>, &mut Details),
        answers: &mut Receiver<Answer>,
        (patience, deadline): (Duration, Instant),
        job: impl Fn(Share, usize) -> Job,
    ) {
        while !open.is_empty() {
            divide(open, patience);
            self.give_out(open, patience, &job);
            if self.threads.is_empty() || open.iter().all(|left| left.asked.is_none()) {
                tracing::warn!("guests' monitors are not asked: too many calls are stuck already");
                return;
            }
            let wake = self.next_look(open, patience).unwrap_or(deadline).min(deadline);
            match timeout_at(wake, answers.recv()).await {
                Ok(Some(answer)) => details.take(answer, open),
                Err(_) if Instant::now() < deadline => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Asks for shares as long as a thread is free: new ones first, of them those that are not doubtful, then those that are
    /// overdue.
    fn give_out(
        &mut self,
        open: &mut [Open],
        patience: Duration,
        job: impl Fn(Share, usize) -> Job,
    ) {
        let now = Instant::now();
        open.sort_by_key(|left| (left.asked, left.is_doubtful));
        for left in open.iter_mut() {
            if left.asked.is_some_and(|asked| now < asked + patience) {
                continue;
            }
            let busy_max = if left.is_doubtful { STUCK_MAX } else { STUCK_MAX + SPARE };
            if self.busy() + self.stuck() >= busy_max {
                continue;
            }
            let Some(thread) = self.free(patience) else { return };
            if thread.worker.ask(job(left.share.clone(), left.number)) {
                (thread.asked, left.asked) = (Some(now), Some(now));
            }
        }
    }

    /// A thread without work, started if need be.
    fn free(&mut self, patience: Duration) -> Option<&mut Thread> {
        self.threads.retain(|thread| {
            let alive = thread.worker.is_alive();
            if !alive {
                tracing::error!("a libvirt thread ended unexpectedly");
            }
            alive
        });
        if let Some(idx) = self.threads.iter().position(|thread| !thread.worker.is_busy()) {
            return self.threads.get_mut(idx);
        }
        if !self.may_start(patience) {
            return None;
        }
        match (self.start)() {
            Ok(worker) => self.threads.push(Thread { worker, asked: None }),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "no thread can be started");
                return None;
            }
        }
        self.threads.last_mut()
    }

    /// Whether one more thread may run: those that are overdue are taken for stuck, and do not count among those that work.
    fn may_start(&self, patience: Duration) -> bool {
        self.threads.len() - self.overdue(patience) < self.connections
    }

    fn busy(&self) -> usize {
        self.threads.iter().filter(|thread| thread.worker.is_busy()).count()
    }

    /// Threads that should have come back by now.
    fn overdue(&self, patience: Duration) -> usize {
        let now = Instant::now();
        let overdue = |thread: &&Thread| {
            thread.worker.is_busy() && thread.asked.is_some_and(|asked| now >= asked + patience)
        };
        self.threads.iter().filter(overdue).count()
    }

    /// When the first share becomes overdue, if there is a thread for it then.
    fn next_look(&mut self, open: &[Open], patience: Duration) -> Option<Instant> {
        let now = Instant::now();
        let next = open.iter().filter_map(|share| share.asked).map(|asked| asked + patience);
        let next = next.filter(|next| *next > now).min()?;
        let stuck = self.stuck();
        (self.threads.len() + stuck < self.connections + STUCK_MAX + SPARE).then_some(next)
    }

    /// Lets go of every thread that still has work, and says how many.
    fn give_up_busy(&mut self) -> u64 {
        let all = std::mem::take(&mut self.threads);
        let (busy, free): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|thread| thread.worker.is_busy());
        self.threads = free;
        let count = u64::try_from(busy.len()).unwrap_or(u64::MAX);
        self.given_up.extend(busy.into_iter().map(|thread| thread.worker.give_up()));
        self.given_up_total += count;
        count
    }
}

impl Details {
    /// Running guests that libvirtd passed over now, but for those that it passed over `before`.
    fn busy(&self, before: &HashSet<String>) -> Arc<[String]> {
        let is_new = |guest: &&Guest| guest.is_active() && !before.contains(&guest.uuid);
        let busy = self.found.values().filter(is_new).filter(|guest| is_busy(guest));
        busy.map(|guest| guest.uuid.clone()).collect()
    }

    /// Whoever answers for a share first. One that was divided meanwhile answers for those of its guests that are still open.
    fn take(&mut self, Answer { number, result }: Answer, open: &mut Vec<Open>) {
        let Some(idx) = open.iter().position(|left| left.number == number) else {
            for guest in result.into_iter().flatten() {
                let is_its = |left: &Open| *left.uuids == [guest.uuid.as_str()];
                if let Some(idx) = open.iter().position(is_its) {
                    open.swap_remove(idx);
                    self.found.insert(guest.uuid.clone(), guest);
                }
            }
            return;
        };
        let left = open.swap_remove(idx);
        match result {
            Ok(guests) => {
                self.found.extend(guests.into_iter().map(|guest| (guest.uuid.clone(), guest)));
            }
            Err(error) => {
                tracing::warn!(error, "guests' details are missing");
                self.unanswered.extend(left.uuids.iter().cloned());
            }
        }
    }
}

/// Each guest by itself in the place of a share that is overdue.
fn divide(open: &mut Vec<Open>, patience: Duration) {
    let now = Instant::now();
    let is_late = |left: &mut Open| {
        left.uuids.len() > 1 && left.asked.is_some_and(|asked| now >= asked + patience)
    };
    let next = open.iter().map(|left| left.number + 1).max().unwrap_or(0);
    let late: Vec<Open> = open.extract_if(.., is_late).collect();
    let running = late.iter().filter(|left| left.share != Share::Inactive);
    let uuids = running.flat_map(|left| left.uuids.iter());
    open.extend(uuids.zip(next..).map(|(uuid, number)| alone(uuid, number)));
    // Those that do not run have no monitor, and are asked for as they were.
    open.extend(late.into_iter().filter(|left| left.share == Share::Inactive));
}

fn alone(uuid: &str, number: usize) -> Open {
    let uuids: Arc<[String]> = [uuid.to_owned()].into();
    Open { share: Share::Some(Arc::clone(&uuids)), uuids, number, asked: None, is_doubtful: true }
}

/// The shares of a host's guests: one call for all that run where they are few, and one for each of those that were `silent`.
fn shares(guests: &[Guest], connections: usize, silent: &HashSet<String>) -> Vec<Open> {
    let uuids = |wanted: bool| -> Vec<String> {
        let guests = guests.iter().filter(|guest| guest.is_active() == wanted);
        guests.map(|guest| guest.uuid.clone()).collect()
    };
    let (active, inactive) = (uuids(true), uuids(false));
    let (doubtful, active): (Vec<String>, Vec<String>) =
        active.into_iter().partition(|uuid| silent.contains(uuid));
    let mut shares = Vec::new();
    let size = active.len().div_ceil(connections * SHARES_PER_THREAD).clamp(SHARE_MIN, SHARE_MAX);
    if doubtful.is_empty() && (connections == 1 || active.len() <= SHARE_MIN) {
        shares.push((Share::Active, active.into()));
    } else {
        let parts = active.chunks(size).map(Arc::<[String]>::from);
        shares.extend(parts.map(|uuids| (Share::Some(Arc::clone(&uuids)), uuids)));
    }
    shares.push((Share::Inactive, inactive.into()));
    let shares = shares.into_iter().filter(|(_, uuids)| !uuids.is_empty()).enumerate();
    let open =
        |(number, (share, uuids))| Open { share, uuids, number, asked: None, is_doubtful: false };
    let mut open: Vec<Open> = shares.map(open).collect();
    let next = open.len();
    open.extend(doubtful.iter().enumerate().map(|(idx, uuid)| alone(uuid, next + idx)));
    open
}

#[cfg(test)]
mod tests;
