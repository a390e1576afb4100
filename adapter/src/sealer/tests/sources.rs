//! A guest that a 2012 worker and exporters meter, by turns and at the same time: generated hours,
//! samples that come late, seals in between. Whoever is asked for by the list of guests is billed
//! what the guest received, no byte twice, and the same before and after sealing.

use super::*;

const NIC: Family = Family::NicIncoming;
/// 2026-03-08T22:00Z: midnight and the border of a week lie near.
const BEGIN: i64 = 1_773_007_200_000;

const THESE_DAYS: Minutes = Minutes { from_ms: BEGIN - DAY_MS, to_ms: BEGIN + 7 * DAY_MS };

/// What a sender does in an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Nothing,
    /// One sample, so many minutes after the hour.
    One(i64),
    /// From one minute to another, each minute.
    From(i64, i64),
}

/// An hour of the guest's.
#[derive(Clone, Debug)]
struct Turn {
    exporter: Does,
    worker: Does,
    /// How much later the exporter's samples come.
    late_ms: i64,
    then: Then,
}

/// How the guest is called.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Whether workers say on which host it lives.
    with_host: bool,
    /// From which turn on its name is another guest's.
    handed_over: Option<usize>,
}

fn any_does() -> impl Strategy<Value = Does> {
    prop_oneof![
        3 => Just(Does::Nothing),
        4 => Just(Does::From(0, 60)),
        1 => (0..60_i64).prop_map(Does::One),
        2 => (0..60_i64, 1..60_i64).prop_map(|(from, more)| Does::From(from, (from + more).min(60))),
    ]
}

fn any_turns() -> impl Strategy<Value = Vec<Turn>> {
    let late =
        prop_oneof![4 => Just(0_i64), 1 => select(vec![2 * HOUR_MS, 5 * HOUR_MS, 30 * HOUR_MS])];
    let turn = (any_does(), any_does(), late, any_then())
        .prop_map(|(exporter, worker, late_ms, then)| Turn { exporter, worker, late_ms, then });
    prop::collection::vec(turn, 2..12)
}

fn any_case() -> impl Strategy<Value = Case> {
    (any::<bool>(), prop::option::weighted(0.2, 1..6_usize))
        .prop_map(|(with_host, handed_over)| Case { with_host, handed_over })
}

impl Does {
    fn times(self, hour_ms: i64, second: i64) -> Vec<i64> {
        let minutes = match self {
            Does::Nothing => 0..0,
            Does::One(minute) => minute..minute + 1,
            Does::From(from, until) => from..until,
        };
        minutes.map(|minute| hour_ms + minute * 60_000 + second * 1000).collect()
    }
}

/// A byte a millisecond since the begin.
fn received(labels: &[(&str, &str)], times: Vec<i64>) -> (Labels, Vec<Sample>) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of some days")]
    let samples = times.into_iter().map(|ms| sample(ms, (ms - BEGIN) as f64)).collect();
    let device = ("target_device", "tap1");
    (Labels::new(labels.iter().copied().chain([("domain", "instance-0a"), device])), samples)
}

/// What is sent in an hour: what comes at once, and what comes later.
fn sent(turn: &Turn, number: usize, case: Case) -> [(i64, (Labels, Vec<Sample>)); 2] {
    let hour_ms = BEGIN + i64::try_from(number).unwrap() * HOUR_MS;
    let metric = (METRIC_NAME, "libvirt_domain_interface_stats_receive_bytes_total");
    let uuid = if case.handed_over.is_some_and(|turn| number >= turn) { "v" } else { "u" };
    let exporter = [metric, ("uuid", uuid), ("instance", "h:9177"), ("job", "libvirt")];
    let metric = (METRIC_NAME, "kanyun_nic_incoming_bytes_total");
    let host = if case.with_host { "h" } else { "" };
    let worker = [metric, ("host", host), ("job", "kanyun-worker")];
    let at_once = hour_ms + HOUR_MS - 1;
    [
        (at_once, received(&worker, turn.worker.times(hour_ms, 3))),
        (at_once + turn.late_ms, received(&exporter, turn.exporter.times(hour_ms, 20))),
    ]
}

async fn rows_of(works: &Works, guest: &Guest, minutes: Minutes) -> Vec<Row> {
    let (guest, devices) = (guest.clone(), Devices::Total);
    let mut slices = Slices::new(&works.usage, Asked { guest, family: NIC, devices, minutes });
    let mut rows = Vec::new();
    while let Some(part) = slices.next().await.unwrap() {
        rows.extend(part);
    }
    rows
}

fn everyone() -> Vec<Guest> {
    let name = |host: &str| Guest::Name { domain: "instance-0a".to_owned(), host: host.to_owned() };
    let uuid = |uuid: &str| Guest::Uuid(uuid.to_owned());
    vec![uuid("u"), uuid("v"), name("h"), name("")]
}

type Arrived = Vec<(Labels, Vec<Sample>)>;

/// Everybody's rows are those that an adapter counts that has not sealed anything.
async fn check(works: &Works, arrived: &Arrived) -> Result<(), TestCaseError> {
    let fresh = Works::new(&["uuid"], works.clock.now_ms()).await;
    for series in arrived {
        write(&fresh.engine, std::slice::from_ref(series)).await;
    }
    for guest in everyone() {
        let found = rows_of(works, &guest, THESE_DAYS).await;
        let expected = rows_of(&fresh, &guest, THESE_DAYS).await;
        prop_assert_eq!(found, expected, "billed (left) and never sealed, {}", guest);
    }
    Ok(())
}

/// What all who are listed are billed, and that parts add up.
async fn bill(works: &Works, split_ms: i64) -> Result<Vec<Row>, TestCaseError> {
    let mut all = Vec::new();
    for guest in works.usage.guests(NIC, Minutes::ALL).await.unwrap() {
        let name = guest.to_string();
        let meant = works.usage.guest(&name, &[NIC], Minutes::ALL).await.unwrap();
        prop_assert_eq!(meant.as_ref(), Some(&guest), "{}", name);
        let whole = rows_of(works, &guest, Minutes::ALL).await;
        let mut parts = Vec::new();
        for (from_ms, to_ms) in [(i64::MIN, split_ms), (split_ms, i64::MAX)] {
            let minutes = Minutes { from_ms, to_ms };
            if let Some(guest) = works.usage.guest(&name, &[NIC], minutes).await.unwrap() {
                parts.extend(rows_of(works, &guest, minutes).await);
            }
        }
        prop_assert_eq!(&parts, &whole, "two parts (left) and the whole of {}", name);
        all.extend(whole);
    }
    all.sort_by_key(|row| row.minute_ms);
    Ok(all)
}

/// No byte is billed twice; and of what was received between the first row and the last, nothing is
/// left out but where a row says so.
fn is_right(rows: &[Row], times: &BTreeSet<i64>, case: Case) -> Result<(), TestCaseError> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of some days")]
    let received = |from: i64, to: i64| (to - from) as f64;
    let billed: f64 = rows.iter().map(|row| row.value).sum();
    prop_assert!(billed <= received(*first, *last), "{billed} of {}", received(*first, *last));
    if case.handed_over.is_some() {
        // A worker's hours that no exporter saw are of the one or of the other: nobody can say.
        return Ok(());
    }
    let mut missing = 0.0;
    for (before, row) in rows.iter().zip(rows.iter().skip(1)) {
        if row.flags.column || row.flags.gap {
            missing += received(before.minute_ms, row.minute_ms + 60_000);
        }
    }
    // The first row counts nothing, and in the last hour the other sender may have been later.
    missing += rows.first().map_or(0.0, |row| received(*first, row.minute_ms + 60_000));
    missing += rows.last().map_or(0.0, |row| received(row.minute_ms, *last).max(0.0));
    let least = received(*first, *last) - missing;
    prop_assert!(billed >= least, "{billed} of at least {least}: {rows:#?}");
    Ok(())
}

async fn meter(turns: &[Turn], case: Case, split_ms: i64) -> Result<(), TestCaseError> {
    let works = Works::new(&["uuid"], BEGIN).await;
    let mut deliveries = Vec::new();
    for (number, turn) in turns.iter().enumerate() {
        let [worker, exporter] = sent(turn, number, case);
        deliveries.push((worker, Then::Nothing));
        deliveries.push((exporter, turn.then));
    }
    deliveries.sort_by_key(|((comes_ms, _), _)| *comes_ms);
    let (mut arrived, mut times) = (Arrived::new(), BTreeSet::new());
    for ((comes_ms, series), then) in deliveries {
        works.clock.set(comes_ms);
        times.extend(series.1.iter().map(|sample| sample.timestamp_ms));
        write(&works.engine, std::slice::from_ref(&series)).await;
        let last = series.1.last().copied();
        arrived.push(series);
        match (then, last) {
            (Then::Pass, _) => works.pass().await,
            (Then::CutOff(steps), Some(sample)) => cut_off(&works, sample, steps).await,
            (Then::Check, _) => check(&works, &arrived).await?,
            _ => {}
        }
    }
    check(&works, &arrived).await?;
    let before = bill(&works, split_ms).await?;
    is_right(&before, &times, case)?;
    works.clock.set(works.clock.now_ms() + DAY_MS);
    works.pass().await;
    check(&works, &arrived).await?;
    let after = bill(&works, split_ms).await?;
    prop_assert_eq!(after, before, "after sealing (left) and before");
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_sources_bill_nothing_twice(
        turns in any_turns(),
        case in any_case(),
        split in 0..12 * 60_i64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(meter(&turns, case, BEGIN + split * 60_000))?;
    }
}

/// An exporter is out for two hours, and the worker's figures of them are billed under its uuid.
#[tokio::test]
async fn an_exporter_is_out_and_the_worker_stands_in() {
    let does =
        |exporter| Turn { exporter, worker: Does::From(0, 60), late_ms: 0, then: Then::Pass };
    let all = Does::From(0, 60);
    // Two hours of the worker alone, before there was any exporter; then the exporter's pause.
    let turns = [Does::Nothing, Does::Nothing, all, Does::Nothing, Does::Nothing, all].map(does);
    let case = Case { with_host: true, handed_over: None };
    meter(&turns, case, BEGIN + 90 * 60_000).await.unwrap();

    let works = Works::new(&["uuid"], BEGIN + 6 * HOUR_MS).await;
    for (number, turn) in turns.iter().enumerate() {
        for (_, series) in sent(turn, number, case) {
            write(&works.engine, &[series]).await;
        }
    }
    let guests = works.usage.guests(NIC, Minutes::ALL).await.unwrap();
    assert_eq!(guests, BTreeSet::from([Guest::Uuid("u".to_owned())]));
    for name in ["u", "instance-0a", "instance-0a@h"] {
        // Also of hours in which no exporter saw it.
        for hours in [(0, 6), (0, 1), (3, 4)] {
            let minutes = Minutes {
                from_ms: BEGIN + hours.0 * HOUR_MS - 1,
                to_ms: BEGIN + hours.1 * HOUR_MS,
            };
            let guest = works.usage.guest(name, &[NIC], minutes).await.unwrap();
            assert_eq!(guest, Some(Guest::Uuid("u".to_owned())), "{name} in {hours:?}");
        }
    }
    let rows = rows_of(&works, &Guest::Uuid("u".to_owned()), Minutes::ALL).await;
    let billed: f64 = rows.iter().map(|row| row.value).sum();
    // Six hours but for the first sample, and some seconds at each of three changes.
    let lost = 6.0 * 3_600_000.0 - billed;
    assert!((0.0..4.0 * 80_000.0).contains(&lost), "{lost} ms are not billed");
    assert_eq!(rows.iter().filter(|row| row.flags.column).count(), 3);
    assert_eq!(rows.len(), 360);
    let devices = works.usage.devices("u").await.unwrap();
    assert_eq!(devices, [(NIC, vec!["tap1".to_owned()])]);
}
