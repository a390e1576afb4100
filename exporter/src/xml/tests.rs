//! Guests' XML as nova and libvirt write it, and as nobody should.

use proptest::prelude::*;

use super::*;

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
