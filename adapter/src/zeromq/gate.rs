//! The gate of a door: listens on TCP, lets in whom it may, and no more than fit, and copies bytes
//! to and from libzmq's socket. libzmq itself bounds no connections, and tells no address of peers
//! that speak ZMTP 1.0 or 2.0.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serve::shutdown::Shutdown;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Terms, Waker};
use crate::limits;

/// Whether a peer of this address may come in; its refusals are counted and told by whoever made it.
#[derive(Clone)]
pub struct Admit(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl Admit {
    /// Who passes `judge`, which is asked once a connection, with addresses of IPv4 as such.
    pub fn by(judge: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Admit {
        Admit(Arc::new(judge))
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Admit")
    }
}

/// Everybody who can connect.
pub fn everybody() -> Admit {
    Admit::by(|_| true)
}

/// Why a door has no address.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// What is given is none.
    #[error(
        "{flag}: {address:?} is no address to listen on; write tcp://ADDRESS:PORT, such as \
         tcp://127.0.0.1:5556 or tcp://*:5556, or nothing at all to close this door"
    )]
    NoAddress {
        /// The flag.
        flag: &'static str,
        /// As it was given.
        address: String,
    },
    /// Another process has the port.
    #[error(
        "address {address} is taken by another process; choose another with {flag}, or give it nothing to close this door"
    )]
    Taken {
        /// The flag.
        flag: &'static str,
        /// As it was given.
        address: String,
    },
    /// The system refuses.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Unusable {
        /// The flag.
        flag: &'static str,
        /// As it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// What a door needs beside its address.
    #[error("the {name} door over ZeroMQ cannot be set up: {source}")]
    Setup {
        /// The door.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// The text `HOST:PORT` of a ZeroMQ address; all interfaces are `None`.
fn parts(address: &str) -> Option<(Option<&str>, u16)> {
    let (host, port) = address.strip_prefix("tcp://")?.rsplit_once(':')?;
    let port = if port == "*" { 0 } else { port.parse().ok()? };
    match host {
        "" => None,
        "*" => Some((None, port)),
        host => Some((Some(host), port)),
    }
}

/// Listens where the terms say.
pub(super) async fn listen(terms: &Terms) -> Result<TcpListener, BindError> {
    let (flag, address) = (terms.flag, terms.address.clone());
    let Some((host, port)) = parts(&address) else {
        return Err(BindError::NoAddress { flag, address });
    };
    let listener = match host {
        Some(host) => TcpListener::bind(format!("{host}:{port}")).await,
        // Both families, or the one that this machine has.
        None => match TcpListener::bind(("::", port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(("0.0.0.0", port)).await
            }
            bound => bound,
        },
    };
    listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { flag, address },
        io::ErrorKind::InvalidInput => BindError::NoAddress { flag, address },
        _ => BindError::Unusable { flag, address, source },
    })
}

/// A listener, and where libzmq's socket is.
#[derive(Debug)]
pub(super) struct Gate {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    inside: PathBuf,
}

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Gate {
    pub(super) fn new(name: &'static str, listener: TcpListener, inside: &str) -> io::Result<Gate> {
        let address = listener.local_addr()?;
        // The first byte says that the name is in no folder.
        let inside = PathBuf::from(format!("\0{inside}"));
        Ok(Gate { name, listener, address, inside })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets connections in until a stop is asked for; then tells the door's thread, and waits until
    /// it has closed those that are open.
    pub(super) async fn run(self, admit: Admit, mut shutdown: Shutdown, waker: Waker) {
        let slots = Arc::new(Semaphore::new(limits::ZEROMQ_CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            // A slot is taken first, so that a client beyond the limit waits in the kernel.
            let accepted = tokio::select! {
                biased;
                () = shutdown.requested() => break,
                Some(_) = connections.join_next() => continue,
                accepted = async {
                    let slot = Arc::clone(&slots).acquire_owned().await;
                    (self.listener.accept().await, slot)
                } => accepted,
            };
            match accepted {
                (Ok((stream, peer)), slot) => {
                    if !(admit.0)(peer.ip().to_canonical()) {
                        continue;
                    }
                    let (name, inside) = (self.name, self.inside.clone());
                    connections.spawn(async move {
                        if let Err(error) = carry(stream, &inside).await {
                            tracing::debug!(door = name, %peer, %error, "a connection ended");
                        }
                        drop(slot);
                    });
                }
                (Err(error), _) => {
                    // Out of file descriptors, mostly: it passes when connections end.
                    tracing::warn!(door = self.name, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        waker.stop();
        while connections.join_next().await.is_some() {}
    }
}

/// Copies both ways until one side ends. What libzmq has sent is delivered; what a client sends
/// after libzmq has closed is of no use to anybody.
async fn carry(mut client: TcpStream, inside: &Path) -> io::Result<()> {
    client.set_nodelay(true)?;
    // A client that lost its power must not hold its place for ever.
    rustix::net::sockopt::set_socket_keepalive(&client, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&client, limits::ZEROMQ_KEEPALIVE)?;
    let mut socket = UnixStream::connect(inside).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_socket, mut to_socket) = socket.split();
    let inwards = async {
        copy(&mut from_client, &mut to_socket).await?;
        // libzmq takes what it was sent, and then closes its side.
        to_socket.shutdown().await?;
        std::future::pending().await
    };
    tokio::select! {
        ended = inwards => ended,
        copied = copy(&mut from_socket, &mut to_client) => copied.map(drop),
    }
}
