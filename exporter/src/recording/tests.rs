//! Recordings come back as they were, and anonymous ones say nothing of whom they were made of.

use super::*;

const UUID: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";
const PORT: &str = "5e5e5e5e-12ab-4000-8000-0123456789ab";

fn recording() -> Recording {
    let text = |text: &str| Param::Text(text.to_owned());
    let record = |params: Vec<(&str, Param)>| Record {
        name: "secret-guest".to_owned(),
        uuid: UUID.to_owned(),
        id: Some(7),
        params: params.into_iter().map(|(field, value)| (field.to_owned(), value)).collect(),
    };
    let basic = record(vec![
        ("state.state", Param::Whole(1)),
        ("net.0.name", text("tap5e5e5e5e-12")),
        ("net.0.rx.bytes", Param::Whole(u64::MAX)),
    ]);
    let detail = record(vec![
        ("balloon.rss", Param::Whole(1)),
        ("block.0.name", text("vda")),
        ("block.0.path", text("/secret/path.qcow2")),
        ("block.0.wr.bytes", Param::Whole(9_007_199_254_740_993)),
        ("vcpu.0.state", Param::Whole(1)),
        ("odd", Param::Other),
    ]);
    let mut guest = Guest::from(record(vec![("vcpu.0.state", Param::Whole(1))]));
    guest.start_time_seconds = Some(1_795_235_492.72);
    guest.job = Some(Job { kind: 2, fields: vec![("time_elapsed".to_owned(), 1500)] });
    guest.vcpus.each[0].host_cpu = Some(3);
    let xml = format!(
        "<domain type='kvm'><name>secret-guest</name><uuid>{UUID}</uuid><description>secret</description>\
         <metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'><n:name>12345</n:name>\
         <n:flavor name='secret.small'><n:vcpus>2</n:vcpus></n:flavor>\
         <n:owner><n:user uuid='70070070-0000-4000-8000-000000000001'>secret &lt;user&gt;</n:user></n:owner>\
         <n:ports><n:port uuid='{PORT}'><n:ip type='fixed' address='203.0.113.9' ipVersion='4'/></n:port></n:ports>\
         </n:instance><s:x xmlns:s='http://secret.example'><s:y>secret</s:y></s:x></metadata><!-- secret -->\
         <memory unit='KiB'>131072</memory><os><type arch='x86_64' machine='q35'>hvm</type><cmdline>secret=1</cmdline></os>\
         <cputune><vcpupin vcpu='0' cpuset='0-3,^2'/></cputune><devices>\
         <disk type='network'><driver name='qemu' type='raw' cache='none'/>\
         <source protocol='rbd' name='secretpool/volume-{UUID}'><host name='ceph.secret' port='6789'/></source>\
         <target dev='vda' bus='virtio'/></disk>\
         <disk type='block'><target dev='sdb'/><serial>40440440</serial><wwn>5550555055505550</wwn></disk>\
         <interface type='bridge'><mac address='fa:16:3e:11:22:33'/><source bridge='br-secret'/>\
         <target dev='tap5e5e5e5e-12'/><model type='virtio'/></interface>\
         <interface type='bridge'><mac address='fa:16:3e:11:22:34'/><source bridge='sr7'/>\
         <target dev='sdsrv'/></interface></devices>\
         <sysinfo type='smbios'><system><entry name='serial'>60660660</entry></system></sysinfo></domain>"
    );
    let takes = Takes {
        basic: vec![basic],
        details: vec![detail],
        guests: vec![guest],
        xml: BTreeMap::from([(UUID.to_owned(), xml)]),
        pools: vec![Pool { name: "secret-pool".to_owned(), state: Some(2), ..Pool::default() }],
    };
    let host = Host { hostname: Some("secret-host".to_owned()), cpus: Some(2), ..Host::default() };
    Recording::new(1_795_235_500_000, host, takes)
}

fn read_back(text: &str) -> Result<Recording, RecordingError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Recording::read(file.path())
}

#[test]
fn a_recording_comes_back_as_it_was() {
    let recording = recording();
    let back = read_back(&recording.text().unwrap()).unwrap();
    assert_eq!(back, recording);
    let snapshot = back.snapshot();
    let guest = &snapshot.guests.as_ref().unwrap()[0];
    assert_eq!(guest.interfaces[0].receive_bytes, Some(u64::MAX));
    assert_eq!(guest.blocks[0].write_bytes, Some(9_007_199_254_740_993));
    assert_eq!(guest.vcpus.each[0].host_cpu, Some(3));
    assert_eq!(guest.job.as_ref().unwrap().field("time_elapsed"), Some(1500));
    assert_eq!(guest.start_time_seconds, Some(1_795_235_492.72));
    assert!(!guest.timed_out);
    let nova = guest.description.as_ref().unwrap().nova.as_ref().unwrap();
    assert_eq!(nova.instance_name.as_deref(), Some("12345"));
}

#[test]
fn an_anonymous_recording_says_nothing_of_whom_it_was_made() {
    let open = recording();
    let recording = recording().anonymised();
    let text = recording.text().unwrap();
    for secret in
        ["secret", UUID, PORT, "12345", "203.0.113", "fa:16", "70070070", "5e5e5e5e", "0a1b2c3d"]
            .into_iter()
            .chain(["40440440", "5550555055505550", "60660660", "\"sr7\\\"", "sdsrv"])
    {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let (open, hidden) = (open.snapshot(), recording.snapshot());
    let of = |snapshot: &Snapshot| snapshot.guests.as_ref().unwrap()[0].clone();
    let (open, hidden) = (of(&open), of(&hidden));
    assert_eq!(hidden.blocks, open.blocks);
    assert_eq!(hidden.vcpus, open.vcpus);
    let text = hidden.description.unwrap();
    assert_eq!(text.os_machine.as_deref(), Some("q35"));
    assert_eq!(text.cpu_tune, open.description.as_ref().unwrap().cpu_tune);
    assert_eq!(text.disks[0].device, "vda");
    assert_eq!(text.disks[0].driver_cache.as_deref(), Some("none"));
    assert!(text.disks[0].volume_id.is_some() && text.disks[0].pool.is_some());
    // What belonged together still does.
    assert_eq!(text.nics[0].device, hidden.interfaces[0].device);
    assert_eq!(text.nics[0].port_id.as_ref(), text.nova.as_ref().unwrap().port_ids.first());
    assert!(text.nics[0].port_id.is_some());
    assert_eq!(text.disks[0].volume_id.as_deref(), Some(hidden.uuid.as_str()));
}

/// XML that cannot be made anonymous is left out.
#[test]
fn xml_that_nests_without_end_is_not_followed() {
    let mut open = recording();
    let deep = format!("{}{}", "<a>".repeat(60_000), "</a>".repeat(60_000));
    open.guests[0].xml = Some(format!("<domain><name>g</name>{deep}</domain>"));
    assert_eq!(open.anonymised().guests[0].xml, None);
}

#[test]
fn what_is_no_recording_is_refused() {
    let text = recording().text().unwrap();
    let error = |text: &str| read_back(text).unwrap_err().to_string();
    assert!(error("").contains("is not a recording"));
    assert!(error(text.split_at(text.len() / 2).0).contains("is not a recording"));
    assert!(error(&text.replace("\"recorded_at_ms\"", "\"other\"")).contains("is not a recording"));
    let newer = text.replace("\"kanyun_recording\": 1", "\"kanyun_recording\": 2");
    assert!(error(&newer).contains("format 2"));
    let nowhere = Recording::read(Path::new("/nonexistent/recording")).unwrap_err();
    assert!(nowhere.to_string().contains("cannot be read"));
}
