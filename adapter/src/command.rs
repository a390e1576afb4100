//! The subcommands: what an operator asks of a running adapter over HTTP or, where none runs, of
//! the store on this machine's disk. Prints; what is printed, `status` and `usage` know.

use std::io::{self, BufRead as _, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use serve::client::{self, Access, AskError};
use serve::clock::Clock;

use crate::config::{AskFlags, Command, Flags, LedgerFlags};
use crate::copy::{Copy, Done, Plan};
use crate::engine::Engine;
use crate::http::operator;
use crate::ledger::Family;
use crate::model::instant;
use crate::status::{Observer, Status};
use crate::usage::account::{Account, Wanted};
use crate::usage::printout::Line;
use crate::usage::{Minutes, Usage};

/// A store that was opened to be asked.
#[derive(Debug)]
pub struct Opened {
    /// To be closed when all is said.
    pub engine: Arc<Engine>,
    /// Knows the status.
    pub observer: Observer,
    /// Knows the ledger.
    pub usage: Arc<Usage>,
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The text says what to do.
    #[error("{0}")]
    Failed(String),
    /// What is printed cannot be written.
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Whether whoever reads the output has had enough, as `head` has: no fault.
    pub fn is_enough(&self) -> bool {
        matches!(self, CommandError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Runs a subcommand; `open` opens the store that the flags name. Waits for the network and for
/// standard output, and so must not run on a thread that others need.
pub async fn run(
    flags: &Flags,
    command: &Command,
    open: impl AsyncFnOnce() -> Result<Opened, String>,
) -> Result<(), CommandError> {
    let here = whereabouts(flags);
    let mut out = BufWriter::new(io::stdout().lock());
    match command {
        Command::Status(ask) => {
            let status = match asked(ask, here.as_deref(), operator::STATUS)? {
                Answer::Body(body) => serde_json::from_reader(body).map_err(|error| {
                    CommandError::Failed(format!("the adapter's answer is no status: {error}"))
                })?,
                Answer::Nobody(nobody) => {
                    let opened = opened(open, &nobody).await?;
                    let status = opened.observer.status().await;
                    closed(&opened.engine, Ok(status)).await?
                }
            };
            print_status(&mut out, ask, &status)?;
        }
        Command::Ledger(ledger) => match asked(&ledger.ask, here.as_deref(), &query(ledger))? {
            Answer::Body(body) => print_lines(&mut out, &ledger.ask, body)?,
            Answer::Nobody(nobody) => {
                let opened = opened(open, &nobody).await?;
                let printed = print_account(&mut out, ledger, &opened.usage).await;
                closed(&opened.engine, printed).await?;
            }
        },
        // It asks nobody, and opens two stores.
        Command::Copy(_) => {}
    }
    out.flush()?;
    Ok(())
}

/// Copies a store and prints how far it is.
pub async fn copy(plan: Plan, clock: Clock) -> Result<(), CommandError> {
    let mut out = io::stdout();
    let stores = plan.stores();
    let mut shown = std::time::Instant::now();
    let copied = async {
        let copy = Copy::begin(plan, clock).await?;
        copy.run(&mut |done| {
            if shown.elapsed() >= COPY_LINE_INTERVAL {
                shown = std::time::Instant::now();
                // Where nobody reads it, the copy goes on.
                writeln!(io::stdout(), "{}", in_words(done)).ok();
            }
        })
        .await
    }
    .await;
    for store in stores {
        store.close().await.map_err(failed)?;
    }
    let done = copied.map_err(failed)?;
    writeln!(out, "{}", in_words(&done))?;
    if !done.again.is_empty() {
        let weeks = done.again.len();
        writeln!(
            out,
            "hours of {weeks} weeks differ; --to counts them again from the samples of both"
        )?;
    }
    if done.kept > 0 {
        writeln!(
            out,
            "{} hours differ and are too old to be counted again; --to keeps its own",
            done.kept
        )?;
    }
    writeln!(out, "copied and compared; checksums {}", checksums(&done))?;
    Ok(())
}

/// How often a copy says how far it is.
const COPY_LINE_INTERVAL: Duration = Duration::from_secs(5);

fn in_words(done: &Done) -> String {
    format!(
        "{} groups of a week ({} series, {} rows of the head, {} chunks of {} bytes), {} guests of \
         a month ({} hours)",
        done.groups,
        done.series.rows,
        done.head.rows,
        done.chunks.rows,
        done.chunks.bytes,
        done.guests,
        done.ledger.rows
    )
}

fn checksums(done: &Done) -> String {
    let of = [("series", done.series), ("head", done.head), ("chunks", done.chunks)];
    let of = of.into_iter().chain([("ledger", done.ledger)]);
    let texts = of.map(|(name, counts)| format!("{name} {:016x}", counts.checksum));
    texts.collect::<Vec<_>>().join(", ")
}

enum Answer {
    Body(client::Body),
    /// Nobody listens, and nobody said that there should be somebody; the text says so.
    Nobody(String),
}

/// The address on this machine of an adapter that listens there.
fn here(listen_address: &str) -> String {
    let (host, port) = listen_address.rsplit_once(':').unwrap_or((listen_address, "9201"));
    let host = if ["", "0.0.0.0", "[::]"].contains(&host) { "127.0.0.1" } else { host };
    format!("http://{host}:{port}")
}

/// The URL of the service that the flags describe; `None` where systemd alone knows it.
fn whereabouts(flags: &Flags) -> Option<String> {
    let first = flags.service.listen_addresses.first().map_or("", String::as_str);
    (!flags.service.systemd_socket).then(|| here(first))
}

fn asked(ask: &AskFlags, here: Option<&str>, path: &str) -> Result<Answer, CommandError> {
    let Some(url) = ask.url.clone().or_else(|| here.map(str::to_owned)) else {
        // The lock of a store on disk keeps apart who does listen.
        return Ok(Answer::Nobody(
            "the adapter listens on sockets of systemd's (--web.systemd-socket), which only their unit \
             knows: where it runs, name it with --url"
                .to_owned(),
        ));
    };
    let access = Access {
        url,
        login: ask.user.clone().zip(ask.password_file.clone()),
        ca_file: ask.ca_file.clone(),
    };
    match client::get(&access, path) {
        Ok(body) => Ok(Answer::Body(body)),
        Err(error @ AskError::NobodyListens { .. }) if ask.url.is_none() => {
            Ok(Answer::Nobody(error.to_string()))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The path and query that ask for what the flags say.
fn query(ledger: &LedgerFlags) -> String {
    let LedgerFlags { guest, family, from, to, .. } = ledger;
    let time = |unix_ms: Option<i64>| unix_ms.map(instant::format);
    let given = [("family", family.clone()), ("from", time(*from)), ("to", time(*to))];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
    operator::query(operator::LEDGER, [("guest", guest.clone())].into_iter().chain(given))
}

async fn opened(
    open: impl AsyncFnOnce() -> Result<Opened, String>,
    nobody: &str,
) -> Result<Opened, CommandError> {
    let text = |error| format!("{nobody}, and {error}; name a running adapter with --url");
    open().await.map_err(|error| CommandError::Failed(text(error)))
}

/// Closes a store after it was asked; the answer's error goes before its own.
async fn closed<T>(engine: &Engine, answer: Result<T, CommandError>) -> Result<T, CommandError> {
    let closed = engine.close().await;
    let answer = answer?;
    closed.map_err(failed)?;
    Ok(answer)
}

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

fn print_status(out: &mut impl Write, ask: &AskFlags, status: &Status) -> Result<(), CommandError> {
    if ask.json {
        serde_json::to_writer_pretty(&mut *out, status).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{status}")?;
    }
    Ok(())
}

/// An answer is whole with its last line, and with the end of its body.
fn print_lines(
    out: &mut impl Write,
    ask: &AskFlags,
    body: client::Body,
) -> Result<(), CommandError> {
    let mut whole = false;
    for text in body.lines() {
        let text = text.map_err(|error| failed(format!("the answer was cut short: {error}")))?;
        let line: Line = serde_json::from_str(&text)
            .map_err(|error| failed(format!("the adapter's answer is no printout: {error}")))?;
        whole = matches!(line, Line::End(_));
        print_line(out, ask, &line)?;
    }
    if whole { Ok(()) } else { Err(failed("the answer was cut short; ask again")) }
}

fn print_line(out: &mut impl Write, ask: &AskFlags, line: &Line) -> Result<(), CommandError> {
    if ask.json {
        serde_json::to_writer(&mut *out, line).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{line}")?;
    }
    Ok(())
}

async fn print_account(
    out: &mut impl Write,
    ledger: &LedgerFlags,
    usage: &Arc<Usage>,
) -> Result<(), CommandError> {
    let families = ledger.family.as_deref().map_or(Ok(Family::ALL.to_vec()), Family::list);
    let wanted = Wanted {
        name: ledger.guest.clone(),
        families: families.map_err(failed)?,
        minutes: Minutes {
            from_ms: ledger.from.unwrap_or_else(|| usage.kept_from_ms()),
            to_ms: ledger.to.unwrap_or_else(|| usage.now_ms()),
        },
    };
    if wanted.minutes.from_ms >= wanted.minutes.to_ms {
        return Err(failed("--from is not before --to"));
    }
    let mut account = Account::open(usage, wanted).await.map_err(failed)?;
    while let Some(lines) = account.next().await.map_err(failed)? {
        for line in &lines {
            print_line(out, &ledger.ask, line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_on_this_machine_is_found_where_it_listens() {
        for (listen_address, url) in [
            ("127.0.0.1:9201", "http://127.0.0.1:9201"),
            (":9300", "http://127.0.0.1:9300"),
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://127.0.0.1:1"),
            ("[::1]:1", "http://[::1]:1"),
            ("kanyun.example:9201", "http://kanyun.example:9201"),
        ] {
            assert_eq!(here(listen_address), url);
        }
    }

    #[test]
    fn half_a_printout_is_a_fault() {
        let ask =
            AskFlags { url: None, user: None, password_file: None, ca_file: None, json: true };
        let begin = r#"{"begin":{"guest":"u","from":"a","to":"b","kept_from":"c"}}"#;
        let end = r#"{"end":{"missing":[]}}"#;
        let print = |text: String| {
            let mut out = Vec::new();
            let body: Box<dyn io::Read> = Box::new(io::Cursor::new(text));
            let printed = print_lines(&mut out, &ask, io::BufReader::new(body));
            printed.map(|()| String::from_utf8(out).unwrap()).map_err(|error| error.to_string())
        };
        let whole = format!("{begin}\n{end}\n");
        assert_eq!(print(whole.clone()), Ok(whole));
        assert!(print(format!("{begin}\n")).unwrap_err().contains("cut short"));
        assert!(print(String::new()).unwrap_err().contains("cut short"));
        assert!(print("nonsense\n".to_owned()).unwrap_err().contains("no printout"));
    }
}
