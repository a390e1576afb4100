//! What is missing of what is wanted; addresses and names from outside.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::snapshot::{Description, Nova};
use crate::traffic::Rule;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn wanted(addresses: &[(&str, &str)], interfaces: &[&str], directions: &[Direction]) -> Wanted {
    Wanted {
        addresses: addresses.iter().map(|(id, address)| ((*id).to_owned(), ip(address))).collect(),
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        directions: directions.iter().copied().collect(),
    }
}

/// What a firewall would hold after a plan.
fn carried_out(mut found: Found, plan: &Plan) -> Found {
    found.chains.extend(&plan.chains);
    for jump in plan.surplus.keys() {
        found.jumps.remove(jump);
    }
    for jump in &plan.jumps {
        found.jumps.entry(jump.clone()).or_default().push(None);
    }
    found.rules.extend(plan.accounts.iter().map(|account| Rule {
        guest: guest_of(&account.guest).unwrap(),
        ip: account.ip,
        direction: account.direction,
        interface: account.interface.clone(),
        selector: format!("{account:?}"),
        bytes: 0,
        packets: 0,
    }));
    found
}

#[test]
fn only_what_is_missing_is_added() {
    let all = wanted(&[("a", "10.0.0.2"), ("b", "10.0.0.3")], &["eth0"], &[Direction::Out]);
    let first = missing(&all, &Found::default());
    assert_eq!((first.chains.len(), first.accounts.len(), first.jumps.len()), (1, 2, 1));
    let found = carried_out(Found::default(), &first);
    assert!(missing(&all, &found).is_empty());

    let more = wanted(
        &[("a", "10.0.0.2"), ("c", "10.0.0.4")],
        &["eth0", "eth1"],
        &[Direction::Out, Direction::In],
    );
    let second = missing(&more, &found);
    assert_eq!(second.chains, [Direction::In]);
    let accounts: Vec<_> =
        second.accounts.iter().map(|account| (account.guest.as_str(), account.direction)).collect();
    assert_eq!(accounts, [("a", Direction::In), ("c", Direction::In), ("c", Direction::Out)]);
    let jumps: Vec<_> = second.jumps.iter().map(|(way, name)| (*way, name.as_str())).collect();
    assert_eq!(jumps, [(Direction::In, "eth0"), (Direction::In, "eth1"), (Direction::Out, "eth1")]);
}

#[test]
fn an_address_that_2012_rules_count_is_not_counted_twice() {
    let rule = Rule {
        guest: "instance-00000074".to_owned(),
        ip: ip("10.0.0.2"),
        direction: Direction::Out,
        interface: Some("eth0".to_owned()),
        selector: "-A FORWARD -s 10.0.0.2/32 -o eth0".to_owned(),
        bytes: 1,
        packets: 1,
    };
    let found = Found { rules: vec![rule], ..Found::default() };
    for id in ["instance-00000074", "116"] {
        let wanted = wanted(&[(id, "10.0.0.2")], &["eth0"], &[Direction::Out]);
        assert!(missing(&wanted, &found).is_empty(), "{id}");
    }
    let other = wanted(&[("116", "10.0.0.3")], &["eth0"], &[Direction::Out]);
    assert_eq!(missing(&other, &found).accounts.len(), 1);
}

#[test]
fn what_goes_by_an_interface_that_no_rule_is_for_is_counted_too() {
    let rule = |interface: &str| Rule {
        guest: "instance-00000074".to_owned(),
        ip: ip("10.0.0.2"),
        direction: Direction::Out,
        interface: Some(interface.to_owned()),
        selector: format!("-A FORWARD -s 10.0.0.2/32 -o {interface}"),
        bytes: 1,
        packets: 1,
    };
    let both = wanted(&[("116", "10.0.0.2")], &["eth0", "eth1"], &[Direction::Out]);
    let found = Found { rules: vec![rule("eth0")], ..Found::default() };
    let plan = missing(&both, &found);
    let interfaces: Vec<_> =
        plan.accounts.iter().map(|account| account.interface.as_deref()).collect();
    assert_eq!(interfaces, [Some("eth1")], "by eth0 its packets would be counted twice");
    assert!(missing(&both, &carried_out(found, &plan)).is_empty());
    let all = Found { rules: vec![rule("eth+")], ..Found::default() };
    assert!(missing(&both, &all).is_empty(), "it is for both");
}

#[test]
fn jumps_that_are_there_twice_become_one() {
    let wanted = wanted(&[("116", "10.0.0.2")], &["eth0"], &[Direction::Out]);
    let mut found = carried_out(Found::default(), &missing(&wanted, &Found::default()));
    let jump = (Direction::Out, "eth0".to_owned());
    found.jumps.insert(jump.clone(), vec![Some(5), Some(7)]);
    let plan = missing(&wanted, &found);
    assert!(!plan.is_empty());
    assert_eq!(plan.surplus.get(&jump), Some(&vec![Some(5), Some(7)]));
    assert_eq!(plan.jumps, [jump]);
    assert!(missing(&wanted, &carried_out(found, &plan)).is_empty());
}

#[test]
fn addresses_from_novas_metadata() {
    let nova = Nova { fixed_addresses: vec![ip("10.0.0.2"), ip("2001:db8::2")], ..Nova::default() };
    let description = Some(Arc::new(Description { nova: Some(nova), ..Description::default() }));
    let guest = |name: &str| Guest {
        name: name.to_owned(),
        uuid: "u-1".to_owned(),
        description: description.clone(),
        ..Guest::default()
    };
    let found = addresses_of(&[guest("odd name"), Guest::default()]);
    let found: Vec<_> = found.iter().map(|(id, ip)| (id.as_str(), ip.to_string())).collect();
    assert_eq!(found, [("u-1", "10.0.0.2".to_owned()), ("u-1", "2001:db8::2".to_owned())]);
}

#[test]
fn a_file_of_addresses() {
    let text = "# guests\n\n116@host 10.0.0.2\n  instance-000000ff\t2001:db8::1  \n116 10.0.0.2\n";
    let found = read_addresses(text).unwrap();
    let found: Vec<_> = found.iter().map(|(id, ip)| (id.as_str(), ip.to_string())).collect();
    assert_eq!(
        found,
        [
            ("instance-00000074", "10.0.0.2".to_owned()),
            ("instance-000000ff", "2001:db8::1".to_owned())
        ]
    );
    for (text, expected) in [
        ("116", "line 1 is not a guest and an address"),
        ("# x\n116 10.0.0.2 eth0", "line 2 is not a guest and an address"),
        ("116 10.0.0.2/32", "line 1: \"10.0.0.2/32\" is not an IP address"),
        ("$(reboot) 10.0.0.2", "line 1: \"$(reboot)\" is no guest's id"),
    ] {
        let error = read_addresses(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn interfaces_that_linux_can_have() {
    for name in ["eth0", "br-ex", "bond0.100", "qg-12345678-9a"] {
        assert_eq!(interface(name), Ok(name.to_owned()));
    }
    for name in ["", "-o", "eth0;reboot", "a b", "a\nCOMMIT", "eth+", "0123456789abcdef", "a\"b"] {
        assert!(interface(name).is_err(), "{name}");
    }
}

proptest! {
    /// Applying twice is applying once.
    #[test]
    fn nothing_is_missing_after_it_was_added(
        addresses in proptest::collection::vec((0u32..4, 0u8..4), 0..6),
        interfaces in proptest::collection::btree_set("eth[0-2]", 1..3),
        both: bool,
    ) {
        let wanted = Wanted {
            addresses: addresses
                .iter()
                .map(|(id, last)| (format!("instance-{id:08x}"), IpAddr::from([10, 0, 0, *last])))
                .collect(),
            interfaces,
            directions: if both { Direction::ALL.into() } else { [Direction::Out].into() },
        };
        let found = carried_out(Found::default(), &missing(&wanted, &Found::default()));
        prop_assert!(missing(&wanted, &found).is_empty());
    }
}
