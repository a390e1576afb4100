//! A body of the 2012 API at both of its doors, asked of a store that holds an hour of a guest.
#![no_main]

use std::cell::LazyCell;

use adapter::legacy::{self, Answer, Call, Door};
use adapter::report::{Amount, Bucket, Statistic};
use adapter::wire::messages::{self, Sample, TimeSeries};
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;
use fuzz::{Adapter, NOW_MS};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const GUEST: [(&str, &str); 4] = [
    ("domain", "instance-00000001"),
    ("instance", "hypervisor:9177"),
    ("job", "libvirt"),
    ("uuid", "4d6f2b8e-0a51-4f0e-9a6d-7d3f1c2b5a90"),
];
const COUNTERS: [&str; 3] = [
    "libvirt_domain_info_cpu_time_seconds_total",
    "libvirt_domain_interface_stats_receive_bytes_total",
    "libvirt_domain_block_stats_write_bytes_total",
];

thread_local! {
    // Reports change nothing in it.
    static ADAPTER: LazyCell<Adapter> = const { LazyCell::new(|| {
        let adapter = Adapter::new();
        let timeseries = COUNTERS.iter().map(|metric| counter(metric)).collect();
        let request = messages::WriteRequest { timeseries, metadata: Vec::new() };
        let body = snappy::compress(&request.encode_to_vec()).unwrap();
        assert_eq!(adapter.write(Protocol::V1, &body).samples_written, 3 * 240);
        adapter
    })};
}

fuzz_target!(|body: &[u8]| ADAPTER.with(|adapter| check(adapter, body)));

/// Four samples a minute in the hour before last midnight.
fn counter(metric: &str) -> TimeSeries {
    let mut labels = vec![("__name__", metric), ("target_device", "vda")];
    labels.extend(GUEST);
    let sample = |n: i32| Sample {
        timestamp: NOW_MS - 3_600_000 + i64::from(n) * 15_000,
        value: f64::from(n) * 1024.0,
    };
    let samples = (0..240).map(sample).collect();
    TimeSeries { labels: messages::labels(&labels), samples, ..Default::default() }
}

fn check(adapter: &Adapter, body: &[u8]) {
    for door in [Door::Any, Door::UsageReport] {
        let Ok((envelope, answer)) = adapter.run(adapter.usage.legacy(body, door)) else {
            // Not JSON: so says the parser on its own.
            assert!(legacy::parse(body, door, NOW_MS).is_err());
            continue;
        };
        answer.to_json(&envelope).unwrap();
        if let Answer::Failure(why) = &answer {
            assert!(!why.contains("cannot be read"), "nothing stored is damaged: {why}");
        }
        check_adds_up(adapter, &legacy::parse(body, door, NOW_MS).unwrap());
    }
}

/// Two reports over adjacent ranges are the report over both, wherever they meet.
fn check_adds_up(adapter: &Adapter, request: &legacy::Request) {
    let Ok(Call::UsageReport(whole)) = &request.call else { return };
    if whole.statistic != Statistic::Sum {
        return;
    }
    let middle_ms = i64::midpoint(whole.from_ms, whole.to_ms);
    let (mut before, mut after) = (whole.clone(), whole.clone());
    before.to_ms = middle_ms;
    after.from_ms = middle_ms;
    let [whole, before, after] = [whole, &before, &after]
        .map(|asked| adapter.run(adapter.usage.report(asked)).map(|buckets| sum(&buckets)));
    if let (Ok(whole), Ok(before), Ok(after)) = (whole, before, after) {
        // Sums of bytes and of percents of an hour.
        assert!((whole - before - after).abs() <= 1e-6 * whole.abs(), "{whole} {before} {after}");
    }
}

fn sum(buckets: &[Bucket]) -> f64 {
    let amount = |bucket: &Bucket| match bucket.amount {
        Amount::Whole(amount) => amount as f64,
        Amount::Real(amount) => amount,
    };
    buckets.iter().map(amount).sum()
}
