//! kanyun-adapter: Prometheus' remote storage on an embedded store or on Cassandra.
//! Modules in reading order; ARCHITECTURE.md draws their arrows.

#![forbid(unsafe_code)]

pub mod limits;
pub mod model;
pub mod store;
pub mod wire;
