//! The exporter from outside: its page for a known snapshot, and its behaviour beside a real libvirtd.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on should stop at once and say where"
)]

mod exporter_process;
mod fields;
mod fixture;
mod golden;
mod libvirtd;
mod pools;
mod real;
mod sockets;
mod text;
mod traffic;
mod trouble;
mod turnover;
mod units;
mod whole_page;
