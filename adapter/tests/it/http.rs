//! The HTTP doors of a real process, as tables of request and answer.

mod billing;
mod large_read;
mod read;
mod verdicts;
mod write;
