//! Requests and their answers, frame by frame, in a golden file. What three frames of text are
//! answered over ZeroMQ, they are answered over HTTP.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::adapter_of_2012;
use super::client::Client;
use crate::adapter_process::AdapterProcess;
use crate::http_client;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/api-2012.txt");

/// A request and its answer, as frames.
#[derive(Debug, Default, PartialEq)]
struct Exchange {
    remarks: Vec<String>,
    sent: Vec<String>,
    received: Vec<String>,
}

/// Lines `# remark`, `> frame sent`, `< frame received`; exchanges are parted by empty lines.
fn read(text: &str) -> Vec<Exchange> {
    let mut exchanges = vec![Exchange::default()];
    for line in text.lines() {
        let last = exchanges.last_mut().unwrap();
        match line.split_at(line.len().min(1)) {
            ("#", remark) => last.remarks.push(remark.to_owned()),
            (">", frame) => last.sent.push(frame.strip_prefix(' ').unwrap_or(frame).to_owned()),
            ("<", frame) => last.received.push(frame.strip_prefix(' ').unwrap_or(frame).to_owned()),
            ("", _) => exchanges.push(Exchange::default()),
            _ => panic!("{GOLDEN}: what is {line:?}?"),
        }
    }
    exchanges.retain(|exchange| !exchange.sent.is_empty());
    exchanges
}

fn written(exchanges: &[Exchange]) -> String {
    let mut text = String::new();
    for Exchange { remarks, sent, received } in exchanges {
        for (mark, lines) in [("#", remarks), (">", sent), ("<", received)] {
            for line in lines {
                let space = if mark == "#" || line.is_empty() { "" } else { " " };
                writeln!(text, "{mark}{space}{line}").unwrap();
            }
        }
        text.push('\n');
    }
    text
}

/// The frames that HTTP answers the same frames with; `None` where it has no such request.
fn over_http(adapter: &AdapterProcess, sent: &[String]) -> Option<Vec<String>> {
    let [msg_type, uuid, body] = sent else { return None };
    let body: Value = serde_json::from_str(body).ok()?;
    let frames = serde_json::to_vec(&(msg_type, uuid, body)).unwrap();
    let answer = http_client::request(adapter.address(), "POST /", &[], &frames).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    // The body as text: numbers must be written alike, too.
    let begin = serde_json::to_string(&(msg_type, uuid)).unwrap();
    let begin = begin.strip_suffix(']').unwrap();
    let rest = answer.text().strip_prefix(begin).unwrap().strip_prefix(',').unwrap();
    let body = rest.strip_suffix(']').unwrap();
    Some(vec![msg_type.clone(), uuid.clone(), body.to_owned()])
}

#[test]
fn both_doors_answer_as_it_is_written() {
    let adapter = adapter_of_2012();
    let client = Client::connect(&format!("tcp://{}", adapter.api_address()));
    let golden = std::fs::read_to_string(Path::new(GOLDEN)).unwrap();
    let expected = read(&golden);
    assert!(expected.len() > 20, "{} exchanges", expected.len());
    let mut found = Vec::new();
    let mut both = 0;
    for Exchange { remarks, sent, .. } in &expected {
        let received = client.exchange(sent).into_iter();
        let received: Vec<String> =
            received.map(|frame| String::from_utf8(frame).unwrap()).collect();
        if let Some(over_http) = over_http(&adapter, sent) {
            assert_eq!(over_http, received, "the doors differ on {sent:?}");
            both += 1;
        }
        found.push(Exchange { remarks: remarks.clone(), sent: sent.clone(), received });
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(GOLDEN, written(&found)).unwrap();
    } else {
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found, expected, "UPDATE_EXPECT=1 writes {GOLDEN} anew");
        }
        assert_eq!(written(&expected), golden, "UPDATE_EXPECT=1 writes {GOLDEN} anew");
    }
    assert!(both > 15, "{both} at both doors");
    adapter.stop();
}
