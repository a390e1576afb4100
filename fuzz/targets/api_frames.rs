//! A message at the API door over ZeroMQ: frames of any number and content, taken apart and
//! answered. Two bytes before each frame say how long it is.
#![no_main]

use adapter::zeromq::Received;
use adapter::zeromq::frames::{FRAMES_MAX, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| check(bytes));

fn check(mut bytes: &[u8]) {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    while let [low, high, rest @ ..] = bytes {
        let (frame, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
        frames.push(frame.to_vec());
        bytes = rest;
    }
    let cut = frames.len() > FRAMES_MAX;
    frames.truncate(FRAMES_MAX);
    let delimiter = frames.iter().skip(1).position(Vec::is_empty).map(|at| at + 1);
    match Request::of(Received { frames: frames.clone(), cut }) {
        // A REQ client waits: only what none can have sent goes without an answer.
        None => assert!(delimiter.is_none_or(|at| at > 8)),
        Some(Request { back, body }) => {
            let answer = back.answer(b"answer".to_vec());
            let (last, echoed) = answer.split_last().unwrap();
            assert_eq!(last, b"answer");
            assert!(frames.starts_with(echoed));
            let after = frames.len() - delimiter.unwrap() - 1;
            assert_eq!(body.is_ok(), after == 3 && !cut);
            assert_eq!(echoed.len(), delimiter.unwrap() + 1 + after.saturating_sub(1).min(2));
        }
    }
}
