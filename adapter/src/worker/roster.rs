//! Which workers live: by their heartbeats and by our clock (kanyun-legacy.md, "Parts and ports").
//! Pure: the time is an argument. Knows no metrics and no log.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::Serialize;

use super::Heartbeat;
use crate::limits;
use crate::model::instant;

/// The workers that were heard and did not say goodbye.
#[derive(Debug)]
pub struct Roster {
    workers: BTreeMap<String, Seen>,
    // While we do not listen, nobody can be heard, and silence says nothing.
    listening_since_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    last_ms: i64,
    dead: bool,
}

/// How many live and how many are dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Heard in time.
    pub alive: usize,
    /// Silent for too long.
    pub dead: usize,
}

/// A worker as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// Its own name.
    pub id: String,
    /// Its last heartbeat by our clock, RFC 3339.
    pub last_seen: String,
    /// Whether it lives.
    pub status: Status,
}

/// Whether a worker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Heard in time.
    Alive,
    /// Silent for too long.
    Dead,
}

/// There is no room for one more worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Roster {
    /// Nobody yet; listens from now on.
    pub fn new(now_ms: i64) -> Roster {
        Roster { workers: BTreeMap::new(), listening_since_ms: Some(now_ms) }
    }

    /// A worker was heard, or took its leave.
    pub fn heard(&mut self, heartbeat: Heartbeat, now_ms: i64) -> Result<(), Full> {
        if heartbeat.leaving {
            self.workers.remove(&heartbeat.worker);
            return Ok(());
        }
        let is_full = self.workers.len() >= limits::WORKERS_MAX;
        if is_full && !self.workers.contains_key(&heartbeat.worker) {
            self.forget_longest_dead().ok_or(Full)?;
        }
        let seen = Seen { last_ms: now_ms, dead: false };
        match self.workers.entry(heartbeat.worker) {
            Entry::Occupied(mut entry) => drop(entry.insert(seen)),
            Entry::Vacant(entry) => drop(entry.insert(seen)),
        }
        Ok(())
    }

    fn forget_longest_dead(&mut self) -> Option<()> {
        let dead = self.workers.iter().filter(|(_, seen)| seen.dead);
        let id = dead.min_by_key(|(_, seen)| seen.last_ms)?.0.clone();
        self.workers.remove(&id).map(drop)
    }

    /// Nobody is heard from now on: what was read has to be stored first.
    pub fn deaf(&mut self) {
        self.listening_since_ms = None;
    }

    /// Everybody can be heard again; silence counts from now on.
    pub fn listening(&mut self, now_ms: i64) {
        self.listening_since_ms.get_or_insert(now_ms);
    }

    /// Looks who has been silent for too long.
    pub fn look(&mut self, now_ms: i64) -> Count {
        for seen in self.workers.values_mut() {
            if let Some(since_ms) = self.listening_since_ms {
                // A clock that was set back makes nobody silent.
                let silent_ms = now_ms.saturating_sub(seen.last_ms.max(since_ms));
                seen.dead |= silent_ms >= limits::WORKER_SILENT_MS_MAX;
            }
        }
        let dead = self.workers.values().filter(|seen| seen.dead).count();
        Count { alive: self.workers.len() - dead, dead }
    }

    /// The dead, the one that was heard last first.
    pub fn dead(&self) -> Vec<&str> {
        let mut dead: Vec<_> = self.workers.iter().filter(|(_, seen)| seen.dead).collect();
        dead.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.last_ms));
        dead.into_iter().map(|(id, _)| id.as_str()).collect()
    }

    /// All of them, by their names.
    pub fn list(&self) -> Vec<Worker> {
        let worker = |(id, seen): (&String, &Seen)| Worker {
            id: id.clone(),
            last_seen: instant::format(seen.last_ms),
            status: if seen.dead { Status::Dead } else { Status::Alive },
        };
        self.workers.iter().map(worker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000;

    fn beat(worker: &str, leaving: bool) -> Heartbeat {
        Heartbeat { worker: worker.to_owned(), leaving }
    }

    #[test]
    fn a_silent_worker_is_dead_until_it_is_heard_and_forgotten_when_it_leaves() {
        let mut roster = Roster::new(NOW);
        for worker in ["b", "a", "c"] {
            roster.heard(beat(worker, false), NOW).unwrap();
        }
        roster.heard(beat("a", false), NOW + 60_000).unwrap();
        assert_eq!(roster.look(NOW + 119_999), Count { alive: 3, dead: 0 });
        assert_eq!(roster.look(NOW + 120_000), Count { alive: 1, dead: 2 });
        assert_eq!(roster.dead(), ["b", "c"]);
        let list = roster.list();
        assert_eq!(
            serde_json::to_string(&list).unwrap(),
            r#"[{"id":"a","last_seen":"2026-01-01T00:01:00Z","status":"alive"},{"id":"b","last_seen":"2026-01-01T00:00:00Z","status":"dead"},{"id":"c","last_seen":"2026-01-01T00:00:00Z","status":"dead"}]"#
        );
        roster.heard(beat("b", false), NOW + 130_000).unwrap();
        roster.heard(beat("c", true), NOW + 130_000).unwrap();
        roster.heard(beat("nobody", true), NOW + 130_000).unwrap();
        assert_eq!(roster.look(NOW + 130_000), Count { alive: 2, dead: 0 });
        // A clock that was set back says nothing about anybody.
        assert_eq!(roster.look(NOW - 1_000_000), Count { alive: 2, dead: 0 });
    }

    #[test]
    fn who_cannot_be_heard_is_not_silent() {
        let mut roster = Roster::new(NOW);
        roster.heard(beat("a", false), NOW).unwrap();
        roster.deaf();
        assert_eq!(roster.look(NOW + 600_000), Count { alive: 1, dead: 0 });
        roster.listening(NOW + 600_000);
        roster.listening(NOW + 700_000);
        assert_eq!(roster.look(NOW + 719_999), Count { alive: 1, dead: 0 });
        assert_eq!(roster.look(NOW + 720_000), Count { alive: 0, dead: 1 });
        // The dead stay dead while nobody listens.
        roster.deaf();
        assert_eq!(roster.look(NOW + 730_000), Count { alive: 0, dead: 1 });
    }

    #[test]
    fn there_is_room_for_so_many_and_the_dead_make_place() {
        let mut roster = Roster::new(NOW);
        for number in 0..limits::WORKERS_MAX {
            roster.heard(beat(&number.to_string(), false), NOW).unwrap();
        }
        assert_eq!(roster.heard(beat("more", false), NOW), Err(Full));
        roster.heard(beat("7", false), NOW).unwrap();
        roster.heard(beat("7", false), NOW + 120_000).unwrap();
        roster.look(NOW + 120_000);
        roster.heard(beat("more", false), NOW + 120_000).unwrap();
        let count = roster.look(NOW + 120_000);
        assert_eq!(count, Count { alive: 2, dead: limits::WORKERS_MAX - 2 });
    }
}
