//! A read-only connection to libvirtd: everything that calls libvirt. Together with libvirt/ the only code that names
//! `virt`. Calls block, and a call that hangs cannot be cancelled, so this is used on threads of its own (worker.rs).

mod particulars;
mod records;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::enumutil::Enum;
use virt::error::ErrorNumber;
use virt::sys;

use crate::selection::{CollectorName, Collectors};
use crate::snapshot::{Calls, Guest, Host};
use crate::stats::Record;

/// Groups that libvirtd answers from what it knows itself: no job on the guest, no monitor. CPU_TOTAL is not among them:
/// for the time spent in halt polling libvirt 9 asks QEMU's monitor, and one hung guest would then take away the answer
/// of all.
const BASIC: u32 = sys::VIR_DOMAIN_STATS_STATE | sys::VIR_DOMAIN_STATS_INTERFACE;
/// Groups that are read beside the guest's monitor, and the collectors that they are read for.
const DETAIL: [(CollectorName, u32); 9] = [
    (CollectorName::Cpu, sys::VIR_DOMAIN_STATS_CPU_TOTAL),
    (CollectorName::Vcpu, sys::VIR_DOMAIN_STATS_VCPU),
    (CollectorName::Memory, sys::VIR_DOMAIN_STATS_BALLOON),
    (CollectorName::Block, sys::VIR_DOMAIN_STATS_BLOCK),
    (CollectorName::Perf, sys::VIR_DOMAIN_STATS_PERF),
    (CollectorName::Monitor, sys::VIR_DOMAIN_STATS_CPU_TOTAL | sys::VIR_DOMAIN_STATS_MEMORY),
    (CollectorName::Iothread, sys::VIR_DOMAIN_STATS_IOTHREAD),
    (CollectorName::Dirtyrate, sys::VIR_DOMAIN_STATS_DIRTYRATE),
    (CollectorName::Kvm, sys::VIR_DOMAIN_STATS_VCPU | sys::VIR_DOMAIN_STATS_VM),
];
/// What is read with any of them: the seconds of allocated vCPUs and memory are counted from these, and whether libvirtd
/// passed a busy guest over shows in its process's memory.
const ALWAYS: u32 = sys::VIR_DOMAIN_STATS_BALLOON | sys::VIR_DOMAIN_STATS_VCPU;
/// The same for guests that do not run: for BLOCK libvirtd would open their image files itself, and dead storage would
/// hang it.
const DETAIL_INACTIVE: u32 = sys::VIR_DOMAIN_STATS_BALLOON | sys::VIR_DOMAIN_STATS_VCPU;

/// Why libvirt gave no answer.
#[derive(Debug, Error)]
#[error("libvirt's {call} failed: {message}")]
pub(crate) struct LibvirtError {
    call: &'static str,
    message: String,
    is_gone: bool,
}

impl LibvirtError {
    /// Whether the guest that was asked for is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }
}

/// The functions of libvirt that are counted.
#[derive(Clone, Copy, Debug)]
enum Call {
    Open,
    Version,
    Node,
    Stats,
    GuestStats,
    List,
    Lookup,
    Xml,
    Job,
    Places,
    Pool,
}

impl Call {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Open, "open"),
        (Self::Version, "version"),
        (Self::Node, "node"),
        (Self::Stats, "stats"),
        (Self::GuestStats, "guest_stats"),
        (Self::List, "list"),
        (Self::Lookup, "lookup"),
        (Self::Xml, "xml"),
        (Self::Job, "job"),
        (Self::Places, "places"),
        (Self::Pool, "pool"),
    ];

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(call, _)| *call as usize == self as usize)
            .map_or("", |(_, name)| name)
    }
}

/// Calls and failures since the process began, shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct CallCounts {
    total: [AtomicU64; Call::ALL.len()],
    errors: [AtomicU64; Call::ALL.len()],
}

impl CallCounts {
    /// The counts of every function, in a fixed order.
    pub(crate) fn read(&self) -> Vec<Calls> {
        let counts = self.total.iter().zip(&self.errors);
        Call::ALL
            .iter()
            .zip(counts)
            .map(|((_, call), (total, errors))| Calls {
                call,
                total: total.load(Ordering::Relaxed),
                errors: errors.load(Ordering::Relaxed),
            })
            .collect()
    }

    fn count<T>(
        &self,
        call: Call,
        result: Result<T, virt::error::Error>,
    ) -> Result<T, LibvirtError> {
        let idx = call as usize;
        self.total.get(idx).map(|count| count.fetch_add(1, Ordering::Relaxed));
        result.map_err(|error| {
            self.errors.get(idx).map(|count| count.fetch_add(1, Ordering::Relaxed));
            let is_gone = error.code() == Enum::Known(ErrorNumber::NoDomain);
            LibvirtError { call: call.name(), message: error.message().to_owned(), is_gone }
        })
    }
}

/// An open connection.
pub(crate) struct Connection {
    connect: Connect,
    counts: Arc<CallCounts>,
    /// Versions, asked once a connection: they change only when libvirtd restarts.
    versions: Host,
    /// Handles of running guests by uuid, for asking about some of them. They name a guest, whichever run of it, and cost
    /// libvirtd nothing.
    handles: HashMap<String, Domain>,
}

impl Connection {
    /// Connects read-only (virConnectOpenReadOnly), so that the exporter can never change a guest.
    pub(crate) fn open(uri: &str, counts: Arc<CallCounts>) -> Result<Self, LibvirtError> {
        // libvirt would print every error to stderr, beside the log; each is returned as well.
        virt::error::clear_error_callback();
        let connect = counts.count(Call::Open, Connect::open_read_only(Some(uri)))?;
        let asked = |result| counts.count(Call::Version, result).ok().map(version);
        let versions = Host {
            hypervisor_running: asked(connect.hyp_version()),
            libvirtd_running: asked(connect.lib_version()),
            libvirt_library: Connect::version().ok().map(version),
            hostname: counts.count(Call::Version, connect.hostname()).ok(),
            ..Host::default()
        };
        Ok(Self { connect, counts, versions, handles: HashMap::new() })
    }

    /// The host as it is now: its processors change while it runs, as some are taken offline. What libvirt does not tell
    /// is left out.
    pub(crate) fn host(&self) -> Host {
        let node = self.counts.count(Call::Node, self.connect.node_info());
        let node = node
            .inspect_err(|error| tracing::warn!(error = error.to_string(), "host's size not known"))
            .ok();
        Host {
            cpus: node.as_ref().map(|node| u64::from(node.cpus)),
            memory_kib: node.as_ref().map(|node| node.memory),
            numa_nodes: node.as_ref().map(|node| u64::from(node.nodes)),
            cpu_model: node.map(|node| node.model).filter(|model| !model.is_empty()),
            cpu_ns: self.node_figures(records::node_cpu),
            memory_by_use_kib: self.memory_by_use(),
            ..self.versions.clone()
        }
    }

    /// Every guest with its state and interfaces.
    pub(crate) fn basic(&self) -> Result<Vec<Guest>, LibvirtError> {
        Ok(guests(self.basic_records()?))
    }

    /// The same as libvirt's own fields.
    pub(crate) fn basic_records(&self) -> Result<Vec<Record>, LibvirtError> {
        self.stats(BASIC, 0, 0)
    }

    /// Whether libvirtd can still be asked by this connection.
    pub(crate) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// What `detail_active` tells, of these guests only (virDomainListGetStats). Those that are gone are passed over.
    pub(crate) fn detail_of(
        &mut self,
        uuids: &[String],
        wanted: Collectors,
    ) -> Result<Vec<Guest>, LibvirtError> {
        if uuids.iter().any(|uuid| !self.handles.contains_key(uuid)) {
            self.list()?;
        }
        let known = uuids.iter().filter_map(|uuid| self.handles.get(uuid));
        let domains: Vec<&Domain> = known.collect();
        let groups = detail_groups(wanted);
        let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
        match self.counts.count(Call::GuestStats, records::of(&domains, groups, flags)) {
            Ok(records) => Ok(guests(records)),
            Err(error) if !self.is_alive() => Err(error),
            Err(error) => {
                tracing::warn!(error = error.to_string(), "asking guest by guest");
                Ok(guests(self.one_by_one(&domains, groups, flags)))
            }
        }
    }

    /// Handles of all running guests, in one call.
    fn list(&mut self) -> Result<(), LibvirtError> {
        let active = sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE;
        let domains = self.counts.count(Call::List, self.connect.list_all_domains(active))?;
        self.handles.clear();
        for domain in domains {
            // A text that libvirt makes from what the handle holds; it does not ask the daemon.
            if let Ok(uuid) = domain.uuid_string() {
                self.handles.insert(uuid, domain);
            }
        }
        Ok(())
    }

    /// Running and paused guests with what these collectors show: processor time, memory, vCPUs, disks. A guest whose monitor
    /// is busy is not waited for: it comes with fewer fields.
    pub(crate) fn detail_active(&self, wanted: Collectors) -> Result<Vec<Guest>, LibvirtError> {
        Ok(guests(self.active_records(wanted)?))
    }

    /// The same as libvirt's own fields.
    pub(crate) fn active_records(&self, wanted: Collectors) -> Result<Vec<Record>, LibvirtError> {
        let active = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE;
        self.stats(detail_groups(wanted), active, sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    }

    /// Guests that do not run, with their configured memory and vCPUs.
    pub(crate) fn detail_inactive(&self) -> Result<Vec<Guest>, LibvirtError> {
        Ok(guests(self.inactive_records()?))
    }

    /// The same as libvirt's own fields.
    pub(crate) fn inactive_records(&self) -> Result<Vec<Record>, LibvirtError> {
        let inactive = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_INACTIVE;
        self.stats(DETAIL_INACTIVE, inactive, sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    }

    /// A guest's XML as it runs; nothing secret is in it, a read-only connection could not ask for that.
    pub(crate) fn xml(&self, uuid: &str) -> Result<String, LibvirtError> {
        let found = self.connect.lookup_domain_by_uuid_string(uuid);
        let domain = self.counts.count(Call::Lookup, found)?;
        self.counts.count(Call::Xml, domain.xml_desc(0))
    }

    /// One bulk call; if libvirtd refuses it as a whole because of one guest, a call a guest, so that only the bad one
    /// is missing.
    fn stats(&self, groups: u32, choice: u32, flags: u32) -> Result<Vec<Record>, LibvirtError> {
        let bulk = records::of_all(&self.connect, groups, choice | flags);
        let error = match self.counts.count(Call::Stats, bulk) {
            Ok(records) => return Ok(records),
            Err(error) => error,
        };
        if !self.is_alive() {
            return Err(error);
        }
        tracing::warn!(error = error.to_string(), "bulk statistics failed, asking guest by guest");
        // The flags that choose active and inactive guests are the same bits here.
        let domains = self.counts.count(Call::List, self.connect.list_all_domains(choice))?;
        Ok(self.one_by_one(&domains.iter().collect::<Vec<_>>(), groups, flags))
    }

    /// A call a guest, without those that fail.
    fn one_by_one(&self, domains: &[&Domain], groups: u32, flags: u32) -> Vec<Record> {
        let mut found = Vec::with_capacity(domains.len());
        for domain in domains {
            let records = records::of(&[domain], groups, flags);
            match self.counts.count(Call::GuestStats, records) {
                Ok(records) => found.extend(records),
                Err(error) => {
                    let name = domain.name().unwrap_or_default();
                    tracing::warn!(domain = name, error = error.to_string(), "guest left out");
                }
            }
        }
        found
    }
}

/// libvirt's groups for these collectors.
fn detail_groups(wanted: Collectors) -> u32 {
    let groups = DETAIL.iter().filter(|(name, _)| wanted.has(*name));
    groups.fold(ALWAYS, |all, (_, groups)| all | groups)
}

fn guests(records: Vec<Record>) -> Vec<Guest> {
    records.into_iter().map(Guest::from).collect()
}

/// The URI to open: a libvirt URI as it is, a socket's path as `driver`'s connection over that socket. A host has one
/// daemon for everything (libvirtd) or one for each driver (virtqemud): where the socket of the one is not there, that of
/// the other is taken. libvirt itself does so with a URI that names no socket.
pub(crate) fn connection_uri(uri: &str, driver: &str, exists: impl Fn(&Path) -> bool) -> String {
    let path = Path::new(uri);
    if !path.is_absolute() {
        return uri.to_owned();
    }
    let qemus = match path.file_name().and_then(|name| name.to_str()) {
        Some("libvirt-sock-ro") => Some("virtqemud-sock-ro"),
        Some("libvirt-sock") => Some("virtqemud-sock"),
        _ => None,
    };
    let other = qemus.filter(|_| driver.starts_with("qemu:")).map(|name| path.with_file_name(name));
    let other = other.filter(|other| !exists(path) && exists(other));
    let path = other.as_deref().and_then(Path::to_str).unwrap_or(uri);
    let mut escaped = String::with_capacity(uri.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.extend(['%', hex(byte >> 4), hex(byte & 0xF)]);
        }
    }
    format!("{driver}?socket={escaped}")
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

/// Whether the URI, or the path of a socket, names this machine's libvirtd, whose processes /proc shows.
pub(crate) fn is_local(uri: &str) -> bool {
    if Path::new(uri).is_absolute() {
        return true;
    }
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    let transport = scheme.split_once('+').map(|(_, transport)| transport);
    matches!(transport, None | Some("unix")) && rest.starts_with('/')
}

/// libvirt packs a version as major * 1,000,000 + minor * 1,000 + release.
fn version(packed: u32) -> String {
    format!("{}.{}.{}", packed / 1_000_000, packed / 1_000 % 1_000, packed % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_becomes_a_uri_and_a_uri_stays() {
        let path = "/run/libvirt/libvirt-sock-ro";
        let opened = |uri: &str| connection_uri(uri, "qemu:///system", |_| true);
        assert_eq!(opened(path), format!("qemu:///system?socket={path}"));
        assert_eq!(opened("/a b&c%"), "qemu:///system?socket=/a%20b%26c%25");
        assert_eq!(opened("qemu+ssh://h/system"), "qemu+ssh://h/system");
        assert_eq!(connection_uri("/x", "xen:///", |_| true), "xen:///?socket=/x");
    }

    #[test]
    fn the_socket_of_a_modular_daemon_is_found() {
        let there = |name: &'static str| move |path: &Path| path == Path::new("/r").join(name);
        let opened = |uri: &str, name| connection_uri(uri, "qemu:///system", there(name));
        let modular = "qemu:///system?socket=/r/virtqemud-sock-ro";
        assert_eq!(opened("/r/libvirt-sock-ro", "virtqemud-sock-ro"), modular);
        let one_for_all = "qemu:///system?socket=/r/libvirt-sock-ro";
        assert_eq!(opened("/r/libvirt-sock-ro", "libvirt-sock-ro"), one_for_all);
        assert_eq!(opened("/r/libvirt-sock-ro", "neither"), one_for_all);
        assert_eq!(opened("/r/other", "virtqemud-sock-ro"), "qemu:///system?socket=/r/other");
        let xen = connection_uri("/r/libvirt-sock-ro", "xen:///", there("virtqemud-sock-ro"));
        assert_eq!(xen, "xen:///?socket=/r/libvirt-sock-ro");
    }

    #[test]
    fn only_this_machine_is_local() {
        for uri in ["qemu:///system", "qemu+unix:///system", "qemu:///system?socket=/x", "/x"] {
            assert!(is_local(uri), "{uri}");
        }
        for uri in ["qemu+ssh://h/system", "qemu://h/system", "qemu+tcp:///system", "qemu"] {
            assert!(!is_local(uri), "{uri}");
        }
    }

    #[test]
    fn packed_versions() {
        assert_eq!(version(9_000_000), "9.0.0");
        assert_eq!(version(7_002_015), "7.2.15");
    }

    #[test]
    fn every_call_has_a_name_of_its_own() {
        for (idx, (call, name)) in Call::ALL.iter().enumerate() {
            assert_eq!(*call as usize, idx);
            assert_eq!(call.name(), *name);
        }
    }
}
