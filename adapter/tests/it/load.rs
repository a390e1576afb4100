//! Senders that write as Prometheus does, on several connections at once, and remember what was
//! acknowledged. Every sample has a place and a value of its own, so that a reader can judge it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use adapter::wire::messages::TimeSeries;
use adapter::wire::negotiate::Protocol;

use crate::http_client;
use crate::remote::{self, BOTH, series};

/// The metric of everything that senders write.
pub(crate) const METRIC: &str = "load";
/// Guests of a sender; each request has a sample of each. Every sixth sender has many, so that
/// commits of all lengths are under way at any time.
const GUESTS: [u64; 6] = [4, 1, 4, 16, 4, 300];

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

impl Sender {
    pub(crate) fn new(number: u64, start_ms: i64) -> Sender {
        Sender { number, start_ms, next: 0, unanswered: false }
    }

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
            let expected = (protocol == Protocol::V2).then(|| self.guests().to_string());
            assert_eq!(written, expected.as_deref());
            self.next += 1;
        }
    }

    fn guests(&self) -> u64 {
        GUESTS[usize::try_from(self.number).unwrap() % GUESTS.len()]
    }

    fn request(&self, number: u64) -> Vec<TimeSeries> {
        self.samples(number)
            .map(|((sender, guest), time, value)| {
                let labels = [("__name__", METRIC), ("sender", &*sender), ("uuid", &*guest)];
                series(&labels, &[(time, value)])
            })
            .collect()
    }

    /// The samples of a request: sender and guest, time, value.
    fn samples(&self, request: u64) -> impl Iterator<Item = ((String, String), i64, f64)> {
        let (sender, start_ms, guests) = (self.number, self.start_ms, self.guests());
        (0..guests).map(move |guest| {
            let time = start_ms + i64::try_from(request).unwrap();
            // Whole numbers below 2^53: exact.
            let unique = (request * guests + guest) * 1000 + sender;
            let value = f64::from_bits(f64::to_bits(1.0) + unique);
            ((sender.to_string(), format!("{sender}-{guest}")), time, value)
        })
    }

    /// Every sample that was acknowledged, and apart from them those that were only sent.
    pub(crate) fn sent(&self) -> (Samples, Samples) {
        let all = |requests: std::ops::Range<u64>| -> Samples {
            requests
                .flat_map(|request| self.samples(request))
                .map(|((_, guest), time, value)| ((guest, time), value.to_bits()))
                .collect()
        };
        (all(0..self.next), all(self.next..self.next + 1))
    }
}

/// Bits of values by guest and time.
pub(crate) type Samples = BTreeMap<(String, i64), u64>;

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
