//! A remote_read body as it arrives, asked of a store that holds a recorded scrape.
#![no_main]

use std::cell::LazyCell;

use adapter::query::QueryError;
use adapter::read::Answer;
use adapter::wire::negotiate::Protocol;
use adapter::wire::{messages, snappy};
use adapter::write::Outcome;
use fuzz::{Adapter, mutate_compressed};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use prost::Message;

const SCRAPE: &[u8] = include_bytes!("../../adapter/tests/captures/write-1.0-prometheus-3.body");

thread_local! {
    // Reads change nothing in it.
    static ADAPTER: LazyCell<Adapter> = const { LazyCell::new(|| {
        let adapter = Adapter::new();
        let verdict = adapter.write(Protocol::V1, SCRAPE);
        assert!(verdict.samples_written > 3 && !matches!(verdict.outcome, Outcome::TryAgain(..)));
        adapter
    })};
}

fuzz_target!(|body: &[u8]| ADAPTER.with(|adapter| check(adapter, body)));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_compressed(data, size, max_size, seed)
});

/// An answer is one that a client can decode, and a fault is the client's.
fn check(adapter: &Adapter, body: &[u8]) {
    match adapter.run(adapter.reader.read(body)) {
        Ok(Answer::Sampled(bytes)) => {
            let message = snappy::decompress(&bytes, 64 << 20).unwrap();
            messages::ReadResponse::decode(&message[..]).unwrap();
        }
        Ok(Answer::Streamed(mut frames)) => adapter.run(async {
            while let Some(frame) = frames.next().await {
                frame.unwrap();
            }
        }),
        Err(QueryError::Client(_) | QueryError::TooMuch(_)) => {}
        Err(error) => panic!("{error:?}"),
    }
}
