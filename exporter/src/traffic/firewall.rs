//! Talks to the host's firewall by its own programs, or reads what a helper prints of it on a socket, with a deadline and
//! bounded output: a program that hangs is killed, and never holds a scrape. The only file that starts programs.

use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use super::iptables::{self, IptablesError};
use super::nftables::{self, NftablesError};
use super::plan::{self, Plan, Wanted};
use super::sight::{self, Network};
use super::{Found, counted};
use crate::config::{FirewallKind, TrafficFlags};
use crate::snapshot::Traffic;

/// Most that a program may print: some hundred thousand rules.
const OUTPUT_BYTES_MAX: u64 = 32 << 20;
/// Of its complaints.
const ERROR_BYTES_MAX: u64 = 4 << 10;
/// How often a lock that another holds is asked for.
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Where programs are looked for, whatever the environment says.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a firewall was not read or changed.
#[derive(Debug, Error)]
pub(crate) enum FirewallError {
    /// The program is not there, or may not be started.
    #[error("{program} cannot be started: {error}; is it installed?")]
    Start { program: String, error: std::io::Error },
    /// It ended with an error.
    #[error("{program} failed: {said}")]
    Failed { program: String, said: String },
    /// It did not end in time.
    #[error("{program} did not end in time and was stopped")]
    TimedOut { program: String },
    /// It printed more than is read.
    #[error("{program} printed more than {OUTPUT_BYTES_MAX} bytes")]
    TooMuch { program: String },
    /// Its pipes broke.
    #[error("{program}'s output cannot be read: {error}")]
    Pipe { program: String, error: std::io::Error },
    /// What iptables-save printed.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// What nft printed.
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    /// The helper's socket.
    #[error("{path} cannot be read: {error}; is the helper's socket unit started?")]
    Socket { path: String, error: std::io::Error },
    /// The helper failed, which it says in its own log.
    #[error("the helper behind {path} printed nothing: see its log")]
    Silent { path: String },
    /// The lock.
    #[error("{path} cannot be locked: {error}; only root changes rules")]
    Lock { path: String, error: std::io::Error },
    /// Somebody holds it.
    #[error("another process changes accounting rules and does not end: it holds {path}")]
    Held { path: String },
    /// What ip printed.
    #[error("ip's list of interfaces is not JSON: {0}")]
    Links(#[from] serde_json::Error),
}

/// A program to run, as it would be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// What it reads from standard input.
    pub(crate) input: String,
}

impl Step {
    fn new(words: &[&str], input: String) -> Self {
        Self { words: words.iter().map(|word| (*word).to_owned()).collect(), input }
    }
}

impl std::fmt::Display for Step {
    /// As text for a shell. Nothing in it needs quotes: names and addresses were checked when they came in.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <<'EOF'\n{}EOF", self.words.join(" "), self.input)
    }
}

/// One table of a firewall: iptables has one for each version of IP.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    program: &'static str,
    /// `None`: both versions.
    ipv4: Option<bool>,
    /// What it holds.
    pub(crate) found: Found,
}

/// The firewall of this host or of one of its network namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Firewall {
    kind: FirewallKind,
    netns: Option<String>,
    table: String,
    socket: Option<PathBuf>,
}

impl Firewall {
    /// The one that the flags name; nothing is started yet.
    pub(crate) fn new(flags: &TrafficFlags) -> Self {
        Self {
            kind: flags.firewall,
            netns: flags.netns.as_deref().map(netns_path),
            table: flags.table.clone(),
            socket: flags.socket.clone(),
        }
    }

    /// The same for changes, which no helper makes.
    pub(crate) fn to_change(flags: &TrafficFlags) -> Self {
        Self { socket: None, ..Self::new(flags) }
    }

    /// What the accounting rules have counted, and whether all of it could be read.
    pub(crate) async fn traffic(&self, deadline: Instant) -> (Option<Traffic>, bool) {
        let mut tables = Vec::new();
        let mut all = true;
        for read in self.read(deadline).await {
            match read {
                Ok(table) => tables.push(table),
                Err(error) => {
                    tracing::warn!(error = error.to_string(), "external traffic is not read");
                    all = false;
                }
            }
        }
        let traffic = counted(tables.iter().map(|table| &table.found));
        ((all || !tables.is_empty()).then_some(traffic), all)
    }

    /// All its tables.
    async fn read(&self, deadline: Instant) -> Vec<Result<Table, FirewallError>> {
        if let Some(socket) = &self.socket {
            return vec![self.read_socket(socket, deadline).await];
        }
        match self.kind {
            FirewallKind::Nftables => vec![self.read_nftables(deadline).await],
            FirewallKind::Iptables => {
                let mut tables = vec![self.read_iptables("iptables", deadline).await];
                // Where the kernel has no IPv6, ip6tables has nothing to read.
                if Path::new("/proc/net/if_inet6").exists() {
                    tables.push(self.read_iptables("ip6tables", deadline).await);
                }
                tables
            }
        }
    }

    async fn read_iptables(
        &self,
        program: &'static str,
        deadline: Instant,
    ) -> Result<Table, FirewallError> {
        let save = format!("{program}-save");
        let step = self.inside(&[&save, "-t", "filter", "-c"], String::new());
        let found = iptables::read(&output(&step, deadline).await?)?;
        Ok(Table { program, ipv4: Some(program == "iptables"), found })
    }

    /// Reads what a helper prints to whoever connects: the output of the same programs, both versions of IP in one.
    async fn read_socket(&self, path: &Path, deadline: Instant) -> Result<Table, FirewallError> {
        let shown = path.display().to_string();
        let wrong = |error| FirewallError::Socket { path: shown.clone(), error };
        let talk = async { read(Some(UnixStream::connect(path).await?), OUTPUT_BYTES_MAX).await };
        let printed = timeout_at(deadline, talk)
            .await
            .map_err(|_| FirewallError::TimedOut { program: shown.clone() })?
            .map_err(wrong)?;
        if is_too_much(&printed) {
            return Err(FirewallError::TooMuch { program: shown });
        }
        let text = String::from_utf8_lossy(&printed);
        let found = match self.kind {
            _ if text.trim().is_empty() => return Err(FirewallError::Silent { path: shown }),
            FirewallKind::Iptables => iptables::read(&text)?,
            FirewallKind::Nftables => nftables::read(&text)?,
        };
        Ok(Table { program: "", ipv4: None, found })
    }

    async fn read_nftables(&self, deadline: Instant) -> Result<Table, FirewallError> {
        let mut words = vec!["nft", "-j", "list", "table"];
        words.extend(self.table.split(' '));
        let found = nftables::read(&output(&self.inside(&words, String::new()), deadline).await?)?;
        Ok(Table { program: "nft", ipv4: None, found })
    }

    /// The same, where our table need not be there yet.
    pub(crate) async fn read_for_change(
        &self,
        deadline: Instant,
    ) -> Result<Vec<Table>, FirewallError> {
        if self.kind == FirewallKind::Nftables {
            let step = self.inside(&["nft", "-j", "list", "tables"], String::new());
            let tables = output(&step, deadline).await?;
            if !nftables::has_table(&tables, &self.table)? {
                return Ok(vec![Table { program: "nft", ipv4: None, found: Found::default() }]);
            }
        }
        self.read(deadline).await.into_iter().collect()
    }

    /// What has to be run for a table to hold what is wanted; `None` if it does already.
    pub(crate) fn step(&self, wanted: &Wanted, table: &Table) -> Option<Step> {
        let fits = |ip: &IpAddr| table.ipv4.is_none_or(|ipv4| ipv4 == ip.is_ipv4());
        let addresses = wanted.addresses.iter().filter(|(_, ip)| fits(ip)).cloned().collect();
        let plan = plan::missing(&Wanted { addresses, ..wanted.clone() }, &table.found);
        (!plan.is_empty()).then(|| self.change(table, &plan))
    }

    fn change(&self, table: &Table, plan: &Plan) -> Step {
        match table.ipv4 {
            None => self.inside(&["nft", "-f", "-"], nftables::script(plan, &self.table)),
            Some(_) => self.restore(table, iptables::script(plan)),
        }
    }

    /// What has to be run to take away what is ours of a table; `None` if nothing is.
    pub(crate) fn removal(&self, table: &Table) -> Option<Step> {
        let found = &table.found;
        if found.chains.is_empty() && found.jumps.is_empty() {
            return None;
        }
        Some(match table.ipv4 {
            None => self.inside(&["nft", "-f", "-"], nftables::removal(found, &self.table)),
            Some(_) => self.restore(table, iptables::removal(found)),
        })
    }

    fn restore(&self, table: &Table, input: String) -> Step {
        let restore = format!("{}-restore", table.program);
        self.inside(&[&restore, "--noflush", "--wait=5"], input)
    }

    /// What can be known of the network that the firewall filters.
    pub(crate) async fn network(&self, deadline: Instant) -> Result<Network, FirewallError> {
        let step = self.inside(&["ip", "-j", "-d", "link", "show"], String::new());
        let links = sight::links(&output(&step, deadline).await?)?;
        let forwards = self.switch("net/ipv4/ip_forward", deadline).await;
        let filters_bridges = self.switch("net/bridge/bridge-nf-call-iptables", deadline).await;
        Ok(Network { links, forwards, filters_bridges })
    }

    /// A setting of the kernel, as it is in the namespace; `None` where it does not exist.
    async fn switch(&self, name: &str, deadline: Instant) -> Option<bool> {
        let step = self.inside(&["cat", &format!("/proc/sys/{name}")], String::new());
        output(&step, deadline).await.ok().map(|text| text.trim() != "0")
    }

    fn inside(&self, words: &[&str], input: String) -> Step {
        let mut step = Step::new(words, input);
        if let Some(netns) = &self.netns {
            let enter = ["nsenter".to_owned(), format!("--net={netns}"), "--".to_owned()];
            step.words.splice(0..0, enter);
        }
        step
    }
}

/// The path of a network namespace: a name is one that `ip netns` knows.
fn netns_path(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/run/netns/{name}") }
}

/// Waits until no other process holds the lock. It is held until the file is closed.
pub(crate) async fn lock(path: &Path, deadline: Instant) -> Result<File, FirewallError> {
    let shown = path.display().to_string();
    let wrong = |error| FirewallError::Lock { path: shown.clone(), error };
    let file = File::options().create(true).append(true).mode(0o600).open(path).map_err(wrong)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(wrong(error)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE).await,
            Err(TryLockError::WouldBlock) => return Err(FirewallError::Held { path: shown }),
        }
    }
}

/// Runs a step and returns what it printed.
pub(crate) async fn output(step: &Step, deadline: Instant) -> Result<String, FirewallError> {
    let program = || step.words.join(" ");
    let mut words = step.words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).env_clear().env("PATH", PATH).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| FirewallError::Start { program: program(), error })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let talk = async {
        let write = async {
            // A program that does not want its input says why itself.
            if let Some(mut stdin) = stdin {
                stdin.write_all(step.input.as_bytes()).await.ok();
            }
        };
        let read = read(stdout, OUTPUT_BYTES_MAX);
        let (printed, said, ()) = tokio::join!(read, read_some(stderr, ERROR_BYTES_MAX), write);
        let printed = printed?;
        if is_too_much(&printed) {
            return Ok((printed, said, None));
        }
        Ok((printed, said, Some(child.wait().await?)))
    };
    let (printed, said, status) = timeout_at(deadline, talk)
        .await
        .map_err(|_| FirewallError::TimedOut { program: program() })?
        .map_err(|error| FirewallError::Pipe { program: program(), error })?;
    match status {
        None => Err(FirewallError::TooMuch { program: program() }),
        Some(status) if !status.success() => {
            let said =
                String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
            let said = if said.is_empty() { status.to_string() } else { said };
            Err(FirewallError::Failed { program: program(), said })
        }
        // Comments are bytes; one that is not text is not ours, and must not hide the others.
        Some(_) => Ok(String::from_utf8_lossy(&printed).into_owned()),
    }
}

fn is_too_much(printed: &[u8]) -> bool {
    u64::try_from(printed.len()).is_ok_and(|length| length > OUTPUT_BYTES_MAX)
}

/// Reads up to `max` bytes and, where there are more, one of them.
async fn read(from: Option<impl AsyncRead + Unpin>, max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(max + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The same for what is only shown.
async fn read_some(from: Option<impl AsyncRead + Unpin>, max: u64) -> Vec<u8> {
    read(from, max).await.unwrap_or_default()
}

#[cfg(test)]
mod tests;
