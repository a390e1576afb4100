//! The adapter's wall clock, set from outside while it runs: libfaketime reads it from a file.
//! Knows nothing of what is measured.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::POLL;
use crate::sender::client;
use crate::server::Server;

/// libfaketime looks at its file again after this time, in whole seconds.
const CACHE_SECONDS: u64 = 1;
/// Far above that, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that is set, and goes on from there.
#[derive(Debug)]
pub(super) struct SetClock {
    library: PathBuf,
    file: PathBuf,
}

impl SetClock {
    pub(super) fn new(library: &Path, folder: &Path, unix_ms: i64) -> Result<SetClock, String> {
        let file = folder.join("clock");
        let clock = SetClock { library: library.to_owned(), file };
        clock.write(unix_ms)?;
        Ok(clock)
    }

    /// What a server must be started with.
    pub(super) fn apply(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", CACHE_SECONDS.to_string())
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }

    /// Sets it, and returns when the server's answers are dated so.
    pub(super) fn set(&self, server: &Server, unix_ms: i64) -> Result<(), String> {
        self.write(unix_ms)?;
        let (url, started) = (format!("{}/-/healthy", server.base()), Instant::now());
        while started.elapsed() < PATIENCE {
            let answer = client().get(&url).call().map_err(|error| format!("{url}: {error}"))?;
            let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
            let seen = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
            // Dates have whole seconds.
            if seen.is_some_and(|seen| seen.timestamp().as_millisecond() > unix_ms - 1_000) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err("the adapter does not see its moved clock".to_owned())
    }

    /// As a distance from the real time: an absolute one would begin when the server began.
    fn write(&self, unix_ms: i64) -> Result<(), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let seconds = (unix_ms - now) as f64 / 1_000.0;
        // In one piece, so that nobody reads half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+.3}\n")).map_err(|error| error.to_string())?;
        std::fs::rename(&new, &self.file).map_err(|error| error.to_string())
    }
}
