//! A snapshot as metric families: one file a subject, each a table of pure functions from plain data to values.
//! Knows prometheus-client's encoder and nothing of libvirt, threads or HTTP.
//! Tables have the names of the inovex exporter (the 17 core names are everybody's); `profile` has those that differ
//! elsewhere. A value that is not known is not written.

mod allocation;
mod block;
mod cpu;
mod domain;
mod interface;
mod job;
mod kvm;
pub mod labels;
mod limits;
mod memory;
mod node;
mod pool;
pub mod profile;
mod rarities;
mod scrape;
mod traffic;
mod vcpu;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet,
    GaugeValueEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::selection::guests::GuestFilter;
use crate::selection::{CollectorName, Collectors};
use crate::snapshot::Snapshot;
use labels::{AddedLabel, Subject};
use profile::Profile;

/// A snapshot as prometheus-client's collector: register it in a registry made for one scrape.
#[derive(Debug)]
pub struct Page {
    /// What is written.
    pub snapshot: Arc<Snapshot>,
    /// How.
    pub style: Style,
}

/// How a snapshot is written.
#[derive(Clone, Debug)]
pub struct Style {
    /// Whose names.
    pub profile: Profile,
    /// What of it.
    pub collectors: Collectors,
    /// Labels that every series of a guest has beside its name and uuid.
    pub labels: Vec<AddedLabel>,
    /// Which guests.
    pub guests: GuestFilter,
}

impl Style {
    /// Everything of these collectors under these names.
    pub fn whole(profile: Profile, collectors: Collectors) -> Self {
        Self { profile, collectors, labels: Vec::new(), guests: GuestFilter::default() }
    }
}

/// The page being written.
pub(crate) struct Sheet<'e> {
    encoder: DescriptorEncoder<'e>,
    profile: Profile,
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (snapshot, style) = (self.snapshot.as_ref(), &self.style);
        let mut sheet = Sheet { encoder, profile: style.profile };
        let sheet = &mut sheet;
        let on = |name| style.collectors.has(name);
        scrape::encode(snapshot, sheet)?;
        if on(CollectorName::Node) {
            node::encode(snapshot, sheet)?;
        }
        if on(CollectorName::Pool) {
            pool::encode(snapshot, sheet)?;
        }
        let all = snapshot.guests.as_deref().unwrap_or_default();
        let shown = all.iter().filter(|guest| style.guests.shows(guest));
        let guests: Vec<Subject<'_>> =
            shown.map(|guest| Subject::of(guest, &style.labels)).collect();
        domain::encode(snapshot, &guests, sheet)?;
        for (name, encode) in OF_GUESTS {
            if on(name) {
                encode(&guests, sheet)?;
            }
        }
        if on(CollectorName::Traffic) {
            traffic::encode(snapshot, &guests, sheet)?;
        }
        Ok(())
    }
}

/// Writes the families of one subject.
type Encode = fn(&[Subject<'_>], &mut Sheet<'_>) -> fmt::Result;

/// What is written of guests, in the order of the page.
const OF_GUESTS: [(CollectorName, Encode); 17] = [
    (CollectorName::Metadata, domain::encode_infos),
    (CollectorName::Allocation, allocation::encode),
    (CollectorName::Cpu, cpu::encode),
    (CollectorName::Vcpu, vcpu::encode),
    (CollectorName::Placement, vcpu::encode_places),
    (CollectorName::Memory, memory::encode),
    (CollectorName::Block, block::encode),
    (CollectorName::Metadata, block::encode_infos),
    (CollectorName::Interface, interface::encode),
    (CollectorName::Metadata, interface::encode_infos),
    (CollectorName::Limits, limits::encode),
    (CollectorName::Job, job::encode),
    (CollectorName::Perf, rarities::encode_perf),
    (CollectorName::Monitor, rarities::encode_monitors),
    (CollectorName::Iothread, rarities::encode_iothreads),
    (CollectorName::Dirtyrate, rarities::encode_dirty_rate),
    (CollectorName::Kvm, kvm::encode),
];

/// A sample's value: whole numbers stay whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Whole(u64),
    Real(f64),
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Self::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

/// What a family claims about its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows, until it starts again; the encoder adds `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A counter whose established name lacks `_total`: named as dashboards know it, and claimed to be neither.
    Unknown,
}

/// A family: its name without unit and `_total`, and where its value comes from.
pub(crate) struct Series<T> {
    pub(crate) name: &'static str,
    pub(crate) unit: Option<Unit>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) value: fn(&T) -> Option<Value>,
}

impl<T> Series<T> {
    /// Writes the family with a sample for each item that has a value; nothing at all if none has.
    pub(crate) fn encode<'t, L: EncodeLabelSet>(
        &self,
        sheet: &mut Sheet<'_>,
        items: impl Iterator<Item = (L, &'t T)>,
    ) -> fmt::Result
    where
        T: 't,
    {
        let samples = items.filter_map(|(labels, item)| Some((labels, (self.value)(item)?)));
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Unknown => MetricType::Unknown,
        };
        let (name, unit) = sheet.profile.name(self.name, self.unit.as_ref());
        let mut family = sheet.encoder.encode_descriptor(name, self.help, unit, kind)?;
        for (labels, value) in samples {
            let mut sample = family.encode_family(&labels)?;
            match self.kind {
                Kind::Counter => sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                Kind::Gauge | Kind::Unknown => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// Writes the family with one sample and no label.
    pub(crate) fn encode_one(&self, sheet: &mut Sheet<'_>, item: &T) -> fmt::Result {
        let Some(value) = (self.value)(item) else { return Ok(()) };
        let (name, unit) = sheet.profile.name(self.name, self.unit.as_ref());
        let encoder = &mut sheet.encoder;
        match self.kind {
            Kind::Counter => encoder
                .encode_descriptor(name, self.help, unit, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None),
            Kind::Gauge | Kind::Unknown => encoder
                .encode_descriptor(name, self.help, unit, MetricType::Gauge)?
                .encode_gauge(&value),
        }
    }
}

/// A gauge.
pub(crate) const fn gauge<T>(
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    value: fn(&T) -> Option<Value>,
) -> Series<T> {
    Series { name, unit, kind: Kind::Gauge, help, value }
}

/// A counter.
pub(crate) const fn counter<T>(
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    value: fn(&T) -> Option<Value>,
) -> Series<T> {
    Series { name, unit, kind: Kind::Counter, help, value }
}

/// Labels of an info series; those without a value are left out, which Prometheus takes for the same thing.
pub(crate) type Info<'a, const N: usize> = [(&'static str, Option<&'a str>); N];

/// Writes an info family (value 1). `name` is without `_info`.
pub(crate) fn encode_info<'a, const N: usize>(
    sheet: &mut Sheet<'_>,
    name: &str,
    help: &str,
    items: impl Iterator<Item = Info<'a, N>>,
) -> fmt::Result {
    let labels = items.map(|labels| present(&labels).collect());
    encode_samples(sheet, name, help, labels, MetricType::Info)
}

/// The same of guests, with the labels of each.
pub(crate) fn encode_guest_info<'a, const N: usize>(
    sheet: &mut Sheet<'_>,
    name: &str,
    help: &str,
    items: impl Iterator<Item = (&'a Subject<'a>, Info<'a, N>)>,
) -> fmt::Result {
    encode_samples(sheet, name, help, guest_labels(items), MetricType::Info)
}

/// An info family whose established name lacks `_info`, as a gauge of 1.
pub(crate) fn encode_guest_meta<'a, const N: usize>(
    sheet: &mut Sheet<'_>,
    name: &str,
    help: &str,
    items: impl Iterator<Item = (&'a Subject<'a>, Info<'a, N>)>,
) -> fmt::Result {
    encode_samples(sheet, name, help, guest_labels(items), MetricType::Gauge)
}

fn guest_labels<'a, const N: usize>(
    items: impl Iterator<Item = (&'a Subject<'a>, Info<'a, N>)>,
) -> impl Iterator<Item = Vec<(&'static str, &'a str)>> {
    items.map(|(subject, own)| {
        // A label that was asked for, and that the series has anyway, is there once.
        let is_own = |name: &str| own.iter().any(|(other, _)| *other == name);
        let ([domain, uuid], added) = subject.labels();
        let added = added.iter().copied().filter(|(name, _)| !is_own(name));
        let identity = [domain, uuid].into_iter().filter(|(name, _)| !is_own(name));
        identity.chain(added).chain(present(&own)).collect()
    })
}

fn present<'a>(
    labels: &[(&'static str, Option<&'a str>)],
) -> impl Iterator<Item = (&'static str, &'a str)> {
    labels.iter().filter_map(|(name, value)| Some((*name, (*value)?)))
}

fn encode_samples<'a>(
    sheet: &mut Sheet<'_>,
    name: &str,
    help: &str,
    items: impl Iterator<Item = Vec<(&'static str, &'a str)>>,
    kind: MetricType,
) -> fmt::Result {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    let is_info = matches!(kind, MetricType::Info);
    let mut family = sheet.encoder.encode_descriptor(name, help, None, kind)?;
    for labels in items {
        if is_info {
            family.encode_info(&labels)?;
        } else {
            family.encode_family(&labels)?.encode_gauge(&1_u64)?;
        }
    }
    Ok(())
}

/// A count.
pub(crate) fn whole(value: Option<u64>) -> Option<Value> {
    value.map(Value::Whole)
}

/// Nanoseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 ns are 104 days of cpu time; beyond them the error is below a µs"
)]
pub(crate) fn seconds(nanoseconds: Option<u64>) -> Option<Value> {
    nanoseconds.map(|nanoseconds| Value::Real(nanoseconds as f64 / 1e9))
}

/// Milliseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "2^53 ms are 285,000 years")]
pub(crate) fn milliseconds(milliseconds: Option<u64>) -> Option<Value> {
    milliseconds.map(|milliseconds| Value::Real(milliseconds as f64 / 1e3))
}

/// KiB as bytes; absent where they do not fit.
pub(crate) fn bytes(kib: Option<u64>) -> Option<Value> {
    kib.and_then(|kib| kib.checked_mul(1024)).map(Value::Whole)
}
