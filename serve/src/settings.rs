//! Settings: flag over environment over file over default. Every long flag of a clap command
//! also gets an environment variable and a key of the YAML file given by --config.file.
//! It must not know which flags a binary has, those of every service apart.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args, Command, Parser};
use thiserror::Error;

use crate::log::{Format, Level};

mod file;

pub use file::FileError;

/// What every environment variable of ours starts with.
const VARIABLE_PREFIX: &str = "KANYUN_";

/// The flag that names the settings file.
const FILE_FLAG: &str = "config.file";

/// Flags that only make sense on a command line.
const NOT_SETTABLE: [&str; 4] = ["config.file", "config.check", "help", "version"];

/// The flags of every service. A binary flattens them into its own and gives the address a
/// default by `#[command(mut_arg("listen_addresses", |arg| arg.required(false).default_value(":9177")))]`.
#[derive(Args, Clone, Debug)]
// Without the last two, clap would show the comment above as the binary's own description.
#[command(next_help_heading = "Service", about = None, long_about = None)]
pub struct ServiceFlags {
    /// Address to listen on; `:PORT` means all interfaces; may be given several times
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", required = true)]
    #[arg(value_delimiter = ',')]
    pub listen_addresses: Vec<String>,

    /// Listen on the sockets that systemd hands over, and on no address
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,

    /// Web config file with TLS, HTTP headers and basic auth users, in the format that
    /// Prometheus and its exporters share
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,

    /// Least grave level that is logged
    #[arg(long = "log.level", value_name = "LEVEL", value_enum, default_value = "info")]
    pub log_level: Level,

    /// Form of a log line
    #[arg(long = "log.format", value_name = "FORMAT", value_enum, default_value = "logfmt")]
    pub log_format: Format,

    /// YAML file of settings, each under the name of its flag; a flag or an environment variable
    /// goes before it
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Check all settings and the web config file, then exit
    #[arg(long = "config.check")]
    pub config_check: bool,
}

/// Why there are no settings; also the way out for --help and --version.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// --help or --version, or a value that clap refused.
    #[error("{text}")]
    Flags {
        /// What clap says, with the origin of the wrong value.
        text: String,
        /// For the exit code, the stream and the colours.
        #[source]
        clap: Box<clap::Error>,
    },
    /// The settings file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SettingsError {
    /// 0 after --help and --version, 2 for a fault, as clap does.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Flags { clap, .. } => u8::try_from(clap.exit_code()).unwrap_or(2),
            Self::File(_) => 2,
        }
    }

    /// Writes help and version to standard output, a fault to standard error.
    pub fn print(&self) -> std::io::Result<()> {
        use std::io::Write as _;
        match self {
            Self::Flags { clap, .. } if clap.exit_code() == 0 => clap.print(),
            Self::Flags { text, .. } => writeln!(std::io::stderr(), "{}", text.trim_end()),
            Self::File(error) => writeln!(std::io::stderr(), "error: {error}"),
        }
    }
}

/// Reads the settings of a program: `args` is its command line, the program's name first.
///
/// Each long flag `a.b-c` takes its value from the command line, else from the environment
/// variable `KANYUN_A_B_C`, else from the key `a.b-c` (flat, or nested as `a: {b-c: …}`) of the
/// file that --config.file or `KANYUN_CONFIG_FILE` names, else from its default.
pub fn parse<T: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, SettingsError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = with_variables(T::command());

    // The help shows the program's defaults, whatever a file says.
    if let Err(error) = command.clone().try_get_matches_from(&args)
        && error.exit_code() == 0
    {
        return Err(refused(error, (&command, &args), None));
    }

    let file = match file_path(&args) {
        Some(path) => Some(file::read(path)?),
        None => None,
    };
    let command = match &file {
        Some(file) => {
            file.check(&settable(&command))?;
            with_defaults(command, file)
        }
        None => command,
    };
    let parsed = command
        .clone()
        .try_get_matches_from(&args)
        .and_then(|mut matches: ArgMatches| T::from_arg_matches_mut(&mut matches));
    parsed.map_err(|error| refused(error, (&command, &args), file.as_ref()))
}

/// The environment variable of a flag.
fn variable(flag: &str) -> String {
    let upper = flag.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    VARIABLE_PREFIX.chars().chain(upper.map(|c| c.to_ascii_uppercase())).collect()
}

fn with_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        // clap's derive makes a plain field required; one with a default is not.
        let required = arg.is_required_set() && arg.get_default_values().is_empty();
        let arg = arg.required(required);
        let Some(variable) = settable_flag(&arg).or(config_file_flag(&arg)).map(variable) else {
            return arg;
        };
        // Values stay out of the help: one may be a password.
        arg.env(variable).hide_env_values(true)
    });
    command.mut_subcommands(with_variables)
}

fn with_defaults(command: Command, file: &file::File) -> Command {
    let command = command.mut_args(|arg| {
        let values = settable_flag(&arg).and_then(|flag| file.values(flag));
        match values {
            Some(values) => arg.default_values(values.to_vec()).required(false),
            None => arg,
        }
    });
    command.mut_subcommands(|command| with_defaults(command, file))
}

fn settable_flag(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|flag| !NOT_SETTABLE.contains(flag))
}

fn config_file_flag(arg: &Arg) -> Option<&str> {
    arg.get_long().filter(|flag| *flag == FILE_FLAG)
}

/// The flags of the command and its subcommands, and whether each may be given more than once.
fn settable(command: &Command) -> Vec<file::Known> {
    let own = command.get_arguments().filter_map(|arg| {
        let repeatable = arg.get_action().takes_values()
            && (matches!(arg.get_action(), clap::ArgAction::Append)
                || arg.get_num_args().is_some_and(|number| number.max_values() > 1));
        settable_flag(arg).map(|flag| file::Known { flag: flag.to_owned(), repeatable })
    });
    own.chain(command.get_subcommands().flat_map(settable)).collect()
}

#[expect(clippy::disallowed_methods, reason = "these are the settings that know the environment")]
fn from_environment(variable: &str) -> Option<OsString> {
    std::env::var(variable).ok().map(OsString::from).or_else(|| std::env::var_os(variable))
}

/// The settings file has to be known before clap can parse with its values as defaults.
fn file_path(args: &[OsString]) -> Option<PathBuf> {
    given(args, FILE_FLAG)
        .or_else(|| from_environment(&variable(FILE_FLAG)))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The last value that the command line gives to a flag.
fn given(args: &[OsString], flag: &str) -> Option<OsString> {
    let long = format!("--{flag}");
    let assigned = format!("{long}=");
    let mut found = None;
    let mut rest = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = rest.next() {
        if *arg == *long {
            found = Some(rest.next().cloned().unwrap_or_default());
        } else if let Some(value) = arg.to_str().and_then(|arg| arg.strip_prefix(&assigned)) {
            found = Some(OsString::from(value));
        }
    }
    found
}

/// Adds to clap's text where a wrong value came from, when that is not the command line.
fn refused(
    clap: clap::Error,
    (command, args): (&Command, &[OsString]),
    file: Option<&file::File>,
) -> SettingsError {
    let mut text = clap.to_string();
    if let Some(place) = place(&clap, command, args) {
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        text = format!("{first}: {place}\n{rest}");
    }
    if let Some(flag) = wrong_flag(&clap)
        && given(args, &flag).is_none()
    {
        let variable = variable(&flag);
        let origin = if from_environment(&variable).is_some() {
            Some(format!("environment variable {variable}"))
        } else {
            file.filter(|file| file.values(&flag).is_some())
                .map(|file| format!("key {flag} of {}", file.path().display()))
        };
        if let Some(origin) = origin {
            let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
            text = format!("{first} (from {origin})\n{rest}");
        }
    }
    SettingsError::Flags { text, clap: Box::new(clap) }
}

/// Where a flag goes that stands on the wrong side of a subcommand's word.
fn place(error: &clap::Error, command: &Command, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let flag = arg.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    let knows = |command: &Command| command.get_arguments().any(|arg| arg.get_long() == Some(flag));
    let is_given = |sub: &&Command| args.iter().any(|arg| arg == sub.get_name());
    let mut subcommands: Vec<&Command> = command.get_subcommands().collect();
    if let Some(given) = subcommands.iter().copied().find(is_given) {
        if knows(command) {
            return Some(format!("it goes before the word {}", given.get_name()));
        }
        subcommands = vec![given];
    }
    let knowing = subcommands.into_iter().filter(|sub| knows(sub)).map(Command::get_name);
    let words = knowing.collect::<Vec<_>>().join(" or ");
    (!words.is_empty()).then(|| format!("it goes behind the word {words}"))
}

/// The flag whose value clap refused, without its dashes.
fn wrong_flag(error: &clap::Error) -> Option<String> {
    let about_a_value = matches!(
        error.kind(),
        ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::InvalidUtf8
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
    );
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) if about_a_value => {
            let flag = arg.strip_prefix("--")?.split([' ', '=', '[']).next()?;
            Some(flag.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
