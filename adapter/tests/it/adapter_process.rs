//! A real kanyun-adapter as a child process on a free port, killed when it goes out of scope.
//! Only ever signals the process that it started itself.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use adapter::wire::messages::TimeSeries;
use adapter::wire::negotiate::Protocol;

use crate::http_client::{self, Answer};
use crate::remote::{self, Matcher, Series};

/// Far above what a start or a stop takes on a busy machine, where three nodes of a cluster that share two
/// cores with other tests take a minute for the tables alone.
const PATIENCE: Duration = Duration::from_mins(4);
const POLL: Duration = Duration::from_millis(5);

/// A running service.
#[derive(Debug)]
pub(crate) struct AdapterProcess {
    child: Child,
    address: SocketAddr,
    log: Log,
}

/// What a process wrote to standard error so far, read by a thread of its own.
#[derive(Debug)]
struct Log {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl AdapterProcess {
    /// A service that keeps everything in memory.
    pub(crate) fn in_memory() -> AdapterProcess {
        let mut command = command();
        AdapterProcess::start(command.arg("--store=memory"))
    }

    /// A service on a data folder.
    pub(crate) fn on_folder(folder: &Path) -> AdapterProcess {
        AdapterProcess::start(command().arg("--store.path").arg(folder))
    }

    /// Starts a command made by [`command`] and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> AdapterProcess {
        let started = AdapterProcess::try_start(command);
        started.unwrap_or_else(|(status, log)| panic!("the adapter ended: {status}\n{log}"))
    }

    /// Starts a command; gives how it ended and what it said where it ends before it is ready.
    pub(crate) fn try_start(command: &mut Command) -> Result<AdapterProcess, (ExitStatus, String)> {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = Log::follow(&mut child);
        let started = Instant::now();
        let mut address = None;
        while address.is_none_or(|address| !is_ready(address)) {
            if let Some(status) = child.try_wait().unwrap() {
                return Err((status, log.whole()));
            }
            if started.elapsed() > PATIENCE {
                // It would outlive the tests, and hold up whoever reads their output to its end.
                drop(child.kill());
                drop(child.wait());
                panic!("the adapter is not ready\n{}", log.whole());
            }
            std::thread::sleep(POLL);
            address = log.address();
        }
        let address = address.expect("it is ready");
        Ok(AdapterProcess { child, address, log })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its API over ZeroMQ listens; it was started with an address for it.
    pub(crate) fn api_address(&self) -> SocketAddr {
        self.log.address_of("answers over ZeroMQ").unwrap_or_else(|| panic!("{}", self.log()))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything on standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.so_far()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        http_client::request(self.address, &format!("GET {path}"), &[], b"").unwrap()
    }

    /// Sends a write request as Prometheus does.
    pub(crate) fn write(&self, protocol: Protocol, series: &[TimeSeries]) -> Answer {
        let body = remote::write_body(protocol, series);
        self.post_write(remote::content_type(protocol), &body).unwrap()
    }

    pub(crate) fn post_write(&self, content_type: &str, body: &[u8]) -> std::io::Result<Answer> {
        let headers = [("content-type", content_type), ("content-encoding", "snappy")];
        http_client::request(self.address, "POST /api/v1/write", &headers, body)
    }

    pub(crate) fn post_read(&self, body: &[u8]) -> Answer {
        let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        http_client::request(self.address, "POST /api/v1/read", &headers, body).unwrap()
    }

    /// Reads a range by both response types, which must say the same.
    pub(crate) fn read(&self, range: (i64, i64), matchers: &[Matcher<'_>]) -> Vec<Series> {
        self.try_read(range, matchers).unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// The same; gives the answer where it is no 200.
    pub(crate) fn try_read(
        &self,
        range: (i64, i64),
        matchers: &[Matcher<'_>],
    ) -> Result<Vec<Series>, Answer> {
        let query = [remote::query(range, matchers)];
        let [sampled, streamed] =
            [[0], [1]].map(|types| self.post_read(&remote::read_body(&query, &types)));
        if sampled.status != 200 {
            return Err(sampled);
        }
        if streamed.status != 200 {
            return Err(streamed);
        }
        let mut sampled = remote::sampled(&sampled.body);
        let streamed = remote::streamed(&streamed.body, 1);
        assert_eq!(sampled, streamed);
        assert_eq!(sampled.len(), 1, "one result for one query");
        Ok(sampled.remove(0))
    }

    /// SIGKILL: the process can do nothing more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it if it has not ended by itself; gives how it ended if it has, and the whole of
    /// standard error.
    pub(crate) fn end(mut self) -> (Option<ExitStatus>, String) {
        let status = self.child.try_wait().unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (status, self.log.whole())
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let killed = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &pid]).status();
        assert!(killed.unwrap().success());
    }

    /// Waits for the end; gives how it ended and the whole of standard error.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for_exit(&mut self.child);
        (status, self.log.whole())
    }

    /// SIGTERM, and a clean end.
    pub(crate) fn stop(self) {
        self.terminate();
        let (status, log) = self.wait();
        assert!(status.success(), "{status}\n{log}");
    }

    /// Polls a condition of this process.
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < PATIENCE, "no {what}\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for AdapterProcess {
    fn drop(&mut self) {
        // Already gone in most tests.
        self.child.kill().ok();
        self.child.wait().ok();
        // No test provokes one, and an answer alone may hide it.
        let panicked = self.log.whole().contains("panicked at");
        assert!(!panicked || std::thread::panicking(), "{}", self.log.so_far());
    }
}

impl Log {
    fn follow(child: &mut Child) -> Log {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            for line in stderr.lines() {
                let mut text = shared.lock().unwrap();
                text.push_str(&line.unwrap());
                text.push('\n');
            }
        });
        Log { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until the process has closed it.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }

    /// The address of the line that says where the service listens, in either log format.
    fn address(&self) -> Option<SocketAddr> {
        self.address_of("is listening")
    }

    /// The address of a line that says this.
    fn address_of(&self, what: &str) -> Option<SocketAddr> {
        let text = self.so_far();
        let line = text.lines().find(|line| line.contains(what))?;
        let (_, after) =
            line.split_once("address=").or_else(|| line.split_once("\"address\":\""))?;
        after.split([' ', '"']).next()?.parse().ok()
    }
}

/// The program on a free loopback port, with nothing of this environment's own settings.
pub(crate) fn command() -> Command {
    let mut command = bare_command();
    command.args(["--web.listen-address", "127.0.0.1:0"]);
    command
}

/// The program without any argument.
pub(crate) fn bare_command() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_kanyun-adapter")))
}

/// Takes this environment's own settings away from a command.
pub(crate) fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KANYUN_") {
            command.env_remove(name);
        }
    }
    // Many adapters run at once here: a test that wants a door of 2012 gives it an address.
    command.env("KANYUN_LEGACY_API_ADDRESS", "").env("KANYUN_LEGACY_INGEST_ADDRESS", "");
    command.stdin(Stdio::null());
    command
}

/// Runs a command that is to end by itself.
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("did not end: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(POLL);
    }
    child.wait_with_output().unwrap()
}

/// The present in unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// Not where it has just been killed.
fn is_ready(address: SocketAddr) -> bool {
    let answer = http_client::request(address, "GET /-/ready", &[], b"");
    answer.is_ok_and(|answer| answer.status == 200)
}

fn wait_for_exit(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "the process does not end");
        std::thread::sleep(POLL);
    }
}
