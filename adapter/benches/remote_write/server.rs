//! A server under measurement: started on a free loopback port and an empty folder, with its default
//! flags, watched through /proc and stopped by its process id.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::readback::Door;
use crate::sender::client;

/// Far above what a start, a stop or a flush takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// The kernel tells CPU time in this unit, whatever its own tick is (proc(5), USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// A server has ended its work when it takes no more than this share of a core, twice in a row.
const IDLE_SHARE: f64 = 0.03;
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Adapter,
    VictoriaMetrics,
}

/// The time that [`MovedClock`] says when a server starts: unix milliseconds of [`MOVED_TO_TEXT`].
pub(crate) const MOVED_TO_MS: i64 = 1_767_700_800_000;
/// In UTC, as libfaketime reads it.
const MOVED_TO_TEXT: &str = "@2026-01-06 12:00:00";

/// A server with a clock of its own, which libfaketime makes: it begins at [`MOVED_TO_MS`] and goes
/// on from there. Only the wall clock is moved. A Go program does not ask libc for the time and
/// cannot be moved so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MovedClock<'a> {
    /// libfaketimeMT.so.1
    pub(crate) library: &'a Path,
}

impl MovedClock<'_> {
    fn apply(self, command: &mut Command) {
        command
            .env("LD_PRELOAD", self.library)
            .env("FAKETIME", MOVED_TO_TEXT)
            .env("TZ", "UTC")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    child: Child,
    base: String,
    folder: PathBuf,
}

impl Server {
    /// Starts a program in an empty folder and waits until it takes requests.
    pub(crate) fn start(
        kind: Kind,
        program: &Path,
        folder: &Path,
        clock: Option<MovedClock<'_>>,
    ) -> Result<Server, String> {
        Server::start_with(kind, program, folder, |command| {
            if let Some(clock) = clock {
                clock.apply(command);
            }
        })
    }

    /// The same in a folder that may hold data; `dress` adds arguments and variables.
    pub(crate) fn start_with(
        kind: Kind,
        program: &Path,
        folder: &Path,
        dress: impl FnOnce(&mut Command),
    ) -> Result<Server, String> {
        let address = free_address();
        let log = File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let data = folder.join("data");
        let mut command = Command::new(program);
        match kind {
            Kind::Adapter => {
                // Several run at once, and nobody asks at the doors of 2012.
                command
                    .args(["--legacy.api-address=", "--legacy.ingest-address="])
                    .arg("--web.listen-address")
                    .arg(&address)
                    .arg("--store.path")
                    .arg(&data)
            }
            Kind::VictoriaMetrics => command
                .arg(format!("-httpListenAddr={address}"))
                .arg(format!("-storageDataPath={}", data.display())),
        };
        without_settings(&mut command);
        dress(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let base = format!("http://{address}");
        let mut server = Server { kind, child, base, folder: folder.to_owned() };
        server.until_ready()?;
        Ok(server)
    }

    fn until_ready(&mut self) -> Result<(), String> {
        let path = match self.kind {
            Kind::Adapter => "/-/ready",
            Kind::VictoriaMetrics => "/health",
        };
        let (agent, started) = (client(), Instant::now());
        while !agent.get(format!("{}{path}", self.base)).call().is_ok_and(|a| a.status() == 200) {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                return Err(format!("{:?} did not start:\n{}", self.kind, self.log()));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it takes remote_write.
    pub(crate) fn write_url(&self) -> String {
        format!("{}/api/v1/write", self.base)
    }

    /// Where it listens: `http://` and its address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// How and where it gives samples back.
    pub(crate) fn read_door(&self) -> (Door, String) {
        match self.kind {
            Kind::Adapter => (Door::RemoteRead, format!("{}/api/v1/read", self.base)),
            Kind::VictoriaMetrics => (Door::Export, format!("{}/api/v1/export", self.base)),
        }
    }

    /// Makes what was acknowledged visible to readers; ours always is.
    pub(crate) fn make_visible(&self) -> Result<(), String> {
        if self.kind == Kind::VictoriaMetrics {
            let url = format!("{}/internal/force_flush", self.base);
            client().get(&url).call().map_err(|error| format!("{url}: {error}"))?;
        }
        Ok(())
    }

    /// Asks it to end and waits for that.
    pub(crate) fn stop(mut self) -> Result<PathBuf, String> {
        let pid = self.pid().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        asked.map_err(|error| format!("kill: {error}"))?;
        let started = Instant::now();
        loop {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(self.folder.join("data")),
                Some(status) => return Err(format!("ended with {status}:\n{}", self.log())),
                None if started.elapsed() > PATIENCE => return Err("does not stop".to_owned()),
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// What it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already where it was stopped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_address() -> String {
    // Free again when this is dropped; nobody else is given it so soon.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Takes this environment's own settings away: the bench measures default flags.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KANYUN_") {
            command.env_remove(name);
        }
    }
}

/// CPU time of a process so far, all its threads, seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The name in brackets may hold spaces; utime and stime are the 14th and 15th field.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks = after.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap());
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// CPU time when the process has ended the work that it left for later: merges and flushes.
pub(crate) fn cpu_seconds_when_idle(pid: u32) -> Result<f64, String> {
    let started = Instant::now();
    let (mut before, mut idle) = (cpu_seconds(pid)?, 0);
    while idle < 2 && started.elapsed() < IDLE_WITHIN {
        std::thread::sleep(Duration::from_secs(1));
        let now = cpu_seconds(pid)?;
        idle = if now - before <= IDLE_SHARE { idle + 1 } else { 0 };
        before = now;
    }
    Ok(before)
}

/// Most memory that a process ever had, MiB.
pub(crate) fn peak_mebibytes(pid: u32) -> Result<f64, String> {
    mebibytes(pid, "VmHWM:")
}

/// Memory that a process has now, MiB.
pub(crate) fn resident_mebibytes(pid: u32) -> Result<f64, String> {
    mebibytes(pid, "VmRSS:")
}

fn mebibytes(pid: u32, field: &str) -> Result<f64, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.map(|kibibytes| kibibytes / 1_024.0).ok_or_else(|| format!("{path} has no {field}"))
}
