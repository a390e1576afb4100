//! Guests' figures in a message: VM info and accounted traffic (kanyun-legacy.md, "worker →
//! server", types 2 and 3). Judges each name, time and value by itself.

use std::net::IpAddr;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::body::{self, Items};
use super::{Kind, Of, Point, Reason, Refusals, is_name, quoted};
use crate::limits;
use crate::model::instant;
use crate::model::sample::Sample;

/// More is nanoseconds and no percentage (kanyun-legacy.md).
const PERCENT_MAX: f64 = 100_000.0;
/// From here on, whole numbers are not exact (ledger.md, "A minute's value", 4).
const AMOUNT_END: f64 = 9_007_199_254_740_992.0;

/// What one figure of a record is: its metric, and what it may be at most.
#[derive(Clone, Copy)]
struct Figure {
    metric: &'static str,
    fits: fn(f64) -> bool,
}

const fn amount(metric: &'static str) -> Figure {
    Figure { metric, fits: |value| value < AMOUNT_END }
}

const CPU: [Figure; 1] =
    [Figure { metric: "kanyun_cpu_percent", fits: |value| value <= PERCENT_MAX }];
const MEM: [Figure; 2] = [amount("kanyun_mem_max_kib"), amount("kanyun_mem_free_kib")];
const NIC: [Figure; 2] =
    [amount("kanyun_nic_incoming_bytes_total"), amount("kanyun_nic_outgoing_bytes_total")];
const BLK: [Figure; 2] =
    [amount("kanyun_blk_read_bytes_total"), amount("kanyun_blk_write_bytes_total")];
const TRAFFIC: Figure = amount("kanyun_vmnetwork_bytes");

/// A guest as a worker names it.
#[derive(Clone)]
struct Guest {
    domain: Arc<str>,
    host: Arc<str>,
}

struct Figures<'r> {
    kind: Kind,
    points: Vec<Point>,
    refusals: &'r mut Refusals,
}

/// The figures of a body. One that breaks off holds none: nobody can say what is missing in it.
pub(super) fn decode(kind: Kind, text: &str, refusals: &mut Refusals) -> Vec<Point> {
    let mut of_it = Refusals::default();
    let mut figures = Figures { kind, points: Vec::new(), refusals: &mut of_it };
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde::Deserializer::deserialize_map(&mut json, &mut figures);
    match read.and_then(|()| json.end()) {
        Ok(()) => {
            let points = figures.points;
            refusals.merge(of_it);
            points
        }
        Err(error) => {
            refusals.add(Reason::Malformed, 1, || format!("{error} in {}", quoted(text)));
            Vec::new()
        }
    }
}

impl<'de> Visitor<'de> for &mut Figures<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of guests")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut guests: A) -> Result<(), A::Error> {
        let mut count = 0;
        while let Some((key, body)) = guests.next_entry::<String, &RawValue>()? {
            count += 1;
            if count > limits::WORKER_GUESTS_MAX {
                self.refusals.add(Reason::TooMany, 1, || format!("guest {}", quoted(&key)));
            } else {
                self.guest(&key, body);
            }
        }
        Ok(())
    }
}

impl Figures<'_> {
    fn guest(&mut self, key: &str, body: &RawValue) {
        let Some(Items { kept, beyond }) = body::items(body.get(), limits::WORKER_RECORDS_MAX)
        else {
            return self.malformed(key, body);
        };
        self.refusals.add(Reason::TooMany, beyond, || format!("records of {}", quoted(key)));
        let is_traffic = kept.first().is_some_and(|first| !first.get().starts_with('['));
        if is_traffic && self.kind != Kind::Traffic {
            return self.malformed(key, body);
        }
        let Some(guest) = named(key, is_traffic) else {
            self.refusals.add(Reason::Name, 1, || format!("guest {}", quoted(key)));
            return;
        };
        if is_traffic {
            return self.traffic(key, &guest, &kept);
        }
        for record in kept {
            if self.record(&guest, record).is_none() {
                self.malformed(key, record);
            }
        }
    }

    /// `[ip, time, bytes]`
    fn traffic(&mut self, key: &str, guest: &Guest, items: &[&RawValue]) {
        let [ip, time, bytes] = items else {
            let all = items.len();
            let text = || format!("traffic of {} with {all} items", quoted(key));
            return self.refusals.add(Reason::Malformed, 1, text);
        };
        // As the address is written by everybody, whoever wrote it here.
        let parsed = body::text(ip).and_then(|ip| ip.trim().parse::<IpAddr>().ok());
        let Some(parsed) = parsed else {
            let text = || format!("address {} of {}", quoted(ip.get()), quoted(key));
            return self.refusals.add(Reason::Name, 1, text);
        };
        self.figures(guest, &Of::Ip(Arc::from(parsed.to_string())), time, &[(TRAFFIC, bytes)]);
    }

    /// `[what, device, [time, value, …]]`; `None` where it is built otherwise.
    fn record(&mut self, guest: &Guest, record: &RawValue) -> Option<()> {
        let Items { kept, beyond: 0 } = body::items(record.get(), 3)? else { return None };
        let [what, device, values] = kept[..] else { return None };
        let what = body::text(what)?;
        let (figures, has_device): (&[Figure], bool) = match what.as_str() {
            "cpu" => (&CPU, false),
            "mem" => (&MEM, false),
            "nic" => (&NIC, true),
            "blk" => (&BLK, true),
            _ => {
                self.refusals.add(Reason::UnknownRecord, 1, || quoted(record.get()));
                return Some(());
            }
        };
        let Items { kept, beyond: 0 } = body::items(values.get(), 1 + figures.len())? else {
            return None;
        };
        let (time, values) = kept.split_first()?;
        if values.len() != figures.len() {
            return None;
        }
        let of = if has_device {
            let device = body::text(device)?;
            if !is_name(&device) {
                self.refusals.add(Reason::Name, values.len(), || quoted(record.get()));
                return Some(());
            }
            Of::Device(Arc::from(device))
        } else {
            Of::Guest
        };
        let figures = figures.iter().copied().zip(values.iter().copied());
        self.figures(guest, &of, time, &figures.collect::<Vec<_>>());
        Some(())
    }

    /// Figures of one part of a guest at one time, each judged by itself.
    fn figures(
        &mut self,
        guest: &Guest,
        of: &Of,
        time: &RawValue,
        figures: &[(Figure, &RawValue)],
    ) {
        let seconds = body::number(time).filter(|seconds| *seconds >= 0.0);
        let Some(timestamp_ms) = seconds.and_then(instant::of_unix_seconds) else {
            let text = || format!("{} of {}", quoted(time.get()), guest.domain);
            return self.refusals.add(Reason::Time, figures.len(), text);
        };
        for (figure, raw) in figures {
            match judged(*figure, raw) {
                Ok(value) => self.points.push(Point {
                    metric: figure.metric,
                    domain: Arc::clone(&guest.domain),
                    host: Arc::clone(&guest.host),
                    of: of.clone(),
                    sample: Sample { timestamp_ms, value, start_ms: None },
                }),
                Err(reason) => {
                    let text =
                        || format!("{} {} of {}", figure.metric, quoted(raw.get()), guest.domain);
                    self.refusals.add(reason, 1, text);
                }
            }
        }
    }

    fn malformed(&mut self, key: &str, what: &RawValue) {
        let text = || format!("{} of {}", quoted(what.get()), quoted(key));
        self.refusals.add(Reason::Malformed, 1, text);
    }
}

fn judged(figure: Figure, raw: &RawValue) -> Result<f64, Reason> {
    let value = body::number(raw).ok_or(Reason::NotANumber)?;
    if value < 0.0 {
        Err(Reason::Negative)
    } else if !(figure.fits)(value) {
        Err(Reason::TooLarge)
    } else {
        // A zero has no sign here.
        Ok(value.abs())
    }
}

/// `domain` or `domain@host`. Accounting rules name a guest by nova's decimal id: `116@host` is
/// `instance-00000074` on that host.
fn named(key: &str, is_traffic: bool) -> Option<Guest> {
    let (domain, host) =
        key.rsplit_once('@').map_or((key, None), |(name, host)| (name, Some(host)));
    if !is_name(domain) || !host.is_none_or(is_name) {
        return None;
    }
    let is_id = is_traffic && domain.bytes().all(|byte| byte.is_ascii_digit());
    let domain = if is_id {
        format!("instance-{:08x}", domain.parse::<u64>().ok()?).into()
    } else {
        Arc::from(domain)
    };
    Some(Guest { domain, host: Arc::from(host.unwrap_or_default()) })
}
