//! Hosts whose filter table sees guests' traffic, and hosts where it does not.

use super::*;

const LINKS: &str = r#"[{"ifindex":1,"ifname":"lo","link_type":"loopback"},
{"ifindex":2,"ifname":"eth0","link_type":"ether"},
{"ifindex":3,"ifname":"eth1","master":"ovs-system","linkinfo":{"info_slave_kind":"openvswitch"}},
{"ifindex":4,"ifname":"br0","linkinfo":{"info_kind":"bridge","info_data":{"forward_delay":0}}},
{"ifindex":5,"ifname":"eth2","master":"br0","linkinfo":{"info_slave_kind":"bridge"}},{}]"#;

fn network(forwards: bool, filters_bridges: Option<bool>) -> Network {
    Network { links: links(LINKS).unwrap(), forwards: Some(forwards), filters_bridges }
}

fn said(network: &Network, names: &[&str]) -> Vec<String> {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let text = |doubt: Doubt| match doubt {
        Doubt::Blind(why) => format!("blind: {why}"),
        Doubt::Dim(why) => why,
    };
    doubts(network, &names).into_iter().map(text).collect()
}

#[test]
fn a_routed_interface_is_seen() {
    assert_eq!(said(&network(true, None), &["eth0"]), Vec::<String>::new());
    assert_eq!(said(&network(false, Some(true)), &["br0"]), Vec::<String>::new());
}

#[test]
fn what_is_not_there_or_passes_by_is_said() {
    let absent = said(&network(true, None), &["eth9"]);
    assert!(
        absent[0].starts_with("blind: there is no interface eth9 here; there are "),
        "{absent:?}"
    );
    assert!(absent[0].contains("br0, eth0, eth1, eth2, lo"), "{absent:?}");
    let switched = said(&network(true, None), &["eth1"]);
    assert!(switched[0].starts_with("eth1 is a port of Open vSwitch"), "{switched:?}");
    let port = said(&network(true, Some(true)), &["eth2"]);
    assert!(port[0].starts_with("eth2 is a port of the bridge br0"), "{port:?}");
    let bridged = said(&network(true, Some(false)), &["br0"]);
    assert!(bridged[0].starts_with("bridged packets do not pass"), "{bridged:?}");
    let still = said(&network(false, None), &["eth0"]);
    assert!(still[0].starts_with("packets are not forwarded here"), "{still:?}");
    let unknown = Network { forwards: None, ..network(true, None) };
    assert_eq!(said(&unknown, &["eth0"]), Vec::<String>::new());
}

#[test]
fn a_list_that_is_none_is_an_error() {
    assert!(links("").is_err());
    assert!(links("{}").is_err());
    assert_eq!(links("[]").unwrap(), []);
}
