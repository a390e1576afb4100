//! Guests' XML as nova and libvirt write it, and as nobody should.

use proptest::prelude::*;

use super::*;
use crate::snapshot::{Bandwidth, CpuTune, HugePages};

fn with_metadata(metadata: &str) -> Description {
    description(&format!(
        "<domain type='kvm'><name>i</name><metadata>{metadata}</metadata></domain>"
    ))
    .unwrap()
}

fn nova_of(metadata: &str) -> Nova {
    with_metadata(metadata).nova.unwrap()
}

#[test]
fn nova_of_both_namespaces_and_any_prefix() {
    for (prefix, version) in [("nova", "1.0"), ("nova", "1.1"), ("n0", "1.1")] {
        let nova = nova_of(&format!(
            "<{prefix}:instance xmlns:{prefix}='http://openstack.org/xmlns/libvirt/nova/{version}'>\
             <{prefix}:name>web-1</{prefix}:name><{prefix}:flavor name='m1.tiny'/>\
             <{prefix}:owner><{prefix}:user uuid='u-1'>demo-user</{prefix}:user>\
             <{prefix}:project uuid='p-1'>demo</{prefix}:project></{prefix}:owner></{prefix}:instance>"
        ));
        assert_eq!(nova.instance_name.as_deref(), Some("web-1"));
        assert_eq!(nova.flavor_name.as_deref(), Some("m1.tiny"));
        assert_eq!(nova.user_name.as_deref(), Some("demo-user"));
        assert_eq!(nova.user_id.as_deref(), Some("u-1"));
        assert_eq!(nova.project_name.as_deref(), Some("demo"));
        assert_eq!(nova.project_id.as_deref(), Some("p-1"));
    }
}

#[test]
fn the_fixed_addresses_of_all_ports() {
    let nova = nova_of(
        "<n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'><n:ports>\
         <n:port uuid='p'><n:ip type='fixed' address='192.168.1.1' ipVersion='4'/>\
         <n:ip type='fixed' address='2001:DB8:0::1' ipVersion='6'/>\
         <n:ip type='floating' address='11.22.33.44' ipVersion='4'/></n:port>\
         <n:port uuid='q'><n:ip address='10.0.0.2'/><n:ip type='fixed' address='10.0.0.2; reboot'/>\
         <n:ip type='fixed'/></n:port></n:ports></n:instance>",
    );
    let addresses: Vec<String> = nova.fixed_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.1.1", "2001:db8::1", "10.0.0.2"]);
}

#[test]
fn other_peoples_instances_are_not_novas() {
    let other = "<x:instance xmlns:x='http://example.org/x'><x:name>not-me</x:name></x:instance>";
    assert_eq!(with_metadata(other).nova, None);
    let both = format!(
        "{other}<instance xmlns='http://openstack.org/xmlns/libvirt/nova/1.1'><name>me</name></instance>\
         <instance xmlns='http://openstack.org/xmlns/libvirt/nova/1.0'><name>late</name></instance>"
    );
    assert_eq!(nova_of(&both).instance_name.as_deref(), Some("me"));
    assert_eq!(nova_of(&both).user_id, None);
}

#[test]
fn hostile_names_come_through_as_they_are() {
    let nova = nova_of(
        "<n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'>\
         <n:name>a \"quoted\" &lt;b&gt; &amp;amp; 客户\\n&#10;second line<!-- gone --><![CDATA[ <raw> ]]></n:name>\
         <n:flavor name='m1 &quot;big&quot;&#10;x'/></n:instance>",
    );
    assert_eq!(
        nova.instance_name.as_deref(),
        Some("a \"quoted\" <b> &amp; 客户\\n\nsecond line <raw>")
    );
    assert_eq!(nova.flavor_name.as_deref(), Some("m1 \"big\"\nx"));
}

#[test]
fn disks_and_interfaces() {
    let found = description(
        "<domain><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' discard='unmap'/>\
         <source file='/i/1.qcow2'/><target dev='vda' bus='virtio'/><serial>s-1</serial></disk>\
         <disk type='network'><source protocol='rbd' name='vms/volume-7'/><target dev='vdb' bus='scsi'/></disk>\
         <disk type='block'><source dev='/dev/mapper/x'/><target dev='vdb'/></disk>\
         <disk type='file'><source file='/no/target'/></disk>\
         <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br-int'/>\
         <target dev='tap1'/><model type='virtio'/><mtu size='1450'/></interface>\
         <interface type='hostdev'><mac address='52:54:00:00:00:02'/><alias name='hostdev0'/></interface>\
         <interface type='hostdev'><mac address='52:54:00:00:00:03'/></interface>\
         <interface type='hostdev'/></devices></domain>",
    )
    .unwrap();
    assert_eq!(found.os_type.as_deref(), Some("hvm"));
    assert_eq!(found.os_machine.as_deref(), Some("pc-q35-7.2"));
    let disks: Vec<_> = found.disks.iter().map(|disk| disk.device.as_str()).collect();
    assert_eq!(disks, ["vda", "vdb"]);
    assert_eq!(found.disks[0].serial.as_deref(), Some("s-1"));
    assert_eq!(found.disks[1].source_file.as_deref(), Some("vms/volume-7"));
    assert_eq!(found.disks[1].source_protocol.as_deref(), Some("rbd"));
    let nics: Vec<_> = found.nics.iter().map(|nic| nic.device.as_str()).collect();
    assert_eq!(nics, ["tap1", "hostdev0", "52:54:00:00:00:03"]);
    assert_eq!(found.nics[0].mtu_size.as_deref(), Some("1450"));
}

#[test]
fn where_disks_lie_and_what_limits_them() {
    let volume = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
    let found = description(&format!(
        "<domain><devices><disk type='network'><source protocol='rbd' name='volumes/volume-{volume}'/>\
         <target dev='vda'/><serial>other</serial><iotune><total_iops_sec>500</total_iops_sec>\
         <read_bytes_sec>0</read_bytes_sec><write_bytes_sec>x</write_bytes_sec>\
         <size_iops_sec>4096</size_iops_sec></iotune></disk>\
         <disk type='network'><source protocol='rbd' name='vms/abc_disk'/><target dev='vdb'/></disk>\
         <disk type='block'><source dev='/dev/dm-1'/><target dev='vdc'/><serial>{volume}</serial></disk>\
         <disk type='network'><source protocol='nbd' name='a/b'/><target dev='vdd'/></disk>\
         <disk type='network'><source protocol='rbd' name='alone'/><target dev='vde'/></disk></devices></domain>"
    ))
    .unwrap();
    let [rbd, nova, iscsi, nbd, alone] = found.disks.as_slice() else { panic!("{found:?}") };
    assert_eq!((rbd.pool.as_deref(), nova.pool.as_deref()), (Some("volumes"), Some("vms")));
    assert_eq!(nova.image.as_deref(), Some("abc_disk"));
    assert_eq!(rbd.volume_id.as_deref(), Some(volume));
    assert_eq!(nova.volume_id, None);
    assert_eq!(iscsi.volume_id.as_deref(), Some(volume));
    assert_eq!((&nbd.pool, &alone.pool), (&None, &None));
    assert_eq!(rbd.limits, [("total_iops_sec", 500), ("size_iops_sec", 4096)]);
}

#[test]
fn ports_and_bandwidth_of_interfaces() {
    let port = "0a1b2c3d-4e5f-0000-0000-000000000001";
    let found = description(&format!(
        "<domain><metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'>\
         <n:ports><n:port uuid='{port}'/></n:ports></n:instance></metadata><devices>\
         <interface type='bridge'><target dev='tap0a1b2c3d-4e'/><bandwidth>\
         <inbound average='1000' peak='5000' burst='1024'/><outbound average='128' floor='2'/></bandwidth></interface>\
         <interface type='bridge'><target dev='tapffffffff-ff'/><virtualport type='openvswitch'>\
         <parameters interfaceid='p-2'/></virtualport></interface></devices></domain>"
    ))
    .unwrap();
    let [named, switched] = found.nics.as_slice() else { panic!("{found:?}") };
    assert_eq!((named.port_id.as_deref(), &named.virtual_interface), (Some(port), &None));
    assert_eq!(switched.port_id.as_deref(), Some("p-2"));
    assert_eq!(named.receive_limit.average_bytes, Some(1_000_000));
    assert_eq!(named.receive_limit.peak_bytes, Some(5_000_000));
    assert_eq!(named.receive_limit.burst_bytes, Some(1_048_576));
    assert_eq!(named.transmit_limit.average_bytes, Some(128_000));
    assert_eq!(switched.transmit_limit, Bandwidth::default());
}

#[test]
fn what_a_guest_may_use() {
    let found = description(
        "<domain><cputune><shares>2048</shares><period>100000</period><quota>-1</quota>\
         <emulator_quota>5000</emulator_quota><vcpupin vcpu='0' cpuset='0-3,^2'/><vcpupin vcpu='0' cpuset='9'/>\
         <vcpupin vcpu='x' cpuset='1'/><emulatorpin cpuset='1'/><iothreadpin iothread='1' cpuset='5'/></cputune>\
         <memtune><hard_limit unit='G'>2</hard_limit><soft_limit>1024</soft_limit>\
         <swap_hard_limit unit='parsec'>1</swap_hard_limit></memtune>\
         <memoryBacking><hugepages><page size='2' unit='M' nodeset='0'/></hugepages></memoryBacking>\
         <devices><memballoon model='virtio'><stats period='10'/></memballoon></devices></domain>",
    )
    .unwrap();
    assert_eq!(found.cpu_tune.shares, Some(2048));
    let quotas: Vec<_> =
        found.cpu_tune.quotas.iter().map(|one| (one.threads, one.quota_us)).collect();
    assert_eq!(quotas, [("vcpu", None), ("emulator", Some(5000))]);
    let pins: Vec<_> =
        found.cpu_tune.pins.iter().map(|pin| (pin.thread.as_str(), pin.cpus.as_str())).collect();
    assert_eq!(pins, [("vcpu 0", "0-3,^2"), ("emulator", "1"), ("iothread 1", "5")]);
    assert_eq!(found.memory_limits, [("hard_limit", 2 << 30), ("soft_limit", 1 << 20)]);
    let pages = [HugePages { bytes: Some(2 << 20), nodeset: Some("0".to_owned()) }];
    assert_eq!(found.huge_pages, pages);
    assert_eq!(found.stats_period_seconds, Some(10));
    let plain = description(
        "<domain><memoryBacking><hugepages/></memoryBacking><devices><memballoon model='none'/></devices></domain>",
    )
    .unwrap();
    assert_eq!(plain.huge_pages, [HugePages::default()]);
    assert_eq!(plain.stats_period_seconds, None);
    assert_eq!(plain.cpu_tune, CpuTune::default());
}

#[test]
fn a_thousand_disks() {
    let disk = |n| format!("<disk type='file'><source file='/{n}'/><target dev='vd{n}'/></disk>");
    let disks = (0..1000).map(disk).collect::<Vec<String>>().concat();
    let found =
        description(&format!("<domain><devices>{disks}{disks}</devices></domain>")).unwrap();
    assert_eq!(found.disks.len(), 1000);
}

#[test]
fn what_is_no_guest_is_an_error() {
    assert!(
        matches!(description("<network/>"), Err(XmlError::NotADomain(name)) if name == "network")
    );
    assert!(matches!(description("<domain>"), Err(XmlError::Malformed(_))));
    assert!(matches!(description(""), Err(XmlError::Malformed(_))));
    let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><domain>&b;</domain>";
    assert!(matches!(description(bomb), Err(XmlError::Malformed(_))));
    let long = format!("<domain>{}</domain>", " ".repeat(XML_BYTES_MAX));
    assert!(matches!(description(&long), Err(XmlError::TooLong(_))));
    let many = format!("<domain>{}</domain>", "<a/>".repeat(NODES_MAX as usize));
    assert!(matches!(description(&many), Err(XmlError::Malformed(_))));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}", tail in "[<>/=a-z'\" ]{0,80}") {
        drop(description(&text));
        drop(description(&format!("<domain><metadata>{tail}")));
    }

    #[test]
    fn any_name_survives(name in "[^\\p{C}]{1,40}") {
        let escaped = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let nova = with_metadata(&format!(
            "<i:instance xmlns:i='http://openstack.org/xmlns/libvirt/nova/1.1'><i:name>{escaped}</i:name></i:instance>"
        )).nova.unwrap();
        let expected = name.trim();
        prop_assert_eq!(nova.instance_name.as_deref(), (!expected.is_empty()).then_some(expected));
    }
}
