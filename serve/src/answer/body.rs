//! The body of an answer as hyper polls it: whole, or streamed with an explicit end.
//! It must not know what the bytes mean.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::Aborted;

/// Where the bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    Whole(Bytes),
    Stream(mpsc::Receiver<Result<Bytes, Aborted>>),
}

/// A body on its way to the client. It keeps what must live as long as the request, which counts
/// as in flight until its last byte is handed to the connection.
#[derive(Debug)]
pub(crate) struct Body {
    source: Option<Source>,
    kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Body {
    pub(crate) fn new(source: Source) -> Self {
        let source = match source {
            Source::Whole(bytes) if bytes.is_empty() => None,
            source => Some(source),
        };
        Self { source, kept: None }
    }

    /// Drops `kept` when the body ends.
    pub(crate) fn keep(&mut self, kept: impl Any + Send + Sync) {
        self.kept = Some(Box::new(kept));
    }

    fn finish(&mut self) {
        self.source = None;
        self.kept = None;
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match self.source.take() {
            None => {
                self.finish();
                Poll::Ready(None)
            }
            Some(Source::Whole(bytes)) => {
                self.finish();
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Source::Stream(mut frames)) => match frames.poll_recv(context) {
                Poll::Pending => {
                    self.source = Some(Source::Stream(frames));
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {
                    self.finish();
                    Poll::Ready(None)
                }
                Poll::Ready(Some(Ok(bytes))) => {
                    self.source = Some(Source::Stream(frames));
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(None | Some(Err(Aborted))) => {
                    self.finish();
                    Poll::Ready(Some(Err(Aborted)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            None => SizeHint::with_exact(0),
            Some(Source::Whole(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Some(Source::Stream(_)) => SizeHint::default(),
        }
    }
}
