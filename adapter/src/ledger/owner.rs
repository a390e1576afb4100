//! Whose an hour of a 2012 worker is: the guest's that an exporter saw by the same name on the same
//! host in that hour (ledger.md, "Whose counter is it", third rule). Pure; knows labels and hours.

use std::collections::{BTreeMap, BTreeSet};

use super::Series;
use super::family::{Family, START_TIME, Source, WORKER_JOB};
use super::guest::Guest;
use super::track::host_of;
use crate::model::labels::{Labels, METRIC_NAME};
use crate::model::row_key::HOST_LABELS;
use crate::model::sample::Sample;
use crate::model::time::{Hour, Week};

/// Uuids by hour.
type Seen = BTreeMap<Hour, BTreeSet<String>>;

/// The hours in which exporters saw guests of one domain.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    by_host: BTreeMap<String, Seen>,
    anywhere: Seen,
    /// The series that show it, a sample an hour.
    series: Vec<(Labels, Vec<Sample>)>,
}

/// Whether a series is of a 2012 worker, which knows no uuid.
pub fn is_of_worker(labels: &Labels) -> bool {
    labels.get("job") == WORKER_JOB && matches!(Guest::of(labels), Some(Guest::Name { .. }))
}

/// The uuid of the guest that a series shows to be alive: a billed series of an exporter. Any will
/// do, as no hour may be billed from an exporter's samples and be somebody else's.
pub fn sighted(labels: &Labels) -> Option<String> {
    let of_exporter = labels.get(METRIC_NAME) == START_TIME
        || Family::ALL.iter().any(|family| family.source_of(labels) == Some(Source::Exporter));
    match Guest::of(labels).filter(|_| of_exporter)? {
        Guest::Uuid(uuid) => Some(uuid),
        Guest::Name { .. } => None,
    }
}

/// The host that a series names; empty where it names none.
pub fn host(labels: &Labels) -> &str {
    host_of(labels)
}

/// The metrics that workers send.
pub fn worker_metrics() -> Vec<&'static str> {
    metrics_of(Source::Worker)
}

/// The metrics by which exporters show that a guest is alive.
pub fn exporter_metrics() -> Vec<&'static str> {
    let mut metrics = metrics_of(Source::Exporter);
    metrics.push(START_TIME);
    metrics
}

fn metrics_of(source: Source) -> Vec<&'static str> {
    let of_families = Family::ALL.into_iter().flat_map(|family| family.feed(source).metrics());
    let mut metrics: Vec<&str> = of_families.collect();
    metrics.sort_unstable();
    metrics.dedup();
    metrics
}

/// Whose the hours are that stand under a worker's name because no exporter saw its guest in them:
/// week by week, the guest's whom exporters saw by that name in the week, else in the last week
/// before in which they saw any, else in the first one after. So a guest that comes later by the same
/// name takes nothing away from weeks before it.
#[derive(Clone, Debug)]
pub struct Owners {
    seen: BTreeMap<Week, BTreeSet<String>>,
    /// Weeks in which exporters that know no uuid use the name as well: what they counted is the
    /// same that the others did.
    shared: BTreeSet<Week>,
}

impl Owners {
    /// By all that goes by the domain of a worker's name, with the weeks in which it does.
    pub fn new(name: &Guest, of_domain: &[(Labels, BTreeSet<Week>)]) -> Owners {
        let mut owners = Owners { seen: BTreeMap::new(), shared: BTreeSet::new() };
        let host = match name {
            Guest::Name { host, .. } => host.as_str(),
            Guest::Uuid(_) => return owners,
        };
        for (labels, weeks) in of_domain {
            if Guest::of(labels).as_ref() == Some(name) && !is_of_worker(labels) {
                owners.shared.extend(weeks);
            }
            let is_here = host.is_empty() || host_of(labels) == host;
            if let Some(uuid) = sighted(labels).filter(|_| is_here) {
                for week in weeks {
                    owners.seen.entry(*week).or_default().insert(uuid.clone());
                }
            }
        }
        owners
    }

    /// The guest with a uuid to whom a week belongs; `None` where nobody can say, or nobody was seen.
    pub fn of(&self, week: Week) -> Option<Guest> {
        let before = self.seen.range(..=week).next_back();
        let (_, uuids) = before.or_else(|| self.seen.range(week..).next())?;
        let mut uuids = uuids.iter();
        let sole = uuids.next().filter(|_| uuids.next().is_none() && !self.shared.contains(&week));
        sole.map(|uuid| Guest::Uuid(uuid.clone()))
    }
}

/// Of samples that say something, one an hour.
pub fn hourly(samples: &[Sample]) -> Vec<Sample> {
    let finite = samples.iter().filter(|sample| sample.value.is_finite());
    let mut hourly: Vec<Sample> = finite.copied().collect();
    hourly.dedup_by_key(|sample| Hour::of(sample.timestamp_ms));
    hourly
}

impl Sightings {
    /// Notes the [`hourly`] samples of a series, if it shows a guest.
    pub fn note(&mut self, labels: Labels, hourly: Vec<Sample>) {
        let Some(uuid) = sighted(&labels) else { return };
        let of_host = self.by_host.entry(host_of(&labels).to_owned()).or_default();
        for hour in hourly.iter().map(hour_of) {
            of_host.entry(hour).or_default().insert(uuid.clone());
            self.anywhere.entry(hour).or_default().insert(uuid.clone());
        }
        self.series.push((labels, hourly));
    }

    /// What exporters saw in hours that would else be those of a worker's name, whether the worker
    /// sent something or not: they count for their own guests, and nothing counts across them.
    pub fn beside(&self, name: &Guest) -> impl Iterator<Item = Series> {
        let host = match name {
            Guest::Name { host, .. } => host.as_str(),
            Guest::Uuid(_) => "",
        };
        let here = move |labels: &Labels| host.is_empty() || host_of(labels) == host;
        let of_host = self.series.iter().filter(move |(labels, _)| here(labels));
        of_host.filter_map(move |(labels, hourly)| {
            let is_taken =
                |sample: &&Sample| self.share(host, hour_of(sample), name) == Share::Elsewhere;
            let samples: Vec<Sample> = hourly.iter().filter(is_taken).copied().collect();
            // On the host that the name says, whichever label said it here.
            let others = labels.iter().filter(|(name, _)| !HOST_LABELS.contains(name));
            let labels = Labels::new(others.chain([("host", host)]));
            (!samples.is_empty()).then_some(Series { labels, samples, elsewhere: true })
        })
    }

    /// What a worker's series is to a guest: the samples that are counted for it, and those that
    /// another guest's hours hold.
    pub fn divide(&self, worker: Series, guest: &Guest) -> impl Iterator<Item = Series> + use<> {
        let Series { labels, samples, .. } = worker;
        let (mut own, mut elsewhere) = (Vec::new(), Vec::new());
        for of_hour in samples.chunk_by(|a, b| hour_of(a) == hour_of(b)) {
            let share =
                of_hour.first().map(|first| self.share(host_of(&labels), hour_of(first), guest));
            match share {
                Some(Share::Own) => own.extend_from_slice(of_hour),
                Some(Share::Elsewhere) => elsewhere.extend_from_slice(of_hour),
                Some(Share::Unused) | None => {}
            }
        }
        let own = Series { labels: labels.clone(), samples: own, elsewhere: false };
        let elsewhere = Series { labels, samples: elsewhere, elsewhere: true };
        [own, elsewhere].into_iter().filter(|series| !series.samples.is_empty())
    }

    /// What an hour of a worker that names this host is to a guest.
    fn share(&self, host: &str, hour: Hour, guest: &Guest) -> Share {
        let seen = match host {
            "" => self.anywhere.get(&hour),
            host => self.by_host.get(host).and_then(|seen| seen.get(&hour)),
        };
        let count = seen.map_or(0, BTreeSet::len);
        match guest {
            Guest::Uuid(uuid) if seen.is_some_and(|seen| seen.contains(uuid)) => {
                // Its exporter's own samples supply the hour where others were seen as well.
                if count == 1 { Share::Own } else { Share::Unused }
            }
            // Several on one host took each other's name over, and their exporters' samples count.
            // Where the worker names no host, it may have meant one that no exporter sees.
            Guest::Name { .. } if count == 0 || (host.is_empty() && count > 1) => Share::Own,
            Guest::Uuid(_) | Guest::Name { .. } => Share::Elsewhere,
        }
    }
}

/// What a worker's hour is to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Own,
    /// Another guest's: counters do not count across it.
    Elsewhere,
    /// Nobody's.
    Unused,
}

fn hour_of(sample: &Sample) -> Hour {
    Hour::of(sample.timestamp_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::HOUR_MS;

    const HOURS: i32 = 4;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().copied())
    }

    fn at(hour: i32) -> Sample {
        Sample { timestamp_ms: i64::from(hour) * HOUR_MS + 5, value: 1.0, start_ms: None }
    }

    fn worker(host: &str) -> Series {
        let metric = (METRIC_NAME, "kanyun_nic_incoming_bytes_total");
        let labels = labels(&[metric, ("domain", "d"), ("host", host), ("job", "kanyun-worker")]);
        Series { labels, samples: (0..HOURS).map(at).collect(), elsewhere: false }
    }

    fn seen(seen: &[(&str, &str, &[i32])]) -> Sightings {
        let mut sightings = Sightings::default();
        for (uuid, host, hours) in seen {
            let of_exporter = labels(&[
                (METRIC_NAME, START_TIME),
                ("domain", "d"),
                ("uuid", uuid),
                ("host", host),
            ]);
            sightings.note(of_exporter, hours.iter().map(|hour| at(*hour)).collect());
        }
        sightings
    }

    /// For each hour: whether it is the guest's (+), another's (-) or neither.
    fn shares(sightings: &Sightings, worker: &Series, guest: &Guest) -> String {
        let mut shares = [' '; HOURS as usize];
        for part in sightings.divide(worker.clone(), guest) {
            for hour in part.samples.iter().map(hour_of) {
                shares[usize::try_from(hour.0).unwrap()] = if part.elsewhere { '-' } else { '+' };
            }
        }
        shares.iter().collect()
    }

    #[test]
    fn an_hour_is_the_guests_whom_an_exporter_saw() {
        let named = |host: &str| Guest::Name { domain: "d".to_owned(), host: host.to_owned() };
        let uuid = |uuid: &str| Guest::Uuid(uuid.to_owned());
        let check = |sightings: &Sightings, host: &str, guest: &Guest, expected: &str| {
            assert_eq!(shares(sightings, &worker(host), guest), expected, "{guest} by {host:?}");
        };
        // Seen in the hours 1 and 2 on host a.
        let one = seen(&[("u", "a", &[1, 2])]);
        check(&one, "a", &uuid("u"), "-++-");
        check(&one, "a", &named("a"), "+--+");
        check(&one, "b", &uuid("u"), "----");
        check(&one, "b", &named("b"), "++++");
        check(&one, "", &uuid("u"), "-++-");
        check(&one, "", &named(""), "+--+");
        // Moved from a to b in hour 2.
        let moved = seen(&[("u", "a", &[0, 1, 2]), ("u", "b", &[2, 3])]);
        check(&moved, "a", &uuid("u"), "+++-");
        check(&moved, "b", &uuid("u"), "--++");
        check(&moved, "", &uuid("u"), "++++");
        // The name changed hands in hour 2.
        let handed = seen(&[("u", "a", &[1, 2]), ("v", "a", &[2, 3])]);
        check(&handed, "a", &uuid("u"), "-+ -");
        check(&handed, "a", &uuid("v"), "-- +");
        check(&handed, "a", &named("a"), "+---");
        // One name in two regions.
        let regions = seen(&[("u", "a", &[1, 2, 3]), ("v", "b", &[2, 3])]);
        check(&regions, "", &uuid("u"), "-+  ");
        check(&regions, "", &uuid("v"), "--  ");
        check(&regions, "", &named(""), "+-++");
        check(&regions, "a", &uuid("u"), "-+++");
    }

    #[test]
    fn a_week_is_the_guests_who_was_seen_last() {
        let week = |week: i32| BTreeSet::from([Week(week)]);
        let metric = (METRIC_NAME, START_TIME);
        let of = |uuid: &str, host: &str| {
            labels(&[metric, ("domain", "d"), ("uuid", uuid), ("host", host)])
        };
        let nameless = labels(&[metric, ("domain", "d"), ("host", "a")]);
        let of_domain = [
            (worker("a").labels, (0..9).map(Week).collect()),
            (of("u", "a"), week(2)),
            (of("u", "a"), week(3)),
            (of("v", "a"), week(5)),
            (of("u", "a"), week(7)),
            (of("v", "a"), week(7)),
            (of("w", "b"), week(1)),
            (nameless, week(6)),
        ];
        let name = |host: &str| Guest::Name { domain: "d".to_owned(), host: host.to_owned() };
        let shown = |host: &str| {
            let owners = Owners::new(&name(host), &of_domain);
            let of = |week| owners.of(Week(week)).map_or("-".to_owned(), |of| of.to_string());
            (0..9).map(of).collect::<String>()
        };
        assert_eq!(shown("a"), "uuuuuv---");
        assert_eq!(shown("b"), "wwwwwwwww");
        assert_eq!(shown("c"), "---------");
        assert_eq!(shown(""), "wwuuuvv--");
    }

    #[test]
    fn only_billed_series_of_exporters_with_a_uuid_are_sightings() {
        let of = |pairs: &[(&str, &str)]| sighted(&labels(pairs));
        let nic = (METRIC_NAME, "libvirt_domain_interface_stats_receive_bytes_total");
        assert_eq!(of(&[nic, ("uuid", "u")]).as_deref(), Some("u"));
        assert_eq!(of(&[nic, ("domain", "d")]), None);
        assert_eq!(of(&[nic, ("uuid", "u"), ("job", "kanyun-worker")]), None);
        assert_eq!(of(&[(METRIC_NAME, "libvirt_domain_info_meta"), ("uuid", "u")]), None);
    }
}
