//! Sockets that systemd hands to a service that it starts for them (sd_listen_fds(3)): the only `listenfd`.
//! It must not know what is served on them.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use thiserror::Error;

use crate::settings::ServiceFlags;

/// What was handed over, or why it is of no use.
#[derive(Debug)]
pub struct Sockets(Result<Vec<TcpListener>, SocketsError>);

/// Why --web.systemd-socket gives nothing to listen on.
#[derive(Debug, Error)]
pub enum SocketsError {
    /// The process was started by something else than its socket unit.
    #[error(
        "systemd handed over no socket (--web.systemd-socket): start the service by its socket unit, \
         or leave the flag out to listen on --web.listen-address"
    )]
    None,
    /// It is no TCP socket.
    #[error(
        "a socket that systemd handed over is of no use (--web.systemd-socket): {0}; its unit must name TCP ports by ListenStream="
    )]
    NotTcp(std::io::Error),
    /// It is a connection.
    #[error(
        "what systemd handed over is a connection and no listening socket (--web.systemd-socket, \
         file descriptor {0}): its unit must say Accept=no"
    )]
    NotListening(i32),
}

impl Sockets {
    /// Nothing was handed over.
    pub fn none() -> Self {
        Self(Err(SocketsError::None))
    }

    /// What this process was started with, where the flags ask for it. Call it before the first thread is started: it
    /// takes LISTEN_FDS and LISTEN_PID out of the environment, so that no program that is started later takes the sockets
    /// for its own.
    pub fn handed_over(flags: &ServiceFlags) -> Self {
        if !flags.systemd_socket || flags.config_check {
            return Self::none();
        }
        let mut handed = ListenFd::from_env();
        let all = (0..handed.len()).map(|number| listener(&mut handed, number));
        let all = all.filter_map(Result::transpose).collect();
        match all {
            Ok(all) if Vec::is_empty(&all) => Self::none(),
            all => Self(all),
        }
    }

    /// The sockets, in the order of the unit; at least one.
    pub(crate) fn listeners(self) -> Result<Vec<TcpListener>, SocketsError> {
        self.0
    }
}

fn listener(handed: &mut ListenFd, number: usize) -> Result<Option<TcpListener>, SocketsError> {
    let listener = handed.take_tcp_listener(number).map_err(SocketsError::NotTcp)?;
    if let Some(listener) = &listener
        && !socket_acceptconn(listener).unwrap_or(false)
    {
        return Err(SocketsError::NotListening(listener.as_raw_fd()));
    }
    Ok(listener)
}
