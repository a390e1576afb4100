//! Guests that migrate or are dumped, a libvirtd that hangs or restarts in mid-scrape: every scrape is answered in time,
//! says what is missing or old, and has no wrong value.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, Libvirtd, wait_for};
use crate::text::{Samples, samples, value};

/// Prometheus' timeout in these scrapes: the machine may be busy with others.
const TIMEOUT_SECONDS: u32 = 8;
/// Written bytes of a guest, which stand still while it is idle.
const WRITTEN: &str = "libvirt_domain_block_stats_write_bytes_total";
const AGE: &str = "libvirt_domain_figures_age_seconds";
const FLAG: &str = "libvirt_domain_timed_out";

#[test]
fn guests_and_daemons_in_trouble() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let mut libvirtd = Libvirtd::start();
    let exporter = Exporter::start(&libvirtd);
    let guests = [61, 62].map(|number| libvirtd.busy_guest(number));
    let written = guests.each_ref().map(|guest| {
        wait_for("a guest's figures", 60, || of(&exporter.scrape(TIMEOUT_SECONDS), WRITTEN, guest))
    });
    let idle = [(guests[0].as_str(), written[0]), (guests[1].as_str(), written[1])];

    a_guest_that_migrates(&libvirtd, &exporter, idle);
    a_guest_that_is_dumped(&libvirtd, &exporter, idle);
    a_libvirtd_that_hangs(&libvirtd, &exporter, idle);
    a_libvirtd_that_restarts(&mut libvirtd, &exporter, idle);
}

fn of(page: &Samples, name: &str, guest: &str) -> Option<f64> {
    value(page, name, &[&format!("domain=\"{guest}\"")])
}

/// Asks for pages while a guest has a job: its neighbour must not suffer, and its own figures are right or missing, and
/// old ones are flagged.
fn while_it_is_busy(exporter: &Exporter, [busy, other]: [(&str, f64); 2]) {
    for _ in 0..5 {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0));
        assert_eq!((of(&page, FLAG, other.0), of(&page, AGE, other.0)), (Some(0.0), Some(0.0)));
        assert_eq!(of(&page, WRITTEN, other.0), Some(other.1));
        let flagged = of(&page, FLAG, busy.0) == Some(1.0);
        assert_eq!(flagged, of(&page, AGE, busy.0) != Some(0.0), "old figures are flagged");
        assert_eq!(of(&page, WRITTEN, busy.0), Some(busy.1), "and right, as the guest is idle");
    }
}

/// A running virsh, ended by process id if it has not ended by then.
struct Virsh(Child);

impl Virsh {
    fn start(libvirtd: &Libvirtd, args: &[&str]) -> Self {
        let mut command = Command::new("virsh");
        command.args(["-q", "-c", &libvirtd.uri()]).args(args);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Waits until the guest has a job of this kind under way.
    fn job(&mut self, libvirtd: &Libvirtd, guest: &str, operation: &str) {
        wait_for(operation, 120, || {
            assert!(self.0.try_wait().unwrap().is_none(), "virsh ended before its time");
            let info = libvirtd.virsh(&["domjobinfo", guest])?;
            let under_way = info.contains("Unbounded") || info.contains("Bounded");
            (under_way && info.contains(operation)).then_some(())
        });
    }
}

impl Drop for Virsh {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A live migration to another daemon at 1 MiB a second, which would take a minute, and is called off.
fn a_guest_that_migrates(libvirtd: &Libvirtd, exporter: &Exporter, idle: [(&str, f64); 2]) {
    let target = Libvirtd::start();
    let there = Exporter::start(&target);
    let socket = format!("unix://{}", target.folder.path().join("migration.sock").display());
    let uri = target.uri();
    let guest = idle[0].0;
    let flags =
        ["migrate", "--live", "--unsafe", "--bandwidth", "1", guest, "--migrateuri", &socket];
    let mut migration = Virsh::start(libvirtd, &[&flags[..], &["--desturi", &uri]].concat());
    migration.job(libvirtd, guest, "Outgoing migration");
    while_it_is_busy(exporter, idle);
    // Where it comes in it has no counters yet, and its monitor is not asked.
    wait_for("the incoming guest", 60, || of(&there.scrape(TIMEOUT_SECONDS), FLAG, guest));
    migration.job(libvirtd, guest, "Outgoing migration");
    libvirtd.virsh(&["domjobabort", guest]).unwrap();
    assert!(!migration.0.wait().unwrap().success());
    wait_for("the guest's return", 60, || {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        (of(&page, FLAG, guest) == Some(0.0)).then_some(())
    });
    wait_for("its end elsewhere", 60, || {
        let page = there.scrape(TIMEOUT_SECONDS);
        of(&page, FLAG, guest).is_none().then_some(())
    });
}

/// A dump into a pipe that is not read on.
fn a_guest_that_is_dumped(libvirtd: &Libvirtd, exporter: &Exporter, idle: [(&str, f64); 2]) {
    let pipe = libvirtd.folder.path().join("lib/dump");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // As libvirtd sees it, in its own namespace.
    let guest = idle[0].0;
    let mut dump = Virsh::start(libvirtd, &["dump", "--live", guest, "/var/lib/libvirt/dump"]);
    let held = first_bytes(&pipe);
    dump.job(libvirtd, guest, "Dump");
    while_it_is_busy(exporter, idle);
    dump.job(libvirtd, guest, "Dump");
    drop(held);
    dump.0.wait().unwrap();
    wait_for("the end of the dump", 60, || {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        (of(&page, FLAG, guest) == Some(0.0)).then_some(())
    });
}

/// Opens the pipe, which waits for its writer, and reads until the dump has begun.
fn first_bytes(pipe: &Path) -> File {
    let mut file = File::open(pipe).unwrap();
    file.read_exact(&mut [0; 4096]).unwrap();
    file
}

/// Parts of the page that scrapes ask for, and a metric of each.
const PARTS: [(&str, &str); 3] = [
    ("block", WRITTEN),
    ("cpu", "libvirt_domain_info_cpu_time_seconds_total"),
    ("interface", "libvirt_domain_interface_stats_receive_bytes_total"),
];

/// A scrape for one of them.
fn part(exporter: &Exporter, (collector, _): (&str, &str)) -> Samples {
    let path = format!("/metrics?collect[]={collector}");
    let (head, body) = exporter.get(&path, "X-Prometheus-Scrape-Timeout-Seconds: 3\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    samples(&body)
}

fn a_libvirtd_that_hangs(libvirtd: &Libvirtd, exporter: &Exporter, idle: [(&str, f64); 2]) {
    let strict = Exporter::start_with(libvirtd, &["--scrape.max-age=0"]);
    wait_for("its first page", 60, || of(&strict.scrape(TIMEOUT_SECONDS), WRITTEN, idle[0].0));
    // Of this one nobody asks for the whole page; its first collection, of its own accord, has all.
    let divided = Exporter::start_with(
        libvirtd,
        &[
            "--collector.disable-defaults",
            "--collector.block",
            "--collector.cpu",
            "--collector.interface",
        ],
    );
    for _ in 0..3 {
        for part in PARTS {
            wait_for("a part of the page", 60, || {
                of(&self::part(&divided, part), part.1, idle[0].0)
            });
        }
    }
    let hung = libvirtd.stop_daemon();
    for _ in 0..6 {
        let page = exporter.scrape(3);
        assert_eq!(value(&page, "libvirt_up", &[]), Some(0.0));
        for (guest, written) in idle {
            assert_eq!(
                (of(&page, FLAG, guest), of(&page, WRITTEN, guest)),
                (Some(1.0), Some(written))
            );
            assert!(of(&page, AGE, guest) > Some(0.0));
        }
        // Four that ask who is there, and one that asks for storage pools.
        assert!(value(&page, "kanyun_exporter_given_up_threads", &[]) <= Some(5.0), "bounded");
    }
    for part in PARTS {
        let page = self::part(&divided, part);
        assert_eq!(value(&page, "libvirt_up", &[]), Some(0.0));
        for (guest, _) in idle {
            assert_eq!(of(&page, FLAG, guest), Some(1.0), "{part:?}");
            assert!(of(&page, part.1, guest).is_some(), "{part:?} of {guest}");
            assert!(of(&page, AGE, guest) > Some(0.0), "{part:?} of {guest}");
        }
        let others = PARTS.iter().filter(|other| **other != part);
        assert!(others.into_iter().all(|other| of(&page, other.1, idle[0].0).is_none()));
    }
    let page = strict.scrape(3);
    assert_eq!((of(&page, FLAG, idle[0].0), of(&page, WRITTEN, idle[0].0)), (Some(1.0), None));
    assert!(of(&page, "libvirt_domain_openstack_info", idle[0].0).is_some());
    // Scrapes of several Prometheis at once wait for one another, and none longer than it may.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| exporter.scrape(TIMEOUT_SECONDS));
        }
    });
    drop(hung);
    wait_for("libvirtd's recovery", 60, || {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        let free = value(&page, "kanyun_exporter_given_up_threads", &[]) == Some(0.0);
        let fresh = of(&page, FLAG, idle[0].0) == Some(0.0);
        (free && fresh && value(&page, "libvirt_up", &[]) == Some(1.0)).then_some(())
    });
}

/// libvirtd is killed and started while pages are asked for without a pause.
fn a_libvirtd_that_restarts(libvirtd: &mut Libvirtd, exporter: &Exporter, idle: [(&str, f64); 2]) {
    let (ended, pages) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut before = HashMap::new();
            while !ended.load(Ordering::Acquire) {
                let page = exporter.scrape(TIMEOUT_SECONDS);
                no_counter_goes_back(&page, &mut before);
                for (guest, written) in idle {
                    assert_eq!(of(&page, WRITTEN, guest), Some(written), "of {guest}");
                }
                pages.fetch_add(1, Ordering::AcqRel);
            }
        });
        // Also where something fails here: the other thread must not go on for ever then.
        let end = End(&ended);
        for _ in 0..3 {
            let some = pages.load(Ordering::Acquire) + 3;
            wait_for("a few pages", 120, || {
                let enough = pages.load(Ordering::Acquire) >= some || asking.is_finished();
                enough.then_some(())
            });
            libvirtd.kill();
            libvirtd.run();
        }
        drop(end);
    });
    let page = exporter.scrape(TIMEOUT_SECONDS);
    assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0));
    assert_eq!(of(&page, FLAG, idle[0].0), Some(0.0));
}

/// Tells another thread to stop.
pub(crate) struct End<'a>(pub(crate) &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Counters of guests that run on may only grow; what is not on a page is judged by the next.
pub(crate) fn no_counter_goes_back(page: &Samples, before: &mut HashMap<String, f64>) {
    for (series, value) in page {
        let name = series.split('{').next().unwrap();
        if !name.starts_with("libvirt_domain_") || !name.ends_with("_total") {
            continue;
        }
        let last = before.insert(series.clone(), *value).unwrap_or(0.0);
        assert!(*value >= last, "{series} went from {last} to {value}");
    }
}
