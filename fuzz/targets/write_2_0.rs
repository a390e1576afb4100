//! A remote_write 2.0 body as it arrives.
#![no_main]

use adapter::wire::negotiate::Protocol;
use fuzz::{mutate_compressed, write};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|body: &[u8]| write(Protocol::V2, body));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_compressed(data, size, max_size, seed)
});
