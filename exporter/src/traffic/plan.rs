//! Which accounting rules are missing: what is wanted against what a firewall holds. Pure, and the same for both firewalls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Found, Rule, guest_of, id_of};
use crate::snapshot::{Direction, Guest};

/// Longest name that Linux gives to an interface.
const INTERFACE_BYTES_MAX: usize = 15;
/// Longest file of addresses: some hundred thousand lines.
pub(crate) const ADDRESSES_BYTES_MAX: u64 = 16 << 20;

/// What is to be accounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Guests, as comments name them, and their addresses.
    pub(crate) addresses: BTreeSet<(String, IpAddr)>,
    /// Public interfaces.
    pub(crate) interfaces: BTreeSet<String>,
    /// Directions.
    pub(crate) directions: BTreeSet<Direction>,
}

/// What has to be added to a firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Chains of ours to make.
    pub(crate) chains: Vec<Direction>,
    /// Rules to add.
    pub(crate) accounts: Vec<Account>,
    /// Jumps that are there several times, so that packets are counted as often: all of them are to go, and one to come.
    pub(crate) surplus: BTreeMap<(Direction, String), Vec<Option<u64>>>,
    /// Interfaces to send through our chains.
    pub(crate) jumps: Vec<(Direction, String)>,
}

/// A rule that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// As the comment names the guest.
    pub(crate) guest: String,
    /// Its address.
    pub(crate) ip: IpAddr,
    /// Which way the packets go.
    pub(crate) direction: Direction,
    /// The only interface that it is for, where another rule counts by the others already.
    pub(crate) interface: Option<String>,
}

impl Plan {
    /// Whether nothing is missing.
    pub(crate) fn is_empty(&self) -> bool {
        // What is surplus comes again as a jump.
        self.chains.is_empty() && self.accounts.is_empty() && self.jumps.is_empty()
    }
}

/// What is missing. What any accounting rule counts already, one of 2012 too, gets no second one: both would be added up.
/// Where such a rule is for one interface, the others get a rule each.
pub(crate) fn missing(wanted: &Wanted, found: &Found) -> Plan {
    let mut plan = Plan::default();
    for direction in &wanted.directions {
        let before = plan.accounts.len();
        for (guest, ip) in &wanted.addresses {
            let accounts = interfaces_without(wanted, found, (guest, *ip, *direction));
            plan.accounts.extend(accounts.into_iter().map(|interface| Account {
                guest: guest.clone(),
                ip: *ip,
                direction: *direction,
                interface,
            }));
        }
        let there = found.chains.contains(direction);
        let needed = plan.accounts.len() > before;
        if needed && !there {
            plan.chains.push(*direction);
        }
        for interface in wanted.interfaces.iter().filter(|_| needed || there) {
            let jump = (*direction, interface.clone());
            match found.jumps.get(&jump).map_or(&[][..], Vec::as_slice) {
                [_] => continue,
                [] => {}
                several => {
                    plan.surplus.insert(jump.clone(), several.to_vec());
                }
            }
            plan.jumps.push(jump);
        }
    }
    plan
}

/// The interfaces by which nothing counts the packets; one of `None` where nothing counts them by any.
fn interfaces_without(
    wanted: &Wanted,
    found: &Found,
    (guest, ip, direction): (&str, IpAddr, Direction),
) -> Vec<Option<String>> {
    let named = guest_of(guest);
    let named = named.as_deref().unwrap_or(guest);
    let same = |rule: &&Rule| rule.guest == named && rule.ip == ip && rule.direction == direction;
    let rules: Vec<&Rule> = found.rules.iter().filter(same).collect();
    if rules.is_empty() {
        return vec![None];
    }
    let counts = |interface: &str| rules.iter().any(|rule| is_for(rule, interface));
    let without = wanted.interfaces.iter().filter(|interface| !counts(interface));
    without.cloned().map(Some).collect()
}

/// Whether a rule counts by an interface. Both firewalls' names may end in a sign for all that begin so.
fn is_for(rule: &Rule, interface: &str) -> bool {
    rule.interface.as_deref().is_none_or(|name| {
        name == interface
            || name.strip_suffix(['+', '*']).is_some_and(|begin| interface.starts_with(begin))
    })
}

/// The addresses that nova's metadata gives to guests.
pub(crate) fn addresses_of(guests: &[Guest]) -> BTreeSet<(String, IpAddr)> {
    let with_nova =
        guests.iter().filter_map(|guest| Some((guest, guest.description.as_ref()?.nova.as_ref()?)));
    with_nova
        .flat_map(|(guest, nova)| {
            nova.fixed_addresses.iter().map(|ip| (id_of(guest).to_owned(), *ip))
        })
        .collect()
}

/// Reads lines of `ID ADDRESS`; empty lines and those that begin with # are passed over. The error names the line.
pub(crate) fn read_addresses(text: &str) -> Result<BTreeSet<(String, IpAddr)>, String> {
    let mut addresses = BTreeSet::new();
    for (idx, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, ip] = words.as_slice() else {
            return Err(format!("line {} is not a guest and an address", idx + 1));
        };
        let pair = pair(id, ip).map_err(|error| format!("line {}: {error}", idx + 1))?;
        addresses.insert(pair);
    }
    Ok(addresses)
}

/// A guest and an address that may stand in a comment.
pub(crate) fn pair(id: &str, ip: &str) -> Result<(String, IpAddr), String> {
    let guest = guest_of(id)
        .filter(|name| id_of(&Guest { name: name.clone(), ..Guest::default() }) == name)
        .ok_or_else(|| {
            format!("{id:?} is no guest's id: give nova's number, instance-0000000a, or a uuid")
        })?;
    let ip = ip.parse().map_err(|_| format!("{ip:?} is not an IP address"))?;
    Ok((guest, ip))
}

/// A name that Linux can have given to an interface, without anything that a firewall's language could take for its own.
pub(crate) fn interface(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    let fits = !text.is_empty() && text.len() <= INTERFACE_BYTES_MAX && !text.starts_with('-');
    if fits && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("give an interface's name, such as eth0".to_owned())
}

#[cfg(test)]
mod tests;
