//! A store of this machine moves into a cluster and back: cut off and gone on with, and every sample
//! and every bill as it was.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Cluster, wait_until_sealed};
use crate::adapter_process::{AdapterProcess, run};
use crate::load;

impl Cluster {
    fn copy(&self, (from, to): (&str, &str), folder: &Path, progress: &Path) -> Command {
        let mut command = self.command();
        command.arg("--store.path").arg(folder);
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
