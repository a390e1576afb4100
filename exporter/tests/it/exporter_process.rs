//! The exporter's own process, started here and stopped by process id.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::libvirtd::Libvirtd;
use crate::text::{Samples, samples};

/// The exporter's process.
pub(crate) struct Exporter {
    process: Child,
    address: String,
}

impl Exporter {
    /// Starts it on a free port and waits until it says which.
    pub(crate) fn start(libvirtd: &Libvirtd) -> Self {
        Self::start_with(libvirtd, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(libvirtd: &Libvirtd, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
        command.arg("--libvirt.uri").arg(libvirtd.socket());
        command.arg("--libvirt.run-directory").arg(libvirtd.folder.path().join("run/qemu"));
        command.args(flags);
        Self::run(&mut command)
    }

    /// Starts a command that ends in the exporter's, whose flags say all but where it listens.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut process = command
            // More than the default to get a page ready in, on a machine that is busy with guests.
            .args(["--web.listen-address=127.0.0.1:0", "--scrape.timeout-offset=2s"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = std::io::BufReader::new(process.stderr.take().unwrap());
        let (sender, address) = mpsc::sync_channel(1);
        thread::spawn(move || {
            for line in std::io::BufRead::lines(log).map_while(Result::ok) {
                eprintln!("exporter: {line}");
                if let Some((_, rest)) = line.split_once("address=") {
                    sender.try_send(rest.split(' ').next().unwrap().to_owned()).ok();
                }
            }
        });
        let address = address.recv_timeout(Duration::from_mins(1)).unwrap();
        Self { process, address }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    #[allow(dead_code, reason = "the bench asks for it")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// GETs a path: the whole answer's head, and its body.
    pub(crate) fn get(&self, path: &str, headers: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        // A compressed body is no text.
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    /// The metrics, which are always answered with 200.
    pub(crate) fn metrics(&self) -> String {
        let (head, body) = self.get("/metrics", "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body
    }

    /// A scrape as Prometheus does it: an answer that comes after its timeout would not be taken.
    pub(crate) fn scrape(&self, timeout_seconds: u32) -> Samples {
        let began = Instant::now();
        let header = format!("X-Prometheus-Scrape-Timeout-Seconds: {timeout_seconds}\r\n");
        let (head, body) = self.get("/metrics", &header);
        let took = began.elapsed();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(took < Duration::from_secs(timeout_seconds.into()), "it came after {took:?}");
        samples(&body)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
