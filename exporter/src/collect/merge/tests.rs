//! Guests that answer, that are busy, hung, gone or started anew, after a scrape that knew them.

use super::*;
use crate::snapshot::{Block, Cpu, Job, Memory};

const MAX_AGE: Duration = Duration::from_secs(60);

fn listed(id: u32) -> Guest {
    let (name, uuid) = ("a".to_owned(), "u".to_owned());
    Guest { name, uuid, id: Some(id), state: Some(1), ..Guest::default() }
}

/// A guest with all its figures, as the monitor gives them.
fn read(id: u32, bytes: u64) -> Guest {
    let block = Block {
        device: "vda".to_owned(),
        read_requests: Some(1),
        read_bytes: Some(bytes),
        ..Block::default()
    };
    Guest {
        cpu: Cpu { time_ns: Some(bytes), ..Cpu::default() },
        memory: Memory { rss_kib: Some(bytes), ..Memory::default() },
        blocks: vec![block],
        ..listed(id)
    }
}

/// As libvirt gives it where the guest's job is held.
fn busy(id: u32, time_ns: u64) -> Guest {
    let block = Block { device: "vda".to_owned(), ..Block::default() };
    let cpu = Cpu { time_ns: Some(time_ns), ..Cpu::default() };
    Guest { cpu, blocks: vec![block], ..listed(id) }
}

fn before(age_seconds: f64) -> Snapshot {
    let guest = Guest { age_seconds: Some(age_seconds), ..read(1, 100) };
    Snapshot { up: true, guests: Some(vec![guest]), ..Snapshot::default() }
}

fn merged(past: &Snapshot, elapsed: u64, listed: Guest, details: Details) -> Guest {
    let mut guests = [listed];
    let past = Past::new(past, Duration::from_secs(elapsed), MAX_AGE);
    add_details(&mut guests, details, &past);
    let [guest] = guests;
    guest
}

fn found(guest: Guest) -> Details {
    Details { found: [(guest.uuid.clone(), guest)].into(), ..Details::default() }
}

fn unanswered() -> Details {
    Details { unanswered: ["u".to_owned()].into(), ..Details::default() }
}

fn bytes(guest: &Guest) -> Option<u64> {
    guest.blocks.first().and_then(|block| block.read_bytes)
}

#[test]
fn figures_of_this_scrape_go_before_all() {
    let guest = merged(&before(0.0), 15, listed(1), found(read(1, 200)));
    assert_eq!((bytes(&guest), guest.timed_out, guest.age_seconds), (Some(200), false, Some(0.0)));
}

#[test]
fn a_silent_guest_keeps_its_figures_for_a_while() {
    let guest = merged(&before(10.0), 15, listed(1), unanswered());
    assert_eq!((bytes(&guest), guest.timed_out, guest.age_seconds), (Some(100), true, Some(25.0)));
    for past in [before(50.0), Snapshot::default()] {
        let guest = merged(&past, 15, listed(1), unanswered());
        assert_eq!((bytes(&guest), guest.timed_out, guest.age_seconds), (None, true, None));
        assert_eq!((guest.state, guest.name.as_str()), (Some(1), "a"));
    }
}

#[test]
fn a_busy_guest_shows_what_needs_no_monitor() {
    let guest = merged(&before(0.0), 15, listed(1), found(busy(1, 300)));
    assert_eq!((bytes(&guest), guest.timed_out, guest.age_seconds), (Some(100), true, Some(15.0)));
    assert_eq!(guest.cpu.time_ns, Some(300));
    let guest = merged(&before(60.0), 15, listed(1), found(busy(1, 300)));
    assert_eq!((bytes(&guest), guest.cpu.time_ns), (None, Some(300)));
    assert_eq!((guest.timed_out, guest.age_seconds), (true, None));
}

#[test]
fn figures_of_an_earlier_run_are_never_shown() {
    let guest = merged(&before(0.0), 15, listed(2), unanswered());
    assert_eq!((bytes(&guest), guest.timed_out, guest.age_seconds), (None, true, None));
}

#[test]
fn a_guest_that_ended_meanwhile_is_not_blamed() {
    for details in [Details::default(), found(read(2, 5))] {
        let guest = merged(&before(0.0), 15, listed(1), details);
        assert_eq!((bytes(&guest), guest.timed_out, guest.age_seconds), (None, false, None));
        assert_eq!(guest.state, Some(1));
    }
}

#[test]
fn a_process_that_is_gone_has_no_figures() {
    let mut gone = read(1, 200);
    gone.cpu.time_ns = Some(0);
    let mut without_memory = read(1, 200);
    without_memory.memory.rss_kib = Some(0);
    for detail in [gone, without_memory, busy(1, 0)] {
        let guest = merged(&before(0.0), 15, listed(1), found(detail));
        assert_eq!((guest.cpu.time_ns, bytes(&guest), guest.timed_out), (None, None, false));
    }
    let mut new = read(1, 200);
    new.cpu.time_ns = Some(0);
    let guest = merged(&Snapshot::default(), 15, listed(1), found(new));
    assert_eq!(guest.cpu.time_ns, Some(0), "it may have run for less than libvirt's clock ticks");
}

#[test]
fn a_guest_that_does_not_run_has_no_monitor() {
    let off = Guest { id: None, state: Some(5), ..listed(1) };
    let guest = merged(&before(0.0), 15, off.clone(), found(off));
    assert_eq!((guest.timed_out, guest.age_seconds, guest.state), (false, Some(0.0), Some(5)));
}

#[test]
fn a_silent_libvirtd_leaves_what_was_known() {
    let snapshot = before(10.0);
    let past = |elapsed| Past::new(&snapshot, Duration::from_secs(elapsed), MAX_AGE);
    let guests = past(20).guests().unwrap();
    assert_eq!((guests[0].timed_out, guests[0].age_seconds), (true, Some(30.0)));
    assert!(past(20).fresh_guests().is_some());
    let guests = past(51).guests().unwrap();
    assert_eq!((bytes(&guests[0]), guests[0].age_seconds, guests[0].id), (None, None, Some(1)));
    assert_eq!(past(51).fresh_guests(), None);
    let none = Past::new(&snapshot, Duration::ZERO, Duration::ZERO);
    assert_eq!(none.fresh_guests(), None, "0 shows no old figures at all");
}

#[test]
fn identities_outlive_a_deadline() {
    let mut snapshot = before(0.0);
    if let Some([guest]) = snapshot.guests.as_deref_mut() {
        guest.start_time_seconds = Some(7.0);
    }
    let past = Past::new(&snapshot, Duration::ZERO, MAX_AGE);
    let mut guests = [listed(1)];
    identify(&mut guests, None, &past);
    assert_eq!(guests[0].start_time_seconds, Some(7.0));
    let mut guests = [listed(2)];
    identify(&mut guests, None, &past);
    assert_eq!(guests[0].start_time_seconds, None, "another run began at another time");
    let identity = Identity { start_time_seconds: Some(9.0), description: None };
    identify(&mut guests, Some(vec![identity]), &past);
    assert_eq!(guests[0].start_time_seconds, Some(9.0));
}

#[test]
fn other_disks_of_the_same_run_are_noticed() {
    let snapshot = before(0.0);
    let past = Past::new(&snapshot, Duration::ZERO, MAX_AGE);
    let seen = |id, device: &str, age_seconds| {
        let mut guest = Guest { age_seconds, ..read(id, 1) };
        guest.blocks[0].device = device.to_owned();
        !other_disks(&[guest], &past).is_empty()
    };
    assert!(seen(1, "vdb", Some(0.0)));
    assert!(!seen(1, "vda", Some(0.0)));
    assert!(!seen(2, "vdb", Some(0.0)), "a new run's XML is read anyway");
    assert!(!seen(1, "vdb", None));
}

#[test]
fn guests_without_a_job_are_asked_for_it_by_turns() {
    let guest = |number: u32, job: Option<Job>| {
        let uuid = format!("uuid-{number}");
        Guest { uuid, id: Some(number), job, ..Guest::default() }
    };
    let mut guests: Vec<Guest> = (0..9).map(|number| guest(number, Some(Job::default()))).collect();
    guests.push(guest(10, Some(Job { kind: 2, ..Job::default() })));
    guests.push(guest(11, None));
    let past = Snapshot { up: true, guests: Some(guests), ..Snapshot::default() };
    let past = Past::new(&past, Duration::ZERO, MAX_AGE);
    let turns: Vec<Idle> = (5..9).map(|turn| past.idle(turn)).collect();
    for number in 0..9 {
        let asked = turns.iter().filter(|idle| !idle.contains_key(&format!("uuid-{number}")));
        assert_eq!(asked.count(), 1, "guest {number}");
    }
    for idle in &turns {
        assert!(!idle.contains_key("uuid-10") && !idle.contains_key("uuid-11"));
        assert!(idle.iter().all(|(uuid, id)| *uuid == format!("uuid-{}", id.unwrap())));
    }
}
