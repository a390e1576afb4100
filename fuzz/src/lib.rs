//! What the fuzz targets share: an adapter on a store in memory without its HTTP, a mutator that
//! looks inside of snappy, and a bound on memory. A crash of a target becomes a named test beside
//! the code that it broke.

mod model;

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adapter::engine::layout::Layout;
use adapter::engine::{Engine, Keeping};
use adapter::metrics::Metrics;
use adapter::model::matcher::Matcher;
use adapter::model::sample::Sample;
use adapter::model::time::TimeRange;
use adapter::read::{Reader, Room};
use adapter::store::Store;
use adapter::store::memory::Memory;
use adapter::usage::Usage;
use adapter::wire::negotiate::Protocol;
use adapter::wire::snappy;
use adapter::write::{Outcome, Verdict, Writer};
use cap::Cap;
use libfuzzer_sys::fuzzer_mutate;
use prometheus_client::registry::Registry;
use serve::clock::Clock;
use tokio::runtime::{Builder, Runtime};

pub use model::Found;
use model::check_stored;

/// More than any body of a target's length may cost. An allocation beyond it fails, and so does the
/// target: what a header claims is never allocated.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, 512 << 20);

/// A day after the recorded requests were recorded, so that their samples are taken.
pub const NOW_MS: i64 = 1_795_305_600_000;
const KEEPING: Keeping = Keeping {
    samples: Duration::from_secs(400 * 86_400),
    ledger: Duration::from_secs(1825 * 86_400),
    grace: Duration::from_secs(15 * 60),
};
/// Longer bodies find nothing that shorter ones do not.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The use cases of an adapter, with nothing stored yet.
pub struct Adapter {
    runtime: Runtime,
    /// What all of them work on.
    pub engine: Arc<Engine>,
    writer: Writer,
    /// remote_read.
    pub reader: Reader,
    /// Billing.
    pub usage: Arc<Usage>,
}

impl Adapter {
    /// On a store of its own. Everything runs on this thread and by a clock that stands still, so
    /// that the same input does the same again.
    pub fn new() -> Adapter {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        let layout = Layout::new(vec!["uuid".to_owned(), "instance_id".to_owned()], 7200);
        let (store, clock) = (Store::Memory(Memory::new()), Clock::fixed(NOW_MS));
        let engine = Engine::start(store, &layout, KEEPING, clock.clone(), metrics.clone());
        let engine = Arc::new(runtime.block_on(engine).unwrap());
        let writer = Writer::new(Arc::clone(&engine), metrics.clone());
        let room = Room::new(std::env::temp_dir(), metrics.clone());
        let reader = Reader::new(Arc::clone(&engine), metrics.clone(), room);
        let usage = Arc::new(Usage::new(Arc::clone(&engine), clock, metrics));
        Adapter { runtime, engine, writer, reader, usage }
    }

    /// Runs a use case to its end.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// What a write body is answered.
    pub fn write(&self, protocol: Protocol, body: &[u8]) -> Verdict {
        let ticket = self.writer.admit(body.len()).unwrap();
        self.run(self.writer.write(protocol, body, ticket))
    }

    /// All that a reader finds.
    pub fn found(&self) -> Found {
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        let copy = |samples: &[Sample]| (samples.to_vec(), size_of_val(samples));
        // No series has a label without a name.
        let matchers = [Matcher::not_equal("", "x")];
        let found = self.run(self.engine.select(all, &matchers, &copy)).unwrap();
        let found = found.into_iter().map(|(labels, samples)| {
            let samples = samples.into_iter().map(|sample| (sample.timestamp_ms, sample));
            (labels.pairs().to_vec(), samples.collect())
        });
        found.collect()
    }
}

/// A write body on its whole way: decoded as prost decodes it, stored as a naive model of the rules
/// says, and the same when it comes again.
pub fn write(protocol: Protocol, body: &[u8]) {
    let adapter = Adapter::new();
    let verdict = adapter.write(protocol, body);
    let found = adapter.found();
    let count: usize = found.values().map(BTreeMap::len).sum();
    if matches!(verdict.outcome, Outcome::TryAgain(..)) {
        assert!(found.is_empty(), "{verdict:?} {found:?}");
    } else {
        // Samples of one series at one timestamp become one.
        assert!(count <= verdict.samples_written as usize, "{verdict:?} {found:?}");
        assert_eq!(count == 0, verdict.samples_written == 0, "{verdict:?} {found:?}");
        match snappy::decompress(body, MESSAGE_BYTES_MAX) {
            Ok(message) => check_stored(protocol, &message, &found),
            Err(_) => assert!(found.is_empty(), "{verdict:?} {found:?}"),
        }
    }
    assert_eq!(adapter.write(protocol, body), verdict);
    assert_eq!(adapter.found(), found);
    if let Some(near) = relative(body) {
        check_warm(&adapter, (protocol, &near), found);
    }
}

/// Another body is judged and stored by an adapter that knows series by their bytes as by one that
/// knows nothing; `found` is what the former holds before.
fn check_warm(warm: &Adapter, (protocol, body): (Protocol, &[u8]), mut found: Found) {
    let cold = Adapter::new();
    let expected = cold.write(protocol, body);
    assert_eq!(warm.write(protocol, body), expected);
    for (labels, samples) in cold.found() {
        let known = found.entry(labels).or_default();
        for (at, sample) in samples {
            let merged = known.get(&at).map_or(sample, |known| known.merge(sample));
            known.insert(at, merged);
        }
    }
    assert_eq!(warm.found(), found);
}

/// A body that is almost the same: one bit of its message is another. Which one follows from the
/// message, so that the same input does the same again.
fn relative(body: &[u8]) -> Option<Vec<u8>> {
    let mut message = snappy::decompress(body, MESSAGE_BYTES_MAX).ok()?;
    let hash = message.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let at = (hash >> 8) % u64::try_from(message.len()).ok().filter(|length| *length > 0)?;
    let byte = message.get_mut(usize::try_from(at).ok()?)?;
    *byte ^= 1 << (hash >> 61);
    snappy::compress(&message).ok()
}

/// Mutates what is in a snappy block, and at times the block itself.
pub fn mutate_compressed(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let inside = if seed % 8 == 0 { None } else { snappy::decompress(&data[..size], 1 << 16).ok() };
    let Some(mut message) = inside else { return fuzzer_mutate(data, size, max_size) };
    let length = message.len();
    message.resize(length + 1024, 0);
    let longest = message.len();
    let length = fuzzer_mutate(&mut message, length, longest);
    match snappy::compress(&message[..length]) {
        Ok(body) if body.len() <= max_size => {
            data[..body.len()].copy_from_slice(&body);
            body.len()
        }
        _ => size,
    }
}
