//! What is collected and shown: collectors by their names, and which guests. Pure; knows neither libvirt nor Prometheus
//! nor flags.

pub mod guests;

use std::ops::BitOr;

/// A part of the page that can be left out, as flags (`--collector.cpu`) and scrapes (`?collect[]=cpu`) name it.
/// Beside them a page always says who the guests are and how they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CollectorName {
    /// Processor time of guests.
    Cpu,
    /// Virtual processors, each.
    Vcpu,
    /// Memory.
    Memory,
    /// Disks.
    Block,
    /// Network interfaces.
    Interface,
    /// What guests, disks and interfaces are, and who owns them.
    Metadata,
    /// Limits that guests' XML sets.
    Limits,
    /// Seconds in each state, and what was allocated meanwhile.
    Allocation,
    /// Progress of jobs such as migrations.
    Job,
    /// Storage pools.
    Pool,
    /// The host.
    Node,
    /// Hardware counters that a guest's XML asks for.
    Perf,
    /// Cache and memory bandwidth that a guest's XML has monitored.
    Monitor,
    /// Threads for input and output.
    Iothread,
    /// How fast guests write to their memory, where somebody has it measured.
    Dirtyrate,
    /// KVM's own counters.
    Kvm,
    /// On which of the host's processors each vCPU ran last.
    Placement,
    /// External traffic.
    Traffic,
}

impl CollectorName {
    /// All, in the order of the page.
    pub const ALL: [Self; 18] = [
        Self::Cpu,
        Self::Vcpu,
        Self::Memory,
        Self::Block,
        Self::Interface,
        Self::Metadata,
        Self::Limits,
        Self::Allocation,
        Self::Job,
        Self::Pool,
        Self::Node,
        Self::Perf,
        Self::Monitor,
        Self::Iothread,
        Self::Dirtyrate,
        Self::Kvm,
        Self::Placement,
        Self::Traffic,
    ];

    /// As flags and scrapes spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Vcpu => "vcpu",
            Self::Memory => "memory",
            Self::Block => "block",
            Self::Interface => "interface",
            Self::Metadata => "metadata",
            Self::Limits => "limits",
            Self::Allocation => "allocation",
            Self::Job => "job",
            Self::Pool => "pool",
            Self::Node => "node",
            Self::Perf => "perf",
            Self::Monitor => "monitor",
            Self::Iothread => "iothread",
            Self::Dirtyrate => "dirtyrate",
            Self::Kvm => "kvm",
            Self::Placement => "placement",
            Self::Traffic => "traffic",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|collector| collector.name() == name)
    }

    /// Whether it is collected where no flag says otherwise. Those that are not cost each guest's monitor a question more,
    /// or need rights that the exporter does not have by default.
    pub fn is_default(self) -> bool {
        !matches!(
            self,
            Self::Iothread | Self::Dirtyrate | Self::Kvm | Self::Placement | Self::Traffic
        )
    }
}

/// A set of collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collectors(u32);

impl Collectors {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub fn all() -> Self {
        CollectorName::ALL.into_iter().collect()
    }

    /// Those that are collected where no flag says otherwise.
    pub fn by_default() -> Self {
        CollectorName::ALL.into_iter().filter(|name| name.is_default()).collect()
    }

    /// Whether it is one of them.
    pub fn has(self, name: CollectorName) -> bool {
        self.0 & Self::bit(name) != 0
    }

    /// Whether guests' monitors have to be asked for any of them.
    pub fn needs_monitors(self) -> bool {
        let without = [
            CollectorName::Interface,
            CollectorName::Metadata,
            CollectorName::Limits,
            CollectorName::Pool,
            CollectorName::Node,
            CollectorName::Traffic,
        ];
        !without.into_iter().collect::<Self>().covers(self)
    }

    /// Whether all of `others` are among them.
    pub fn covers(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These with one more, or with one less.
    #[must_use]
    pub fn with(self, name: CollectorName, wanted: bool) -> Self {
        let bit = Self::bit(name);
        Self(if wanted { self.0 | bit } else { self.0 & !bit })
    }

    /// What a scrape gets whose query asks for some by `collect[]=NAME` (else all that are on) and leaves some out by
    /// `exclude[]=NAME`. A name that is none, or that is switched off, is an error: its figures would be missing without
    /// a word.
    pub fn asked(self, query: &str) -> Result<Self, String> {
        let mut wanted = None;
        let mut excluded = Self::NONE;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_collect = is_key(key, "collect");
            if !is_collect && !is_key(key, "exclude") {
                continue;
            }
            let name = CollectorName::named(value)
                .ok_or_else(|| format!("there is no collector {value:?}"))?;
            if is_collect {
                if !self.has(name) {
                    return Err(format!("the collector {value} is switched off"));
                }
                wanted = Some(wanted.unwrap_or(Self::NONE).with(name, true));
            } else {
                excluded = excluded.with(name, true);
            }
        }
        Ok(Self(wanted.unwrap_or(self).0 & !excluded.0))
    }

    fn bit(name: CollectorName) -> u32 {
        1 << name as u32
    }
}

/// `collect[]`, with its brackets plain or escaped as clients may send them.
fn is_key(key: &str, name: &str) -> bool {
    let brackets = key.strip_prefix(name).map(str::to_ascii_lowercase);
    matches!(brackets.as_deref(), Some("[]" | "%5b%5d" | "[%5d" | "%5b]"))
}

impl FromIterator<CollectorName> for Collectors {
    fn from_iter<I: IntoIterator<Item = CollectorName>>(names: I) -> Self {
        names.into_iter().fold(Self::NONE, |set, name| set.with(name, true))
    }
}

impl BitOr for Collectors {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for name in CollectorName::ALL {
            assert_eq!(CollectorName::named(name.name()), Some(name));
        }
        assert_eq!(CollectorName::named("CPU"), None);
        assert!(Collectors::all().covers(Collectors::by_default()));
        assert!(!Collectors::by_default().covers(Collectors::all()));
    }

    #[test]
    fn some_are_had_without_asking_monitors() {
        let some = |names: &[CollectorName]| names.iter().copied().collect::<Collectors>();
        assert!(!some(&[CollectorName::Interface, CollectorName::Pool]).needs_monitors());
        assert!(!Collectors::NONE.needs_monitors());
        assert!(some(&[CollectorName::Interface, CollectorName::Cpu]).needs_monitors());
        assert!(some(&[CollectorName::Allocation]).needs_monitors());
    }

    #[test]
    fn a_scrape_asks_for_some() {
        use CollectorName::{Block, Cpu, Kvm, Memory};
        let on = Collectors::by_default();
        assert_eq!(on.asked(""), Ok(on));
        assert_eq!(on.asked("x=1&collect=cpu"), Ok(on));
        assert_eq!(
            on.asked("collect[]=cpu&collect%5B%5D=block"),
            Ok([Cpu, Block].into_iter().collect())
        );
        assert_eq!(on.asked("exclude[]=memory"), Ok(on.with(Memory, false)));
        assert_eq!(on.asked("collect[]=cpu&exclude[]=cpu"), Ok(Collectors::NONE));
        assert!(on.asked("collect[]=kvm").unwrap_err().contains("switched off"));
        assert_eq!(on.asked("exclude[]=kvm"), Ok(on.with(Kvm, false)));
        assert!(on.asked("collect[]=cpus").unwrap_err().contains("no collector \"cpus\""));
        assert!(on.asked("exclude[]=").is_err());
    }
}
