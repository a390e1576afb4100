//! kill -9 under load: what was acknowledged is there after a restart, once and with its value.
//! A missing fdatasync does not show here, because the kernel keeps what a process wrote: that is
//! `durability`'s subject.

use std::sync::Mutex;

use xxhash_rust::xxh3::xxh3_64;

use crate::adapter_process::{AdapterProcess, now_ms};
use crate::load::{self, METRIC, Samples, Sender};

const SENDERS: u64 = 6;
/// `KANYUN_CRASH_ROUNDS` sets another number, as `make soak` does.
const ROUNDS: usize = 6;
/// A store that was killed so often makes way for a new one: each round reads all of it.
const ROUNDS_OF_FOLDER: usize = 10;

#[test]
fn acknowledged_samples_survive_kill_9() {
    let rounds = match std::env::var("KANYUN_CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("KANYUN_CRASH_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let seed = u64::try_from(now_ms()).unwrap();
    println!("seed {seed}, {rounds} rounds");
    let mut dice = (0_u64..).map(|round| xxh3_64(&[seed, round].map(u64::to_be_bytes).concat()));
    for first in (0..rounds).step_by(ROUNDS_OF_FOLDER) {
        let rounds = ROUNDS_OF_FOLDER.min(rounds - first);
        // Any number from 20 to 199.
        kill_again_and_again(dice.by_ref().take(rounds).map(|dice| 20 + dice % 180));
    }
}

/// Kills a process on one folder after each of these numbers of acknowledged requests.
fn kill_again_and_again(moments: impl Iterator<Item = u64>) {
    let folder = tempfile::tempdir().unwrap();
    let start_ms = now_ms() - 3_600_000;
    let mut senders: Vec<_> = (0..SENDERS).map(|number| Sender::new(number, start_ms)).collect();
    for last in moments {
        let adapter = AdapterProcess::on_folder(folder.path());
        check_everything(&adapter, &senders);
        let address = adapter.address();
        let alive = Mutex::new(Some(adapter));
        load::run(&mut senders, address, |acknowledged| {
            // At once, on the thread that has just read the answer: an answer that came too early
            // has no time to become true.
            if acknowledged == last {
                alive.lock().unwrap().take().unwrap().kill();
            }
        });
        assert!(senders.iter().all(|sender| sender.unanswered), "killed under load");
    }
    check_everything(&AdapterProcess::on_folder(folder.path()), &senders);
}

/// Reads everything back, by both response types, and compares.
pub(crate) fn check_everything(adapter: &AdapterProcess, senders: &[Sender]) {
    let mut found = Samples::new();
    // `read` has checked that no series and no time comes twice.
    for (labels, samples) in adapter.read((i64::MIN, i64::MAX), &[("=", "__name__", METRIC)]) {
        let guest = &labels.iter().find(|(name, _)| name == "uuid").unwrap().1;
        found.extend(samples.into_iter().map(|(time, bits)| ((guest.clone(), time), bits)));
    }
    for sender in senders {
        let (acknowledged, sent) = sender.sent();
        for (place, bits) in acknowledged {
            assert_eq!(found.remove(&place), Some(bits), "acknowledged: {place:?}");
        }
        for (place, bits) in sent {
            // There or not, but never with another value.
            let value = found.remove(&place);
            assert!(value.is_none_or(|value| value == bits), "{place:?}: {value:?}, sent {bits}");
        }
    }
    assert!(found.is_empty(), "nobody sent {found:?}");
}
