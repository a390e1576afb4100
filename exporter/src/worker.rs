//! Threads that talk to libvirtd, each with a connection of its own and what it remembers between scrapes. Calls of
//! libvirt block and cannot be cancelled: a thread is asked, watched from outside, and given up where it does not come back.

pub(crate) mod monitor;
pub(crate) mod pools;
pub(crate) mod roster;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use crate::config::Config;
use crate::libvirt::{CallCounts, Connection, LibvirtError, connection_uri};
use crate::snapshot::Step;

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// A libvirt URI or a socket's path.
    pub(crate) uri: String,
    /// The URI of the driver behind a socket's path.
    pub(crate) driver: String,
    /// Where libvirt keeps guests' pid files.
    pub(crate) run_directory: PathBuf,
}

impl Source {
    /// The one that the flags name.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            uri: config.libvirt_uri.clone(),
            driver: config.inherited.driver.clone(),
            run_directory: config.run_directory.clone(),
        }
    }

    /// The URI to open now.
    pub(crate) fn connection_uri(&self) -> String {
        connection_uri(&self.uri, &self.driver, Path::exists)
    }
}

/// A running thread that takes jobs, one at a time.
#[derive(Debug)]
pub(crate) struct Worker<J> {
    jobs: SyncSender<J>,
    status: Arc<Status>,
}

/// What can be seen of a worker from outside, even after it was given up.
#[derive(Debug, Default)]
pub(crate) struct Status {
    busy: AtomicBool,
    finished: AtomicBool,
}

impl Status {
    /// Whether the thread has come to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// To be called by the thread when a job is done, before it says so.
    pub(crate) fn is_idle_now(&self) {
        self.busy.store(false, Ordering::Release);
    }
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread that is given its jobs until the worker is dropped and the call that it is in returns. What `serve`
    /// owns is dropped before the thread counts as finished, because closing a connection can hang as well.
    pub(crate) fn start(
        serve: impl FnOnce(&Receiver<J>, &Status) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let status = Arc::new(Status::default());
        let end = EndMark(Arc::clone(&status));
        thread::Builder::new().name("libvirt".to_owned()).spawn(move || {
            serve(&queue, &end.0);
            drop(end);
        })?;
        Ok(Self { jobs, status })
    }

    /// Hands it a job; false if it is busy with an earlier one, or gone.
    pub(crate) fn ask(&self, job: J) -> bool {
        if self.is_busy() {
            return false;
        }
        self.status.busy.store(true, Ordering::Release);
        self.jobs.try_send(job).is_ok()
    }

    /// Whether it has a job.
    pub(crate) fn is_busy(&self) -> bool {
        self.status.busy.load(Ordering::Acquire)
    }

    /// Whether the thread still runs.
    pub(crate) fn is_alive(&self) -> bool {
        !self.status.is_finished()
    }

    /// Lets go of the thread, which may be stuck for ever.
    pub(crate) fn give_up(self) -> Arc<Status> {
        self.status
    }
}

/// Sets the status when the thread ends, by a panic too.
#[derive(Debug)]
struct EndMark(Arc<Status>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.finished.store(true, Ordering::Release);
    }
}

/// A connection that is opened when it is needed, and anew where it broke since the last scrape, so that a restart of
/// libvirtd is not seen as an outage.
struct Line {
    source: Source,
    counts: Arc<CallCounts>,
    connection: Option<Connection>,
}

impl Line {
    fn new(source: &Source, counts: Arc<CallCounts>) -> Self {
        Self { source: source.clone(), counts, connection: None }
    }

    /// Asks, and once more by a new connection where the old one is broken.
    fn ask<T>(
        &mut self,
        question: impl Fn(&mut Connection) -> Result<T, LibvirtError>,
    ) -> Result<T, LibvirtError> {
        if let Some(connection) = &mut self.connection {
            match question(connection) {
                Err(error) if !connection.is_alive() => {
                    tracing::warn!(error = error.to_string(), "connecting to libvirt anew");
                    self.connection = None;
                }
                answered => return answered,
            }
        }
        // Each time anew: which daemon's socket is there may change while this runs.
        let connection = Connection::open(&self.source.connection_uri(), Arc::clone(&self.counts))?;
        question(self.connection.insert(connection))
    }
}

fn step(collector: &'static str, started: Instant, success: bool) -> Step {
    Step { collector, success, duration_seconds: started.elapsed().as_secs_f64() }
}
