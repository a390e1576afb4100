//! A byte stream with two deadlines that HTTP libraries lack: the head of a request must come
//! within its time counted from its first byte, and a client must read what it is sent.
//! It must not know HTTP beyond when a head begins and ends, which it is told.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::limits;

/// When the head that is being read must be complete. Clones share the deadline.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer {
    state: Arc<Mutex<Head>>,
    timeout: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Head {
    /// No byte of a head has come.
    Awaited,
    /// The first byte came: the rest must have come by then.
    Due(Instant),
    /// A request is being answered: what comes now is its body.
    Complete,
}

impl HeadTimer {
    /// The first head of a connection is due from its start, so that a silent client is dropped.
    pub(super) fn started(timeout: Duration) -> Self {
        let state = Head::Due(Instant::now() + timeout);
        Self { state: Arc::new(Mutex::new(state)), timeout }
    }

    /// A head is complete. When what is returned is dropped, the answer is over and the next
    /// bytes are a head again.
    pub(super) fn head_complete(&self) -> Answering {
        self.set(Head::Complete);
        Answering(self.clone())
    }

    /// From now on heads come in frames between others, and pings find out who is gone (HTTP/2).
    pub(super) fn first_request_came(&self) {
        self.set(Head::Complete);
    }

    fn set(&self, head: Head) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = head;
    }

    fn bytes_came(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, Head::Awaited) {
            *state = Head::Due(Instant::now() + self.timeout);
        }
    }

    fn due(&self) -> Option<Instant> {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            Head::Due(due) => Some(due),
            Head::Awaited | Head::Complete => None,
        }
    }
}

/// A request is being answered.
#[derive(Debug)]
pub(super) struct Answering(HeadTimer);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(Head::Awaited);
    }
}

/// A stream that fails with `TimedOut` at either deadline.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    head: HeadTimer,
    head_alarm: Alarm,
    write_alarm: Alarm,
    write_due: Option<Instant>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, head: HeadTimer) -> Self {
        let (head_alarm, write_alarm) = (Alarm::default(), Alarm::default());
        Self { stream, head, head_alarm, write_alarm, write_due: None }
    }

    /// A write that has waited too long fails; one that made progress starts anew.
    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_due = None;
            return written;
        }
        let stall = limits::WRITE_STALL_TIMEOUT;
        let due = *self.write_due.get_or_insert_with(|| Instant::now() + stall);
        match self.write_alarm.poll(context, due) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.head.bytes_came();
        }
        let Some(due) = self.head.due() else { return read };
        match self.head_alarm.poll(context, due) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the request's head took too long"))),
            Poll::Pending => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch_write(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch_write(context, shut)
    }
}

/// A timer that is made when it is first needed and moved afterwards.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, context: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if sleep.deadline() != due {
            sleep.as_mut().reset(due);
        }
        sleep.as_mut().poll(context)
    }
}

fn timed_out(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}
