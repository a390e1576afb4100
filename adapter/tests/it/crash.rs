//! kill -9 under load: what was acknowledged is there after a restart, once and with its value.
//! A missing fdatasync does not show here, because the kernel keeps what a process wrote: that is
//! `durability`'s subject.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::adapter_process::{AdapterProcess, now_ms};
use crate::load::{self, METRIC, Samples, Sender};

const SENDERS: u64 = 6;
const ROUNDS: u32 = 3;
/// With `KANYUN_SOAK`, as `make soak` sets it; `KANYUN_CRASH_ROUNDS` sets any number.
const ROUNDS_OF_SOAK: u32 = 100;

#[test]
fn acknowledged_samples_survive_kill_9() {
    let is_soak = std::env::var_os("KANYUN_SOAK").is_some();
    let rounds = match std::env::var("KANYUN_CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("KANYUN_CRASH_ROUNDS is a number"),
        Err(_) => [ROUNDS, ROUNDS_OF_SOAK][usize::from(is_soak)],
    };
    let seed = u64::try_from(now_ms()).unwrap();
    println!("seed {seed}, {rounds} rounds");
    let folder = tempfile::tempdir().unwrap();
    let start_ms = now_ms() - 3_600_000;
    let mut senders: Vec<_> = (0..SENDERS).map(|number| Sender::new(number, start_ms)).collect();
    for round in 0..rounds {
        let adapter = AdapterProcess::on_folder(folder.path());
        check_everything(&adapter, &senders);
        let before: u64 = senders.iter().map(|sender| sender.next).sum();
        let address = adapter.address();
        let patience = moment(seed, round);
        load::run(&mut senders, address, |acknowledged| {
            // Some at least, or the round tells nothing; then at any moment.
            adapter.wait_for("acknowledgement", || acknowledged.load(Ordering::SeqCst) > 20);
            let started = Instant::now();
            while started.elapsed() < patience {
                std::hint::spin_loop();
            }
            adapter.kill();
        });
        let after: u64 = senders.iter().map(|sender| sender.next).sum();
        assert!(after > before + 20, "round {round}");
        assert!(senders.iter().all(|sender| sender.unanswered), "killed under load");
    }
    check_everything(&AdapterProcess::on_folder(folder.path()), &senders);
}

/// Reads everything back, by both response types, and compares.
fn check_everything(adapter: &AdapterProcess, senders: &[Sender]) {
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

/// Up to 300 ms, in steps of a microsecond.
fn moment(seed: u64, round: u32) -> Duration {
    let mut dice = seed.wrapping_add(u64::from(round)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    dice ^= dice >> 29;
    Duration::from_micros((dice.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) % 300_000)
}
