//! A private libvirtd with its guests, and what it takes to run one. Also used by the adapter's
//! tests. Everything is started here and stopped by process id.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Says why a test does not run; with KANYUN_REQUIRE_ALL=1 that is a failure.
pub(crate) fn skip(reason: &str) {
    let required = std::env::var_os("KANYUN_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "KANYUN_REQUIRE_ALL=1, but {reason}");
    eprintln!("skipped: {reason}");
}

/// A program found on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Why a private libvirtd cannot run here.
pub(crate) fn missing() -> Option<String> {
    for name in
        ["libvirtd", "virtlogd", "virsh", "qemu-system-x86_64", "qemu-img", "unshare", "nsenter"]
    {
        let known =
            ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(name).is_file());
        if !known && on_path(name).is_none() {
            return Some(format!("{name} is not installed"));
        }
    }
    let root =
        fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    (!root).then(|| "a private libvirtd needs root".to_owned())
}

fn script(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/parts").join(name);
    Command::new(path)
}

/// Waits until `ready` gives something, or panics with `what` after `seconds`.
pub(crate) fn wait_for<T>(what: &str, seconds: u64, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not happen within {seconds} s");
        #[expect(clippy::disallowed_methods, reason = "bounded polling of another process")]
        thread::sleep(Duration::from_millis(50));
    }
}

/// The folder with a guest's kernel and initrd, made once.
pub(crate) fn guest_image() -> PathBuf {
    let folder = std::env::var_os("KANYUN_GUEST_IMAGE")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-image"), PathBuf::from);
    if !folder.join("initrd.gz").is_file() || !folder.join("vmlinuz").is_file() {
        let status = script("guest-image").arg(&folder).status().unwrap();
        assert!(status.success(), "guest-image failed");
    }
    folder
}

/// A libvirtd of our own, with namespaces of its own.
pub(crate) struct Libvirtd {
    pub(crate) folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Libvirtd {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Self {
        let mut libvirtd = Self { folder: tempfile::tempdir_in("/tmp").unwrap(), daemon: None };
        libvirtd.run();
        libvirtd
    }

    /// Starts the daemon, the first time or after [`Self::kill`].
    pub(crate) fn run(&mut self) {
        let log = fs::File::create(self.folder.path().join("daemon.log")).unwrap();
        let mut command = script("private-libvirtd");
        command.arg(self.folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
        wait_for("libvirtd answering", 60, || self.virsh(&["list"]));
    }

    /// Kills the daemon by its process id; its guests live on.
    pub(crate) fn kill(&mut self) {
        let pid = fs::read_to_string(self.folder.path().join("libvirtd.pid")).unwrap();
        let status = Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap();
        assert!(status.success());
        self.daemon.take().unwrap().wait().unwrap();
    }

    /// Stops a guest's process (SIGSTOP) until the returned value is dropped.
    pub(crate) fn stop_guest(&self, name: &str) -> Stopped {
        self.stop(&format!("run/qemu/{name}.pid"))
    }

    /// Stops the daemon itself until the returned value is dropped.
    pub(crate) fn stop_daemon(&self) -> Stopped {
        self.stop("libvirtd.pid")
    }

    fn stop(&self, pid_file: &str) -> Stopped {
        let pid = fs::read_to_string(self.folder.path().join(pid_file)).unwrap();
        let stopped = Stopped(pid.trim().to_owned());
        let status = Command::new("kill").args(["-STOP", &stopped.0]).status().unwrap();
        assert!(status.success());
        stopped
    }

    /// The read-only socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock/libvirt-sock-ro")
    }

    /// The URI of the writable socket.
    pub(crate) fn uri(&self) -> String {
        let socket = self.folder.path().join("sock/libvirt-sock");
        format!("qemu:///system?socket={}", socket.display())
    }

    /// What virsh prints, over the writable socket; `None` if it fails.
    pub(crate) fn virsh(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new("virsh");
        let output = command.args(["-q", "-c", &self.uri()]).args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Starts a guest that does one round of work, and waits until it is done.
    pub(crate) fn busy_guest(&self, number: u32) -> String {
        self.start_guest(number, "write_mib=8 read_mib=4 pings=20");
        wait_for("a guest's round of work", 180, || (self.rounds(number) > 0).then_some(()));
        format!("instance-{number:08x}")
    }

    /// Starts a tiny guest that does nothing.
    pub(crate) fn idle_guest(&self, number: u32) -> String {
        self.guest(number, &[])
    }

    /// The same with options of virsh create.
    pub(crate) fn guest(&self, number: u32, options: &[&str]) -> String {
        let mut command = script("guest");
        command.arg(number.to_string()).args(options).env("LIBVIRTD", self.folder.path());
        assert!(command.status().unwrap().success(), "guest failed");
        format!("instance-{number:08x}")
    }

    /// Starts a guest that works as it is told (see scripts/parts/busy-guest).
    pub(crate) fn start_guest(&self, number: u32, work: &str) {
        let mut command = script("busy-guest");
        command.arg(number.to_string()).arg(guest_image());
        command.arg(work).env("LIBVIRTD", self.folder.path());
        assert!(command.status().unwrap().success(), "busy-guest failed");
    }

    /// How many rounds of work a guest has done.
    pub(crate) fn rounds(&self, number: u32) -> usize {
        let console = self.folder.path().join(format!("lib/images/console-{number}.log"));
        let text = fs::read(console).unwrap_or_default();
        String::from_utf8_lossy(&text).matches("round-done").count()
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        drop(script("stop-libvirtd").arg(self.folder.path()).status());
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.wait());
        }
    }
}

/// A process that was stopped, by its id; it goes on when this is dropped.
pub(crate) struct Stopped(String);

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(Command::new("kill").args(["-CONT", &self.0]).status());
    }
}
