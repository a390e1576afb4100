//! The seccomp filter: every call that may change a file or a folder is trapped, unless it comes
//! through the gate. What is left out of the list changes no file's content or name.

use std::ffi::c_long;

use crate::gate;

/// Calls that are always trapped: those of `calls`, and those that would go unseen.
const TRAPPED: [c_long; 49] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_open_by_handle_at,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_msync,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    libc::SYS_io_uring_setup,
    libc::SYS_io_setup,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ioctl,
];

// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const INSTRUCTION: u32 = 8;
const ARGUMENTS: u32 = 16;

/// Begins to trap; there is one thread yet, and every later one inherits the filter.
pub(crate) fn install() {
    let mut program = program();
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(u16::MAX),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: plain numbers, and a filter that lives until the kernel has copied it.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    };
    assert!(installed, "powerloss: no filter: {}", std::io::Error::last_os_error());
}

fn program() -> Vec<libc::sock_filter> {
    let gate = gate::address();
    // Little-endian: the lower half comes first.
    let (low, high) = (gate as u32, (gate >> 32) as u32);
    let mut program = vec![
        load(INSTRUCTION),
        skip_unless(low, 3),
        load(INSTRUCTION + 4),
        skip_unless(high, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        load(NUMBER),
    ];
    for number in TRAPPED {
        program.push(skip_unless(number as u32, 1));
        program.push(answer(libc::SECCOMP_RET_TRAP));
    }
    // Memory that is shared with a file and may be written changes the file without any call.
    let (writable, shared) = (libc::PROT_WRITE as u32, libc::MAP_SHARED as u32);
    program.extend([
        skip_unless(libc::SYS_mmap as u32, 5),
        load(ARGUMENTS + 2 * 8),
        skip_unless_any(writable, 3),
        load(ARGUMENTS + 3 * 8),
        skip_unless_any(shared, 1),
        answer(libc::SECCOMP_RET_TRAP),
        answer(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0)
}

fn skip_unless(value: u32, skipped: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skipped)
}

fn skip_unless_any(bits: u32, skipped: u8) -> libc::sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, skipped)
}

fn answer(action: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, action, 0)
}

fn statement(code: u32, k: u32, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf, k }
}
