//! Whether libvirt answers, and how this scrape went.

use std::fmt;

use prometheus_client::registry::Unit;

use super::{Kind, Series, Sheet, Value, encode_info};
use crate::snapshot::{Calls, Scrape, Snapshot, Step};

const UP: Series<Snapshot> = Series {
    name: "libvirt_up",
    unit: None,
    kind: Kind::Gauge,
    help: "Whether libvirt answered this scrape",
    value: |snapshot| Some(Value::Whole(u64::from(snapshot.up))),
};

const SCRAPE: [Series<Scrape>; 3] = [
    Series {
        name: "kanyun_exporter_scrape_duration",
        unit: Some(Unit::Seconds),
        kind: Kind::Gauge,
        help: "How long this scrape took to collect",
        value: |scrape| Some(Value::Real(scrape.duration_seconds)),
    },
    Series {
        name: "kanyun_exporter_given_up_threads",
        unit: None,
        kind: Kind::Gauge,
        help: "Threads that are stuck in a call of libvirt and were given up",
        value: |scrape| Some(Value::Whole(scrape.given_up_threads)),
    },
    Series {
        name: "kanyun_exporter_threads_given_up",
        unit: None,
        kind: Kind::Counter,
        help: "Threads that were ever given up in a call of libvirt",
        value: |scrape| Some(Value::Whole(scrape.given_up_threads_total)),
    },
];

const STEP: [Series<Step>; 2] = [
    Series {
        name: "kanyun_exporter_collector_success",
        unit: None,
        kind: Kind::Gauge,
        help: "Whether the collector got everything it asked for in this scrape",
        value: |step| Some(Value::Whole(u64::from(step.success))),
    },
    Series {
        name: "kanyun_exporter_collector_duration",
        unit: Some(Unit::Seconds),
        kind: Kind::Gauge,
        help: "How long the collector took in this scrape",
        value: |step| Some(Value::Real(step.duration_seconds)),
    },
];

const CALLS: [Series<Calls>; 2] = [
    Series {
        name: "kanyun_exporter_libvirt_calls",
        unit: None,
        kind: Kind::Counter,
        help: "Calls of libvirt",
        value: |calls| Some(Value::Whole(calls.total)),
    },
    Series {
        name: "kanyun_exporter_libvirt_errors",
        unit: None,
        kind: Kind::Counter,
        help: "Calls of libvirt that failed",
        value: |calls| Some(Value::Whole(calls.errors)),
    },
];

/// Writes the families of this file.
pub(super) fn encode(snapshot: &Snapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    UP.encode_one(sheet, snapshot)?;
    let versions = snapshot.host.iter().map(|host| {
        [
            ("hypervisor_running", host.hypervisor_running.as_deref()),
            ("libvirtd_running", host.libvirtd_running.as_deref()),
            ("libvirt_library", host.libvirt_library.as_deref()),
        ]
    });
    encode_info(
        sheet,
        "libvirt_versions",
        "Versions of hypervisor, libvirtd and client",
        versions,
    )?;
    let scrape = &snapshot.scrape;
    for series in &SCRAPE {
        series.encode_one(sheet, scrape)?;
    }
    for series in &STEP {
        let steps = scrape.steps.iter().map(|step| ([("collector", step.collector)], step));
        series.encode(sheet, steps)?;
    }
    for series in &CALLS {
        let calls = scrape.calls.iter().map(|calls| ([("call", calls.call)], calls));
        series.encode(sheet, calls)?;
    }
    Ok(())
}
