//! The sockets that a service listens on: bound to its addresses or handed over by systemd, all of them or none.
//! It must not know what is done with a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, lookup_host};

use crate::settings::ServiceFlags;
use crate::sockets::{Sockets, SocketsError};
use crate::web_config::WebConfigError;

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
    /// Another address of this service includes it.
    #[error(
        "address {address} cannot be listened on beside {other}, which is given as well \
         (--web.listen-address)"
    )]
    Twice {
        /// As it was given.
        address: String,
        /// The one that has it.
        other: SocketAddr,
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
    /// systemd handed over nothing of use.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    /// A socket of systemd's that the kernel does not let us use.
    #[error("cannot listen on a socket that systemd handed over (--web.systemd-socket): {0}")]
    HandedOver(io::Error),
}

impl BindError {
    fn new(given: &str, source: io::Error) -> Self {
        let address = given.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address },
            io::ErrorKind::PermissionDenied => Self::Forbidden { address },
            _ => Self::Unusable { address, source },
        }
    }
}

/// Listening sockets; what connects waits in the kernel's queue until it is accepted.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    /// The socket that is looked at first for the next connection, so that a crowd at one does not shut out the others.
    next: usize,
}

impl Listeners {
    /// Listens as the flags say.
    pub(super) async fn of(flags: &ServiceFlags, sockets: Sockets) -> Result<Self, BindError> {
        let mut listeners = Self::default();
        if flags.systemd_socket {
            for socket in sockets.listeners()? {
                listeners.take_over(socket).map_err(BindError::HandedOver)?;
            }
            return Ok(listeners);
        }
        for given in &flags.listen_addresses {
            if let Err(error) = listeners.bind(given).await {
                return Err(listeners.refused(given, error).await);
            }
        }
        Ok(listeners)
    }

    /// Whether the addresses of the flags make sense, without listening.
    pub(super) async fn check(flags: &ServiceFlags) -> Result<(), BindError> {
        if flags.systemd_socket {
            return Ok(());
        }
        for given in &flags.listen_addresses {
            resolved(given).await.map_err(|source| BindError::new(given, source))?;
        }
        Ok(())
    }

    /// The addresses with the ports that the kernel chose where 0 was asked for, in the order of the flags.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The next connection to any of them.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.sockets.len();
        let in_turn = self.sockets.iter().enumerate().cycle().skip(self.next).take(count);
        for (idx, socket) in in_turn {
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                self.next = (idx + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    async fn bind(&mut self, given: &str) -> io::Result<()> {
        let socket = listen(given).await?;
        self.addresses.push(socket.local_addr()?);
        self.sockets.push(socket);
        Ok(())
    }

    fn take_over(&mut self, socket: std::net::TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        self.addresses.push(socket.local_addr()?);
        self.sockets.push(TcpListener::from_std(socket)?);
        Ok(())
    }

    /// Why an address cannot be listened on: it may be one of ours that is in the way.
    async fn refused(&self, given: &str, error: io::Error) -> BindError {
        let wanted = match error.kind() {
            io::ErrorKind::AddrInUse => resolved(given).await.unwrap_or_default(),
            _ => Vec::new(),
        };
        let is_in_the_way = |other: &&SocketAddr| wanted.iter().any(|one| overlap(*one, **other));
        match self.addresses.iter().find(is_in_the_way) {
            Some(other) => BindError::Twice { address: given.to_owned(), other: *other },
            None => BindError::new(given, error),
        }
    }
}

/// Whether one socket has connections to the other's address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` takes connections of both families.
    let covers = |any: IpAddr, ip: IpAddr| any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4());
    let (one_ip, other_ip) = (one.ip(), other.ip());
    let is_shared = one_ip == other_ip || covers(one_ip, other_ip) || covers(other_ip, one_ip);
    one.port() == other.port() && is_shared
}

async fn resolved(given: &str) -> io::Result<Vec<SocketAddr>> {
    let every = if given.starts_with(':') { "[::]" } else { "" };
    Ok(lookup_host(format!("{every}{given}")).await?.collect())
}

async fn listen(given: &str) -> io::Result<TcpListener> {
    let Some(port) = given.strip_prefix(':') else { return TcpListener::bind(given).await };
    // `:PORT` is all interfaces of both families, or of the one that this machine has.
    match TcpListener::bind(format!("[::]:{port}")).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        Ok(listener) => Ok(listener),
    }
}
