//! What a guest's XML says: plain data, in base units.

use std::net::IpAddr;

/// What a guest's XML says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// `<os><type>`: `hvm`.
    pub os_type: Option<String>,
    /// Architecture: `x86_64`.
    pub os_arch: Option<String>,
    /// Machine type: `pc-q35-7.2`.
    pub os_machine: Option<String>,
    /// Nova's metadata, for guests that nova made.
    pub nova: Option<Nova>,
    /// Disks that have a target device; no device twice.
    pub disks: Vec<Disk>,
    /// Network interfaces that can be named; no name twice.
    pub nics: Vec<Nic>,
    /// Limits and places of its processors.
    pub cpu_tune: CpuTune,
    /// Huge pages behind its memory.
    pub huge_pages: Vec<HugePages>,
    /// Limits of its memory in bytes by libvirt's names (`hard_limit`, `soft_limit`), in order.
    pub memory_limits: Vec<(&'static str, u64)>,
    /// How often the balloon driver is asked, in seconds; `None` where it is not.
    pub stats_period_seconds: Option<u64>,
}

/// Nova's metadata of an instance (`nova:instance`, namespaces 1.0 and 1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nova {
    /// The display name.
    pub instance_name: Option<String>,
    /// The flavor's name.
    pub flavor_name: Option<String>,
    /// The owner's name.
    pub user_name: Option<String>,
    /// The owner's id.
    pub user_id: Option<String>,
    /// The project's name.
    pub project_name: Option<String>,
    /// The project's id.
    pub project_id: Option<String>,
    /// What the guest's root disk was made of.
    pub root: Option<Root>,
    /// Neutron's ports (namespace 1.1).
    pub port_ids: Vec<String>,
    /// Addresses that Neutron gave to the guest's ports (namespace 1.1); not those that a router translates to them.
    pub fixed_addresses: Vec<IpAddr>,
}

/// A `<disk>` element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// `target dev`.
    pub device: String,
    /// `type`: file, block, network.
    pub disk_type: Option<String>,
    /// `target bus`.
    pub target_bus: Option<String>,
    /// `driver name`.
    pub driver_name: Option<String>,
    /// `driver type`: qcow2, raw.
    pub driver_type: Option<String>,
    /// `driver cache`.
    pub driver_cache: Option<String>,
    /// `driver discard`.
    pub driver_discard: Option<String>,
    /// `source file`, else `source dev`, else `source name` (pool and image of a network disk).
    pub source_file: Option<String>,
    /// `source protocol` of a network disk.
    pub source_protocol: Option<String>,
    /// `<serial>`: for Cinder's volumes their id.
    pub serial: Option<String>,
    /// Ceph's pool, of an RBD disk.
    pub pool: Option<String>,
    /// The image in it.
    pub image: Option<String>,
    /// Cinder's volume: the id in the image's name, else the serial where that is a UUID.
    pub volume_id: Option<String>,
    /// Limits of `<iotune>`, by the names of its elements, in order.
    pub limits: Vec<(&'static str, u64)>,
}

/// An `<interface>` element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// `target dev`, else the alias, else the MAC address.
    pub device: String,
    /// `type`: bridge, ethernet, hostdev.
    pub interface_type: Option<String>,
    /// `source bridge`.
    pub source_bridge: Option<String>,
    /// `mac address`.
    pub mac_address: Option<String>,
    /// `model type`.
    pub model_type: Option<String>,
    /// `mtu size`.
    pub mtu_size: Option<String>,
    /// `virtualport interfaceid`, as Open vSwitch wants it.
    pub virtual_interface: Option<String>,
    /// Neutron's port: the one above, else that of nova's ports which the device is named after.
    pub port_id: Option<String>,
    /// Limits of what the guest receives.
    pub receive_limit: Bandwidth,
    /// Limits of what the guest sends.
    pub transmit_limit: Bandwidth,
}

/// What `<bandwidth>` allows in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// On average, in bytes a second.
    pub average_bytes: Option<u64>,
    /// At most, in bytes a second.
    pub peak_bytes: Option<u64>,
    /// How many bytes may go at the peak's speed.
    pub burst_bytes: Option<u64>,
}

/// What nova says of a guest's root disk (`nova:root`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// `type`: image.
    pub kind: Option<String>,
    /// `uuid`: of the image.
    pub uuid: Option<String>,
}

/// `<cputune>`: what the guest's threads may use of the host's processors, and where they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTune {
    /// Weight among all guests.
    pub shares: Option<u64>,
    /// Time within a period that each of a kind of threads may use.
    pub quotas: Vec<Quota>,
    /// Processors on which threads may run.
    pub pins: Vec<Pin>,
}

/// Time that each thread of a kind may run in a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// `vcpu`, `emulator`, `iothread`, or `global` for all together.
    pub threads: &'static str,
    /// The period in microseconds.
    pub period_us: Option<u64>,
    /// Microseconds of it; `None` where there is no limit.
    pub quota_us: Option<u64>,
}

/// Where a thread may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// `vcpu 0`, `emulator`, `iothread 1`.
    pub thread: String,
    /// Processors as libvirt lists them: `0-3,^2`.
    pub cpus: String,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Size in bytes; `None` for the host's default.
    pub bytes: Option<u64>,
    /// The guest's NUMA nodes that they are for; `None` for all.
    pub nodeset: Option<String>,
}
