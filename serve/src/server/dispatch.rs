//! One request: to its handler within its time, and the answer with its log line and its metrics.
//! It must not know connections.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use super::Service;
use crate::answer::{Answer, Body, Refusal};
use crate::call::Call;
use crate::limits::{self, Limits};
use crate::own_metrics::OwnMetrics;
use crate::readiness::{HEALTHY_PATH, READY_PATH, Readiness};
use crate::routes::{Found, Routes};
use crate::web_config::Live;

/// The label of requests that no route answers: a path is the client's choice, and a label of
/// the client's choice could grow without end.
const NO_HANDLER: &str = "none";

/// The routes of a service with those that every service has.
pub(super) struct Dispatch {
    routes: Routes,
    own_metrics: OwnMetrics,
    limits: Limits,
    web: Arc<Live>,
}

impl Dispatch {
    pub(super) fn new(service: Service, web: Arc<Live>) -> Self {
        let Service { routes, readiness, own_metrics, limits } = service;
        let routes = routes
            .get(HEALTHY_PATH, async |_| Readiness::healthy())
            .get(READY_PATH, move |_| std::future::ready(readiness.ready()));
        Self { routes, own_metrics, limits, web }
    }

    /// Answers one request. `kept` is dropped when the answer's last byte is handed over.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        kept: impl Any + Send + Sync,
    ) -> Response<Body> {
        let mut observation = self.own_metrics.observe();
        let method = request.method().clone();
        let web = self.web.current().await;
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let (handler, mut answer) = if web.users.allow(authorization).await {
            self.route(&method, request, peer).await
        } else {
            (NO_HANDLER, unauthorized())
        };
        observation.answered(handler, answer.status());
        log(&method, handler, peer, &mut answer);
        if method == Method::HEAD {
            answer = answer.without_body();
        }
        let mut response = answer.into_response();
        response.headers_mut().extend(web.headers.clone());
        response.body_mut().keep((observation, kept));
        response
    }

    async fn route(
        &self,
        method: &Method,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> (&'static str, Answer) {
        match self.routes.find(method, request.uri().path()) {
            Found::NoSuchPath(answer) => (NO_HANDLER, answer),
            Found::WrongMethod(path, answer) => (path, answer),
            Found::Handler(path, handler) => {
                let answer = self.bounded(handler(Call::wire(request, peer))).await;
                (path, answer)
            }
        }
    }

    /// The handler runs as a task of its own, so that its panic is an answer and not a closed
    /// connection; the task ends with the request.
    async fn bounded(&self, handler: crate::routes::Pending) -> Answer {
        let mut task = Task(tokio::spawn(handler));
        match tokio::time::timeout(self.limits.request_timeout, &mut task.0).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                Refusal::internal("the service failed to answer", error.to_string()).into()
            }
            Err(_) => {
                let seconds = self.limits.request_timeout.as_secs();
                let message = format!("no answer within {seconds} s");
                Refusal::busy(message, limits::BUSY_RETRY_AFTER).into()
            }
        }
    }
}

/// Health checks are no exception, as everywhere where this web config file is in use.
fn unauthorized() -> Answer {
    let refusal = Refusal::client(StatusCode::UNAUTHORIZED, "unauthorized");
    let challenge = HeaderValue::from_static("Basic realm=\"kanyun\", charset=\"UTF-8\"");
    refusal.header(header::WWW_AUTHENTICATE, challenge).into()
}

/// A task that ends when nobody waits for it any more.
struct Task(JoinHandle<Answer>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn log(method: &Method, handler: &str, peer: SocketAddr, answer: &mut Answer) {
    let status = answer.status().as_u16();
    let reason = answer.take_private();
    if answer.status().is_server_error() {
        let told = answer.whole().map_or("", |body| std::str::from_utf8(body).unwrap_or(""));
        let (told, reason) = (told.trim_end(), reason.unwrap_or_default());
        tracing::warn!(%method, handler, status, %peer, told, reason, "request failed");
    } else if let Some(reason) = reason {
        tracing::info!(%method, handler, status, %peer, reason, "request refused");
    } else {
        tracing::debug!(%method, handler, status, %peer, "request answered");
    }
}
