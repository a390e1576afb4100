//! What is watched, and the log: one record at a time, in the order in which calls took effect.
//! Allocates nothing after its begin: it runs inside a signal handler.

use std::ffi::{CString, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::gate;
use crate::record::{Header, Kind};

/// Files that a process may have open at once.
const FILES_MAX: usize = 1 << 16;

struct Watch {
    folder: Vec<u8>,
    log: c_int,
    moments: Moments,
}

/// When something happens, by the number of a call; 0 is never.
pub(crate) struct Moments {
    pub(crate) kill: u64,
    pub(crate) full: u64,
}

static WATCH: OnceLock<Watch> = OnceLock::new();
static LOCKED: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// A bit for each open file: whether it is in the folder.
static WATCHED: [AtomicU64; FILES_MAX / 64] = [const { AtomicU64::new(0) }; FILES_MAX / 64];

/// Whether the disk takes more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Enough,
    None,
}

/// The only one who may change the folder and write records. Released when it is dropped.
pub(crate) struct Turn(());

pub(crate) fn begin(folder: &str, log: &str, moments: Moments) {
    let path = CString::new(log).expect("powerloss: a path without zero bytes");
    // SAFETY: a path that ends with a zero byte.
    let log =
        unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC) };
    assert!(log >= 0, "powerloss: no log: {}", std::io::Error::last_os_error());
    assert!(WATCH.set(Watch { folder: folder.into(), log, moments }).is_ok());
}

fn watch() -> &'static Watch {
    WATCH.get().unwrap_or_else(|| gate::kill_self())
}

/// Waits for the turn of this thread.
pub(crate) fn turn() -> Turn {
    while LOCKED.swap(true, Ordering::Acquire) {
        gate::give_way();
    }
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        LOCKED.store(false, Ordering::Release);
    }
}

impl Turn {
    /// Counts a call that changes or syncs something: the power may go off before it.
    /// Says whether there is room for what it needs.
    pub(crate) fn count(&self) -> Room {
        let number = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let Moments { kill, full } = watch().moments;
        if number == kill {
            gate::kill_self();
        }
        if full != 0 && number >= full { Room::None } else { Room::Enough }
    }

    /// Writes a record whose first byte string is in parts.
    pub(crate) fn record(&self, mut header: Header, one: &[libc::iovec], two: &[u8]) {
        let mut parts = [gate::part(&[]); 64];
        let bytes: usize = one.iter().map(|part| part.iov_len).sum();
        if one.len() + 2 > parts.len() {
            self.unknown(b"a write of too many parts");
        }
        (header.one, header.two) = (bytes as u32, two.len() as u32);
        let header = header.bytes();
        parts[0] = gate::part(&header);
        parts[1..=one.len()].copy_from_slice(one);
        parts[one.len() + 1] = gate::part(two);
        if gate::write_all(watch().log, &mut parts[..one.len() + 2]).is_err() {
            say(b"the log cannot be written");
            gate::kill_self();
        }
    }

    /// The process did something that this recorder cannot judge: it must not go on.
    pub(crate) fn unknown(&self, what: &[u8]) -> ! {
        let mut header = Header::new(Kind::Unknown);
        header.one = what.len() as u32;
        let header = header.bytes();
        // Where even this fails, the text on standard error is left.
        gate::write_all(watch().log, &mut [gate::part(&header), gate::part(what)]).ok();
        say(what);
        gate::kill_self();
    }
}

fn say(what: &[u8]) {
    let mut parts = [gate::part(b"powerloss: "), gate::part(what), gate::part(b"\n")];
    gate::write_all(2, &mut parts).ok();
}

/// Whether this path, below an open folder or absolute, is in the watched folder.
pub(crate) fn is_inside(at: c_int, path: &[u8]) -> bool {
    if !path.starts_with(b"/") {
        return is_watched(at);
    }
    let rest = path.strip_prefix(&*watch().folder);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

pub(crate) fn is_watched(fd: c_int) -> bool {
    let Ok(fd) = usize::try_from(fd) else { return false };
    WATCHED.get(fd / 64).is_some_and(|bits| bits.load(Ordering::Acquire) >> (fd % 64) & 1 == 1)
}

pub(crate) fn set_watched(turn: &Turn, fd: c_int, watched: bool) {
    let place = usize::try_from(fd).ok().filter(|fd| *fd < FILES_MAX);
    let Some(fd) = place else { turn.unknown(b"an open file's number is too large") };
    if watched {
        WATCHED[fd / 64].fetch_or(1 << (fd % 64), Ordering::AcqRel);
    } else {
        WATCHED[fd / 64].fetch_and(!(1 << (fd % 64)), Ordering::AcqRel);
    }
}
