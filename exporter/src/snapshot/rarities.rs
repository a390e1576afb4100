//! What only some guests and hosts have: hardware counters, monitored caches, jobs, storage pools. Plain data, in libvirt's
//! own units.

/// A hardware counter that `<perf>` switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerfEvent {
    /// libvirt's name, such as `instructions`.
    pub event: String,
    /// Its value; for cmt, mbmt and mbml bytes, else a count (clocks: nanoseconds).
    pub value: u64,
}

/// Bytes of a cache's bank that a monitored group of vCPUs holds (Intel CMT).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheMonitor {
    /// The group's name.
    pub monitor: String,
    /// The bank's number.
    pub bank: u64,
    /// Bytes in it.
    pub bytes: u64,
}

/// Bytes between memory and a NUMA node's cache by a monitored group of vCPUs (Intel MBM).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BandwidthMonitor {
    /// The group's name.
    pub monitor: String,
    /// The node's number.
    pub node: u64,
    /// From and to the node's own memory.
    pub local_bytes: Option<u64>,
    /// From and to any memory.
    pub total_bytes: Option<u64>,
}

/// A thread for input and output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Iothread {
    /// libvirt's number, from 1.
    pub number: u32,
    /// Longest time it polls, in nanoseconds.
    pub poll_max_ns: Option<u64>,
    /// By which factor the time grows.
    pub poll_grow: Option<u64>,
    /// By which it shrinks.
    pub poll_shrink: Option<u64>,
}

/// The last measurement of how fast a guest writes to its memory (virDomainStartDirtyRateCalc, which we never call).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtyRate {
    /// When it began, in seconds since 1970.
    pub start_seconds: Option<u64>,
    /// How long it took, in seconds.
    pub period_seconds: Option<u64>,
    /// MiB a second of the whole guest.
    pub mib_per_second: Option<u64>,
    /// MiB a second of each vCPU, by number.
    pub vcpus: Vec<(u64, u64)>,
}

/// A counter of KVM, of the guest or of one vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmStat {
    /// The vCPU; `None` for the guest's own.
    pub vcpu: Option<u32>,
    /// The kernel's name, such as `exits`.
    pub stat: String,
    /// What grows.
    pub sum: Option<u64>,
    /// What goes up and down.
    pub current: Option<u64>,
    /// The greatest value so far.
    pub peak: Option<u64>,
}

/// A guest's job, such as a migration (virDomainGetJobStats). Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// virDomainJobType: 0 none, 1 bounded, 2 unbounded; no job has nothing else.
    pub kind: u64,
    /// libvirt's fields, by its names.
    pub fields: Vec<(String, u64)>,
}

impl Job {
    /// A field by libvirt's name.
    pub fn field(&self, name: &str) -> Option<u64> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value)
    }
}

/// A storage pool, as libvirt last looked at it: it is not refreshed, which would need write access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// libvirt's name.
    pub name: String,
    /// virStoragePoolState: 0 inactive, 1 building, 2 running, 3 degraded, 4 inaccessible. `None` where libvirt did not tell
    /// in time how the pool is, and nothing but its name is known.
    pub state: Option<u64>,
    /// Size in bytes.
    pub capacity_bytes: Option<u64>,
    /// Bytes taken.
    pub allocation_bytes: Option<u64>,
    /// Bytes left.
    pub available_bytes: Option<u64>,
}

/// What the exporter counted of a guest since it first saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// When it began to count, in seconds since 1970.
    pub since_seconds: f64,
    /// Milliseconds in each state (virDomainState), by its number.
    pub state_ms: Vec<(u64, u128)>,
    /// Virtual CPUs times milliseconds.
    pub vcpu_ms: u128,
    /// Bytes times milliseconds.
    pub memory_byte_ms: u128,
}
