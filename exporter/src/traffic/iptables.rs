//! iptables' language: what `iptables-save -c` prints of the filter table, and what `iptables-restore` is told. Pure. The
//! comments are written by whoever may change the firewall and are not trusted.

use std::net::IpAddr;

use thiserror::Error;

use super::plan::{self, Plan};
use super::{Comment, Ends, Found, Rule, comment};
use crate::snapshot::Direction;

/// Why output of iptables-save is of no use.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum IptablesError {
    /// It ends within the table.
    #[error("the filter table of iptables-save has no end (COMMIT): the output was cut off")]
    CutOff,
    /// A rule without what `-c` asks for.
    #[error("line {0} of iptables-save has no counters ([packets:bytes])")]
    NoCounters(usize),
}

/// Our chain for a direction, in both firewalls.
pub(crate) fn chain(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "kanyun-in",
        Direction::Out => "kanyun-out",
    }
}

/// The direction of a chain of ours.
pub(crate) fn direction_of(name: &str) -> Option<Direction> {
    Direction::ALL.into_iter().find(|direction| chain(*direction) == name)
}

/// Reads what `iptables-save -t filter -c` printed; nothing at all means that there is no such table yet.
pub(crate) fn read(text: &str) -> Result<Found, IptablesError> {
    let mut found = Found::default();
    let mut within = false;
    for (idx, line) in lines(text) {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('*') {
            within = table == "filter";
        } else if line == "COMMIT" {
            within = false;
        } else if !within || line.is_empty() || line.starts_with('#') {
        } else if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap_or_default();
            found.chains.extend(direction_of(name));
        } else {
            rule(line, &mut found).ok_or(IptablesError::NoCounters(idx + 1))?;
        }
    }
    if within { Err(IptablesError::CutOff) } else { Ok(found) }
}

/// Lines with their numbers, from 0. A comment in quotes may hold line ends, and does not end its line.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    let ends = move |letter: char| {
        let is_escaped = std::mem::take(&mut escaped);
        match letter {
            '"' if !is_escaped => quoted = !quoted,
            '\\' if quoted && !is_escaped => escaped = true,
            _ => {}
        }
        letter == '\n' && !quoted
    };
    let mut number = 0;
    text.split(ends).map(move |line| {
        let first = number;
        number += line.matches('\n').count() + 1;
        (first, line)
    })
}

/// Reads `[packets:bytes] -A CHAIN …`; `None` if there are no counters.
fn rule(line: &str, found: &mut Found) -> Option<()> {
    let (counters, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (packets, bytes) = counters.split_once(':')?;
    let (packets, bytes) = (packets.parse().ok()?, bytes.parse().ok()?);
    let words = words(rest);
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["-A", "FORWARD", way @ ("-i" | "-o"), interface, "-j", target] = texts.as_slice() {
        let expected = if *way == "-o" { Direction::Out } else { Direction::In };
        if direction_of(target) == Some(expected) && plan::interface(interface).is_ok() {
            found.jumps.entry((expected, (*interface).to_owned())).or_default().push(None);
        }
        return Some(());
    }
    let (ends, said) = take_apart(&texts);
    let (guest, ip) = match said {
        Comment::Other => return Some(()),
        Comment::Unclear => {
            found.unclear += 1;
            return Some(());
        }
        Comment::Accounts(guest, ip) => (guest, ip),
    };
    match ends.direction(ip) {
        Some(direction) => {
            let interface = ends.interface(direction);
            let selector = selector(&texts, direction, interface.as_deref());
            found.rules.push(Rule { guest, ip, direction, interface, selector, bytes, packets });
        }
        None => found.unclear += 1,
    }
    Some(())
}

/// Where a rule stands and what it matches, but for the public interface and the comment. Our chains stand in FORWARD.
fn selector(words: &[&str], direction: Direction, interface: Option<&str>) -> String {
    let (mut kept, mut rest) = (Vec::new(), words.iter().copied().peekable());
    while let Some(word) = rest.next() {
        let is_interface = word == way(direction) && rest.peek().copied() == interface;
        if word == "--comment" || is_interface {
            rest.next();
        } else if matches!(word, "-j" | "-g") {
            // What becomes of a packet that was counted makes no difference; it stands at the end.
            break;
        } else if direction_of(word).is_some() && kept == ["-A"] {
            kept.push("FORWARD");
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// A rule's ends, and what its comment says. A rule may have several comments: the first one that is about accounting counts.
fn take_apart(words: &[&str]) -> (Ends, Comment) {
    let (mut ends, mut said) = (Ends::default(), Comment::Other);
    let mut negated = false;
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        if word == "--comment" {
            let text = comment(rest.next().unwrap_or_default());
            said = if said == Comment::Other { text } else { said };
            continue;
        }
        if matches!(word, "-s" | "-d" | "-i" | "-o" | "-m" | "-j" | "-g" | "-p" | "-A") {
            let value = rest.next().unwrap_or_default();
            match word {
                "-s" if !negated => ends.source = host(value),
                "-d" if !negated => ends.destination = host(value),
                "-i" => ends.comes_by = (!negated).then(|| value.to_owned()),
                "-o" => ends.goes_by = (!negated).then(|| value.to_owned()),
                _ => {}
            }
        }
        negated = word == "!";
    }
    (ends, said)
}

/// The one address that `10.0.0.2/32` means; a net is no guest's end.
fn host(text: &str) -> Option<IpAddr> {
    let (ip, length) = text.split_once('/').map_or((text, None), |(ip, rest)| (ip, Some(rest)));
    let ip: IpAddr = ip.parse().ok()?;
    let whole = if ip.is_ipv4() { ["32", "255.255.255.255"] } else { ["128", "128"] };
    length.is_none_or(|length| whole.contains(&length)).then_some(ip)
}

/// A line's words as iptables-save quotes them: in double quotes, with a backslash before a quote or a backslash.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(letters.next()),
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The script for `iptables-restore --noflush` that carries out a plan in one step, so that no packet meets half of it; the
/// jumps come first in FORWARD, before anything there can take a packet away.
pub(crate) fn script(plan: &Plan) -> String {
    let mut lines = vec!["*filter".to_owned()];
    // To declare a chain that is there would empty it.
    lines.extend(plan.chains.iter().map(|direction| format!(":{} - [0:0]", chain(*direction))));
    for account in &plan.accounts {
        let (chain, ip, guest) = (chain(account.direction), account.ip, &account.guest);
        let end = if account.direction == Direction::Out { "-s" } else { "-d" };
        let length = if ip.is_ipv4() { 32 } else { 128 };
        let way = way(account.direction);
        let by = account.interface.as_ref().map(|interface| format!("{way} {interface} "));
        lines.push(format!(
            "-A {chain} {end} {ip}/{length} {}-m comment --comment \"{guest} {ip} accounting rule\"",
            by.unwrap_or_default()
        ));
    }
    for ((direction, interface), handles) in &plan.surplus {
        lines.extend(handles.iter().map(|_| removed(*direction, interface)));
    }
    for (direction, interface) in &plan.jumps {
        lines.push(format!("-I FORWARD 1 {}", jump(*direction, interface)));
    }
    finished(lines)
}

/// The script that takes away our chains and the jumps to them, and nothing else.
pub(crate) fn removal(found: &Found) -> String {
    let mut lines = vec!["*filter".to_owned()];
    for ((direction, interface), handles) in &found.jumps {
        lines.extend(handles.iter().map(|_| removed(*direction, interface)));
    }
    for direction in &found.chains {
        lines.push(format!("-F {}", chain(*direction)));
        lines.push(format!("-X {}", chain(*direction)));
    }
    finished(lines)
}

fn removed(direction: Direction, interface: &str) -> String {
    format!("-D FORWARD {}", jump(direction, interface))
}

fn jump(direction: Direction, interface: &str) -> String {
    format!("{} {interface} -j {}", way(direction), chain(direction))
}

fn way(direction: Direction) -> &'static str {
    if direction == Direction::Out { "-o" } else { "-i" }
}

fn finished(mut lines: Vec<String>) -> String {
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests;
