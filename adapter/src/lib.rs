//! The adapter: Prometheus' remote storage, with Kanyun's billing answers beside it.
//!
//! `wire` knows the bytes of the protocols, `model` the plain values that everything shares.

pub mod model;
pub mod wire;
