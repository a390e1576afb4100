//! The binary `kanyun`, also called `api-client`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    adapter::client::main(std::env::args_os())
}
