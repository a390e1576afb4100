//! A snapshot as metric families: one file a subject, each a table of pure functions from plain data to values.
//! Knows prometheus-client's encoder and nothing of libvirt, threads or HTTP.
//! Names are those of the inovex exporter (the 17 core names are everybody's). A value that is not known is not written.

pub(crate) mod block;
pub(crate) mod cpu;
pub(crate) mod domain;
pub(crate) mod interface;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod scrape;
pub(crate) mod traffic;
pub(crate) mod vcpu;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet,
    GaugeValueEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::snapshot::{Guest, Snapshot};

/// A snapshot as prometheus-client's collector: register it in a registry made for one scrape.
#[derive(Debug)]
pub struct Page(pub Arc<Snapshot>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.as_ref();
        scrape::encode(snapshot, &mut encoder)?;
        node::encode(snapshot, &mut encoder)?;
        domain::encode(snapshot, &mut encoder)?;
        let guests = snapshot.guests.as_deref().unwrap_or_default();
        cpu::encode(guests, &mut encoder)?;
        vcpu::encode(guests, &mut encoder)?;
        memory::encode(guests, &mut encoder)?;
        block::encode(guests, &mut encoder)?;
        interface::encode(guests, &mut encoder)?;
        traffic::encode(snapshot, &mut encoder)
    }
}

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
        encoder: &mut DescriptorEncoder<'_>,
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
        let mut family =
            encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), kind)?;
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
    pub(crate) fn encode_one(&self, encoder: &mut DescriptorEncoder<'_>, item: &T) -> fmt::Result {
        let Some(value) = (self.value)(item) else { return Ok(()) };
        let unit = self.unit.as_ref();
        match self.kind {
            Kind::Counter => encoder
                .encode_descriptor(self.name, self.help, unit, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None),
            Kind::Gauge | Kind::Unknown => encoder
                .encode_descriptor(self.name, self.help, unit, MetricType::Gauge)?
                .encode_gauge(&value),
        }
    }
}

/// Writes an info family (value 1); labels without a value are left out, which Prometheus takes for the same thing.
/// `name` is without `_info`.
pub(crate) fn encode_info<'t, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    items: impl Iterator<Item = [(&'static str, Option<&'t str>); N]>,
) -> fmt::Result {
    let mut items = items.peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Info)?;
    for labels in items {
        let labels: Vec<(&str, &str)> =
            labels.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
        family.encode_info(&labels)?;
    }
    Ok(())
}

/// The two labels that every series of a guest has.
pub(crate) fn of_guest(guest: &Guest) -> [(&'static str, &str); 2] {
    [("domain", &guest.name), ("uuid", &guest.uuid)]
}

/// The labels of a series of one of a guest's devices.
pub(crate) fn of_device<'a>(guest: &'a Guest, device: &'a str) -> [(&'static str, &'a str); 3] {
    [("domain", &guest.name), ("uuid", &guest.uuid), ("target_device", device)]
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

/// KiB as bytes; absent where they do not fit.
pub(crate) fn bytes(kib: Option<u64>) -> Option<Value> {
    kib.and_then(|kib| kib.checked_mul(1024)).map(Value::Whole)
}
