//! Pages in Prometheus' text formats out of a registry: negotiation, help texts, compression.
//! It must not know which metrics there are.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use prometheus_client::registry::Registry;

use crate::answer::{Answer, Refusal};

mod convert;
mod negotiate;

pub use convert::classic;
pub use negotiate::Format;

/// The page of a registry, in the format and encoding that the request's head asks for.
///
/// Help texts are registered as they are meant, with newlines, quotes and backslashes unescaped:
/// prometheus-client 0.25 writes them raw, and they are escaped here, for each format as it wants.
pub fn page(registry: &Registry, head: &Parts) -> Answer {
    let mut raw = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut raw, registry) {
        return Refusal::internal("cannot write the page of metrics", error.to_string()).into();
    }
    // A page of many guests is a megabyte: no more than two of it are held at a time.
    let openmetrics = convert::escape_help(&raw);
    drop(raw);
    let format = negotiate::format(&head.headers);
    let text = match format {
        Format::Classic => {
            let text = classic(&openmetrics);
            drop(openmetrics);
            text
        }
        Format::OpenMetrics1 | Format::OpenMetrics0 => openmetrics,
    };
    let answer = compressed(text, &head.headers, format.content_type());
    answer.header(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"))
}

/// `gzip` costs a scrape of 600 kB a few milliseconds at this level, and saves nine tenths.
fn compressed(text: String, headers: &HeaderMap, content_type: &'static str) -> Answer {
    if negotiate::gzip(headers) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        if encoder.write_all(text.as_bytes()).is_ok()
            && let Ok(packed) = encoder.finish()
        {
            let answer = Answer::bytes(StatusCode::OK, content_type, Bytes::from(packed));
            return answer.header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    Answer::bytes(StatusCode::OK, content_type, Bytes::from(text))
}

#[cfg(test)]
mod tests;
