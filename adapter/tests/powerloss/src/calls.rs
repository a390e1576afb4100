//! The signal handler: makes each trapped call for the process, and records what it did to the
//! folder. Must not allocate, nor call anything that makes system calls other than by the gate.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use crate::gate;
use crate::record::{Header, Kind};
use crate::recorder::{Room, Turn, is_inside, is_watched, set_watched, turn};

const NO_ROOM: i64 = -(libc::ENOSPC as i64);

/// Catches the signal by which the kernel tells of a trapped call.
pub(crate) fn catch() {
    // SAFETY: all zeros are a valid sigaction, and the handler has the form that SA_SIGINFO asks
    // for.
    let caught = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
        libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut())
    };
    assert!(caught == 0, "powerloss: no handler: {}", std::io::Error::last_os_error());
}

extern "C" fn on_trap(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO the registers of what it interrupted.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let argument = |register: c_int| registers[register as usize].cast_unsigned();
    let arguments = [
        argument(libc::REG_RDI),
        argument(libc::REG_RSI),
        argument(libc::REG_RDX),
        argument(libc::REG_R10),
        argument(libc::REG_R8),
        argument(libc::REG_R9),
    ];
    let call = Call { number: registers[libc::REG_RAX as usize], arguments };
    registers[libc::REG_RAX as usize] = call.run();
}

/// One trapped call.
#[derive(Clone, Copy)]
struct Call {
    number: c_long,
    arguments: [u64; 6],
}

impl Call {
    fn run(self) -> i64 {
        let here = u64::from(libc::AT_FDCWD.cast_unsigned());
        let [a, b, c, d, ..] = self.arguments;
        match self.number {
            libc::SYS_open => self.open(here, a, b),
            libc::SYS_openat => self.open(a, b, c),
            libc::SYS_creat => {
                self.open(here, a, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64)
            }
            libc::SYS_close => self.close(),
            libc::SYS_dup | libc::SYS_dup2 | libc::SYS_dup3 => self.duplicate(),
            libc::SYS_fcntl if [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].contains(&(b as c_int)) => {
                self.duplicate()
            }
            libc::SYS_write | libc::SYS_pwrite64 => {
                let bytes = libc::iovec { iov_base: b as *mut c_void, iov_len: c as usize };
                self.write((self.number == libc::SYS_pwrite64).then_some(d), &[bytes])
            }
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 if is_watched(a as c_int) => {
                // SAFETY: the process gives the kernel this many parts, and waits for the answer.
                let parts =
                    unsafe { std::slice::from_raw_parts(b as *const libc::iovec, c as usize) };
                // -1 means the file's own position.
                let at_place = self.number != libc::SYS_writev && d != u64::MAX;
                self.write(at_place.then_some(d), parts)
            }
            libc::SYS_ftruncate => self.truncate(),
            libc::SYS_fsync | libc::SYS_fdatasync => self.sync(),
            libc::SYS_mkdir => self.change(Kind::MakeFolder, (here, a), None),
            libc::SYS_mkdirat => self.change(Kind::MakeFolder, (a, b), None),
            libc::SYS_unlink | libc::SYS_rmdir => self.change(Kind::Remove, (here, a), None),
            libc::SYS_unlinkat => self.change(Kind::Remove, (a, b), None),
            libc::SYS_rename => self.change(Kind::Rename, (here, a), Some((here, b))),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                if self.number == libc::SYS_renameat2 && self.arguments[4] & 2 != 0 {
                    turn().unknown(b"an exchange of two names");
                }
                self.change(Kind::Rename, (a, b), Some((c, d)))
            }
            _ => self.other(),
        }
    }

    fn make(self) -> i64 {
        gate::call(self.number, self.arguments)
    }

    fn open(self, at: u64, path: u64, flags: u64) -> i64 {
        let (at, path, flags) = (at as c_int, text(path), flags as c_int);
        if !is_inside(at, path) {
            let writes = flags & (libc::O_ACCMODE | libc::O_CREAT) != 0;
            if writes && !path.starts_with(b"/") {
                turn().unknown(b"a relative path opened to write");
            }
            return self.make();
        }
        let turn = turn();
        if flags & libc::O_TMPFILE == libc::O_TMPFILE {
            // A file without a name is gone with its process; `linkat`, which could give it one,
            // is not known here and stops the test.
            return if turn.count() == Room::None { NO_ROOM } else { self.make() };
        }
        if flags & (libc::O_CREAT | libc::O_TRUNC) != 0 {
            let room = turn.count();
            if flags & libc::O_CREAT != 0 && room == Room::None {
                return NO_ROOM;
            }
        }
        let fd = self.make();
        if fd >= 0 {
            set_watched(&turn, fd as c_int, true);
            let header =
                Header { fd: fd as i32, at, number: flags as u64, ..Header::new(Kind::Open) };
            turn.record(header, &[gate::part(path)], &[]);
        }
        fd
    }

    fn close(self) -> i64 {
        let fd = self.arguments[0] as c_int;
        if is_watched(fd) {
            // Before it is closed: another thread may be given the number at once.
            let turn = turn();
            set_watched(&turn, fd, false);
            turn.record(Header { fd, ..Header::new(Kind::Close) }, &[], &[]);
        }
        self.make()
    }

    fn duplicate(self) -> i64 {
        let fd = self.arguments[0] as c_int;
        let onto = [libc::SYS_dup2, libc::SYS_dup3].contains(&self.number);
        let onto_watched = onto && is_watched(self.arguments[1] as c_int);
        if !is_watched(fd) && !onto_watched {
            return self.make();
        }
        let turn = turn();
        if onto {
            turn.unknown(b"a duplicate onto a given number");
        }
        let twin = self.make();
        if twin >= 0 {
            set_watched(&turn, twin as c_int, true);
            let header = Header { fd, number: twin as u64, ..Header::new(Kind::Duplicate) };
            turn.record(header, &[], &[]);
        }
        twin
    }

    fn write(self, place: Option<u64>, parts: &[libc::iovec]) -> i64 {
        let fd = self.arguments[0] as c_int;
        if !is_watched(fd) {
            return self.make();
        }
        let turn = turn();
        if turn.count() == Room::None {
            return NO_ROOM;
        }
        let written = self.make();
        if written > 0 {
            // In append mode, too, the position is behind what was written.
            let place = place.unwrap_or_else(|| (gate::position(fd) - written) as u64);
            turn.written(fd, place, parts, written as usize);
        }
        written
    }

    fn truncate(self) -> i64 {
        let fd = self.arguments[0] as c_int;
        if !is_watched(fd) {
            return self.make();
        }
        let turn = turn();
        turn.count();
        let done = self.make();
        if done == 0 {
            let header = Header { fd, number: self.arguments[1], ..Header::new(Kind::Truncate) };
            turn.record(header, &[], &[]);
        }
        done
    }

    /// What is written while it runs may be synced or not, so its begin counts, and others go on.
    fn sync(self) -> i64 {
        let fd = self.arguments[0] as c_int;
        if !is_watched(fd) {
            return self.make();
        }
        let number = {
            let turn = turn();
            turn.count();
            let number = sync_number();
            turn.record(Header { fd, number, ..Header::new(Kind::SyncBegin) }, &[], &[]);
            number
        };
        let done = self.make();
        if done == 0 {
            let turn = turn();
            turn.count();
            turn.record(Header { fd, number, ..Header::new(Kind::SyncEnd) }, &[], &[]);
        }
        done
    }

    fn change(self, kind: Kind, (at, path): (u64, u64), to: Option<(u64, u64)>) -> i64 {
        let (at, path) = (at as c_int, text(path));
        let (other, new) = to.map_or((-1, &[][..]), |(at, path)| (at as c_int, text(path)));
        let inside = is_inside(at, path);
        if to.is_some() && is_inside(other, new) != inside {
            turn().unknown(b"a rename into or out of the folder");
        }
        if !inside {
            return self.make();
        }
        let turn = turn();
        if turn.count() == Room::None && kind == Kind::MakeFolder {
            return NO_ROOM;
        }
        let done = self.make();
        if done == 0 {
            turn.record(Header { at, other, ..Header::new(kind) }, &[gate::part(path)], new);
        }
        done
    }

    /// Calls that go by as long as they are not about the folder.
    fn other(self) -> i64 {
        let [a, b, c, d, e, _] = self.arguments;
        let watched = |fd: u64| is_watched(fd as c_int);
        let touches = match self.number {
            libc::SYS_fcntl => false,
            libc::SYS_ioctl
            | libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_fallocate => watched(a),
            libc::SYS_close_range => (a..=b.min(1 << 16)).any(watched),
            libc::SYS_sendfile | libc::SYS_tee | libc::SYS_vmsplice => watched(a) || watched(b),
            libc::SYS_splice | libc::SYS_copy_file_range => watched(a) || watched(c),
            libc::SYS_mmap => watched(e),
            libc::SYS_truncate | libc::SYS_link | libc::SYS_mknod => {
                is_inside(libc::AT_FDCWD, text(a))
            }
            libc::SYS_symlink => is_inside(libc::AT_FDCWD, text(b)),
            libc::SYS_mknodat => is_inside(a as c_int, text(b)),
            libc::SYS_linkat => is_inside(a as c_int, text(b)) || is_inside(c as c_int, text(d)),
            libc::SYS_symlinkat => is_inside(b as c_int, text(c)),
            // Programs, rings of the kernel, syncs of everything, handles: nobody needs them.
            _ => true,
        };
        if touches {
            let mut message = *b"an unknown way to change a file: system call 000";
            let digits = message.len() - 3;
            for (place, unit) in [100, 10, 1].into_iter().enumerate() {
                message[digits + place] = b'0' + (self.number / unit % 10) as u8;
            }
            turn().unknown(&message);
        }
        self.make()
    }
}

impl Turn {
    /// The first `written` bytes of these parts.
    fn written(&self, fd: c_int, place: u64, parts: &[libc::iovec], mut written: usize) {
        let mut taken = [gate::part(&[]); 62];
        let mut count = 0;
        for part in parts.iter().filter(|part| part.iov_len > 0) {
            if written == 0 {
                break;
            }
            if count == taken.len() {
                self.unknown(b"a write of too many parts");
            }
            taken[count] = libc::iovec { iov_len: part.iov_len.min(written), ..*part };
            written -= taken[count].iov_len;
            count += 1;
        }
        let header = Header { fd, number: place, ..Header::new(Kind::Write) };
        self.record(header, &taken[..count], &[]);
    }
}

fn sync_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SYNCS: AtomicU64 = AtomicU64::new(0);
    SYNCS.fetch_add(1, Ordering::Relaxed)
}

/// A path that the process gives the kernel.
fn text<'a>(path: u64) -> &'a [u8] {
    if path == 0 {
        return &[];
    }
    // SAFETY: the caller of the system call answers for it, as it does towards the kernel.
    unsafe { CStr::from_ptr(path as *const c_char) }.to_bytes()
}
