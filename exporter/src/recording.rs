//! A recorded hypervisor: what libvirt's calls returned at one moment, as one JSON document that people can read and
//! edit. Read back, it goes through the same decoding as libvirt's answers do. Knows no libvirt.

mod anonymise;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::snapshot::{Guest, Host, Job, Pool, Snapshot};
use crate::stats::{self, Param, Record};
use crate::{tally, xml};

/// The format that this program writes; it reads no other.
const FORMAT: u32 = 1;
/// Longest file that is read: hundreds of guests with hundreds of disks stay well below.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why there is no recording.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("the recording {0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// It is longer than 256 MiB.
    #[error("the recording {0} is longer than {FILE_BYTES_MAX} bytes")]
    TooLong(String),
    /// It is no JSON, or lacks what a recording has.
    #[error("{0} is not a recording: {1}")]
    Malformed(String, serde_json::Error),
    /// It is of another format.
    #[error(
        "{0} is a recording of format {1}, and this program reads format {FORMAT}: record it anew"
    )]
    Format(String, u32),
}

/// What libvirt's calls returned at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The format, under a name that says what the file is.
    #[serde(rename = "kanyun_recording")]
    format: u32,
    /// When it was made, in milliseconds since 1970.
    recorded_at_ms: u64,
    host: RecordedHost,
    guests: Vec<RecordedGuest>,
    #[serde(default)]
    pools: Vec<RecordedPool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RecordedHost {
    hypervisor_running: Option<String>,
    libvirtd_running: Option<String>,
    libvirt_library: Option<String>,
    hostname: Option<String>,
    cpu_model: Option<String>,
    cpus: Option<u64>,
    numa_nodes: Option<u64>,
    memory_kib: Option<u64>,
    cpu_ns: BTreeMap<String, u64>,
    memory_by_use_kib: BTreeMap<String, u64>,
}

/// Fields of libvirt's by their names.
type Fields = BTreeMap<String, Param>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RecordedGuest {
    name: String,
    uuid: String,
    id: Option<u32>,
    start_time_seconds: Option<f64>,
    /// What libvirtd knows by itself.
    basic: Fields,
    /// What its monitor said; `None` where it did not answer.
    detail: Option<Fields>,
    /// The job's type as `type`, and its fields.
    job: Option<BTreeMap<String, u64>>,
    /// The host's processor of each vCPU.
    places: BTreeMap<u32, u64>,
    xml: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedPool {
    name: String,
    state: Option<u64>,
    capacity_bytes: Option<u64>,
    allocation_bytes: Option<u64>,
    available_bytes: Option<u64>,
}

/// What a recording is made of, beside the host.
#[derive(Debug, Default)]
pub(crate) struct Takes {
    /// What libvirtd knows of every guest by itself.
    pub(crate) basic: Vec<Record>,
    /// What monitors said.
    pub(crate) details: Vec<Record>,
    /// The same guests with start times, jobs and the places of their vCPUs.
    pub(crate) guests: Vec<Guest>,
    /// Guests' XML, by uuid.
    pub(crate) xml: BTreeMap<String, String>,
    /// Storage pools.
    pub(crate) pools: Vec<Pool>,
}

impl Recording {
    /// Puts together what was read at `recorded_at_ms`.
    pub(crate) fn new(recorded_at_ms: u64, host: Host, takes: Takes) -> Self {
        let mut details: BTreeMap<String, Fields> = takes
            .details
            .into_iter()
            .map(|record| (record.uuid, record.params.into_iter().collect()))
            .collect();
        let mut xml = takes.xml;
        let guests = takes.basic.into_iter().map(|record| {
            let guest = takes.guests.iter().find(|guest| guest.uuid == record.uuid);
            let job = guest.and_then(|guest| guest.job.as_ref()).map(recorded_job);
            let vcpus = guest.into_iter().flat_map(|guest| &guest.vcpus.each);
            RecordedGuest {
                id: record.id,
                start_time_seconds: guest.and_then(|guest| guest.start_time_seconds),
                detail: details.remove(&record.uuid),
                job,
                places: vcpus.filter_map(|vcpu| Some((vcpu.number, vcpu.host_cpu?))).collect(),
                xml: xml.remove(&record.uuid),
                basic: record.params.into_iter().collect(),
                name: record.name,
                uuid: record.uuid,
            }
        });
        let mut guests: Vec<RecordedGuest> = guests.collect();
        guests.sort_by(|one, other| one.name.cmp(&other.name));
        let pools = takes.pools.into_iter().map(RecordedPool::from).collect();
        Self { format: FORMAT, recorded_at_ms, host: host.into(), guests, pools }
    }

    /// Reads a recording.
    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let name = path.display().to_string();
        let length = std::fs::metadata(path).map(|file| file.len());
        match length {
            Ok(length) if length > FILE_BYTES_MAX => return Err(RecordingError::TooLong(name)),
            Ok(_) => {}
            Err(error) => return Err(RecordingError::File(name, error)),
        }
        let text =
            std::fs::read(path).map_err(|error| RecordingError::File(name.clone(), error))?;
        let found: Self = serde_json::from_slice(&text)
            .map_err(|error| RecordingError::Malformed(name.clone(), error))?;
        if found.format == FORMAT {
            return Ok(found);
        }
        Err(RecordingError::Format(name, found.format))
    }

    /// The document.
    pub(crate) fn text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The same without anything that says whose it is: names, ids, addresses and paths become others, each everywhere the
    /// same, and figures stay.
    #[must_use]
    pub(crate) fn anonymised(self) -> Self {
        anonymise::Pseudonyms::default().recording(self)
    }

    /// When it was made, in milliseconds since 1970.
    pub(crate) fn recorded_at_ms(&self) -> i64 {
        i64::try_from(self.recorded_at_ms).unwrap_or(i64::MAX)
    }

    /// What a collection of that moment found.
    pub fn snapshot(&self) -> Snapshot {
        let mut guests: Vec<Guest> = self.guests.iter().map(RecordedGuest::guest).collect();
        tally::ages(self.recorded_at_ms, &mut guests);
        Snapshot {
            up: true,
            domains: u64::try_from(guests.len()).ok(),
            host: Some(self.host.clone().into()),
            guests: Some(guests),
            pools: Some(self.pools.iter().map(Pool::from).collect()),
            ..Snapshot::default()
        }
    }
}

impl RecordedGuest {
    fn guest(&self) -> Guest {
        let fields = |fields: &Fields| -> Vec<(String, Param)> {
            fields.iter().map(|(field, value)| (field.clone(), value.clone())).collect()
        };
        let mut params = fields(&self.basic);
        params.extend(self.detail.iter().flat_map(fields));
        let (name, uuid) = (self.name.clone(), self.uuid.clone());
        let mut guest = Guest::from(Record { name, uuid, id: self.id, params });
        guest.timed_out = guest.is_active() && (self.detail.is_none() || stats::is_busy(&guest));
        guest.age_seconds = (!guest.timed_out).then_some(0.0);
        guest.start_time_seconds = self.start_time_seconds;
        guest.job = self.job.as_ref().map(job);
        for vcpu in &mut guest.vcpus.each {
            vcpu.host_cpu = self.places.get(&vcpu.number).copied();
        }
        guest.description = self.xml.as_ref().and_then(|text| match xml::description(text) {
            Ok(description) => Some(Arc::new(description)),
            Err(error) => {
                tracing::warn!(domain = self.name, error = error.to_string(), "XML cannot be used");
                None
            }
        });
        guest
    }
}

fn recorded_job(job: &Job) -> BTreeMap<String, u64> {
    let kind = std::iter::once(("type".to_owned(), job.kind));
    kind.chain(job.fields.iter().cloned()).collect()
}

fn job(recorded: &BTreeMap<String, u64>) -> Job {
    let fields = recorded.iter().filter(|(field, _)| *field != "type");
    Job {
        kind: recorded.get("type").copied().unwrap_or(0),
        fields: fields.map(|(field, value)| (field.clone(), *value)).collect(),
    }
}

impl From<Host> for RecordedHost {
    fn from(host: Host) -> Self {
        Self {
            hypervisor_running: host.hypervisor_running,
            libvirtd_running: host.libvirtd_running,
            libvirt_library: host.libvirt_library,
            hostname: host.hostname,
            cpu_model: host.cpu_model,
            cpus: host.cpus,
            numa_nodes: host.numa_nodes,
            memory_kib: host.memory_kib,
            cpu_ns: host.cpu_ns.into_iter().collect(),
            memory_by_use_kib: host.memory_by_use_kib.into_iter().collect(),
        }
    }
}

impl From<RecordedHost> for Host {
    fn from(host: RecordedHost) -> Self {
        Self {
            hypervisor_running: host.hypervisor_running,
            libvirtd_running: host.libvirtd_running,
            libvirt_library: host.libvirt_library,
            hostname: host.hostname,
            cpu_model: host.cpu_model,
            cpus: host.cpus,
            numa_nodes: host.numa_nodes,
            memory_kib: host.memory_kib,
            cpu_ns: host.cpu_ns.into_iter().collect(),
            memory_by_use_kib: host.memory_by_use_kib.into_iter().collect(),
        }
    }
}

impl From<Pool> for RecordedPool {
    fn from(pool: Pool) -> Self {
        let Pool { name, state, capacity_bytes, allocation_bytes, available_bytes } = pool;
        Self { name, state, capacity_bytes, allocation_bytes, available_bytes }
    }
}

impl From<&RecordedPool> for Pool {
    fn from(pool: &RecordedPool) -> Self {
        Self {
            name: pool.name.clone(),
            state: pool.state,
            capacity_bytes: pool.capacity_bytes,
            allocation_bytes: pool.allocation_bytes,
            available_bytes: pool.available_bytes,
        }
    }
}

#[cfg(test)]
mod tests;
