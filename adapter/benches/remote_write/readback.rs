//! Reads every sample back and compares counts and checksums with what was sent.
//! Ours by streamed remote_read, VictoriaMetrics by its export API.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use crate::fleet;
use crate::remote;
use crate::sender::client;
use crate::tally::{Likeness, Tally, series_hash};

/// How a server gives its samples back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// POST of a remote_read request.
    RemoteRead,
    /// `GET …?match[]=…` with a line of JSON for each series.
    Export,
}

/// Larger than any answer for one metric.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// Reads all metrics within a range of unix milliseconds and compares them with `expected`: gives
/// the worst that was found, or what is different.
pub(crate) fn check(
    door: Door,
    url: &str,
    range: (i64, i64),
    expected: &BTreeMap<String, Tally>,
) -> Result<Likeness, String> {
    assert_eq!(fleet::metrics().len(), expected.len());
    let agent = client();
    let (mut worst, mut wrong) = (Likeness::Same, Vec::new());
    for (metric, sent) in expected {
        let read = match door {
            Door::RemoteRead => by_remote_read(&agent, url, range, metric)?,
            Door::Export => by_export(&agent, url, range, metric)?,
        };
        let likeness = sent.likeness(&read);
        if likeness == Likeness::Different {
            wrong.push(format!("{metric}: sent {sent:?}, read {read:?}"));
        }
        worst = worst.max(likeness);
    }
    if wrong.is_empty() { Ok(worst) } else { Err(wrong.join("\n")) }
}

fn by_remote_read(
    agent: &ureq::Agent,
    url: &str,
    range: (i64, i64),
    metric: &str,
) -> Result<Tally, String> {
    let query = remote::query(range, &[("=", "__name__", metric)]);
    let mut answer = agent
        .post(url)
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .send(&remote::read_body(&[query], &[1])[..])
        .map_err(|error| format!("{url}: {error}"))?;
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let body = body.map_err(|error| format!("{url}: {error}"))?;
    if answer.status() != 200 {
        return Err(format!("{url}: {}: {}", answer.status(), String::from_utf8_lossy(&body)));
    }
    let mut tally = Tally::default();
    for (labels, samples) in remote::streamed(&body, 1).remove(0) {
        let series = series_hash(labels.iter().map(|(name, value)| (&**name, &**value)));
        for (timestamp_ms, bits) in samples {
            tally.add(series, timestamp_ms, f64::from_bits(bits));
        }
    }
    Ok(tally)
}

/// One series of an export.
#[derive(serde::Deserialize)]
struct Line {
    metric: BTreeMap<String, String>,
    values: Vec<f64>,
    timestamps: Vec<i64>,
}

fn by_export(
    agent: &ureq::Agent,
    url: &str,
    (start_ms, end_ms): (i64, i64),
    metric: &str,
) -> Result<Tally, String> {
    // Unix seconds, with decimals.
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1_000, ms % 1_000);
    let answer = agent
        .get(url)
        .query("match[]", metric)
        .query("start", seconds(start_ms))
        .query("end", seconds(end_ms))
        .call()
        .map_err(|error| format!("{url}: {error}"))?;
    if answer.status() != 200 {
        return Err(format!("{url}: answered {}", answer.status()));
    }
    let body = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).reader();
    let mut tally = Tally::default();
    for line in BufReader::new(body).lines() {
        let line = line.map_err(|error| format!("{url}: {error}"))?;
        let line: Line = serde_json::from_str(&line).map_err(|error| format!("{url}: {error}"))?;
        let series = series_hash(line.metric.iter().map(|(name, value)| (&**name, &**value)));
        for (timestamp_ms, value) in line.timestamps.iter().zip(&line.values) {
            tally.add(series, *timestamp_ms, *value);
        }
    }
    Ok(tally)
}
