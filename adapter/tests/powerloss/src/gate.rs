//! The one system call instruction that the filter lets pass, and what the recorder itself needs
//! of the kernel. Allocates nothing: it runs inside a signal handler.

use std::arch::global_asm;
use std::ffi::{c_int, c_long};

// The C calling convention has the number and the first five arguments one register off, and the
// sixth on the stack.
global_asm!(
    ".globl powerloss_gate",
    ".hidden powerloss_gate",
    ".globl powerloss_gate_end",
    ".hidden powerloss_gate_end",
    "powerloss_gate:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    "powerloss_gate_end:",
    "ret",
);

unsafe extern "C" {
    fn powerloss_gate(number: c_long, a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64;
    static powerloss_gate_end: u8;
}

/// Where the kernel sees a call through the gate come from.
pub(crate) fn address() -> u64 {
    (&raw const powerloss_gate_end) as u64
}

/// Makes a call as the process would; the result is negative for an error.
pub(crate) fn call(number: c_long, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: these are a trapped call's own arguments, for which its caller answers, or those of
    // the functions below.
    unsafe { powerloss_gate(number, a, b, c, d, e, f) }
}

/// Writes all of these parts, or says how far it came by an error.
pub(crate) fn write_all(fd: c_int, parts: &mut [libc::iovec]) -> Result<(), i64> {
    let whole: usize = parts.iter().map(|part| part.iov_len).sum();
    let written =
        call(libc::SYS_writev, [fd as u64, parts.as_ptr() as u64, parts.len() as u64, 0, 0, 0]);
    if written == whole as i64 { Ok(()) } else { Err(written) }
}

/// Where the next byte of an open file is read or written.
pub(crate) fn position(fd: c_int) -> i64 {
    call(libc::SYS_lseek, [fd as u64, 0, libc::SEEK_CUR as u64, 0, 0, 0])
}

/// Lets others run.
pub(crate) fn give_way() {
    call(libc::SYS_sched_yield, [0; 6]);
}

/// Ends the process at once, as a power loss would.
pub(crate) fn kill_self() -> ! {
    let pid = call(libc::SYS_getpid, [0; 6]);
    loop {
        call(libc::SYS_kill, [pid as u64, libc::SIGKILL as u64, 0, 0, 0, 0]);
    }
}

/// An argument for a part of [`write_all`].
pub(crate) fn part(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}
