//! What a scrape of a host's guests costs: the exporter's own processor time and memory, libvirtd's beside what
//! `virsh domstats` of the same groups costs it, and how long it takes, with a tenth of the guests and with all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    dead_code,
    reason = "a measurement that cannot go on should stop at once and say where; parts of the tests are shared"
)]

#[path = "../tests/it/exporter_process.rs"]
mod exporter_process;
#[path = "../tests/it/libvirtd.rs"]
mod libvirtd;
#[path = "../tests/it/text.rs"]
mod text;

use std::fs;
use std::time::{Duration, Instant};

use exporter_process::Exporter;
use libvirtd::{Libvirtd, wait_for};
use text::value;

/// What the exporter asks for, in virsh's words.
const GROUPS: [&str; 10] = [
    "domstats",
    "--raw",
    "--nowait",
    "--state",
    "--cpu-total",
    "--balloon",
    "--vcpu",
    "--interface",
    "--block",
    "--perf",
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |flag: &str| -> Option<u32> {
        let idx = args.iter().position(|arg| arg == flag)?;
        Some(args.get(idx + 1).expect("a number after the flag").parse().unwrap())
    };
    let quick = args.iter().any(|arg| arg == "--quick");
    let guests = number("--guests").unwrap_or(if quick { 10 } else { 100 });
    let scrapes = number("--scrapes").unwrap_or(if quick { 3 } else { 30 });
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let libvirtd = Libvirtd::start();
    eprintln!("starting {guests} guests, some 50 MiB each");
    println!(
        "| guests | exporter CPU, ms a scrape | µs a guest | memory, MiB | page in ms: median, longest | \
         libvirtd CPU, ms | virsh in ms | libvirtd CPU for virsh, ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut started = 0;
    for count in [guests / 10, guests] {
        while started < count {
            started += 1;
            libvirtd.guest(started, &["--paused"]);
        }
        println!("{}", measure(&libvirtd, count, scrapes).row(count));
    }
}

/// The figures of one size, of all scrapes together.
struct Measured {
    exporter: Duration,
    libvirtd: Duration,
    libvirtd_for_virsh: Duration,
    pages: Vec<Duration>,
    virsh: Vec<Duration>,
    scrapes: u32,
    peak_kib: f64,
}

/// Scrapes and calls of virsh by turns, so that the machine's other work hits both.
fn measure(libvirtd: &Libvirtd, count: u32, scrapes: u32) -> Measured {
    let exporter = Exporter::start(libvirtd);
    wait_for("all guests", 120, || {
        let page = exporter.scrape(10);
        let fresh = page.iter().filter(|(series, value)| {
            series.starts_with("libvirt_domain_timed_out{") && **value < 0.5
        });
        let all = fresh.count() == usize::try_from(count).unwrap();
        (all && value(&page, "libvirt_domains", &[]) == Some(f64::from(count))).then_some(())
    });
    let daemon = fs::read_to_string(libvirtd.folder.path().join("libvirtd.pid")).unwrap();
    let (daemon, own) = (daemon.trim().parse().unwrap(), exporter.pid());
    let mut measured = Measured {
        exporter: Duration::ZERO,
        libvirtd: Duration::ZERO,
        libvirtd_for_virsh: Duration::ZERO,
        pages: Vec::new(),
        virsh: Vec::new(),
        scrapes,
        peak_kib: 0.0,
    };
    for _ in 0..scrapes {
        let (own_before, daemon_before) = (cpu(own), cpu(daemon));
        let began = Instant::now();
        exporter.get("/metrics", "Accept-Encoding: gzip\r\n");
        measured.pages.push(began.elapsed());
        let daemon_between = cpu(daemon);
        measured.exporter += cpu(own).saturating_sub(own_before);
        measured.libvirtd += daemon_between.saturating_sub(daemon_before);
        let began = Instant::now();
        libvirtd.virsh(&GROUPS).unwrap();
        measured.virsh.push(began.elapsed());
        measured.libvirtd_for_virsh += cpu(daemon).saturating_sub(daemon_between);
    }
    measured.peak_kib = peak_kib(own);
    measured
}

impl Measured {
    fn row(mut self, count: u32) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let each = |time: Duration| milliseconds(time / self.scrapes);
        self.pages.sort_unstable();
        self.virsh.sort_unstable();
        let middle = |times: &[Duration]| milliseconds(times[times.len() / 2]);
        format!(
            "| {count} | {:.1} | {:.0} | {:.1} | {:.0}, {:.0} | {:.1} | {:.0} | {:.1} |",
            each(self.exporter),
            each(self.exporter) * 1e3 / f64::from(count),
            self.peak_kib / 1024.0,
            middle(&self.pages),
            milliseconds(*self.pages.last().unwrap()),
            each(self.libvirtd),
            middle(&self.virsh),
            each(self.libvirtd_for_virsh),
        )
    }
}

/// Processor time of all threads of a process that live, to the nanosecond.
fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let times = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    });
    times.sum()
}

/// The most memory that a process ever held.
fn peak_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
