//! The plain values that wire, engine and stores share. Knows none of them.

pub mod re2;
pub mod sample;
