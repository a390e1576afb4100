//! The HTTP doors of a real process, as tables of request and answer.

mod read;
mod verdicts;
mod write;
