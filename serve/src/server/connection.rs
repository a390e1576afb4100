//! One connection: HTTP/1.1 or HTTP/2, over TCP or TLS, until it ends or the service drains.
//! It must not know routes.

use std::any::Any;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::dispatch::Dispatch;
use super::guarded::{Guarded, HeadTimer};
use crate::limits::{self, Limits};
use crate::shutdown::Shutdown;
use crate::web_config::Live;

/// What all connections share.
pub(super) struct Context {
    pub(super) dispatch: Arc<Dispatch>,
    pub(super) limits: Limits,
    pub(super) shutdown: Shutdown,
    pub(super) web: Arc<Live>,
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, context: &Context) {
    let mut shutdown = context.shutdown.clone();
    let Some(tls) = context.web.current().await.tls.clone() else {
        let ended = serve_http1(stream, peer, context).await;
        return report(peer, ended);
    };
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limits::TLS_HANDSHAKE_TIMEOUT, handshake) => accepted,
        // Nothing was asked yet, so nothing is cut off.
        () = shutdown.requested() => return,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            return;
        }
    };
    let ended = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream, peer, context).await
    } else {
        serve_http1(stream, peer, context).await
    };
    report(peer, ended);
}

fn report(peer: SocketAddr, ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

async fn serve_http1<S>(stream: S, peer: SocketAddr, context: &Context) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let timer = HeadTimer::started(context.limits.header_read_timeout);
    let io = TokioIo::new(Guarded::new(stream, timer.clone()));
    let service = service_fn(|request| {
        let answering = timer.head_complete();
        answer(context, request, peer, answering)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper starts this at the end of a request: it bounds the idle time. The head's own
        // time is bounded by the timer above.
        .header_read_timeout(limits::IDLE_TIMEOUT)
        .max_header_size(limits::HEADER_BYTES_MAX)
        .max_buf_size(limits::CONNECTION_BUFFER_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut shutdown = context.shutdown.clone();
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn serve_http2<S>(stream: S, peer: SocketAddr, context: &Context) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let timer = HeadTimer::started(context.limits.header_read_timeout);
    let io = TokioIo::new(Guarded::new(stream, timer.clone()));
    // One handle for the connection, one for each request on it.
    let requests = Arc::new(());
    let service = service_fn(|request| {
        timer.first_request_came();
        answer(context, request, peer, Arc::clone(&requests))
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_header_list_size(limits::HTTP2_HEADER_BYTES_MAX)
        .keep_alive_interval(limits::HTTP2_PING_INTERVAL)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut shutdown = context.shutdown.clone();
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = idle(&requests) => {}
        () = shutdown.requested() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn answer(
    context: &Context,
    request: http::Request<Incoming>,
    peer: SocketAddr,
    kept: impl Any + Send + Sync,
) -> impl Future<Output = Result<http::Response<crate::answer::Body>, Infallible>> + Send + 'static
{
    let dispatch = Arc::clone(&context.dispatch);
    async move { Ok(dispatch.answer(request, peer, kept).await) }
}

/// Returns when two looks, an idle timeout apart, have found no request running.
async fn idle(requests: &Arc<()>) {
    let mut was_idle = false;
    loop {
        tokio::time::sleep(limits::IDLE_TIMEOUT).await;
        let is_idle = Arc::strong_count(requests) == 1;
        if is_idle && was_idle {
            return;
        }
        was_idle = is_idle;
    }
}
