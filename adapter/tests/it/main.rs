//! The adapter's integration tests, one module for each subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests panic on purpose, and read the environment"
)]

mod adapter_process;
mod bombs;
mod captures;
mod crash;
mod durability;
mod http;
mod http_client;
mod load;
mod process;
mod re2;
mod remote;
