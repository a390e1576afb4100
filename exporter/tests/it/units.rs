//! The units in examples/: as little right as they can have, and no program call that their filter forbids.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, Libvirtd, wait_for};
use crate::text::value;

/// systemd's own measure of what a service could do to its host, from 0 to 10.
const EXPOSURE_MAX: f64 = 1.5;
/// What libvirt's libnuma tries when it is loaded, and does without; the unit answers EPERM.
const REFUSED: &str = "set_mempolicy";

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "service")).collect()
}

#[test]
fn units_have_few_rights() {
    if libvirtd::on_path("systemd-analyze").is_none() {
        return libvirtd::skip("systemd-analyze is not installed");
    }
    let units = units();
    assert!(units.len() >= 3);
    for unit in units {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(["security", "--offline=true"]).arg(&unit).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.contains("Overall exposure level"));
        let level = line.and_then(|line| line.split(": ").nth(1)?.split(' ').next()?.parse().ok());
        let level: f64 = level.unwrap_or_else(|| panic!("{}: {said}", unit.display()));
        assert!(level <= EXPOSURE_MAX, "{}: {level}\n{said}", unit.display());
    }
}

/// The values of a key in a unit, all lines of it.
fn values(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(|line| line.split(' ').map(str::to_owned)).collect()
}

/// The calls of a set as systemd knows them, with the sets in it.
fn calls(set: &str) -> BTreeSet<String> {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["syscall-filter", set]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let words = said.lines().skip(1).map(str::trim).filter(|word| !word.starts_with('#'));
    let words = words.filter(|word| !word.is_empty());
    let found =
        words.flat_map(
            |word| {
                if word.starts_with('@') { calls(word) } else { [word.to_owned()].into() }
            },
        );
    found.collect()
}

/// What the exporter asks of the kernel while it serves guests is within its unit's filter, and so are the users that it
/// needs to see: start times come from processes of other users.
#[test]
fn the_exporter_keeps_to_its_units_filter() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    for program in ["systemd-analyze", "strace", "setpriv"] {
        if libvirtd::on_path(program).is_none() {
            return libvirtd::skip(&format!("{program} is not installed"));
        }
    }
    let unit = units().into_iter().find(|path| path.ends_with("kanyun-exporter.service")).unwrap();
    let unit = std::fs::read_to_string(unit).unwrap();
    assert_eq!(values(&unit, "ProtectProc"), [""; 0], "it would hide QEMU's processes");
    let mut allowed = BTreeSet::new();
    for set in values(&unit, "SystemCallFilter") {
        allowed.extend(calls(&set).into_iter().filter(|_| set.starts_with('@')));
    }
    let filters = values(&unit, "SystemCallFilter");
    let denied = filters.iter().skip_while(|set| !set.starts_with('~'));
    for set in denied {
        let denied = calls(set.trim_start_matches('~'));
        allowed.retain(|call| !denied.contains(call));
    }
    assert!(allowed.contains("read") && !allowed.contains("setuid"), "{allowed:?}");

    let libvirtd = Libvirtd::start();
    let guest = libvirtd.idle_guest(81);
    let log = libvirtd.folder.path().join("calls");
    // A user without any right, as DynamicUser gives one, who reaches libvirtd's read-only socket and /proc.
    let program = copy_for_all(&libvirtd);
    let mut command = Command::new("strace");
    // -D: the process that is ended is the exporter itself, and strace ends with it.
    command.args(["-D", "-f", "-qq", "-o"]).arg(&log);
    command.args(["-e", &format!("inject={REFUSED}:error=EPERM"), "setpriv"]);
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    command.args(["--no-new-privs", "--bounding-set=-all"]).arg(&program);
    command.arg("--libvirt.uri").arg(libvirtd.socket());
    command.arg("--libvirt.run-directory").arg(libvirtd.folder.path().join("run/qemu"));
    let exporter = Exporter::run(&mut command);
    wait_for("the guest's start time", 60, || {
        let page = exporter.scrape(10);
        value(&page, "libvirt_domain_start_time_seconds", &[&format!("domain=\"{guest}\"")])
    });
    let text = wait_for("strace's log", 60, || {
        let text = String::from_utf8_lossy(&std::fs::read(&log).ok()?).into_owned();
        text.contains("accept").then_some(text)
    });
    // From the exporter's own start on: setpriv is systemd's part.
    let began = format!("execve(\"{}\"", program.display());
    let (_, own) = text.split_once(&began).unwrap();
    let seen: BTreeSet<&str> = own.lines().filter_map(call).collect();
    assert!(seen.contains("read") && seen.contains("connect"), "{seen:?}");
    assert_eq!(values(&unit, "SystemCallErrorNumber"), ["EPERM"]);
    let beyond = seen.iter().filter(|call| !allowed.contains(**call) && **call != REFUSED);
    let beyond: Vec<_> = beyond.collect();
    assert!(beyond.is_empty(), "not in the unit's filter: {beyond:?}");
}

/// `1234 read(3, …` and `1234 <... read resumed>` and `1234 +++ exited` are lines of strace.
fn call(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let name = rest.trim_start().split('(').next()?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && !name.is_empty() && rest.contains('(')).then_some(name)
}

/// The exporter and its folders, where a user without rights reaches them.
fn copy_for_all(libvirtd: &Libvirtd) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = libvirtd.folder.path();
    let program = folder.join("kanyun-exporter");
    std::fs::copy(env!("CARGO_BIN_EXE_kanyun-exporter"), &program).unwrap();
    for path in
        [folder, &folder.join("run"), &folder.join("run/qemu"), &folder.join("sock"), &program]
    {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    program
}

/// A host with one daemon for each driver: with no socket named, libvirt finds virtqemud's, and a socket of libvirtd's
/// that is not there leads to it.
#[test]
fn modular_daemons_are_found() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let libvirtd = Libvirtd::start();
    let guest = libvirtd.idle_guest(82);
    // Debian 12 has no virtqemud; its socket speaks libvirtd's language.
    let sockets = libvirtd.folder.path().join("run");
    std::os::unix::fs::symlink(libvirtd.socket(), sockets.join("virtqemud-sock-ro")).unwrap();
    let pid = std::fs::read_to_string(libvirtd.folder.path().join("libvirtd.pid")).unwrap();
    for flags in [
        &[][..],
        &["--libvirt.uri=/run/libvirt/libvirt-sock-ro"],
        &["--libvirt.uri=qemu+unix:///system"],
    ] {
        let mut command = Command::new("nsenter");
        command.args(["-t", pid.trim(), "-m"]).arg(env!("CARGO_BIN_EXE_kanyun-exporter"));
        let exporter = Exporter::run(command.args(flags));
        let page = wait_for("the guest", 60, || {
            let page = exporter.scrape(10);
            value(&page, "libvirt_domain_timed_out", &[&format!("domain=\"{guest}\"")])
                .map(|_| page)
        });
        assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0), "{flags:?}");
        let start = value(&page, "libvirt_domain_start_time_seconds", &[]);
        assert!(start.is_some(), "{flags:?} is this machine");
    }
}
