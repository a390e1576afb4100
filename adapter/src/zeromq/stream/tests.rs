//! Streams as peers of each version send them, in any cuts; what is one frame or byte too much; and
//! any bytes at all.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { frames: 5, bytes: 1500 };

/// How a peer greets, and thereby how it frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// ZMTP 1.0, its name in a short frame.
    Old,
    /// ZMTP 1.0, its name in a long frame, which begins as a signature does.
    OldLong,
    /// A greeting with this revision.
    Greets(u8),
}

/// A frame: flags of ZMTP 2.0, whether its length is written long, and the length of its content.
type Frame = (u8, bool, usize);

fn signature(revision: u8) -> Vec<u8> {
    [&[255, 0, 0, 0, 0, 0, 0, 0, 1, 127][..], &[revision]].concat()
}

impl Peer {
    fn greeting(self) -> Vec<u8> {
        match self {
            Peer::Old => [&[6, 0][..], b"\xff\x01na\x7f"].concat(),
            Peer::OldLong => [&[255, 0, 0, 0, 0, 0, 0, 0, 3, 0][..], b"\x7f\xff"].concat(),
            Peer::Greets(revision) => {
                let left = if revision < 2 { 1 } else { 53 };
                [signature(revision), vec![5; left]].concat()
            }
        }
    }

    fn counts_flags(self) -> bool {
        !matches!(self, Peer::Greets(1..))
    }

    fn frame(self, (flags, long, length): Frame) -> Vec<u8> {
        let content = vec![0xFF; length];
        let counted = if self.counts_flags() { length + 1 } else { length };
        let short = u8::try_from(counted).ok().filter(|short| *short < 255 && !long);
        let wide = (counted as u64).to_be_bytes();
        let head = match (self.counts_flags(), short) {
            (true, None) => [&[255][..], &wide, &[flags & 1]].concat(),
            (true, Some(short)) => vec![short, flags & 1],
            (false, None) => [&[flags | 2][..], &wide].concat(),
            (false, Some(short)) => vec![flags, short],
        };
        [head, content].concat()
    }
}

fn peers() -> impl Strategy<Value = Peer> {
    prop_oneof![
        Just(Peer::Old),
        Just(Peer::OldLong),
        // libzmq takes 2 for its own version, and everything above as well.
        (0_u8..=255).prop_map(Peer::Greets),
        (0_u8..=3).prop_map(Peer::Greets),
    ]
}

/// Lengths of the frames of a message within bounds, and which are long.
fn message() -> impl Strategy<Value = Vec<(bool, usize)>> {
    let length = prop_oneof![0_usize..4, 250..260_usize, 0..300_usize];
    prop::collection::vec((any::<bool>(), length), 1..=BOUNDS.frames)
}

/// A whole message, with commands between its frames where the peer knows them.
fn sent(peer: Peer, message: &[(bool, usize)], commands: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (long, length)) in message.iter().enumerate() {
        if commands && !peer.counts_flags() {
            bytes.extend(peer.frame((4, *long, 7)));
        }
        let more = u8::from(number + 1 < message.len());
        bytes.extend(peer.frame((more, *long, *length)));
    }
    bytes
}

/// Follows bytes in pieces of these lengths, then the rest; gives where they were cut.
fn follow(stream: &mut Stream, bytes: &[u8], cuts: &[usize]) -> Option<(usize, Fault)> {
    let (mut done, mut rest) = (0, bytes);
    for length in cuts.iter().copied().chain([usize::MAX]) {
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        if let Err(Cut { at, fault }) = stream.follow(piece) {
            return Some((done + at, fault));
        }
        (done, rest) = (done + piece.len(), behind);
    }
    None
}

proptest! {
    /// What is valid is never cut, however it is cut into pieces and however long it goes on; and
    /// the first message that is too large is, at its header.
    #[test]
    fn valid_streams_are_followed_to_the_frame(
        peer in peers(),
        messages in prop::collection::vec((message(), any::<bool>()), 0..12),
        cuts in prop::collection::vec(0_usize..40, 0..60),
        too_long in any::<bool>(),
    ) {
        let mut bytes = peer.greeting();
        for (message, commands) in &messages {
            bytes.extend(sent(peer, message, *commands));
        }
        let mut stream = Stream::new(BOUNDS);
        prop_assert_eq!(follow(&mut stream, &bytes, &cuts), None);
        prop_assert_eq!(stream.awaited, Awaited::Frame);
        let (excess, fault) = if too_long {
            (peer.frame((0, true, BOUNDS.bytes + 1)), Fault::Bytes(BOUNDS.bytes))
        } else {
            let frames = vec![(true, 3); BOUNDS.frames];
            let mut bytes = sent(peer, &frames, true);
            // The last of them says that more follow.
            let last = bytes.len() - peer.frame((0, true, 3)).len();
            bytes.truncate(last);
            bytes.extend(peer.frame((1, true, 3)));
            bytes.extend(peer.frame((0, true, 0)));
            (bytes, Fault::Frames(BOUNDS.frames))
        };
        let content = if too_long { BOUNDS.bytes + 1 } else { 0 };
        // The last byte of its header is not passed on.
        let at = bytes.len() + excess.len() - content - 1;
        bytes.extend(excess);
        let mut stream = Stream::new(BOUNDS);
        prop_assert_eq!(follow(&mut stream, &bytes, &cuts), Some((at, fault)));
    }

    /// Whatever comes: no panic, and the same in whatever pieces.
    #[test]
    fn any_bytes_at_all(
        peer in prop::option::of(peers()),
        noise in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..8, Just(255)], 0..400),
        cuts in prop::collection::vec(0_usize..9, 0..100),
    ) {
        let mut bytes = peer.map(Peer::greeting).unwrap_or_default();
        bytes.extend(noise);
        let (mut whole, mut pieces) = (Stream::new(BOUNDS), Stream::new(BOUNDS));
        let expected = follow(&mut whole, &bytes, &[]);
        prop_assert_eq!(follow(&mut pieces, &bytes, &cuts), expected);
        prop_assert_eq!(whole.awaited, pieces.awaited);
    }
}

#[test]
fn frames_that_no_peer_sends() {
    let command_with_more = [Peer::Greets(3).greeting(), vec![5, 0]].concat();
    let large_command = [Peer::Greets(3).greeting(), Peer::Greets(3).frame((4, true, 1501))];
    for (bytes, fault) in [
        (vec![0, 0], Fault::NoZeromq),
        (vec![255, 0, 0, 0, 0, 0, 0, 0, 0, 0], Fault::NoZeromq),
        (command_with_more, Fault::NoZeromq),
        (large_command.concat(), Fault::Bytes(1500)),
        (vec![255; 9].into_iter().chain([0]).collect(), Fault::Bytes(1500)),
    ] {
        let cut = Stream::new(BOUNDS).follow(&bytes).unwrap_err();
        assert_eq!(cut.fault, fault, "{bytes:?}");
    }
}

/// Lengths add up to more than a number holds, and are not mistaken for few.
#[test]
fn lengths_beyond_all_numbers() {
    let bounds = Bounds { frames: 9, bytes: usize::MAX };
    let mut stream = Stream::new(bounds);
    stream.follow(&[Peer::Greets(3).greeting(), vec![1, 1, 0, 3]].concat()).unwrap();
    stream.follow(&[255; 8]).unwrap();
    assert_eq!(stream.awaited, Awaited::Content { left: u64::MAX });
}

/// Bytes as libzmq itself sends them, of frames and messages of many lengths, are followed whole.
#[test]
fn libzmqs_own_bytes() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let context = zmq::Context::new();
    let socket = context.socket(zmq::PUSH).unwrap();
    socket.connect(&format!("tcp://{}", listener.local_addr().unwrap())).unwrap();
    let lengths = [0, 1, 254, 255, 256, 1000, 1500];
    for length in lengths {
        socket.send_multipart([vec![7; 0], vec![255; length]], 0).unwrap();
    }
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let mut greeting = [&signature(3)[..], &[0], b"NULL"].concat();
    greeting.resize(64, 0);
    peer.write_all(&greeting).unwrap();
    let ready = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL";
    peer.write_all(ready).unwrap();
    // Its greeting and READY, and each message: two headers and what is in it.
    let content: usize =
        lengths.iter().map(|length| 2 + length + if *length > 255 { 9 } else { 2 }).sum();
    let mut stream = Stream::new(BOUNDS);
    let (mut read, mut buffer) = (0, [0; 100]);
    let mut at_frames = 0;
    while read < 64 + content {
        let count = peer.read(&mut buffer).unwrap();
        assert!(count > 0, "{read} of more than {content}");
        assert_eq!(stream.follow(&buffer[..count]), Ok(()));
        read += count;
        at_frames += usize::from(stream.awaited == Awaited::Frame);
    }
    // READY came as well.
    while stream.awaited != Awaited::Frame {
        let count = peer.read(&mut buffer).unwrap();
        assert_eq!(stream.follow(&buffer[..count]), Ok(()));
        at_frames += 1;
    }
    assert!(at_frames > 0);
}
