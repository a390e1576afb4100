//! Storage pools within a scrape: one thread is asked for all of them, and where it does not come back in time those that
//! were there before are shown by name alone. Knows neither libvirt nor metrics.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::selection::CollectorName;
use crate::snapshot::{Pool, Step};
use crate::worker::Worker;
use crate::worker::pools::{Answer, Job};

/// The thread that reads pools, and what it told last.
pub(super) struct Pools {
    /// Starts it.
    start: Box<dyn Fn() -> std::io::Result<Worker<Job>> + Send + Sync>,
    /// It is never replaced while it hangs: one pool that hangs mostly holds up the list of all, and would every thread.
    worker: Option<Worker<Job>>,
    /// Whether it did not answer the last time it was asked.
    hangs: bool,
    given_up_total: u64,
    /// Names of the pools that were there.
    known: Vec<String>,
}

/// A question under way.
pub(super) struct Asked {
    began: Instant,
    answer: oneshot::Receiver<Answer>,
}

/// What became of a question; `None` where no answer came in time.
pub(super) struct Told {
    answer: Option<Answer>,
    took: Duration,
}

impl Pools {
    /// No thread is started before the pools are asked for.
    pub(super) fn new(
        start: impl Fn() -> std::io::Result<Worker<Job>> + Send + Sync + 'static,
    ) -> Self {
        let start = Box::new(start);
        Self { start, worker: None, hangs: false, given_up_total: 0, known: Vec::new() }
    }

    /// Asks for the pools. Where the thread has not come back from the last time, no answer will come.
    pub(super) fn ask(&mut self) -> Asked {
        if self.worker.as_ref().is_none_or(|worker| !worker.is_alive()) {
            let started = (self.start)();
            let told = |error: &std::io::Error| {
                tracing::warn!(error = error.to_string(), "no thread can be started");
            };
            self.worker = started.inspect_err(told).ok();
        }
        let (sender, answer) = oneshot::channel();
        if let Some(worker) = &self.worker {
            worker.ask(Job(sender));
        }
        Asked { began: Instant::now(), answer }
    }

    /// The pools, where they are known, and how it went.
    pub(super) fn take(&mut self, told: Told) -> (Option<Vec<Pool>>, Step) {
        let late = told.answer.is_none();
        let (pools, success) = match told.answer {
            Some(Ok((pools, all))) => {
                self.known = pools.iter().map(|pool| pool.name.clone()).collect();
                (Some(pools), all)
            }
            Some(Err(error)) => {
                tracing::warn!(error, "storage pools are missing");
                (None, false)
            }
            None => {
                tracing::warn!("libvirt did not tell its storage pools in time");
                let silent = |name: &String| Pool { name: name.clone(), ..Pool::default() };
                let pools: Vec<Pool> = self.known.iter().map(silent).collect();
                (Some(pools).filter(|pools| !pools.is_empty()), false)
            }
        };
        self.given_up_total += u64::from(late && !self.hangs);
        self.hangs = late;
        let (collector, duration_seconds) = (CollectorName::Pool.name(), told.took.as_secs_f64());
        (pools, Step { collector, success, duration_seconds })
    }

    /// Threads that did not answer in time and have not come back: one or none.
    pub(super) fn stuck(&self) -> usize {
        usize::from(self.hangs && self.worker.as_ref().is_some_and(Worker::is_busy))
    }

    /// How often one did not answer in time.
    pub(super) fn given_up_total(&self) -> u64 {
        self.given_up_total
    }
}

impl Asked {
    /// Waits for the answer, for half of what the scrape has left and `longest` at most.
    pub(super) async fn told(self, deadline: Instant, longest: Duration) -> Told {
        let time = (deadline.saturating_duration_since(self.began) / 2).min(longest);
        let answer = timeout_at(self.began + time, self.answer).await.ok().and_then(Result::ok);
        Told { answer, took: self.began.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::worker::Status;

    fn pool(name: &str) -> Pool {
        Pool { name: name.to_owned(), state: Some(2), capacity_bytes: Some(1), ..Pool::default() }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn read(pools: &mut Pools, wait: Duration) -> (Option<Vec<Pool>>, Step) {
        let told = runtime().block_on(async {
            let asked = pools.ask();
            asked.told(Instant::now() + wait * 2, wait).await
        });
        pools.take(told)
    }

    #[test]
    fn pools_that_hang_are_shown_by_name() {
        // Each answer is let go by hand.
        let (go, gate) = sync_channel::<Answer>(9);
        let gate = Arc::new(Mutex::new(gate));
        let mut pools = Pools::new(move || {
            let gate = Arc::clone(&gate);
            Worker::start(move |queue: &Receiver<Job>, status: &Status| {
                while let Ok(Job(sender)) = queue.recv() {
                    let answer = gate.lock().unwrap().recv().unwrap();
                    status.is_idle_now();
                    sender.send(answer).ok();
                }
            })
        });
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(60));
        let (none, step) = read(&mut pools, short);
        assert_eq!((none, step.success), (None, false), "nothing is known of them");
        go.send(Ok((vec![pool("late")], true))).unwrap();
        while pools.stuck() > 0 {
            std::thread::yield_now();
        }
        go.send(Ok((vec![pool("a"), pool("b")], true))).unwrap();
        let (found, step) = read(&mut pools, long);
        assert_eq!((found, step.success), (Some(vec![pool("a"), pool("b")]), true));
        for _ in 0..2 {
            let (found, step) = read(&mut pools, short);
            let found = found.unwrap();
            let names: Vec<&str> = found.iter().map(|pool| pool.name.as_str()).collect();
            assert_eq!((names, step.success), (vec!["a", "b"], false));
            assert!(found.iter().all(|pool| pool.state.is_none() && pool.capacity_bytes.is_none()));
            assert_eq!(pools.stuck(), 1);
        }
        assert_eq!(pools.given_up_total(), 2, "once for each time that it hung");
        go.send(Err("gone".to_owned())).unwrap();
        while pools.stuck() > 0 {
            std::thread::yield_now();
        }
        go.send(Ok((vec![pool("b")], false))).unwrap();
        let (found, step) = read(&mut pools, long);
        assert_eq!((found, step.success, pools.stuck()), (Some(vec![pool("b")]), false, 0));
    }
}
