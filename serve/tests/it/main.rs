//! The service over real sockets on free loopback ports, and its settings in a real process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod client;
mod environment;
mod http;
mod lifetime;
mod running;
mod tls;
