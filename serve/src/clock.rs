//! The wall clock as an argument, so that a test can set it. It must not know what the time is
//! used for. It is the only file that asks the system for the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A wall clock: the system's, or one that a test holds. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands at `unix_ms` (milliseconds since 1970, UTC) until [`Clock::set`].
    pub fn fixed(unix_ms: i64) -> Clock {
        Clock(Source::Fixed(Arc::new(AtomicI64::new(unix_ms))))
    }

    /// Moves a fixed clock and all its clones; the system's clock is left as it is.
    pub fn set(&self, unix_ms: i64) {
        if let Source::Fixed(now) = &self.0 {
            now.store(unix_ms, Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970, UTC; negative before it.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => system_ms(),
            Source::Fixed(now) => now.load(Ordering::SeqCst),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else is given")]
fn system_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn clones_of_a_fixed_clock_move_together() {
        let clock = Clock::fixed(5);
        let other = clock.clone();
        clock.set(7);
        assert_eq!(other.now_ms(), 7);
    }

    #[test]
    fn the_system_clock_cannot_be_set() {
        let clock = Clock::system();
        clock.set(7);
        // Any time after 2020 will do: this machine's clock is not the one of 1970.
        assert!(clock.now_ms() > 1_577_836_800_000);
    }
}
