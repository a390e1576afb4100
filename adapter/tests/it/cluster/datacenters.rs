//! A cluster of two datacenters, of which adapters use one: it works as one of one does, also while the
//! other is down; and adapters that each use another do not work beside each other.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Cluster, wait_for, wait_until_sealed};
use crate::adapter_process::AdapterProcess;
use crate::cassandra_node::{Node, Plan, free_ports};
use crate::load;

/// For how long a process that is not heard of is counted, on a busy machine.
const START_MAX: Duration = Duration::from_mins(3);

const NAMES: [&str; 2] = ["east", "west"];

/// A node in each, and a keyspace with a copy in both.
struct Datacenters {
    nodes: [Node; 2],
    keyspace: &'static str,
}

impl Datacenters {
    fn start(keyspace: &'static str) -> Option<Datacenters> {
        let ports = free_ports();
        let plan = |number: u8| Plan {
            host: Ipv4Addr::new(127, 0, 0, number),
            ports: if number == 1 { ports } else { [ports[0], ports[1], free_ports()[2]] },
            datacenter: Some(NAMES[usize::from(number) - 1]),
            heap: "512M",
            ..Plan::alone()
        };
        let nodes = [wait_for(Node::start(plan(1)))?, wait_for(Node::start(plan(2)))?];
        Some(Datacenters { nodes, keyspace })
    }

    /// An adapter that asks the node of one datacenter first.
    fn beside(&self, node: usize) -> Command {
        let nodes = self.nodes[node].address.clone();
        let mut command = Cluster { nodes, keyspace: self.keyspace }.command();
        command.arg("--cassandra.replication");
        command.arg("{'class': 'NetworkTopologyStrategy', 'east': 1, 'west': 1}");
        command
    }

    /// And uses that one alone.
    fn of(&self, name: &str) -> Command {
        let node = NAMES.iter().position(|one| *one == name).unwrap();
        let mut command = self.beside(node);
        command.arg(format!("--cassandra.datacenter={name}"));
        command
    }
}

fn refused(command: &mut Command) -> String {
    let (status, log) = AdapterProcess::try_start(command).expect_err("it starts");
    assert!(!status.success());
    log
}

/// What an adapter says that it waits for.
fn trouble(adapter: &AdapterProcess) -> Option<String> {
    let ready = adapter.get("/-/ready");
    (ready.status == 503).then(|| ready.text().to_owned())
}

#[test]
fn adapters_use_one_datacenter_and_know_of_those_that_use_another() {
    let Some(datacenters) = Datacenters::start("both") else { return };
    let unnamed = refused(&mut datacenters.beside(0));
    assert!(unnamed.contains("the cluster has the datacenters east, west"), "{unnamed}");
    let mut senders = load::senders();
    let east = AdapterProcess::start(&mut datacenters.of("east"));
    let also_east = AdapterProcess::start(&mut datacenters.of("east"));
    load::run_on(&mut senders, &[east.address(), also_east.address()], 150);

    // Who would count the other's replicas does not start, and disturbs nobody.
    let log = refused(&mut datacenters.of("west"));
    assert!(log.contains("counts the replicas of the datacenter east"), "{log}");
    assert!(log.contains("this adapter those of the datacenter west"), "{log}");
    let mut of_all = datacenters.of("east");
    let log = refused(of_all.arg("--cassandra.consistency=quorum"));
    assert!(log.contains("this adapter those of all datacenters"), "{log}");
    assert_eq!((trouble(&east), trouble(&also_east)), (None, None));
    also_east.stop();

    // The other datacenter is gone: this one does not need it.
    wait_for(datacenters.nodes[1].pause());
    load::run_on(&mut senders, &[east.address()], 100);
    wait_until_sealed(&east);
    load::check_everything(&east, &senders);
    datacenters.nodes[1].resume();
    wait_until_sealed(&east);

    // The two are parted for so long that one in the west hears of none in the east, and are joined.
    wait_for(datacenters.nodes[0].pause());
    let west = started_in_time(&mut datacenters.of("west"));
    datacenters.nodes[0].resume();
    for (adapter, other) in [(&east, "west"), (&west, "east")] {
        let words = format!("counts the replicas of the datacenter {other}");
        adapter.wait_for("trouble", || trouble(adapter).is_some_and(|why| why.contains(&words)));
    }
    let refused = load::run_while(&mut senders, &[east.address(), west.address()], |_| true);
    assert_eq!(refused.len(), senders.len());
    for answer in refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("counts the replicas of"), "{answer:?}");
    }
    west.stop();
    east.wait_for("ready", || trouble(&east).is_none());
    load::run_on(&mut senders, &[east.address()], 60);
    wait_until_sealed(&east);
    load::check_everything(&east, &senders);

    // When the last has said that it stops, the other datacenter may be used.
    east.stop();
    started_in_time(&mut datacenters.of("west")).stop();
}

/// Tries again while others are still counted.
fn started_in_time(command: &mut Command) -> AdapterProcess {
    let begun = Instant::now();
    loop {
        match AdapterProcess::try_start(command) {
            Ok(adapter) => return adapter,
            Err((_, log)) => assert!(
                log.contains("counts the replicas of") && begun.elapsed() < START_MAX,
                "{log}"
            ),
        }
    }
}
