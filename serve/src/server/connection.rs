//! One connection: HTTP/1.1 or HTTP/2 over TCP, until it ends or the service drains.
//! It must not know routes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::dispatch::Dispatch;
use super::guarded::{Guarded, HeadTimer};
use crate::limits::{self, Limits};
use crate::shutdown::Shutdown;

/// What all connections share.
pub(super) struct Context {
    dispatch: Arc<Dispatch>,
    limits: Limits,
    shutdown: Shutdown,
}

impl Context {
    pub(super) fn new(dispatch: Dispatch, limits: Limits, shutdown: Shutdown) -> Self {
        Self { dispatch: Arc::new(dispatch), limits, shutdown }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, context: &Context) {
    serve_http1(stream, peer, context).await;
}

async fn serve_http1(stream: TcpStream, peer: SocketAddr, context: &Context) {
    let timer = HeadTimer::started(context.limits.header_read_timeout);
    let io = TokioIo::new(Guarded::new(stream, timer.clone()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let answering = timer.head_complete();
        let answer = Arc::clone(&context.dispatch).answer(request, peer, answering);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper starts this at the end of a request: it bounds the idle time. The head's own
        // time is bounded by the timer above.
        .header_read_timeout(limits::IDLE_TIMEOUT)
        .max_headers(limits::HEADERS_MAX)
        .max_buf_size(limits::HEADER_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut shutdown = context.shutdown.clone();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}
