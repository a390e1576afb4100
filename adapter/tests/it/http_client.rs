//! The least of an HTTP/1.1 client: one request on a connection of its own, byte by byte where a
//! test wants it. An answer that is cut short is an error, never a short answer.

use std::fmt::Write as _;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the service may take for anything that these tests ask.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A connection on which one request is under way.
#[derive(Debug)]
pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Connects and sends the head of a request, without any body.
    pub(crate) fn begin(
        address: SocketAddr,
        line: &str,
        headers: &[(&str, &str)],
    ) -> Result<Connection> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut head = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        Ok(Connection(stream))
    }

    /// The same with `Expect: 100-continue`: returns once the service has asked for the body.
    pub(crate) fn begin_expected(
        address: SocketAddr,
        line: &str,
        headers: &[(&str, &str)],
    ) -> Result<Connection> {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        let headers = [headers, &[("expect", "100-continue")]].concat();
        let mut connection = Connection::begin(address, line, &headers)?;
        let mut asked = [0; CONTINUE.len()];
        connection.0.read_exact(&mut asked)?;
        if asked != CONTINUE {
            return Err(Error::other(String::from_utf8_lossy(&asked)));
        }
        Ok(connection)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes)
    }

    /// Sends nothing more, and still listens.
    pub(crate) fn end_of_request(&self) -> Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// Our own end of the connection.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Waits for the first bytes of the answer, and takes no more.
    pub(crate) fn first_bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Waits for the whole answer.
    pub(crate) fn answer(mut self) -> Result<Answer> {
        let mut bytes = Vec::new();
        // A server that answers before it has read everything may reset the connection afterwards:
        // what came before that counts, and whether it is whole is judged below.
        let ended = self.0.read_to_end(&mut bytes);
        parse(&bytes).ok_or_else(|| {
            ended.err().unwrap_or_else(|| {
                Error::new(ErrorKind::UnexpectedEof, format!("cut short: {} bytes", bytes.len()))
            })
        })
    }
}

/// Sends a whole request and waits for its answer.
pub(crate) fn request(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    let length = body.len().to_string();
    let headers: Vec<_> = headers.iter().copied().chain([("content-length", &*length)]).collect();
    let mut connection = Connection::begin(address, line, &headers)?;
    // The server may have answered already without reading the body.
    connection.send(body).ok();
    connection.answer()
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    let headers = lines
        .map(|line| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned())))
        .collect::<Option<Vec<_>>>()?;
    let mut answer = Answer { status, headers, body: Vec::new() };
    answer.body = if answer.header("transfer-encoding") == Some("chunked") {
        unchunked(rest)?
    } else {
        let length = answer.header("content-length").map_or(Some(0), |text| text.parse().ok())?;
        rest.get(..length)?.to_vec()
    };
    Some(answer)
}

/// RFC 9112 section 7.1; nothing without the last chunk.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + length)?;
        rest = rest.get(end + 2 + length..)?.strip_prefix(b"\r\n")?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
    }
}
