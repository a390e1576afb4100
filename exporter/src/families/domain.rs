//! A guest as a whole: state, identity, start time.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;

use super::{Kind, Series, Value, encode_info, of_guest, whole};
use crate::snapshot::{Guest, Nova, Snapshot};

const DOMAINS: Series<usize> = Series {
    name: "libvirt_domains",
    unit: None,
    kind: Kind::Gauge,
    help: "Number of domains that libvirt knows, running or not",
    value: |count| u64::try_from(*count).ok().map(Value::Whole),
};

const STATE: Series<Guest> = Series {
    name: "libvirt_domain_info_state",
    unit: None,
    kind: Kind::Gauge,
    help: "Code of the domain's state (virDomainState), and its text as a label",
    value: |guest| whole(guest.state),
};

const GUEST: [Series<Guest>; 3] = [
    Series {
        name: "libvirt_domain_timed_out",
        unit: None,
        kind: Kind::Gauge,
        help: "Whether figures of the domain are missing or old because libvirt did not deliver them within this scrape",
        value: |guest| Some(Value::Whole(u64::from(guest.timed_out))),
    },
    Series {
        name: "libvirt_domain_figures_age",
        unit: Some(Unit::Seconds),
        kind: Kind::Gauge,
        help: "How old the oldest figures of the domain on this page are; 0 where all are of this scrape",
        value: |guest| guest.age_seconds.map(Value::Real),
    },
    Series {
        name: "libvirt_domain_start_time",
        unit: Some(Unit::Seconds),
        kind: Kind::Gauge,
        help: "When the domain's process started, since the epoch: from then on its counters count",
        value: |guest| guest.start_time_seconds.map(Value::Real),
    },
];

/// Writes the families of this file.
pub(super) fn encode(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(guests) = &snapshot.guests else { return Ok(()) };
    // The number of guests is known only when libvirtd said it.
    if snapshot.up {
        DOMAINS.encode_one(encoder, &guests.len())?;
    }
    for series in &GUEST {
        series.encode(encoder, guests.iter().map(|guest| (of_guest(guest), guest)))?;
    }
    STATE.encode(
        encoder,
        guests.iter().map(|guest| {
            let [domain, uuid] = of_guest(guest);
            ([domain, uuid, ("state_desc", state_text(guest.state))], guest)
        }),
    )?;
    infos(guests, encoder)
}

fn infos(guests: &[Guest], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let described =
        || guests.iter().filter_map(|guest| Some((guest, guest.description.as_deref()?)));
    encode_info(
        encoder,
        "libvirt_domain",
        "The domain's machine",
        described().map(|(guest, description)| {
            [
                ("domain", Some(guest.name.as_str())),
                ("uuid", Some(guest.uuid.as_str())),
                ("os_type", description.os_type.as_deref()),
                ("os_type_arch", description.os_arch.as_deref()),
                ("os_type_machine", description.os_machine.as_deref()),
            ]
        }),
    )?;
    let novas = described().filter_map(|(guest, text)| Some((guest, text.nova.as_ref()?)));
    encode_info(
        encoder,
        "libvirt_domain_openstack",
        "Nova's metadata of the domain",
        novas.map(|(guest, nova)| openstack_labels(guest, nova)),
    )
}

fn openstack_labels<'a>(guest: &'a Guest, nova: &'a Nova) -> [(&'static str, Option<&'a str>); 9] {
    [
        ("domain", Some(&guest.name)),
        ("uuid", Some(&guest.uuid)),
        ("instance_name", nova.instance_name.as_deref()),
        // Nova gives its instance's id to libvirt as the domain's UUID.
        ("instance_id", Some(&guest.uuid)),
        ("flavor_name", nova.flavor_name.as_deref()),
        ("user_name", nova.user_name.as_deref()),
        ("user_id", nova.user_id.as_deref()),
        ("project_name", nova.project_name.as_deref()),
        ("project_id", nova.project_id.as_deref()),
    ]
}

/// libvirt's own words for virDomainState, which the inovex exporter uses as label values.
fn state_text(state: Option<u64>) -> &'static str {
    match state {
        Some(0) => "no state",
        Some(1) => "the domain is running",
        Some(2) => "the domain is blocked on resource",
        Some(3) => "the domain is paused by user",
        Some(4) => "the domain is being shut down",
        Some(5) => "the domain is shut off",
        Some(6) => "the domain is crashed",
        Some(7) => "the domain is suspended by guest power management",
        _ => "a state that this exporter does not know",
    }
}
