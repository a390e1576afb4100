//! Flags that say what is collected and shown: `--collector.NAME`, `--no-collector.NAME`, `--guests.*`, `--labels.add`.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use regex::Regex;

use crate::families::labels::AddedLabel;
use crate::families::profile::Profile;
use crate::selection::guests::{GuestFilter, GuestKey};
use crate::selection::{CollectorName, Collectors};

const HEADING: &str = "Selection";
const DISABLE_DEFAULTS: &str = "collector.disable-defaults";

/// Which collectors are switched on or off. Made by hand, as there is a pair of flags for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectorFlags {
    without_defaults: bool,
    given: Vec<(CollectorName, bool)>,
}

impl CollectorFlags {
    /// What is collected. Tinkoff's exporter always tells where vCPUs run.
    pub fn collectors(&self, profile: Profile) -> Collectors {
        let defaults =
            if self.without_defaults { Collectors::NONE } else { Collectors::by_default() };
        let places = profile == Profile::Tinkoff && !self.without_defaults;
        let defaults = defaults.with(CollectorName::Placement, places);
        self.given.iter().fold(defaults, |set, (name, wanted)| set.with(*name, *wanted))
    }
}

impl Args for CollectorFlags {
    fn augment_args(command: Command) -> Command {
        let defaults = Arg::new(DISABLE_DEFAULTS)
            .long(DISABLE_DEFAULTS)
            .help("Collect nothing but what --collector.NAME names")
            .help_heading(HEADING)
            .action(ArgAction::SetTrue);
        CollectorName::ALL.into_iter().fold(command.arg(defaults), |command, name| {
            let on = Arg::new(on(name))
                .long(on(name))
                .help(format!("Collect {}", what(name)))
                .value_name("true|false")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(clap::value_parser!(bool))
                .help_heading(HEADING)
                .hide(name.is_default());
            let off = Arg::new(off(name))
                .long(off(name))
                .help(format!("Do not collect {}", what(name)))
                .action(ArgAction::SetTrue)
                .help_heading(HEADING)
                .hide(!name.is_default());
            command.arg(on).arg(off)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CollectorFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.without_defaults = matches.get_flag(DISABLE_DEFAULTS);
        self.given.clear();
        for name in CollectorName::ALL {
            let wanted = matches.get_one::<bool>(&on(name)).copied();
            self.given.extend(wanted.map(|wanted| (name, wanted)));
            if matches.get_flag(&off(name)) {
                self.given.push((name, false));
            }
        }
        Ok(())
    }
}

fn on(name: CollectorName) -> String {
    format!("collector.{}", name.name())
}

fn off(name: CollectorName) -> String {
    format!("no-collector.{}", name.name())
}

fn what(name: CollectorName) -> &'static str {
    match name {
        CollectorName::Cpu => "processor time of guests",
        CollectorName::Vcpu => "virtual processors",
        CollectorName::Memory => "memory",
        CollectorName::Block => "disks",
        CollectorName::Interface => "network interfaces",
        CollectorName::Metadata => "what guests, disks and interfaces are, and whose",
        CollectorName::Limits => "limits that guests' XML sets",
        CollectorName::Allocation => "seconds in each state, and what was allocated meanwhile",
        CollectorName::Job => {
            "progress of jobs such as migrations; a call for a fourth of the guests"
        }
        CollectorName::Pool => "storage pools",
        CollectorName::Node => "figures of the host",
        CollectorName::Perf => "hardware counters that guests' XML switched on",
        CollectorName::Monitor => "monitored caches and memory bandwidth",
        CollectorName::Iothread => {
            "threads for input and output; one more question to each guest's monitor"
        }
        CollectorName::Dirtyrate => {
            "the last measured dirty rate; one more question to each guest's monitor"
        }
        CollectorName::Kvm => "KVM's own counters, many; one more question to each guest's monitor",
        CollectorName::Placement => "the host's CPU that each vCPU ran on last; a call a guest",
        CollectorName::Traffic => {
            "external traffic, from the host's accounting rules; needs CAP_NET_ADMIN, or --traffic.socket"
        }
    }
}

/// Which guests are shown, and with which labels.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = HEADING, about = None, long_about = None)]
pub struct GuestFlags {
    /// Show only guests whose whole name matches
    #[arg(long = "guests.include-name", value_name = "REGEX", value_parser = GuestFilter::pattern)]
    pub include_name: Option<Regex>,

    /// Do not show guests whose whole name matches
    #[arg(long = "guests.exclude-name", value_name = "REGEX", value_parser = GuestFilter::pattern)]
    pub exclude_name: Option<Regex>,

    /// Show only guests whose whole uuid matches
    #[arg(long = "guests.include-uuid", value_name = "REGEX", value_parser = GuestFilter::pattern)]
    pub include_uuid: Option<Regex>,

    /// Do not show guests whose whole uuid matches
    #[arg(long = "guests.exclude-uuid", value_name = "REGEX", value_parser = GuestFilter::pattern)]
    pub exclude_uuid: Option<Regex>,

    /// Show only guests of nova's projects whose whole id or name matches
    #[arg(long = "guests.include-project", value_name = "REGEX")]
    #[arg(value_parser = GuestFilter::pattern)]
    pub include_project: Option<Regex>,

    /// Do not show guests of nova's projects whose whole id or name matches
    #[arg(long = "guests.exclude-project", value_name = "REGEX")]
    #[arg(value_parser = GuestFilter::pattern)]
    pub exclude_project: Option<Regex>,

    /// Labels of nova's metadata to put on every series of a guest, such as project_id,instance_id
    #[arg(long = "labels.add", value_name = "NAME", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<AddedLabel>,
}

impl GuestFlags {
    /// Which guests are shown.
    pub fn filter(&self) -> GuestFilter {
        let include = [
            (GuestKey::Name, &self.include_name),
            (GuestKey::Uuid, &self.include_uuid),
            (GuestKey::Project, &self.include_project),
        ];
        let exclude = [
            (GuestKey::Name, &self.exclude_name),
            (GuestKey::Uuid, &self.exclude_uuid),
            (GuestKey::Project, &self.exclude_project),
        ];
        let mut filter = GuestFilter::default();
        for (key, pattern) in include {
            filter = pattern.iter().fold(filter, |all, one| all.including(key, one.clone()));
        }
        for (key, pattern) in exclude {
            filter = pattern.iter().fold(filter, |all, one| all.excluding(key, one.clone()));
        }
        filter
    }

    /// The labels to add, none twice.
    pub fn added_labels(&self) -> Vec<AddedLabel> {
        let mut labels = Vec::new();
        for label in &self.labels {
            if !labels.contains(label) {
                labels.push(*label);
            }
        }
        labels
    }
}

fn label(text: &str) -> Result<AddedLabel, String> {
    let known = || AddedLabel::ALL.map(AddedLabel::name).join(", ");
    AddedLabel::named(text).ok_or_else(|| format!("there is no such label; use {}", known()))
}
