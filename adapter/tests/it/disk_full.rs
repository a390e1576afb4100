//! A disk that is full, in truth: a small tmpfs in a mount namespace of its own. Below the reserve
//! writes are 503 and reads go on; with no byte left the store may fail, and the process ends with
//! an error. Either way nothing acknowledged is lost, and with room again it goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::adapter_process::AdapterProcess;
use crate::libvirtd::{skip, wait_for};
use crate::load;

/// A little above the reserve of a gigabyte.
const DISK_MIB: u64 = 1_200;

/// A disk in a mount namespace, which lives as long as the process that made it.
struct Disk {
    folder: tempfile::TempDir,
    holder: Child,
}

impl Disk {
    /// Where it cannot be made, why.
    fn make() -> Result<Disk, String> {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$0\" && echo mounted && exec sleep 3600"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let mut output = std::io::BufReader::new(holder.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        if line == "mounted\n" {
            return Ok(Disk { folder, holder });
        }
        let output = holder.wait_with_output().unwrap();
        Err(format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn namespace(&self) -> String {
        format!("--mount=/proc/{}/ns/mnt", self.holder.id())
    }

    /// The disk as this process reaches it.
    fn outside(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(self.folder.path().strip_prefix("/").unwrap())
    }

    /// The service with its data on the disk.
    fn service(&self) -> Command {
        let inner = load::service(&self.folder.path().join("data"));
        let mut command = crate::adapter_process::without_settings(Command::new("nsenter"));
        command.arg(self.namespace()).arg("--").arg(inner.get_program()).args(inner.get_args());
        command
    }

    /// Takes room until this many bytes are left; 0 is down to the last one.
    fn fill(&self, left: u64) {
        let mut filler = fs::File::create_new(self.outside().join("filler")).unwrap();
        let piece = vec![0; 1 << 20];
        while left == 0 || free_bytes(&self.outside()) > left {
            if let Err(error) = std::io::Write::write_all(&mut filler, &piece) {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                return;
            }
        }
    }

    /// Gives it back.
    fn clear(&self) {
        fs::remove_file(self.outside().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// As the service sees them.
fn free_bytes(path: &Path) -> u64 {
    let volume = rustix::fs::statvfs(path).unwrap();
    volume.f_bavail * volume.f_frsize
}

#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let disk = match Disk::make() {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let adapter = AdapterProcess::start(&mut disk.service());
    let mut senders = load::senders();
    let address = adapter.address();
    // Below the reserve, under load: the senders end with a 503.
    let once = Mutex::new(Some(()));
    load::run_until_refused(&mut senders, address, |acknowledged| {
        if acknowledged >= 100 && once.lock().unwrap().take().is_some() {
            disk.fill(900 << 20);
        }
    });
    let ready = adapter.get("/-/ready");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.text().contains("below the reserve"), "{ready:?}");
    // Sealing goes on: what came late before the disk was full becomes chunks, and is late no more.
    adapter.wait_for("sealing on a full disk", || {
        let status: Value = serde_json::from_str(adapter.get("/api/v1/status").text()).unwrap();
        status["sealing"]["late_windows"] == 0
    });
    load::check_everything(&adapter, &senders);
    // Room again: no restart is needed.
    disk.clear();
    adapter.wait_for("room", || adapter.get("/-/ready").status == 200);
    load::run_for(&mut senders, address, 100);
    load::check_everything(&adapter, &senders);

    // No byte left, between two looks at the reserve.
    let once = Mutex::new(Some(()));
    load::run_until_refused(&mut senders, address, |acknowledged| {
        if acknowledged >= 100 && once.lock().unwrap().take().is_some() {
            disk.fill(0);
        }
    });
    // It serves on without writes, or it has ended with an error; never silently.
    drop(adapter);
    disk.clear();
    let adapter = wait_for("a start with room again", 60, || {
        AdapterProcess::try_start(&mut disk.service()).ok()
    });
    load::check_everything(&adapter, &senders);
    load::run_for(&mut senders, adapter.address(), 100);
    load::check_everything(&adapter, &senders);
    adapter.stop();
}
