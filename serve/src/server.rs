//! Listens, serves connections within their limits, and ends gracefully.
//! It must not know what the routes do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use crate::limits::Limits;
use crate::own_metrics::OwnMetrics;
use crate::readiness::Readiness;
use crate::routes::Routes;
use crate::settings::ServiceFlags;
pub use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::sockets::Sockets;
use crate::web_config::Live;
pub use crate::web_config::WebConfigError;

mod connection;
mod dispatch;
mod guarded;
mod listeners;

use connection::Context;
use dispatch::Dispatch;
pub use listeners::BindError;
use listeners::Listeners;

/// A service that listens. Connections wait in the kernel's queue until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    web: Live,
}

/// What is served, and within which limits.
#[derive(Debug)]
pub struct Service {
    /// Which handler answers what; `/-/healthy` and `/-/ready` come in addition.
    pub routes: Routes,
    /// Whether the service may be sent work.
    pub readiness: Readiness,
    /// Where requests are counted.
    pub own_metrics: OwnMetrics,
    /// Connections and times.
    pub limits: Limits,
}

/// Why serving did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Requests were cut off.
    #[error("{connections} connections were still busy {} s after the stop signal and were cut off", waited.as_secs())]
    Unfinished {
        /// How many.
        connections: usize,
        /// How long they had been given.
        waited: Duration,
    },
}

impl Server {
    /// Checks the addresses and the web config file of the flags, as --config.check asks for, without listening.
    pub async fn check(flags: &ServiceFlags) -> Result<(), BindError> {
        Live::start(flags.web_config_file.clone()).await?;
        Listeners::check(flags).await
    }

    /// Reads the web config file and listens on all addresses of the flags, or on `sockets` where the flags say so.
    pub async fn bind(flags: &ServiceFlags, sockets: Sockets) -> Result<Server, BindError> {
        let web = Live::start(flags.web_config_file.clone()).await?;
        let listeners = Listeners::of(flags, sockets).await?;
        Ok(Server { listeners, web })
    }

    /// The addresses with the ports that the kernel chose where 0 was asked for; at least one.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// Serves until a stop is asked for, then takes no new connection, lets running requests
    /// finish within the drain timeout, and returns. A second stop signal cuts them off.
    pub async fn run(self, service: Service, mut shutdown: Shutdown) -> Result<(), ServeError> {
        let (limits, readiness) = (service.limits, service.readiness.clone());
        let Server { mut listeners, web } = self;
        let web = Arc::new(web);
        let dispatch = Arc::new(Dispatch::new(service, Arc::clone(&web)));
        let context = Context { dispatch, limits, shutdown: shutdown.clone(), web };
        let context = Arc::new(context);
        let slots = Arc::new(Semaphore::new(limits.connections));
        let mut connections = JoinSet::new();
        loop {
            // A slot is taken first, so that a client beyond the limit waits in the kernel.
            let accepted = tokio::select! {
                biased;
                () = shutdown.requested() => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = accept(&mut listeners, &slots) => accepted,
            };
            match accepted {
                Ok((stream, peer, slot)) => {
                    let context = Arc::clone(&context);
                    connections.spawn(async move {
                        connection::serve(stream, peer, &context).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: it passes when connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        readiness.drain();
        drop(listeners);
        drain(connections, limits.drain_timeout, &mut shutdown).await
    }
}

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listeners: &mut Listeners,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listeners.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, slot))
}

async fn drain(
    mut connections: JoinSet<()>,
    timeout: Duration,
    shutdown: &mut Shutdown,
) -> Result<(), ServeError> {
    let started = Instant::now();
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(started + timeout) => break,
            () = shutdown.forced() => break,
        }
    }
    let unfinished = connections.len();
    connections.shutdown().await;
    Err(ServeError::Unfinished { connections: unfinished, waited: started.elapsed() })
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
