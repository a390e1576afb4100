//! A store of this machine moves into a cluster and back: cut off and gone on with, while an adapter
//! works on the cluster, and after some of it has expired; and every sample and every bill as it was.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, wait_until_sealed};
use crate::adapter_process::{AdapterProcess, run};
use crate::libvirtd::wait_for;
use crate::load;

const DAY_MS: i64 = 86_400_000;
/// Between the ages of the senders that begin earlier and of all others.
const OLD_MS: i64 = 5 * DAY_MS;

impl Cluster {
    fn copy(&self, (from, to): (&str, &str), folder: &Path, progress: &Path) -> Command {
        self.copy_by(&[], (from, to), folder, progress)
    }

    /// With more flags before the word.
    fn copy_by(
        &self,
        flags: &[&str],
        (from, to): (&str, &str),
        folder: &Path,
        progress: &Path,
    ) -> Command {
        let mut command = self.command();
        command.args(flags).arg("--store.path").arg(folder);
        command.args(["copy", "--from", from, "--to", to, "--progress"]).arg(progress);
        command
    }

    fn on_disk(folder: &Path) -> AdapterProcess {
        AdapterProcess::start(&mut load::service(folder))
    }
}

#[test]
fn a_store_moves_into_a_cluster_and_back() {
    let Some(cluster) = Cluster::new("moved") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [first, back] = ["first", "back"].map(|name| folder.path().join(name));
    let progress = folder.path().join("progress.json");
    let mut senders = load::senders();
    let local = Cluster::on_disk(&first);
    load::run_for(&mut senders, local.address(), 300);
    wait_until_sealed(&local);
    // Some of it is not sealed, and some came late.
    load::run_for(&mut senders, local.address(), 60);
    load::check_everything(&local, &senders);
    local.stop();

    // Killed in the middle, and run again.
    let copy = |to| cluster.copy(("local", to), &first, &progress);
    let mut cut_off =
        copy("cassandra").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !progress.exists() && cut_off.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "no progress");
        std::thread::sleep(Duration::from_millis(5));
    }
    cut_off.kill().unwrap();
    cut_off.wait().unwrap();
    assert!(progress.exists(), "it was cut off");
    let refused = run(&mut cluster.copy(("cassandra", "local"), &first, &progress));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("it is of another copy"), "{said}");
    let copied = run(&mut copy("cassandra"));
    let said = String::from_utf8_lossy(&copied.stdout).into_owned();
    let log = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{said}{log}");
    assert!(said.contains("copied and compared; checksums series "), "{said}");
    assert!(!progress.exists());
    let again = run(&mut copy("cassandra"));
    assert_eq!(String::from_utf8_lossy(&again.stdout).lines().last(), said.lines().last());

    let in_cluster = cluster.adapter();
    load::check_everything(&in_cluster, &senders);
    load::run_for(&mut senders, in_cluster.address(), 60);
    wait_until_sealed(&in_cluster);
    load::check_everything(&in_cluster, &senders);
    in_cluster.stop();

    let copied = run(&mut cluster.copy(("cassandra", "local"), &back, &progress));
    let log = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{log}");
    let local = Cluster::on_disk(&back);
    load::check_everything(&local, &senders);
    wait_until_sealed(&local);
    load::check_everything(&local, &senders);
    local.stop();
    let refused = run(&mut cluster.copy(("local", "local"), &back, &progress));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the same store"));
}

/// Whatever is wrong with a copy is said before anything is made in the store that is to be written.
#[test]
fn a_copy_that_is_refused_leaves_nothing_behind() {
    let Some(cluster) = Cluster::new("untouched") else { return };
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    let progress = folder.path().join("progress.json");
    let mut senders = load::senders();
    let local = Cluster::on_disk(&first);
    load::run_for(&mut senders, local.address(), 20);
    local.stop();
    let copy = |flags: &[&str], progress: &Path| {
        cluster.copy_by(flags, ("local", "cassandra"), &first, progress)
    };
    let refused = |command: &mut Command| {
        let refused = run(command);
        assert!(!refused.status.success());
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let other_layout = refused(&mut copy(&["--row-key.labels=vm"], &progress));
    assert!(other_layout.contains("--row-key.labels is vm but the store"), "{other_layout}");
    let no_folder = refused(&mut copy(&[], &folder.path().join("missing/progress.json")));
    assert!(no_folder.contains("missing/progress.json"), "{no_folder}");
    assert!(!progress.exists());
    let mut adapter = crate::adapter_process::command();
    adapter.args(["--store=cassandra", "--cassandra.keyspace=untouched"]);
    let alone = refused(adapter.arg(format!("--cassandra.nodes={}", cluster.nodes)));
    assert!(alone.contains("untouched") && alone.contains("is missing; start once"), "{alone}");

    // Flags on the wrong side of the word.
    let behind = refused(copy(&[], &progress).arg("--cassandra.keyspace=k"));
    let line = behind.lines().next().unwrap();
    assert!(line.ends_with("found: it goes before the word copy"), "{behind}");
    let before = refused(crate::adapter_process::command().args(["--from=local", "copy"]));
    let line = before.lines().next().unwrap();
    assert!(line.ends_with("found: it goes behind the word copy"), "{before}");
}

/// After a copy there is more to be sealed again than others wait for.
fn wait_for_all_sealed(adapter: &AdapterProcess) {
    wait_for("everything sealed", 300, || {
        let status: Value = serde_json::from_str(adapter.get("/api/v1/status").text()).ok()?;
        let sealing = &status["sealing"];
        (sealing["lag_seconds"] == 0 && sealing["late_windows"] == 0).then_some(())
    });
}

/// Senders move to an adapter on the cluster first, and go on while what was before is copied from a
/// copy of the folder, beside which the first adapter still answers.
#[test]
fn a_store_is_copied_into_a_cluster_that_an_adapter_works_on() {
    let Some(cluster) = Cluster::new("switched") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [first, beside] = ["first", "beside"].map(|name| folder.path().join(name));
    let mut senders = load::senders();
    let local = Cluster::on_disk(&first);
    load::run_for(&mut senders, local.address(), 200);
    wait_until_sealed(&local);
    let in_cluster = cluster.adapter();
    load::run_on(&mut senders, &[local.address(), in_cluster.address()], 150);
    load::run_for(&mut senders, in_cluster.address(), 60);
    local.stop();
    let copied = Command::new("cp").arg("-a").args([&first, &beside]).status().unwrap();
    assert!(copied.success());
    let local = Cluster::on_disk(&first);

    let progress = folder.path().join("progress.json");
    let mut copy = cluster.copy(("local", "cassandra"), &beside, &progress);
    let mut copy = copy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while copy.try_wait().unwrap().is_none() {
        // Only one that hangs takes so long, also on a machine that has other work.
        assert!(begun.elapsed() < Duration::from_secs(300), "the copy does not end");
        load::run_for(&mut senders, in_cluster.address(), 20);
    }
    let copied = copy.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.success(), "{}{log}", String::from_utf8_lossy(&copied.stdout));
    local.stop();
    // At once, and once more when all is sealed.
    load::check_everything(&in_cluster, &senders);
    wait_for_all_sealed(&in_cluster);
    load::check_everything(&in_cluster, &senders);
    // What was copied is there, and stays.
    let again = run(&mut cluster.copy(("local", "cassandra"), &beside, &progress));
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    wait_for_all_sealed(&in_cluster);
    load::check_everything(&in_cluster, &senders);
    in_cluster.stop();
}

/// A disk drops whole months, and a cluster takes no row whose time is over.
#[test]
fn what_is_older_than_its_retention_is_left_out() {
    let Some(cluster) = Cluster::new("older") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [first, back] = ["first", "back"].map(|name| folder.path().join(name));
    let progress = folder.path().join("progress.json");
    let mut senders = load::senders();
    // Those of eight and nine days ago become twelve and thirteen days old.
    load::begin_earlier(&mut senders, OLD_MS, 4 * DAY_MS);
    let local = Cluster::on_disk(&first);
    load::run_for(&mut senders, local.address(), 300);
    wait_until_sealed(&local);
    local.stop();

    let kept = |mut command: Command| {
        command.env("KANYUN_RETENTION", "9d").env("KANYUN_LEDGER_RETENTION", "400d");
        command
    };
    let mut checksums = Vec::new();
    for (way, folder) in [(("local", "cassandra"), &first), (("cassandra", "local"), &back)] {
        let copied = run(&mut kept(cluster.copy(way, folder, &progress)));
        let said = String::from_utf8_lossy(&copied.stdout).into_owned();
        let log = String::from_utf8_lossy(&copied.stderr);
        assert!(copied.status.success(), "{said}{log}");
        checksums.push(said.lines().last().unwrap().to_owned());
    }
    assert_eq!(checksums[0], checksums[1]);
    let local = AdapterProcess::start(&mut kept(load::service(&back)));
    wait_until_sealed(&local);
    let older = load::older_than(&mut senders, OLD_MS);
    assert!(!older.is_empty() && !senders.is_empty());
    load::check_everything(&local, &senders);
    load::check_bills_alone(&local, &older);
    local.stop();
}
