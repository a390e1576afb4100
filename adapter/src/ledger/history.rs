//! A guest's history in one family, and the rows of any hour of it: which source supplies the hour,
//! which hosts count, and what each counted. Knows no store and no clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::counter::{Before, Tally};
use super::family::{Family, Source, TOTAL};
use super::host::{HostStarts, Hosts};
use super::track::{Point, StartTimes, Track, Tracks, by_minute, supplied};
use super::{Flags, MARK_MS, MINUTE_MS, PREDECESSOR_MS_MAX, Row, Series};
use crate::model::time::{HOUR_MS, Hour};

/// Two hosts that count at the same time for longer than this, with no start time known, are added
/// and flagged.
const OVERLAP_MS_MAX: i64 = HOUR_MS;

/// The samples of one guest that its rows of one family are made of.
#[derive(Debug)]
pub struct History {
    family: Family,
    exporter: Tracks,
    worker: Tracks,
    imported: Tracks,
    /// What workers sent that is counted for another guest.
    elsewhere: Tracks,
    /// The hours of it, and of what exporters saw of others, by host.
    elsewhere_hours: BTreeMap<String, BTreeSet<i32>>,
    /// The source that supplies an hour, where any does.
    suppliers: BTreeMap<i32, Source>,
    /// Whether there is more than one of them; mostly there is not.
    mixed: bool,
    starts: Arc<HostStarts>,
    /// The guest's cpu time, which says on which of two hosts it lives; for gauges.
    cpu: Option<Arc<History>>,
}

/// What all families of a guest share, made once.
struct Shared<'s> {
    series: &'s [Series],
    starts: StartTimes,
    hosts: Arc<HostStarts>,
    cpu: Option<Arc<History>>,
}

impl Shared<'_> {
    fn new(series: &[Series]) -> Shared<'_> {
        let (starts, hosts) = (StartTimes::new(series), Arc::new(HostStarts::new(series)));
        Shared { series, starts, hosts, cpu: None }
    }

    fn cpu(&mut self) -> Arc<History> {
        if let Some(cpu) = &self.cpu {
            return Arc::clone(cpu);
        }
        let cpu = Arc::new(self.make(Family::Cpu));
        self.cpu = Some(Arc::clone(&cpu));
        cpu
    }

    fn history(&mut self, family: Family) -> Arc<History> {
        if family == Family::Cpu {
            return self.cpu();
        }
        let mut history = self.make(family);
        if Source::ALL.into_iter().any(|source| history.is_gauge(source)) {
            history.cpu = Some(self.cpu());
        }
        Arc::new(history)
    }

    fn make(&self, family: Family) -> History {
        let (own, others): (Vec<&Series>, Vec<&Series>) =
            self.series.iter().partition(|one| !one.elsewhere);
        let tracks = |source| Tracks::new(family, source, &own, &self.starts);
        let elsewhere = Tracks::new(family, Source::Worker, &others, &self.starts);
        let mut elsewhere_hours = elsewhere.hours_by_host();
        let seen = Tracks::new(family, Source::Exporter, &others, &self.starts);
        for (host, hours) in seen.hours_by_host() {
            elsewhere_hours.entry(host).or_default().extend(hours);
        }
        let mut history = History {
            family,
            exporter: tracks(Source::Exporter),
            worker: tracks(Source::Worker),
            imported: tracks(Source::Imported),
            elsewhere_hours,
            elsewhere,
            suppliers: BTreeMap::new(),
            mixed: false,
            starts: Arc::clone(&self.hosts),
            cpu: None,
        };
        history.suppliers = history.find_suppliers();
        let mut suppliers = history.suppliers.values();
        let first = suppliers.next();
        history.mixed = suppliers.any(|supplier| Some(supplier) != first);
        history
    }
}

/// Whether a history reaches back far enough for the rows of its hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sufficiency {
    /// More of the past cannot change the rows.
    Enough,
    /// More of the past is needed, up to [`super::LOOKBACK_MS`].
    NeedsMore,
}

/// The tracks of one column on one host, in the order of their copies.
type ByPlace<'h, V> = BTreeMap<(&'h str, &'h str), Vec<&'h Track<V>>>;

impl History {
    /// Makes a guest's series ready. Series that do not concern this family are left out.
    pub fn new(family: Family, series: &[Series]) -> Arc<History> {
        Shared::new(series).history(family)
    }

    /// The same for several families; what they share is made once.
    pub fn all(families: Vec<Family>, series: &[Series]) -> Vec<(Family, Arc<History>)> {
        let mut shared = Shared::new(series);
        families.into_iter().map(|family| (family, shared.history(family))).collect()
    }

    fn tracks(&self, source: Source) -> &Tracks {
        match source {
            Source::Exporter => &self.exporter,
            Source::Worker => &self.worker,
            Source::Imported => &self.imported,
        }
    }

    fn is_gauge(&self, source: Source) -> bool {
        matches!(self.tracks(source), Tracks::Gauges(_))
    }

    /// In each hour, the source with samples in the most minutes; ties to the left.
    fn find_suppliers(&self) -> BTreeMap<i32, Source> {
        let mut best: BTreeMap<i32, (u32, Reverse<Source>)> = BTreeMap::new();
        for source in Source::ALL {
            for (hour, minutes) in self.tracks(source).minutes() {
                let candidate = (minutes.count_ones(), Reverse(source));
                let kept = best.entry(hour).or_insert(candidate);
                *kept = candidate.max(*kept);
            }
        }
        best.into_iter().map(|(hour, (_, Reverse(source)))| (hour, source)).collect()
    }

    /// The rows of an hour, sorted by minute and column1.
    pub fn rows(&self, hour: Hour) -> Vec<Row> {
        let Some(source) = self.suppliers.get(&hour.0).copied() else { return Vec::new() };
        let hosts = self.starts.hosts(hour);
        match self.tracks(source) {
            Tracks::Counters(tracks) => {
                let overlapping = overlapping(tracks, &hosts, hour);
                let mut minutes: BTreeMap<(i64, &str), Tally> = BTreeMap::new();
                for ((column, host), of_place) in by_place(tracks, &hosts) {
                    for (minute_ms, mut tally) in self.tallies(&of_place, source, hour) {
                        tally.flags.overlap = overlapping.contains(host);
                        minutes.entry((minute_ms, column)).or_default().add(tally);
                    }
                }
                minutes.into_iter().filter_map(|(place, tally)| self.row(place, &tally)).collect()
            }
            Tracks::Deltas(tracks) => deltas(tracks, &hosts, hour),
            Tracks::Gauges(tracks) => self.gauges(tracks, &hosts, hour),
        }
    }

    /// Every column1 that has a sample in an hour, of any source, also one that is counted for
    /// another guest: it may have been counted for this one before.
    pub fn columns(&self, hour: Hour) -> BTreeSet<&str> {
        let mut columns: BTreeSet<&str> = self.elsewhere.columns(hour).into_iter().collect();
        for source in Source::ALL {
            columns.extend(self.tracks(source).columns(hour));
        }
        columns
    }

    /// What one physical counter counted, minute by minute.
    fn tallies(&self, tracks: &[&Track<i64>], source: Source, hour: Hour) -> Vec<(i64, Tally)> {
        let current = supplied(tracks, hour);
        if current.is_empty() {
            return Vec::new();
        }
        let mut points = self.past(tracks, source, hour);
        let elsewhere = self.elsewhere_on(tracks, hour);
        let mut before = points.len();
        points.extend(current.iter().copied());
        let mut tallies = Vec::new();
        for (minute_ms, of_minute) in by_minute(&current) {
            let past = points.get(..before).unwrap_or_default();
            let before_minute = self.before(past, minute_ms, (source, &elsewhere));
            tallies.push((minute_ms, Tally::of_minute(before_minute, of_minute)));
            before += of_minute.len();
        }
        tallies
    }

    /// The supplied samples before an hour that can matter to it: those of the last hour that has
    /// any, and of the hour before that, into which ten minutes can reach.
    fn past(&self, tracks: &[&Track<i64>], source: Source, hour: Hour) -> Vec<Point<i64>> {
        let oldest = Hour::of(hour.start_ms() - PREDECESSOR_MS_MAX).0;
        let of_source =
            |(&past, &supplier): (&i32, &Source)| (supplier == source).then_some(Hour(past));
        let mut hours = self.suppliers.range(oldest..hour.0).rev().filter_map(of_source);
        let Some((last, last_points)) = hours.find_map(|past| {
            let points = supplied(tracks, past);
            (!points.is_empty()).then_some((past, points))
        }) else {
            return Vec::new();
        };
        let earlier = Hour(last.0 - 1);
        let mut points = match self.suppliers.get(&earlier.0) {
            Some(supplier) if *supplier == source => supplied(tracks, earlier),
            _ => Vec::new(),
        };
        points.extend(last_points);
        points
    }

    /// Where the walk stands at the begin of a minute, by the supplied samples before it.
    fn before<'p>(
        &self,
        past: &'p [Point<i64>],
        minute_ms: i64,
        (source, elsewhere): (Source, &BTreeSet<i32>),
    ) -> Before<'p> {
        let last = past.last().filter(|last| last.t_ms >= minute_ms - PREDECESSOR_MS_MAX);
        let foreign = self.foreign_until(minute_ms, source, elsewhere);
        match (last, foreign) {
            (Some(last), Some(end_ms)) if last.t_ms < end_ms => {
                Before::Foreign { end_ms, seen: true }
            }
            (Some(last), _) => {
                let from = past.partition_point(|point| point.t_ms <= last.t_ms - MARK_MS);
                let gap = last.t_ms < minute_ms - MINUTE_MS;
                Before::Known { points: past.get(from..).unwrap_or_default(), gap }
            }
            (None, Some(end_ms)) => Before::Foreign { end_ms, seen: false },
            (None, None) => Before::Nothing,
        }
    }

    /// The end of the last hour before a minute's, within seven days, that another source supplied
    /// or that was another guest's.
    fn foreign_until(
        &self,
        minute_ms: i64,
        source: Source,
        elsewhere: &BTreeSet<i32>,
    ) -> Option<i64> {
        let hours = Hour::of(minute_ms - PREDECESSOR_MS_MAX).0..Hour::of(minute_ms).0;
        let elsewhere = elsewhere.range(hours.clone()).next_back();
        let mut foreign = None;
        if self.mixed {
            let mut hours = self.suppliers.range(hours).rev();
            foreign = hours.find(|(_, other)| **other != source).map(|(hour, _)| hour);
        }
        foreign.max(elsewhere).map(|hour| Hour(*hour).start_ms() + HOUR_MS)
    }

    /// The hours in which another guest was counted by the name of this one, on the hosts that
    /// tracks name in an hour. A worker that names no host may have meant any.
    fn elsewhere_on(&self, tracks: &[&Track<i64>], hour: Hour) -> BTreeSet<i32> {
        if self.elsewhere_hours.is_empty() {
            return BTreeSet::new();
        }
        let in_hour =
            |track: &&&Track<i64>| !track.within(hour.start_ms(), hour.end_ms()).is_empty();
        let mut hosts: BTreeSet<&str> =
            tracks.iter().filter(in_hour).map(|track| track.host.as_str()).collect();
        hosts.insert("");
        let of_hosts = hosts.into_iter().filter_map(|host| self.elsewhere_hours.get(host));
        of_hosts.flatten().copied().collect()
    }

    /// A counter's row. None for cpu where nothing spans any time: there is no percentage.
    fn row(&self, (minute_ms, column): (i64, &str), tally: &Tally) -> Option<Row> {
        let value = match self.family {
            Family::Cpu => percent(tally)?,
            _ => real(tally.counted),
        };
        Some(Row {
            column: column.to_owned(),
            minute_ms,
            value,
            samples: tally.samples,
            resets: tally.resets,
            flags: tally.flags,
        })
    }

    /// The last sample of each minute; with several hosts, of that on which the guest worked most.
    fn gauges(&self, tracks: &[Track<f64>], hosts: &Hosts<'_>, hour: Hour) -> Vec<Row> {
        let mut minutes: BTreeMap<i64, Vec<(&str, f64, usize)>> = BTreeMap::new();
        for ((_, host), of_place) in by_place(tracks, hosts) {
            for (minute_ms, points) in by_minute(&supplied(&of_place, hour)) {
                if let Some(last) = points.last() {
                    minutes.entry(minute_ms).or_default().push((host, last.value, points.len()));
                }
            }
        }
        let several = minutes.values().any(|of_minute| of_minute.len() > 1);
        let growth = if several { self.growth(hour) } else { BTreeMap::new() };
        let row = |(minute_ms, of_minute): (i64, Vec<(&str, f64, usize)>)| {
            let grew = |host: &str| growth.get(&(minute_ms, host.to_owned())).copied().unwrap_or(0);
            let lived = of_minute.into_iter().min_by_key(|(host, ..)| (Reverse(grew(host)), *host));
            lived.map(|(_, value, samples)| Row {
                column: TOTAL.to_owned(),
                minute_ms,
                value,
                samples: u32::try_from(samples).unwrap_or(u32::MAX),
                resets: 0,
                flags: Flags::default(),
            })
        };
        minutes.into_iter().filter_map(row).collect()
    }

    /// By how much the guest's cpu time grew, by minute and host, where its exporters say so.
    fn growth(&self, hour: Hour) -> BTreeMap<(i64, String), i128> {
        let cpu = self.cpu.as_deref().unwrap_or(self);
        let (Tracks::Counters(tracks), Some(Source::Exporter)) =
            (&cpu.exporter, cpu.suppliers.get(&hour.0))
        else {
            return BTreeMap::new();
        };
        let mut growth = BTreeMap::new();
        for ((_, host), of_place) in by_place(tracks, &cpu.starts.hosts(hour)) {
            for (minute_ms, tally) in cpu.tallies(&of_place, Source::Exporter, hour) {
                growth.insert((minute_ms, host.to_owned()), tally.counted);
            }
        }
        growth
    }

    /// Whether these hours' rows can be made, when everything from `loaded_from` on is at hand. A
    /// shorter past is quicker to read; rows made of it are those that the whole past would give.
    pub fn sufficiency(&self, first: Hour, last: Hour, loaded_from: Hour) -> Sufficiency {
        if self.suppliers.range(first.0..=last.0).next().is_none() {
            return Sufficiency::Enough;
        }
        let mut hosts: BTreeSet<&str> =
            Source::ALL.into_iter().flat_map(|source| self.tracks(source).hosts()).collect();
        // A worker that names no host publishes no start times either.
        if !self.exporter.hosts().contains(&"") {
            hosts.remove("");
        }
        // Of two names, older start times can say that they are one host, or one with a third.
        let enough = hosts.len() < 2
            && Source::ALL.into_iter().all(|source| match self.tracks(source) {
                Tracks::Counters(tracks) => {
                    self.have_predecessors(tracks, source, (first, last), loaded_from)
                }
                Tracks::Deltas(_) | Tracks::Gauges(_) => true,
            });
        if enough { Sufficiency::Enough } else { Sufficiency::NeedsMore }
    }

    /// Whether every counter that has a sample in these hours has a supplied one before them, with
    /// all of the ten minutes before that at hand.
    fn have_predecessors(
        &self,
        tracks: &[Track<i64>],
        source: Source,
        (first, last): (Hour, Hour),
        loaded_from: Hour,
    ) -> bool {
        let mut places: BTreeMap<(&str, &str), Vec<&Track<i64>>> = BTreeMap::new();
        for track in tracks {
            places.entry((&track.column, &track.host)).or_default().push(track);
        }
        places.values().all(|of_place| {
            let asked =
                |track: &&&Track<i64>| !track.within(first.start_ms(), last.end_ms()).is_empty();
            if !of_place.iter().any(|track| asked(&track)) {
                return true;
            }
            let past = self.past(of_place, source, first);
            past.last().is_some_and(|last| last.t_ms - MARK_MS >= loaded_from.start_ms())
        })
    }
}

/// Tracks by column1 and host, those of one place in the order of their copies.
fn by_place<'h, V>(tracks: &'h [Track<V>], hosts: &Hosts<'h>) -> ByPlace<'h, V> {
    let mut places: ByPlace<'h, V> = BTreeMap::new();
    for track in tracks {
        let host = hosts.of(track.host.as_str());
        places.entry((&track.column, host)).or_default().push(track);
    }
    places
}

/// The sums of amounts, over all hosts.
fn deltas(tracks: &[Track<i64>], hosts: &Hosts<'_>, hour: Hour) -> Vec<Row> {
    let overlapping = overlapping(tracks, hosts, hour);
    let mut minutes: BTreeMap<(i64, &str), Tally> = BTreeMap::new();
    for ((column, host), of_place) in by_place(tracks, hosts) {
        for (minute_ms, points) in by_minute(&supplied(&of_place, hour)) {
            let tally = minutes.entry((minute_ms, column)).or_default();
            tally.counted += points.iter().map(|point| i128::from(point.value)).sum::<i128>();
            tally.samples += u32::try_from(points.len()).unwrap_or(u32::MAX);
            tally.flags.overlap |= overlapping.contains(host);
        }
    }
    let row = |((minute_ms, column), tally): ((i64, &str), Tally)| Row {
        column: column.to_owned(),
        minute_ms,
        value: real(tally.counted),
        samples: tally.samples,
        resets: 0,
        flags: tally.flags,
    };
    minutes.into_iter().map(row).collect()
}

/// The hosts that count at the same time as another for over an hour, with no start time known.
fn overlapping<'h>(tracks: &'h [Track<i64>], hosts: &Hosts<'h>, hour: Hour) -> BTreeSet<&'h str> {
    let mut spans: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for track in tracks {
        let around = track.within(hour.start_ms() - HOUR_MS, hour.end_ms());
        for point in around.iter().filter(|point| point.start_ms.is_none()) {
            let span = spans.entry(hosts.of(track.host.as_str()));
            let (first, last) = span.or_insert((point.t_ms, point.t_ms));
            *first = point.t_ms.min(*first);
            *last = point.t_ms.max(*last);
        }
    }
    let together = |one: &(i64, i64), other: &(i64, i64)| {
        one.1.min(other.1) - one.0.max(other.0) > OVERLAP_MS_MAX
    };
    let overlaps = |host: &&str, span: &(i64, i64)| {
        spans.iter().any(|(other, of_other)| other != host && together(span, of_other))
    };
    spans.iter().filter(|(host, span)| overlaps(host, span)).map(|(host, _)| *host).collect()
}

/// 100 is one core: nanoseconds counted, over the time that they were counted in, divided once.
fn percent(tally: &Tally) -> Option<f64> {
    let spanned_ms = tally.spanned_ms();
    (spanned_ms > 0).then(|| real(tally.counted) / real(i128::from(spanned_ms) * 10_000))
}

/// The number nearest to a whole one; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "bytes of a minute are below 2^53 (ledger.md)")]
fn real(whole: i128) -> f64 {
    whole as f64
}
