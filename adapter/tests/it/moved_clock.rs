//! A wall clock that runs ahead of the real one, by libfaketime: hours and days pass between two
//! starts of a process, so that windows are swept, days of heads dropped and weeks begun.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::libvirtd::skip;
use crate::load::{self, Sender};
use crate::power_loss::dice::Dice;

/// By how much the clock may go on between two starts, in seconds: within a window, over the ends
/// of windows, of a day, of some days. Less than what a counter's difference may span in a bill.
const STEPS_S: [i64; 6] = [0, 3_000, 3 * 3_600, 26 * 3_600, 26 * 3_600, 70 * 3_600];

/// Where the clock stands.
#[derive(Debug)]
pub(crate) struct MovedClock {
    library: PathBuf,
    ahead_s: i64,
}

impl MovedClock {
    /// One that shows the real time; `None`, and a word why, where libfaketime is not there.
    pub(crate) fn new() -> Option<MovedClock> {
        let library = fs::read_dir("/usr/lib").unwrap().find_map(|folder| {
            let path = folder.unwrap().path().join("faketime/libfaketimeMT.so.1");
            path.is_file().then_some(path)
        });
        let Some(library) = library else {
            skip("libfaketime is not installed: scripts/packages test does it");
            return None;
        };
        Some(MovedClock { library, ahead_s: 0 })
    }

    /// Goes on by chance, and with it the senders of the present.
    pub(crate) fn go_on(&mut self, dice: &mut Dice, senders: &mut [Sender]) {
        let step_s = dice.pick(&STEPS_S);
        if load::are_present(senders) {
            self.ahead_s += step_s;
            load::move_on(senders, step_s * 1_000);
        }
    }

    /// Goes on by some days, in which nothing is sent.
    pub(crate) fn by_days(&mut self, days: i64) {
        self.ahead_s += days * 86_400;
    }

    /// Gives a process this clock, and this library besides.
    pub(crate) fn apply(&self, command: &mut Command, library: Option<&Path>) {
        let mut libraries = self.library.clone().into_os_string();
        if let Some(library) = library {
            libraries.push(":");
            libraries.push(library);
        }
        command
            .env("LD_PRELOAD", libraries)
            .env("FAKETIME", format!("+{}", self.ahead_s))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

impl Drop for MovedClock {
    /// libfaketime leaves two files of shared memory of each process that is killed.
    fn drop(&mut self) {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let process = name.strip_prefix("faketime_shm_");
            let process = process.or_else(|| name.strip_prefix("sem.faketime_sem_"));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}
