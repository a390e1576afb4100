//! What a 2012 worker sends: two frames `[msg_type, JSON]`, decoded to heartbeats and to samples
//! of series (kanyun-legacy.md, "worker → server"). Pure: bytes in, plain values out. A value that
//! cannot be one is refused by itself, and the rest of its message is kept.

mod body;
mod figures;
mod refusals;
pub mod roster;
pub mod sources;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::limits;
use crate::model::labels::METRIC_NAME;
use crate::model::sample::Sample;
pub use refusals::{Reason, Refusals};

/// The job of all series of workers; the ledger knows them by it (ledger.md, "Families and their
/// sources").
pub const JOB: &str = "kanyun-worker";

/// What a message is, by its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `0`
    Heartbeat,
    /// `1`: no worker ever sent it.
    LocalInfo,
    /// `2`: accounted bytes; VM info as well, in the README of 2012.
    Traffic,
    /// `3`
    VmInfo,
    /// Anything else.
    Unknown,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::Heartbeat, Kind::LocalInfo, Kind::Traffic, Kind::VmInfo, Kind::Unknown];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Heartbeat => "heartbeat",
            Kind::LocalInfo => "local_info",
            Kind::Traffic => "traffic",
            Kind::VmInfo => "vm_info",
            Kind::Unknown => "unknown",
        }
    }

    fn of(frame: &[u8]) -> Kind {
        match frame.trim_ascii() {
            b"0" => Kind::Heartbeat,
            b"1" => Kind::LocalInfo,
            b"2" => Kind::Traffic,
            b"3" => Kind::VmInfo,
            _ => Kind::Unknown,
        }
    }
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The worker's id, as its configuration says.
    pub worker: String,
    /// Whether it takes its leave (status 0).
    pub leaving: bool,
}

/// One sample of one series of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of the metric.
    pub metric: &'static str,
    /// libvirt's name of the guest.
    pub domain: Arc<str>,
    /// The host, where the guest's key carries `@host`; else empty.
    pub host: Arc<str>,
    /// What the figure is of, within the guest.
    pub of: Of,
    /// Time and value.
    pub sample: Sample,
}

/// A part of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// The guest itself.
    Guest,
    /// A NIC or a disk, by its name on the host.
    Device(Arc<str>),
    /// An address.
    Ip(Arc<str>),
}

impl Point {
    /// The labels of its series, canonical: sorted by name, none empty. They depend on the figure
    /// alone, never on the connection or the worker, so that a resend is the same sample.
    pub fn labels(&self) -> Vec<(&'static str, &str)> {
        let mut labels = Vec::with_capacity(5);
        labels.extend([(METRIC_NAME, self.metric), ("domain", &self.domain)]);
        if !self.host.is_empty() {
            labels.push(("host", &self.host));
        }
        match &self.of {
            Of::Guest => labels.push(("job", JOB)),
            Of::Device(device) => labels.extend([("job", JOB), ("target_device", &**device)]),
            Of::Ip(ip) => labels.extend([("ip", &**ip), ("job", JOB)]),
        }
        labels
    }
}

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A worker lives, or leaves.
    Heartbeat(Heartbeat),
    /// Figures of guests; nobody says which worker sent them.
    Points(Vec<Point>),
    /// Of a type that means nothing to us.
    Ignored,
}

/// What a message was and what it holds; what is refused of it is added to `refusals`.
pub fn decode(frames: &[impl AsRef<[u8]>], refusals: &mut Refusals) -> (Kind, Message) {
    let [kind, body] = frames else {
        let first = frames.first().map_or(Kind::Unknown, |frame| Kind::of(frame.as_ref()));
        refusals.add(Reason::Malformed, 1, || format!("a message of {} frames", frames.len()));
        return (first, Message::Ignored);
    };
    let kind = Kind::of(kind.as_ref());
    if matches!(kind, Kind::LocalInfo | Kind::Unknown) {
        return (kind, Message::Ignored);
    }
    let Ok(text) = str::from_utf8(body.as_ref()) else {
        refusals.add(Reason::Malformed, 1, || "a body that is not utf-8".to_owned());
        return (kind, Message::Ignored);
    };
    let text = body::with_numbers_only(text);
    if kind == Kind::Heartbeat {
        let message = match heartbeat(&text) {
            Ok(heartbeat) => Message::Heartbeat(heartbeat),
            Err(reason) => {
                refusals.add(reason, 1, || format!("heartbeat {}", quoted(&text)));
                Message::Ignored
            }
        };
        return (kind, message);
    }
    (kind, Message::Points(figures::decode(kind, &text, refusals)))
}

/// `[worker_id, unix_time, status]`. The time is the worker's own clock, and nothing depends on it.
fn heartbeat(text: &str) -> Result<Heartbeat, Reason> {
    let items = body::items(text, 3).filter(|items| items.beyond == 0);
    let Some([worker, _time, status]) = items.as_ref().map(|items| &items.kept[..]) else {
        return Err(Reason::Malformed);
    };
    let worker = body::text(worker).unwrap_or_else(|| worker.get().to_owned());
    let leaving = body::number(status).ok_or(Reason::Malformed)? == 0.0;
    if is_name(&worker) { Ok(Heartbeat { worker, leaving }) } else { Err(Reason::Name) }
}

/// Whether a text can be the name of a worker, a guest, a host or a device: it becomes a label, and
/// a line of a log or a table.
fn is_name(text: &str) -> bool {
    let fits = (1..=limits::WORKER_NAME_BYTES_MAX).contains(&text.len());
    fits && !text.chars().any(char::is_control)
}

/// The begin of a text from outside, for a log.
fn quoted(text: &str) -> String {
    const QUOTED_BYTES_MAX: usize = 120;
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    let more = if end < text.len() { "…" } else { "" };
    format!("{:?}{more}", text.split_at(end).0)
}
