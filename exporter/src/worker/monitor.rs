//! Reads guests' figures for which libvirtd asks their monitors: a share of the guests a job, so that several threads
//! read a host side by side and a guest that hangs holds up no other share.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use super::{Line, Source, Worker};
use crate::libvirt::{CallCounts, LibvirtError};
use crate::selection::{CollectorName, Collectors};
use crate::snapshot::Guest;
use crate::snapshot::Idle;

/// Some of the host's guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// All that run, in one call that needs no names.
    Active,
    /// These, by uuid.
    Some(Arc<[String]>),
    /// All that do not run.
    Inactive,
}

/// What is asked of a thread: the figures of a share.
#[derive(Debug)]
pub(crate) struct Job {
    /// Which.
    pub(crate) share: Share,
    /// What of them the page shows.
    pub(crate) wanted: Collectors,
    /// Guests that had no job a moment ago and are not asked for it this time.
    pub(crate) idle: Arc<Idle>,
    /// The number of the share, for the answer.
    pub(crate) number: usize,
    /// Where the answer goes.
    pub(crate) answers: Sender<Answer>,
}

/// The figures of a share.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Of which.
    pub(crate) number: usize,
    /// What libvirtd said.
    pub(crate) result: Result<Vec<Guest>, String>,
}

/// Starts a thread that answers jobs by a connection of its own.
pub(crate) fn start(source: &Source, counts: Arc<CallCounts>) -> std::io::Result<Worker<Job>> {
    let mut line = Line::new(source, counts);
    Worker::start(move |queue, status| {
        while let Ok(Job { share, wanted, idle, number, answers }) = queue.recv() {
            let result = read(&mut line, &share, (wanted, &idle));
            let result = result.map_err(|error| error.to_string());
            status.is_idle_now();
            // Nobody waits any more where the scrape's deadline has passed.
            answers.blocking_send(Answer { number, result }).ok();
        }
    })
}

fn read(
    line: &mut Line,
    share: &Share,
    (wanted, idle): (Collectors, &Idle),
) -> Result<Vec<Guest>, LibvirtError> {
    line.ask(|connection| {
        let mut guests = match share {
            Share::Active => connection.detail_active(wanted)?,
            Share::Some(uuids) => connection.detail_of(uuids, wanted)?,
            Share::Inactive => return connection.detail_inactive(),
        };
        if wanted.has(CollectorName::Placement) {
            connection.places(&mut guests)?;
        }
        if wanted.has(CollectorName::Job) {
            connection.jobs(&mut guests, idle)?;
        }
        Ok(guests)
    })
}
