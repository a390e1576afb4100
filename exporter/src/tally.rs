//! What the exporter counts itself from one collection to the next: seconds that a guest was in each state, and what was
//! allocated to it meanwhile. Kept in memory, so it begins again with the process and says when it began. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::snapshot::{Allocation, Guest};

/// Longest time between two looks that counts although the guest was started anew, or stopped, in between: nobody knows
/// when. As long as it is the same run, all of the time counts.
const GAP_MAX: Duration = Duration::from_mins(5);

/// The counts of all guests that were there at the last look.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    guests: HashMap<String, Kept>,
}

#[derive(Debug)]
struct Kept {
    seen: Instant,
    id: Option<u32>,
    state: u64,
    vcpus: u64,
    memory_kib: u64,
    since_seconds: f64,
    state_ms: BTreeMap<u64, u128>,
    vcpu_ms: u128,
    memory_byte_ms: u128,
}

/// Sets how long before `now_ms`, milliseconds since 1970, each guest's balloon driver reported.
pub(crate) fn ages(now_ms: u64, guests: &mut [Guest]) {
    for memory in guests.iter_mut().map(|guest| &mut guest.memory) {
        let updated_ms = memory.last_update_seconds.map(|seconds| seconds.saturating_mul(1000));
        memory.age_ms = updated_ms.map(|updated_ms| now_ms.saturating_sub(updated_ms));
    }
}

impl Tally {
    /// Counts the time since the last look for what was seen then, and sets each guest's allocation. `guests` are all that
    /// libvirtd knows; `wall_seconds` is the time since 1970.
    pub(crate) fn look(&mut self, now: Instant, wall_seconds: f64, guests: &mut [Guest]) {
        for guest in guests.iter_mut() {
            let kept = match self.guests.get_mut(&guest.uuid) {
                Some(kept) => kept,
                // Whoever's state is not known has nothing to be counted for.
                None => match Kept::new(now, wall_seconds, guest) {
                    Some(kept) => self.guests.entry(guest.uuid.clone()).or_insert(kept),
                    None => continue,
                },
            };
            kept.look(now, guest);
            guest.allocation = Some(kept.allocation());
        }
        let present: HashSet<&str> = guests.iter().map(|guest| guest.uuid.as_str()).collect();
        self.guests.retain(|uuid, _| present.contains(uuid.as_str()));
    }
}

impl Kept {
    fn new(now: Instant, wall_seconds: f64, guest: &Guest) -> Option<Self> {
        Some(Self {
            seen: now,
            id: guest.id,
            state: guest.state?,
            vcpus: guest.vcpus.current.unwrap_or(0),
            memory_kib: guest.memory.current_kib.unwrap_or(0),
            since_seconds: wall_seconds,
            state_ms: BTreeMap::new(),
            vcpu_ms: 0,
            memory_byte_ms: 0,
        })
    }

    fn look(&mut self, now: Instant, guest: &Guest) {
        let elapsed = now.saturating_duration_since(self.seen);
        if guest.id == self.id || elapsed <= GAP_MAX {
            let elapsed_ms = elapsed.as_millis();
            *self.state_ms.entry(self.state).or_default() += elapsed_ms;
            if self.id.is_some() {
                self.vcpu_ms += elapsed_ms * u128::from(self.vcpus);
                self.memory_byte_ms += elapsed_ms * u128::from(self.memory_kib) * 1024;
            }
        }
        // What a look did not bring is taken to be as before.
        self.seen = now;
        self.id = guest.id;
        self.state = guest.state.unwrap_or(self.state);
        self.vcpus = guest.vcpus.current.unwrap_or(self.vcpus);
        self.memory_kib = guest.memory.current_kib.unwrap_or(self.memory_kib);
    }

    fn allocation(&self) -> Allocation {
        Allocation {
            since_seconds: self.since_seconds,
            state_ms: self.state_ms.iter().map(|(state, time)| (*state, *time)).collect(),
            vcpu_ms: self.vcpu_ms,
            memory_byte_ms: self.memory_byte_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Memory, Vcpus};

    fn guest(id: Option<u32>, state: u64) -> Guest {
        Guest {
            uuid: "u".to_owned(),
            id,
            state: Some(state),
            vcpus: Vcpus { current: Some(2), ..Vcpus::default() },
            memory: Memory { current_kib: Some(1), ..Memory::default() },
            ..Guest::default()
        }
    }

    /// Looks at `guest` `seconds` after `begin`.
    fn look(tally: &mut Tally, begin: Instant, seconds: u64, guest: &Guest) -> Allocation {
        let mut guests = [guest.clone()];
        tally.look(begin + Duration::from_secs(seconds), 1e9, &mut guests);
        guests[0].allocation.clone().unwrap()
    }

    #[test]
    fn time_counts_for_what_was_seen_at_its_begin() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        let first = look(&mut tally, begin, 0, &guest(Some(1), 1));
        assert_eq!((first.vcpu_ms, first.state_ms), (0, vec![(1, 0)]));
        let paused = look(&mut tally, begin, 10, &guest(Some(1), 3));
        assert_eq!((paused.vcpu_ms, paused.state_ms), (20_000, vec![(1, 10_000)]));
        let off = look(&mut tally, begin, 15, &guest(None, 5));
        assert_eq!(off.state_ms, [(1, 10_000), (3, 5_000)]);
        let still_off = look(&mut tally, begin, 1015, &guest(None, 5));
        assert_eq!(still_off.state_ms, [(1, 10_000), (3, 5_000), (5, 1_000_000)]);
        assert_eq!(still_off.vcpu_ms, 30_000);
        assert_eq!(still_off.memory_byte_ms, 15_000 * 1024);
        assert!((still_off.since_seconds - 1e9).abs() < 1.0);
    }

    #[test]
    fn a_long_gap_counts_only_for_the_same_run() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        look(&mut tally, begin, 0, &guest(Some(1), 1));
        let same = look(&mut tally, begin, 3600, &guest(Some(1), 1));
        assert_eq!(same.vcpu_ms, 7_200_000);
        let another = look(&mut tally, begin, 7200, &guest(Some(2), 1));
        assert_eq!(another.vcpu_ms, 7_200_000);
        let soon = look(&mut tally, begin, 7260, &guest(Some(3), 1));
        assert_eq!(soon.vcpu_ms, 7_320_000);
    }

    #[test]
    fn what_is_not_known_is_as_before_and_who_is_gone_begins_anew() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        look(&mut tally, begin, 0, &guest(Some(1), 1));
        let silent = Guest { uuid: "u".to_owned(), id: Some(1), ..Guest::default() };
        look(&mut tally, begin, 10, &silent);
        let again = look(&mut tally, begin, 20, &silent);
        assert_eq!((again.vcpu_ms, again.state_ms), (40_000, vec![(1, 20_000)]));
        tally.look(begin + Duration::from_secs(30), 1e9, &mut []);
        let back = look(&mut tally, begin, 40, &guest(Some(1), 1));
        assert_eq!(back.vcpu_ms, 0);
        let mut unknown = [Guest { uuid: "v".to_owned(), ..Guest::default() }];
        tally.look(begin, 1e9, &mut unknown);
        assert_eq!(unknown[0].allocation, None);
    }
}
