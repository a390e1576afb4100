//! `kanyun`, the command line for billing and operators: asks an adapter over HTTP, or as
//! `api-client` did in 2012 over ZeroMQ. Knows no store and no engine.

mod answer;
mod commands;
mod forms;
mod table;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::kanyun_conf;
use commands::Commands;
use forms::{Ask, Form};

/// Why nothing was printed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line is wrong; the text says how it should be.
    #[error("{0}")]
    Usage(String),
    /// The adapter did not answer, or could not: code 500.
    #[error("{0}")]
    Failed(String),
    /// What is printed cannot be written.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Exit code of a wrong command line; 1 is a failure.
const WRONG_USAGE: u8 = 2;

/// Where a kanyun.conf is looked for.
const CONFS: [&str; 2] = ["kanyun.conf", "/etc/kanyun.conf"];
/// Where the API is without one.
const API_ADDRESS: &str = "tcp://127.0.0.1:5556";

/// Runs the program; `args` is its command line, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run(&args, &mut out).and_then(|()| Ok(out.flush()?));
    let failure = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    if let Failure::Output(error) = &failure
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        // Whoever reads has had enough, as `head` has.
        return ExitCode::SUCCESS;
    }
    // Nothing is left to tell where standard error is gone.
    io::stderr().write_all(format!("{}\n", text_of(&failure)).as_bytes()).ok();
    ExitCode::from(if matches!(failure, Failure::Usage(_)) { WRONG_USAGE } else { 1 })
}

fn text_of(failure: &Failure) -> String {
    let text = failure.to_string();
    if text.starts_with("error:") { text.trim_end().to_owned() } else { format!("error: {text}") }
}

fn run(args: &[OsString], out: &mut impl io::Write) -> Result<(), Failure> {
    let program = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let of_2012 = ["api-client", "api_client"].iter().any(|name| program == *name);
    let words: Option<Vec<&str>> = args.iter().skip(1).map(|word| word.to_str()).collect();
    let words = words.ok_or_else(|| Failure::Usage("the arguments are not UTF-8".to_owned()))?;
    // No form of 2012 begins with two dashes.
    let of_today = |first: &&str| commands::NAMES.contains(first) || first.starts_with("--");
    if !of_2012 && words.first().is_none_or(of_today) {
        return match Commands::of(args)? {
            commands::Parsed::Text(text) => Ok(write!(out, "{text}")?),
            commands::Parsed::Commands(commands) => commands.run(out),
        };
    }
    match forms::parse(&words).map_err(Failure::Usage)? {
        Form::Text(text) => writeln!(out, "{text}")?,
        Form::Ask(ask) => ask_as_2012(&ask, out)?,
    }
    Ok(())
}

/// Asks over ZeroMQ and prints a line for each entry of the answer.
fn ask_as_2012(ask: &Ask, out: &mut impl io::Write) -> Result<(), Failure> {
    let address = api_address()?;
    let body = crate::zeromq::request::ask(&address, ask.body().to_string().as_bytes());
    let data = answer::data(&body.map_err(Failure::Failed)?)?;
    for line in answer::lines(&data)? {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Of `[client]` in the first kanyun.conf that has it.
fn api_address() -> Result<String, Failure> {
    for path in CONFS.map(Path::new).into_iter().filter(|path| path.exists()) {
        let conf = kanyun_conf::read(path).map_err(|error| Failure::Usage(error.to_string()))?;
        if let Some(address) = conf.client_address {
            return Ok(address);
        }
    }
    Ok(API_ADDRESS.to_owned())
}
