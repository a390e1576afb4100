//! The ingest door: where workers of 2012 push their messages (PULL). Reads no more than the feed
//! takes, so that what cannot be stored now waits with the workers. It must not know what the
//! messages say.

#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serve::shutdown::Shutdown;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::gate::BindError;
use super::stream::{Bounds, Fault};
use super::{Bound, Door, Messages, Porter, Terms, Wire};
use crate::feed::{Feed, Frames, Refused};
use crate::limits;
use crate::metrics::FeedMetrics;
use crate::worker::Reason;
use crate::worker::sources::{Source, Sources};

/// The flag of the door's address.
const ADDRESS: &str = "--legacy.ingest-address";

/// How often the thread looks around when nothing comes.
const IDLE: Duration = Duration::from_secs(60);

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Its address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Nothing says who may send.
    #[error(
        "{ADDRESS}: {0} is not on loopback alone, and workers of 2012 have neither users nor passwords: name the addresses or networks of the workers with --legacy.ingest-allow"
    )]
    Everybody(String),
}

/// What [`Ingest::bind`] would say to an address, without taking it.
pub async fn check(address: &str, allowed: &[Source]) -> Result<(), IngestError> {
    let given = || address.to_owned();
    let no_address = || BindError::NoAddress { flag: ADDRESS, address: given() };
    let place = address.strip_prefix("tcp://").ok_or_else(no_address)?;
    let on_loopback = !place.starts_with("*:") && {
        let place = place.replace(":*", ":0");
        let found = tokio::net::lookup_host(place).await;
        let mut found = found.map_err(|source| match source.kind() {
            io::ErrorKind::InvalidInput => no_address(),
            _ => BindError::Unusable { flag: ADDRESS, address: given(), source },
        })?;
        found.all(|address| address.ip().is_loopback())
    };
    if on_loopback || !allowed.is_empty() { Ok(()) } else { Err(IngestError::Everybody(given())) }
}

/// The door with its address, not open yet.
#[derive(Debug)]
pub struct Ingest {
    bound: Bound,
    sources: Sources,
}

/// The open door, and the feed behind it.
#[derive(Debug)]
pub struct OpenIngest {
    door: Door,
    feed: Option<JoinHandle<()>>,
    metrics: FeedMetrics,
}

impl Ingest {
    /// Takes the address. Where `allowed` names nobody, everybody on this machine may send, and the
    /// address must be one of loopback.
    pub async fn bind(address: &str, allowed: &[Source]) -> Result<Ingest, IngestError> {
        let terms = Terms {
            name: "ingest",
            flag: ADDRESS,
            address: address.to_owned(),
            kind: zmq::PULL,
            message_max: Bounds {
                frames: limits::WORKER_MESSAGE_FRAMES_MAX,
                bytes: limits::WORKER_MESSAGE_BYTES_MAX,
            },
            received_max: limits::WORKER_PEER_MESSAGES_MAX,
            sent_max: limits::WORKER_PEER_MESSAGES_MAX,
        };
        let bound = Bound::new(&terms).await?;
        let sources = if !allowed.is_empty() {
            Sources::Only(allowed.to_vec())
        } else if bound.address().ip().is_loopback() {
            Sources::Everybody
        } else {
            return Err(IngestError::Everybody(address.to_owned()));
        };
        Ok(Ingest { bound, sources })
    }

    /// Opens the door: what comes through it goes to the feed until a stop is asked for.
    pub fn open(self, feed: Feed, shutdown: Shutdown) -> io::Result<OpenIngest> {
        let Ingest { bound, sources } = self;
        tracing::info!(address = %bound.address(), "workers of 2012 may send");
        let (metrics, refused) = (feed.metrics(), feed.refused());
        let porter = Arc::new(Guard { sources, refused });
        let (sender, arriving) = mpsc::channel(limits::WORKER_MESSAGES_WAITING_MAX);
        let counted = metrics.clone();
        let door = bound.open(porter, shutdown, move |wire| read(&wire, &sender, &counted))?;
        let feed = Some(tokio::spawn(feed.run(arriving)));
        Ok(OpenIngest { door, feed, metrics })
    }
}

/// Knows whose workers may send.
struct Guard {
    sources: Sources,
    refused: Refused,
}

impl Porter for Guard {
    fn admits(&self, address: IpAddr) -> bool {
        let allowed = self.sources.allow(Some(address));
        if !allowed {
            self.refused.add(Reason::Source, || format!("a connection from {address}"));
        }
        allowed
    }

    fn cut(&self, address: IpAddr, fault: Fault) {
        let reason = match fault {
            Fault::Frames(_) | Fault::Bytes(_) => Reason::Size,
            Fault::NoZeromq => Reason::Malformed,
        };
        self.refused.add(reason, || format!("{fault} from {address}, which was cut off"));
    }
}

/// Reads messages until a stop, and then those that have come in already. A feed that is full makes
/// this thread wait, and with it the workers.
fn read(wire: &Wire, feed: &mpsc::Sender<Frames>, metrics: &FeedMetrics) -> Result<(), zmq::Error> {
    loop {
        let stopping = wire.wait(Messages::Take, IDLE)?.stopping;
        let most = if stopping { limits::WORKER_MESSAGES_AT_STOP_MAX } else { 1 };
        for _ in 0..most {
            let Some(message) = wire.receive(limits::WORKER_FRAMES_MAX)? else { break };
            metrics.arrived();
            if feed.blocking_send(message.frames).is_err() {
                // The feed was given up; who did that tells what is lost.
                return Ok(());
            }
        }
        if stopping {
            return Ok(());
        }
    }
}

impl OpenIngest {
    /// Waits until the door or the feed has failed; for ever where they end because of a stop.
    pub async fn failed(&mut self) -> String {
        let feed = async {
            match &mut self.feed {
                Some(feed) => feed.await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = self.door.ended() => ended,
            ended = feed => {
                self.feed = None;
                match ended {
                    // It ends after the door, which knows why.
                    Ok(()) => self.door.ended().await,
                    Err(error) => Err(format!("the feed of workers has failed: {error}")),
                }
            }
        };
        match ended {
            Err(why) => why,
            Ok(()) => std::future::pending().await,
        }
    }

    /// Waits for so long, after a stop was asked for, until all that was read is stored; then gives
    /// up, and says what is lost.
    pub async fn finish(mut self, patience: Duration) {
        if let Some(mut feed) = self.feed.take()
            && timeout(patience, &mut feed).await.is_err()
        {
            // The door's thread ends when nobody takes its messages any more.
            feed.abort();
            feed.await.ok();
        }
        let lost = self.metrics.waiting();
        if lost > 0 {
            tracing::error!(
                messages = lost,
                "messages of workers that were read are lost: the store did not take them before the end"
            );
        }
    }
}
