//! A REQ client made of libzmq itself.

use serde_json::Value;

const PATIENCE_MS: i32 = 120_000;

/// A connected REQ socket.
pub(super) struct Client {
    socket: zmq::Socket,
}

impl Client {
    pub(super) fn connect(address: &str) -> Client {
        let socket = zmq::Context::new().socket(zmq::REQ).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvtimeo(PATIENCE_MS).unwrap();
        socket.connect(address).unwrap();
        Client { socket }
    }

    /// Sends frames, without waiting for the answer.
    pub(super) fn send(&self, frames: &[impl AsRef<[u8]>]) {
        self.socket.send_multipart(frames.iter().map(AsRef::as_ref), 0).unwrap();
    }

    /// Waits for the answer.
    pub(super) fn receive(&self) -> Vec<Vec<u8>> {
        self.socket.recv_multipart(0).unwrap()
    }

    pub(super) fn exchange(&self, frames: &[impl AsRef<[u8]>]) -> Vec<Vec<u8>> {
        self.send(frames);
        self.receive()
    }

    /// Asks as clients of 2012 do; gives the body of the answer.
    pub(super) fn ask(&self, body: &str) -> Value {
        let answer = self.exchange(&["kanyun", "5c9d", body]);
        assert_eq!(answer.len(), 3, "{answer:?}");
        assert_eq!(answer[..2], ["kanyun", "5c9d"].map(|frame| frame.as_bytes().to_vec()));
        serde_json::from_slice(&answer[2]).unwrap()
    }
}
