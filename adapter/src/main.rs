//! The binary `kanyun-adapter`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    adapter::service::main(std::env::args_os())
}
