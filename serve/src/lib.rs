//! What both binaries need to be a good HTTP service: settings, logging, listening, TLS and
//! basic auth, body caps, errors to answers, pages in Prometheus' text formats, own metrics,
//! health and a graceful end. It must not know guests, samples or any other domain type.

pub use http;

pub mod settings;

pub mod clock;

pub mod log;

pub mod limits;

pub mod call;

pub mod answer;

pub mod routes;

pub mod exposition;

pub mod own_metrics;

pub mod readiness;

pub mod shutdown;

pub mod client;

pub mod sockets;

pub mod tls_client;

mod web_config;

pub mod server;
