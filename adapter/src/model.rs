//! What the adapter stores, as plain values: labels, series, samples, row keys and times.
//! Pure: knows no wire format, no store, no clock and no configuration file.

pub mod instant;
pub mod labels;
pub mod matcher;
pub mod re2;
pub mod row_key;
pub mod sample;
pub mod series;
pub mod time;
pub mod varint;
