//! What comments and matches mean, how rules are summed up, and whose they are.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rule(guest: &str, address: &str, selector: &str, bytes: u64) -> Rule {
    let direction = Direction::Out;
    let (guest, selector) = (guest.to_owned(), selector.to_owned());
    let ip = ip(address);
    // "… by eth0" is for that interface.
    let (selector, interface) = match selector.split_once(" by ") {
        Some((selector, interface)) => (selector.to_owned(), Some(interface.to_owned())),
        None => (selector, None),
    };
    Rule { guest, ip, direction, interface, selector, bytes, packets: bytes / 10 }
}

#[test]
fn comments_of_2012_and_of_today() {
    let accounts = |guest: &str, address| Comment::Accounts(guest.to_owned(), ip(address));
    for (text, expected) in [
        ("116@host 10.0.0.2 accounting rule", accounts("instance-00000074", "10.0.0.2")),
        ("116 10.0.0.2 accounting rule", accounts("instance-00000074", "10.0.0.2")),
        (" 116@a.b  10.0.0.2  accounting  rule ", accounts("instance-00000074", "10.0.0.2")),
        (
            "instance-00000074 2001:DB8::0:1 accounting rule",
            accounts("instance-00000074", "2001:db8::1"),
        ),
        ("instance-00000074@h 10.0.0.2 accounting rule", accounts("instance-00000074", "10.0.0.2")),
        ("see wiki: web-1 10.0.0.2 accounting rule (do not touch)", accounts("web-1", "10.0.0.2")),
        ("9999999999999999999999 10.0.0.2 accounting rule", Comment::Unclear),
        ("@host 10.0.0.2 accounting rule", Comment::Unclear),
        ("116 10.0.0.256 accounting rule", Comment::Unclear),
        ("116 10.0.0.0/24 accounting rule", Comment::Unclear),
        ("10.0.0.2 accounting rule", Comment::Unclear),
        ("accounting rule", Comment::Unclear),
        ("accounting rules", Comment::Other),
        ("accounting", Comment::Other),
        ("rule accounting", Comment::Other),
        ("", Comment::Other),
    ] {
        assert_eq!(comment(text), expected, "{text}");
    }
}

#[test]
fn the_direction_is_the_guests_end() {
    let (guest, other) = (ip("10.0.0.2"), ip("10.9.9.9"));
    let of = |source, destination, goes_by: bool, comes_by: bool| {
        let interface = |by: bool| by.then(|| "eth0".to_owned());
        let (comes_by, goes_by) = (interface(comes_by), interface(goes_by));
        Ends { source, destination, comes_by, goes_by }.direction(guest)
    };
    assert_eq!(of(Some(guest), None, true, false), Some(Direction::Out));
    assert_eq!(of(None, Some(guest), false, true), Some(Direction::In));
    // The comment's address is the public one, the rule's is what it is translated from.
    assert_eq!(of(Some(other), None, true, false), Some(Direction::Out));
    assert_eq!(of(Some(guest), Some(other), false, false), Some(Direction::Out));
    assert_eq!(of(Some(other), Some(guest), false, false), Some(Direction::In));
    assert_eq!(of(Some(other), Some(other), true, false), None);
    assert_eq!(of(None, None, true, false), Some(Direction::Out));
    assert_eq!(of(None, None, false, true), Some(Direction::In));
    assert_eq!(of(None, None, true, true), None);
    assert_eq!(of(None, None, false, false), None);
}

#[test]
fn rules_that_see_different_packets_are_added_and_equal_ones_are_not() {
    let rules = vec![
        rule("a", "10.0.0.2", "FORWARD by eth0", 100),
        rule("a", "10.0.0.2", "FORWARD by eth1", 20),
        rule("a", "10.0.0.2", "FORWARD -p udp by eth1", 10),
        // The same rule twice, the second one made later.
        rule("b", "10.0.0.3", "FORWARD by eth0", 500),
        rule("b", "10.0.0.3", "FORWARD by eth0", 200),
        // One for all interfaces has counted what the others have.
        rule("c", "10.0.0.4", "FORWARD", 900),
        rule("c", "10.0.0.4", "FORWARD by eth0", 400),
        rule("c", "10.0.0.4", "FORWARD by eth1", 300),
        // It was zeroed since.
        rule("d", "10.0.0.5", "FORWARD", 10),
        rule("d", "10.0.0.5", "FORWARD by eth0", 400),
    ];
    let four = Found { rules, unclear: 1, ..Found::default() };
    let six = Found {
        rules: vec![rule("a", "2001:db8::2", "FORWARD", 7)],
        unclear: 2,
        ..Found::default()
    };
    let traffic = counted([&four, &six]);
    let sums: Vec<_> = traffic
        .flows
        .iter()
        .map(|flow| {
            (flow.guest.as_str(), flow.ip.to_string(), flow.bytes, flow.packets, flow.rules)
        })
        .collect();
    assert_eq!(
        sums,
        [
            ("a", "10.0.0.2".to_owned(), 130, 13, 3),
            ("a", "2001:db8::2".to_owned(), 7, 0, 1),
            ("b", "10.0.0.3".to_owned(), 500, 50, 2),
            ("c", "10.0.0.4".to_owned(), 900, 90, 3),
            ("d", "10.0.0.5".to_owned(), 400, 40, 2),
        ]
    );
    assert_eq!(traffic.unclear_rules, 3);
}

#[test]
fn a_guest_that_is_named_in_two_ways_is_one() {
    let guest = |name: &str, uuid: &str| Guest {
        name: name.to_owned(),
        uuid: uuid.to_owned(),
        ..Guest::default()
    };
    let guests = [guest("one", "u-1"), guest("two", "u-2")];
    let rules = vec![
        rule("one", "10.0.0.2", "a", 5),
        rule("u-1", "10.0.0.2", "b", 6),
        rule("u-2", "10.0.0.4", "a", 7),
        rule("gone", "10.0.0.5", "a", 8),
        rule("gone", "10.0.0.5", "b", 8),
    ];
    let traffic = counted([&Found { rules, ..Found::default() }]);
    let (flows, unknown) = of_guests(&traffic, &guests);
    let flows: Vec<_> =
        flows.iter().map(|(guest, flow)| (guest.name.as_str(), flow.bytes, flow.rules)).collect();
    assert_eq!(flows, [("one", 11, 2), ("two", 7, 1)]);
    assert_eq!(unknown, 2);
}

#[test]
fn a_name_that_would_be_misread_is_written_as_the_uuid() {
    let written = |name: &str| {
        let guest = Guest { name: name.to_owned(), uuid: "u".to_owned(), ..Guest::default() };
        id_of(&guest).to_owned()
    };
    for plain in ["instance-00000074", "web_1.example"] {
        assert_eq!(written(plain), plain);
    }
    for odd in ["116", "web@1", "a b", "a\"b", "客户", "", "$(reboot)", &"x".repeat(65)] {
        assert_eq!(written(odd), "u", "{odd}");
    }
}

proptest! {
    #[test]
    fn any_comment_is_read(text in ".{0,80}", words in proptest::collection::vec("[0-9a-f:.@]{0,20}|accounting|rule", 0..8)) {
        comment(&text);
        comment(&words.join(" "));
    }

    #[test]
    fn what_is_written_is_read_back(name in "[a-zA-Z0-9_.@ -]{1,70}", address: IpAddr) {
        let guest = Guest { name, uuid: "de305d54-75b4-431b-adb2-000000000001".to_owned(), ..Guest::default() };
        let id = id_of(&guest);
        let text = format!("{id} {address} accounting rule");
        prop_assert!(text.len() <= 128);
        prop_assert_eq!(comment(&text), Comment::Accounts(id.to_owned(), address));
    }
}
