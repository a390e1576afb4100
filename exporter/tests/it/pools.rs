//! Storage pools of a real libvirtd, one of which hangs in dead storage: the others keep fresh figures, the scrapes their
//! time, and libvirtd its threads.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::exporter_process::Exporter;
use crate::libvirtd::{self, Libvirtd, wait_for};
use crate::text::{Samples, value};

const TIMEOUT_SECONDS: u32 = 8;

/// A file system of its own that libvirtd sees, and that can be frozen: whoever writes to it then waits.
struct Storage {
    inside: Vec<String>,
    folder: PathBuf,
    /// Thaws it once its standard input ends, also where this process is killed: what is frozen could not be unmounted,
    /// and who waits for it could not be killed.
    keeper: Option<Child>,
}

impl Storage {
    /// An error says what cannot be done here.
    fn mounted(libvirtd: &Libvirtd) -> Result<Self, String> {
        let pid = std::fs::read_to_string(libvirtd.folder.path().join("libvirtd.pid")).unwrap();
        let inside = ["nsenter", "-t", pid.trim(), "-m"].map(str::to_owned).to_vec();
        let folder = libvirtd.folder.path().join("dead");
        let image = libvirtd.folder.path().join("dead.img");
        std::fs::create_dir(&folder).unwrap();
        let storage = Self { inside, folder, keeper: None };
        let (image, folder) = (image.to_str().unwrap(), storage.folder.to_str().unwrap());
        let steps: [&[&str]; 3] = [
            &["truncate", "-s", "32M", image],
            &["mkfs.ext4", "-q", image],
            &["mount", "-o", "loop", image, folder],
        ];
        for step in steps {
            if !storage.run(step) {
                return Err(format!("a file system in a file cannot be had: {}", step.join(" ")));
            }
        }
        Ok(storage)
    }

    fn command(&self, command: &[&str]) -> Command {
        let (program, args) = self.inside.split_first().unwrap();
        let mut inside = Command::new(program);
        inside.args(args).args(command);
        inside
    }

    fn run(&self, command: &[&str]) -> bool {
        self.command(command).status().is_ok_and(|status| status.success())
    }

    fn freeze(&mut self) {
        let folder = self.folder.to_str().unwrap();
        let keep = "cat > /dev/null; exec fsfreeze -u \"$0\"";
        let mut keeper = self.command(&["sh", "-c", keep, folder]);
        // In a group of its own, as a timeout kills the whole of ours.
        let keeper = keeper.stdin(Stdio::piped()).process_group(0).spawn().unwrap();
        assert!(self.run(&["fsfreeze", "-f", folder]));
        self.keeper = Some(keeper);
    }

    fn thaw(&mut self) -> bool {
        // Waiting closes its standard input first.
        let keeper = self.keeper.take();
        keeper.is_some_and(|mut keeper| keeper.wait().is_ok_and(|status| status.success()))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// A virsh that may not come back by itself.
struct Virsh(Child);

impl Drop for Virsh {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn timed_out(page: &Samples, pool: &str) -> Option<f64> {
    value(page, "libvirt_storage_pool_timed_out", &[&format!("storage_pool=\"{pool}\"")])
}

fn has_figures(page: &Samples, pool: &str) -> bool {
    let label = format!("storage_pool=\"{pool}\"");
    ["state", "capacity_bytes", "allocation_bytes", "available_bytes"]
        .iter()
        .all(|name| value(page, &format!("libvirt_storage_pool_{name}"), &[&label]).is_some())
}

fn success(page: &Samples) -> Option<f64> {
    value(page, "kanyun_exporter_collector_success", &["collector=\"pool\""])
}

#[test]
fn a_pool_that_hangs_costs_no_other_its_figures() {
    if let Some(reason) = libvirtd::missing() {
        return libvirtd::skip(&reason);
    }
    let libvirtd = Libvirtd::start();
    let mut storage = match Storage::mounted(&libvirtd) {
        Ok(storage) => storage,
        Err(reason) => return libvirtd::skip(&reason),
    };
    // By their names before and behind the one that hangs.
    for name in ["alive", "zeal"] {
        let folder = libvirtd.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let target = folder.to_str().unwrap();
        libvirtd.virsh(&["pool-create-as", name, "dir", "--target", target]).unwrap();
    }
    let target = storage.folder.to_str().unwrap();
    libvirtd.virsh(&["pool-create-as", "dead", "dir", "--target", target]).unwrap();
    libvirtd.virsh(&["vol-create-as", "dead", "volume", "1M"]).unwrap();
    let exporter = Exporter::start(&libvirtd);
    wait_for("all pools", 60, || {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        let fresh = ["alive", "dead", "zeal"].iter().all(|pool| has_figures(&page, pool));
        (fresh && success(&page) == Some(1.0)).then_some(())
    });

    storage.freeze();
    let mut delete = Command::new("virsh");
    delete.args(["-q", "-c", &libvirtd.uri(), "vol-delete", "volume", "dead"]);
    let _delete = Virsh(delete.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    for _ in 0..5 {
        // Each time within a few scrapes: on a machine that is busy with others libvirt may be slow for once.
        wait_for("fresh figures beside the pool that hangs", 60, || {
            let page = exporter.scrape(TIMEOUT_SECONDS);
            assert_eq!(value(&page, "libvirt_up", &[]), Some(1.0));
            let stuck = value(&page, "kanyun_exporter_given_up_threads", &[]);
            assert!(stuck <= Some(5.0), "bounded: {stuck:?}");
            let dead = (timed_out(&page, "dead"), has_figures(&page, "dead"), success(&page));
            let fresh =
                |pool: &&str| timed_out(&page, pool) == Some(0.0) && has_figures(&page, pool);
            let fresh = ["alive", "zeal"].iter().all(fresh);
            (dead == (Some(1.0), false, Some(0.0)) && fresh).then_some(())
        });
    }
    wait_for("no thread more than needed", 60, || {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        let stuck = value(&page, "kanyun_exporter_given_up_threads", &[]);
        // One in the list, one in the pool.
        (stuck == Some(2.0)).then_some(())
    });
    assert!(storage.thaw());
    wait_for("its recovery", 60, || {
        let page = exporter.scrape(TIMEOUT_SECONDS);
        let well = has_figures(&page, "dead") && success(&page) == Some(1.0);
        let free = value(&page, "kanyun_exporter_given_up_threads", &[]) == Some(0.0);
        (well && free).then_some(())
    });
}
