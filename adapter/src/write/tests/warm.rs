//! A writer that remembers series by their bytes against one that never does: the same verdicts and
//! the same samples, whatever is sent in whatever order.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::model::labels::Labels;
use crate::model::time::{HOUR_MS, Week};
use crate::wire::messages::v2;

/// What both writers are sent: a message before compression.
type Sent = (Protocol, Vec<u8>);

/// Every sample, all bits of it.
async fn all_of(writer: &Writer) -> Vec<(Labels, Vec<(i64, u64, i64)>)> {
    let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
    let bits = |samples: &[Sample]| {
        let bits = samples.iter().map(|sample| {
            let start_ms = sample.start_ms.map_or(0, i64::from);
            (sample.timestamp_ms, sample.value.to_bits(), start_ms)
        });
        (bits.collect(), 0)
    };
    writer.engine.select(all, &[Matcher::not_equal("none", "x")], &bits).await.unwrap()
}

/// Sends everything to both, several times over. Says how many samples are stored in the end.
async fn check(now_ms: i64, sent: &[Sent]) -> usize {
    let (warm, cold) = (writer_at(now_ms).await, writer_at(now_ms).await);
    for (round, (protocol, message)) in
        (0..3).flat_map(|round| sent.iter().map(move |sent| (round, sent)))
    {
        let body = snappy::compress(message).unwrap();
        cold.engine.forget();
        let expected = cold.write(*protocol, &body, cold.admit(body.len()).unwrap()).await;
        let verdict = warm.write(*protocol, &body, warm.admit(body.len()).unwrap()).await;
        assert_eq!(verdict, expected, "round {round}");
    }
    let found = all_of(&warm).await;
    assert_eq!(found, all_of(&cold).await);
    found.iter().map(|(_, samples)| samples.len()).sum()
}

fn in_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Applies changes (position, new byte).
fn damaged(mut message: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        if !message.is_empty() {
            let at = at.index(message.len());
            message[at] = *byte;
        }
    }
    message
}

/// Label sets of which many are the same, in any order, some of them wrong.
fn any_pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let pair = prop_oneof![
        8 => Just(("__name__", "up")),
        4 => Just(("uuid", "guest-1")),
        4 => Just(("job", "libvirt")),
        2 => Just(("zone", "")),
        1 => Just(("", "nameless")),
    ];
    prop::collection::vec(pair, 0..4)
}

/// Around the end of the week in which the clock is, and some that are refused.
fn any_time(now_ms: i64) -> impl Strategy<Value = i64> {
    let roll_ms = Week::of(now_ms).end_ms() + 1;
    prop_oneof![
        8 => (-13..1i64).prop_map(move |hour| roll_ms + hour * HOUR_MS),
        4 => roll_ms - 2..roll_ms + 2,
        1 => Just(ROLL_NOW_MS + limits::AHEAD_MS_MAX + 1),
        1 => Just(0),
    ]
}

/// A clock five minutes into a week, so that samples of both sides of its beginning are taken.
const ROLL_NOW_MS: i64 = 2_811 * 7 * DAY_MS + 5 * 60_000;

fn any_series() -> impl Strategy<Value = messages::TimeSeries> {
    let times = prop::collection::vec(any_time(ROLL_NOW_MS - 7 * DAY_MS), 0..3);
    let extras = (0..8u8, 0..8u8);
    (any_pairs(), times, extras).prop_map(|(pairs, times, (exemplars, histograms))| {
        messages::TimeSeries {
            exemplars: vec![messages::Exemplar::default(); usize::from(exemplars == 0)],
            histograms: vec![messages::Histogram::default(); usize::from(histograms == 0)],
            ..series(&pairs, &times)
        }
    })
}

/// The same series as 2.0 has them, with a symbol table in the order of `first`.
fn as_v2(timeseries: &[messages::TimeSeries], first: &[&str]) -> Vec<u8> {
    let mut symbols: Vec<String> =
        [""].iter().chain(first).map(|text| (*text).to_owned()).collect();
    let mut place = |text: &String| {
        let known = symbols.iter().position(|symbol| symbol == text);
        known.unwrap_or_else(|| {
            symbols.push(text.clone());
            symbols.len() - 1
        }) as u32
    };
    let timeseries = timeseries
        .iter()
        .map(|series| v2::TimeSeries {
            labels_refs: series
                .labels
                .iter()
                .flat_map(|label| [place(&label.name), place(&label.value)])
                .collect(),
            samples: series
                .samples
                .iter()
                .map(|s| v2::Sample { value: s.value, timestamp: s.timestamp, start_timestamp: 7 })
                .collect(),
            histograms: series.histograms.clone(),
            ..Default::default()
        })
        .collect();
    v2::Request { symbols, timeseries }.encode_to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn generated_requests_are_judged_and_stored_the_same(
        requests in prop::collection::vec(prop::collection::vec(any_series(), 0..6), 1..5),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut sent = Vec::new();
        for timeseries in requests {
            let second = as_v2(&timeseries, &["libvirt", "up", "guest-1"]);
            let third = as_v2(&timeseries, &["job"]);
            let first = messages::WriteRequest { timeseries, ..Default::default() }.encode_to_vec();
            sent.push((Protocol::V1, damaged(first.clone(), &changes)));
            sent.push((Protocol::V1, first));
            sent.push((Protocol::V2, damaged(second.clone(), &changes)));
            sent.push((Protocol::V2, second));
            sent.push((Protocol::V2, third));
        }
        in_runtime(check(ROLL_NOW_MS, &sent));
    }
}

/// A day after the recorded requests were recorded, so that their samples are taken.
const CAPTURED_NOW_MS: i64 = 1_795_305_600_000;

/// Real requests of real Prometheus servers, whole and damaged at every place in turn.
#[test]
fn recorded_requests_are_judged_and_stored_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut bodies: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "body"))
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("write-"))
        .collect();
    bodies.sort();
    let mut sent = Vec::new();
    for path in bodies {
        let headers = std::fs::read_to_string(path.with_extension("headers")).unwrap();
        let protocol =
            if headers.contains("io.prometheus.write.v2") { Protocol::V2 } else { Protocol::V1 };
        let body = std::fs::read(&path).unwrap();
        let message = snappy::decompress(&body, limits::DECODED_BYTES_MAX).unwrap();
        sent.push((protocol, message.clone()));
        let step = (message.len() / 40).max(1);
        for at in (0..message.len()).step_by(step) {
            let mut damaged = message.clone();
            damaged[at] ^= 0x15;
            sent.push((protocol, damaged));
        }
    }
    assert!(sent.len() > 100, "{} requests", sent.len());
    let stored = in_runtime(check(CAPTURED_NOW_MS, &sent));
    assert!(stored > 100, "{stored} samples");
}

#[tokio::test]
async fn a_known_series_is_refused_for_its_times_and_its_histograms_as_ever() {
    let writer = writer().await;
    let pairs = [("__name__", "up"), ("uuid", "guest-1")];
    assert_eq!(send(&writer, vec![series(&pairs, &[NOW_MS])]).await.outcome, Outcome::Stored);
    let old = NOW_MS - 393 * DAY_MS;
    let verdict = send(&writer, vec![series(&pairs, &[NOW_MS + 1, old])]).await;
    let Outcome::Refused(text) = verdict.outcome else { panic!("{verdict:?}") };
    assert!(text.contains("older than the retention") && text.contains("guest-1"), "{text}");
    let histograms = vec![messages::Histogram::default()];
    let verdict =
        send(&writer, vec![messages::TimeSeries { histograms, ..series(&pairs, &[NOW_MS + 2]) }])
            .await;
    let Outcome::Refused(text) = verdict.outcome else { panic!("{verdict:?}") };
    assert!(text.contains("histograms") && text.contains("guest-1"), "{text}");
    assert_eq!(stored(&writer).await, [r#"{__name__="up", uuid="guest-1"} 3"#]);
}
