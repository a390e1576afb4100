//! What a guest was given, as counters that the exporter keeps itself: they begin again with it, and say when they began.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Series, Sheet, Value, counter, gauge};
use crate::snapshot::Allocation;

const SERIES: [Series<Allocation>; 3] = [
    gauge(
        "libvirt_domain_allocation_since_timestamp",
        Some(Unit::Seconds),
        "Since when the exporter has counted the domain's allocation, since the epoch: a later one than before is a counter's reset",
        |allocation| Some(Value::Real(allocation.since_seconds)),
    ),
    counter(
        "libvirt_domain_allocated_vcpu",
        Some(Unit::Seconds),
        "Virtual CPUs that were online, times the seconds that the domain was running or paused",
        |allocation| Some(seconds(allocation.vcpu_ms)),
    ),
    counter(
        "libvirt_domain_allocated_memory_byte_seconds",
        None,
        "Bytes of memory that were given to the domain, times the seconds that it was running or paused",
        |allocation| Some(seconds(allocation.memory_byte_ms)),
    ),
];

const STATE: Series<u128> = counter(
    "libvirt_domain_state",
    Some(Unit::Seconds),
    "Seconds that the domain was in the state, from one scrape to the next",
    |milliseconds| Some(seconds(*milliseconds)),
);

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    let allocations =
        || guests.iter().filter_map(|one| Some((one, one.guest.allocation.as_ref()?)));
    for series in &SERIES {
        series.encode(sheet, allocations().map(|(one, found)| (one.labels(), found)))?;
    }
    let states = allocations().flat_map(|(one, found)| {
        let states = found.state_ms.iter();
        states.map(move |(state, time)| (one.with([("state", state_name(*state))]), time))
    });
    STATE.encode(sheet, states)
}

/// virDomainState as a word.
fn state_name(state: u64) -> &'static str {
    match state {
        1 => "running",
        2 => "blocked",
        3 => "paused",
        4 => "shutting_down",
        5 => "shut_off",
        6 => "crashed",
        7 => "suspended",
        _ => "unknown",
    }
}

#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the error is a 10^16th part")]
fn seconds(milliseconds: u128) -> Value {
    Value::Real(milliseconds as f64 / 1e3)
}
