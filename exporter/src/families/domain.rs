//! A guest as a whole: state, identity, start time.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::profile::Profile;
use super::{Info, Kind, Series, Sheet, Value, encode_guest_info, encode_guest_meta, gauge, whole};
use crate::snapshot::{Guest, Nova, Snapshot};

const DOMAINS: Series<u64> = Series {
    name: "libvirt_domains",
    unit: None,
    kind: Kind::Gauge,
    help: "Number of domains that libvirt knows, running or not",
    value: |count| Some(Value::Whole(*count)),
};

const STATE: Series<Guest> = Series {
    name: "libvirt_domain_info_state",
    unit: None,
    kind: Kind::Gauge,
    help: "Code of the domain's state (virDomainState), and its text as a label",
    value: |guest| whole(guest.state),
};

/// The same without the text.
const PLAIN_STATE: Series<Guest> =
    Series { help: "Code of the domain's state (virDomainState)", ..STATE };

const REASON: Series<Guest> = gauge(
    "libvirt_domain_info_state_reason",
    None,
    "Why the domain is in its state, as libvirt numbers the state's reasons (virDomainRunningReason and so on)",
    |guest| whole(guest.state_reason),
);

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

/// Writes who the guests are and how they are: what no flag leaves out.
pub(super) fn encode(
    snapshot: &Snapshot,
    guests: &[Subject<'_>],
    sheet: &mut Sheet<'_>,
) -> fmt::Result {
    // The number of guests is known only when libvirtd said it.
    if let Some(domains) = snapshot.domains.filter(|_| snapshot.up) {
        DOMAINS.encode_one(sheet, &domains)?;
    }
    for series in &GUEST {
        series.encode(sheet, guests.iter().map(|one| (one.labels(), one.guest)))?;
    }
    match sheet.profile {
        Profile::Inovex => {
            let states = guests
                .iter()
                .map(|one| (one.with([("state_desc", state_text(one.guest.state))]), one.guest));
            STATE.encode(sheet, states)?;
        }
        Profile::Tinkoff => {
            PLAIN_STATE.encode(sheet, guests.iter().map(|one| (one.labels(), one.guest)))?;
        }
    }
    REASON.encode(sheet, guests.iter().map(|one| (one.labels(), one.guest)))
}

/// Writes what the guests are, and nova's metadata of them.
pub(super) fn encode_infos(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let described = guests.iter().filter_map(|one| Some((one, one.guest.description.as_deref()?)));
    let machines = described.clone().map(|(one, description)| {
        let labels = [
            ("os_type", description.os_type.as_deref()),
            ("os_type_arch", description.os_arch.as_deref()),
            ("os_type_machine", description.os_machine.as_deref()),
        ];
        (one, labels)
    });
    encode_guest_info(sheet, "libvirt_domain", "The domain's machine", machines)?;
    let help = "Nova's metadata of the domain; of one that nova did not make only its name and ids";
    // Both exporters have it of every guest, and what is joined with it must not lose those that nova did not make.
    let none = Nova::default();
    let novas = described.map(|(one, text)| (one, text.nova.as_ref().unwrap_or(&none)));
    match sheet.profile {
        Profile::Inovex => {
            let all = novas.map(|(one, nova)| (one, inovex(one.guest, nova)));
            encode_guest_info(sheet, "libvirt_domain_openstack", help, all)
        }
        Profile::Tinkoff => {
            let all = novas.map(|(one, nova)| (one, tinkoff(one.guest, nova)));
            encode_guest_meta(sheet, "libvirt_domain_info_meta", help, all)
        }
    }
}

fn inovex<'a>(guest: &'a Guest, nova: &'a Nova) -> Info<'a, 7> {
    [
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

fn tinkoff<'a>(guest: &'a Guest, nova: &'a Nova) -> Info<'a, 9> {
    let root = nova.root.as_ref();
    [
        ("uuid", Some(&guest.uuid)),
        ("instance_name", nova.instance_name.as_deref()),
        ("flavor", nova.flavor_name.as_deref()),
        ("user_name", nova.user_name.as_deref()),
        ("user_uuid", nova.user_id.as_deref()),
        ("project_name", nova.project_name.as_deref()),
        ("project_uuid", nova.project_id.as_deref()),
        ("root_type", root.and_then(|root| root.kind.as_deref())),
        ("root_uuid", root.and_then(|root| root.uuid.as_deref())),
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
