//! Records a hypervisor: the calls of one collection, with their answers kept as they came. Each step has a connection and a
//! thread of its own and a time: a guest that hangs, which is when a recording is wanted, is passed over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serve::clock::Clock;

use crate::libvirt::{CallCounts, Connection, LibvirtError, is_local};
use crate::recording::{Recording, Takes};
use crate::selection::Collectors;
use crate::snapshot::Guest;
use crate::snapshot::Idle;
use crate::start_time::StartTimes;
use crate::stats::Record;
use crate::worker::Source;

/// Longest time for a step that libvirtd answers by itself.
const STEP_TIME_MAX: Duration = Duration::from_secs(30);
/// After this time, and some for each guest, their monitors are asked once more, by another connection: the one that hangs
/// holds its guest's job, so that libvirtd passes that guest over.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ten times what a guest's monitor needs.
const PATIENCE_A_GUEST: Duration = Duration::from_millis(20);
/// How often they are asked: so many guests may hang at once.
const ATTEMPTS: usize = 8;

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// libvirtd answered, but not with what was asked for.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// It did not answer.
    #[error("libvirt did not answer within {} s: is libvirtd stuck?", .0.as_secs())]
    Late(Duration),
    /// No thread can be started.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What libvirtd says now. Takes a few minutes at most, whatever hangs.
pub(crate) fn record(source: &Source) -> Result<Recording, RecordError> {
    let now_ms = u64::try_from(Clock::system().now_ms()).unwrap_or(0);
    let (host, basic, inactive) = ask(source, STEP_TIME_MAX, |connection| {
        Ok((connection.host(), connection.basic_records()?, connection.inactive_records()?))
    })?;
    let count = u32::try_from(basic.len()).unwrap_or(u32::MAX);
    let patience = PATIENCE + PATIENCE_A_GUEST.saturating_mul(count).min(STEP_TIME_MAX);
    let mut details = monitors(source, patience);
    details.extend(inactive);
    let mut guests: Vec<Guest> = basic.iter().map(|record| whole(record, &details)).collect();
    let asked = guests.clone();
    let answered = ask(source, patience, move |connection| {
        let mut guests = asked;
        connection.places(&mut guests)?;
        connection.jobs(&mut guests, &Idle::default())?;
        Ok(guests)
    });
    guests = told(answered, "places of vCPUs and jobs are not recorded").unwrap_or(guests);
    if is_local(&source.connection_uri()) {
        StartTimes::new(source.run_directory.clone()).fill(&mut guests);
    }
    let listed = basic.clone();
    let xml = ask(source, STEP_TIME_MAX, move |connection| Ok(descriptions(connection, &listed)));
    let xml = told(xml, "guests' XML is not recorded").unwrap_or_default();
    let pools = ask(source, PATIENCE, |connection| connection.pools());
    let pools = told(pools, "storage pools are not recorded").map(|(pools, _)| pools);
    let pools = pools.unwrap_or_default();
    Ok(Recording::new(now_ms, host, Takes { basic, details, guests, xml, pools }))
}

/// What running guests' monitors say. Those that hang are left out, and where too many do, all.
fn monitors(source: &Source, patience: Duration) -> Vec<Record> {
    for _ in 0..ATTEMPTS {
        match ask(source, patience, |connection| connection.active_records(Collectors::all())) {
            Ok(records) => return records,
            Err(RecordError::Late(_)) => {
                tracing::warn!("a guest's monitor does not answer; asking once more without it");
            }
            Err(error) => {
                tracing::warn!(error = error.to_string(), "what monitors say is not recorded");
                return Vec::new();
            }
        }
    }
    tracing::warn!(guests = ATTEMPTS, "too many guests hang: what monitors say is not recorded");
    Vec::new()
}

fn descriptions(connection: &Connection, guests: &[Record]) -> BTreeMap<String, String> {
    let mut xml = BTreeMap::new();
    for guest in guests {
        match connection.xml(&guest.uuid) {
            Ok(text) => {
                xml.insert(guest.uuid.clone(), text);
            }
            Err(error) => {
                tracing::warn!(domain = guest.name, error = error.to_string(), "XML not read");
            }
        }
    }
    xml
}

/// Asks on a thread of its own, which is left to itself where it does not come back: calls of libvirt cannot be cancelled,
/// and the process ends soon.
fn ask<T: Send + 'static>(
    source: &Source,
    longest: Duration,
    question: impl FnOnce(&mut Connection) -> Result<T, LibvirtError> + Send + 'static,
) -> Result<T, RecordError> {
    let (sender, answer) = sync_channel(1);
    let uri = source.connection_uri();
    let end = Instant::now() + longest;
    std::thread::Builder::new().name("libvirt".to_owned()).spawn(move || {
        let connection = Connection::open(&uri, Arc::<CallCounts>::default());
        sender.send(connection.and_then(|mut connection| question(&mut connection))).ok();
    })?;
    match answer.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(answer) => Ok(answer?),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(RecordError::Late(longest))
        }
    }
}

/// What is there, or a line in the log.
fn told<T>(answer: Result<T, RecordError>, without: &str) -> Option<T> {
    answer.inspect_err(|error| tracing::warn!(error = error.to_string(), "{without}")).ok()
}

/// The guest with all that was read, so that it can be seen whether its monitor answered.
fn whole(record: &Record, details: &[Record]) -> Guest {
    let mut record = record.clone();
    let detail = details.iter().find(|detail| detail.uuid == record.uuid);
    record.params.extend(detail.into_iter().flat_map(|detail| detail.params.iter().cloned()));
    Guest::from(record)
}
