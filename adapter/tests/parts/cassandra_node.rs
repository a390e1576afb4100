//! Real Cassandra nodes on free loopback ports: one for all tests of a process, started by the first
//! that asks and stopped with the process, and clusters and nodes with settings of their own.
//! Included by `#[path]` where it is needed; knows no schema.
#![allow(dead_code, reason = "each of those that include it uses a part")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// How long a node may take to start on a busy machine.
const START_MAX: Duration = Duration::from_mins(3);

/// How long the threads of a node may take to stop on a busy machine.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Enough for the hundreds of tables of tests that share a node, and small enough for several nodes.
const HEAP: &str = "1G";

/// Runs the node, says its process id, and stops it once our end of its standard input is closed:
/// that happens however the test process ends, a panic or a signal included.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >"$folder/out" 2>&1 </dev/null &
echo $!
cat >/dev/null
kill -KILL $! 2>/dev/null
wait $! 2>/dev/null
rm -rf "$folder"
"#;

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Host and CQL port.
    pub(crate) address: String,
    /// The process id of the node itself.
    pub(crate) process: u32,
    folder: PathBuf,
    keeper: Child,
}

/// What a node is to be like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// 127.0.0.1, or another for a further node of a cluster.
    pub(crate) host: Ipv4Addr,
    /// CQL, storage and JMX.
    pub(crate) ports: [u16; 3],
    /// Lines behind those of every node's cassandra.yaml.
    pub(crate) yaml: String,
    /// Where its data stay when it ends; without it they go, and it cannot be started again.
    pub(crate) folder: Option<PathBuf>,
    /// Of its JVM, as `-Xmx` takes it.
    pub(crate) heap: &'static str,
    /// Where there are several.
    pub(crate) datacenter: Option<&'static str>,
}

impl Plan {
    /// A node by itself.
    pub(crate) fn alone() -> Plan {
        let (host, yaml) = (Ipv4Addr::LOCALHOST, String::new());
        Plan { host, ports: free_ports(), yaml, folder: None, heap: HEAP, datacenter: None }
    }
}

/// The node of this process; `None`, after saying why, where none can run here. With
/// `KANYUN_REQUIRE_ALL=1` that is a failure.
pub(crate) async fn shared() -> Option<&'static Node> {
    static NODE: OnceCell<Option<Node>> = OnceCell::const_new();
    NODE.get_or_init(|| Node::start(Plan::alone())).await.as_ref()
}

impl Node {
    /// Starts a node and waits until it answers.
    pub(crate) async fn start(plan: Plan) -> Option<Node> {
        let lib = match parts() {
            Ok(lib) => lib,
            Err(reason) => {
                assert!(env("KANYUN_REQUIRE_ALL").as_deref() != Some("1"), "{reason}");
                println!("skipped: {reason}");
                return None;
            }
        };
        let folder = tempfile::Builder::new().prefix("kanyun-cassandra-").tempdir().unwrap().keep();
        let data = plan.folder.clone().unwrap_or_else(|| folder.join("node"));
        let yaml = folder.join("more.yaml");
        std::fs::write(&yaml, &plan.yaml).unwrap();
        let host = plan.host.to_string();
        let mut keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .arg(launcher())
            .arg(&lib)
            .arg(data)
            .args([&*host, plan.heap])
            .args(plan.ports.map(|port| port.to_string()))
            .env("KANYUN_CASSANDRA_YAML", yaml)
            .env("KANYUN_CASSANDRA_FLEETING", if plan.folder.is_none() { "1" } else { "0" })
            .env("KANYUN_CASSANDRA_DATACENTER", plan.datacenter.unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut process = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut process).unwrap();
        let process = process.trim().parse().unwrap();
        let node = Node { address: format!("{host}:{}", plan.ports[0]), process, folder, keeper };
        node.wait().await;
        Some(node)
    }

    /// SIGKILL, as a machine that loses its power: the node can do nothing more.
    pub(crate) fn kill(self) {
        self.signal("KILL");
    }

    async fn wait(&self) {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(&self.address).is_err() {
            let is_running = Path::new(&format!("/proc/{}", self.process)).exists();
            assert!(is_running && Instant::now() < deadline, "no node came up: {}", self.words());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of what the node printed and logged.
    fn words(&self) -> String {
        let files = [self.folder.join("out"), self.folder.join("node/system.log")];
        let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default());
        let ends = texts.map(|text| text.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
        ends.collect::<Vec<_>>().join("\n")
    }

    /// Stops the node as it stands. The signal is sent at once, but on a busy machine its threads
    /// go on for a while: this waits until the last has stopped.
    pub(crate) async fn pause(&self) {
        self.signal("STOP");
        let deadline = Instant::now() + STOP_MAX;
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "the node goes on after SIGSTOP");
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Lets a paused node go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.process.to_string()).status();
        assert!(sent.unwrap().success(), "kill -{name}");
    }

    /// Whether every thread is in state `T` of proc(5).
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process)).unwrap();
        threads.filter_map(Result::ok).all(|thread| {
            // A thread may end between the two reads.
            std::fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| {
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            })
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Closing its input ends the keeper, and with it the node.
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// What a node needs: the folder of Cassandra's jars; or why it cannot run.
fn parts() -> Result<PathBuf, String> {
    let Some(lib) = env("KANYUN_CASSANDRA_LIB") else {
        return Err("KANYUN_CASSANDRA_LIB does not name a folder with Cassandra's jars; \
                    `scripts/tools install cassandra` makes one"
            .to_owned());
    };
    let java = env("KANYUN_JAVA").unwrap_or_else(|| "java".to_owned());
    let version = Command::new(&java).arg("-version").stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        return Err(format!("{java} does not run; Cassandra needs Java 11 or 17"));
    }
    Ok(lib.into())
}

fn launcher() -> PathBuf {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/parts");
    let parts = env("KANYUN_PARTS").unwrap_or_else(|| ours.to_owned());
    Path::new(&parts).join("cassandra-node")
}

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment what is here")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Ports that nobody listened on a moment ago, all different.
pub(crate) fn free_ports() -> [u16; 3] {
    let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
