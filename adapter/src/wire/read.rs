//! A decoded remote_read request: queries, and the response type that is agreed on.
//!
//! Walked by hand like a write request, so that every bound is judged before anything grows. What
//! the matchers mean is decided elsewhere.

use thiserror::Error;

use super::fields::{Fields, Malformed};

/// A remote_read request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// In the order of the request; answers refer to them by position.
    pub queries: Vec<Query>,
    /// What the answer must be: the first of the client's list that we speak.
    pub response: ResponseType,
}

/// The kinds of answer to a remote_read request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseType {
    /// One `ReadResponse`, compressed with snappy.
    Sampled,
    /// A sequence of `ChunkedReadResponse` frames.
    Streamed,
}

/// One selector and the time for which it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// First millisecond, inclusive; any `i64`, also far outside of time (`/api/v1/series` sends
    /// -9223309901257974000).
    pub start_ms: i64,
    /// Last millisecond, inclusive; any `i64`.
    pub end_ms: i64,
    /// Kind, label name, value or pattern; all must hold. A name may occur more than once.
    pub matchers: Vec<(MatcherKind, String, String)>,
    /// Advice of the client on what it will do with the answer.
    pub hints: Option<Hints>,
}

/// How a matcher compares; a missing label has the empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatcherKind {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, anchored at both ends.
    Matches,
    /// `!~`, anchored at both ends.
    NotMatches,
}

/// `prometheus.ReadHints`, the advisory part of a query. Grouping is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Step of a range query in milliseconds, 0 for an instant query.
    pub step_ms: i64,
    /// The innermost function or aggregation; `series` for `/api/v1/series`, whose answer needs
    /// labels only.
    pub func: String,
    /// First millisecond that the selector needs, inclusive.
    pub start_ms: i64,
    /// Last millisecond that the selector needs, inclusive.
    pub end_ms: i64,
    /// Width of a range selector in milliseconds, else 0.
    pub range_ms: i64,
}

/// The bounds of a read request.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Queries of one request.
    pub queries: usize,
    /// Matchers of all its queries together.
    pub matchers: usize,
}

/// Why a read request is refused: a permanent fault of the client.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not a protobuf message of this kind.
    #[error("the body is not a valid remote_read request: {0}")]
    Malformed(#[from] Malformed),
    /// One of the [`ReadLimits`].
    #[error("the request has more than {max} {what}")]
    OverBound {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A label name, a value, a pattern or a hint is not text.
    #[error("a {0} is not valid UTF-8")]
    NotUtf8(&'static str),
    /// A matcher of a kind that the protocol does not have.
    #[error("unknown matcher type {0}")]
    UnknownMatcher(i32),
    /// The client accepts only response types that we do not speak.
    #[error(
        "none of the accepted response types is supported: accept SAMPLES or STREAMED_XOR_CHUNKS"
    )]
    NoResponseType,
}

/// Decodes a decompressed request body.
pub fn decode(body: &[u8], limits: &ReadLimits) -> Result<ReadRequest, ReadError> {
    let mut queries = Vec::new();
    let mut matchers_left = limits.matchers;
    let mut any_listed = false;
    let mut response = None;
    let mut fields = Fields::new(body);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => {
                if queries.len() >= limits.queries {
                    return Err(ReadError::OverBound { what: "queries", max: limits.queries });
                }
                queries.push(query(fields.bytes(key)?, limits, &mut matchers_left)?);
            }
            2 => fields.uint32s::<Malformed>(key, |number| {
                any_listed = true;
                response = response.or(response_type(number));
                Ok(())
            })?,
            _ => fields.skip(key)?,
        }
    }
    // Clients before 2.55 send no list and understand samples only.
    let response = match response {
        Some(response) => response,
        None if any_listed => return Err(ReadError::NoResponseType),
        None => ResponseType::Sampled,
    };
    Ok(ReadRequest { queries, response })
}

fn response_type(number: u32) -> Option<ResponseType> {
    match number {
        0 => Some(ResponseType::Sampled),
        1 => Some(ResponseType::Streamed),
        _ => None,
    }
}

fn query(
    message: &[u8],
    limits: &ReadLimits,
    matchers_left: &mut usize,
) -> Result<Query, ReadError> {
    let mut query = Query::default();
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => query.start_ms = fields.int64(key)?,
            2 => query.end_ms = fields.int64(key)?,
            3 => {
                *matchers_left = matchers_left
                    .checked_sub(1)
                    .ok_or(ReadError::OverBound { what: "matchers", max: limits.matchers })?;
                query.matchers.push(matcher(fields.bytes(key)?)?);
            }
            // Protobuf merges a message that is sent in pieces.
            4 => merge_hints(query.hints.get_or_insert_default(), fields.bytes(key)?)?,
            _ => fields.skip(key)?,
        }
    }
    Ok(query)
}

fn matcher(message: &[u8]) -> Result<(MatcherKind, String, String), ReadError> {
    let (mut kind, mut name, mut value) = (0, "", "");
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => kind = fields.enumeration(key)?,
            2 => name = text(fields.bytes(key)?, "matcher's name")?,
            3 => value = text(fields.bytes(key)?, "matcher's value")?,
            _ => fields.skip(key)?,
        }
    }
    let kind = match kind {
        0 => MatcherKind::Equal,
        1 => MatcherKind::NotEqual,
        2 => MatcherKind::Matches,
        3 => MatcherKind::NotMatches,
        unknown => return Err(ReadError::UnknownMatcher(unknown)),
    };
    Ok((kind, name.to_owned(), value.to_owned()))
}

fn merge_hints(hints: &mut Hints, message: &[u8]) -> Result<(), ReadError> {
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => hints.step_ms = fields.int64(key)?,
            2 => text(fields.bytes(key)?, "hint's function")?.clone_into(&mut hints.func),
            3 => hints.start_ms = fields.int64(key)?,
            4 => hints.end_ms = fields.int64(key)?,
            7 => hints.range_ms = fields.int64(key)?,
            _ => fields.skip(key)?,
        }
    }
    Ok(())
}

fn text<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, ReadError> {
    str::from_utf8(bytes).map_err(|_| ReadError::NotUtf8(what))
}

#[cfg(test)]
mod tests;
