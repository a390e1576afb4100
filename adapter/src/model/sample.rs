//! One float sample. Knows neither its series nor where it is stored.

use std::num::NonZeroI64;

/// One float sample of a series.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// All 64 bits count: stale markers and NaN payloads survive.
    pub value: f64,
    /// Start of the counter's epoch in unix milliseconds, where the sender knows it
    /// (remote_write 2.0; 0 on the wire is unset).
    pub start_ms: Option<NonZeroI64>,
}
