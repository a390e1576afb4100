//! What the bytes of a series on the wire were found to mean, so that a series that is sent again
//! is neither decoded nor judged nor hashed again. Bounded; an entry that is lost costs the full way.
//!
//! Only what is durable comes in: an entry says that the index knows the series in its week.

use std::sync::{PoisonError, RwLock};

use crate::limits;
use crate::model::row_key::Group;
use crate::model::series::{Fingerprint, SeriesId};
use crate::model::time::{TimeRange, Week};

/// A series that the index knows, and for which times this may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub(super) series: SeriesId,
    pub(super) group: Group,
    pub(super) week: Week,
    /// Whether the index of the next week knows it, too.
    pub(super) ahead: bool,
}

impl Known {
    /// The times for which nothing is left to do but to store a sample.
    pub fn times(&self) -> TimeRange {
        let end_ms = match self.ahead {
            true => self.week.end_ms(),
            false => ahead_from_ms(self.week, self.series) - 1,
        };
        TimeRange { start_ms: self.week.start_ms(), end_ms }
    }
}

/// From when on the index row of the next week is written with a sample of this series: within the
/// last hours of the week, and at another moment for each series, so that no week begins with the
/// rows of all.
pub(super) fn ahead_from_ms(week: Week, series: SeriesId) -> i64 {
    let spread = u128::from(limits::INDEX_AHEAD_SPREAD_MS.cast_unsigned());
    // The low half of a hash, scaled: below the spread.
    let jitter = (series.0 & u128::from(u64::MAX)) * spread >> 64;
    let jitter = i64::try_from(jitter).unwrap_or(0);
    week.end_ms() - limits::INDEX_AHEAD_MS + 1 + jitter
}

/// What a commit taught about a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    pub(super) fingerprint: Fingerprint,
    pub(super) known: Known,
}

/// A line of the processor's cache, so that a lookup waits for memory once.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Slot(Option<Lesson>);

/// How far from its place an entry may be.
const PROBES: usize = 32;
const SLOTS_MIN: usize = 1024;

/// Entries by fingerprint, in the slot that it names or in one of the next few.
#[derive(Debug)]
struct Table {
    // A power of two of them.
    slots: Vec<Slot>,
    used: usize,
    evictions: usize,
}

/// The memory of all senders' series.
#[derive(Debug)]
pub(super) struct Memo(RwLock<Table>);

impl Memo {
    pub(super) fn new() -> Memo {
        Memo(RwLock::new(Table::with_slots(SLOTS_MIN)))
    }

    /// What is known by each fingerprint, in their order. All of a request at once: nothing here
    /// waits for the lookup before, so the processor fetches the lines of many series at a time.
    pub(super) fn recall(
        &self,
        fingerprints: impl ExactSizeIterator<Item = Option<Fingerprint>>,
    ) -> Vec<Option<Known>> {
        let mut found = Vec::with_capacity(fingerprints.len());
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        found.extend(fingerprints.map(|fingerprint| table.get(fingerprint?)));
        found
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        *self.0.write().unwrap() = Table::with_slots(SLOTS_MIN);
    }

    /// Takes in what is durable now.
    pub(super) fn learn(&self, lessons: &[Lesson]) {
        if lessons.is_empty() {
            return;
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for lesson in lessons {
            table.insert(*lesson);
        }
    }
}

impl Table {
    fn with_slots(count: usize) -> Table {
        Table { slots: vec![Slot(None); count], used: 0, evictions: 0 }
    }

    /// The slots in which an entry with this fingerprint may be, the likeliest first.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash are one, too")]
    fn places(&self, fingerprint: Fingerprint) -> impl Iterator<Item = usize> + use<> {
        let (first, mask) = (fingerprint.bits() as usize, self.slots.len() - 1);
        (0..PROBES).map(move |step| first.wrapping_add(step) & mask)
    }

    fn get(&self, fingerprint: Fingerprint) -> Option<Known> {
        for place in self.places(fingerprint) {
            let lesson = self.slots.get(place)?.0?;
            if lesson.fingerprint == fingerprint {
                return Some(lesson.known);
            }
        }
        None
    }

    fn insert(&mut self, lesson: Lesson) {
        if self.used * 2 >= self.slots.len() && self.slots.len() < limits::MEMO_SLOTS_MAX {
            self.grow(lesson.known.week);
        }
        let mut outdated = None;
        for place in self.places(lesson.fingerprint) {
            match self.slots.get(place).and_then(|slot| slot.0) {
                None => {
                    self.used += 1;
                    return self.set(place, lesson);
                }
                Some(old) if old.fingerprint == lesson.fingerprint => {
                    // A late sample of an old week does not displace the present.
                    if old.known.week <= lesson.known.week {
                        self.set(place, lesson);
                    }
                    return;
                }
                Some(old) if old.known.week < lesson.known.week => {
                    outdated.get_or_insert(place);
                }
                Some(_) => {}
            }
        }
        // No slot is free here. The present entries go in turn, so that a series that is not sent
        // any more goes sooner or later, and one that still is comes back.
        self.evictions += 1;
        let in_turn = self.places(lesson.fingerprint).nth(self.evictions % PROBES);
        if let Some(place) = outdated.or(in_turn) {
            self.set(place, lesson);
        }
    }

    fn set(&mut self, place: usize, lesson: Lesson) {
        if let Some(slot) = self.slots.get_mut(place) {
            slot.0 = Some(lesson);
        }
    }

    /// Twice as many slots, without what is from before the week that has just ended.
    fn grow(&mut self, present: Week) {
        let wider = Table::with_slots(self.slots.len() * 2);
        let old = std::mem::replace(self, wider);
        for lesson in old.slots.into_iter().filter_map(|slot| slot.0) {
            if lesson.known.week.0 >= present.0.saturating_sub(1) {
                self.insert(lesson);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::HOUR_MS;

    fn lesson(number: usize, week: i32) -> Lesson {
        let bytes = number.to_le_bytes();
        let fingerprint = Fingerprint::of(&bytes, 0).unwrap();
        let series = SeriesId::of_encoded(&bytes);
        let known = Known { series, group: Group(number as u64), week: Week(week), ahead: false };
        Lesson { fingerprint, known }
    }

    fn hits(memo: &Memo, lessons: &[Lesson]) -> usize {
        let found = memo.recall(lessons.iter().map(|lesson| Some(lesson.fingerprint)));
        for (found, lesson) in found.iter().zip(lessons) {
            assert!(found.is_none_or(|known| known.series == lesson.known.series));
        }
        found.iter().flatten().count()
    }

    #[test]
    fn a_slot_is_a_line_of_the_cache() {
        assert_eq!(size_of::<Slot>(), 64);
    }

    #[test]
    fn what_is_learned_is_recalled_and_nothing_else() {
        let memo = Memo::new();
        let all: Vec<Lesson> = (0..100_000).map(|number| lesson(number, 7)).collect();
        let (known, unknown) = all.split_at(60_000);
        memo.learn(known);
        // A table half full at most leaves hardly any entry without a slot near its place.
        assert!(hits(&memo, known) > 59_990, "{}", hits(&memo, known));
        assert_eq!(hits(&memo, unknown), 0);
        assert_eq!(memo.recall([None].into_iter()), [None]);
        let slots = memo.0.read().unwrap().slots.len();
        assert!(slots <= 131_072, "{slots}");
    }

    #[test]
    fn a_later_week_displaces_an_earlier_one_and_never_the_other_way_round() {
        let memo = Memo::new();
        memo.learn(&[lesson(1, 7), lesson(1, 8), lesson(1, 6)]);
        let found = memo.recall([Some(lesson(1, 0).fingerprint)].into_iter());
        assert_eq!(found, [Some(lesson(1, 8).known)]);
    }

    #[test]
    fn it_is_bounded_and_what_is_sent_no_more_makes_room() {
        let memo = Memo::new();
        let count = limits::MEMO_SLOTS_MAX;
        // Twice as many series as fit, of which half are gone for good.
        let all: Vec<Lesson> = (0..count * 2).map(|number| lesson(number, 7)).collect();
        memo.learn(&all);
        assert_eq!(memo.0.read().unwrap().slots.len(), limits::MEMO_SLOTS_MAX);
        let living = &all[..count / 2];
        for _ in 0..20 {
            let found = memo.recall(living.iter().map(|lesson| Some(lesson.fingerprint)));
            let lost: Vec<Lesson> = living
                .iter()
                .zip(found)
                .filter(|(_, found)| found.is_none())
                .map(|(l, _)| *l)
                .collect();
            memo.learn(&lost);
        }
        assert!(hits(&memo, living) > living.len() / 100 * 95, "{}", hits(&memo, living));
        // A new week takes the places of the old one at once.
        let next: Vec<Lesson> = (0..count / 2).map(|number| lesson(number, 8)).collect();
        memo.learn(&next);
        assert!(hits(&memo, &next) > next.len() / 100 * 95, "{}", hits(&memo, &next));
    }

    #[test]
    fn the_next_weeks_row_is_due_at_another_moment_for_each_series() {
        let week = Week(2950);
        let mut hours = std::collections::BTreeMap::<i64, usize>::new();
        for number in 0..12_000 {
            let known = lesson(number, week.0).known;
            let due = ahead_from_ms(week, known.series);
            let left = week.end_ms() + 1 - due;
            assert!((30 * 60_000..=12 * HOUR_MS).contains(&left), "{left}");
            *hours.entry(left / HOUR_MS).or_default() += 1;
            assert_eq!(known.times(), TimeRange { start_ms: week.start_ms(), end_ms: due - 1 });
            let ahead = Known { ahead: true, ..known };
            assert_eq!(ahead.times().end_ms, week.end_ms());
        }
        assert!(
            (1..12).all(|hour| hours.get(&hour).is_some_and(|count| *count > 900)),
            "{hours:?}"
        );
    }
}
