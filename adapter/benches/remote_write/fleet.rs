//! A fleet of guests and its samples, the same in every run: names, labels, values and times.
//! Sixty series a guest, named and labelled as the exporter does. Knows no protocol.

/// Series of one guest.
pub(crate) const SERIES_PER_GUEST: usize = 60;
/// Time between two scrapes of a host, milliseconds.
pub(crate) const INTERVAL_MS: i64 = 15_000;
/// Prometheus moves a scrape's time onto its grid where it is off by no more than this, and keeps
/// it where it is not: a scrape is this much early or late, at most.
const JITTER_MS: i64 = 4;

/// How large the fleet is and how long it is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) hosts: usize,
    pub(crate) guests_per_host: usize,
    pub(crate) scrapes: usize,
}

impl Size {
    pub(crate) fn guests(self) -> usize {
        self.hosts * self.guests_per_host
    }

    pub(crate) fn series(self) -> usize {
        self.guests() * SERIES_PER_GUEST
    }

    pub(crate) fn samples(self) -> usize {
        self.series() * self.scrapes
    }
}

/// How the values of a series move from scrape to scrape.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// Never changes.
    Constant(u64),
    /// Grows in most scrapes, by up to this much.
    Counter(u64),
    /// A counter of an unlikely event: mostly stands still.
    Seldom,
    /// CPU or disk time in seconds, kept by libvirt in nanoseconds; grows by up to this much.
    Nanoseconds(u64),
    /// Wanders between nothing and this, in steps of 4 KiB.
    Memory(u64),
    /// Wanders between 0 and 100, with decimals.
    Percent,
    /// A time that follows the clock, seconds.
    Clock,
}

struct Family {
    name: &'static str,
    course: Course,
    /// Labels beside `domain` and `uuid`; `%` stands for the guest's number.
    labels: &'static [(&'static str, &'static str)],
}

const fn family(
    name: &'static str,
    course: Course,
    labels: &'static [(&'static str, &'static str)],
) -> Family {
    Family { name, course, labels }
}

type Pairs = &'static [(&'static str, &'static str)];
const VCPU_0: Pairs = &[("vcpu", "0")];
const VCPU_1: Pairs = &[("vcpu", "1")];
const VDA: Pairs = &[("target_device", "vda")];
const VDB: Pairs = &[("target_device", "vdb")];
const TAP: Pairs = &[("target_device", "tap%")];

const GIB: u64 = 1 << 30;

/// One guest with two processors, two disks and one interface, in the order of the exporter's page.
#[rustfmt::skip]
const FAMILIES: [Family; SERIES_PER_GUEST] = [
    family("libvirt_domain_timed_out", Course::Constant(0), &[]),
    family("libvirt_domain_start_time_seconds", Course::Constant(1_767_225_492), &[]),
    family("libvirt_domain_info_state", Course::Constant(1), &[("state_desc", "the domain is running")]),
    family("libvirt_domain_info", Course::Constant(1),
        &[("os_type", "hvm"), ("os_type_arch", "x86_64"), ("os_type_machine", "pc-q35-7.2")]),
    family("libvirt_domain_openstack_info", Course::Constant(1),
        &[("instance_name", "web-%"), ("flavor_name", "m1.medium"), ("user_name", "demo-user"), ("project_name", "demo")]),
    family("libvirt_domain_info_cpu_time_seconds_total", Course::Nanoseconds(12_000_000_000), &[]),
    family("libvirt_domain_cpu_user_seconds_total", Course::Nanoseconds(8_000_000_000), &[]),
    family("libvirt_domain_cpu_system_seconds_total", Course::Nanoseconds(3_000_000_000), &[]),
    family("libvirt_domain_info_virtual_cpus", Course::Constant(2), &[]),
    family("libvirt_domain_vcpu_current", Course::Constant(2), &[]),
    family("libvirt_domain_vcpu_maximum", Course::Constant(4), &[]),
    family("libvirt_domain_vcpu_state", Course::Constant(1), VCPU_0),
    family("libvirt_domain_vcpu_state", Course::Constant(1), VCPU_1),
    family("libvirt_domain_vcpu_time_seconds_total", Course::Nanoseconds(6_000_000_000), VCPU_0),
    family("libvirt_domain_vcpu_time_seconds_total", Course::Nanoseconds(6_000_000_000), VCPU_1),
    family("libvirt_domain_vcpu_wait_seconds_total", Course::Seldom, VCPU_0),
    family("libvirt_domain_vcpu_wait_seconds_total", Course::Seldom, VCPU_1),
    family("libvirt_domain_vcpu_delay_seconds_total", Course::Nanoseconds(40_000_000), VCPU_0),
    family("libvirt_domain_vcpu_delay_seconds_total", Course::Nanoseconds(40_000_000), VCPU_1),
    family("libvirt_domain_info_maximum_memory_bytes", Course::Constant(4 * GIB), &[]),
    family("libvirt_domain_info_memory_usage_bytes", Course::Constant(4 * GIB), &[]),
    family("libvirt_domain_memory_stats_maximum_bytes", Course::Constant(4 * GIB), &[]),
    family("libvirt_domain_memory_stats_current_balloon_bytes", Course::Constant(4 * GIB), &[]),
    family("libvirt_domain_memory_stats_unused_bytes", Course::Memory(2 * GIB), &[]),
    family("libvirt_domain_memory_stats_available_bytes", Course::Constant(4_108_509_184), &[]),
    family("libvirt_domain_memory_stats_usable_bytes", Course::Memory(3 * GIB), &[]),
    family("libvirt_domain_memory_stats_disk_caches_bytes", Course::Memory(GIB), &[]),
    family("libvirt_domain_memory_stats_rss_bytes", Course::Memory(4 * GIB), &[]),
    family("libvirt_domain_memory_stats_swap_in_bytes", Course::Seldom, &[]),
    family("libvirt_domain_memory_stats_swap_out_bytes", Course::Seldom, &[]),
    family("libvirt_domain_memory_stats_major_fault_total", Course::Seldom, &[]),
    family("libvirt_domain_memory_stats_minor_fault_total", Course::Counter(9_000), &[]),
    family("libvirt_domain_memory_stats_last_update_timestamp_seconds", Course::Clock, &[]),
    family("libvirt_domain_memory_stats_used_percent", Course::Percent, &[]),
    family("libvirt_domain_block_stats_read_bytes_total", Course::Counter(40_000_000), VDA),
    family("libvirt_domain_block_stats_read_bytes_total", Course::Counter(9_000_000), VDB),
    family("libvirt_domain_block_stats_read_requests_total", Course::Counter(2_000), VDA),
    family("libvirt_domain_block_stats_read_requests_total", Course::Counter(500), VDB),
    family("libvirt_domain_block_stats_read_time_seconds_total", Course::Nanoseconds(900_000_000), VDA),
    family("libvirt_domain_block_stats_read_time_seconds_total", Course::Nanoseconds(300_000_000), VDB),
    family("libvirt_domain_block_stats_write_bytes_total", Course::Counter(90_000_000), VDA),
    family("libvirt_domain_block_stats_write_bytes_total", Course::Counter(20_000_000), VDB),
    family("libvirt_domain_block_stats_write_requests_total", Course::Counter(4_000), VDA),
    family("libvirt_domain_block_stats_write_requests_total", Course::Counter(900), VDB),
    family("libvirt_domain_block_stats_write_time_seconds_total", Course::Nanoseconds(2_000_000_000), VDA),
    family("libvirt_domain_block_stats_write_time_seconds_total", Course::Nanoseconds(700_000_000), VDB),
    family("libvirt_domain_block_stats_flush_requests_total", Course::Counter(60), VDA),
    family("libvirt_domain_block_stats_flush_requests_total", Course::Counter(20), VDB),
    family("libvirt_domain_block_stats_capacity_bytes", Course::Constant(40 * GIB), VDA),
    family("libvirt_domain_block_stats_capacity_bytes", Course::Constant(100 * GIB), VDB),
    family("libvirt_domain_block_stats_allocation_bytes", Course::Memory(30 * GIB), VDA),
    family("libvirt_domain_interface_stats_receive_bytes_total", Course::Counter(30_000_000), TAP),
    family("libvirt_domain_interface_stats_receive_packets_total", Course::Counter(30_000), TAP),
    family("libvirt_domain_interface_stats_receive_errors_total", Course::Seldom, TAP),
    family("libvirt_domain_interface_stats_receive_drops_total", Course::Seldom, TAP),
    family("libvirt_domain_interface_stats_transmit_bytes_total", Course::Counter(60_000_000), TAP),
    family("libvirt_domain_interface_stats_transmit_packets_total", Course::Counter(50_000), TAP),
    family("libvirt_domain_interface_stats_transmit_errors_total", Course::Constant(0), TAP),
    family("libvirt_domain_interface_stats_transmit_drops_total", Course::Seldom, TAP),
    family("libvirt_domain_interface_stats_info", Course::Constant(1),
        &[("target_device", "tap%"), ("interface_type", "bridge"), ("source_bridge", "br-int"), ("model_type", "virtio")]),
];

/// The metric names, each once.
pub(crate) fn metrics() -> Vec<&'static str> {
    let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The label pairs of one series, sorted by name.
pub(crate) fn labels(size: Size, guest: usize, place: usize) -> Vec<(String, String)> {
    let family = &FAMILIES[place];
    let number = guest.to_string();
    let bits = (hash(guest as u64), hash(!(guest as u64)));
    let uuid = format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        bits.0 & 0xffff_ffff,
        bits.0 >> 48,
        bits.1 & 0xfff,
        bits.1 >> 52,
        bits.0.rotate_left(17) & 0xffff_ffff_ffff
    );
    let mut labels = vec![
        ("__name__".to_owned(), family.name.to_owned()),
        ("domain".to_owned(), format!("instance-{guest:08x}")),
        ("instance".to_owned(), format!("node-{:04}:9177", guest / size.guests_per_host)),
        ("job".to_owned(), "libvirt".to_owned()),
        ("uuid".to_owned(), uuid),
    ];
    let own = family.labels.iter();
    labels.extend(own.map(|(name, value)| ((*name).to_owned(), value.replace('%', &number))));
    labels.sort();
    labels
}

/// One sample and its series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// The guest.
    pub(crate) guest: usize,
    /// Which of the guest's series.
    pub(crate) place: usize,
    pub(crate) timestamp_ms: i64,
    pub(crate) value: f64,
}

/// All samples in the order in which Prometheus takes them in: scrape by scrape, host by host, each
/// in the order of the exporter's page, family by family.
pub(crate) fn play(size: Size, start_ms: i64, mut each: impl FnMut(Point)) {
    let mut states = vec![0; size.series()];
    for (number, state) in states.iter_mut().enumerate() {
        *state = begin(FAMILIES[number % SERIES_PER_GUEST].course, hash(number as u64));
    }
    for scrape in 0..size.scrapes {
        for host in 0..size.hosts {
            let timestamp_ms = start_ms + time_of(size, scrape, host);
            for (place, family) in FAMILIES.iter().enumerate() {
                for guest in host * size.guests_per_host..(host + 1) * size.guests_per_host {
                    let number = guest * SERIES_PER_GUEST + place;
                    let random = hash((number as u64) << 32 | scrape as u64);
                    let state = step(family.course, states[number], random);
                    states[number] = state;
                    let value = value(family.course, state, timestamp_ms);
                    each(Point { guest, place, timestamp_ms, value });
                }
            }
        }
    }
}

/// Hosts are scraped at places of their own within the interval, one after another.
fn time_of(size: Size, scrape: usize, host: usize) -> i64 {
    let place = INTERVAL_MS * host as i64 / size.hosts as i64;
    let off = hash((scrape * size.hosts + host) as u64 ^ 0x6a17) % (2 * JITTER_MS as u64 + 1);
    scrape as i64 * INTERVAL_MS + place + off as i64 - JITTER_MS
}

fn begin(course: Course, random: u64) -> u64 {
    match course {
        Course::Constant(value) => value,
        Course::Counter(most) | Course::Nanoseconds(most) => random % (most * 10_000),
        Course::Seldom => random % 40,
        Course::Memory(most) => (random % most) & !0xfff,
        Course::Percent => random % 10_000,
        Course::Clock => 0,
    }
}

fn step(course: Course, state: u64, random: u64) -> u64 {
    // One scrape in eight finds a guest idle.
    let idle = random.is_multiple_of(8);
    match course {
        Course::Counter(most) | Course::Nanoseconds(most) if !idle => state + (random >> 8) % most,
        Course::Counter(_) | Course::Nanoseconds(_) | Course::Constant(_) | Course::Clock => state,
        Course::Seldom => state + u64::from(random.is_multiple_of(200)),
        Course::Memory(most) => ((state + (random >> 8) % (4 << 20)) & !0xfff) % most,
        Course::Percent => (state + 9_900 + (random >> 8) % 201) % 10_000,
    }
}

fn value(course: Course, state: u64, timestamp_ms: i64) -> f64 {
    match course {
        Course::Nanoseconds(_) => state as f64 / 1e9,
        Course::Percent => state as f64 / 100.0,
        Course::Clock => (timestamp_ms / 1_000) as f64,
        _ => state as f64,
    }
}

/// A hash of one number (splitmix64): all that is random here.
pub(crate) fn hash(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
