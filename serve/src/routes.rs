//! The table from method and path to handler. It must not know sockets.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use crate::answer::{Answer, Refusal};
use crate::call::Call;

/// What a handler returns, boxed.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

type Handler = Arc<dyn Fn(Call) -> Pending + Send + Sync>;

/// Which handler answers which path and method. Paths are compared byte for byte.
#[derive(Default)]
pub struct Routes {
    entries: Vec<Entry>,
}

struct Entry {
    path: &'static str,
    method: Method,
    handler: Handler,
}

/// Where a request goes: its route's path (for metrics and logs) and its handler, or a refusal.
pub(crate) enum Found {
    Handler(&'static str, Handler),
    /// The path is known, the method is not.
    WrongMethod(&'static str, Answer),
    NoSuchPath(Answer),
}

impl Routes {
    /// An empty table: everything is 404.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers GET, and HEAD without the body. A second handler for the same path and method is
    /// a fault of the program; the first one stays.
    #[must_use]
    pub fn get<F, A>(self, path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output: Into<Answer>> + Send + 'static,
    {
        self.add(Method::GET, path, handler)
    }

    /// Answers POST.
    #[must_use]
    pub fn post<F, A>(self, path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output: Into<Answer>> + Send + 'static,
    {
        self.add(Method::POST, path, handler)
    }

    fn add<F, A>(mut self, method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> A + Send + Sync + 'static,
        A: Future<Output: Into<Answer>> + Send + 'static,
    {
        let taken = self.entries.iter().any(|entry| entry.path == path && entry.method == method);
        debug_assert!(!taken, "{method} {path} has two handlers");
        let handler: Handler = Arc::new(move |call| {
            let answer = handler(call);
            Box::pin(async move { answer.await.into() })
        });
        self.entries.push(Entry { path, method, handler });
        self
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Found {
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let mut same_path = self.entries.iter().filter(|entry| entry.path == path).peekable();
        let Some(first) = same_path.peek().map(|entry| entry.path) else {
            let refusal = Refusal::client(StatusCode::NOT_FOUND, "there is nothing at this path");
            return Found::NoSuchPath(refusal.into());
        };
        let mut allowed = Vec::new();
        for entry in same_path {
            if entry.method == *wanted {
                return Found::Handler(entry.path, Arc::clone(&entry.handler));
            }
            allowed.push(if entry.method == Method::GET { "GET, HEAD" } else { "POST" });
        }
        let allowed = allowed.join(", ");
        let refusal = Refusal::client(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} is not allowed here, use {allowed}"),
        );
        let answer = Answer::from(refusal);
        Found::WrongMethod(
            first,
            match HeaderValue::try_from(allowed) {
                Ok(allowed) => answer.header(header::ALLOW, allowed),
                Err(_) => answer,
            },
        )
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.entries.iter().map(|entry| (&entry.method, entry.path));
        out.debug_list().entries(table).finish()
    }
}
