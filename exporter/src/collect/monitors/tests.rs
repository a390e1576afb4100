//! Threads of the tests' own in libvirt's place: guests that hang, fail or bring a thread down, as often as wanted.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex};

use super::*;
use crate::snapshot::Memory;

/// What libvirtd would know: which guests hang, and who holds their jobs already.
#[derive(Default)]
struct Host {
    hung: Mutex<HashSet<String>>,
    held: Mutex<HashSet<String>>,
    /// How often more other clients are at guests when they are asked for.
    used: Mutex<HashMap<String, u32>>,
    changed: Condvar,
}

impl Host {
    fn with_hung(uuids: &[usize]) -> Arc<Self> {
        let hung = uuids.iter().map(|number| uuid(*number)).collect();
        Arc::new(Self { hung: Mutex::new(hung), ..Self::default() })
    }

    fn recover(&self) {
        self.hung.lock().unwrap().clear();
        self.changed.notify_all();
    }

    /// As libvirt with NOWAIT: the first who asks a hung guest hangs with it, the next ones pass it over.
    fn ask(&self, uuid: &str) -> Guest {
        let mut hung = self.hung.lock().unwrap();
        if hung.contains(uuid) && self.held.lock().unwrap().insert(uuid.to_owned()) {
            while hung.contains(uuid) {
                hung = self.changed.wait(hung).unwrap();
            }
            self.held.lock().unwrap().remove(uuid);
        } else if hung.contains(uuid) || self.used_by_others(uuid) {
            return guest(uuid);
        }
        let memory = Memory { rss_kib: Some(1), ..Memory::default() };
        Guest { memory, ..guest(uuid) }
    }

    /// Whether another client is at the guest this time.
    fn used_by_others(&self, uuid: &str) -> bool {
        let mut used = self.used.lock().unwrap();
        let Some(left) = used.get_mut(uuid).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }
}

fn uuid(number: usize) -> String {
    format!("uuid-{number}")
}

fn guest(uuid: &str) -> Guest {
    Guest { uuid: uuid.to_owned(), id: Some(1), ..Guest::default() }
}

fn guests(count: usize) -> Vec<Guest> {
    (0..count).map(|number| guest(&uuid(number))).collect()
}

/// Threads that ask `host`; "broken" makes a call fail, "deadly" ends the thread by a panic.
fn monitors(connections: usize, host: &Arc<Host>) -> Monitors {
    let host = Arc::clone(host);
    Monitors::new(connections, move || {
        let host = Arc::clone(&host);
        Worker::start(move |queue: &std::sync::mpsc::Receiver<Job>, status| {
            while let Ok(Job { share, number, answers, .. }) = queue.recv() {
                let uuids = match share {
                    Share::Some(uuids) => uuids,
                    Share::Active | Share::Inactive => panic!("more guests than for one call"),
                };
                assert!(!uuids.iter().any(|uuid| uuid == "deadly"), "as the test wants it");
                let result = if uuids.iter().any(|uuid| uuid == "broken") {
                    Err("broken".to_owned())
                } else {
                    Ok(uuids.iter().map(|uuid| host.ask(uuid)).collect())
                };
                status.is_idle_now();
                answers.blocking_send(Answer { number, result }).ok();
            }
        })
    })
}

fn soon(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until all threads have come back but those that hang. On a busy machine healthy ones may have been overtaken too.
fn settled(monitors: &mut Monitors, hung: usize) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while monitors.stuck() != hung {
        assert!(std::time::Instant::now() < end, "threads that could go on have not ended");
        std::thread::yield_now();
    }
}

#[test]
fn every_guest_is_read_once_by_a_few_threads() {
    let (host, guests) = (Arc::<Host>::default(), guests(100));
    let mut monitors = monitors(4, &host);
    for _ in 0..20 {
        let details = runtime().block_on(monitors.read(&guests, Collectors::all(), soon(60)));
        assert_eq!(details.found.len(), 100);
        assert_eq!(details.unanswered.len(), 0);
    }
    assert!(monitors.threads.len() <= 4);
    settled(&mut monitors, 0);
}

#[test]
fn a_hung_guest_costs_its_neighbours_nothing() {
    let host = Host::with_hung(&[3, 50, 51]);
    let mut monitors = monitors(4, &host);
    let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(60)));
    assert_eq!(details.found.len(), 100, "the others were asked for again");
    settled(&mut monitors, 3);
    let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(60)));
    assert_eq!(details.found.len(), 100);
    settled(&mut monitors, 3);
    assert!(monitors.given_up_total() >= 3);
    host.recover();
    settled(&mut monitors, 0);
}

#[test]
fn the_deadline_is_kept_where_no_other_thread_may_start() {
    let all: Vec<usize> = (0..100).collect();
    let host = Host::with_hung(&all);
    let mut monitors = monitors(4, &host);
    for _ in 0..4 {
        let began = Instant::now();
        let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(1)));
        assert!(details.found.len() < 100 && !details.unanswered.is_empty());
        assert!(began.elapsed() < Duration::from_secs(30), "no bound was kept");
        assert!(monitors.stuck() <= STUCK_MAX + SPARE);
    }
    assert!(monitors.stuck() >= STUCK_MAX);
    let began = Instant::now();
    let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(600)));
    assert_eq!(details.unanswered.len(), 100);
    assert!(began.elapsed() < Duration::from_secs(300), "who cannot be asked is not waited for");
    host.recover();
    settled(&mut monitors, 0);
    let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(60)));
    assert_eq!(details.found.len(), 100);
}

/// Another client of libvirtd's is at guests now and then; one is always being dumped.
#[test]
fn guests_that_others_use_just_then_are_asked_again() {
    let host = Arc::<Host>::default();
    let mut monitors = monitors(4, &host);
    for round in 0..3 {
        let often = [(uuid(5), 1), (uuid(40), 2), (uuid(41), 1), (uuid(77), 1_000_000)];
        *host.used.lock().unwrap() = often.into();
        let read = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(60)));
        let busy: Vec<String> = read.busy(&HashSet::new()).to_vec();
        assert_eq!(busy, [uuid(77)], "round {round}");
        assert_eq!(read.found.len(), 100);
        let asked = 1_000_000 - host.used.lock().unwrap()[&uuid(77)];
        assert!(round == 0 || asked < 3, "asked {asked} times in round {round}");
    }
}

/// More guests hang than threads may be stuck: their neighbours are read all the same, and nobody is waited for.
#[test]
fn guests_that_answered_before_are_read_whatever_the_others_do() {
    let hung: Vec<usize> = (20..80).collect();
    let host = Host::with_hung(&[]);
    let mut monitors = monitors(4, &host);
    let well = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(60)));
    assert_eq!(well.found.len(), 100);
    host.hung.lock().unwrap().extend(hung.iter().map(|number| uuid(*number)));
    for _ in 0..3 {
        drop(runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(2))));
        assert!(monitors.stuck() <= STUCK_MAX + SPARE);
    }
    let began = Instant::now();
    let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(600)));
    assert!(began.elapsed() < Duration::from_secs(300), "nobody is waited for");
    // Those of shares without a guest that hangs, which is known by now.
    for number in (0..10).chain(90..100) {
        assert!(details.found.contains_key(&uuid(number)), "guest {number}");
    }
    host.recover();
    settled(&mut monitors, 0);
    let details = runtime().block_on(monitors.read(&guests(100), Collectors::all(), soon(60)));
    assert_eq!(details.found.len(), 100);
}

/// A few more than threads may be stuck, on a small host: each is found out, and all others are read.
#[test]
fn nine_of_fourteen_hang() {
    let host = Host::with_hung(&[0, 1, 2, 4, 6, 7, 9, 11, 13]);
    let mut monitors = monitors(4, &host);
    for round in 0..2 {
        let guests = guests(14);
        let read = monitors.read(&guests, Collectors::all(), soon(12));
        let details = runtime().block_on(read);
        for number in [3, 5, 8, 10, 12] {
            assert!(details.found.contains_key(&uuid(number)), "guest {number} in round {round}");
        }
        assert!(monitors.stuck() <= STUCK_MAX + SPARE);
    }
    host.recover();
    settled(&mut monitors, 0);
}

#[test]
fn one_share_that_fails_takes_no_other_with_it() {
    for word in ["broken", "deadly"] {
        let mut guests = guests(99);
        guests.push(guest(word));
        let mut monitors = monitors(4, &Arc::default());
        let details = runtime().block_on(monitors.read(&guests, Collectors::all(), soon(2)));
        assert!(details.unanswered.contains(word), "{word}");
        assert_eq!(details.found.len() + details.unanswered.len(), 100);
        assert!(details.unanswered.len() <= SHARE_MAX);
    }
}

#[test]
fn shares_fit_the_host() {
    let sizes = |count: usize, connections: usize| -> Vec<usize> {
        let shares = shares(&guests(count), connections, &HashSet::new());
        shares.iter().map(|share| share.uuids.len()).collect()
    };
    let shares = |guests: &[Guest], connections| shares(guests, connections, &HashSet::new());
    assert_eq!(sizes(0, 4), [0; 0]);
    assert_eq!(sizes(8, 4), [8]);
    assert_eq!(shares(&guests(8), 4)[0].share, Share::Active);
    assert_eq!(shares(&guests(500), 1)[0].share, Share::Active);
    assert_eq!(sizes(20, 4), [8, 8, 4]);
    assert_eq!(sizes(1000, 4).iter().max(), Some(&SHARE_MAX));
    assert_eq!(sizes(1000, 4).iter().sum::<usize>(), 1000);
    let mut some = guests(2);
    some[1].id = None;
    let shares = shares(&some, 4);
    assert_eq!((&shares[0].share, &shares[1].share), (&Share::Active, &Share::Inactive));
}
