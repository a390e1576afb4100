//! Listens, serves connections within their limits, and ends gracefully.
//! It must not know what the routes do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use crate::limits::Limits;
use crate::own_metrics::OwnMetrics;
use crate::readiness::Readiness;
use crate::routes::Routes;
use crate::settings::ServiceFlags;
pub use crate::shutdown::{Shutdown, ShutdownHandle};
use crate::web_config::Live;
pub use crate::web_config::WebConfigError;

mod connection;
mod dispatch;
mod guarded;

use connection::Context;
use dispatch::Dispatch;

/// A bound listener. Connections wait in the kernel's queue until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
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

/// Why the service cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the port.
    #[error(
        "address {address} is taken by another process; choose another with --web.listen-address"
    )]
    Taken {
        /// As it was given.
        address: String,
    },
    /// A port below 1024 without the right to it.
    #[error(
        "this user may not listen on {address}; choose a port above 1023 with --web.listen-address"
    )]
    Forbidden {
        /// As it was given.
        address: String,
    },
    /// The web config file cannot be used.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// Not HOST:PORT, an unknown host, an address of another machine.
    #[error("cannot listen on {address} (--web.listen-address): {source}")]
    Unusable {
        /// As it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
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
    /// Checks the web config file of the flags, as --config.check asks for, without listening.
    pub async fn check(flags: &ServiceFlags) -> Result<(), BindError> {
        Live::start(flags.web_config_file.clone()).await?;
        let given = &flags.listen_address;
        let every = if given.starts_with(':') { "[::]" } else { "" };
        let found = tokio::net::lookup_host(format!("{every}{given}")).await;
        found.map(drop).map_err(|source| bind_error(given, source))
    }

    /// Reads the web config file and listens on the address of the flags.
    pub async fn bind(flags: &ServiceFlags) -> Result<Server, BindError> {
        let web = Live::start(flags.web_config_file.clone()).await?;
        let given = &flags.listen_address;
        let listener = listen(given).await.map_err(|source| bind_error(given, source))?;
        let address = listener.local_addr().map_err(|source| bind_error(given, source))?;
        Ok(Server { listener, address, web })
    }

    /// The address with the port that the kernel chose when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a stop is asked for, then takes no new connection, lets running requests
    /// finish within the drain timeout, and returns. A second stop signal cuts them off.
    pub async fn run(self, service: Service, mut shutdown: Shutdown) -> Result<(), ServeError> {
        let (limits, readiness) = (service.limits, service.readiness.clone());
        let web = Arc::new(self.web);
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
                accepted = accept(&self.listener, &slots) => accepted,
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
        drop(self.listener);
        drain(connections, limits.drain_timeout, &mut shutdown).await
    }
}

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn listen(given: &str) -> io::Result<TcpListener> {
    let Some(port) = given.strip_prefix(':') else { return TcpListener::bind(given).await };
    // `:PORT` is all interfaces of both families, or of the one that this machine has.
    match TcpListener::bind(format!("[::]:{port}")).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        Ok(listener) => Ok(listener),
    }
}

fn bind_error(given: &str, source: io::Error) -> BindError {
    let address = given.to_owned();
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { address },
        _ => BindError::Unusable { address, source },
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
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
