//! The thread that talks to libvirtd: owns the connection and what is remembered between scrapes (guests' XML, start
//! times). Sends what it has after every step, so that a scrape whose deadline comes can answer with that much.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use crate::config::Config;
use crate::libvirt::{CallCounts, Connection, LibvirtError, connection_uri, is_local};
use crate::selection::Collectors;
use crate::snapshot::{Description, Guest, Host, Step};
use crate::start_time::StartTimes;
use crate::stats;
use crate::xml;

/// A guest's XML is read again after this time even if nothing seems to have changed: nova rewrites a guest's metadata
/// on a rename or a change of project without any other trace.
const XML_AGE_MAX: Duration = Duration::from_mins(10);
/// Of those that are merely old, so many a scrape.
const XML_REFRESH_MAX: usize = 10;
/// Parts that one collection sends at most; the channel holds them all, so the thread never waits for a scrape.
pub(crate) const PARTS_MAX: usize = 8;

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// A libvirt URI or a socket's path.
    pub(crate) uri: String,
    /// Where libvirt keeps guests' pid files.
    pub(crate) run_directory: PathBuf,
}

impl Source {
    /// The one that the flags name.
    pub(crate) fn of(config: &Config) -> Self {
        let uri = config.libvirt_uri.clone();
        Self { uri, run_directory: config.run_directory.clone() }
    }
}

/// What is asked of a worker: one collection.
pub(crate) struct Job {
    /// Whether to ask the guests' monitors as well.
    pub(crate) detail: bool,
    /// What the page shows, and so what to ask them.
    pub(crate) wanted: Collectors,
    /// Where its parts go.
    pub(crate) parts: Sender<Part>,
}

/// What comes back. A job's channel closes when the collection is complete.
#[derive(Debug)]
pub(crate) enum Part {
    /// libvirtd cannot be reached.
    Down { error: String, steps: Vec<Step> },
    /// What is known so far; each replaces the one before.
    Guests { host: Host, guests: Vec<Guest>, steps: Vec<Step> },
}

/// A running worker thread.
pub(crate) struct Worker {
    jobs: SyncSender<Job>,
    status: Arc<Status>,
}

/// What can be seen of a worker from outside, even after it was given up.
#[derive(Debug, Default)]
pub(crate) struct Status {
    finished: AtomicBool,
    in_detail: AtomicBool,
}

impl Status {
    /// Whether the thread has come to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Whether it is in the step that asks the guests' monitors.
    pub(crate) fn is_in_detail(&self) -> bool {
        self.in_detail.load(Ordering::Acquire)
    }
}

impl Worker {
    /// Starts a thread; it ends when the worker is dropped and the call it is in returns.
    pub(crate) fn start(source: Source, counts: Arc<CallCounts>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let status = Arc::new(Status::default());
        let end = EndMark(Arc::clone(&status));
        thread::Builder::new().name("libvirt".to_owned()).spawn(move || {
            let mut reader = Reader::new(source, counts, Arc::clone(&end.0));
            reader.serve(&queue);
            // The connection closes before the thread counts as finished: closing can hang as well.
            drop(reader);
            drop(end);
        })?;
        Ok(Self { jobs, status })
    }

    /// Asks for a collection; false if the thread is stuck in an earlier one, or gone.
    pub(crate) fn ask(&self, job: Job) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
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
struct EndMark(Arc<Status>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.finished.store(true, Ordering::Release);
    }
}

struct Reader {
    uri: String,
    local: bool,
    counts: Arc<CallCounts>,
    status: Arc<Status>,
    connection: Option<Connection>,
    described: HashMap<String, Described>,
    start_times: StartTimes,
}

/// A guest's XML as it was read, and what it was read for.
struct Described {
    id: Option<u32>,
    interfaces: Vec<String>,
    /// `None` until the disks were seen once.
    blocks: Option<Vec<String>>,
    read: Instant,
    description: Option<Arc<Description>>,
}

impl Reader {
    fn new(source: Source, counts: Arc<CallCounts>, status: Arc<Status>) -> Self {
        let uri = connection_uri(&source.uri);
        Self {
            local: is_local(&uri),
            uri,
            counts,
            status,
            connection: None,
            described: HashMap::new(),
            start_times: StartTimes::new(source.run_directory),
        }
    }

    fn serve(&mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            self.collect(&job);
        }
    }

    /// One collection. Stops early when nobody waits for it any more.
    fn collect(&mut self, job: &Job) {
        let mut steps = Vec::new();
        let started = Instant::now();
        let basic = self.basic();
        steps.push(step("basic", started, basic.is_ok()));
        let (host, mut guests) = match basic {
            Ok(found) => found,
            Err(error) => {
                let error = error.to_string();
                job.parts.blocking_send(Part::Down { error, steps }).ok();
                return;
            }
        };
        // libvirt lists them in no order; a page is easier to read, and to compress, in one.
        guests.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for guest in &mut guests {
            guest.description =
                self.described.get(&guest.uuid).and_then(|known| known.description.clone());
        }
        if !send(job, &host, &guests, &steps) {
            return;
        }
        if self.local {
            let started = Instant::now();
            let success = self.start_times.fill(&mut guests);
            steps.push(step("start_time", started, success));
        }
        let started = Instant::now();
        let described = self.describe(&mut guests);
        steps.push(step("metadata", started, described));
        if !send(job, &host, &guests, &steps) || !job.detail {
            return;
        }
        let started = Instant::now();
        self.status.in_detail.store(true, Ordering::Release);
        let detail = self.detail(&mut guests, job.wanted);
        self.status.in_detail.store(false, Ordering::Release);
        steps.push(step("detail", started, detail));
        self.describe(&mut guests);
        send(job, &host, &guests, &steps);
    }

    /// Connects where needed. A connection that broke since the last scrape is opened anew at once, so that a restart of
    /// libvirtd is not seen as an outage.
    fn basic(&mut self) -> Result<(Host, Vec<Guest>), LibvirtError> {
        if let Some(connection) = &self.connection {
            match connection.basic() {
                Ok(guests) => return Ok((connection.host(), guests)),
                Err(error) => {
                    tracing::warn!(error = error.to_string(), "connecting to libvirt anew");
                    self.connection = None;
                }
            }
        }
        let connection = Connection::open(&self.uri, Arc::clone(&self.counts))?;
        let guests = connection.basic()?;
        let host = connection.host();
        self.connection = Some(connection);
        Ok((host, guests))
    }

    /// Adds what the monitors say; false if a call failed. A running guest without it is flagged.
    fn detail(&self, guests: &mut [Guest], wanted: Collectors) -> bool {
        let Some(connection) = &self.connection else { return false };
        let active = connection.detail_active(wanted);
        let inactive = if guests.iter().all(Guest::is_active) {
            Ok(Vec::new())
        } else {
            connection.detail_inactive()
        };
        let success = active.is_ok() && inactive.is_ok();
        let mut found = Vec::new();
        for result in [active, inactive] {
            match result {
                Ok(some) => found.extend(some),
                Err(error) => {
                    tracing::warn!(error = error.to_string(), "guests' details are missing");
                }
            }
        }
        stats::add_details(guests, found);
        success
    }

    /// Sets each guest's description, reading XML only where the guest is new, was started anew, has other devices or was
    /// read long ago. False if one could not be read.
    fn describe(&mut self, guests: &mut [Guest]) -> bool {
        let mut all = true;
        let mut old_ones = 0;
        for guest in guests.iter_mut() {
            let names = Names::of(guest);
            let known = self.described.get_mut(&guest.uuid).filter(|known| known.fits(&names));
            let fresh = known.is_some_and(|known| {
                known.blocks = names.blocks.clone().or_else(|| known.blocks.take());
                let is_old = known.read.elapsed() > XML_AGE_MAX;
                old_ones += usize::from(is_old);
                !is_old || old_ones > XML_REFRESH_MAX
            });
            if !fresh {
                all &= self.read_xml(guest, names);
            }
            guest.description =
                self.described.get(&guest.uuid).and_then(|known| known.description.clone());
        }
        let present: HashSet<&str> = guests.iter().map(|guest| guest.uuid.as_str()).collect();
        self.described.retain(|uuid, _| present.contains(uuid.as_str()));
        all
    }

    fn read_xml(&mut self, guest: &Guest, names: Names) -> bool {
        let Some(connection) = &self.connection else { return false };
        let read = match connection.xml(&guest.uuid) {
            Ok(text) => xml::description(&text).map_err(|error| error.to_string()),
            // The guest may have gone since the list was made; the next scrape will know.
            Err(error) => {
                tracing::warn!(domain = guest.name, error = error.to_string(), "XML not read");
                return false;
            }
        };
        let success = read.is_ok();
        if let Err(error) = &read {
            tracing::warn!(domain = guest.name, error, "XML cannot be used");
        }
        let Names { id, interfaces, blocks } = names;
        let description = read.ok().map(Arc::new);
        let known = Described { id, interfaces, blocks, read: Instant::now(), description };
        self.described.insert(guest.uuid.clone(), known);
        success
    }
}

/// What a change of a guest's XML is noticed by.
struct Names {
    id: Option<u32>,
    interfaces: Vec<String>,
    blocks: Option<Vec<String>>,
}

impl Names {
    fn of(guest: &Guest) -> Self {
        let blocks: Vec<String> = guest.blocks.iter().map(|block| block.device.clone()).collect();
        Self {
            id: guest.id,
            interfaces: guest.interfaces.iter().map(|nic| nic.device.clone()).collect(),
            blocks: (!blocks.is_empty()).then_some(blocks),
        }
    }
}

impl Described {
    fn fits(&self, names: &Names) -> bool {
        let same_blocks = match (&self.blocks, &names.blocks) {
            (Some(known), Some(seen)) => known == seen,
            _ => true,
        };
        self.id == names.id && self.interfaces == names.interfaces && same_blocks
    }
}

fn step(collector: &'static str, started: Instant, success: bool) -> Step {
    Step { collector, success, duration_seconds: started.elapsed().as_secs_f64() }
}

fn send(job: &Job, host: &Host, guests: &[Guest], steps: &[Step]) -> bool {
    let part = Part::Guests { host: host.clone(), guests: guests.to_vec(), steps: steps.to_vec() };
    job.parts.blocking_send(part).is_ok()
}
