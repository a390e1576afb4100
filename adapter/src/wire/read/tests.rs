//! Read requests, built with plain prost.

use prost::Message;

use super::*;
use crate::wire::messages;

const LIMITS: ReadLimits = ReadLimits { queries: 4, matchers: 8 };

fn matcher(r#type: i32, name: &str, value: &str) -> messages::LabelMatcher {
    messages::LabelMatcher { r#type, name: name.to_owned(), value: value.to_owned() }
}

fn request(queries: Vec<messages::Query>, accepted: &[i32]) -> Vec<u8> {
    messages::ReadRequest { queries, accepted_response_types: accepted.to_vec() }.encode_to_vec()
}

fn check_refused(body: &[u8], expected: &str) {
    let refusal = decode(body, &LIMITS).unwrap_err().to_string();
    assert!(refusal.contains(expected), "{refusal}");
}

#[test]
fn a_full_request() {
    let hints = messages::ReadHints {
        step_ms: 15_000,
        func: "rate".to_owned(),
        start_ms: -9_223_309_901_257_974_000,
        end_ms: 9_223_309_901_257_974_999,
        grouping: vec!["job".to_owned()],
        by: true,
        range_ms: 60_000,
    };
    let query = messages::Query {
        start_timestamp_ms: -1,
        end_timestamp_ms: 2,
        matchers: vec![
            matcher(0, "__name__", "up"),
            matcher(1, "a", ""),
            matcher(2, "a", "x|y"),
            matcher(3, "b", ".+"),
        ],
        hints: Some(hints),
    };
    let decoded =
        decode(&request(vec![query, messages::Query::default()], &[1, 0]), &LIMITS).unwrap();
    let own = |kind, name: &str, value: &str| (kind, name.to_owned(), value.to_owned());
    let expected = Query {
        start_ms: -1,
        end_ms: 2,
        matchers: vec![
            own(MatcherKind::Equal, "__name__", "up"),
            own(MatcherKind::NotEqual, "a", ""),
            own(MatcherKind::Matches, "a", "x|y"),
            own(MatcherKind::NotMatches, "b", ".+"),
        ],
        hints: Some(Hints {
            step_ms: 15_000,
            func: "rate".to_owned(),
            start_ms: -9_223_309_901_257_974_000,
            end_ms: 9_223_309_901_257_974_999,
            range_ms: 60_000,
        }),
    };
    let queries = vec![expected, Query::default()];
    assert_eq!(decoded, ReadRequest { queries, response: ResponseType::Streamed });
}

#[test]
fn the_first_response_type_that_we_speak() {
    for (accepted, expected) in [
        (&[][..], Some(ResponseType::Sampled)),
        (&[0], Some(ResponseType::Sampled)),
        (&[1], Some(ResponseType::Streamed)),
        (&[1, 0], Some(ResponseType::Streamed)),
        (&[0, 1], Some(ResponseType::Sampled)),
        (&[7, 1], Some(ResponseType::Streamed)),
        (&[7], None),
    ] {
        let body = request(Vec::new(), accepted);
        assert_eq!(decode(&body, &LIMITS).ok().map(|r| r.response), expected, "{accepted:?}");
    }
    // Not packed, as protobuf 2 would send it.
    assert_eq!(decode(&[0x10, 1, 0x10, 0], &LIMITS).unwrap().response, ResponseType::Streamed);
    check_refused(&request(Vec::new(), &[7]), "none of the accepted response types");
}

#[test]
fn bounds_and_bad_values_are_named() {
    check_refused(&request(vec![messages::Query::default(); 5], &[]), "more than 4 queries");
    let matchers = vec![matcher(0, "a", "b"); 5];
    let query = messages::Query { matchers, ..Default::default() };
    check_refused(&request(vec![query.clone(), query], &[]), "more than 8 matchers");
    let query = messages::Query { matchers: vec![matcher(4, "a", "b")], ..Default::default() };
    check_refused(&request(vec![query], &[]), "unknown matcher type 4");
    let query = messages::Query { matchers: vec![matcher(0, "a", "bad!")], ..Default::default() };
    let mut body = request(vec![query], &[]);
    let at = body.windows(4).position(|window| window == b"bad!").unwrap();
    body[at] = 0xff;
    check_refused(&body, "matcher's value is not valid UTF-8");
    check_refused(b"\x0a\xff", "not a valid remote_read request");
}
