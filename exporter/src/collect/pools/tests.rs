//! Pools that hang, as libvirtd has them: the list of all waits for each of them, a question for another does not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::*;
use crate::worker::Status;

/// More than anything here takes.
const LONG: Duration = Duration::from_mins(2);
/// What a scrape has while something hangs, a quarter of it for each: two seconds, as a machine that is busy with others
/// does not hang.
const SOME: Duration = Duration::from_secs(8);

/// A host's pools, and which of them hang.
#[derive(Default)]
struct Host {
    pools: Mutex<(BTreeSet<&'static str>, BTreeSet<&'static str>)>,
    changed: Condvar,
    /// Questions for single pools that were answered.
    told: AtomicUsize,
}

impl Host {
    fn with(pools: &[&'static str]) -> Arc<Self> {
        let host = Self::default();
        host.pools.lock().unwrap().0.extend(pools);
        Arc::new(host)
    }

    fn hang(&self, pools: &[&'static str]) {
        self.pools.lock().unwrap().1 = pools.iter().copied().collect();
        self.changed.notify_all();
    }

    fn remove(&self, pool: &str) {
        self.pools.lock().unwrap().0.remove(pool);
    }

    fn list(&self) -> (Vec<Pool>, bool) {
        let all = self.pools.lock().unwrap();
        let all = self.changed.wait_while(all, |(_, hung)| !hung.is_empty()).unwrap();
        (all.0.iter().map(|name| pool(name)).collect(), true)
    }

    fn tell(&self, name: &str) -> Option<Pool> {
        let all = self.pools.lock().unwrap();
        let all = self.changed.wait_while(all, |(_, hung)| hung.contains(name)).unwrap();
        self.told.fetch_add(1, Ordering::SeqCst);
        all.0.contains(name).then(|| pool(name))
    }

    fn pools(self: &Arc<Self>) -> Pools {
        let host = Arc::clone(self);
        Pools::new(move || {
            let host = Arc::clone(&host);
            Worker::start(move |queue, status: &Status| {
                while let Ok(job) = queue.recv() {
                    match job {
                        Job::All(sender) => {
                            let answer = host.list();
                            status.is_idle_now();
                            sender.send(Ok(answer)).ok();
                        }
                        Job::One(name, sender) => {
                            let answer = host.tell(&name);
                            status.is_idle_now();
                            sender.send(Ok(answer)).ok();
                        }
                    }
                }
            })
        })
    }
}

fn pool(name: &str) -> Pool {
    Pool { name: name.to_owned(), state: Some(2), capacity_bytes: Some(1), ..Pool::default() }
}

/// What a scrape shows: names of the pools with figures, names of those without, whether all is well.
fn read(pools: &mut Pools, wait: Duration, is_up: bool) -> (String, String, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let time = async { pools.read((Instant::now() + wait * 2, wait), || is_up).await };
    let (found, step) = runtime.block_on(time);
    let (told, silent): (Vec<Pool>, Vec<Pool>) =
        found.unwrap_or_default().into_iter().partition(|pool| pool.state.is_some());
    assert!(silent.iter().all(|pool| pool.capacity_bytes.is_none()));
    let names = |pools: Vec<Pool>| -> String { pools.into_iter().map(|pool| pool.name).collect() };
    (names(told), names(silent), step.success)
}

fn come_back(pools: &Pools) {
    within_a_minute("threads came back", || pools.stuck() == 0);
}

/// Waits until it is so.
fn within_a_minute(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < end, "a minute went by before {what}");
        std::thread::yield_now();
    }
}

fn shown(told: &str, silent: &str, success: bool) -> (String, String, bool) {
    (told.to_owned(), silent.to_owned(), success)
}

#[test]
fn a_pool_that_hangs_costs_no_other_its_figures() {
    let host = Host::with(&["a", "b", "c"]);
    let mut pools = host.pools();
    assert_eq!(read(&mut pools, LONG, true), shown("abc", "", true));
    host.hang(&["b"]);
    for _ in 0..3 {
        assert_eq!(read(&mut pools, SOME, true), shown("ac", "b", false));
        assert_eq!(pools.stuck(), 2, "one that lists, one in the pool");
    }
    assert_eq!(pools.given_up_total(), 2, "once for each that hangs");
    host.remove("c");
    assert_eq!(
        read(&mut pools, LONG, true),
        shown("a", "b", false),
        "and one that is gone is gone"
    );
    host.hang(&[]);
    come_back(&pools);
    assert_eq!(read(&mut pools, LONG, true), shown("ab", "", true));
    assert_eq!((pools.readers.len(), pools.stuck()), (0, 0), "no thread more than is needed");
}

#[test]
fn many_that_hang_are_bounded_and_leave_those_fresh_that_answered() {
    let host = Host::with(&["a", "b", "c", "d", "e", "f"]);
    let mut pools = host.pools();
    assert_eq!(read(&mut pools, LONG, true), shown("abcdef", "", true));
    host.hang(&["b", "c"]);
    assert_eq!(read(&mut pools, SOME, true), shown("adef", "bc", false));
    host.hang(&["b", "c", "d", "e"]);
    for _ in 0..2 {
        // The two that hang now too have the last threads, and so nobody is asked any more.
        let (told, silent, _) = read(&mut pools, SOME, true);
        assert_eq!(told + &silent, "abcdef");
        assert_eq!(pools.stuck(), 1 + READERS_MAX);
    }
    host.hang(&[]);
    come_back(&pools);
    assert_eq!(read(&mut pools, LONG, true), shown("abcdef", "", true));
    // All at once: what was asked for before the third that hangs stays fresh for ever.
    host.hang(&["b", "c", "d", "e"]);
    for _ in 0..3 {
        assert_eq!(read(&mut pools, SOME, true), shown("a", "bcdef", false));
        assert_eq!((pools.stuck(), pools.busy()), (READERS_MAX, READERS_MAX - 1));
    }
    host.hang(&["b", "c", "e"]);
    within_a_minute("the thread that asked for d came back", || pools.busy() == 2);
    assert_eq!(read(&mut pools, SOME, true), shown("ad", "bcef", false), "e is asked for now");
    host.hang(&[]);
    come_back(&pools);
}

#[test]
fn a_daemon_that_hangs_holds_one_thread() {
    let host = Host::with(&["a", "b"]);
    let mut pools = host.pools();
    host.hang(&["a", "b"]);
    let short = Duration::from_millis(50);
    assert_eq!(read(&mut pools, short, false), shown("", "", false), "nothing is known of them");
    assert_eq!((pools.stuck(), pools.given_up_total()), (1, 1));
    host.hang(&[]);
    come_back(&pools);
    assert_eq!(read(&mut pools, LONG, true), shown("ab", "", true));
    host.hang(&["a", "b"]);
    assert_eq!(read(&mut pools, short, false), shown("", "ab", false));
    assert_eq!(read(&mut pools, short, false), shown("", "ab", false), "and the next time");
    assert_eq!((pools.stuck(), pools.given_up_total()), (1, 2));
    host.hang(&[]);
    come_back(&pools);
}

#[test]
fn a_list_that_comes_late_is_taken() {
    let host = Host::with(&["a", "b"]);
    let mut pools = host.pools();
    assert_eq!(read(&mut pools, LONG, true), shown("ab", "", true));
    // One that is not known yet: nothing else says why the list does not come.
    host.hang(&["new"]);
    let later = Arc::clone(&host);
    let release = std::thread::spawn(move || {
        // So late that the others were asked for meanwhile.
        within_a_minute("both were told", || later.told.load(Ordering::SeqCst) >= 2);
        later.hang(&[]);
    });
    assert_eq!(read(&mut pools, SOME, true), shown("ab", "", true));
    assert_eq!((pools.stuck(), pools.given_up_total()), (0, 0));
    release.join().unwrap();
}
