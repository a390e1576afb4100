//! External traffic of guests (Kanyun's vmnetwork): what the host's accounting rules mean. Pure: rules in, counts by guest,
//! address and direction out. The two firewalls' languages and the programs that speak them are below `traffic/`.

pub(crate) mod claims;
pub(crate) mod firewall;
pub(crate) mod iptables;
pub(crate) mod nftables;
pub(crate) mod plan;
pub(crate) mod sight;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::snapshot::{Direction, Flow, Guest, Traffic};

/// How the comment of an accounting rule ends: `<id> <ip> accounting rule` (kanyun-legacy.md, worker to server).
const MARK: [&str; 2] = ["accounting", "rule"];
/// Longest name of a guest that is written into a comment; nftables keeps 128 bytes of one, and an address and the mark
/// need up to 58 of them.
const COMMENT_NAME_MAX: usize = 64;

/// An accounting rule as it stands in a firewall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Guest, as [`guest_of`] spells it.
    pub(crate) guest: String,
    /// The guest's address, from the comment.
    pub(crate) ip: IpAddr,
    /// Which way its packets go.
    pub(crate) direction: Direction,
    /// The public interface that it is for, as the firewall writes it; `None` where it counts by every one.
    pub(crate) interface: Option<String>,
    /// Where the rule stands and what else it matches: two rules alike in this, and for one interface, see the same packets.
    pub(crate) selector: String,
    /// Bytes counted.
    pub(crate) bytes: u64,
    /// Packets counted.
    pub(crate) packets: u64,
}

/// What a firewall holds of what concerns accounting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Rules that can be read.
    pub(crate) rules: Vec<Rule>,
    /// Rules whose comment says that they account, but not for whom or which way.
    pub(crate) unclear: u64,
    /// Chains of ours that are there.
    pub(crate) chains: BTreeSet<Direction>,
    /// Interfaces whose packets are sent through a chain of ours, each with the numbers by which nftables knows the rules
    /// that do so. Where there are several, a packet passes the chain as often.
    pub(crate) jumps: BTreeMap<(Direction, String), Vec<Option<u64>>>,
}

/// What the comment of a rule says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Comment {
    /// Nothing about accounting.
    Other,
    /// It is an accounting rule, but for which guest or address cannot be read.
    Unclear,
    /// Accounts for this guest's address.
    Accounts(String, IpAddr),
}

/// Reads a rule's comment.
pub(crate) fn comment(text: &str) -> Comment {
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some(at) = words.windows(MARK.len()).position(|pair| pair == MARK) else {
        return Comment::Other;
    };
    let word = |back: usize| at.checked_sub(back).and_then(|idx| words.get(idx));
    let ip = word(1).and_then(|ip| ip.parse().ok());
    match (word(2).and_then(|id| guest_of(id)), ip) {
        (Some(guest), Some(ip)) => Comment::Accounts(guest, ip),
        _ => Comment::Unclear,
    }
}

/// The guest that an id means: nova's decimal id is `instance-` and eight hexadecimal digits, what follows an `@` is the
/// host (which is not compared: the rule is on this one), all else libvirt's name or uuid.
pub(crate) fn guest_of(id: &str) -> Option<String> {
    let name = id.split('@').next().filter(|name| !name.is_empty())?;
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().ok().map(|number: u64| format!("instance-{number:08x}"));
    }
    Some(name.to_owned())
}

/// How a rule's comment names a guest: by name, or by uuid where the name could be misread there.
pub(crate) fn id_of(guest: &Guest) -> &str {
    let name = guest.name.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let readable = name.len() <= COMMENT_NAME_MAX && name.bytes().all(plain);
    if readable && guest_of(name).as_deref() == Some(name) { name } else { &guest.uuid }
}

/// What a rule's match on addresses and interfaces says about its direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// Matches one source address.
    pub(crate) source: Option<IpAddr>,
    /// Matches one destination address.
    pub(crate) destination: Option<IpAddr>,
    /// Matches the interface by which a packet comes.
    pub(crate) comes_by: Option<String>,
    /// Matches the interface by which it goes.
    pub(crate) goes_by: Option<String>,
}

impl Ends {
    /// Out where the guest is the source, in where it is the destination; without addresses, by the interface, which is the
    /// public one. The address need not be the comment's: it may be translated later on.
    pub(crate) fn direction(&self, ip: IpAddr) -> Option<Direction> {
        match (self.source, self.destination) {
            (Some(_), None) => Some(Direction::Out),
            (None, Some(_)) => Some(Direction::In),
            (Some(source), Some(destination)) => match (source == ip, destination == ip) {
                (true, false) => Some(Direction::Out),
                (false, true) => Some(Direction::In),
                _ => None,
            },
            (None, None) => match (self.goes_by.is_some(), self.comes_by.is_some()) {
                (true, false) => Some(Direction::Out),
                (false, true) => Some(Direction::In),
                _ => None,
            },
        }
    }

    /// The public interface that a rule of this direction is for.
    pub(crate) fn interface(self, direction: Direction) -> Option<String> {
        match direction {
            Direction::Out => self.goes_by,
            Direction::In => self.comes_by,
        }
    }
}

/// Sums up rules by guest, address and direction. Rules with different matches count different packets and are added, and
/// so are those for different public interfaces, as in 2012; but one for all interfaces has counted what those for single ones
/// have, and the larger figure stands. Of rules that are alike every one has counted the same packets, and the largest stands
/// for all. The sum only grows as long as none of its rules is zeroed or removed by itself.
pub(crate) fn counted<'f>(found: impl IntoIterator<Item = &'f Found>) -> Traffic {
    let mut traffic = Traffic::default();
    let mut sums: BTreeMap<_, BTreeMap<&str, BTreeMap<Option<&str>, Flow>>> = BTreeMap::new();
    for found in found {
        traffic.unclear_rules += found.unclear;
        for rule in &found.rules {
            let key = (rule.guest.as_str(), rule.ip, rule.direction);
            let alike = sums.entry(key).or_default().entry(&rule.selector).or_default();
            let flow = alike.entry(rule.interface.as_deref());
            let flow = flow.or_insert_with(|| empty(rule.guest.clone(), rule.ip, rule.direction));
            flow.bytes = flow.bytes.max(rule.bytes);
            flow.packets = flow.packets.max(rule.packets);
            flow.rules += 1;
        }
    }
    for ((guest, ip, direction), parts) in sums {
        let mut sum = empty(guest.to_owned(), ip, direction);
        for mut by_interface in parts.into_values() {
            let all = by_interface.remove(&None);
            let mut part = empty(guest.to_owned(), ip, direction);
            for flow in by_interface.values() {
                add(&mut part, flow);
            }
            if let Some(all) = all {
                part.bytes = part.bytes.max(all.bytes);
                part.packets = part.packets.max(all.packets);
                part.rules += all.rules;
            }
            add(&mut sum, &part);
        }
        traffic.flows.push(sum);
    }
    traffic
}

/// A guest's flows, and how many rules are for guests that libvirt does not know.
pub(crate) fn of_guests<'g>(
    traffic: &Traffic,
    guests: &'g [Guest],
) -> (Vec<(&'g Guest, Flow)>, u64) {
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (idx, guest) in guests.iter().enumerate() {
        known.insert(&guest.uuid, idx);
    }
    // A name goes before another guest's uuid: it is what nearly all rules hold.
    for (idx, guest) in guests.iter().enumerate() {
        known.insert(&guest.name, idx);
    }
    let (mut sums, mut strangers) = (BTreeMap::new(), 0);
    for flow in &traffic.flows {
        let Some(idx) = known.get(flow.guest.as_str()) else {
            strangers += flow.rules;
            continue;
        };
        // One guest may be named in two ways.
        let key = (*idx, flow.ip, flow.direction);
        let sum =
            sums.entry(key).or_insert_with(|| empty(flow.guest.clone(), flow.ip, flow.direction));
        add(sum, flow);
    }
    let flows = sums.into_iter().filter_map(|((idx, ..), flow)| Some((guests.get(idx)?, flow)));
    (flows.collect(), strangers)
}

fn empty(guest: String, ip: IpAddr, direction: Direction) -> Flow {
    Flow { guest, ip, direction, bytes: 0, packets: 0, rules: 0 }
}

fn add(sum: &mut Flow, part: &Flow) {
    sum.bytes = sum.bytes.saturating_add(part.bytes);
    sum.packets = sum.packets.saturating_add(part.packets);
    sum.rules += part.rules;
}

#[cfg(test)]
mod tests;
