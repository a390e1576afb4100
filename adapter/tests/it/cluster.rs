//! Several adapters on one cluster: any mix of writes and reads, sealing that is shared, an adapter
//! that dies and one that sleeps past its lease, and one that would arrange rows otherwise.

mod copy;
mod datacenters;
mod nodes;

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::adapter_process::{AdapterProcess, command, now_ms};
use crate::cassandra_node;
use crate::load;
use crate::power_loss::dice::Dice;

/// A third of it is how often a lease is renewed: no less than a busy node takes to answer.
const LEASE: Duration = Duration::from_secs(6);

/// Where a cluster answers, and a keyspace of a test's own in it.
struct Cluster {
    nodes: String,
    keyspace: &'static str,
}

impl Cluster {
    fn new(keyspace: &'static str) -> Option<Cluster> {
        let node = wait_for(cassandra_node::shared())?;
        Some(Cluster { nodes: node.address.clone(), keyspace })
    }

    fn command(&self) -> Command {
        let mut command = self.plain_command();
        load::sealing_at_once(&mut command);
        command
    }

    fn plain_command(&self) -> Command {
        let mut command = command();
        command.args(["--store=cassandra", "--cassandra.create-schema"]);
        command.arg(format!("--cassandra.nodes={}", self.nodes));
        command.arg(format!("--cassandra.keyspace={}", self.keyspace));
        command.arg(format!("--seal.lease={}s", LEASE.as_secs()));
        command
    }

    fn adapter(&self) -> AdapterProcess {
        AdapterProcess::start(&mut self.command())
    }
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn metric(adapter: &AdapterProcess, name: &str) -> u64 {
    let page = adapter.get("/metrics");
    let line = page.text().lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{}", page.text()));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn wait_until_sealed(adapter: &AdapterProcess) {
    adapter.wait_for("everything sealed", || {
        let status: Value = serde_json::from_str(adapter.get("/api/v1/status").text()).unwrap();
        let sealing = &status["sealing"];
        sealing["lag_seconds"] == 0 && sealing["late_windows"] == 0
    });
}

const SHARDS: &str = "kanyun_adapter_seal_shards";

fn wait_for_shards(adapter: &AdapterProcess, shards: u64) {
    adapter.wait_for("shards", || metric(adapter, SHARDS) == shards);
}

#[test]
fn adapters_share_writes_reads_and_sealing() {
    let Some(cluster) = Cluster::new("shared") else { return };
    let mut senders = load::senders();
    let (one, other) = (cluster.adapter(), cluster.adapter());
    wait_for_shards(&one, 8);
    wait_for_shards(&other, 8);
    load::run_on(&mut senders, &[one.address(), other.address()], 150);
    load::check_everything(&other, &senders);
    senders.rotate_left(1);
    load::run_on(&mut senders, &[one.address(), other.address()], 150);
    load::check_everything(&one, &senders);
    wait_until_sealed(&one);
    for adapter in [&one, &other] {
        assert!(metric(adapter, "kanyun_adapter_sealed_windows_total") > 0, "both seal");
        load::check_everything(adapter, &senders);
    }

    // One that knows nothing, while the others go on; it takes its share when it hears of them.
    let cold = cluster.adapter();
    load::check_everything(&cold, &senders);
    load::run_on(&mut senders, &[cold.address(), other.address(), one.address()], 100);
    load::check_everything(&cold, &senders);

    let refused = AdapterProcess::try_start(cluster.command().arg("--row-key.labels=vm"));
    let (status, log) = refused.expect_err("another layout");
    assert!(!status.success());
    assert!(log.contains("--row-key.labels is vm but the store was made with uuid"), "{log}");
    let refused = AdapterProcess::try_start(cluster.plain_command().arg("--seal.window=4h"));
    let (_, log) = refused.expect_err("another layout");
    assert!(log.contains("seal window in seconds: 14400 here, 3600 in the store"), "{log}");

    // One dies in the middle of its work, and the others do it.
    load::run_on(&mut senders, &[one.address(), other.address()], 60);
    one.kill();
    load::run_on(&mut senders, &[cold.address(), other.address()], 60);
    wait_until_sealed(&other);
    wait_for_shards(&other, 8);
    wait_for_shards(&cold, 8);
    for adapter in [&cold, &other] {
        load::check_everything(adapter, &senders);
    }
    cold.stop();
    other.stop();
}

/// SIGSTOP at any moment of a sealer's work, for longer than its lease: what it had read before and
/// writes afterwards changes no sample and no bill.
#[test]
fn an_adapter_that_slept_past_its_lease_changes_nothing() {
    let Some(cluster) = Cluster::new("sleeping") else { return };
    let rounds = match std::env::var("KANYUN_SLEEPS") {
        Ok(rounds) => rounds.parse().expect("KANYUN_SLEEPS is a number"),
        Err(_) => 2,
    };
    let seed = now_ms().cast_unsigned();
    println!("seed {seed}, {rounds} rounds");
    let mut dice = Dice::new(seed);
    let mut senders = load::senders();
    let (sleeper, other) = (cluster.adapter(), cluster.adapter());
    for _ in 0..rounds {
        wait_for_shards(&sleeper, 8);
        load::run_on(&mut senders, &[sleeper.address(), other.address()], 60 + dice.below(60));
        std::thread::sleep(Duration::from_millis(dice.below(400)));
        sleeper.signal("STOP");
        load::run_on(&mut senders, &[other.address()], 60);
        wait_for_shards(&other, 16);
        wait_until_sealed(&other);
        load::check_everything(&other, &senders);
        sleeper.signal("CONT");
        wait_for_shards(&sleeper, 8);
        wait_until_sealed(&other);
        load::check_everything(&other, &senders);
        load::check_everything(&sleeper, &senders);
    }
}
