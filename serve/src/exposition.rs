//! Pages in Prometheus' text formats out of a registry: negotiation, help texts, compression.
//! It must not know which metrics there are.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use http::header::{self, HeaderValue};
use http::request::Parts;
use prometheus_client::registry::Registry;

use crate::answer::{Answer, Refusal};

/// What is compressed at a time.
const PART_BYTES: usize = 16 << 10;

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
    let format = negotiate::format(&head.headers);
    let written = if negotiate::gzip(&head.headers) {
        compressed(&raw, format).map(|packed| {
            let answer = Answer::bytes(StatusCode::OK, format.content_type(), packed);
            answer.header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
        })
    } else {
        let mut text = String::with_capacity(raw.len());
        each_part(&raw, format, |part| {
            text.push_str(part);
            Ok(())
        })
        .map(|()| Answer::bytes(StatusCode::OK, format.content_type(), Bytes::from(text)))
    };
    match written {
        Ok(answer) => {
            answer.header(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"))
        }
        Err(error) => {
            Refusal::internal("cannot write the page of metrics", error.to_string()).into()
        }
    }
}

/// `gzip` costs a scrape of 600 kB a few milliseconds at this level, and saves nine tenths. Of a page of many guests, which
/// is a megabyte, no second copy is made.
fn compressed(raw: &str, format: Format) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    each_part(raw, format, |part| encoder.write_all(part.as_bytes()))?;
    Ok(Bytes::from(encoder.finish()?))
}

/// The page in this format, part by part.
fn each_part(
    raw: &str,
    format: Format,
    mut take: impl FnMut(&str) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let (mut part, mut family) = (String::new(), convert::Family::default());
    for line in convert::lines(raw) {
        match format {
            Format::Classic => family.line(line.strip_suffix('\n').unwrap_or(&line), &mut part),
            Format::OpenMetrics1 | Format::OpenMetrics0 => part.push_str(&line),
        }
        if part.len() >= PART_BYTES {
            take(&part)?;
            part.clear();
        }
    }
    family.flush_help(&mut part);
    take(&part)
}

#[cfg(test)]
mod tests;
