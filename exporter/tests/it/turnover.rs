//! Guests that come and go through hundreds of scrapes (KANYUN_SCRAPES): pages list exactly those that are there, and
//! memory stays what it was, because every record of libvirt's is given back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, Libvirtd, wait_for};
use crate::text::{Samples, value};
use crate::trouble::{End, no_counter_goes_back};

/// Scrapes where KANYUN_SCRAPES does not say. libvirt's records of one are some 40 KB.
const SCRAPES: u32 = 300;
/// Guests that stay.
const STAYING: [u32; 3] = [71, 72, 73];
/// Guests that are there beside them at a time.
const PASSING: usize = 3;
/// How much more memory the last third may take than the first. With records that are not given back it is twice that.
const GROWTH_MAX: f64 = 2.5 * 1024.0 * 1024.0;

/// Which passing guests are known to be there, and which to be gone.
#[derive(Default)]
struct Turnover {
    present: BTreeSet<String>,
    gone: BTreeSet<String>,
}

#[test]
fn guests_that_come_and_go() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let scrapes = std::env::var_os("KANYUN_SCRAPES")
        .map_or(SCRAPES, |text| text.to_str().unwrap().parse().unwrap());
    let libvirtd = Libvirtd::start();
    let exporter = Exporter::start(&libvirtd);
    let staying = STAYING.map(|number| libvirtd.idle_guest(number));
    let (turnover, ended) = (Mutex::<Turnover>::default(), AtomicBool::new(false));
    let peaks = thread::scope(|scope| {
        let passing = scope.spawn(|| come_and_go(&libvirtd, &turnover, &ended));
        // Also where a page is wrong: the other thread must not go on for ever then.
        let _end = End(&ended);
        scrape(&exporter, (scrapes, &turnover), &staying, || passing.is_finished())
    });
    let gone = turnover.lock().unwrap().gone.len();
    eprintln!("{scrapes} scrapes, {gone} guests came and went, peaks of memory {peaks:.0?}");
    assert!(gone >= PASSING, "nothing changed in the meantime");
    assert!(peaks[2] - peaks[0] < GROWTH_MAX, "memory grows: {peaks:.0?}");
    wait_for("threads that were cut off to end", 60, || {
        let page = exporter.scrape(10);
        (value(&page, "kanyun_exporter_given_up_threads", &[]) == Some(0.0)).then_some(())
    });
}

/// Starts guests, each with a name and uuid of its own, and ends the oldest.
fn come_and_go(libvirtd: &Libvirtd, turnover: &Mutex<Turnover>, ended: &AtomicBool) {
    for number in 1000.. {
        if ended.load(Ordering::Acquire) {
            return;
        }
        let guest = libvirtd.idle_guest(number);
        turnover.lock().unwrap().present.insert(guest);
        let leaving = {
            let mut turnover = turnover.lock().unwrap();
            // From now on it may be on a page or not.
            (turnover.present.len() >= PASSING).then(|| turnover.present.pop_first().unwrap())
        };
        if let Some(guest) = leaving {
            libvirtd.virsh(&["destroy", &guest]).unwrap();
            turnover.lock().unwrap().gone.insert(guest);
        }
    }
}

/// Scrapes without a pause; the greatest memory of each third of the scrapes.
fn scrape(
    exporter: &Exporter,
    (scrapes, turnover): (u32, &Mutex<Turnover>),
    staying: &[String],
    failed: impl Fn() -> bool,
) -> [f64; 3] {
    let (mut peaks, mut before) = ([0.0_f64; 3], HashMap::new());
    for number in 0..scrapes {
        assert!(!failed(), "guests cannot be started any more");
        let there = |turnover: &Turnover| (turnover.present.clone(), turnover.gone.clone());
        let (present, gone) = there(&turnover.lock().unwrap());
        let page = exporter.scrape(10);
        let still = turnover.lock().unwrap().present.clone();
        listed_guests_are_there(&page, staying, (&(&present & &still), &gone));
        no_counter_goes_back(&page, &mut before);
        before.retain(|series, _| page.contains_key(series));
        let third = &mut peaks[usize::try_from(number * 3 / scrapes).unwrap()];
        *third = third.max(value(&page, "process_resident_memory_bytes", &[]).unwrap());
    }
    peaks
}

fn listed_guests_are_there(
    page: &Samples,
    staying: &[String],
    (present, gone): (&BTreeSet<String>, &BTreeSet<String>),
) {
    assert_eq!(value(page, "libvirt_up", &[]), Some(1.0));
    let states = page.keys().filter(|series| series.starts_with("libvirt_domain_info_state{"));
    let listed: BTreeSet<&str> = states.map(|series| name(series)).collect();
    assert!(u32::try_from(listed.len()).ok().map(f64::from) == value(page, "libvirt_domains", &[]));
    for guest in staying.iter().chain(present) {
        assert!(listed.contains(guest.as_str()), "{guest} is missing");
    }
    // Nothing of a guest that is gone is on the page, under whichever name.
    for series in page.keys().filter(|series| series.contains("domain=\"")) {
        assert!(!gone.contains(name(series)), "{series} of a guest that is gone");
        assert!(listed.contains(name(series)), "{series} of a guest that is not listed");
    }
    // Those that stay have all their figures. libvirtd may be at a guest for a moment, for an event of QEMU's: then they are
    // old ones, and flagged.
    for guest in staying {
        let of = |name: &str| value(page, name, &[&format!("domain=\"{guest}\"")]);
        let age = of("libvirt_domain_figures_age_seconds");
        let flag = f64::from(u8::from(age != Some(0.0)));
        assert_eq!(of("libvirt_domain_timed_out"), Some(flag), "{guest}, {age:?}");
        assert!(of("libvirt_domain_block_stats_read_bytes_total").is_some(), "{guest}, {age:?}");
    }
}

fn name(series: &str) -> &str {
    let (_, rest) = series.split_once("domain=\"").unwrap();
    rest.split('"').next().unwrap()
}
