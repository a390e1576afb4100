//! Storage pools within a scrape: one thread lists them all, and where one that hangs holds it up, those that were there
//! before are asked for one by one, so that only those that hang are shown by name alone. Knows neither libvirt nor metrics.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::selection::CollectorName;
use crate::snapshot::{Pool, Step};
use crate::worker::Worker;
use crate::worker::pools::{Answer, Job, OneAnswer};

/// Threads that ask for one pool each, and may all be stuck in it, beside the one that lists them. Each holds one of
/// libvirtd's 20 threads (max_workers), which nova needs as well; a host has few pools. The last of them is for pools that
/// answered by themselves before, so that these stay fresh however many others hang, until one of them hangs too.
const READERS_MAX: usize = 4;
/// How often to look whether libvirtd answers otherwise.
const LOOK: Duration = Duration::from_millis(10);

/// The threads that read pools, and what they told last.
pub(super) struct Pools {
    /// Starts one more.
    start: Box<dyn Fn() -> std::io::Result<Worker<Job>> + Send + Sync>,
    /// Lists all of them. It is never replaced while it hangs: libvirtd goes from pool to pool for it, and would hold up
    /// every thread at the one that hangs.
    lister: Option<Worker<Job>>,
    /// Whether that did not answer the last time.
    hangs: bool,
    readers: Vec<Reader>,
    given_up_total: u64,
    /// Names of the pools that were there.
    known: Vec<String>,
    /// Those of them that answered by themselves since the list hangs: they are asked for before all others.
    healthy: HashSet<String>,
}

/// A thread that asks for pools one by one.
struct Reader {
    worker: Worker<Job>,
    /// The pool that it was asked for last.
    pool: String,
}

/// The pools, where they are known, and how it went.
type Found = (Option<Vec<Pool>>, Step);

impl Pools {
    /// No thread is started before the pools are asked for.
    pub(super) fn new(
        start: impl Fn() -> std::io::Result<Worker<Job>> + Send + Sync + 'static,
    ) -> Self {
        let (start, readers, known) = (Box::new(start), Vec::new(), Vec::new());
        let (hangs, given_up_total, healthy) = (false, 0, HashSet::new());
        Self { start, lister: None, hangs, readers, given_up_total, known, healthy }
    }

    /// Reads the pools within half of what there is until the deadline, and `longest` at most. They are asked for one by
    /// one only where `is_up` says that libvirtd answers otherwise. After a quarter of this time the list of all is taken to
    /// be held up, and so is a single pool: many times what it takes.
    pub(super) async fn read(
        &mut self,
        (deadline, longest): (Instant, Duration),
        is_up: impl Fn() -> bool,
    ) -> Found {
        let began = Instant::now();
        let time = (deadline.saturating_duration_since(began) / 2).min(longest);
        let patience = time / 4;
        let (all, each) = self.told((began, patience, began + time), is_up).await;
        let (pools, success) = match all {
            Some(all) => self.listed(all),
            None => self.held_up(each),
        };
        let duration_seconds = began.elapsed().as_secs_f64();
        (pools, Step { collector: CollectorName::Pool.name(), success, duration_seconds })
    }

    /// The list of all, or where it does not come what came one by one.
    async fn told(
        &mut self,
        (began, patience, end): (Instant, Duration, Instant),
        is_up: impl Fn() -> bool,
    ) -> (Option<Answer>, Vec<Pool>) {
        let Some(mut all) = self.ask_for_all() else {
            let is_up = comes_up(is_up, began + patience).await;
            let each = if is_up { self.each(patience, end).await.0 } else { self.by_names() };
            return (None, each);
        };
        let ended = |_| Err("the thread that lists them ended".to_owned());
        if let Ok(answer) = timeout_at(began + patience, &mut all).await {
            return (Some(answer.unwrap_or_else(ended)), Vec::new());
        }
        let each = async {
            if !is_up() {
                sleep_until(end).await;
                return self.by_names();
            }
            let (each, all) = self.each(patience, end).await;
            if all {
                // Nothing that is known holds it up, so it may yet come.
                sleep_until(end).await;
            }
            each
        };
        tokio::select! {
            biased;
            answer = &mut all => (Some(answer.unwrap_or_else(ended)), Vec::new()),
            each = each => (None, each),
        }
    }

    fn listed(&mut self, answer: Answer) -> (Option<Vec<Pool>>, bool) {
        self.hangs = false;
        self.healthy.clear();
        self.readers.retain(|reader| reader.worker.is_busy());
        match answer {
            Ok((pools, all)) => {
                self.known = pools.iter().map(|pool| pool.name.clone()).collect();
                (Some(pools), all)
            }
            Err(error) => {
                tracing::warn!(error, "storage pools are missing");
                (None, false)
            }
        }
    }

    fn held_up(&mut self, each: Vec<Pool>) -> (Option<Vec<Pool>>, bool) {
        tracing::warn!("libvirt did not list its storage pools in time");
        self.given_up_total += u64::from(!self.hangs);
        self.hangs = true;
        (Some(each).filter(|pools| !pools.is_empty()), false)
    }

    /// Asks for the list; nothing where the thread has not come back from the last time.
    fn ask_for_all(&mut self) -> Option<oneshot::Receiver<Answer>> {
        if self.lister.as_ref().is_none_or(|lister| !lister.is_alive()) {
            self.lister = self.started();
        }
        let (sender, answer) = oneshot::channel();
        let asked = self.lister.as_ref().is_some_and(|lister| lister.ask(Job::All(sender)));
        asked.then_some(answer)
    }

    fn started(&self) -> Option<Worker<Job>> {
        let started = (self.start)();
        let told = |error: &std::io::Error| {
            tracing::warn!(error = error.to_string(), "no thread can be started");
        };
        started.inspect_err(told).ok()
    }

    /// The pools that were there, each asked for by itself, and whether all of them answered.
    async fn each(&mut self, patience: Duration, end: Instant) -> (Vec<Pool>, bool) {
        let mut names = self.known.clone();
        names.sort_by_key(|name| !self.healthy.contains(name));
        let (mut found, mut all, mut healthy) = (Vec::new(), true, HashSet::new());
        for name in names {
            let until = (Instant::now() + patience).min(end);
            match self.one(&name, until).await {
                Some(Ok(pool)) => {
                    found.extend(pool);
                    healthy.insert(name);
                }
                Some(Err(error)) => {
                    tracing::warn!(pool = name, error, "a storage pool cannot be read");
                    found.push(by_name(&name));
                }
                None => {
                    found.push(by_name(&name));
                    all = false;
                }
            }
        }
        self.healthy = healthy;
        found.sort_by(|one, other| one.name.cmp(&other.name));
        (found, all)
    }

    /// What is told of a pool until then; nothing where a thread hangs in it already, or none is left to ask.
    async fn one(&mut self, name: &str, until: Instant) -> Option<OneAnswer> {
        self.readers.retain(|reader| reader.worker.is_alive());
        let is_in_it = |reader: &Reader| reader.worker.is_busy() && reader.pool == name;
        if Instant::now() >= until || self.readers.iter().any(is_in_it) {
            return None;
        }
        let left = usize::from(!self.healthy.contains(name));
        if self.busy() + left >= READERS_MAX {
            return None;
        }
        let reader = self.free()?;
        name.clone_into(&mut reader.pool);
        let (sender, answer) = oneshot::channel();
        reader.worker.ask(Job::One(name.to_owned(), sender));
        let answer = timeout_at(until, answer).await;
        if answer.is_err() {
            tracing::warn!(pool = name, "libvirt did not tell of a storage pool in time");
            self.given_up_total += 1;
        }
        answer.ok()?.ok()
    }

    /// A thread without work, started if there is none.
    fn free(&mut self) -> Option<&mut Reader> {
        let idle = self.readers.iter().position(|reader| !reader.worker.is_busy());
        if let Some(idle) = idle {
            return self.readers.get_mut(idle);
        }
        let worker = self.started()?;
        self.readers.push(Reader { worker, pool: String::new() });
        self.readers.last_mut()
    }

    fn by_names(&self) -> Vec<Pool> {
        self.known.iter().map(|name| by_name(name)).collect()
    }

    /// Threads that did not answer in time and have not come back.
    pub(super) fn stuck(&self) -> usize {
        let lists = self.hangs && self.lister.as_ref().is_some_and(Worker::is_busy);
        usize::from(lists) + self.busy()
    }

    fn busy(&self) -> usize {
        self.readers.iter().filter(|reader| reader.worker.is_busy()).count()
    }

    /// How often one did not answer in time.
    pub(super) fn given_up_total(&self) -> u64 {
        self.given_up_total
    }
}

/// Whether libvirtd answers by then: at the begin of a scrape it has just been asked.
async fn comes_up(is_up: impl Fn() -> bool, until: Instant) -> bool {
    while !is_up() {
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

/// A pool without figures.
fn by_name(name: &str) -> Pool {
    Pool { name: name.to_owned(), ..Pool::default() }
}

#[cfg(test)]
mod tests;
