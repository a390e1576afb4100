//! What one collection found out about a host and its guests: plain data, in libvirt's own units (nanoseconds, KiB,
//! bytes). A field that libvirt did not report is `None` and never becomes a series. Knows neither libvirt nor Prometheus.

mod description;
mod rarities;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use description::{
    Bandwidth, CpuTune, Description, Disk, HugePages, Nic, Nova, Pin, Quota, Root,
};
pub use rarities::{
    Allocation, BandwidthMonitor, CacheMonitor, DirtyRate, Iothread, Job, KvmStat, PerfEvent, Pool,
};

/// One collection, ready to be written as a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Whether libvirtd answered; one guest's trouble never changes it.
    pub up: bool,
    /// Versions and size of the host, once a connection was made.
    pub host: Option<Host>,
    /// How many guests libvirtd knows, whichever of them are looked at.
    pub domains: Option<u64>,
    /// Every guest that libvirtd knows, running or not, and that is looked at; `None` where it did not answer and none was ever seen.
    pub guests: Option<Vec<Guest>>,
    /// Storage pools; `None` where they were not asked for, or could not be read.
    pub pools: Option<Vec<Pool>>,
    /// What the host's accounting rules counted; `None` where that is not asked for, or could not be read.
    pub traffic: Option<Traffic>,
    /// How the collection itself went.
    pub scrape: Scrape,
}

/// External traffic of guests, as accounting rules of the host's firewall counted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By guest, address and direction; none twice.
    pub flows: Vec<Flow>,
    /// Rules that say they account, but not for whom or which way.
    pub unclear_rules: u64,
}

/// Traffic of one address of a guest in one direction, since the rules that count it were made or zeroed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The guest as the rules name it: libvirt's name or uuid; nova's decimal id as `instance-%08x`.
    pub guest: String,
    /// The guest's address.
    pub ip: IpAddr,
    /// Which way.
    pub direction: Direction,
    /// Bytes of IP packets, headers included.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Rules that these figures are made of.
    pub rules: u64,
}

/// Which way a packet goes, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the outside to the guest.
    In,
    /// From the guest to the outside: what Kanyun billed.
    Out,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::In, Direction::Out];

    /// As labels and flags spell it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// The host: versions as libvirt's own tools print them (`9.0.0`), and what it can give to guests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The hypervisor that runs the guests (QEMU), by virConnectGetVersion.
    pub hypervisor_running: Option<String>,
    /// The daemon that answered, by virConnectGetLibVersion.
    pub libvirtd_running: Option<String>,
    /// The client library in this process, by virGetVersion.
    pub libvirt_library: Option<String>,
    /// Processors that are online, by virNodeGetInfo.
    pub cpus: Option<u64>,
    /// Memory of the machine in KiB, by virNodeGetInfo.
    pub memory_kib: Option<u64>,
    /// The machine's name, by virConnectGetHostname.
    pub hostname: Option<String>,
    /// The processors' model, by virNodeGetInfo.
    pub cpu_model: Option<String>,
    /// NUMA nodes, by virNodeGetInfo.
    pub numa_nodes: Option<u64>,
    /// Processor time of the whole machine by mode (user, kernel, idle, iowait), in nanoseconds, by virNodeGetCPUStats.
    pub cpu_ns: Vec<(String, u64)>,
    /// Memory by use (free, buffers, cached) in KiB, by virNodeGetMemoryStats.
    pub memory_by_use_kib: Vec<(String, u64)>,
}

impl Host {
    /// The versions, without what changes while the host runs.
    #[must_use]
    pub fn versions(&self) -> Self {
        Self {
            hypervisor_running: self.hypervisor_running.clone(),
            libvirtd_running: self.libvirtd_running.clone(),
            libvirt_library: self.libvirt_library.clone(),
            ..Self::default()
        }
    }
}

/// One guest. `name` and `uuid` never change in its life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guest {
    /// libvirt's name, for nova's guests `instance-0000abcd`.
    pub name: String,
    /// libvirt's UUID, for nova's guests also the instance's id.
    pub uuid: String,
    /// libvirt's number of this run of the guest; `None` while it is shut off.
    pub id: Option<u32>,
    /// The guest runs, but its monitor's figures did not come within this scrape. What is there of them is of an earlier one.
    pub timed_out: bool,
    /// How old the oldest of its figures are, in seconds: 0 where all are of this scrape, `None` where those of its
    /// monitor are missing.
    pub age_seconds: Option<f64>,
    /// virDomainState as a number.
    pub state: Option<u64>,
    /// Why it is in this state, as a number of the state's own (virDomainRunningReason and so on).
    pub state_reason: Option<u64>,
    /// Processor time of the whole guest.
    pub cpu: Cpu,
    /// Virtual processors.
    pub vcpus: Vcpus,
    /// Memory as host and balloon driver see it.
    pub memory: Memory,
    /// Disks, by number.
    pub blocks: Vec<Block>,
    /// Network interfaces, by number.
    pub interfaces: Vec<Interface>,
    /// Hardware counters, by name.
    pub perf: Vec<PerfEvent>,
    /// Cache that is monitored.
    pub cache_monitors: Vec<CacheMonitor>,
    /// Memory bandwidth that is monitored.
    pub bandwidth_monitors: Vec<BandwidthMonitor>,
    /// Threads for input and output.
    pub iothreads: Vec<Iothread>,
    /// How fast it writes to its memory, where that was measured.
    pub dirty_rate: DirtyRate,
    /// KVM's own counters, of the guest and of its vCPUs.
    pub kvm: Vec<KvmStat>,
    /// Its job; `None` where it was not asked for.
    pub job: Option<Job>,
    /// What the exporter counted of its allocation.
    pub allocation: Option<Allocation>,
    /// What the guest's XML says, once it was read.
    pub description: Option<Arc<Description>>,
    /// When the guest's process started, in seconds since 1970: the epoch of its counters.
    pub start_time_seconds: Option<f64>,
}

impl Guest {
    /// Whether a hypervisor process runs it (running or paused).
    pub fn is_active(&self) -> bool {
        self.id.is_some()
    }

    /// The same guest with what identifies it and nothing that was measured.
    #[must_use]
    pub fn identity(&self) -> Self {
        Self {
            name: self.name.clone(),
            uuid: self.uuid.clone(),
            id: self.id,
            timed_out: true,
            description: self.description.clone(),
            start_time_seconds: self.start_time_seconds,
            ..Self::default()
        }
    }
}

/// Processor time of a guest, in nanoseconds since its process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// User and system together.
    pub time_ns: Option<u64>,
    /// Of it in user mode.
    pub user_ns: Option<u64>,
    /// Of it in the kernel.
    pub system_ns: Option<u64>,
    /// Time that KVM polled for a halted vCPU and was woken while it did.
    pub haltpoll_success_ns: Option<u64>,
    /// Time that KVM polled for a halted vCPU in vain.
    pub haltpoll_fail_ns: Option<u64>,
}

/// Virtual processors of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vcpus {
    /// How many are plugged in.
    pub current: Option<u64>,
    /// How many could be.
    pub maximum: Option<u64>,
    /// Each of them; their numbers may have holes after one was unplugged.
    pub each: Vec<Vcpu>,
}

/// One virtual processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vcpu {
    /// libvirt's number, from 0.
    pub number: u32,
    /// virVcpuState: 0 offline, 1 running, 2 blocked.
    pub state: Option<u64>,
    /// Time it ran, in nanoseconds.
    pub time_ns: Option<u64>,
    /// Time it wanted to run but waited for I/O, in nanoseconds.
    pub wait_ns: Option<u64>,
    /// Time it waited in the host's run queue, in nanoseconds: what the guest sees as steal.
    pub delay_ns: Option<u64>,
    /// Whether it is halted, 0 or 1.
    pub halted: Option<u64>,
    /// The host's processor that it ran on last.
    pub host_cpu: Option<u64>,
}

/// Memory of a guest, in KiB where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the guest is given now (the balloon's size).
    pub current_kib: Option<u64>,
    /// What it may be given at most.
    pub maximum_kib: Option<u64>,
    /// Read from swap by the guest since it started.
    pub swap_in_kib: Option<u64>,
    /// Written to swap by the guest since it started.
    pub swap_out_kib: Option<u64>,
    /// Page faults that needed a disk (a number).
    pub major_fault: Option<u64>,
    /// Page faults that did not (a number).
    pub minor_fault: Option<u64>,
    /// The guest's MemFree.
    pub unused_kib: Option<u64>,
    /// The guest's MemTotal.
    pub available_kib: Option<u64>,
    /// The guest's MemAvailable.
    pub usable_kib: Option<u64>,
    /// When the balloon driver last reported, in seconds since 1970; `None` where it never did.
    pub last_update_seconds: Option<u64>,
    /// How long before this scrape that was, in milliseconds.
    pub age_ms: Option<u64>,
    /// The guest's page cache.
    pub disk_caches_kib: Option<u64>,
    /// Huge pages allocated in the guest (a number).
    pub hugetlb_pgalloc: Option<u64>,
    /// Huge pages that could not be allocated (a number).
    pub hugetlb_pgfail: Option<u64>,
    /// Resident memory of the guest's process on the host.
    pub rss_kib: Option<u64>,
}

/// One disk of a guest; counters since its process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Target device, such as `vda`.
    pub device: String,
    /// Read requests.
    pub read_requests: Option<u64>,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Time spent on reads, in nanoseconds.
    pub read_time_ns: Option<u64>,
    /// Write requests.
    pub write_requests: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Time spent on writes, in nanoseconds.
    pub write_time_ns: Option<u64>,
    /// Flush requests.
    pub flush_requests: Option<u64>,
    /// Time spent on flushes, in nanoseconds.
    pub flush_time_ns: Option<u64>,
    /// Logical size in bytes.
    pub capacity_bytes: Option<u64>,
    /// Bytes that the image takes on the host's storage.
    pub allocation_bytes: Option<u64>,
    /// Size of the image's file or device in bytes.
    pub physical_bytes: Option<u64>,
    /// Requests that failed.
    pub errors: Option<u64>,
    /// Bytes written after which libvirt tells whoever set this.
    pub threshold_bytes: Option<u64>,
}

/// One network interface of a guest, seen from the guest; counters since it was plugged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The host's device, such as `tap0a1b2c3d-4e`.
    pub device: String,
    /// Bytes that the guest received.
    pub receive_bytes: Option<u64>,
    /// Packets that the guest received.
    pub receive_packets: Option<u64>,
    /// Receive errors.
    pub receive_errors: Option<u64>,
    /// Received packets dropped.
    pub receive_drops: Option<u64>,
    /// Bytes that the guest sent.
    pub transmit_bytes: Option<u64>,
    /// Packets that the guest sent.
    pub transmit_packets: Option<u64>,
    /// Send errors.
    pub transmit_errors: Option<u64>,
    /// Sent packets dropped.
    pub transmit_drops: Option<u64>,
}

/// How a collection went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    /// From the request to the last figure, in seconds.
    pub duration_seconds: f64,
    /// The steps that were begun, in order.
    pub steps: Vec<Step>,
    /// Calls of libvirt since the start of the process.
    pub calls: Vec<Calls>,
    /// Threads given up in a call of libvirt that have not come back yet.
    pub given_up_threads: u64,
    /// Threads ever given up.
    pub given_up_threads_total: u64,
}

/// One step of a collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What it reads.
    pub collector: &'static str,
    /// Whether it came to its end without an error.
    pub success: bool,
    /// How long it took, in seconds.
    pub duration_seconds: f64,
}

/// Calls of one libvirt function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// What is called.
    pub call: &'static str,
    /// How often it was.
    pub total: u64,
    /// How often it failed.
    pub errors: u64,
}

/// Guests by uuid, each with libvirt's number of the run that had no job.
pub(crate) type Idle = HashMap<String, Option<u32>>;
