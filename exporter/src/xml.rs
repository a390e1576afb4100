//! A guest's XML: operating system type, nova's metadata, disks and interfaces. Pure: text in, `Description` out.
//! The text is partly the tenant's (display names), so it is bounded and nothing in it is trusted.

mod devices;
pub(crate) mod rewrite;
mod tuning;

use std::net::IpAddr;

use roxmltree::{Document, Node, ParsingOptions};
use thiserror::Error;

use crate::snapshot::{Description, Nova, Root};

/// Longest XML that is read; a guest with hundreds of disks stays well below.
const XML_BYTES_MAX: usize = 4 << 20;
/// Most nodes that are kept of it.
const NODES_MAX: u32 = 200_000;
/// Deepest nesting that is written anew: libvirt's own XML has some ten.
const DEPTH_MAX: usize = 100;
/// What both of nova's namespaces begin with; 1.0 and 1.1 end in `1.0` and `1.1`.
const NOVA_NAMESPACE: &str = "http://openstack.org/xmlns/libvirt/nova/";

/// Why a guest's XML was of no use.
#[derive(Debug, Error)]
pub(crate) enum XmlError {
    /// Longer than 4 MiB.
    #[error("guest XML of {0} bytes is longer than {XML_BYTES_MAX}")]
    TooLong(usize),
    /// Not XML, or with more nodes than are kept.
    #[error("guest XML cannot be read: {0}")]
    Malformed(#[from] roxmltree::Error),
    /// Elements in elements without end.
    #[error("guest XML nests deeper than {DEPTH_MAX} elements")]
    TooDeep,
    /// XML of something else.
    #[error("XML of a guest begins with <domain>, not with <{0}>")]
    NotADomain(String),
}

/// Reads what virDomainGetXMLDesc returned.
pub(crate) fn description(text: &str) -> Result<Description, XmlError> {
    if text.len() > XML_BYTES_MAX {
        return Err(XmlError::TooLong(text.len()));
    }
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)?;
    let domain = document.root_element();
    if domain.tag_name().name() != "domain" {
        return Err(XmlError::NotADomain(domain.tag_name().name().to_owned()));
    }
    let os_type = child(domain, "os").and_then(|os| child(os, "type"));
    let nova = child(domain, "metadata").and_then(nova);
    let devices = child(domain, "devices");
    let ports = nova.as_ref().map(|nova| nova.port_ids.as_slice()).unwrap_or_default();
    Ok(Description {
        os_type: os_type.and_then(text_of),
        os_arch: os_type.and_then(|node| attribute(node, "arch")),
        os_machine: os_type.and_then(|node| attribute(node, "machine")),
        disks: devices.map(devices::disks).unwrap_or_default(),
        nics: devices.map(|devices| devices::nics(devices, ports)).unwrap_or_default(),
        cpu_tune: child(domain, "cputune").map(tuning::cpu).unwrap_or_default(),
        huge_pages: child(domain, "memoryBacking").map(tuning::huge_pages).unwrap_or_default(),
        memory_limits: child(domain, "memtune").map(tuning::memory_limits).unwrap_or_default(),
        stats_period_seconds: devices.and_then(tuning::stats_period),
        nova,
    })
}

/// Nova's part of `<metadata>`, by the namespace's beginning and local names: the prefix is the writer's choice.
fn nova(metadata: Node<'_, '_>) -> Option<Nova> {
    let is_nova = |node: &Node<'_, '_>| {
        node.tag_name().namespace().is_some_and(|name| name.starts_with(NOVA_NAMESPACE))
    };
    let instance = children(metadata, "instance").find(is_nova)?;
    let owner = child(instance, "owner");
    let user = owner.and_then(|owner| child(owner, "user"));
    let project = owner.and_then(|owner| child(owner, "project"));
    Some(Nova {
        instance_name: child(instance, "name").and_then(text_of),
        flavor_name: child(instance, "flavor").and_then(|flavor| attribute(flavor, "name")),
        user_name: user.and_then(text_of),
        user_id: user.and_then(|user| attribute(user, "uuid")),
        project_name: project.and_then(text_of),
        project_id: project.and_then(|project| attribute(project, "uuid")),
        root: child(instance, "root")
            .map(|root| Root { kind: attribute(root, "type"), uuid: attribute(root, "uuid") }),
        port_ids: child(instance, "ports").map(port_ids).unwrap_or_default(),
        fixed_addresses: child(instance, "ports").map(fixed_addresses).unwrap_or_default(),
    })
}

fn port_ids(ports: Node<'_, '_>) -> Vec<String> {
    children(ports, "port").filter_map(|port| attribute(port, "uuid")).collect()
}

/// `<port><ip type="fixed" address="10.0.0.2"/></port>` of every port; what is no address is passed over.
fn fixed_addresses(ports: Node<'_, '_>) -> Vec<IpAddr> {
    let ips = children(ports, "port").flat_map(|port| children(port, "ip"));
    let fixed = ips.filter(|ip| attribute(*ip, "type").is_none_or(|kind| kind == "fixed"));
    fixed.filter_map(|ip| attribute(ip, "address")?.parse().ok()).collect()
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    node.attribute(name).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// A whole number, as the text of an element.
fn number_of(node: Node<'_, '_>) -> Option<u64> {
    text_of(node)?.parse().ok()
}

fn text_of(node: Node<'_, '_>) -> Option<String> {
    let text: String =
        node.children().filter(Node::is_text).filter_map(|part| part.text()).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
