//! Senders that write as Prometheus does, on several connections at once, and remember what was
//! acknowledged; and the judge of what a store has made of it. Every sample has a place and a value
//! of its own, and every sender has a guest whose bill it knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use adapter::wire::messages::TimeSeries;
use adapter::wire::negotiate::Protocol;
use serde_json::{Value, json};

use crate::adapter_process::{AdapterProcess, command, now_ms};
use crate::http_client::{self, Answer};
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
    /// Whether its samples stay near the adapter's clock where that is moved.
    present: bool,
}

/// Requests of all lengths, so that commits of all lengths are under way at any time; samples of
/// now, which stay in time, and late ones over window, day and week borders.
const KINDS: [Kind; 8] = [
    Kind { guests: 4, step_ms: 1, age_ms: 3_600_000, heavy: 0, present: false },
    Kind { guests: 1, step_ms: 250, age_ms: 7_200_000, heavy: 0, present: false },
    Kind { guests: 4, step_ms: 5_000, age_ms: DAY_MS, heavy: 0, present: false },
    Kind { guests: 16, step_ms: 20_000, age_ms: 2 * DAY_MS, heavy: 0, present: false },
    Kind { guests: 4, step_ms: 60_000, age_ms: 9 * DAY_MS, heavy: 0, present: false },
    Kind { guests: 300, step_ms: 1_000, age_ms: 3_600_000, heavy: 0, present: false },
    Kind { guests: 1, step_ms: 500, age_ms: 8 * DAY_MS, heavy: 60, present: false },
    Kind { guests: 4, step_ms: 50, age_ms: 60_000, heavy: 0, present: true },
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
    /// From which request on the samples are so many milliseconds later.
    moves: Vec<(u64, i64)>,
}

/// One of each kind.
pub(crate) fn senders() -> Vec<Sender> {
    let now_ms = now_ms();
    (0..SENDERS)
        .map(|number| {
            let start_ms = now_ms - KINDS[usize::try_from(number).unwrap()].age_ms;
            Sender { number, start_ms, next: 0, unanswered: false, moves: Vec::new() }
        })
        .collect()
}

/// Whether something was acknowledged of every sender of the present since the clock was moved: else
/// two moves would make one gap, and one of over seven days is not billed.
pub(crate) fn are_present(senders: &[Sender]) -> bool {
    let mut present = senders.iter().filter(|sender| sender.kind().present);
    present.all(|sender| sender.moves.last().is_none_or(|(from, _)| *from < sender.next))
}

/// Takes those away whose samples began to be so old.
pub(crate) fn older_than(senders: &mut Vec<Sender>, age_ms: i64) -> Vec<Sender> {
    senders.extract_if(.., |sender| sender.kind().age_ms > age_ms).collect()
}

/// Senders that have sent nothing yet, and whose samples began to be so old, begin earlier still.
pub(crate) fn begin_earlier(senders: &mut [Sender], age_ms: i64, by_ms: i64) {
    for sender in senders.iter_mut().filter(|sender| sender.kind().age_ms > age_ms) {
        sender.start_ms -= by_ms;
    }
}

/// The adapter's clock goes on by so much before it starts again.
pub(crate) fn move_on(senders: &mut [Sender], by_ms: i64) {
    for sender in senders.iter_mut().filter(|sender| sender.kind().present) {
        // The request that waits for its answer is sent as it was.
        sender.moves.push((sender.next + u64::from(sender.unanswered), by_ms));
    }
}

/// The service that senders write to.
pub(crate) fn service(folder: &Path) -> Command {
    let mut command = command();
    command.arg("--store.path").arg(folder);
    sealing_at_once(&mut command);
    command
}

/// Everything late is sealed at once, again and again.
pub(crate) fn sealing_at_once(command: &mut Command) {
    command.args(["--seal.window=1h", "--seal.grace=5m", "--seal.late-pause=20ms"]);
}

impl Sender {
    /// Sends request after request until there is no answer any more, or until it is told to stop;
    /// tells of each acknowledgement. Gives the answer that refused one, if one did.
    fn send(&mut self, address: SocketAddr, tell: &(dyn Fn() -> bool + Sync)) -> Option<Answer> {
        let protocol = BOTH[usize::from(self.number.is_multiple_of(2))];
        loop {
            let body = remote::write_body(protocol, &self.request(self.next));
            let headers = [("content-type", remote::content_type(protocol))];
            let answer = http_client::request(address, "POST /api/v1/write", &headers, &body);
            self.unanswered = answer.is_err();
            let answer = answer.ok()?;
            if answer.status != 204 {
                return Some(answer);
            }
            let samples = self.kind().guests + 1;
            let written = answer.header("x-prometheus-remote-write-samples-written");
            let expected = (protocol == Protocol::V2).then(|| samples.to_string());
            assert_eq!(written, expected.as_deref());
            self.next += 1;
            if !tell() {
                return None;
            }
        }
    }

    fn kind(&self) -> &'static Kind {
        &KINDS[usize::try_from(self.number).unwrap()]
    }

    fn time(&self, request: u64) -> i64 {
        let moved = self.moves.iter().filter(|(from, _)| *from <= request);
        let moved_ms: i64 = moved.map(|(_, by_ms)| by_ms).sum();
        self.start_ms + i64::try_from(request).unwrap() * self.kind().step_ms + moved_ms
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
                let more = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
                text.push_str(&more.to_string());
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
    fn sent(&self) -> (Sent, Sent) {
        let all = |requests: std::ops::Range<u64>| -> Sent {
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
        assert!(
            (billed - expected).abs() < 0.5,
            "{args}: billed {billed}, counted {expected}\n{report}"
        );
    }
}

/// The counter's value in a request: grows by another number each time.
fn counted(request: u64) -> f64 {
    (1_000 + request * 1_000 + request * request) as f64
}

/// Bits of values by guest and time.
type Sent = BTreeMap<(String, i64), u64>;

/// Bits of values by guest and time, and whether somebody sent them.
type Samples = BTreeMap<(String, i64), (u64, bool)>;

/// Runs all senders against one server until they are cut off. Each acknowledged request calls
/// `acknowledged` at once, on its sender's thread, with the number of them so far.
pub(crate) fn run(senders: &mut [Sender], address: SocketAddr, acknowledged: impl Fn(u64) + Sync) {
    let refused = run_while(senders, &[address], |count| {
        acknowledged(count);
        true
    });
    assert!(refused.is_empty(), "{refused:?}");
}

/// Runs all senders until this many requests are acknowledged.
pub(crate) fn run_for(senders: &mut [Sender], address: SocketAddr, acknowledged: u64) {
    run_on(senders, &[address], acknowledged);
}

/// The same, each sender against one of several servers.
pub(crate) fn run_on(senders: &mut [Sender], addresses: &[SocketAddr], acknowledged: u64) {
    let refused = run_while(senders, addresses, |count| count < acknowledged);
    assert!(refused.is_empty(), "{refused:?}");
    assert!(senders.iter().all(|sender| !sender.unanswered), "cut off");
}

/// Runs all senders until each is refused for now, as a full disk does it, or cut off.
pub(crate) fn run_until_refused(
    senders: &mut [Sender],
    address: SocketAddr,
    acknowledged: impl Fn(u64) + Sync,
) {
    for answer in run_while(senders, &[address], |count| {
        acknowledged(count);
        true
    }) {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
}

/// Runs all senders until `goes_on`, which is told how many requests are acknowledged, says no;
/// gives the answers that were no acknowledgements.
pub(crate) fn run_while(
    senders: &mut [Sender],
    addresses: &[SocketAddr],
    goes_on: impl Fn(u64) -> bool + Sync,
) -> Vec<Answer> {
    let count = AtomicU64::new(0);
    let counted = || goes_on(count.fetch_add(1, Ordering::SeqCst) + 1);
    let begin = Barrier::new(senders.len());
    std::thread::scope(|scope| {
        let start = |(sender, address): (_, &SocketAddr)| {
            let (begin, counted, address) = (&begin, &counted, *address);
            scope.spawn(move || {
                begin.wait();
                Sender::send(sender, address, counted)
            })
        };
        let threads: Vec<_> = senders.iter_mut().zip(addresses.iter().cycle()).map(start).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Reads everything back, by both response types, and compares; then the bills.
pub(crate) fn check_everything(adapter: &AdapterProcess, senders: &[Sender]) {
    let mut found = Samples::new();
    for metric in [METRIC, BILLED] {
        // `read` has checked that no series and no time comes twice.
        take_in(&mut found, adapter.read((i64::MIN, i64::MAX), &[("=", "__name__", metric)]));
    }
    check_found(&mut found, senders);
    check_bills(adapter, senders, &found);
    assert!(found.values().all(|(_, used)| *used), "nobody sent {:?}", unused(&found));
}

/// The same where a read may be refused with an error of ours: says whether none was.
pub(crate) fn check_or_refused(adapter: &AdapterProcess, senders: &[Sender]) -> bool {
    let mut found = Samples::new();
    for metric in [METRIC, BILLED] {
        match adapter.try_read((i64::MIN, i64::MAX), &[("=", "__name__", metric)]) {
            Ok(series) => take_in(&mut found, series),
            Err(answer) => {
                assert!(answer.status >= 500, "{answer:?}");
                return false;
            }
        }
    }
    check_found(&mut found, senders);
    assert!(found.values().all(|(_, used)| *used), "nobody sent {:?}", unused(&found));
    true
}

/// Whatever is read was sent, though not all of it need be there.
pub(crate) fn check_nothing_else(adapter: &AdapterProcess, senders: &[Sender]) {
    let mut all = BTreeMap::new();
    for sender in senders {
        let (acknowledged, sent) = sender.sent();
        all.extend(acknowledged.into_iter().chain(sent));
    }
    let mut found = Samples::new();
    for metric in [METRIC, BILLED] {
        if let Ok(series) = adapter.try_read((i64::MIN, i64::MAX), &[("=", "__name__", metric)]) {
            take_in(&mut found, series);
        }
    }
    for (place, (bits, _)) in found {
        assert_eq!(all.get(&place), Some(&bits), "nobody sent {place:?}");
    }
}

fn take_in(found: &mut Samples, all: Vec<remote::Series>) {
    for (labels, samples) in all {
        let guest = &labels.iter().find(|(name, _)| name == "uuid").unwrap().1;
        for (time, bits) in samples {
            let twice = found.insert((guest.clone(), time), (bits, false));
            assert_eq!(twice, None, "{guest} has two series");
        }
    }
}

/// Marks what was found and sent; everything acknowledged must be there.
fn check_found(found: &mut Samples, senders: &[Sender]) {
    for sender in senders {
        let (acknowledged, sent) = sender.sent();
        for (place, bits) in acknowledged {
            let sample = found.get_mut(&place);
            let (value, used) = sample.unwrap_or_else(|| panic!("acknowledged, lost: {place:?}"));
            assert_eq!(*value, bits, "acknowledged: {place:?}");
            *used = true;
        }
        for (place, bits) in sent {
            // There or not, but never with another value.
            if let Some((value, used)) = found.get_mut(&place) {
                assert_eq!(*value, bits, "{place:?}");
                *used = true;
            }
        }
    }
}

/// The bills of senders all of whose requests were acknowledged, whether or not samples are left.
pub(crate) fn check_bills_alone(adapter: &AdapterProcess, senders: &[Sender]) {
    check_bills(adapter, senders, &Samples::new());
}

fn check_bills(adapter: &AdapterProcess, senders: &[Sender], found: &Samples) {
    for sender in senders {
        let unanswered = (sender.billed_guest(), sender.time(sender.next));
        sender.check_bill(adapter, sender.next + u64::from(found.contains_key(&unanswered)));
    }
}

fn unused(found: &Samples) -> Vec<&(String, i64)> {
    found.iter().filter(|(_, (_, used))| !used).map(|(place, _)| place).take(20).collect()
}

/// The journals of a folder's store.
pub(crate) fn journals(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect()
}

/// Makes the journal of a store that does not run a sealed one, as if it had been full: at the next
/// start everything in it becomes tables.
pub(crate) fn seal_journal(data: &Path) {
    let number =
        |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let newest = journals(data).iter().map(number).max().unwrap();
    std::fs::write(data.join(format!("{}.jnl", newest + 1)), "").unwrap();
}
