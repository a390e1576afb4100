//! `/-/healthy` and `/-/ready`: is the process alive, and may it be sent work.
//! It must not know what makes a service ready: that is the caller's check.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;

use crate::answer::{Answer, Refusal};
use crate::limits;

/// The path that answers 200 for as long as the process serves.
pub const HEALTHY_PATH: &str = "/-/healthy";

/// The path that answers 200 when the service may be sent work, else 503 with the reason.
pub const READY_PATH: &str = "/-/ready";

/// Whether the service may be sent work: its own check, and never while it drains.
#[derive(Clone)]
pub struct Readiness {
    check: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    draining: Arc<AtomicBool>,
}

impl Readiness {
    /// `check` says why the service is not ready. It is called for each request of
    /// [`READY_PATH`] on an async thread, so it must only look at what is known already.
    pub fn new(check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), draining: Arc::default() }
    }

    /// From now on not ready: the process is about to stop.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn healthy() -> Answer {
        Answer::text(StatusCode::OK, "healthy\n")
    }

    pub(crate) fn ready(&self) -> Answer {
        let reason = if self.draining.load(Ordering::SeqCst) {
            Err("shutting down".to_owned())
        } else {
            (self.check)()
        };
        match reason {
            Ok(()) => Answer::text(StatusCode::OK, "ready\n"),
            Err(reason) => {
                Refusal::busy(format!("not ready: {reason}"), limits::BUSY_RETRY_AFTER).into()
            }
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Readiness").field("draining", &self.draining).finish_non_exhaustive()
    }
}
