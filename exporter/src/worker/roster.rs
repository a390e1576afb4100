//! Reads who is on the host: the guests with what libvirtd knows of them by itself, their XML and their start times.
//! Sends what it has after every step, so that a scrape whose deadline comes can answer with that much.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::{Line, Source, Worker, step};
use crate::libvirt::{CallCounts, is_local};
use crate::snapshot::{Description, Guest, Host, Step};
use crate::start_time::StartTimes;
use crate::xml;

/// A guest's XML is read again after this time even if nothing seems to have changed: nova rewrites a guest's metadata
/// on a rename or a change of project without any other trace.
const XML_AGE_MAX: Duration = Duration::from_mins(10);
/// Of those that are merely old, so many a scrape at least: all become old at once, and reading them is to be spread.
const XML_REFRESH_MIN: usize = 10;
/// Parts that one job sends at most; the channel holds them all, so the thread never waits for a scrape.
pub(crate) const PARTS_MAX: usize = 2;

/// What is asked of the thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// Everything: first [`Part::Guests`], then [`Part::Identities`]; or [`Part::Down`].
    Read(Sender<Part>),
    /// The XML of these guests anew, as their disks have changed: [`Part::Identities`].
    Reread(Vec<Guest>, Sender<Part>),
}

/// What comes back. The channel closes when the job is done.
#[derive(Debug)]
pub(crate) enum Part {
    /// libvirtd cannot be reached.
    Down { error: String, steps: Vec<Step> },
    /// Every guest by name, with its state and interfaces, and with the identity that it had the last time.
    Guests { host: Box<Host>, guests: Vec<Guest>, steps: Vec<Step> },
    /// Who the guests are, in the same order.
    Identities { identities: Vec<Identity>, steps: Vec<Step> },
}

/// What is known of a guest beside libvirt's statistics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// What its XML says.
    pub(crate) description: Option<Arc<Description>>,
    /// When its process started, in seconds since 1970.
    pub(crate) start_time_seconds: Option<f64>,
}

/// Starts the thread.
pub(crate) fn start(source: &Source, counts: Arc<CallCounts>) -> std::io::Result<Worker<Job>> {
    let mut reader = Reader::new(source, counts);
    Worker::start(move |queue, status| {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Read(parts) => {
                    reader.read(&parts);
                    status.is_idle_now();
                    drop(parts);
                }
                Job::Reread(mut guests, parts) => {
                    let part = reader.reread(&mut guests);
                    status.is_idle_now();
                    parts.blocking_send(part).ok();
                }
            }
        }
    })
}

struct Reader {
    line: Line,
    local: bool,
    described: HashMap<String, Described>,
    /// When XML was read last.
    looked: Instant,
    start_times: StartTimes,
}

/// A guest's XML as it was read, and what it was read for.
struct Described {
    id: Option<u32>,
    interfaces: Vec<String>,
    read: Instant,
    description: Option<Arc<Description>>,
}

impl Reader {
    fn new(source: &Source, counts: Arc<CallCounts>) -> Self {
        let line = Line::new(source, counts);
        Self {
            local: is_local(&source.uri),
            line,
            described: HashMap::new(),
            looked: Instant::now(),
            start_times: StartTimes::new(source.run_directory.clone()),
        }
    }

    /// Stops early when nobody waits for it any more.
    fn read(&mut self, parts: &Sender<Part>) {
        let started = Instant::now();
        let basic = self.line.ask(|connection| Ok((connection.basic()?, connection.host())));
        let steps = vec![step("basic", started, basic.is_ok())];
        let (mut guests, host) = match basic {
            Ok(found) => found,
            Err(error) => {
                parts.blocking_send(Part::Down { error: error.to_string(), steps }).ok();
                return;
            }
        };
        // libvirt lists them in no order; a page is easier to read, and to compress, in one.
        guests.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for guest in &mut guests {
            let known = self.described.get(&guest.uuid);
            guest.description = known.and_then(|known| known.description.clone());
        }
        let sent = guests.clone();
        if parts.blocking_send(Part::Guests { host: Box::new(host), guests: sent, steps }).is_err()
        {
            return;
        }
        let mut steps = Vec::new();
        if self.local {
            let started = Instant::now();
            let success = self.start_times.fill(&mut guests);
            steps.push(step("start_time", started, success));
        }
        let started = Instant::now();
        let refreshed = refreshed(guests.len(), self.looked.elapsed());
        self.looked = started;
        let success = self.describe(&mut guests, refreshed);
        steps.push(step("metadata", started, success));
        let present: HashSet<&str> = guests.iter().map(|guest| guest.uuid.as_str()).collect();
        self.described.retain(|uuid, _| present.contains(uuid.as_str()));
        parts.blocking_send(Part::Identities { identities: identities(&guests), steps }).ok();
    }

    fn reread(&mut self, guests: &mut [Guest]) -> Part {
        for guest in guests.iter() {
            self.described.remove(&guest.uuid);
        }
        let started = Instant::now();
        let success = self.describe(guests, XML_REFRESH_MIN);
        let steps = vec![step("metadata", started, success)];
        Part::Identities { identities: identities(guests), steps }
    }

    /// Sets each guest's description, reading XML only where the guest is new, was started anew, has other interfaces or
    /// was read long ago, up to `refreshed` of those. False if one could not be read, now or when it was read last.
    fn describe(&mut self, guests: &mut [Guest], refreshed: usize) -> bool {
        let mut all = true;
        let mut old_ones = 0;
        for guest in guests.iter_mut() {
            let known = self.described.get(&guest.uuid).filter(|known| known.fits(guest));
            let fresh = known.is_some_and(|known| {
                let is_old = known.read.elapsed() > XML_AGE_MAX;
                old_ones += usize::from(is_old);
                !is_old || old_ones > refreshed
            });
            // Where libvirtd has gone, it is not asked for every guest again.
            if !fresh {
                all &= (all || self.line.connection.is_some()) && self.read_xml(guest);
            }
            let known = self.described.get(&guest.uuid);
            all &= known.is_none_or(|known| known.description.is_some());
            guest.description = known.and_then(|known| known.description.clone());
        }
        all
    }

    /// False where libvirtd does not give it. Whether it is of any use shows in what is known then.
    fn read_xml(&mut self, guest: &Guest) -> bool {
        let read = match self.line.ask(|connection| connection.xml(&guest.uuid)) {
            Ok(text) => xml::description(&text).map_err(|error| error.to_string()),
            // The guest may have gone since the list was made; the next scrape will know.
            Err(error) if error.is_gone() => return true,
            Err(error) => {
                tracing::warn!(domain = guest.name, error = error.to_string(), "XML not read");
                return false;
            }
        };
        if let Err(error) = &read {
            tracing::warn!(domain = guest.name, error, "XML cannot be used");
        }
        let known = Described {
            id: guest.id,
            interfaces: guest.interfaces.iter().map(|nic| nic.device.clone()).collect(),
            read: Instant::now(),
            description: read.ok().map(Arc::new),
        };
        self.described.insert(guest.uuid.clone(), known);
        true
    }
}

/// How many old ones are read anew, `elapsed` after the last time: as many as become old meanwhile, so that none gets much
/// older than it may, on a host of any size.
fn refreshed(guests: usize, elapsed: Duration) -> usize {
    let share = elapsed.as_millis().saturating_mul(guests as u128) / XML_AGE_MAX.as_millis();
    usize::try_from(share).unwrap_or(usize::MAX).saturating_add(1).max(XML_REFRESH_MIN)
}

fn identities(guests: &[Guest]) -> Vec<Identity> {
    let identity = |guest: &Guest| Identity {
        description: guest.description.clone(),
        start_time_seconds: guest.start_time_seconds,
    };
    guests.iter().map(identity).collect()
}

impl Described {
    fn fits(&self, guest: &Guest) -> bool {
        let interfaces = guest.interfaces.iter().map(|nic| nic.device.as_str());
        self.id == guest.id && interfaces.eq(self.interfaces.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that knows a guest whose XML was read but is of no use; its libvirtd is not there.
    fn reader() -> (Reader, Guest) {
        let source = Source {
            uri: "/nonexistent/socket".to_owned(),
            driver: "qemu:///system".to_owned(),
            run_directory: "/nonexistent".into(),
        };
        let guest = Guest { uuid: "u".to_owned(), id: Some(1), ..Guest::default() };
        let mut reader = Reader::new(&source, Arc::default());
        let (id, interfaces, read) = (guest.id, Vec::new(), Instant::now());
        let useless = Described { id, interfaces, read, description: None };
        reader.described.insert(guest.uuid.clone(), useless);
        (reader, guest)
    }

    #[test]
    fn xml_that_is_of_no_use_is_a_failure_each_time() {
        let (mut reader, guest) = reader();
        let mut guests = [guest];
        assert!(!reader.describe(&mut guests, XML_REFRESH_MIN));
        assert!(
            !reader.describe(&mut guests, XML_REFRESH_MIN),
            "though it is not read again at once"
        );
        if let Some(known) = reader.described.get_mut("u") {
            known.description = Some(Arc::default());
        }
        assert!(reader.describe(&mut guests, XML_REFRESH_MIN));
        assert_eq!(guests[0].description, Some(Arc::default()));
    }

    #[test]
    fn old_xml_is_read_anew_on_hosts_of_any_size() {
        for (guests, seconds, expected) in
            [(0, 15, 10), (100, 15, 10), (1000, 15, 26), (1000, 60, 101), (10, 86_400, 1441)]
        {
            assert_eq!(refreshed(guests, Duration::from_secs(seconds)), expected, "{guests}");
        }
    }
}
