//! Preloaded into a process (LD_PRELOAD), it records everything that the process does to one
//! folder: what was written and in which order, and what was synced. A test then knows what a disk
//! may hold after a power loss. It works below the C library, by a seccomp filter whose trapped
//! calls a signal handler makes, because some libraries make system calls themselves; a way to
//! change a file that it does not know ends the process with a message. Must not know the adapter.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod calls;
mod filter;
mod gate;
pub mod record;
mod recorder;

/// The folder to watch, absolute.
pub const FOLDER: &str = "POWERLOSS_FOLDER";
/// The file to record into; must exist.
pub const LOG: &str = "POWERLOSS_LOG";
/// The process kills itself before this call, of those that are recorded; 0 is never.
pub const KILL_AT: &str = "POWERLOSS_KILL_AT";
/// From this call on there is no room: whatever would need some fails; 0 is never.
pub const FULL_AT: &str = "POWERLOSS_FULL_AT";

// SAFETY: the loader calls what stands in this section once, before main, when there is one
// thread; the function has the signature that it expects.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// Does nothing where the variables are missing, as in the tests' own process.
extern "C" fn begin() {
    let (Ok(folder), Ok(log)) = (std::env::var(FOLDER), std::env::var(LOG)) else { return };
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    recorder::begin(
        &folder,
        &log,
        recorder::Moments { kill: number(KILL_AT), full: number(FULL_AT) },
    );
    calls::catch();
    filter::install();
}
