//! kanyun-adapter: Prometheus' remote storage on an embedded store or on Cassandra.
//! Modules in reading order; ARCHITECTURE.md draws their arrows.

#![forbid(unsafe_code)]

pub mod client;
pub mod command;
pub mod config;
pub mod copy;
pub mod engine;
pub mod feed;
pub mod http;
pub mod kanyun_conf;
pub mod ledger;
pub mod legacy;
pub mod limits;
pub mod meter;
pub mod metrics;
pub mod model;
pub mod query;
pub mod read;
pub mod report;
pub mod sealer;
pub mod service;
pub mod status;
pub mod store;
pub mod usage;
pub mod wire;
pub mod worker;
pub mod write;
pub mod zeromq;
