//! nftables' languages: what `nft -j list table` prints, and what `nft -f` is told. Pure. Comments are not trusted.

use std::net::IpAddr;

use serde_json::Value;
use thiserror::Error;

use super::iptables::{chain, direction_of};
use super::plan::{self, Plan};
use super::{Comment, Ends, Found, Rule, comment};
use crate::snapshot::Direction;

/// Our base chain; only jumps stand in it.
const BASE_CHAIN: &str = "kanyun-forward";
/// The table that is ours as a whole.
const OWN_TABLE: &str = "inet kanyun";

/// Output of nft that is not what nft prints.
#[derive(Debug, Error)]
pub(crate) enum NftablesError {
    /// Not JSON.
    #[error("nft's answer is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of something else.
    #[error("nft's answer has no list \"nftables\"")]
    NoList,
}

/// Reads what `nft -j list table` printed.
pub(crate) fn read(text: &str) -> Result<Found, NftablesError> {
    let answer: Value = serde_json::from_str(text)?;
    let list = answer.get("nftables").and_then(Value::as_array).ok_or(NftablesError::NoList)?;
    let mut found = Found::default();
    for item in list {
        if let Some(name) = text_at(item, &["chain", "name"]) {
            found.chains.extend(direction_of(name));
        }
        if let Some(rule) = item.get("rule") {
            read_rule(rule, &mut found);
        }
    }
    Ok(found)
}

/// Whether `nft -j list tables` names a table, such as `inet kanyun`.
pub(crate) fn has_table(text: &str, table: &str) -> Result<bool, NftablesError> {
    let answer: Value = serde_json::from_str(text)?;
    let list = answer.get("nftables").and_then(Value::as_array).ok_or(NftablesError::NoList)?;
    Ok(list.iter().any(|item| {
        let part = |name| text_at(item, &["table", name]).unwrap_or_default();
        format!("{} {}", part("family"), part("name")) == table
    }))
}

fn read_rule(rule: &Value, found: &mut Found) {
    let no_parts = Vec::new();
    let parts = rule.get("expr").and_then(Value::as_array).unwrap_or(&no_parts);
    if let Some(jump) = jump_of(rule, parts) {
        let handle = rule.get("handle").and_then(Value::as_u64);
        found.jumps.entry(jump).or_default().push(handle);
    }
    let said = rule.get("comment").and_then(Value::as_str).map_or(Comment::Other, comment);
    let (guest, ip) = match said {
        Comment::Other => return,
        Comment::Unclear => {
            found.unclear += 1;
            return;
        }
        Comment::Accounts(guest, ip) => (guest, ip),
    };
    let counter = parts.iter().find_map(|part| part.get("counter"));
    let count = |name| counter.and_then(|counter| counter.get(name)).and_then(Value::as_u64);
    let ends = ends(parts);
    let (Some(bytes), Some(packets), Some(direction)) =
        (count("bytes"), count("packets"), ends.direction(ip))
    else {
        // Without a counter of its own, or without a clear direction.
        found.unclear += 1;
        return;
    };
    let interface = ends.interface(direction);
    let is_interface = |part: &&Value| {
        let key = text_at(part, &["match", "left", "meta", "key"]);
        let of_direction = key == Some(by(direction)) || key == by(direction).strip_suffix("name");
        interface.is_some() && of_direction && text_at(part, &["match", "op"]) == Some("==")
    };
    let matches = parts.iter().filter(|part| !is_interface(part));
    let matches: Vec<String> =
        matches.filter_map(|part| part.get("match")).map(Value::to_string).collect();
    let place = text_at(rule, &["chain"]).unwrap_or_default();
    let selector = format!("{place} {}", matches.join(" "));
    found.rules.push(Rule { guest, ip, direction, interface, selector, bytes, packets });
}

/// The interface whose packets a rule of our base chain sends to a chain of ours.
fn jump_of(rule: &Value, parts: &[Value]) -> Option<(Direction, String)> {
    let [condition, jump] = parts else { return None };
    let direction = direction_of(text_at(jump, &["jump", "target"])?)?;
    let key = if direction == Direction::Out { "oifname" } else { "iifname" };
    let of_base = text_at(rule, &["chain"])? == BASE_CHAIN;
    let equal = text_at(condition, &["match", "op"])? == "==";
    let by = text_at(condition, &["match", "left", "meta", "key"])? == key;
    let interface = text_at(condition, &["match", "right"])?;
    let fits = of_base && equal && by && plan::interface(interface).is_ok();
    fits.then(|| (direction, interface.to_owned()))
}

fn ends(parts: &[Value]) -> Ends {
    let mut ends = Ends::default();
    for part in parts.iter().filter(|part| text_at(part, &["match", "op"]) == Some("==")) {
        let right = text_at(part, &["match", "right"]);
        let ip = right.and_then(|text| text.parse::<IpAddr>().ok());
        match text_at(part, &["match", "left", "payload", "field"]) {
            Some("saddr") => ends.source = ip,
            Some("daddr") => ends.destination = ip,
            _ => {}
        }
        match text_at(part, &["match", "left", "meta", "key"]) {
            Some("iifname" | "iif") => ends.comes_by = right.map(str::to_owned),
            Some("oifname" | "oif") => ends.goes_by = right.map(str::to_owned),
            _ => {}
        }
    }
    ends
}

fn text_at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    path.iter().try_fold(value, |value, name| value.get(name))?.as_str()
}

/// The script for `nft -f` that carries out a plan in one step. The chain comes after the filter's own (priority 10 after 0),
/// and so counts what the filter let pass.
pub(crate) fn script(plan: &Plan, table: &str) -> String {
    let mut lines = vec![
        format!("add table {table}"),
        format!(
            "add chain {table} {BASE_CHAIN} {{ type filter hook forward priority 10 ; policy accept ; }}"
        ),
    ];
    lines.extend(
        plan.chains.iter().map(|direction| format!("add chain {table} {}", chain(*direction))),
    );
    for account in &plan.accounts {
        let (chain, ip, guest) = (chain(account.direction), account.ip, &account.guest);
        let family = if ip.is_ipv4() { "ip" } else { "ip6" };
        let end = if account.direction == Direction::Out { "saddr" } else { "daddr" };
        let by = by(account.direction);
        let by = account.interface.as_ref().map(|interface| format!("{by} \"{interface}\" "));
        lines.push(format!(
            "add rule {table} {chain} {}{family} {end} {ip} counter comment \"{guest} {ip} accounting rule\"",
            by.unwrap_or_default()
        ));
    }
    for handle in plan.surplus.values().flatten().flatten() {
        lines.push(format!("delete rule {table} {BASE_CHAIN} handle {handle}"));
    }
    for (direction, interface) in &plan.jumps {
        let (by, chain) = (by(*direction), chain(*direction));
        lines.push(format!("add rule {table} {BASE_CHAIN} {by} \"{interface}\" jump {chain}"));
    }
    lines.join("\n") + "\n"
}

fn by(direction: Direction) -> &'static str {
    if direction == Direction::Out { "oifname" } else { "iifname" }
}

/// The script that takes our chains away with all that is in them, and the table where it is ours as a whole.
pub(crate) fn removal(found: &Found, table: &str) -> String {
    if table == OWN_TABLE {
        return format!("delete table {table}\n");
    }
    let base = (!found.jumps.is_empty()).then_some(BASE_CHAIN);
    let own = found.chains.iter().map(|direction| chain(*direction));
    let away = |name| format!("flush chain {table} {name}\ndelete chain {table} {name}\n");
    base.into_iter().chain(own).map(away).collect()
}

#[cfg(test)]
mod tests;
