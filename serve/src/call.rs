//! One request as a handler sees it: its head, who sent it, and its body, which can be read in
//! one way only: with a bound. It must not know routes or answers other than refusals.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use http::header::{self, AsHeaderName};
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::answer::Refusal;
use crate::limits;

/// One request: the head is public, the body waits for [`Call::body`].
#[derive(Debug)]
pub struct Call {
    /// Method, address, version and headers.
    pub head: Parts,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Wire(Incoming),
    Whole(Bytes),
}

impl Call {
    /// A call whose body is at hand, for a handler that is called without a socket.
    pub fn whole(head: Parts, peer: SocketAddr, body: impl Into<Bytes>) -> Call {
        Call { head, peer, body: Body::Whole(body.into()) }
    }

    pub(crate) fn wire(request: Request<Incoming>, peer: SocketAddr) -> Call {
        let (head, body) = request.into_parts();
        Call { head, peer, body: Body::Wire(body) }
    }

    /// The value of a header, when it is there once or more (the first one) and is plain text.
    pub fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The address' query as it was sent, without the question mark: percent-encoded.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query()
    }

    /// Reads the body, at most `bytes_max` bytes. A larger Content-Length is refused with 413
    /// before a byte is read, a body that grows beyond it as soon as it does.
    pub async fn body(self, bytes_max: usize) -> Result<(Parts, Bytes), Refusal> {
        let bytes = match self.body {
            Body::Whole(bytes) if bytes.len() > bytes_max => return Err(too_large(bytes_max)),
            Body::Whole(bytes) => bytes,
            Body::Wire(body) => {
                if let Some(claimed) = content_length(&self.head)?
                    && claimed > bytes_max as u64
                {
                    return Err(too_large(bytes_max));
                }
                read(body, bytes_max).await?
            }
        };
        Ok((self.head, bytes))
    }
}

/// HTTP/1 requests with a malformed length never come this far; HTTP/2 ones may.
fn content_length(head: &Parts) -> Result<Option<u64>, Refusal> {
    let Some(value) = head.headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| Refusal::client(StatusCode::BAD_REQUEST, "Content-Length is not a number"))
}

async fn read(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    loop {
        let frame = tokio::time::timeout(limits::BODY_STALL_TIMEOUT, body.frame()).await;
        let Ok(frame) = frame else {
            // Not 408: Prometheus drops what was answered 4xx, and a stalled network passes.
            let message = "the request's body stopped coming";
            return Err(Refusal::busy(message, limits::BUSY_RETRY_AFTER));
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Refusal::client(StatusCode::BAD_REQUEST, "the request's body ended early")
                .because(error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = whole.len() + first.as_ref().map_or(0, Bytes::len);
        if data.len() > bytes_max.saturating_sub(so_far) {
            return Err(too_large(bytes_max));
        }
        // A body that came in one piece (most do) is handed on without a copy.
        if body.is_end_stream() && so_far == 0 {
            return Ok(data);
        }
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            None => whole.extend_from_slice(&data),
            Some(start) => {
                whole.reserve(start.len() + data.len());
                whole.extend_from_slice(&start);
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

fn too_large(bytes_max: usize) -> Refusal {
    Refusal::client(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the request's body is larger than {bytes_max} bytes"),
    )
}
