//! A client of the API door, for the command line: one request, one answer. Blocks.

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

/// Tells at once where nobody listens: ZeroMQ would go on trying.
fn reach(address: &str) -> Result<(), String> {
    let wrong = || format!("{address:?} is no address; write tcp://HOST:PORT");
    let host_and_port = address.strip_prefix("tcp://").ok_or_else(wrong)?;
    let found = host_and_port.to_socket_addrs();
    let mut why = match found {
        Ok(found) => {
            let mut why = format!("{host_and_port} has no address");
            for one in found {
                match TcpStream::connect_timeout(&one, limits::CLIENT_CONNECT) {
                    Ok(_) => return Ok(()),
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
