//! The gate of a door: listens on TCP, lets in whom it may, and no more than fit, and copies bytes
//! to and from libzmq's socket. libzmq itself bounds neither connections nor a message's frames, and
//! tells no address of peers that speak ZMTP 1.0 or 2.0.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serve::shutdown::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::ReadHalf;
use tokio::net::unix::WriteHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::stream::{Bounds, Cut, Fault, Stream};
use super::{Terms, Waker};
use crate::limits;

/// Who stands at a gate: counts and tells whom it refuses, and whom it cuts off.
pub trait Porter: Send + Sync + 'static {
    /// Whether a peer of this address may come in. Asked once a connection, with addresses of IPv4
    /// as such.
    fn admits(&self, address: IpAddr) -> bool;

    /// A peer of this address was cut off, for this.
    fn cut(&self, address: IpAddr, fault: Fault);
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

/// Whether an address can be one, as --config.check asks, without listening.
pub fn check(flag: &'static str, address: &str) -> Result<(), BindError> {
    let no_address = || BindError::NoAddress { flag, address: address.to_owned() };
    parts(address).map(drop).ok_or_else(no_address)
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
    bounds: Bounds,
}

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Gate {
    /// A gate before the socket that is bound to `inside`.
    pub(super) fn new(terms: &Terms, listener: TcpListener, inside: &str) -> io::Result<Gate> {
        let address = listener.local_addr()?;
        // The first byte says that the name is in no folder.
        let inside = PathBuf::from(format!("\0{inside}"));
        Ok(Gate { name: terms.name, listener, address, inside, bounds: terms.message_max })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets connections in until a stop is asked for; then tells the door's thread, and waits until
    /// it has closed those that are open.
    pub(super) async fn run(self, porter: Arc<dyn Porter>, mut shutdown: Shutdown, waker: Waker) {
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
                    let address = peer.ip().to_canonical();
                    if !porter.admits(address) {
                        continue;
                    }
                    let (name, inside, bounds) = (self.name, self.inside.clone(), self.bounds);
                    let porter = Arc::clone(&porter);
                    connections.spawn(async move {
                        let cut = |fault| porter.cut(address, fault);
                        if let Err(error) = carry(stream, &inside, bounds, cut).await {
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

/// Copies both ways until one side ends, or until a message exceeds its bounds, which is told. What
/// libzmq has sent is delivered; what a client sends after libzmq has closed is of no use to anybody.
async fn carry(
    mut client: TcpStream,
    inside: &Path,
    bounds: Bounds,
    cut: impl Fn(Fault),
) -> io::Result<()> {
    client.set_nodelay(true)?;
    // A client that lost its power must not hold its place for ever.
    rustix::net::sockopt::set_socket_keepalive(&client, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&client, limits::ZEROMQ_KEEPALIVE)?;
    let mut socket = UnixStream::connect(inside).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_socket, mut to_socket) = socket.split();
    let inwards = async {
        let fault = copy_followed(&mut from_client, &mut to_socket, bounds).await?;
        // libzmq takes what it was sent, and then closes its side.
        to_socket.shutdown().await?;
        if let Some(fault) = fault {
            cut(fault);
            tokio::time::sleep(limits::ZEROMQ_LINGER).await;
            return Ok(());
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = inwards => ended,
        copied = copy(&mut from_socket, &mut to_client) => copied.map(drop),
    }
}

/// Copies what a client sends until it ends, or to the fault that is given.
async fn copy_followed(
    client: &mut ReadHalf<'_>,
    socket: &mut WriteHalf<'_>,
    bounds: Bounds,
) -> io::Result<Option<Fault>> {
    let mut stream = Stream::new(bounds);
    let mut buffer = vec![0; limits::ZEROMQ_COPY_BYTES];
    loop {
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        let read = buffer.split_at(count).0;
        match stream.follow(read) {
            Ok(()) => socket.write_all(read).await?,
            Err(Cut { at, fault }) => {
                socket.write_all(read.split_at(at).0).await?;
                return Ok(Some(fault));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_zeromq_writes_them() {
        for (address, expected) in [
            ("tcp://127.0.0.1:5556", Some((Some("127.0.0.1"), 5556))),
            ("tcp://[::1]:5556", Some((Some("[::1]"), 5556))),
            ("tcp://billing.example:1", Some((Some("billing.example"), 1))),
            ("tcp://*:5556", Some((None, 5556))),
            ("tcp://127.0.0.1:*", Some((Some("127.0.0.1"), 0))),
            ("tcp://:5556", None),
            ("tcp://127.0.0.1", None),
            ("tcp://127.0.0.1:65536", None),
            ("127.0.0.1:5556", None),
            ("ipc:///run/kanyun", None),
            ("", None),
        ] {
            assert_eq!(parts(address), expected, "{address}");
            assert_eq!(check("--legacy.api-address", address).is_ok(), expected.is_some());
        }
    }
}
