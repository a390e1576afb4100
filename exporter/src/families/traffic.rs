//! External traffic of guests, as the host's accounting rules counted it.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Kind, Series, Sheet, Value};
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
pub(super) fn encode(
    snapshot: &Snapshot,
    guests: &[Subject<'_>],
    sheet: &mut Sheet<'_>,
) -> fmt::Result {
    let (Some(traffic), Some(all)) = (&snapshot.traffic, &snapshot.guests) else {
        return Ok(());
    };
    let (flows, unknown) = of_guests(traffic, all);
    let subject = |guest: &Guest| guests.iter().find(|one| std::ptr::eq(one.guest, guest));
    let flows: Vec<(&Subject<'_>, Flow, String)> = flows
        .into_iter()
        .filter_map(|(guest, flow)| Some((subject(guest)?, flow.clone(), flow.ip.to_string())))
        .collect();
    for series in &FLOW {
        let items = flows.iter().map(|(one, flow, ip)| {
            (one.with([("ip", ip.as_str()), ("direction", flow.direction.name())]), flow)
        });
        series.encode(sheet, items)?;
    }
    let used = flows.iter().map(|(_, flow, _)| flow.rules).sum();
    let counts = [("used", used), ("unknown_guest", unknown), ("unclear", traffic.unclear_rules)];
    RULES.encode(sheet, counts.iter().map(|(outcome, count)| ([("outcome", *outcome)], count)))
}
