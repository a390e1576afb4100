//! Reads the host's storage pools, on a thread of its own: one whose storage is dead may hold up libvirtd's answer, and
//! must hold up nothing else.

use std::sync::Arc;

use tokio::sync::oneshot::Sender;

use super::{Line, Source, Worker};
use crate::libvirt::CallCounts;
use crate::snapshot::Pool;

/// What is asked of the thread: the pools.
#[derive(Debug)]
pub(crate) struct Job(pub(crate) Sender<Answer>);

/// The pools, and whether all of them could be read.
pub(crate) type Answer = Result<(Vec<Pool>, bool), String>;

/// Starts the thread.
pub(crate) fn start(source: &Source, counts: Arc<CallCounts>) -> std::io::Result<Worker<Job>> {
    let mut line = Line::new(source, counts);
    Worker::start(move |queue, status| {
        while let Ok(Job(answer)) = queue.recv() {
            let pools = line.ask(|connection| connection.pools());
            status.is_idle_now();
            // Nobody waits any more where the scrape's deadline has passed.
            answer.send(pools.map_err(|error| error.to_string())).ok();
        }
    })
}
