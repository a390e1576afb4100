//! One response: an [`Answer`], or a [`Refusal`] that becomes one. The only place that chooses a
//! status for an error. It must not know what was asked.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::limits;

pub(crate) mod body;

pub(crate) use body::{Body, Source};

/// A status, headers and a body, which is whole or streamed.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Source,
    /// For the log only.
    private: Option<String>,
}

/// Sent instead of a frame, it resets the connection (HTTP/1) or the stream (HTTP/2), so that
/// the client sees a truncated body and never takes a part for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the answer was given up half-way")
    }
}

impl std::error::Error for Aborted {}

/// What the sender of a streamed answer sends last: without it the body counts as truncated.
pub fn end_of_stream() -> Result<Bytes, Aborted> {
    Ok(Bytes::new())
}

impl Answer {
    /// An answer without a body.
    pub fn new(status: StatusCode) -> Self {
        let body = Source::Whole(Bytes::new());
        Self { status, headers: HeaderMap::new(), body, private: None }
    }

    /// Plain text in UTF-8.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::bytes(status, "text/plain; charset=utf-8", Bytes::from(text.into()))
    }

    /// A whole body of the given Content-Type.
    pub fn bytes(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Self {
        let mut answer =
            Self::new(status).header(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer.body = Source::Whole(bytes);
        answer
    }

    /// Sets a header, in place of an earlier one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// A streamed body: each `Ok` is sent as it comes. The sender ends with [`end_of_stream`]
    /// (an empty frame). An `Err`, or a sender dropped before that (a panic, a cancelled task),
    /// aborts the connection, so that the client sees a truncated body, never a clean end.
    pub fn stream(
        status: StatusCode,
        content_type: &'static str,
        frames: mpsc::Receiver<Result<Bytes, Aborted>>,
    ) -> Self {
        let mut answer =
            Self::new(status).header(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        answer.body = Source::Stream(frames);
        answer
    }

    /// The status that will be sent.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers that will be sent, those that HTTP adds apart.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, when it is whole.
    pub fn whole(&self) -> Option<&Bytes> {
        match &self.body {
            Source::Whole(bytes) => Some(bytes),
            Source::Stream(_) => None,
        }
    }

    /// For the log only.
    pub(crate) fn take_private(&mut self) -> Option<String> {
        self.private.take()
    }

    /// As an answer to HEAD: the same head with the length of the body, and no body.
    pub(crate) fn without_body(mut self) -> Self {
        if let Source::Whole(bytes) = &self.body {
            self.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        self.body = Source::Whole(Bytes::new());
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Whose fault, and may one retry.
#[derive(Debug)]
pub struct Refusal {
    /// 4xx: the client's fault, for ever. 503: passing. 500: ours.
    pub status: StatusCode,
    /// What the client reads, at most [`limits::REFUSAL_BYTES_MAX`] bytes of it.
    pub public: String,
    /// What only the log reads.
    pub private: Option<String>,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Further headers; boxed, for a refusal is mostly the `Err` of a result.
    headers: Option<Box<HeaderMap>>,
}

impl Refusal {
    /// The client's fault, which a retry cannot mend. A status outside 4xx is a fault of the
    /// caller and is answered as 400.
    pub fn client(status: StatusCode, public: impl Into<String>) -> Self {
        debug_assert!(status.is_client_error(), "{status} is not a client's fault");
        let status = if status.is_client_error() { status } else { StatusCode::BAD_REQUEST };
        Self::new(status, public.into())
    }

    /// 503: a passing fault of ours; the client should come again after `retry_after`.
    pub fn busy(public: impl Into<String>, retry_after: Duration) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, public.into());
        Self { retry_after: Some(retry_after), ..refusal }
    }

    /// 500: a fault of ours. The client reads `public`, the log `private`.
    pub fn internal(public: impl Into<String>, private: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, public.into()).because(private)
    }

    /// Adds what only the log reads.
    #[must_use]
    pub fn because(mut self, private: impl Into<String>) -> Self {
        self.private = Some(private.into());
        self
    }

    /// Sets a header, in place of an earlier one of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }

    fn new(status: StatusCode, public: String) -> Self {
        Self { status, public, private: None, retry_after: None, headers: None }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut text = refusal.public;
        if text.len() >= limits::REFUSAL_BYTES_MAX {
            text.truncate(text.floor_char_boundary(limits::REFUSAL_BYTES_MAX - 1));
        }
        text.push('\n');
        let mut answer = Answer::text(refusal.status, text);
        answer.headers.extend(refusal.headers.map(|headers| *headers).unwrap_or_default());
        // Whole seconds, never 0: a sender would come again at once (RFC 9110, 10.2.3).
        if let Some(wait) = refusal.retry_after {
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            answer.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer.private = refusal.private;
        answer
    }
}

impl From<Result<Answer, Refusal>> for Answer {
    fn from(result: Result<Answer, Refusal>) -> Self {
        result.unwrap_or_else(Answer::from)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Answer, Refusal};
    use crate::limits;
    use http::StatusCode;

    #[test]
    fn a_refusal_is_cut_at_a_character_and_ends_its_line() {
        let long = Refusal::client(StatusCode::BAD_REQUEST, "ä".repeat(1000));
        let answer = Answer::from(long);
        let body = answer.whole().unwrap();
        assert!(body.len() <= limits::REFUSAL_BYTES_MAX);
        assert!(std::str::from_utf8(body).unwrap().ends_with("ä\n"));
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_zero() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (30_000, "30")] {
            let answer = Answer::from(Refusal::busy("full", Duration::from_millis(wait)));
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.headers()["retry-after"], seconds);
        }
    }

    #[test]
    fn what_is_private_is_not_in_the_answer() {
        let mut answer = Answer::from(Refusal::internal("cannot read", "row 7 is broken"));
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.whole().unwrap(), "cannot read\n");
        assert_eq!(answer.take_private().as_deref(), Some("row 7 is broken"));
    }
}
