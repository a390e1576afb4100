//! Power losses: the adapter dies at a chosen system call, the folder becomes what a disk could
//! hold then, and everything that was acknowledged is there, nothing that nobody sent, and the
//! store opens. `disk` says what a disk may lose; a seed repeats its choices, though not the
//! order in which threads ran.

pub(crate) mod dice;
mod disk;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use self::dice::Dice;
use self::disk::Disk;
use crate::adapter_process::{AdapterProcess, now_ms};
use crate::load::{self, Sender};
use crate::moved_clock::MovedClock;

/// `KANYUN_POWER_LOSSES` sets another number, as `make soak` does.
const LOSSES: u64 = 12;
/// `KANYUN_FULL_DISKS` sets another number.
const FULL_DISKS: u64 = 4;
/// A folder is given up after so many of them: each check reads all of it.
const LOSSES_OF_FOLDER: u64 = 8;
/// Where no earlier end was chosen.
const ACKNOWLEDGED_MAX: u64 = 300;

#[test]
fn acknowledged_samples_survive_power_losses() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let losses = number("KANYUN_POWER_LOSSES").unwrap_or(LOSSES);
    let seed = number("KANYUN_POWER_SEED").unwrap_or_else(|| now_ms().cast_unsigned());
    for first in (0..losses).step_by(LOSSES_OF_FOLDER as usize) {
        let seed = seed + first;
        println!("KANYUN_POWER_SEED={seed}");
        let Some(mut plant) = Plant::new(seed) else { return };
        plant.run(LOSSES_OF_FOLDER.min(losses - first));
    }
}

/// The disk is full in the middle of whatever the store does: it says so and ends,
/// or refuses writes, and with room again everything is there.
#[test]
fn acknowledged_samples_survive_a_full_disk() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed = number("KANYUN_POWER_SEED").unwrap_or_else(|| now_ms().cast_unsigned());
    println!("KANYUN_POWER_SEED={seed}");
    let Some(mut plant) = Plant::new(seed) else { return };
    for _ in 0..number("KANYUN_FULL_DISKS").unwrap_or(FULL_DISKS) {
        plant.run_until_full();
        let adapter = AdapterProcess::start(&mut plant.whole());
        load::check_everything(&adapter, &plant.senders);
        adapter.kill();
    }
}

/// A machine whose power fails.
struct Plant {
    dice: Dice,
    /// The disk; the data folder is made in it.
    disk: PathBuf,
    folder: tempfile::TempDir,
    senders: Vec<Sender>,
    clock: MovedClock,
}

impl Plant {
    /// `None` where there is no clock to move.
    fn new(seed: u64) -> Option<Plant> {
        let clock = MovedClock::new()?;
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().canonicalize().unwrap().join("disk");
        std::fs::create_dir(&disk).unwrap();
        Some(Plant { dice: Dice::new(seed), disk, folder, senders: load::senders(), clock })
    }

    fn run(&mut self, losses: u64) {
        for loss in 1..=losses {
            self.run_until_loss();
            // Not always: the next loss may come before the first has been recovered from.
            if loss == losses || self.dice.below(3) > 0 {
                let adapter = AdapterProcess::start(&mut self.whole());
                load::check_everything(&adapter, &self.senders);
                if self.dice.below(2) == 0 {
                    // So that tables are made, merged and dropped, which takes much more load else.
                    adapter.stop();
                    load::seal_journal(&self.data());
                } else {
                    adapter.kill();
                }
            }
        }
    }

    fn run_until_full(&mut self) {
        self.move_on();
        let bits = 1 + self.dice.below(12);
        let full_at = 1 + self.dice.below(1 << bits);
        println!("full at call {full_at}");
        let log = self.folder.path().join("record");
        std::fs::write(&log, "").unwrap();
        let mut command = self.command(&log, 0);
        command.env(powerloss::FULL_AT, full_at.to_string());
        let ended = match AdapterProcess::try_start(&mut command) {
            Ok(adapter) => {
                // Twice: what refuses once goes on to refuse.
                load::run_until_refused(&mut self.senders, adapter.address(), |_| ());
                load::run_until_refused(&mut self.senders, adapter.address(), |_| ());
                if adapter.log().contains("no more writes until a restart") {
                    let (status, text) = adapter.wait();
                    (Some(status), text)
                } else {
                    adapter.end()
                }
            }
            Err((status, text)) => (Some(status), text),
        };
        // A commit that failed ends it; without one it goes on to answer 503.
        let (status, text) = ended;
        println!("{status:?}");
        assert!(status.is_none_or(|status| status.code() == Some(1)), "{status:?}\n{text}");
        assert!(status.is_none() || text.contains("No space left"), "{text}");
        assert!(!text.contains("panicked"), "{text}");
    }

    /// The service with nothing that fails.
    fn whole(&self) -> Command {
        let mut command = load::service(&self.data());
        self.clock.apply(&mut command, None);
        command
    }

    fn move_on(&mut self) {
        self.clock.go_on(&mut self.dice, &mut self.senders);
    }

    fn data(&self) -> PathBuf {
        self.disk.join("data")
    }

    fn run_until_loss(&mut self) {
        self.move_on();
        // From the first call on, small numbers more often: starts and recoveries are short.
        let bits = 1 + self.dice.below(13);
        let kill_at = 1 + self.dice.below(1 << bits);
        let log = self.folder.path().join("record");
        std::fs::write(&log, "").unwrap();
        let mut before = Disk::of(&self.disk);
        println!("power loss at call {kill_at}");
        let at_call = match AdapterProcess::try_start(&mut self.command(&log, kill_at)) {
            Ok(adapter) => self.load(adapter),
            Err((status, text)) => {
                assert_eq!(status.signal(), Some(9), "it ended by itself: {status}\n{text}");
                true
            }
        };
        before.replay(&log);
        if at_call {
            // Else it may have been killed after a call and before its record.
            before.check_now();
        }
        let next = self.folder.path().join("next");
        std::fs::create_dir(&next).unwrap();
        before.lose_power(&mut self.dice, &next);
        std::fs::remove_dir_all(&self.disk).unwrap();
        std::fs::rename(&next, &self.disk).unwrap();
    }

    /// Says whether it died at the chosen call.
    fn load(&mut self, adapter: AdapterProcess) -> bool {
        let address = adapter.address();
        let alive = Mutex::new(Some(adapter));
        load::run(&mut self.senders, address, |acknowledged| {
            if acknowledged == ACKNOWLEDGED_MAX {
                alive.lock().unwrap().take().unwrap().kill();
            }
        });
        let Some(adapter) = alive.into_inner().unwrap() else { return false };
        let (status, text) = adapter.wait();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}\n{text}");
        true
    }

    fn command(&self, log: &Path, kill_at: u64) -> Command {
        let mut command = load::service(&self.data());
        self.clock.apply(&mut command, Some(&library()));
        command.env(powerloss::FOLDER, &self.disk).env(powerloss::LOG, log);
        command.env(powerloss::KILL_AT, kill_at.to_string());
        command
    }
}

/// The library that records, which cargo builds as a dependency of these tests.
fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let library = tests.with_file_name("libpowerloss.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}
