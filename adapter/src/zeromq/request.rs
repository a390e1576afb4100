//! A client of the API door, for the command line: one request, one answer. Blocks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::limits;

/// What clients of 2012 sent as the first frame.
const MESSAGE_TYPE: &[u8] = b"kanyun";

/// Sends a body to the API at `tcp://HOST:PORT` and gives the third frame of the answer. The error
/// says why there is none.
pub fn ask(address: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    reach(address)?;
    let failed = |error: zmq::Error| format!("{address} cannot be asked: {error}");
    let socket = zmq::Context::new().socket(zmq::REQ).map_err(failed)?;
    let milliseconds = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    socket.set_linger(0).map_err(failed)?;
    socket.set_rcvtimeo(milliseconds(limits::CLIENT_ANSWER)).map_err(failed)?;
    socket.set_ipv6(true).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    let number = super::random_name().map_err(failed)?.into_bytes();
    socket.send_multipart([MESSAGE_TYPE, &number, body], 0).map_err(failed)?;
    let answer = socket.recv_multipart(0).map_err(|error| match error {
        zmq::Error::EAGAIN => {
            let waited = limits::CLIENT_ANSWER.as_secs();
            format!("{address} did not answer within {waited} s; is it the API of an adapter?")
        }
        error => failed(error),
    })?;
    match <[Vec<u8>; 3]>::try_from(answer) {
        Ok([first, second, body]) if first == MESSAGE_TYPE && second == number => Ok(body),
        _ => Err(format!("{address} answered something else than what was asked")),
    }
}

/// Tells at once where nobody listens, or somebody else: ZeroMQ would go on trying.
fn reach(address: &str) -> Result<(), String> {
    let wrong = || format!("{address:?} is no address; write tcp://HOST:PORT");
    let host_and_port = address.strip_prefix("tcp://").ok_or_else(wrong)?;
    let found = host_and_port.to_socket_addrs();
    let mut why = match found {
        Ok(found) => {
            let mut why = format!("{host_and_port} has no address");
            for one in found {
                match TcpStream::connect_timeout(&one, limits::CLIENT_CONNECT) {
                    Ok(stream) => return greeted(stream).map_err(|why| {
                        format!("{address} is no API over ZeroMQ: {why}; see [client] of kanyun.conf, or ask over HTTP by kanyun usage|list|data --url")
                    }),
                    Err(error) => why = error.to_string(),
                }
            }
            why
        }
        Err(error) => error.to_string(),
    };
    why.insert_str(0, &format!("nobody can be reached at {address}: "));
    Err(why)
}

/// How libzmq begins, since version 3.
const SIGNATURE: [u8; 10] = [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F];

/// Whether who was reached greets as ZeroMQ does, which every version does unasked.
fn greeted(mut stream: TcpStream) -> Result<(), String> {
    let mut begin = [0; 2];
    let read = stream
        .set_read_timeout(Some(limits::CLIENT_CONNECT))
        // Who speaks something else answers it, or closes.
        .and_then(|()| stream.write_all(&SIGNATURE))
        .and_then(|()| stream.read_exact(&mut begin));
    match read {
        Ok(()) if is_greeting(begin) => Ok(()),
        Ok(()) => Err("something else is spoken there".to_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(format!("nothing was said within {} s", limits::CLIENT_CONNECT.as_secs()))
        }
        Err(_) => Err("the connection was closed".to_owned()),
    }
}

/// A signature; or a frame of ZMTP 1.0 with a name, whose flags are 0.
fn is_greeting([first, second]: [u8; 2]) -> bool {
    first == SIGNATURE[0] || (first > 0 && second == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_zeromq() {
        for greeting in [[0xFF, 0], [1, 0], [6, 0]] {
            assert!(is_greeting(greeting), "{greeting:?}");
        }
        // HTTP, SSH, an alert of TLS, and a frame of HTTP/2.
        for other in [*b"HT", *b"SS", [21, 3], [0, 0]] {
            assert!(!is_greeting(other), "{other:?}");
        }
    }
}
