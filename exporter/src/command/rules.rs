//! `traffic print`, `apply` and `remove`: what is wanted, what is there, and the steps between. Changes the firewall by
//! steps that it can print; knows neither firewall's language.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::{CommandError, snapshot};
use crate::collect::Collector;
use crate::config::{Config, Directions, RuleFlags};
use crate::snapshot::Direction;
use crate::traffic::claims::Claims;
use crate::traffic::firewall::{self, Firewall, Step, Table};
use crate::traffic::plan::{self, ADDRESSES_BYTES_MAX, Wanted};
use crate::traffic::sight::{self, Doubt};

/// How long a program that reads or changes the firewall may take.
const STEP_TIME_MAX: Duration = Duration::from_mins(1);
/// What whoever changes rules holds meanwhile: one for all namespaces of the host, as a change takes a moment.
const LOCK: &str = "/run/kanyun-traffic.lock";

/// Prints what apply would do.
pub(super) async fn print(config: &Config, flags: &RuleFlags) -> Result<(), CommandError> {
    let firewall = Firewall::to_change(&config.traffic);
    let blind = look(&firewall, flags).await?;
    let steps = missing(config, &firewall, flags).await?;
    let mut out = io::stdout().lock();
    for step in &steps {
        writeln!(out, "{step}")?;
    }
    if steps.is_empty() {
        say("nothing is missing")?;
    }
    match blind {
        Some(blind) => Err(CommandError::Failed(format!("apply would refuse: {blind}"))),
        None => Ok(()),
    }
}

/// Makes what is missing.
pub(super) async fn apply(config: &Config, flags: &RuleFlags) -> Result<(), CommandError> {
    let firewall = Firewall::to_change(&config.traffic);
    if let Some(blind) = look(&firewall, flags).await? {
        return Err(CommandError::Failed(format!("no rule was made: {blind}")));
    }
    let _alone = alone().await?;
    carry_out(&missing(config, &firewall, flags).await?, "nothing is missing").await
}

/// Takes away what apply made.
pub(super) async fn remove(config: &Config) -> Result<(), CommandError> {
    let firewall = Firewall::to_change(&config.traffic);
    let _alone = alone().await?;
    let tables = tables(&firewall).await?;
    let steps: Vec<Step> = tables.iter().filter_map(|table| firewall.removal(table)).collect();
    carry_out(&steps, "nothing of ours is there").await
}

/// From reading the rules to changing them nobody else may do the same: both would make what is missing.
async fn alone() -> Result<File, CommandError> {
    firewall::lock(Path::new(LOCK), Instant::now() + STEP_TIME_MAX).await.map_err(CommandError::of)
}

async fn carry_out(steps: &[Step], none: &str) -> Result<(), CommandError> {
    let mut out = io::stdout();
    for step in steps {
        writeln!(out, "{step}")?;
        firewall::output(step, Instant::now() + STEP_TIME_MAX).await.map_err(CommandError::of)?;
    }
    if steps.is_empty() { say(none) } else { Ok(()) }
}

/// Says what speaks against counting here, and returns what forbids it.
async fn look(firewall: &Firewall, flags: &RuleFlags) -> Result<Option<String>, CommandError> {
    let deadline = Instant::now() + STEP_TIME_MAX;
    let network = firewall.network(deadline).await.map_err(CommandError::of)?;
    let mut blind = None;
    for doubt in sight::doubts(&network, &interfaces(flags)) {
        match doubt {
            Doubt::Blind(why) => blind = blind.or(Some(why)),
            Doubt::Dim(why) => say(&format!("warning: {why}"))?,
        }
    }
    Ok(blind)
}

fn interfaces(flags: &RuleFlags) -> BTreeSet<String> {
    flags.interfaces.iter().cloned().collect()
}

async fn tables(firewall: &Firewall) -> Result<Vec<Table>, CommandError> {
    let deadline = Instant::now() + STEP_TIME_MAX;
    firewall.read_for_change(deadline).await.map_err(CommandError::of)
}

/// The steps that lead to what is wanted.
async fn missing(
    config: &Config,
    firewall: &Firewall,
    flags: &RuleFlags,
) -> Result<Vec<Step>, CommandError> {
    let tables = tables(firewall).await?;
    let there = tables.iter().flat_map(|table| &table.found.rules);
    let of_rules = there.map(|rule| (rule.guest.clone(), rule.ip)).collect();
    let mut claims = Claims { given: given(flags)?, of_rules, ..Claims::default() };
    let collector = Collector::new(config, None).map_err(CommandError::of)?;
    let snapshot = snapshot(&collector, config).await?;
    match &snapshot.guests {
        Some(guests) => claims.of_nova = plan::addresses_of(guests),
        None => say("warning: libvirt does not answer: addresses of nova's metadata are left out")?,
    }
    let (mut addresses, disputed) = claims.settled(snapshot.guests.as_deref());
    for dispute in disputed {
        say(&format!("warning: {dispute}"))?;
    }
    // An address with an odd guest in its old comment could not be written again.
    addresses.retain(|(guest, ip)| plan::pair(guest, &ip.to_string()).is_ok());
    if addresses.is_empty() {
        say(
            "no address is known: nova's metadata has none (before 1.1 it never has), no accounting rule is there, and \
             none was given by --addresses or --address",
        )?;
    }
    let directions = match flags.direction {
        Directions::In => vec![Direction::In],
        Directions::Out => vec![Direction::Out],
        Directions::Both => Direction::ALL.to_vec(),
    };
    let wanted = Wanted {
        addresses,
        interfaces: interfaces(flags),
        directions: directions.into_iter().collect(),
    };
    Ok(tables.iter().filter_map(|table| firewall.step(&wanted, table)).collect())
}

/// The addresses of the command line and of its file.
fn given(flags: &RuleFlags) -> Result<BTreeSet<(String, std::net::IpAddr)>, CommandError> {
    let mut addresses = BTreeSet::new();
    for pair in flags.address.chunks_exact(2) {
        if let [id, ip] = pair {
            addresses.insert(plan::pair(id, ip).map_err(CommandError::Failed)?);
        }
    }
    if let Some(path) = &flags.addresses {
        let text = read(path)
            .map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))?;
        let read = plan::read_addresses(&text);
        addresses.extend(
            read.map_err(|error| CommandError::Failed(format!("{}: {error}", path.display())))?,
        );
    }
    Ok(addresses)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(ADDRESSES_BYTES_MAX + 1);
    file.read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > ADDRESSES_BYTES_MAX) {
        return Err(io::Error::other(format!("it is longer than {ADDRESSES_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Beside what a shell could run, so that the output of print stays a script.
fn say(text: &str) -> Result<(), CommandError> {
    Ok(writeln!(io::stderr(), "{text}")?)
}
