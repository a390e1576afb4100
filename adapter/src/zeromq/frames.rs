//! The frames of one request and of its answer, as a REQ client of 2012 sends and expects them
//! (kanyun-legacy.md, "client → API"). Pure.

use super::Received;

/// Frames in front of a request: who is to be answered, through how many routers. One more than
/// this and the delimiter cannot have come this way.
const ROUTE_FRAMES_MAX: usize = 8;
/// `msg_type`, `uuid` and the body.
const REQUEST_FRAMES: usize = 3;
/// Frames that are looked at: one beyond what a request may have tells that it has too many.
pub const FRAMES_MAX: usize = ROUTE_FRAMES_MAX + 1 + REQUEST_FRAMES + 1;

/// A request's frames, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where its answer goes.
    pub back: Back,
    /// The body, or what is wrong with the frames.
    pub body: Result<Vec<u8>, String>,
}

/// What an answer repeats of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Back {
    /// The way to the client, the empty delimiter included.
    route: Vec<Vec<u8>>,
    /// The frames before the body, two as a rule.
    echoed: Vec<Vec<u8>>,
}

impl Request {
    /// Of a message as a ROUTER socket receives it. `None` where it has no delimiter, as no REQ
    /// client sends it: nobody waits for an answer, or nobody knows how it should look.
    pub fn of(received: Received) -> Option<Request> {
        let mut route = received.frames;
        // The first frame is the name that ROUTER gives to the connection.
        let delimiter = route.iter().skip(1).take(ROUTE_FRAMES_MAX).position(Vec::is_empty)? + 1;
        let mut frames = route.split_off(delimiter + 1);
        let count = frames.len();
        let body = if count > REQUEST_FRAMES || received.cut { None } else { frames.pop() };
        frames.truncate(REQUEST_FRAMES - 1);
        let whole = count == REQUEST_FRAMES && !received.cut;
        let body = body.filter(|_| whole).ok_or_else(|| {
            "a request has three frames: msg_type, uuid and a body of JSON".to_owned()
        });
        Some(Request { back: Back { route, echoed: frames }, body })
    }
}

impl Back {
    /// The frames of an answer with this body.
    pub fn answer(self, body: Vec<u8>) -> Vec<Vec<u8>> {
        let mut frames = self.route;
        frames.extend(self.echoed);
        frames.push(body);
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(frames: &[&str]) -> Received {
        let frames = frames.iter().map(|frame| frame.as_bytes().to_vec()).collect();
        Received { frames, cut: false }
    }

    fn answer(frames: &[&str]) -> Option<(bool, Vec<String>)> {
        let Request { back, body } = Request::of(received(frames))?;
        let answer = back.answer(b"answer".to_vec()).into_iter();
        let answer = answer.map(|frame| String::from_utf8(frame).unwrap()).collect();
        Some((body.is_ok(), answer))
    }

    #[test]
    fn the_first_two_of_three_come_back() {
        let request = received(&["id", "", "kanyun", "uuid", "{}"]);
        let Request { back, body } = Request::of(request).unwrap();
        assert_eq!(body, Ok(b"{}".to_vec()));
        let expected = received(&["id", "", "kanyun", "uuid", "answer"]);
        assert_eq!(back.answer(b"answer".to_vec()), expected.frames);
        // Through another router, and with nothing in it.
        for frames in [vec!["id", "id2", "", "a", "b", "c"], vec!["id", "", "", "", ""]] {
            let (whole, answer) = answer(&frames).unwrap();
            let last = frames.len() - 1;
            assert!(whole);
            assert_eq!(answer[..last], frames[..last]);
        }
    }

    #[test]
    fn other_counts_are_answered_as_far_as_they_can_be_echoed() {
        for (frames, expected) in [
            (vec!["id", ""], vec!["id", "", "answer"]),
            (vec!["id", "", "a"], vec!["id", "", "answer"]),
            (vec!["id", "", "a", "b"], vec!["id", "", "a", "answer"]),
            (vec!["id", "", "a", "b", "c", "d"], vec!["id", "", "a", "b", "answer"]),
        ] {
            assert_eq!(
                answer(&frames),
                Some((false, expected.iter().map(|f| (*f).to_owned()).collect()))
            );
        }
        for frames in [vec![], vec![""], vec!["id"], vec!["id", "a", "b", "c"]] {
            assert_eq!(answer(&frames), None);
        }
    }

    proptest! {
        /// Whatever comes: no panic, nothing invented, and one frame of ours at the end.
        #[test]
        fn an_answer_is_made_of_its_request(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..16),
            cut in any::<bool>(),
        ) {
            if let Some(Request { back, body }) = Request::of(Received { frames: frames.clone(), cut }) {
                prop_assert!(!cut || body.is_err());
                let answer = back.answer(b"answer".to_vec());
                let (last, echoed) = answer.split_last().unwrap();
                prop_assert_eq!(last, b"answer");
                prop_assert!(frames.starts_with(echoed));
                if let Ok(body) = body {
                    prop_assert_eq!(Some(&body), frames.last());
                    prop_assert_eq!(frames.len(), answer.len());
                }
            }
        }
    }
}
