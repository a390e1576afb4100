//! Generated guests: few samples, all of them near a border that some rule draws. What a sender could
//! send and nothing else: no rule of the ledger is known here.

use std::collections::BTreeMap;
use std::num::NonZeroI64;

use proptest::prelude::*;
use proptest::sample::select;

use crate::ledger::Series;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::sample::{STALE_MARKER_BITS, Sample, sort_and_merge};
use crate::model::time::{DAY_MS, HOUR_MS};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
/// 2026-03-08T22:00Z: the window holds midnights.
const BEGIN: i64 = 1_773_007_200_000;

/// A sample as it arrives.
pub(crate) type Arrival = (Labels, Sample);

/// What is stored of what arrived in this order.
pub(crate) fn stored(arrived: &[Arrival]) -> Vec<Series> {
    let mut of_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for (labels, sample) in arrived {
        of_labels.entry(labels.clone()).or_default().push(*sample);
    }
    let series = of_labels.into_iter().map(|(labels, mut samples)| {
        sort_and_merge(&mut samples);
        Series { labels, samples, elsewhere: false }
    });
    series.collect()
}

/// The same where hours of its workers, by host, are another guest's: an eighth of the seeds has
/// none.
pub(crate) fn divided(series: Vec<Series>, seed: u8) -> Vec<Series> {
    let mut divided = Vec::new();
    for Series { labels, samples, .. } in series {
        let names = ["host", "node", "instance"];
        let host = names.iter().position(|name| !labels.get(name).is_empty()).unwrap_or(3);
        // Workers publish no start times.
        let is_workers =
            labels.get("job") == "kanyun-worker" && labels.get(METRIC_NAME).starts_with("kanyun_");
        let is_elsewhere = |sample: &Sample| {
            let hour = usize::try_from(sample.timestamp_ms / HOUR_MS).unwrap_or(0);
            is_workers && (hour * 7 + host * 3) % 8 < usize::from(seed)
        };
        let (other, own) = samples.into_iter().partition(is_elsewhere);
        divided.push(Series { labels: labels.clone(), samples: own, elsewhere: false });
        divided.push(Series { labels, samples: other, elsewhere: true });
    }
    divided.retain(|series| !series.samples.is_empty());
    divided
}

/// The samples of one to three hosts, one to three copies, three sources and two devices, in a
/// window of nine days.
pub(crate) fn any_guest() -> impl Strategy<Value = Vec<Arrival>> {
    prop::collection::vec(any_burst(), 1..6)
        .prop_map(|bursts| bursts.iter().flat_map(Burst::arrivals).collect())
}

/// Some scrapes in a row, by the same senders.
#[derive(Clone, Debug)]
struct Burst {
    at: i64,
    /// Bits: which of the three hosts, and which of the three copies on each.
    hosts: u8,
    copies: u8,
    /// How far the second copy lags behind the first, and the third behind the second.
    lag: i64,
    sender: Sender,
    scrapes: Vec<Scrape>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Exporter,
    Worker,
    Import,
}

#[derive(Clone, Debug)]
struct Scrape {
    /// Since the scrape before.
    step: i64,
    start: Start,
    /// What copies other than the first read, less than the first.
    behind: f64,
    cpu: Option<f64>,
    maximum: Option<f64>,
    usage: Option<f64>,
    devices: [Option<f64>; 2],
    traffic: Option<f64>,
}

/// How a start time is known, and what it says.
#[derive(Clone, Copy, Debug)]
enum Start {
    Unknown,
    Nan,
    /// So long before the scrape: by the series, by the samples, or by both (a bit each).
    Before(i64, u8),
    /// At a fixed time.
    At(i64, u8),
}

fn any_burst() -> impl Strategy<Value = Burst> {
    let hour = select(vec![0, 0, 1, 1, 2, 25, 100, 167, 168, 168, 169, 170, 200]);
    let in_hour = select(vec![0, 0, 1, 29, 48, 49, 50, 51, 58, 59]);
    let offset = prop_oneof![select(vec![0, 1, -1, 30_000, 59_999]), 0..60_000_i64,];
    let at = (hour, in_hour, offset)
        .prop_map(|(hour, minute, ms)| BEGIN + hour * HOUR_MS + minute * MINUTE + ms);
    let hosts = select(vec![1_u8, 1, 1, 2, 2, 4, 3, 3, 5, 6, 7]);
    let copies = select(vec![1_u8, 1, 1, 2, 3, 3, 6, 7]);
    let lag = select(vec![0_i64, 1, 1_000, 5_000, 10_000, 61_000]);
    let sender = prop_oneof![
        5 => Just(Sender::Exporter),
        2 => Just(Sender::Worker),
        1 => Just(Sender::Import),
    ];
    (at, hosts, copies, lag, sender, prop::collection::vec(any_scrape(), 1..7)).prop_map(
        |(at, hosts, copies, lag, sender, scrapes)| Burst {
            at,
            hosts,
            copies,
            lag,
            sender,
            scrapes,
        },
    )
}

fn any_scrape() -> impl Strategy<Value = Scrape> {
    let step = prop_oneof![
        6 => 10_000..=60_000_i64,
        2 => select(vec![0, 1, 999, 60_000, 119_999, 120_000, 120_001]),
        2 => select(vec![300_000, 599_999, 600_000, 600_001, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1]),
        1 => select(vec![DAY_MS, 7 * DAY_MS - 1, 7 * DAY_MS, 7 * DAY_MS + MINUTE]),
    ];
    let optional = || prop_oneof![1 => Just(None), 4 => any_value().prop_map(Some)];
    let behind = select(vec![0.0, 0.0, 0.0, 1.0]);
    let values = (optional(), optional(), optional(), [optional(), optional()], optional());
    (step, any_start(), behind, values).prop_map(
        |(step, start, behind, (cpu, maximum, usage, devices, traffic))| Scrape {
            step,
            start,
            behind,
            cpu,
            maximum,
            usage,
            devices,
            traffic,
        },
    )
}

/// Small numbers, so that equal ones, halves and returns are common, and now and then what is no
/// number or no whole one.
fn any_value() -> impl Strategy<Value = f64> {
    let odd = [
        f64::from_bits(STALE_MARKER_BITS),
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -1.0,
        -0.0,
        -0.4,
        0.4,
        2.5,
        1e6 + 0.5,
        9_007_199_254_740_991.0,
        1e300,
    ];
    prop_oneof![12 => (0..16_u8).prop_map(f64::from), 6 => (16..200_u8).prop_map(f64::from), 1 => select(odd.to_vec())]
}

fn any_start() -> impl Strategy<Value = Start> {
    let before = prop_oneof![
        select(vec![0, 1, -1, 4_999, 5_000, 5_001, -4_999, -5_000, -5_001]),
        0..120_000_i64,
        select(vec![HOUR_MS - 1, HOUR_MS, HOUR_MS + 1, 2 * HOUR_MS, 8 * DAY_MS]),
    ];
    let at = (select(vec![-1_i64, 0, 1, 25, 168]), 0..12_i64, 0..2_i64)
        .prop_map(|(hour, second, ms)| BEGIN + hour * HOUR_MS + second * SECOND + ms);
    let by = select(vec![1_u8, 1, 1, 2, 3]);
    prop_oneof![
        10 => Just(Start::Unknown),
        1 => Just(Start::Nan),
        4 => (before, by.clone()).prop_map(|(before, by)| Start::Before(before, by)),
        4 => (at, by).prop_map(|(at, by)| Start::At(at, by)),
    ]
}

impl Burst {
    fn arrivals(&self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        for host in (0..3_u8).filter(|host| self.hosts & (1 << host) != 0) {
            let copies = (0..3_u8).filter(|copy| self.copies & (1 << copy) != 0);
            for (number, copy) in (0_i64..).zip(copies) {
                let target = Target { host, copy, sender: self.sender };
                let mut t = self.at + number * self.lag;
                for scrape in &self.scrapes {
                    t += scrape.step;
                    let behind = if number == 0 { 0.0 } else { scrape.behind };
                    target.scrape(scrape, t, behind, &mut arrivals);
                }
            }
        }
        arrivals
    }
}

/// Who sends: one copy on one host.
#[derive(Clone, Copy)]
struct Target {
    host: u8,
    copy: u8,
    sender: Sender,
}

impl Target {
    fn scrape(self, scrape: &Scrape, t: i64, behind: f64, arrivals: &mut Vec<Arrival>) {
        let (start, by) = match scrape.start {
            Start::Unknown => (None, 0),
            Start::Nan => (None, 1),
            Start::Before(before, by) => (Some(t - before), by),
            Start::At(at, by) => (Some(at), by),
        };
        // Hosts count differently, or nobody could tell whose gauge was taken.
        let of_host = |value: f64| value * f64::from(1 + self.host);
        let own = start.filter(|_| by & 2 != 0).and_then(NonZeroI64::new);
        let mut push = |metric: &str, device: &[(&str, &str)], value: f64, start_ms| {
            let labels = self.labels(metric, device);
            arrivals.push((labels, Sample { timestamp_ms: t, value, start_ms }));
        };
        if by & 1 != 0 {
            let value = start.map_or(f64::NAN, seconds);
            push("libvirt_domain_start_time_seconds", &[], value, None);
        }
        let names = Names::of(self.sender);
        if let Some(value) = scrape.cpu {
            push(names.cpu, &[], of_host(value - behind) * 0.7, own);
        }
        if let Some(value) = scrape.maximum {
            push(names.maximum, &[], of_host(value) * 1024.0, None);
        }
        if let Some(value) = scrape.usage {
            push(names.usage, &[], of_host(value) * 1000.0, None);
        }
        for (device, value) in ["tap1", "tap2"].into_iter().zip(scrape.devices) {
            for metric in names.device {
                if let Some(value) = value {
                    push(metric, &[("target_device", device)], value - behind, own);
                }
            }
        }
        if let Some(value) = scrape.traffic {
            let ip = ("ip", "10.0.0.2");
            if self.sender == Sender::Exporter {
                push(names.traffic, &[ip, ("direction", "out")], value - behind, own);
                push(names.traffic, &[ip, ("direction", "in")], value * 3.0, own);
            } else {
                push(names.traffic, &[ip], value - behind, own);
            }
        }
    }

    fn labels(self, metric: &str, device: &[(&str, &str)]) -> Labels {
        let host = [("host", "a"), ("node", "b"), ("instance", "c:9177")][usize::from(self.host)];
        let copy = [("", ""), ("prometheus", "p1"), ("prometheus", "p2")][usize::from(self.copy)];
        let job = match self.sender {
            Sender::Exporter => "libvirt",
            Sender::Worker => "kanyun-worker",
            Sender::Import => "kanyun-import",
        };
        let pairs = [(METRIC_NAME, metric), host, copy, ("job", job)];
        Labels::new(pairs.into_iter().chain(device.iter().copied()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "times of this century are exact")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// The metrics that a sender has.
struct Names {
    cpu: &'static str,
    maximum: &'static str,
    usage: &'static str,
    device: [&'static str; 4],
    traffic: &'static str,
}

impl Names {
    fn of(sender: Sender) -> Names {
        let device = match sender {
            Sender::Exporter => [
                "libvirt_domain_interface_stats_receive_bytes_total",
                "libvirt_domain_interface_stats_transmit_bytes_total",
                "libvirt_domain_block_stats_read_bytes_total",
                "libvirt_domain_block_stats_write_bytes_total",
            ],
            Sender::Worker => [
                "kanyun_nic_incoming_bytes_total",
                "kanyun_nic_outgoing_bytes_total",
                "kanyun_blk_read_bytes_total",
                "kanyun_blk_write_bytes_total",
            ],
            Sender::Import => [
                "kanyun_nic_incoming_bytes",
                "kanyun_nic_outgoing_bytes",
                "kanyun_blk_read_bytes",
                "kanyun_blk_write_bytes",
            ],
        };
        let is_exporter = sender == Sender::Exporter;
        let pick = |exporter, other| if is_exporter { exporter } else { other };
        Names {
            cpu: pick("libvirt_domain_info_cpu_time_seconds_total", "kanyun_cpu_percent"),
            maximum: pick("libvirt_domain_info_maximum_memory_bytes", "kanyun_mem_max_kib"),
            usage: pick("libvirt_domain_info_memory_usage_bytes", "kanyun_mem_free_kib"),
            device,
            traffic: pick("libvirt_domain_external_traffic_bytes_total", "kanyun_vmnetwork_bytes"),
        }
    }
}
