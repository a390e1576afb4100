//! Reads the host's storage pools, all of them or one, on a thread of its own: one whose storage is dead may hold up
//! libvirtd's answer, and must hold up nothing else.

use std::sync::Arc;

use tokio::sync::oneshot::Sender;

use super::{Line, Source, Worker};
use crate::libvirt::CallCounts;
use crate::snapshot::Pool;

/// What is asked of the thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// All active pools.
    All(Sender<Answer>),
    /// The one of this name.
    One(String, Sender<OneAnswer>),
}

/// The pools, and whether all of them could be read.
pub(crate) type Answer = Result<(Vec<Pool>, bool), String>;

/// A pool; `None` where it is not active, or not there.
pub(crate) type OneAnswer = Result<Option<Pool>, String>;

/// Starts a thread.
pub(crate) fn start(source: &Source, counts: Arc<CallCounts>) -> std::io::Result<Worker<Job>> {
    let mut line = Line::new(source, counts);
    Worker::start(move |queue, status| {
        while let Ok(job) = queue.recv() {
            // Nobody waits for an answer any more where the scrape's time has passed.
            match job {
                Job::All(answer) => {
                    let pools = line.ask(|connection| connection.pools());
                    status.is_idle_now();
                    answer.send(pools.map_err(|error| error.to_string())).ok();
                }
                Job::One(name, answer) => {
                    let pool = line.ask(|connection| connection.pool(&name));
                    status.is_idle_now();
                    answer.send(pool.map_err(|error| error.to_string())).ok();
                }
            }
        }
    })
}
