//! When a guest's process started: libvirt keeps its pid in a file of its run folder, /proc says the rest. libvirt
//! itself does not report it. Read once a process; a file that cannot be read means no start time, never a guess.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use procfs::process::Process;

use crate::snapshot::Guest;

/// Longest pid file that makes sense: digits and a line end.
const PID_FILE_BYTES_MAX: usize = 32;

/// Start times by guest, computed once for each (pid, libvirt's id).
pub(crate) struct StartTimes {
    run_directory: PathBuf,
    known: HashMap<String, Known>,
}

struct Known {
    pid: i32,
    id: u32,
    seconds: f64,
}

impl StartTimes {
    /// Reads pid files in `run_directory` (libvirt's default is /run/libvirt/qemu).
    pub(crate) fn new(run_directory: PathBuf) -> Self {
        Self { run_directory, known: HashMap::new() }
    }

    /// Sets the start time of every running guest whose process can be seen; false if one could not.
    pub(crate) fn fill(&mut self, guests: &mut [Guest]) -> bool {
        let mut all = true;
        for guest in guests.iter_mut() {
            guest.start_time_seconds = self.of(guest);
            all &= guest.start_time_seconds.is_some() || !guest.is_active();
        }
        let active = guests.iter().filter(|guest| guest.is_active());
        let running: HashSet<&str> = active.map(|guest| guest.uuid.as_str()).collect();
        self.known.retain(|uuid, _| running.contains(uuid.as_str()));
        all
    }

    fn of(&mut self, guest: &Guest) -> Option<f64> {
        let id = guest.id?;
        let pid = self.pid(&guest.name)?;
        if let Some(known) = self.known.get(&guest.uuid)
            && (known.pid, known.id) == (pid, id)
        {
            return Some(known.seconds);
        }
        let seconds = process_start_seconds(pid, &guest.uuid)?;
        self.known.insert(guest.uuid.clone(), Known { pid, id, seconds });
        Some(seconds)
    }

    fn pid(&self, name: &str) -> Option<i32> {
        // libvirt refuses a slash in a name; a name with one must not lead out of the folder here either.
        if name.contains('/') {
            return None;
        }
        let read = |name: &str| fs::read(self.run_directory.join(format!("{name}.pid")));
        let text = read(name).or_else(|_| read(&escaped(name))).ok()?;
        let text = str::from_utf8(text.get(..text.len().min(PID_FILE_BYTES_MAX))?).ok()?;
        text.trim().parse().ok().filter(|pid| *pid > 0)
    }
}

/// The name as libvirt's escapes for XML make it, in which some versions name the file.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Seconds since 1970 at which process `pid` started, if it is this guest's: the file may be an old one and the pid
/// another program's by now, so the command line has to name the guest's UUID.
fn process_start_seconds(pid: i32, uuid: &str) -> Option<f64> {
    let process = Process::new(pid).ok()?;
    let words = process.cmdline().ok()?;
    let is_guest =
        words.windows(2).any(|pair| matches!(pair, [flag, id] if flag == "-uuid" && id == uuid));
    if !is_guest {
        return None;
    }
    let ticks = process.stat().ok()?.starttime;
    let boot_seconds = procfs::boot_time_secs().ok()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks and seconds of any uptime are far below 2^52"
    )]
    let seconds = boot_seconds as f64 + ticks as f64 / procfs::ticks_per_second() as f64;
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const UUID: &str = "de305d54-75b4-431b-adb2-000000000001";

    /// A process that looks like a guest's to /proc: `-uuid UUID` on its command line.
    struct Stand(Child);

    impl Stand {
        fn new(uuid: &str) -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", "echo up; read line", "sh", "-uuid", uuid]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // Before its first word the process may not be sh yet.
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
            Self(child)
        }
    }

    impl Drop for Stand {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    fn guest(id: u32) -> Guest {
        Guest { name: "g".into(), uuid: UUID.into(), id: Some(id), ..Guest::default() }
    }

    fn filled(times: &mut StartTimes, guest: Guest) -> Option<f64> {
        let mut guests = [guest];
        times.fill(&mut guests);
        guests[0].start_time_seconds
    }

    #[test]
    fn the_start_of_the_guests_own_process() {
        let folder = tempfile::tempdir().unwrap();
        let stand = Stand::new(UUID);
        fs::write(folder.path().join("g.pid"), format!("{}\n", stand.0.id())).unwrap();
        let mut times = StartTimes::new(folder.path().to_owned());
        let seconds = filled(&mut times, guest(1)).unwrap();
        let made = fs::metadata(folder.path()).unwrap().modified().unwrap();
        let made = made.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((seconds - made).abs() < 10.0, "{seconds} is not about {made}");
        assert_eq!(filled(&mut times, guest(1)), Some(seconds));
    }

    #[test]
    fn the_file_of_an_odd_name() {
        let folder = tempfile::tempdir().unwrap();
        let stand = Stand::new(UUID);
        let odd = Guest { name: "odd\"na\\me <&> é".into(), ..guest(1) };
        let file = "odd&quot;na\\me &lt;&amp;&gt; é.pid";
        fs::write(folder.path().join(file), stand.0.id().to_string()).unwrap();
        let mut times = StartTimes::new(folder.path().to_owned());
        assert!(filled(&mut times, odd).is_some());
    }

    #[test]
    fn another_process_with_the_same_number_gives_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let stand = Stand::new("de305d54-75b4-431b-adb2-00000000ffff");
        fs::write(folder.path().join("g.pid"), stand.0.id().to_string()).unwrap();
        let mut times = StartTimes::new(folder.path().to_owned());
        assert_eq!(filled(&mut times, guest(1)), None);
    }

    #[test]
    fn no_file_or_a_strange_one_gives_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut times = StartTimes::new(folder.path().to_owned());
        assert_eq!(filled(&mut times, guest(1)), None);
        for text in ["", "x", "-1", "0", "99999999999999999999999999999999999999"] {
            fs::write(folder.path().join("g.pid"), text).unwrap();
            assert_eq!(filled(&mut times, guest(1)), None, "{text}");
        }
        assert_eq!(filled(&mut times, Guest { name: "../g".into(), ..guest(1) }), None);
        assert_eq!(filled(&mut times, Guest { id: None, ..guest(1) }), None);
    }
}
