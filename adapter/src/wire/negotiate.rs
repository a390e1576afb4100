//! Which protocol a request's headers ask for, judged before its body is touched.
//!
//! Headers come as plain text, so this file knows no HTTP types. Media types are parsed as RFC 9110
//! sections 5.6 and 8.3 say: letter case, white space and quoting must not change the verdict,
//! because a 2.0 body taken for 1.0 decodes to an empty request and its samples would be lost.

use thiserror::Error;

/// The value of `Content-Type` in an answer with sampled response type.
pub const CONTENT_TYPE_SAMPLED: &str = "application/x-protobuf";

/// The value of `Content-Type` in a streamed answer. Prometheus compares it byte for byte, with
/// exactly this one space.
pub const CONTENT_TYPE_STREAMED: &str =
    "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

const MESSAGE_V1: &str = "prometheus.WriteRequest";
const MESSAGE_V2: &str = "io.prometheus.write.v2.Request";

/// The version of remote_write that a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// remote_write 1.0, `prometheus.WriteRequest`.
    V1,
    /// remote_write 2.0, `io.prometheus.write.v2.Request`.
    V2,
}

/// Headers that ask for something this server does not speak: the answer is 415.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// Another media type than `application/x-protobuf`, or no media type at all.
    #[error(
        "content type {0:?} is not supported: send application/x-protobuf, with proto={MESSAGE_V1} \
         or proto={MESSAGE_V2}"
    )]
    ContentType(String),
    /// The media type is right but names an unknown message.
    #[error("protobuf message {0:?} is not supported: use {MESSAGE_V1} or {MESSAGE_V2}")]
    Message(String),
    /// Another compression than snappy.
    #[error("content encoding {0:?} is not supported: compress with snappy (block format)")]
    Encoding(String),
}

/// Judges the headers of a write request.
///
/// Only the content type decides the version (remote_write 2.0, "Protocol"), never
/// `X-Prometheus-Remote-Write-Version`. As with Prometheus, a missing content type means 1.0 and a
/// missing encoding means snappy. Parameters other than `proto` are ignored.
pub fn write_protocol(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
) -> Result<Protocol, Unsupported> {
    let protocol = match content_type.map(str::trim).filter(|text| !text.is_empty()) {
        None => Protocol::V1,
        Some(text) => protocol_of(text)?,
    };
    encoding_supported(content_encoding)?;
    Ok(protocol)
}

/// Judges the headers of a read request: only the encoding counts.
///
/// The content type says nothing there: there is one message only, and clients are known to send
/// the type of the answer that they want (`vmctl` does).
pub fn read_supported(content_encoding: Option<&str>) -> Result<(), Unsupported> {
    encoding_supported(content_encoding)
}

fn encoding_supported(content_encoding: Option<&str>) -> Result<(), Unsupported> {
    match content_encoding.map(str::trim) {
        None | Some("") => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("snappy") => Ok(()),
        Some(encoding) => Err(Unsupported::Encoding(excerpt(encoding))),
    }
}

fn protocol_of(content_type: &str) -> Result<Protocol, Unsupported> {
    let other = || Unsupported::ContentType(excerpt(content_type));
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !media_type.trim_end().eq_ignore_ascii_case("application/x-protobuf") {
        return Err(other());
    }
    let mut message: Option<String> = None;
    let mut rest = parameters;
    while let Some((name, value, tail)) = parameter(rest).map_err(|_| other())? {
        if name.eq_ignore_ascii_case("proto") && message.replace(value).is_some() {
            // Two names in one header: whichever we took could be the wrong one.
            return Err(other());
        }
        rest = tail;
    }
    match message.as_deref() {
        None | Some(MESSAGE_V1) => Ok(Protocol::V1),
        Some(MESSAGE_V2) => Ok(Protocol::V2),
        Some(unknown) => Err(Unsupported::Message(excerpt(unknown))),
    }
}

/// A parameter list that RFC 9110 does not allow.
struct BadParameter;

/// Takes the first parameter off `text`: its name, its value without quotes, and what follows it.
fn parameter(text: &str) -> Result<Option<(&str, String, &str)>, BadParameter> {
    // Empty parameters (`;;`, a trailing `;`) are allowed by RFC 9110 section 5.6.6.
    let text = text.trim_start_matches([' ', '\t', ';']);
    if text.is_empty() {
        return Ok(None);
    }
    let (name, rest) = text.split_once('=').ok_or(BadParameter)?;
    if !is_token(name) {
        return Err(BadParameter);
    }
    let (value, rest) = if let Some(quoted) = rest.strip_prefix('"') {
        quoted_string(quoted)?
    } else {
        let (value, tail) = rest.find(';').map_or((rest, ""), |at| rest.split_at(at));
        (value.trim_end().to_owned(), tail)
    };
    let rest = rest.trim_start();
    if value.is_empty() || !(rest.is_empty() || rest.starts_with(';')) {
        return Err(BadParameter);
    }
    Ok(Some((name, value, rest)))
}

/// Reads a quoted string whose opening quote is already taken; gives it and what follows it.
fn quoted_string(text: &str) -> Result<(String, &str), BadParameter> {
    let mut value = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Ok((value, characters.as_str())),
            '\\' => value.push(characters.next().ok_or(BadParameter)?),
            other => value.push(other),
        }
    }
    Err(BadParameter)
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A sender's text, short enough for a log line.
fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

    #[test]
    fn content_types() {
        for (content_type, expected) in [
            (None, Some(Protocol::V1)),
            (Some(""), Some(Protocol::V1)),
            (Some("application/x-protobuf"), Some(Protocol::V1)),
            (Some("application/x-protobuf;"), Some(Protocol::V1)),
            (Some("Application/X-Protobuf"), Some(Protocol::V1)),
            (Some("application/x-protobuf;proto=prometheus.WriteRequest"), Some(Protocol::V1)),
            (Some("application/x-protobuf;charset=utf-8"), Some(Protocol::V1)),
            (Some(V2), Some(Protocol::V2)),
            (
                Some("application/x-protobuf; proto=io.prometheus.write.v2.Request"),
                Some(Protocol::V2),
            ),
            (
                Some(" application/x-protobuf ;\tPROTO=\"io.prometheus.write.v2.Request\" ; a=b"),
                Some(Protocol::V2),
            ),
            (
                Some(
                    "application/x-protobuf;a=\";\\\"\";proto=\"io.prometheus\\.write.v2.Request\"",
                ),
                Some(Protocol::V2),
            ),
            (Some("application/x-protobuf;proto=IO.prometheus.write.v2.Request"), None),
            (Some("application/x-protobuf;proto=foo"), None),
            (Some("application/x-protobuf;proto="), None),
            (Some("application/x-protobuf;proto"), None),
            (Some("application/x-protobuf;proto=\"io.prometheus.write.v2.Request"), None),
            (Some("application/x-protobuf;proto=a;proto=io.prometheus.write.v2.Request"), None),
            (Some("application/json"), None),
            (Some("image/png"), None),
            (Some("application/x-protobuffer"), None),
        ] {
            assert_eq!(write_protocol(content_type, None).ok(), expected, "{content_type:?}");
        }
    }

    #[test]
    fn encodings() {
        for (encoding, supported) in [
            (None, true),
            (Some(""), true),
            (Some("snappy"), true),
            (Some(" Snappy "), true),
            (Some("gzip"), false),
            (Some("deflate"), false),
            (Some("identity"), false),
            (Some("snappy, gzip"), false),
        ] {
            assert_eq!(write_protocol(Some(V2), encoding).is_ok(), supported, "{encoding:?}");
            assert_eq!(read_supported(encoding).is_ok(), supported, "{encoding:?}");
        }
    }

    #[test]
    fn the_refusal_says_what_to_send() {
        let refusal = write_protocol(Some("application/json"), None).unwrap_err().to_string();
        assert!(
            refusal.contains("application/json") && refusal.contains("x-protobuf"),
            "{refusal}"
        );
    }
}
