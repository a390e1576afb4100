//! The program's flags, and what they mean. Environment variables and the settings file come in through `serve`.

mod inherited;
mod selection;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub use selection::{CollectorFlags, GuestFlags};
use serve::settings::ServiceFlags;

pub use inherited::InheritedFlags;

use crate::families::Style;
pub use crate::families::profile::Profile;
use crate::selection::Collectors;

/// Longest time that a flag may ask for; a scrape of more makes no sense, and additions to the clock stay safe.
const DURATION_MAX: Duration = Duration::from_hours(1);

/// Kanyun's libvirt exporter: the guests of this host as Prometheus metrics
#[derive(Clone, Debug, Parser)]
#[command(name = "kanyun-exporter", version)]
#[command(mut_arg("listen_addresses", |arg| arg.default_value(":9177").required(false)))]
#[command(mut_arg("config_file", |arg| arg.global(true)))]
pub struct Config {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics")]
    #[arg(value_parser = telemetry_path)]
    pub telemetry_path: String,

    /// libvirt to read from, always read-only: a libvirt URI, or the path of its socket such as
    /// /run/libvirt/libvirt-sock-ro
    #[arg(long = "libvirt.uri", value_name = "URI|PATH", default_value = "qemu:///system")]
    #[arg(global = true)]
    pub libvirt_uri: String,

    /// Recording to serve instead of asking libvirt, as `kanyun-exporter record` makes them
    #[arg(long = "libvirt.replay", value_name = "FILE", global = true)]
    pub replay: Option<PathBuf>,

    /// Folder with the guests' pid files, from which their start times are known
    #[arg(long = "libvirt.run-directory", value_name = "DIR", default_value = "/run/libvirt/qemu")]
    #[arg(global = true)]
    pub run_directory: PathBuf,

    /// Whose names metrics have: inovex' or Tinkoff's
    #[arg(long = "metrics.profile", value_name = "inovex|tinkoff", default_value = "inovex")]
    #[arg(value_parser = profile)]
    pub profile: Profile,

    /// Time for a scrape whose request does not say how long Prometheus waits
    #[arg(long = "scrape.timeout", value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = duration)]
    pub scrape_timeout: Duration,

    /// How long before Prometheus' own timeout a scrape is answered with what is there
    #[arg(long = "scrape.timeout-offset", value_name = "DURATION", default_value = "500ms")]
    #[arg(value_parser = duration)]
    pub scrape_timeout_offset: Duration,

    /// Oldest figures that are shown of a guest that does not answer; 0 shows none but this scrape's
    #[arg(long = "scrape.max-age", value_name = "DURATION", default_value = "2m")]
    #[arg(value_parser = age)]
    pub scrape_max_age: Duration,

    /// Connections by which guests' monitors are read side by side
    #[arg(long = "libvirt.connections", value_name = "NUMBER", default_value = "4")]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=i64::from(inherited::CONNECTIONS_MAX)))]
    libvirt_connections: u8,

    /// Flags that other exporters have.
    #[command(flatten)]
    pub inherited: InheritedFlags,

    /// What is collected.
    #[command(flatten)]
    pub collectors: CollectorFlags,

    /// What of it is shown.
    #[command(flatten)]
    pub guests: GuestFlags,

    /// Where external traffic is counted.
    #[command(flatten)]
    pub traffic: TrafficFlags,

    /// Flags of every service.
    #[command(flatten)]
    pub service: ServiceFlags,
}

/// Where external traffic is counted.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "External traffic", about = None, long_about = None)]
pub struct TrafficFlags {
    /// Firewall that holds the accounting rules
    #[arg(long = "traffic.firewall", value_enum, default_value = "iptables", global = true)]
    pub firewall: FirewallKind,

    /// Network namespace that they are in, by the name that `ip netns` knows, or by its path; needs CAP_SYS_ADMIN
    #[arg(long = "traffic.netns", value_name = "NAME|PATH", global = true, value_parser = netns)]
    pub netns: Option<String>,

    /// Socket on which a helper prints the rules, so that the exporter needs no capability; read by --collector.traffic alone
    #[arg(long = "traffic.socket", value_name = "PATH", global = true, conflicts_with = "netns")]
    pub socket: Option<PathBuf>,

    /// With nftables, the table that holds them
    #[arg(long = "traffic.table", value_name = "FAMILY NAME", global = true)]
    #[arg(default_value = "inet kanyun", value_parser = table)]
    pub table: String,
}

/// A firewall of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FirewallKind {
    /// The filter tables of iptables and ip6tables, legacy or nft, whichever the host's commands are.
    Iptables,
    /// A table of nftables.
    Nftables,
}

/// What an operator does on a hypervisor. Without one of them the exporter serves.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Shows the guests' external traffic, and the rules that count it
    #[command(subcommand)]
    Traffic(TrafficCommand),
    /// Shows the guests' figures as Kanyun's families
    Guests(Repeat),
    /// Writes what libvirt says now to a file, for --libvirt.replay and for reports of faults
    Record(RecordFlags),
    /// Shows who a guest is: libvirt's name, uuid, nova's name, project
    Guest {
        /// libvirt's name, nova's number or the uuid; what follows an @ is passed over
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// Where to.
#[derive(Args, Clone, Debug)]
#[command(about = None, long_about = None)]
pub struct RecordFlags {
    /// File to write, or - for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Replace names, ids, addresses and paths by others, so that the recording can be given away
    #[arg(long = "anonymise")]
    pub anonymise: bool,
}

/// What can be done about external traffic.
#[derive(Clone, Debug, Subcommand)]
pub enum TrafficCommand {
    /// Shows what the accounting rules have counted
    Show(Repeat),
    /// Prints the commands that would make the missing rules, and changes nothing
    Print(RuleFlags),
    /// Makes the missing rules
    Apply(RuleFlags),
    /// Takes away the rules that apply has made, and no others
    Remove,
}

/// How often to look.
#[derive(Args, Clone, Copy, Debug)]
#[command(about = None, long_about = None)]
pub struct Repeat {
    /// Show it again every so many seconds, with what came in between
    #[arg(value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
}

/// Which rules to make. Addresses are those of nova's metadata, of accounting rules that are there, and those given here.
#[derive(Args, Clone, Debug)]
#[command(about = None, long_about = None)]
pub struct RuleFlags {
    /// Public interface: traffic by it is external; may be given several times
    #[arg(long = "interface", value_name = "NAME", required = true)]
    #[arg(value_parser = crate::traffic::plan::interface)]
    pub interfaces: Vec<String>,

    /// Directions to count
    #[arg(long = "direction", value_enum, default_value = "out")]
    pub direction: Directions,

    /// File of guests' addresses, a guest's id and an address a line
    #[arg(long = "addresses", value_name = "FILE")]
    pub addresses: Option<PathBuf>,

    /// A guest's id and an address of it; may be given several times
    #[arg(long = "address", num_args = 2, value_names = ["ID", "ADDRESS"])]
    pub address: Vec<String>,
}

/// One direction, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Directions {
    /// To the guests.
    In,
    /// From the guests, as Kanyun billed.
    Out,
    /// Both.
    Both,
}

/// The command line in today's words, where it is one of 2012's: `-n [SECONDS]`, `-vm [SECONDS]`, `-vi ID`,
/// `-cmd ID IP IFACE`, `listip -a IFACE` (kanyun-legacy.md, Command line).
pub fn today(args: Vec<OsString>) -> Vec<OsString> {
    let words: Vec<&str> = args.iter().skip(1).filter_map(|arg| arg.to_str()).collect();
    let now: Vec<&str> = match words.as_slice() {
        ["-n", rest @ ..] => [&["traffic", "show"], rest].concat(),
        ["-vm", rest @ ..] => [&["guests"], rest].concat(),
        ["-vi", rest @ ..] => [&["guest"], rest].concat(),
        ["-cmd", id, ip, interface] => {
            vec!["traffic", "print", "--interface", interface, "--address", id, ip]
        }
        ["listip", "-a", interface] => vec!["traffic", "apply", "--interface", interface],
        _ => return args,
    };
    args.iter().take(1).cloned().chain(now.into_iter().map(OsString::from)).collect()
}

impl Config {
    /// What is collected.
    pub fn collected(&self) -> Collectors {
        self.collectors.collectors(self.profile)
    }

    /// How a page of these collectors is written.
    pub fn style(&self, collectors: Collectors) -> Style {
        let (labels, guests) = (self.guests.added_labels(), self.guests.filter());
        Style { profile: self.profile, collectors, labels, guests }
    }

    /// Connections by which guests' monitors are read side by side.
    pub fn connections(&self) -> u8 {
        self.inherited.connections().unwrap_or(self.libvirt_connections)
    }

    /// How long a scrape may take: what Prometheus says in X-Prometheus-Scrape-Timeout-Seconds, less the offset (but at
    /// least half of it, should the offset be longer); without the header, or with nonsense in it, --scrape.timeout.
    pub fn scrape_time(&self, header: Option<&str>) -> Duration {
        let asked = header
            .and_then(|text| text.trim().parse::<f64>().ok())
            .filter(|seconds| *seconds > 0.0 && *seconds <= DURATION_MAX.as_secs_f64())
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match asked {
            Some(asked) => asked.saturating_sub(self.scrape_timeout_offset).max(asked / 2),
            None => self.scrape_timeout,
        }
    }
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "inovex" => Ok(Profile::Inovex),
        "tinkoff" => Ok(Profile::Tinkoff),
        _ => Err("there is no such profile; use inovex or tinkoff".to_owned()),
    }
}

fn netns(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    let is_path = text.starts_with('/');
    if !text.is_empty() && text.bytes().all(plain) && (is_path || !text.contains(['/', ':'])) {
        return Ok(text.to_owned());
    }
    Err("give a name as ip netns lists them, or a path such as /run/netns/NAME".to_owned())
}

fn table(text: &str) -> Result<String, String> {
    let plain = |word: &&str| {
        word.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["inet", name] if plain(name) => Ok(format!("inet {name}")),
        _ => Err("give a table of the family inet, such as \"inet kanyun\"".to_owned()),
    }
}

fn telemetry_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.len() > 1 && !text.contains(['?', '#', ' ']) {
        let taken = || format!("{text} is another page of this program: paths in /-/ are its own");
        return if text.starts_with("/-/") { Err(taken()) } else { Ok(text.to_owned()) };
    }
    Err("a path begins with a slash, such as /metrics, and is not the start page".to_owned())
}

/// The same; what is there anyway may be named.
fn health_path(text: &str) -> Result<String, String> {
    if text == "/-/healthy" { Ok(text.to_owned()) } else { telemetry_path(text) }
}

/// A duration, or none at all.
fn age(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

/// `500ms`, `10s`, `2m`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a time such as 500ms, 10s or 1m, more than 0 and at most 1h".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match text.strip_prefix(digits) {
        Some("ms") => number / 1e3,
        Some("s" | "") => number,
        Some("m") => number * 60.0,
        Some("h") => number * 3600.0,
        _ => return Err(wrong()),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    (!duration.is_zero() && duration <= DURATION_MAX).then_some(duration).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("kanyun-exporter").chain(args.iter().copied());
        serve::settings::parse(args.map(Into::into)).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let config = config(&[]).unwrap();
        assert_eq!(config.service.listen_addresses, [":9177"]);
        assert_eq!(config.telemetry_path, "/metrics");
        assert_eq!(config.libvirt_uri, "qemu:///system");
        assert_eq!(config.profile, Profile::Inovex);
    }

    #[test]
    fn profiles() {
        let tinkoff = config(&["--metrics.profile=tinkoff"]).unwrap();
        assert_eq!(tinkoff.profile, Profile::Tinkoff);
        assert!(config(&["--metrics.profile=other"]).is_err());
    }

    #[test]
    fn collectors_are_switched() {
        use crate::selection::CollectorName::{Cpu, Kvm, Memory, Placement, Traffic};
        let collected = |args: &[&str]| config(args).unwrap().collected();
        let defaults = collected(&[]);
        assert_eq!(defaults, Collectors::by_default());
        assert_eq!(collected(&["--no-collector.cpu"]), defaults.with(Cpu, false));
        assert_eq!(collected(&["--collector.cpu=false"]), defaults.with(Cpu, false));
        assert_eq!(
            collected(&["--collector.kvm", "--collector.traffic"]),
            defaults.with(Kvm, true).with(Traffic, true)
        );
        assert_eq!(collected(&["--metrics.profile=tinkoff"]), defaults.with(Placement, true));
        assert_eq!(collected(&["--metrics.profile=tinkoff", "--no-collector.placement"]), defaults);
        let one = Collectors::NONE.with(Memory, true);
        assert_eq!(collected(&["--collector.disable-defaults", "--collector.memory"]), one);
        assert!(config(&["--collector.nothing"]).is_err());
        assert!(config(&["--collector.cpu=perhaps"]).is_err());
    }

    #[test]
    fn guests_and_labels_are_chosen() {
        use crate::families::labels::AddedLabel::{InstanceId, ProjectId};
        let chosen = config(&["--labels.add=project_id,instance_id,project_id"]).unwrap();
        assert_eq!(chosen.guests.added_labels(), [ProjectId, InstanceId]);
        let error = config(&["--labels.add=project"]).unwrap_err();
        assert!(error.contains("instance_id"), "{error}");
        assert!(config(&["--guests.include-name=("]).is_err());
        let chosen = config(&["--guests.exclude-name=b.*"]).unwrap().guests.filter();
        let guest = |name: &str| crate::snapshot::Guest { name: name.into(), ..Default::default() };
        assert!(chosen.shows(&guest("a")) && !chosen.shows(&guest("b1")));
    }

    #[test]
    fn commands_of_2012() {
        let command = |args: &[&str]| {
            let args = std::iter::once("kanyun").chain(args.iter().copied()).map(Into::into);
            let config: Config = serve::settings::parse(today(args.collect())).unwrap();
            config.command.map(|command| format!("{command:?}"))
        };
        for (old, new) in [
            (&["-n", "5"][..], &["traffic", "show", "5"][..]),
            (&["-n"], &["traffic", "show"]),
            (&["-vm", "60"], &["guests", "60"]),
            (&["-vi", "116"], &["guest", "116"]),
            (
                &["-cmd", "116", "10.0.0.2", "eth0"],
                &["traffic", "print", "--interface=eth0", "--address", "116", "10.0.0.2"],
            ),
            (&["listip", "-a", "eth0"], &["traffic", "apply", "--interface=eth0"]),
        ] {
            assert_eq!(command(old), command(new));
            assert!(command(new).is_some(), "{new:?}");
        }
        assert_eq!(command(&["--log.level=debug"]), None);
    }

    #[test]
    fn what_reaches_a_firewalls_language_is_plain() {
        for args in [
            &["--traffic.netns=a b"][..],
            &["--traffic.netns=a/b"],
            &["--traffic.netns=/run/x;reboot"],
            &["--traffic.table=kanyun"],
            &["--traffic.table=ip kanyun"],
            &["--traffic.table=inet a;b"],
            &["traffic", "apply"],
            &["traffic", "apply", "--interface=-o"],
            &["traffic", "apply", "--interface=eth0", "--address", "116"],
            &["traffic", "show", "0"],
        ] {
            assert!(config(args).is_err(), "{args:?}");
        }
        let config =
            config(&["--traffic.table= inet  acct ", "--traffic.netns=qrouter-1"]).unwrap();
        assert_eq!(config.traffic.table, "inet acct");
        assert_eq!(config.traffic.netns.as_deref(), Some("qrouter-1"));
    }

    #[test]
    fn the_scrapes_time() {
        let config = config(&["--scrape.timeout-offset=500ms", "--scrape.timeout=7s"]).unwrap();
        let time = |header| config.scrape_time(header).as_secs_f64();
        assert!((time(Some("10")) - 9.5).abs() < 1e-9);
        assert!((time(Some("0.6")) - 0.3).abs() < 1e-9);
        for header in [
            None,
            Some(""),
            Some("x"),
            Some("-1"),
            Some("0"),
            Some("NaN"),
            Some("inf"),
            Some("1e300"),
        ] {
            assert!((time(header) - 7.0).abs() < 1e-9, "{header:?}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_mins(1)));
        for text in ["", "s", "-1s", "0s", "2h", "1d", "NaN", "inf", "1e400s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn old_figures_can_be_done_without() {
        for (text, seconds) in [("0", 0), ("0s", 0), ("90s", 90), ("2m", 120)] {
            let config = config(&[&format!("--scrape.max-age={text}")]).unwrap();
            assert_eq!(config.scrape_max_age, Duration::from_secs(seconds), "{text}");
        }
        assert!(config(&["--scrape.max-age=-1s"]).is_err());
        assert!(config(&["--libvirt.connections=0"]).is_err());
    }

    #[test]
    fn command_lines_of_other_exporters() {
        // What Kolla, Debian's package and the charms start.
        for args in [
            &["--libvirt.uri=/var/run/libvirt/libvirt-sock-ro", "--web.listen-address=:9177"][..],
            &["--libvirt.uri", "/x", "--libvirt.driver", "qemu:///system", "--log.level=info"],
            &["--libvirt.uri=qemu:///system", "--web.telemetry-path=/metrics"],
            &["--web.config.file=/x", "--log.format=json", "--web.health-path=/health"],
        ] {
            assert_eq!(config(args).unwrap().inherited.remarks(), [""; 0], "{args:?}");
        }
        let old = config(&[
            "--exporter.timeout=3s",
            "--exporter.max-concurrent-collects=16",
            "--libvirt.export-nova-metadata",
        ]);
        let old = old.unwrap();
        assert_eq!((old.connections(), old.inherited.remarks().len()), (8, 3));
        assert_eq!(config(&["--exporter.max-concurrent-collects=2"]).unwrap().connections(), 2);
        assert_eq!(config(&["--libvirt.connections=3"]).unwrap().connections(), 3);
        assert!(config(&["--libvirt.driver=qemu:///system?socket=/x"]).is_err());
    }

    #[test]
    fn telemetry_paths() {
        assert!(config(&["--web.telemetry-path=/m"]).is_ok());
        for path in ["", "/", "metrics", "/a?b", "/-/ready", "/-/healthy"] {
            assert!(config(&["--web.telemetry-path", path]).is_err(), "{path}");
        }
        assert!(config(&["--web.health-path=/-/healthy"]).is_ok());
        assert!(config(&["--web.health-path=/-/ready"]).is_err());
    }
}
