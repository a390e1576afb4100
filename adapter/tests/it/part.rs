//! One process that a test starts, waits for and ends by its process id.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::libvirtd::wait_for;

/// A running program whose output goes to a file.
#[derive(Debug)]
pub(crate) struct Part {
    name: String,
    log: PathBuf,
    process: Child,
}

impl Part {
    /// Starts a program; its output goes to `NAME.log` in the folder.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Part {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let process =
            command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Part { name: name.to_owned(), log, process }
    }

    /// Waits until this URL answers 200.
    pub(crate) fn wait_until_ready(&mut self, url: &str) {
        wait_for(&format!("{} being ready", self.name), 60, || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("{} ended with {status}:\n{}", self.name, self.output());
            }
            ureq::get(url).call().ok().map(drop)
        });
    }

    /// SIGKILL: the process can do nothing more.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Everything it has printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // One that has ended has given its process id away.
        if matches!(self.process.try_wait(), Ok(None)) {
            let pid = self.process.id().to_string();
            drop(Command::new("kill").args(["-TERM", &pid]).status());
            drop(self.process.wait());
        }
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(15).collect();
            for line in tail.iter().rev() {
                eprintln!("{}: {line}", self.name);
            }
        }
    }
}

/// A loopback port that was free a moment ago, for programs that cannot tell which one they got, and
/// for those that are to come back on it. Not one of those that the kernel gives to connections:
/// another test's would take it meanwhile. Never the same twice in one process.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    loop {
        let number = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let port = 20_000 + u16::try_from(number).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
