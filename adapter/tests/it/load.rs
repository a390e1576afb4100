//! Senders that write as Prometheus does, on several connections at once, and remember what was
//! acknowledged; and the judge of what a store has made of it. Every sample has a place and a value
//! of its own, and every sender has a guest whose bill it knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use adapter::wire::messages::TimeSeries;
use adapter::wire::negotiate::Protocol;
use serde_json::{Value, json};

use crate::adapter_process::{AdapterProcess, command, now_ms};
use crate::http_client;
use crate::remote::{self, BOTH, series};

/// The metric of what senders write, but for the bills.
const METRIC: &str = "load";
/// A counter that is billed.
const BILLED: &str = "libvirt_domain_interface_stats_receive_bytes_total";
const DAY_MS: i64 = 86_400_000;

/// What a sender's requests are like.
struct Kind {
    /// Guests; each request has a sample of each.
    guests: u64,
    /// From one request's samples to the next.
    step_ms: i64,
    /// How long ago the first samples are.
    age_ms: i64,
    /// Requests whose series are new and have long labels, so that the index fills its tables.
    heavy: u64,
}

/// Requests of all lengths, so that commits of all lengths are under way at any time; samples of
/// now, and late ones over window, day and week borders.
const KINDS: [Kind; 7] = [
    Kind { guests: 4, step_ms: 1, age_ms: 3_600_000, heavy: 0 },
    Kind { guests: 1, step_ms: 250, age_ms: 7_200_000, heavy: 0 },
    Kind { guests: 4, step_ms: 5_000, age_ms: DAY_MS, heavy: 0 },
    Kind { guests: 16, step_ms: 20_000, age_ms: 2 * DAY_MS, heavy: 0 },
    Kind { guests: 4, step_ms: 60_000, age_ms: 9 * DAY_MS, heavy: 0 },
    Kind { guests: 300, step_ms: 1_000, age_ms: 3_600_000, heavy: 0 },
    Kind { guests: 1, step_ms: 500, age_ms: 8 * DAY_MS, heavy: 60 },
];

/// How many senders there are.
pub(crate) const SENDERS: u64 = KINDS.len() as u64;

/// Labels of a series that is to be heavy, each of nearly the most bytes that a value may have.
const HEAVY_LABELS: u64 = 10;
const HEAVY_BYTES: usize = 4_000;

/// A sequence of requests, each sent until it is acknowledged, however often the server dies.
#[derive(Debug)]
pub(crate) struct Sender {
    number: u64,
    start_ms: i64,
    /// The next request; it may have been sent before, without an answer.
    pub(crate) next: u64,
    /// Whether the last request was sent and not answered.
    pub(crate) unanswered: bool,
}

/// One of each kind.
pub(crate) fn senders() -> Vec<Sender> {
    let now_ms = now_ms();
    (0..SENDERS)
        .map(|number| {
            let start_ms = now_ms - KINDS[usize::try_from(number).unwrap()].age_ms;
            Sender { number, start_ms, next: 0, unanswered: false }
        })
        .collect()
}

/// The service that senders write to.
pub(crate) fn service(folder: &Path) -> Command {
    let mut command = command();
    command.arg("--store.path").arg(folder);
    command
}

impl Sender {
    /// Sends request after request until there is no answer any more, and tells of each answer.
    fn send_until_cut(&mut self, address: SocketAddr, acknowledged: &(dyn Fn() + Sync)) {
        let protocol = BOTH[usize::from(self.number.is_multiple_of(2))];
        loop {
            let body = remote::write_body(protocol, &self.request(self.next));
            let headers = [("content-type", remote::content_type(protocol))];
            let answer = http_client::request(address, "POST /api/v1/write", &headers, &body);
            self.unanswered = answer.is_err();
            let Ok(answer) = answer else { return };
            assert_eq!(answer.status, 204, "{answer:?}");
            acknowledged();
            let written = answer.header("x-prometheus-remote-write-samples-written");
            let samples = self.kind().guests + 1;
            let expected = (protocol == Protocol::V2).then(|| samples.to_string());
            assert_eq!(written, expected.as_deref());
            self.next += 1;
        }
    }

    fn kind(&self) -> &'static Kind {
        &KINDS[usize::try_from(self.number).unwrap()]
    }

    fn time(&self, request: u64) -> i64 {
        self.start_ms + i64::try_from(request).unwrap() * self.kind().step_ms
    }

    fn request(&self, number: u64) -> Vec<TimeSeries> {
        let sender = self.number.to_string();
        let samples = self.samples(number).map(|((guest, time), value)| {
            let heavy = self.heavy_labels(number);
            let mut labels = vec![("__name__", METRIC), ("sender", &*sender), ("uuid", &*guest)];
            labels.extend(heavy.iter().map(|(name, value)| (&**name, &**value)));
            labels.sort_unstable();
            series(&labels, &[(time, value)])
        });
        let guest = self.billed_guest();
        let labels =
            [("__name__", BILLED), ("domain", "d"), ("target_device", "tap0"), ("uuid", &*guest)];
        let counter = series(&labels, &[(self.time(number), counted(number))]);
        samples.chain([counter]).collect()
    }

    fn heavy_labels(&self, request: u64) -> Vec<(String, String)> {
        if request >= self.kind().heavy {
            return Vec::new();
        }
        let label = |number| {
            let mut text = format!("{request} {number} ");
            while text.len() < HEAVY_BYTES {
                // Nothing that compression would shorten.
                text += &format!("{:x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()));
            }
            text.truncate(HEAVY_BYTES);
            (format!("heavy_{number}"), text)
        };
        (0..HEAVY_LABELS).map(label).collect()
    }

    /// The samples of a request but for the counter.
    fn samples(&self, request: u64) -> impl Iterator<Item = ((String, i64), f64)> {
        let (sender, time, guests) = (self.number, self.time(request), self.kind().guests);
        (0..guests).map(move |guest| {
            // Whole numbers below 2^53: exact.
            let unique = (request * guests + guest) * 1000 + sender;
            let value = f64::from_bits(f64::to_bits(1.0) + unique);
            ((format!("{sender}-{guest}"), time), value)
        })
    }

    fn billed_guest(&self) -> String {
        format!("{}-billed", self.number)
    }

    /// Every sample that was acknowledged, and apart from them those that were only sent.
    fn sent(&self) -> (Samples, Samples) {
        let all = |requests: std::ops::Range<u64>| -> Samples {
            let counters = requests
                .clone()
                .map(|request| ((self.billed_guest(), self.time(request)), counted(request)));
            let samples = requests.flat_map(|request| self.samples(request)).chain(counters);
            samples.map(|(place, value)| (place, value.to_bits())).collect()
        };
        (all(0..self.next), all(self.next..self.next + 1))
    }

    /// The bill is the growth of the counter from the first sample to the last that is stored.
    fn check_bill(&self, adapter: &AdapterProcess, stored: u64) {
        let Some(last) = stored.checked_sub(1) else { return };
        let seconds = |request, more| self.time(request).div_euclid(1000) + more;
        let args = json!({
            "id": self.billed_guest(), "metric": "nic_incoming", "metric_param": "total",
            "statistic": "sum", "period": 60,
            "timestamp_from": seconds(0, -60), "timestamp_to": seconds(last, 60),
        });
        let headers = [("content-type", "application/json")];
        let body = args.to_string();
        let address = adapter.address();
        let line = "POST /query_usage_report";
        let answer = http_client::request(address, line, &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let report: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(report["code"], 200, "{report}");
        let periods = report["data"].as_object().unwrap();
        let billed: f64 = periods.values().map(|bytes| bytes.as_f64().unwrap()).sum();
        let expected = counted(last) - counted(0);
        assert!(billed == expected, "{args}: billed {billed}, counted {expected}\n{report}");
    }
}

/// The counter's value in a request: grows by another number each time.
fn counted(request: u64) -> f64 {
    (1_000 + request * 1_000 + request * request) as f64
}

/// Bits of values by guest and time.
type Samples = BTreeMap<(String, i64), u64>;

/// Runs all senders against one server until they are cut off. Each acknowledged request calls
/// `acknowledged` at once, on its sender's thread, with the number of them so far.
pub(crate) fn run(senders: &mut [Sender], address: SocketAddr, acknowledged: impl Fn(u64) + Sync) {
    let count = AtomicU64::new(0);
    let counted = || acknowledged(count.fetch_add(1, Ordering::SeqCst) + 1);
    let begin = Barrier::new(senders.len());
    std::thread::scope(|scope| {
        for sender in senders {
            scope.spawn(|| {
                begin.wait();
                sender.send_until_cut(address, &counted);
            });
        }
    });
}

/// Reads everything back, by both response types, and compares; then the bills.
pub(crate) fn check_everything(adapter: &AdapterProcess, senders: &[Sender]) {
    let mut found = Samples::new();
    for metric in [METRIC, BILLED] {
        // `read` has checked that no series and no time comes twice.
        for (labels, samples) in adapter.read((i64::MIN, i64::MAX), &[("=", "__name__", metric)]) {
            let guest = &labels.iter().find(|(name, _)| name == "uuid").unwrap().1;
            for (time, bits) in samples {
                let twice = found.insert((guest.clone(), time), bits);
                assert_eq!(twice, None, "{guest} has two series");
            }
        }
    }
    for sender in senders {
        let (acknowledged, sent) = sender.sent();
        for (place, bits) in acknowledged {
            assert_eq!(found.remove(&place), Some(bits), "acknowledged: {place:?}");
        }
        let mut stored = sender.next;
        for (place, bits) in sent {
            // There or not, but never with another value.
            let value = found.remove(&place);
            assert!(value.is_none_or(|value| value == bits), "{place:?}: {value:?}, sent {bits}");
            if place.0 == sender.billed_guest() && value.is_some() {
                stored += 1;
            }
        }
        sender.check_bill(adapter, stored);
    }
    assert!(found.is_empty(), "nobody sent {found:?}");
}
