//! Tables as an operator sees them.

use expect_test::{Expect, expect};

use super::*;
use crate::snapshot::{Block, Cpu, Direction, Interface, Memory};

fn flow(guest: &str, bytes: u64) -> Flow {
    let ip = "10.0.0.2".parse().unwrap();
    let guest = guest.to_owned();
    Flow { guest, ip, direction: Direction::Out, bytes, packets: bytes / 100, rules: 1 }
}

fn guest() -> Guest {
    Guest {
        name: "instance-00000074".to_owned(),
        uuid: "u-1".to_owned(),
        cpu: Cpu { time_ns: Some(1_500_000_000), ..Cpu::default() },
        memory: Memory { maximum_kib: Some(2048), current_kib: Some(1024), ..Memory::default() },
        interfaces: vec![Interface {
            device: "tap1".to_owned(),
            receive_bytes: Some(100),
            ..Interface::default()
        }],
        blocks: vec![Block { device: "vda".to_owned(), write_bytes: Some(7), ..Block::default() }],
        ..Guest::default()
    }
}

fn printed(table: &Table, expected: &Expect) {
    let mut out = Vec::new();
    table.print(&mut out).unwrap();
    expected.assert_eq(&String::from_utf8(out).unwrap());
}

#[test]
fn traffic_by_guest() {
    let now = Traffic {
        flows: vec![flow("instance-00000074", 500), flow("x\x1b[2J", 10)],
        unclear_rules: 0,
    };
    let before = Traffic {
        flows: vec![flow("instance-00000074", 200), flow("x\x1b[2J", 40)],
        unclear_rules: 0,
    };
    printed(
        &traffic(&now, Some(&before), Some(&[guest()])),
        &expect![[r"
            GUEST              UUID                ADDRESS   DIRECTION  BYTES  PACKETS  NEW BYTES
            instance-00000074  u-1                 10.0.0.2  out        500    5        300
            x?[2J              (not on this host)  10.0.0.2  out        10     0        10
        "]],
    );
    printed(
        &traffic(&Traffic { flows: vec![flow("g", 1)], unclear_rules: 0 }, None, None),
        &expect![[r"
            GUEST  UUID                       ADDRESS   DIRECTION  BYTES  PACKETS
            g      (libvirt does not answer)  10.0.0.2  out        1      0
        "]],
    );
}

#[test]
fn figures_by_family_and_what_came_since() {
    let mut before = guest();
    before.cpu.time_ns = Some(1_000_000_000);
    before.interfaces[0].receive_bytes = Some(60);
    printed(
        &guests(&[guest()], Some((Duration::from_secs(2), &[before]))),
        &expect![[r"
            GUEST              METRIC        DEVICE  VALUE  UNIT     NEW
            instance-00000074  cpu           total   1.500  seconds  25.00 %
            instance-00000074  mem_max       total   2048   KiB
            instance-00000074  mem_free      total   1024   KiB
            instance-00000074  nic_incoming  tap1    100    bytes    40
            instance-00000074  blk_write     vda     7      bytes    0
        "]],
    );
}

#[test]
fn who_a_guest_is() {
    printed(
        &identity(&guest()),
        &expect![[r"
            GUEST           instance-00000074
            libvirt's name  instance-00000074
            uuid            u-1
            nova's number   116
        "]],
    );
}
