//! Three nodes at RF 3, stopped and killed under load: one costs nobody anything, of two nothing is
//! acknowledged any more, and when they are back everything that was is read by most replicas.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Instant;

use super::{Cluster, wait_for, wait_until_sealed};
use crate::adapter_process::{AdapterProcess, now_ms};
use crate::cassandra_node::{Node, Plan, free_ports};
use crate::load::{self, Sender};
use crate::power_loss::dice::Dice;

/// Nodes at 127.0.0.1 to 127.0.0.3; a slot is empty while its node is down.
struct Nodes {
    plans: Vec<Plan>,
    running: Vec<Mutex<Option<Node>>>,
    folder: tempfile::TempDir,
}

impl Nodes {
    fn start() -> Option<Nodes> {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports();
        let mut nodes = Nodes { plans: Vec::new(), running: Vec::new(), folder };
        for number in 1..=3_u8 {
            let host = Ipv4Addr::new(127, 0, 0, number);
            // JMX listens on all addresses, whatever the node's own.
            let ports = if number == 1 { ports } else { [ports[0], ports[1], free_ports()[2]] };
            let folder = Some(nodes.folder.path().join(number.to_string()));
            let plan = Plan { host, ports, folder, ..Plan::alone() };
            nodes.running.push(Mutex::new(Some(wait_for(Node::start(plan.clone()))?)));
            nodes.plans.push(plan);
        }
        Some(nodes)
    }

    fn addresses(&self) -> String {
        let address = |plan: &Plan| format!("{}:{}", plan.host, plan.ports[0]);
        self.plans.iter().map(address).collect::<Vec<_>>().join(",")
    }

    /// kill -9.
    fn kill(&self, number: usize) {
        self.running[number].lock().unwrap().take().unwrap().kill();
    }

    /// SIGSTOP, until the end of `while_stopped`: the node is there and answers nothing.
    fn hang(&self, number: usize, while_stopped: impl FnOnce()) {
        let slot = self.running[number].lock().unwrap();
        let node = slot.as_ref().unwrap();
        wait_for(node.pause());
        while_stopped();
        node.resume();
    }

    /// Starts those that are down again, on their own data.
    fn start_again(&self) {
        for (plan, slot) in self.plans.iter().zip(&self.running) {
            let mut slot = slot.lock().unwrap();
            if slot.is_none() {
                *slot = wait_for(Node::start(plan.clone()));
            }
        }
    }
}

fn wait_until_connected(adapter: &AdapterProcess, nodes: usize) {
    adapter.wait_for("nodes", || {
        let page = adapter.get("/metrics");
        let connected = page.text().lines().filter(|line| {
            line.starts_with("kanyun_adapter_cluster_node_connected{") && line.ends_with(" 1")
        });
        connected.count() == nodes
    });
}

#[test]
fn nodes_that_die_cost_nothing_that_was_acknowledged() {
    let Some(nodes) = Nodes::start() else { return };
    let cluster = Cluster { nodes: nodes.addresses(), keyspace: "three" };
    let rounds = match std::env::var("KANYUN_NODE_KILLS") {
        Ok(rounds) => rounds.parse().expect("KANYUN_NODE_KILLS is a number"),
        Err(_) => 1,
    };
    let seed = now_ms().cast_unsigned();
    println!("seed {seed}, {rounds} rounds");
    let mut dice = Dice::new(seed);
    let mut senders = load::senders();
    let adapters = [cluster.adapter(), cluster.adapter()];
    // The node that the driver asks may hear of the others later than these answer.
    for adapter in &adapters {
        wait_until_connected(adapter, 3);
    }
    for _ in 0..rounds {
        let first = dice.below(3) as usize;
        let second = (first + 1 + dice.below(2) as usize) % 3;
        one_hangs(&nodes, second, &adapters, &mut senders);
        one_starts_beside_one_that_hangs(&nodes, first, &cluster, &mut senders);
        one_dies(&nodes, first, &adapters, &mut senders);
        two_are_dead(&nodes, second, &adapters, &mut senders);
        nodes.start_again();
        for adapter in &adapters {
            wait_until_connected(adapter, 3);
        }
        let addresses = adapters.each_ref().map(AdapterProcess::address);
        load::run_on(&mut senders, &addresses, 60);
        wait_until_sealed(&adapters[0]);
        for adapter in &adapters {
            load::check_everything(adapter, &senders);
        }
    }
}

/// Long before anybody gives the node up: no request is refused.
fn one_hangs(nodes: &Nodes, number: usize, adapters: &[AdapterProcess; 2], senders: &mut [Sender]) {
    let addresses = adapters.each_ref().map(AdapterProcess::address);
    nodes.hang(number, || {
        let refused = load::run_while(senders, &addresses, |acknowledged| acknowledged < 40);
        let logs = || adapters.each_ref().map(AdapterProcess::log).join("\n");
        assert!(refused.is_empty(), "{refused:?}\n{}", logs());
        for adapter in adapters {
            let ready = adapter.get("/-/ready");
            assert_eq!(ready.status, 200, "{}", ready.text());
        }
    });
    // Or it was silent before, and has been asked last since: then that was counted.
    assert!(adapters.iter().map(silences).sum::<u64>() > 0, "nobody was asked in its place");
}

/// An adapter that starts meanwhile waits for no longer than it takes to give the node up.
fn one_starts_beside_one_that_hangs(
    nodes: &Nodes,
    number: usize,
    cluster: &Cluster,
    senders: &mut [Sender],
) {
    nodes.hang(number, || {
        let started = Instant::now();
        let adapter = cluster.adapter();
        eprintln!("an adapter beside a node that hangs: there after {:.1?}", started.elapsed());
        let refused =
            load::run_while(senders, &[adapter.address()], |acknowledged| acknowledged < 40);
        assert!(refused.is_empty(), "{refused:?}\n{}", adapter.log());
        adapter.stop();
    });
}

/// How often another node was asked as well because one did not answer.
fn silences(adapter: &AdapterProcess) -> u64 {
    let page = adapter.get("/metrics");
    let of_nodes = page
        .text()
        .lines()
        .filter(|line| line.starts_with("kanyun_adapter_cluster_speculative_requests_total{"));
    of_nodes.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// In the middle of the load, which goes on: no request is refused.
fn one_dies(nodes: &Nodes, number: usize, adapters: &[AdapterProcess; 2], senders: &mut [Sender]) {
    let addresses = adapters.each_ref().map(AdapterProcess::address);
    let refused = load::run_while(senders, &addresses, |acknowledged| {
        if acknowledged == 60 {
            nodes.kill(number);
        }
        acknowledged < 200
    });
    assert!(refused.is_empty(), "{refused:?}");
    for adapter in adapters {
        load::check_everything(adapter, senders);
    }
}

/// Nothing is acknowledged, and the adapters say that they are not ready.
fn two_are_dead(
    nodes: &Nodes,
    number: usize,
    adapters: &[AdapterProcess; 2],
    senders: &mut [Sender],
) {
    nodes.kill(number);
    for adapter in adapters {
        // Nobody has written since: it is the nodes that are looked at.
        adapter.wait_for("not ready", || adapter.get("/-/ready").status == 503);
        assert!(adapter.get("/-/ready").text().contains("too few replicas"));
    }
    let addresses = adapters.each_ref().map(AdapterProcess::address);
    let before: Vec<u64> = senders.iter().map(|sender| sender.next).collect();
    let refused = load::run_while(senders, &addresses, |_| true);
    assert_eq!(refused.len(), senders.len(), "each is refused");
    for answer in refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        // Whichever of the two deadlines is met first: the statement's, or that of all that it waited for.
        let text = answer.text();
        let is_told = text.contains("in Cassandra") || text.contains("did not finish the commit");
        assert!(is_told, "{answer:?}");
    }
    let after: Vec<u64> = senders.iter().map(|sender| sender.next).collect();
    assert_eq!(before, after, "nothing is acknowledged");
    for sender in senders {
        // Any part of what was refused may be stored.
        sender.unanswered = true;
    }
    for adapter in adapters {
        assert_eq!(adapter.get("/-/ready").status, 503);
    }
}
