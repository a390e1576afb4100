//! A host with four guests that show what pages must cope with: all figures, hostile names, a guest that did not
//! answer, one that is shut off. What libvirt says of it is a recording; the rest is here.

use std::path::Path;

use exporter::recording::Recording;
use exporter::snapshot::{Allocation, Calls, Direction, Flow, Scrape, Snapshot, Step, Traffic};

/// The snapshot of the golden pages.
pub(crate) fn snapshot() -> Snapshot {
    let mut recorded = recording("host").snapshot();
    let guests = recorded.guests.as_mut().unwrap();
    guests[0].allocation = Some(Allocation {
        since_seconds: 1_795_230_000.5,
        state_ms: vec![(1, 5_830_000), (3, 500)],
        vcpu_ms: 11_661_000,
        memory_byte_ms: 782_569_955_328_000,
    });
    guests[1].timed_out = true;
    guests[1].age_seconds = Some(30.5);
    Snapshot {
        traffic: Some(traffic()),
        scrape: Scrape {
            duration_seconds: 0.25,
            steps: vec![
                Step { collector: "basic", success: true, duration_seconds: 0.0625 },
                Step { collector: "detail", success: false, duration_seconds: 0.125 },
                Step { collector: "traffic", success: true, duration_seconds: 0.03125 },
            ],
            calls: vec![
                Calls { call: "open", total: 1, errors: 0 },
                Calls { call: "stats", total: 12, errors: 1 },
            ],
            given_up_threads: 1,
            given_up_threads_total: 2,
        },
        ..recorded
    }
}

/// One of the recordings beside the tests, by its name.
pub(crate) fn recording(name: &str) -> Recording {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    Recording::read(&folder.join(format!("{name}.json"))).unwrap()
}

/// One guest by its name, another by its uuid, and one that is not on this host.
fn traffic() -> Traffic {
    let flow = |guest: &str, ip: &str, direction, bytes| Flow {
        guest: guest.to_owned(),
        ip: ip.parse().unwrap(),
        direction,
        bytes,
        packets: bytes / 1000,
        rules: 1,
    };
    Traffic {
        flows: vec![
            flow("instance-00000001", "10.0.0.2", Direction::In, 1_000),
            flow("instance-00000001", "10.0.0.2", Direction::Out, 9_007_199_254_740_993),
            flow("instance-00000001", "2001:db8::2", Direction::Out, 2_000),
            flow(&uuid(2), "10.0.0.3", Direction::Out, 3_000),
            flow("instance-0000ffff", "10.0.0.4", Direction::Out, 4_000),
        ],
        unclear_rules: 2,
    }
}

fn uuid(number: u32) -> String {
    format!("de305d54-75b4-431b-adb2-{number:012}")
}
