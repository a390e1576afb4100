//! `kanyun usage|list|data|workers`: what is asked of an adapter over HTTP, and the table that its
//! answer becomes.

use std::ffi::OsString;
use std::io::{Read as _, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use serve::client::{self, Access};

use super::table::{Format, Table};
use super::{Failure, answer};
use crate::ledger::{Family, TOTAL};
use crate::limits;
use crate::model::instant;
use crate::report::Statistic;

/// The words with which these command lines begin; all others are of 2012.
pub(super) const NAMES: [&str; 9] =
    ["usage", "list", "data", "workers", "help", "-h", "--help", "-V", "--version"];

/// Asks a kanyun-adapter what guests used
#[derive(Debug, Parser)]
#[command(
    name = "kanyun",
    version,
    arg_required_else_help = true,
    after_help = "The command lines of api-client in 2012 are understood as well: api-client --help"
)]
pub(super) struct Commands {
    #[command(subcommand)]
    command: Command,
    // Before or behind the command, as one likes.
    #[command(flatten)]
    adapter: Adapter,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a guest used in a range, by periods
    Usage {
        #[command(flatten)]
        asked: Asked,
        /// What is made of the minutes of a period: sum, max, min, avg, or sam, their number
        #[arg(long, default_value = "sum", value_parser = statistic)]
        statistic: String,
        /// Minutes of a period
        #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        period: u32,
    },
    /// A guest's minutes, one by one
    Data {
        #[command(flatten)]
        asked: Asked,
    },
    /// Who has data of a metric, at all or in a range
    List {
        /// Metric, such as cpu or nic_outgoing
        #[arg(value_parser = family)]
        metric: Family,
        /// Begin of the range, as 2026-11-01T00:00:00 or unix seconds
        #[arg(long, value_name = "TIME", value_parser = instant::parse, allow_negative_numbers = true)]
        from: Option<i64>,
        /// End; without it now
        #[arg(long, value_name = "TIME", value_parser = instant::parse, allow_negative_numbers = true, requires = "from")]
        to: Option<i64>,
    },
    /// Kanyun's workers of 2012 that report to the adapter
    Workers,
}

/// Whose minutes.
#[derive(Debug, Args)]
struct Asked {
    /// Guest, by its uuid, its name, or its name and host as NAME@HOST
    guest: String,
    /// Metric, such as cpu or nic_outgoing
    #[arg(value_parser = family)]
    metric: Family,
    /// One device or address; without it all of them, added
    #[arg(long, value_name = "NAME", default_value = TOTAL)]
    device: String,
    /// Begin, as 2026-11-01T00:00:00 or unix seconds
    #[arg(long, value_name = "TIME", value_parser = instant::parse, allow_negative_numbers = true)]
    from: i64,
    /// End; without it now
    #[arg(long, value_name = "TIME", value_parser = instant::parse, allow_negative_numbers = true)]
    to: Option<i64>,
}

/// Whom to ask, and how to print.
#[derive(Debug, Args)]
struct Adapter {
    /// Adapter to ask
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:9201")]
    url: String,
    /// User, where the adapter asks for one
    #[arg(long, global = true, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// File that holds the user's password
    #[arg(long, global = true, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// PEM file of the certificates to trust; without it those that this machine trusts
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How to print
    #[arg(long, global = true, value_enum, default_value = "table")]
    format: Format,
}

/// A command line, understood.
pub(super) enum Parsed {
    /// Help or version, to print.
    Text(String),
    /// What to do.
    Commands(Commands),
}

#[derive(Debug, Deserialize)]
struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug, Deserialize)]
struct Worker {
    id: String,
    last_seen: String,
    status: String,
}

fn family(name: &str) -> Result<Family, String> {
    Family::named(name).map_err(|error| error.to_string())
}

fn statistic(name: &str) -> Result<String, String> {
    let known = Statistic::named(name).map(|_| name.to_owned());
    known.ok_or_else(|| "none of sum, max, min, avg, sam".to_owned())
}

impl Commands {
    /// Understands a command line, the program's name first.
    pub(super) fn of(args: &[OsString]) -> Result<Parsed, Failure> {
        match Commands::try_parse_from(args) {
            Ok(commands) => Ok(Parsed::Commands(commands)),
            Err(error) if error.exit_code() == 0 => Ok(Parsed::Text(error.to_string())),
            Err(error) => Err(Failure::Usage(error.to_string())),
        }
    }

    /// Asks and prints.
    pub(super) fn run(self, out: &mut impl Write) -> Result<(), Failure> {
        let Commands { command, adapter } = self;
        let table = match command {
            Command::Usage { asked, statistic, period } => {
                let mut args = asked.args();
                args.insert("statistic".to_owned(), statistic.into());
                args.insert("period".to_owned(), period.into());
                of_points(&adapter.ask("query_usage_report", &args)?)?
            }
            Command::Data { asked } => of_points(&adapter.ask("get_data", &asked.args())?)?,
            Command::List { metric, from, to } => {
                let mut args = Map::new();
                args.insert("metric".to_owned(), metric.name().into());
                if let Some(from) = from {
                    args.insert("timestamp_from".to_owned(), instant::format(from).into());
                    args.insert("timestamp_to".to_owned(), to.map(instant::format).into());
                }
                of_ids(adapter.ask("list_instance", &args)?)?
            }
            Command::Workers => adapter.workers()?,
        };
        Ok(table.write(out, adapter.format)?)
    }
}

impl Asked {
    fn args(self) -> Map<String, Value> {
        let pairs: [(&str, Value); 5] = [
            ("id", self.guest.into()),
            ("metric", self.metric.name().into()),
            ("metric_param", self.device.into()),
            ("timestamp_from", instant::format(self.from).into()),
            ("timestamp_to", self.to.map(instant::format).into()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Adapter {
    fn access(&self) -> Access {
        Access {
            url: self.url.clone(),
            login: self.user.clone().zip(self.password_file.clone()),
            ca_file: self.ca_file.clone(),
        }
    }

    /// The `data` of an answer of the 2012 API.
    fn ask(&self, method: &str, args: &Map<String, Value>) -> Result<Value, Failure> {
        let body = json!({"method": method, "args": args}).to_string();
        let answer = client::post(&self.access(), "/query_usage_report", body.as_bytes());
        let body = whole(answer.map_err(|error| Failure::Failed(error.to_string()))?)?;
        answer::data(&body)
    }

    fn workers(&self) -> Result<Table, Failure> {
        let answer = client::get(&self.access(), "/api/v1/workers");
        let body = whole(answer.map_err(|error| Failure::Failed(error.to_string()))?)?;
        let found: Workers = serde_json::from_slice(&body).map_err(|error| {
            Failure::Failed(format!("the adapter's answer is no list of workers: {error}"))
        })?;
        let rows = found.workers.into_iter();
        let rows = rows
            .map(|worker| vec![worker.id.into(), worker.last_seen.into(), worker.status.into()]);
        Ok(Table { columns: &["id", "last_seen", "status"], rows: rows.collect() })
    }
}

fn whole(body: client::Body) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let cut = |error| Failure::Failed(format!("the answer was cut short: {error}"));
    body.take(limits::CLIENT_ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cut)?;
    if bytes.len() as u64 > limits::CLIENT_ANSWER_BYTES_MAX {
        return Err(Failure::Failed("the answer is too large; ask for less".to_owned()));
    }
    Ok(bytes)
}

fn of_points(data: &Value) -> Result<Table, Failure> {
    let mut rows = Vec::new();
    for (seconds, _, value) in answer::points(data)? {
        let begin = instant::of_unix_seconds(seconds).map(instant::format);
        rows.push(vec![begin.into(), value.clone()]);
    }
    Ok(Table { columns: &["start", "value"], rows })
}

fn of_ids(data: Value) -> Result<Table, Failure> {
    let Value::Array(ids) = data else {
        return Err(Failure::Failed("the adapter's answer is no list".to_owned()));
    };
    Ok(Table { columns: &["id"], rows: ids.into_iter().map(|id| vec![id]).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_consistent() {
        Commands::command().debug_assert();
        for command in Commands::command().get_subcommands() {
            assert!(NAMES.contains(&command.get_name()), "{}", command.get_name());
        }
    }

    #[test]
    fn what_is_wrong_is_a_matter_of_usage() {
        for line in [
            "usage",
            "list disk",
            "data u cpu",
            "usage u cpu --from 0 --period 0",
            "usage u cpu --from soon",
        ] {
            let args = std::iter::once("kanyun").chain(line.split(' ')).map(OsString::from);
            let parsed = Commands::of(&args.collect::<Vec<_>>());
            assert!(matches!(parsed, Err(Failure::Usage(_))), "{line}");
        }
    }
}
