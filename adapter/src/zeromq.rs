//! The doors of 2012 over ZeroMQ, by libzmq, which speaks to clients of every ZMTP since 1.0: what
//! doors share. A gate takes TCP connections and hands their bytes to a libzmq socket, which lives
//! on a thread of its own. It must not know what a door is asked.

pub mod api;
pub mod frames;
mod gate;
pub mod ingest;
pub mod request;
pub mod stream;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use serve::shutdown::Shutdown;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zmq::{Context, PollItem, Socket};

use crate::limits;
use gate::Gate;
pub use gate::{BindError, Porter, check};
use stream::Bounds;

/// How a door listens.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What the door is called in the log, such as `api`.
    pub name: &'static str,
    /// The flag that gave the address, for the operator's errors.
    pub flag: &'static str,
    /// `tcp://ADDRESS:PORT`, as ZeroMQ writes it.
    pub address: String,
    /// What kind of socket clients find.
    pub kind: zmq::SocketType,
    /// What one message may have; a peer that sends more is cut off.
    pub message_max: Bounds,
    /// Messages of one peer that wait to be received; more wait on the peer's side.
    pub received_max: i32,
    /// Messages to one peer that wait to leave.
    pub sent_max: i32,
}

/// A door that has its address; clients wait in the kernel's queue until it is opened.
#[derive(Debug)]
pub struct Bound {
    gate: Gate,
    wire: Wire,
}

/// A door that is open. Dropping it closes it.
#[derive(Debug)]
pub struct Door {
    name: &'static str,
    waker: Waker,
    /// Until it was told.
    ended: Option<oneshot::Receiver<Result<(), String>>>,
    gate: Option<JoinHandle<()>>,
}

/// Wakes a door's thread, from any thread. Clones wake the same.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    event: OwnedFd,
    stopping: AtomicBool,
}

/// A door's libzmq socket, to be used on the door's thread alone.
pub struct Wire {
    name: &'static str,
    socket: Socket,
    waker: Waker,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Wire").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Bound {
    /// Takes the address. Must be called inside a tokio runtime.
    pub async fn new(terms: &Terms) -> Result<Bound, BindError> {
        let listener = gate::listen(terms).await?;
        let setup = |source: std::io::Error| BindError::Setup { name: terms.name, source };
        let waker = Waker::new().map_err(setup)?;
        let socket = socket(terms).map_err(|error| setup(error.into()))?;
        let inside = inside(&socket).map_err(|error| setup(error.into()))?;
        let gate = Gate::new(terms, listener, &inside).map_err(setup)?;
        Ok(Bound { gate, wire: Wire { name: terms.name, socket, waker } })
    }

    /// The address with the port that the kernel chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.gate.address()
    }

    /// Wakes the thread that the door will have.
    pub fn waker(&self) -> Waker {
        self.wire.waker.clone()
    }

    /// Opens the door to whom `porter` lets in, and runs `work` on a thread of its own until it
    /// returns. When a stop is asked for, no connection is taken any more and [`Wire::wait`] tells
    /// `work` to come to an end; those that are open end with it.
    pub fn open(
        self,
        porter: Arc<dyn Porter>,
        shutdown: Shutdown,
        work: impl FnOnce(Wire) -> Result<(), zmq::Error> + Send + 'static,
    ) -> std::io::Result<Door> {
        let Bound { gate, wire } = self;
        let (name, waker) = (wire.name, wire.waker.clone());
        let (tell, ended) = oneshot::channel();
        std::thread::Builder::new().name(format!("zeromq-{name}")).spawn(move || {
            // Nobody to tell is left where the process ends anyway.
            tell.send(work(wire).map_err(|error| error.to_string())).ok();
        })?;
        let gate = tokio::spawn(gate.run(porter, shutdown, waker.clone()));
        Ok(Door { name, waker, ended: Some(ended), gate: Some(gate) })
    }
}

impl Door {
    /// Waits for the end: of the work, then of the connections, for so long as an answer may take
    /// to leave. The error is the door's own, told once, and the process should not go on without
    /// the door. May be given up and called again.
    pub async fn ended(&mut self) -> Result<(), String> {
        if let Some(waiting) = &mut self.ended {
            let ended = waiting.await;
            self.ended = None;
            let ended = ended.unwrap_or_else(|_| Err("its thread broke down".to_owned()));
            ended.map_err(|why| format!("the {} door over ZeroMQ has failed: {why}", self.name))?;
        }
        if let Some(gate) = &mut self.gate {
            let closed = tokio::time::timeout(limits::ZEROMQ_LINGER, &mut *gate).await;
            if closed.is_err() {
                gate.abort();
            }
            self.gate = None;
        }
        Ok(())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.waker.stop();
        if let Some(gate) = &self.gate {
            gate.abort();
        }
    }
}

impl Waker {
    fn new() -> std::io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker(Arc::new(Signal { event, stopping: AtomicBool::new(false) })))
    }

    /// Ends the [`Wire::wait`] that is under way, or else the next one.
    pub fn wake(&self) {
        // It can only fail where it was written 2^64 times without a wait: then it is awake.
        rustix::io::write(self.0.event.as_fd(), &1_u64.to_ne_bytes()).ok();
    }

    /// Asks the door's thread to come to an end.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }
}

/// What a [`Wire::wait`] ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// A message can be received.
    pub readable: bool,
    /// A stop was asked for.
    pub stopping: bool,
}

impl Wire {
    /// Waits until a message can be received, if `messages` asks for that, or until the door is
    /// woken, or for so long.
    pub fn wait(&self, messages: Messages, at_most: Duration) -> Result<Woken, zmq::Error> {
        let event = self.waker.0.event.as_raw_fd();
        let mut items =
            [PollItem::from_fd(event, zmq::POLLIN), self.socket.as_poll_item(zmq::POLLIN)];
        let watched = match messages {
            Messages::Take => &mut items[..],
            Messages::Leave => &mut items[..1],
        };
        let at_most = i64::try_from(at_most.as_millis()).unwrap_or(i64::MAX);
        match zmq::poll(watched, at_most) {
            Ok(_) | Err(zmq::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        let readable = items.get(1).is_some_and(PollItem::is_readable);
        // Nothing to read is no fault: it was the socket that ended the wait.
        rustix::io::read(self.waker.0.event.as_fd(), &mut [0; 8]).ok();
        Ok(Woken { readable, stopping: self.waker.0.stopping.load(Ordering::SeqCst) })
    }

    /// The next message, if there is one. Of one with more frames than `frames_max` the others are
    /// dropped, and it is told by [`Received::cut`].
    pub fn receive(&self, frames_max: usize) -> Result<Option<Received>, zmq::Error> {
        let mut received = Received { frames: Vec::new(), cut: false };
        let mut flags = zmq::DONTWAIT;
        loop {
            let frame = match self.socket.recv_msg(flags) {
                Ok(frame) => frame,
                Err(zmq::Error::EAGAIN) if received.frames.is_empty() => return Ok(None),
                Err(zmq::Error::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let more = frame.get_more();
            if received.frames.len() < frames_max {
                received.frames.push(frame.to_vec());
            } else {
                received.cut = true;
            }
            if !more {
                return Ok(Some(received));
            }
            // libzmq hands a message out when it has all of it.
            flags = 0;
        }
    }

    /// Sends a message. To a peer that went away, or that reads nothing, it is dropped.
    pub fn send(&self, frames: Vec<Vec<u8>>) -> Result<(), zmq::Error> {
        match self.socket.send_multipart(frames, zmq::DONTWAIT) {
            Ok(()) | Err(zmq::Error::EAGAIN | zmq::Error::EHOSTUNREACH) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a wait ends with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// It does.
    Take,
    /// Messages wait where they are.
    Leave,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its frames, the first ones where there were too many.
    pub frames: Vec<Vec<u8>>,
    /// Whether there were more.
    pub cut: bool,
}

fn socket(terms: &Terms) -> Result<Socket, zmq::Error> {
    // A context for each door: it goes with the door's thread.
    let socket = Context::new().socket(terms.kind)?;
    let linger = i32::try_from(limits::ZEROMQ_LINGER.as_millis()).unwrap_or(i32::MAX);
    socket.set_linger(linger)?;
    // The gate judges before: this is what libzmq would allocate for a frame at most.
    socket.set_maxmsgsize(i64::try_from(terms.message_max.bytes).unwrap_or(i64::MAX))?;
    socket.set_rcvhwm(terms.received_max)?;
    socket.set_sndhwm(terms.sent_max)?;
    let handshake = i32::try_from(limits::ZEROMQ_HANDSHAKE.as_millis()).unwrap_or(i32::MAX);
    socket.set_handshake_ivl(handshake)?;
    socket.set_backlog(i32::try_from(limits::ZEROMQ_CONNECTIONS_MAX).unwrap_or(i32::MAX))?;
    if terms.kind == zmq::ROUTER {
        // A client with a name of its own that comes again is the same client.
        socket.set_router_handover(true)?;
    }
    Ok(socket)
}

/// Binds the socket where the gate finds it: a name that is in no folder, so that nothing is left
/// of it whatever ends the process.
fn inside(socket: &Socket) -> Result<String, zmq::Error> {
    let name = format!("kanyun-{}", random_name()?);
    socket.bind(&format!("ipc://@{name}"))?;
    Ok(name)
}

/// A name that nobody guesses, and that no two processes have.
fn random_name() -> Result<String, zmq::Error> {
    let mut number = [0; 16];
    rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| zmq::Error::from_raw(error.raw_os_error()))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(number)))
}
