//! kanyun-adapter: Prometheus' remote storage on an embedded store or on Cassandra.
//! Modules in reading order; ARCHITECTURE.md draws their arrows.

#![forbid(unsafe_code)]

pub mod model;
pub mod wire;
pub mod limits;
pub mod store;
pub mod engine;
pub mod metrics;
pub mod write;
pub mod read;
pub mod http;
pub mod config;
