//! The API door: billing clients of 2012 and `api-client`, three frames in and three out. Each
//! request is answered as soon as its answer is there, in any order, so that a slow report keeps
//! nobody else waiting. What is answered, `usage` knows.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serve::shutdown::Shutdown;
use tokio::runtime::Handle;

use super::frames::{self, Back, Request};
use super::gate::BindError;
use super::stream::{Bounds, Fault};
use super::{Bound, Door, Messages, Porter, Terms, Waker, Wire};
use crate::legacy::{self, Answer, Envelope};
use crate::limits;
use crate::metrics::{RequestDoor, RequestOutcome};
use crate::usage::Usage;

/// The flag that gives its address.
pub const FLAG: &str = "--legacy.api-address";

/// The door, not open yet.
#[derive(Debug)]
pub struct Api {
    bound: Bound,
}

impl Api {
    /// Takes an address, `tcp://ADDRESS:PORT`.
    pub async fn bind(address: &str) -> Result<Api, BindError> {
        let terms = Terms {
            name: "api",
            flag: FLAG,
            address: address.to_owned(),
            kind: zmq::ROUTER,
            message_max: Bounds {
                frames: limits::API_MESSAGE_FRAMES_MAX,
                bytes: limits::API_MESSAGE_BYTES_MAX,
            },
            received_max: limits::API_PEER_REQUESTS_MAX,
            // A ROUTER drops what does not fit: there is room for all answers that can be due.
            sent_max: i32::try_from(limits::API_REQUESTS_MAX).unwrap_or(i32::MAX),
        };
        Ok(Api { bound: Bound::new(&terms).await? })
    }

    /// The address with the port that the kernel chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Answers requests until a stop is asked for, and those under way after it. Must be called
    /// inside a tokio runtime, where the answers are made.
    pub fn open(self, usage: Arc<Usage>, shutdown: Shutdown) -> std::io::Result<Door> {
        let (runtime, waker) = (Handle::current(), self.bound.waker());
        let porter = Arc::new(Open { usage: Arc::clone(&usage), told: Mutex::default() });
        self.bound.open(porter, shutdown, move |wire| {
            // Room for all that can be under way: sending never waits.
            let (finished, answers) = mpsc::sync_channel(limits::API_REQUESTS_MAX);
            let desk = Desk { usage, runtime, finished, waker };
            desk.serve(&wire, &answers)
        })
    }
}

/// Lets everybody in.
struct Open {
    usage: Arc<Usage>,
    told: Mutex<Told>,
}

/// What the log knows of those who were cut off.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

impl Porter for Open {
    fn admits(&self, _: IpAddr) -> bool {
        true
    }

    fn cut(&self, address: IpAddr, fault: Fault) {
        let outcome = match fault {
            Fault::Frames(_) | Fault::Bytes(_) => RequestOutcome::Cut,
            Fault::NoZeromq => RequestOutcome::Malformed,
        };
        self.usage.requests().count(RequestDoor::Zeromq, outcome);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += 1;
        if told.last.is_none_or(|last| last.elapsed() >= limits::API_LOG_INTERVAL) {
            let connections = std::mem::take(&mut told.since);
            told.last = Some(Instant::now());
            tracing::warn!(connections, %address, %fault, "clients of the API over ZeroMQ were cut off");
        }
    }
}

/// An answer's frames, on their way to the door's thread.
type Frames = Vec<Vec<u8>>;

/// What the door's thread has beside its socket.
struct Desk {
    usage: Arc<Usage>,
    runtime: Handle,
    finished: SyncSender<Frames>,
    waker: Waker,
}

/// How long the thread waits where nothing happens; everything that does wakes it.
const IDLE: Duration = Duration::from_hours(1);
/// Messages that are taken before answers are sent again.
const TURN: usize = 64;

impl Desk {
    fn serve(&self, wire: &Wire, answers: &Receiver<Frames>) -> Result<(), zmq::Error> {
        let (mut under_way, mut stop_by) = (0, None::<Instant>);
        let mut wait = Duration::ZERO;
        loop {
            let woken = wire.wait(Messages::Take, wait)?;
            for frames in answers.try_iter() {
                under_way -= 1;
                wire.send(frames)?;
            }
            if woken.stopping && stop_by.is_none() {
                stop_by = Some(Instant::now() + serve::limits::DRAIN_TIMEOUT);
            }
            let mut taken = 0;
            while taken < TURN
                && let Some(received) = wire.receive(frames::FRAMES_MAX)?
            {
                taken += 1;
                let Some(Request { back, body }) = Request::of(received) else {
                    self.count(RequestOutcome::Malformed);
                    continue;
                };
                match judge(body, under_way, stop_by.is_some()) {
                    Ok(body) => {
                        under_way += 1;
                        self.begin(back, body);
                    }
                    Err((outcome, why)) => {
                        self.count(outcome);
                        wire.send(back.answer(failure(why)))?;
                    }
                }
            }
            wait = match stop_by {
                Some(_) if under_way == 0 && taken == 0 => return Ok(()),
                Some(by) if by <= Instant::now() => {
                    tracing::warn!(under_way, "requests over ZeroMQ were cut off by the stop");
                    return Ok(());
                }
                _ if taken > 0 => Duration::ZERO,
                Some(by) => by.saturating_duration_since(Instant::now()),
                None => IDLE,
            };
        }
    }

    fn begin(&self, back: Back, body: Vec<u8>) {
        let usage = Arc::clone(&self.usage);
        let due =
            Due { back: Some(back), finished: self.finished.clone(), waker: self.waker.clone() };
        self.runtime.spawn(async move {
            due.send(answer(&usage, &body).await);
        });
    }

    fn count(&self, outcome: RequestOutcome) {
        self.usage.requests().count(RequestDoor::Zeromq, outcome);
    }
}

/// Whether a request may be answered now; else what its client is told.
fn judge(
    body: Result<Vec<u8>, String>,
    under_way: usize,
    stopping: bool,
) -> Result<Vec<u8>, (RequestOutcome, String)> {
    let body = body.map_err(|why| (RequestOutcome::Malformed, why))?;
    if body.len() > limits::BILLING_BODY_BYTES_MAX {
        let most = limits::BILLING_BODY_BYTES_MAX;
        let why = format!("the body has {} bytes, more than {most}", body.len());
        return Err((RequestOutcome::Malformed, why));
    }
    if stopping {
        let why = "the service is stopping; ask again";
        return Err((RequestOutcome::Busy, why.to_owned()));
    }
    if under_way >= limits::API_REQUESTS_MAX {
        let why = "too many requests are waiting; ask again";
        return Err((RequestOutcome::Busy, why.to_owned()));
    }
    Ok(body)
}

/// The third frame of an answer.
async fn answer(usage: &Arc<Usage>, body: &[u8]) -> Vec<u8> {
    let (outcome, answer) = match usage.legacy(body, legacy::Door::Any).await {
        Ok((_, answer)) => (RequestOutcome::of(&answer), answer),
        Err(error) => (RequestOutcome::Malformed, Answer::Failure(error.to_string())),
    };
    usage.requests().count(RequestDoor::Zeromq, outcome);
    // Whatever shape the body had, the first two frames are the client's own.
    answer.to_json(&Envelope::Object).unwrap_or_else(|error| failure(error.to_string()))
}

fn failure(why: String) -> Vec<u8> {
    let plain = br#"{"code":500,"message":"Request failed.","data":null}"#;
    Answer::Failure(why).to_json(&Envelope::Object).unwrap_or_else(|_| plain.to_vec())
}

/// An answer that a client waits for: where it was not sent, a failure is when this is dropped.
struct Due {
    back: Option<Back>,
    finished: SyncSender<Frames>,
    waker: Waker,
}

impl Due {
    fn send(mut self, body: Vec<u8>) {
        self.send_once(|| body);
    }

    fn send_once(&mut self, body: impl FnOnce() -> Vec<u8>) {
        if let Some(back) = self.back.take() {
            // The door's thread is gone only where it was cut off, which it told.
            self.finished.send(back.answer(body())).ok();
            self.waker.wake();
        }
    }
}

impl Drop for Due {
    fn drop(&mut self) {
        self.send_once(|| failure("the service failed; see its log".to_owned()));
    }
}
