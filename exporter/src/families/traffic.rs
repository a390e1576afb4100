//! External traffic of guests, as the host's accounting rules counted it.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, Value};
use crate::snapshot::{Flow, Guest, Snapshot};
use crate::traffic::of_guests;

const FLOW: [Series<Flow>; 2] = [
    Series {
        name: "libvirt_domain_external_traffic",
        unit: Some(Unit::Bytes),
        kind: Kind::Counter,
        help: "Bytes of the domain's IP packets to (direction out) or from (in) the outside, as the host's accounting rules counted them",
        value: |flow| Some(Value::Whole(flow.bytes)),
    },
    Series {
        name: "libvirt_domain_external_traffic_packets",
        unit: None,
        kind: Kind::Counter,
        help: "The domain's IP packets to (direction out) or from (in) the outside, as the host's accounting rules counted them",
        value: |flow| Some(Value::Whole(flow.packets)),
    },
];

const RULES: Series<u64> = Series {
    name: "kanyun_exporter_traffic_rules",
    unit: None,
    kind: Kind::Gauge,
    help: "Accounting rules: used on this page, for a guest that libvirt does not know, or not to be understood",
    value: |count| Some(Value::Whole(*count)),
};

/// Writes the families of this file; without libvirt's guests nobody can be named.
pub(super) fn encode(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (Some(traffic), Some(guests)) = (&snapshot.traffic, &snapshot.guests) else {
        return Ok(());
    };
    let (flows, unknown) = of_guests(traffic, guests);
    let flows: Vec<(&Guest, Flow, String)> =
        flows.into_iter().map(|(guest, flow)| (guest, flow.clone(), flow.ip.to_string())).collect();
    for series in &FLOW {
        series.encode(
            encoder,
            flows.iter().map(|(guest, flow, ip)| (labels(guest, ip, flow.direction.name()), flow)),
        )?;
    }
    let used = flows.iter().map(|(_, flow, _)| flow.rules).sum();
    let counts = [("used", used), ("unknown_guest", unknown), ("unclear", traffic.unclear_rules)];
    RULES.encode(encoder, counts.iter().map(|(outcome, count)| ([("outcome", *outcome)], count)))
}

fn labels<'a>(
    guest: &'a Guest,
    ip: &'a str,
    direction: &'static str,
) -> [(&'static str, &'a str); 4] {
    let (name, uuid) = (guest.name.as_str(), guest.uuid.as_str());
    [("domain", name), ("uuid", uuid), ("ip", ip), ("direction", direction)]
}
