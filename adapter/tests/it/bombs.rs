//! Bodies that promise more than they hold: refused before memory is taken for them.

use std::process::Command;

use adapter::wire::messages;
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;
use adapter::wire::write;
use prost::Message;

use crate::captures::LIMITS;

/// The most address space that this process ever had, in bytes. What is allocated counts, also
/// while nothing is written to it.
fn address_space_peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

/// Far above what the tests themselves take, far below what is promised.
const NOISE: usize = 1 << 30;
const ALONE: &str = "BOMBS_ALONE";

/// One test, because the peak never falls: a bomb would not be seen behind another one. In a
/// process of its own, because the threads of other tests take address space by the gigabyte.
#[test]
fn bombs_take_no_memory() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "bombs::bombs_take_no_memory", "--nocapture"]).env(ALONE, "1");
        let output = alone.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    }
    a_snappy_bomb();
    a_symbol_bomb();
    sixteen_million_empty_messages();

    // And what is measured is what is allocated.
    let before = address_space_peak();
    let large = vec![0_u8; 3 * NOISE];
    assert!(address_space_peak() - before > NOISE);
    drop(large);
}

fn check_takes_no_memory(bomb: impl FnOnce()) {
    let before = address_space_peak();
    bomb();
    assert!(address_space_peak() - before < NOISE);
}

fn a_snappy_bomb() {
    // The largest length that the format has, within a bound that would allow it.
    check_takes_no_memory(|| {
        assert!(snappy::decompress(b"\xff\xff\xff\xff\x0f", usize::MAX).is_err());
    });
    check_takes_no_memory(|| {
        assert!(snappy::decompress(b"\xff\xff\xff\xff\x0f", 32 << 20).is_err());
    });
}

fn a_symbol_bomb() {
    // A megabyte of symbol, used 20 million times: 20 TB if it were copied.
    let series = messages::v2::TimeSeries { labels_refs: vec![1; 4_000], ..Default::default() };
    let request = messages::v2::Request {
        symbols: vec![String::new(), "x".repeat(1 << 20)],
        timeseries: vec![series; 5_000],
    };
    let body = request.encode_to_vec();
    check_takes_no_memory(|| {
        let refusal = write::decode(Protocol::V2, &body, &LIMITS).unwrap_err().to_string();
        assert!(refusal.contains("bytes of labels"), "{refusal}");
    });
}

fn sixteen_million_empty_messages() {
    for (protocol, key) in [(Protocol::V1, 0x0a), (Protocol::V2, 0x22), (Protocol::V2, 0x2a)] {
        let body = [key, 0].repeat(16 << 20);
        check_takes_no_memory(|| assert!(write::decode(protocol, &body, &LIMITS).is_err()));
    }
}
