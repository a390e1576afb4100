//! What a collection brought of each guest, with what an earlier one knew where it brought nothing: pure.
//! Old figures are shown up to a maximum age only, flagged, and with their age.

use std::collections::HashMap;
use std::time::Duration;

use super::monitors::Details;
use crate::snapshot::Idle;
use crate::snapshot::{Guest, Snapshot};
use crate::stats::is_busy;
use crate::worker::roster::Identity;

/// Scrapes in which each guest that had no job is asked for it once.
const JOB_TURNS: u64 = 4;

/// The snapshot before this one.
pub(super) struct Past<'a> {
    snapshot: &'a Snapshot,
    /// How long ago it was taken.
    elapsed: Duration,
    /// Oldest figures that are shown.
    max_age: Duration,
}

impl<'a> Past<'a> {
    /// `snapshot`, taken `elapsed` ago, of which figures up to `max_age` are of use.
    pub(super) fn new(snapshot: &'a Snapshot, elapsed: Duration, max_age: Duration) -> Self {
        Self { snapshot, elapsed, max_age }
    }

    fn by_uuid(&self) -> HashMap<&'a str, &'a Guest> {
        let guests = self.snapshot.guests.iter().flatten();
        guests.map(|guest| (guest.uuid.as_str(), guest)).collect()
    }

    /// Guests that had no job, but for a share of them, another in each of so many turns: a call a guest is a tenth of what a
    /// scrape costs libvirtd, and a job that is worth showing lasts for a few scrapes.
    pub(super) fn idle(&self, turn: u64) -> Idle {
        let is_due = |guest: &Guest| {
            let place: u64 = guest.uuid.bytes().map(u64::from).sum();
            place.wrapping_add(turn).is_multiple_of(JOB_TURNS)
        };
        let had_none = |guest: &&Guest| guest.job.as_ref().is_some_and(|job| job.kind == 0);
        let guests = self.snapshot.guests.iter().flatten().filter(had_none);
        let idle = guests.filter(|guest| !is_due(guest));
        idle.map(|guest| (guest.uuid.clone(), guest.id)).collect()
    }

    /// How old a guest's figures are by now; `None` where there are none, or they are too old.
    fn age(&self, guest: &Guest) -> Option<f64> {
        let age = guest.age_seconds? + self.elapsed.as_secs_f64();
        (age <= self.max_age.as_secs_f64()).then_some(age)
    }

    /// The guests as they were, where libvirtd says nothing: with figures that are not too old, else by name only.
    pub(super) fn guests(&self) -> Option<Vec<Guest>> {
        let old = |guest: &Guest| match self.age(guest) {
            Some(age) => Guest { timed_out: true, age_seconds: Some(age), ..guest.clone() },
            None => guest.identity(),
        };
        Some(self.snapshot.guests.as_ref()?.iter().map(old).collect())
    }

    /// The same, as long as figures of any guest are not too old.
    pub(super) fn fresh_guests(&self) -> Option<Vec<Guest>> {
        let fresh = self.snapshot.guests.iter().flatten().any(|guest| self.age(guest).is_some());
        self.guests().filter(|_| fresh)
    }
}

/// Who the guests are. Without `identities`, because the scrape's time is over, what was known before is taken.
pub(super) fn identify(guests: &mut [Guest], identities: Option<Vec<Identity>>, past: &Past<'_>) {
    if let Some(identities) = identities {
        for (guest, identity) in guests.iter_mut().zip(identities) {
            guest.description = identity.description;
            guest.start_time_seconds = identity.start_time_seconds;
        }
        return;
    }
    let known = past.by_uuid();
    for guest in guests {
        let before = known.get(guest.uuid.as_str()).filter(|before| before.id == guest.id);
        let Some(before) = before else { continue };
        guest.description = guest.description.take().or_else(|| before.description.clone());
        guest.start_time_seconds = guest.start_time_seconds.or(before.start_time_seconds);
    }
}

/// Adds what the monitors said. A running guest whose monitor did not answer is flagged, and shown with its last figures.
pub(super) fn add_details(guests: &mut [Guest], mut details: Details, past: &Past<'_>) {
    let known = past.by_uuid();
    for guest in guests {
        let before = known.get(guest.uuid.as_str()).filter(|before| before.id == guest.id);
        let detail = details.found.remove(&guest.uuid).filter(|detail| detail.id == guest.id);
        let unanswered = details.unanswered.contains(&guest.uuid);
        match detail {
            Some(detail) if !guest.is_active() => complete(guest, detail),
            // libvirt's own job that ends a guest makes it look busy, too.
            Some(detail) if is_ending(&detail, before.copied()) => guest.age_seconds = None,
            Some(detail) if !is_busy(&detail) => complete(guest, detail),
            Some(detail) => {
                let before = before.and_then(|before| Some((*before, past.age(before)?)));
                old(guest, Some(detail), before);
            }
            None if unanswered => {
                let before = before.and_then(|before| Some((*before, past.age(before)?)));
                old(guest, None, before);
            }
            // It ended, or was started anew, after libvirtd had listed it: what was said of it then is all there is.
            None => guest.age_seconds = None,
        }
    }
}

/// Where monitors are not asked, as nothing of theirs is shown, all that is shown is of this scrape.
pub(super) fn without_details(guests: &mut [Guest]) {
    for guest in guests {
        guest.age_seconds = Some(0.0);
    }
}

/// Whether the guest's process was ending while libvirtd looked at it: of a process that is gone libvirt reports times and
/// memory of 0, which would make counters go back.
fn is_ending(detail: &Guest, before: Option<&Guest>) -> bool {
    let lost =
        |now: Option<u64>, then: Option<u64>| now == Some(0) && then.is_some_and(|then| then > 0);
    if detail.memory.rss_kib == Some(0) {
        return true;
    }
    let Some(before) = before else { return false };
    let (now, then) = (&detail.cpu, &before.cpu);
    let mut vcpus = detail.vcpus.each.iter().zip(&before.vcpus.each);
    lost(now.time_ns, then.time_ns)
        || lost(now.user_ns, then.user_ns)
        || lost(now.system_ns, then.system_ns)
        || vcpus.any(|(now, then)| now.number == then.number && lost(now.time_ns, then.time_ns))
}

fn complete(guest: &mut Guest, detail: Guest) {
    *guest = Guest {
        timed_out: false,
        age_seconds: Some(0.0),
        state: guest.state,
        state_reason: guest.state_reason,
        interfaces: std::mem::take(&mut guest.interfaces),
        description: guest.description.take(),
        start_time_seconds: guest.start_time_seconds,
        ..detail
    };
}

/// The guest with what `partial` says without its monitor, and everything else as it was `before`.
fn old(guest: &mut Guest, partial: Option<Guest>, before: Option<(&Guest, f64)>) {
    // What came without the monitor is of this scrape; the rest is as old as the last answer of the monitor.
    let (figures, age) = match (partial, before) {
        (Some(partial), Some((before, age))) => {
            (Guest { cpu: partial.cpu, vcpus: partial.vcpus, ..before.clone() }, Some(age))
        }
        (None, Some((before, age))) => (before.clone(), Some(age)),
        (Some(partial), None) => (partial, None),
        (None, None) => (Guest::default(), None),
    };
    *guest = Guest {
        name: std::mem::take(&mut guest.name),
        uuid: std::mem::take(&mut guest.uuid),
        id: guest.id,
        timed_out: guest.is_active(),
        age_seconds: age,
        state: guest.state,
        state_reason: guest.state_reason,
        interfaces: std::mem::take(&mut guest.interfaces),
        description: guest.description.take(),
        start_time_seconds: guest.start_time_seconds,
        ..figures
    };
}

/// Guests whose disks are not those of the last scrape, in the same run of the guest: their XML has changed.
pub(super) fn other_disks(guests: &[Guest], past: &Past<'_>) -> Vec<usize> {
    let same = |one: &Guest, other: &Guest| {
        let others = other.blocks.iter().map(|block| &block.device);
        one.blocks.iter().map(|block| &block.device).eq(others)
    };
    let known = past.by_uuid();
    let changed = |guest: &Guest| {
        let before = known.get(guest.uuid.as_str()).filter(|before| before.id == guest.id);
        // Disks are unknown, and not none, where the monitor never answered.
        let before = before.filter(|before| before.age_seconds.is_some());
        guest.age_seconds.is_some() && before.is_some_and(|before| !same(before, guest))
    };
    (0..guests.len()).filter(|idx| guests.get(*idx).is_some_and(changed)).collect()
}

#[cfg(test)]
mod tests;
