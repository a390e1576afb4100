//! kill -9 under load: what was acknowledged is there after a restart, once and with its value, and
//! every bill is right; hours and days pass in between, with their sweeps, dropped heads and new
//! weeks. A missing fdatasync does not show here, because the kernel keeps what a
//! process wrote: that is the subject of `power_loss` and `durability`.

use std::sync::Mutex;

use serde_json::Value;

use crate::adapter_process::{AdapterProcess, now_ms};
use crate::load;
use crate::moved_clock::MovedClock;
use crate::power_loss::dice::Dice;

/// `KANYUN_CRASH_ROUNDS` sets another number, as `make soak` does.
const ROUNDS: u64 = 6;
/// A store that was killed so often makes way for a new one: each round reads all of it.
const ROUNDS_OF_FOLDER: u64 = 10;

#[test]
fn acknowledged_samples_survive_kill_9() {
    let rounds = match std::env::var("KANYUN_CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("KANYUN_CRASH_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let seed = now_ms().cast_unsigned();
    println!("seed {seed}, {rounds} rounds");
    let mut dice = Dice::new(seed);
    for first in (0..rounds).step_by(ROUNDS_OF_FOLDER as usize) {
        kill_again_and_again(ROUNDS_OF_FOLDER.min(rounds - first), &mut dice);
    }
}

/// Kills a process on one folder after any number of acknowledged requests.
fn kill_again_and_again(rounds: u64, dice: &mut Dice) {
    let folder = tempfile::tempdir().unwrap();
    let mut senders = load::senders();
    let Some(mut clock) = MovedClock::new() else { return };
    let service = |clock: &MovedClock| {
        let mut command = load::service(folder.path());
        clock.apply(&mut command, None);
        command
    };
    for _ in 0..rounds {
        let last = 20 + dice.below(180);
        if dice.below(3) == 0 {
            // So that tables are made, merged and dropped, which takes much more load else.
            AdapterProcess::start(&mut service(&clock)).stop();
            load::seal_journal(folder.path());
        }
        clock.go_on(dice, &mut senders);
        let adapter = AdapterProcess::start(&mut service(&clock));
        load::check_everything(&adapter, &senders);
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
    clock.go_on(dice, &mut senders);
    let adapter = AdapterProcess::start(&mut service(&clock));
    load::check_everything(&adapter, &senders);
    // Days later all is sealed, and at the next start only the newest day of heads is left.
    adapter.kill();
    clock.by_days(3);
    let adapter = AdapterProcess::start(&mut service(&clock));
    let status = |adapter: &AdapterProcess| -> Value {
        serde_json::from_str(adapter.get("/api/v1/status").text()).unwrap()
    };
    adapter.wait_for("everything sealed", || {
        let sealing = &status(&adapter)["sealing"];
        sealing["lag_seconds"] == 0 && sealing["late_windows"] == 0
    });
    adapter.kill();
    let adapter = AdapterProcess::start(&mut service(&clock));
    adapter.wait_for("the heads of past days dropped", || {
        let status = status(&adapter);
        let tables = status["disk"]["tables"].as_array().unwrap();
        let heads = tables.iter().find(|table| table["table"] == "heads").unwrap();
        heads["spans"] == 1
    });
    load::check_everything(&adapter, &senders);
}
