//! A host with four guests that show what pages must cope with: all figures, hostile names, a guest that did not
//! answer, one that is shut off.

use std::sync::Arc;

use exporter::snapshot::{
    Block, Calls, Cpu, Description, Direction, Disk, Flow, Guest, Host, Interface, Memory, Nic,
    Nova, Scrape, Snapshot, Step, Traffic, Vcpu, Vcpus,
};

/// The snapshot of the golden pages.
pub(crate) fn snapshot() -> Snapshot {
    Snapshot {
        up: true,
        host: Some(Host {
            hypervisor_running: some("7.2.22"),
            libvirtd_running: some("9.0.0"),
            libvirt_library: some("9.0.0"),
            cpus: Some(16),
            memory_kib: Some(65_536_000),
        }),
        guests: Some(vec![busy(), hostile(), silent(), shut_off()]),
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
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every text of the snapshot is optional")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
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

fn busy() -> Guest {
    Guest {
        name: "instance-00000001".to_owned(),
        uuid: uuid(1),
        id: Some(1),
        timed_out: false,
        age_seconds: Some(0.0),
        state: Some(1),
        cpu: Cpu {
            time_ns: Some(3_900_333_000),
            user_ns: Some(3_121_034_000),
            system_ns: Some(779_299_000),
        },
        vcpus: Vcpus {
            current: Some(2),
            maximum: Some(4),
            each: vec![vcpu(0, Some(125_988_532)), vcpu(2, None)],
        },
        memory: memory(),
        blocks: vec![block("vda"), block("vdb")],
        interfaces: vec![interface("tap1"), interface("tap2")],
        description: Some(Arc::new(description())),
        start_time_seconds: Some(1_795_235_492.72),
    }
}

fn vcpu(number: u32, delay_ns: Option<u64>) -> Vcpu {
    Vcpu { number, state: Some(1), time_ns: Some(3_380_000_000), wait_ns: Some(0), delay_ns }
}

fn memory() -> Memory {
    Memory {
        current_kib: Some(131_072),
        maximum_kib: Some(131_072),
        swap_in_kib: Some(4),
        swap_out_kib: Some(8),
        major_fault: Some(3),
        minor_fault: Some(1366),
        unused_kib: Some(63_844),
        available_kib: Some(93_772),
        usable_kib: Some(46_886),
        last_update_seconds: Some(1_795_235_828),
        disk_caches_kib: Some(2524),
        hugetlb_pgalloc: Some(1),
        hugetlb_pgfail: Some(2),
        rss_kib: Some(246_552),
    }
}

fn block(device: &str) -> Block {
    Block {
        device: device.to_owned(),
        read_requests: Some(6),
        read_bytes: Some(4_198_912),
        read_time_ns: Some(1_867_996),
        write_requests: Some(8),
        write_bytes: Some(9_007_199_254_740_993),
        write_time_ns: Some(5_218_105),
        flush_requests: Some(2),
        flush_time_ns: Some(1_000),
        capacity_bytes: Some(67_108_864),
        allocation_bytes: Some(8_716_288),
        physical_bytes: Some(8_654_848),
    }
}

fn interface(device: &str) -> Interface {
    Interface {
        device: device.to_owned(),
        receive_bytes: Some(21_020),
        receive_packets: Some(34),
        receive_errors: Some(1),
        receive_drops: Some(2),
        transmit_bytes: Some(21_021),
        transmit_packets: Some(35),
        transmit_errors: Some(3),
        transmit_drops: Some(4),
    }
}

fn description() -> Description {
    Description {
        os_type: some("hvm"),
        os_arch: some("x86_64"),
        os_machine: some("pc-q35-7.2"),
        nova: Some(Nova {
            instance_name: some("web-1"),
            flavor_name: some("m1.tiny"),
            user_name: some("demo-user"),
            user_id: some("11111111-0000-0000-0000-000000000001"),
            project_name: some("demo"),
            project_id: some("22222222-0000-0000-0000-000000000002"),
            fixed_addresses: vec!["10.0.0.2".parse().unwrap()],
        }),
        disks: vec![Disk {
            device: "vda".to_owned(),
            disk_type: some("network"),
            target_bus: some("virtio"),
            driver_name: some("qemu"),
            driver_type: some("raw"),
            driver_cache: some("none"),
            driver_discard: some("unmap"),
            source_file: some("vms/volume-7"),
            source_protocol: some("rbd"),
            serial: some("7"),
        }],
        nics: vec![Nic {
            device: "tap1".to_owned(),
            interface_type: some("bridge"),
            source_bridge: some("br-int"),
            mac_address: some("52:54:00:00:00:01"),
            model_type: some("virtio"),
            mtu_size: some("1450"),
        }],
    }
}

/// Names as a tenant may choose them; a guest without most figures.
fn hostile() -> Guest {
    let nova = Nova {
        instance_name: some("a \"b\" \\ c\n# HELP x 客户 {} 1"),
        flavor_name: some("x\\n"),
        ..Nova::default()
    };
    Guest {
        name: "quoted \"name\" \\".to_owned(),
        uuid: uuid(2),
        id: Some(2),
        timed_out: true,
        age_seconds: Some(30.5),
        state: Some(3),
        cpu: Cpu { time_ns: Some(0), ..Cpu::default() },
        description: Some(Arc::new(Description { nova: Some(nova), ..Description::default() })),
        ..Guest::default()
    }
}

fn silent() -> Guest {
    Guest { name: "instance-00000003".to_owned(), uuid: uuid(3), id: Some(3), ..busy() }.identity()
}

fn shut_off() -> Guest {
    Guest {
        name: "instance-00000004".to_owned(),
        uuid: uuid(4),
        state: Some(5),
        vcpus: Vcpus { current: Some(1), maximum: Some(1), each: Vec::new() },
        memory: Memory {
            current_kib: Some(32_768),
            maximum_kib: Some(32_768),
            ..Memory::default()
        },
        ..Guest::default()
    }
}
