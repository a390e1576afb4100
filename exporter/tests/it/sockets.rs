//! Sockets that systemd hands over, from the program that systemd has for trying it; and several addresses.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, wait_for};

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/host.json")
}

/// An address that is free now.
fn free(ip: &str) -> SocketAddr {
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// Starts the exporter by the first connection to one of these sockets.
fn activate(options: &[&str], sockets: &[String]) -> Command {
    let mut command = Command::new("systemd-socket-activate");
    command.args(options).args(sockets.iter().flat_map(|socket| ["-l", socket]));
    command.arg(env!("CARGO_BIN_EXE_kanyun-exporter")).arg("--web.systemd-socket");
    // It is not listened on.
    command.arg("--web.listen-address=192.0.2.1:9177");
    command.arg("--libvirt.replay").arg(recording());
    command.stderr(Stdio::piped());
    command
}

/// The start of an answer, or nothing where there is none.
fn asked(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok().filter(|answer| !answer.is_empty())
}

/// A process that is ended by its id, with what it wrote to standard error.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn sockets_that_systemd_hands_over_are_served() {
    if libvirtd::on_path("systemd-socket-activate").is_none() {
        return libvirtd::skip("systemd-socket-activate is not installed");
    }
    let addresses = [free("127.0.0.1"), free("127.0.0.2")];
    let sockets = addresses.map(|address| address.to_string());
    let _exporter = Ended(activate(&[], &sockets).spawn().unwrap());
    // The first connection starts it, and is the first that it answers.
    for address in [addresses[1], addresses[0], addresses[1]] {
        let answer = wait_for("an answer", 60, || asked(address));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\nlibvirt_up 1"), "{answer}");
    }
}

#[test]
fn what_is_no_listening_tcp_socket_is_refused() {
    if libvirtd::on_path("systemd-socket-activate").is_none() {
        return libvirtd::skip("systemd-socket-activate is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let address = free("127.0.0.1");
    let mut by_path = Ended(activate(&[], &[path.display().to_string()]).spawn().unwrap());
    let stream = wait_for("the socket", 60, || std::os::unix::net::UnixStream::connect(&path).ok());
    let (status, text) = end(&mut by_path);
    assert!(!status && text.contains("TCP ports by ListenStream="), "{text}");
    drop(stream);
    // Of Accept=yes each process gets a connection.
    let mut each = Ended(activate(&["--accept"], &[address.to_string()]).spawn().unwrap());
    let stream = wait_for("the socket", 60, || TcpStream::connect(address).ok());
    let text = verdict(&mut each);
    assert!(text.contains("is a connection") && text.contains("Accept=no"), "{text}");
    drop(stream);
}

#[test]
fn nothing_handed_over_is_said() {
    for environment in [&[][..], &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
        command.arg("--web.systemd-socket").envs(environment.iter().copied());
        let mut exporter = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
        let (status, text) = end(&mut exporter);
        assert!(!status && text.contains("systemd handed over no socket"), "{text}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    command.args(["--web.systemd-socket", "--config.check"]);
    let mut check = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
    let (status, text) = end(&mut check);
    assert!(status, "{text}");
}

/// Waits for the end: whether it was a good one, and what was said.
fn end(process: &mut Ended) -> (bool, String) {
    let status = wait_for("the end", 60, || process.0.try_wait().unwrap());
    let mut text = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status.success(), text)
}

/// The first line of its log that says that it failed, or that it serves.
fn verdict(process: &mut Ended) -> String {
    let log = std::io::BufReader::new(process.0.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(log).map_while(Result::ok);
    lines.find(|line| line.contains("level=error") || line.contains("is listening")).unwrap()
}

#[test]
fn several_addresses() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kanyun-exporter"));
    let addresses = [free("127.0.0.1"), free("127.0.0.2")];
    command.args(addresses.map(|address| format!("--web.listen-address={address}")));
    command.arg("--libvirt.replay").arg(recording());
    let _exporter = Exporter::run(&mut command);
    for address in addresses {
        let answer = wait_for("an answer", 60, || asked(address));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\nlibvirt_up 1"), "{answer}");
    }
}
