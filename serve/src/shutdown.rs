//! The stop signal: asked for once, the service drains; asked for twice, it stops at once.
//! It must not know what is drained.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A stop signal as everybody who must stop sees it. Clones see the same signal.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Stage>);

/// Asks for the stop, from a test or from a part of the program that cannot go on.
#[derive(Clone, Debug)]
pub struct ShutdownHandle(watch::Sender<Stage>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    Running,
    Draining,
    Now,
}

impl ShutdownHandle {
    /// The first call asks for a graceful end, the second for an immediate one.
    pub fn request(&self) {
        self.0.send_modify(|stage| {
            *stage = if *stage == Stage::Running { Stage::Draining } else { Stage::Now };
        });
    }
}

impl Shutdown {
    /// SIGTERM and SIGINT ask for the stop; SIGHUP is logged and does nothing. Must be called inside a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let (handle, shutdown) = Self::manual();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Sent by who is used to reloading Prometheus and by log rotation: it must not end us.
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    Some(()) = hangup.recv() => {
                        tracing::info!(
                            "SIGHUP: the web config file is read again by itself; other settings \
                             need a restart"
                        );
                        continue;
                    }
                    else => return,
                };
                tracing::info!(signal = name, "stop requested");
                handle.request();
            }
        });
        Ok(shutdown)
    }

    /// A stop that is asked for by the handle. Dropping every handle asks for it as well.
    pub fn manual() -> (ShutdownHandle, Self) {
        let (sender, receiver) = watch::channel(Stage::Running);
        (ShutdownHandle(sender), Self(receiver))
    }

    /// Waits until a stop is asked for; returns at once when it was already.
    pub async fn requested(&mut self) {
        self.reached(Stage::Draining).await;
    }

    /// Waits until an immediate stop is asked for.
    pub(crate) async fn forced(&mut self) {
        self.reached(Stage::Now).await;
    }

    async fn reached(&mut self, wanted: Stage) {
        if self.0.wait_for(|stage| *stage >= wanted).await.is_err() && wanted == Stage::Now {
            // All handles are gone: nobody is left who could ask for more than a graceful end.
            std::future::pending::<()>().await;
        }
    }
}
