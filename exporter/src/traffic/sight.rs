//! Whether a host's filter table can see the guests' traffic at all. Pure: what `ip` and the kernel say in, doubts out.

use std::collections::BTreeSet;

use serde_json::Value;

/// What is known of a host's (or a namespace's) network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// Its interfaces.
    pub(crate) links: Vec<Link>,
    /// Whether it forwards IPv4 (net.ipv4.ip_forward); `None` where that cannot be read.
    pub(crate) forwards: Option<bool>,
    /// Whether bridged packets pass the filter table too (net.bridge.bridge-nf-call-iptables); `None` where br_netfilter is
    /// not loaded.
    pub(crate) filters_bridges: Option<bool>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    name: String,
    /// bridge, openvswitch, tun, veth …; empty for hardware.
    kind: String,
    /// The bridge or switch that it is a port of.
    master: Option<String>,
    /// What its master is: bridge, openvswitch, bond.
    port_of: String,
}

/// What speaks against counting here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Nothing can be counted; rules are not made.
    Blind(String),
    /// Probably nothing is counted.
    Dim(String),
}

/// Reads what `ip -j -d link show` printed.
pub(crate) fn links(text: &str) -> Result<Vec<Link>, serde_json::Error> {
    let list: Vec<Value> = serde_json::from_str(text)?;
    let text = |value: &Value, path: &str| {
        value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(list
        .iter()
        .map(|link| Link {
            name: text(link, "/ifname"),
            kind: text(link, "/linkinfo/info_kind"),
            master: Some(text(link, "/master")).filter(|master| !master.is_empty()),
            port_of: text(link, "/linkinfo/info_slave_kind"),
        })
        .collect())
}

/// What speaks against counting the traffic of these interfaces.
pub(crate) fn doubts(network: &Network, interfaces: &BTreeSet<String>) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let mut bridges = false;
    for name in interfaces {
        let Some(link) = network.links.iter().find(|link| link.name == *name) else {
            doubts.push(Doubt::Blind(absent(name, network)));
            continue;
        };
        bridges |= link.kind == "bridge";
        let master = link.master.as_deref().unwrap_or("a switch");
        if link.port_of == "openvswitch" || master == "ovs-system" {
            doubts.push(Doubt::Dim(format!(
                "{name} is a port of Open vSwitch, whose packets pass the filter table by: count where they are routed, \
                 such as in a router's network namespace (--traffic.netns)"
            )));
        } else if link.port_of == "bridge" {
            doubts.push(Doubt::Dim(format!(
                "{name} is a port of the bridge {master}: the filter table knows its packets as {master}'s, name that one"
            )));
        }
    }
    let filters_bridges = network.filters_bridges == Some(true);
    if network.forwards == Some(false) && !(bridges && filters_bridges) {
        doubts.push(Doubt::Dim(
            "packets are not forwarded here (net.ipv4.ip_forward is 0): guests' packets are bridged or switched, and the \
             filter table does not see them"
                .to_owned(),
        ));
    } else if bridges && !filters_bridges {
        doubts.push(Doubt::Dim(
            "bridged packets do not pass the filter table here (br_netfilter is not loaded, or \
             net.bridge.bridge-nf-call-iptables is 0): only what is routed over the bridge is counted"
                .to_owned(),
        ));
    }
    doubts
}

fn absent(name: &str, network: &Network) -> String {
    let mut names: Vec<&str> = network.links.iter().map(|link| link.name.as_str()).collect();
    names.sort_unstable();
    names.truncate(20);
    format!("there is no interface {name} here; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests;
