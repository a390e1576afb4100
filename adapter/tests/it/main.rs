//! The adapter's integration tests, one module for each subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "tests panic on purpose, and read the environment"
)]

mod adapter_process;
mod bill;
mod bombs;
mod captures;
mod cluster;
mod compliance;
mod crash;
mod damage;
mod dashboards;
mod disk_full;
mod durability;
mod end_to_end;
mod examples;
mod http;
mod http_client;
mod ingest;
mod load;
mod metrics_reference;
mod moved_clock;
mod operator;
mod panels;
mod part;
mod power_loss;
mod process;
mod promql;
mod prose;
mod re2;
mod remote;
mod rules;
mod tidy;
mod traffic;
mod zeromq;

#[path = "../parts/cassandra_node.rs"]
mod cassandra_node;

#[allow(dead_code, reason = "the exporter's tests use the rest of it")]
#[path = "../../../exporter/tests/it/libvirtd.rs"]
mod libvirtd;
