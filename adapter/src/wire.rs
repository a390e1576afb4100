//! The bytes of remote_write 1.0 and 2.0 and of remote_read, both ways.
//!
//! Nothing outside this module names prost or snap. It takes and gives plain strings and bytes, so
//! it knows no HTTP types, and it knows no store. Every bound is an argument: the numbers live with
//! the caller.

pub mod frame;
pub mod messages;
pub mod negotiate;
pub mod read;
pub mod sampled;
pub mod snappy;
pub mod write;
pub mod xor;

mod fields;
mod v1;
mod v2;
