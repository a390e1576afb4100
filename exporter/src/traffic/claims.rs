//! Whose an address is. Tenants' networks may overlap, and then one address is that of several guests: rules for both would
//! count the same packets, and both would be billed for them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::guest_of;
use crate::snapshot::Guest;

/// A guest, as comments name it, and an address of it.
pub(crate) type Address = (String, IpAddr);

/// Where addresses are known from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    /// An operator said so.
    pub(crate) given: BTreeSet<Address>,
    /// Nova says so.
    pub(crate) of_nova: BTreeSet<Address>,
    /// Rules count them so.
    pub(crate) of_rules: BTreeSet<Address>,
}

impl Claims {
    /// The addresses that are one guest's, and a sentence for each that is not. `guests` are this host's, where they are
    /// known: what a rule counts for a guest that is gone is nobody's any more. What an operator says goes before nova.
    pub(crate) fn settled(&self, guests: Option<&[Guest]>) -> (BTreeSet<Address>, Vec<String>) {
        let identity = |name: &str| {
            let name = guest_of(name).unwrap_or_else(|| name.to_owned());
            let mut guests = guests.into_iter().flatten();
            let known = guests.find(|guest| guest.name == name || guest.uuid == name);
            known.map_or((name, false), |guest| (guest.uuid.clone(), true))
        };
        let is_here = |(guest, _): &&Address| guests.is_none() || identity(guest).1;
        let mut by_address: BTreeMap<IpAddr, [BTreeMap<String, &str>; 3]> = BTreeMap::new();
        let rules = self.of_rules.iter().filter(is_here);
        let sources: [Box<dyn Iterator<Item = &Address>>; 3] =
            [Box::new(self.given.iter()), Box::new(rules), Box::new(self.of_nova.iter())];
        for (source, addresses) in sources.into_iter().enumerate() {
            for (guest, ip) in addresses {
                let claims = by_address.entry(*ip).or_default();
                if let Some(claims) = claims.get_mut(source) {
                    claims.insert(identity(guest).0, guest);
                }
            }
        }
        let (mut settled, mut disputed) = (BTreeSet::new(), Vec::new());
        for (ip, [given, of_rules, of_nova]) in by_address {
            let mut owners: BTreeMap<String, &str> = if given.is_empty() { of_nova } else { given };
            // By the name that its rule has, so that it gets no second one under another.
            owners.extend(of_rules.clone());
            let names: Vec<&str> = owners.values().copied().collect();
            match names.as_slice() {
                [one] => {
                    settled.insert(((*one).to_owned(), ip));
                }
                several if of_rules.len() > 1 => disputed.push(format!(
                    "rules count the packets of {ip} for each of {}, and all of them are billed: take away those that are wrong",
                    several.join(", ")
                )),
                several => disputed.push(format!(
                    "{ip} is an address of each of {}, and rules would count its packets for all of them: none is made; say whose \
                     it is here by --address, and count each router's namespace by itself (--traffic.netns)",
                    several.join(", ")
                )),
            }
        }
        (settled, disputed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(number: u8) -> Guest {
        let (name, uuid) = (format!("instance-{number:08x}"), format!("u-{number}"));
        Guest { name, uuid, ..Guest::default() }
    }

    fn addresses(pairs: &[(&str, &str)]) -> BTreeSet<Address> {
        pairs.iter().map(|(guest, ip)| ((*guest).to_owned(), ip.parse().unwrap())).collect()
    }

    fn settled(claims: &Claims, guests: Option<&[Guest]>) -> (Vec<String>, usize) {
        let (settled, disputed) = claims.settled(guests);
        let text = |(guest, ip): &Address| format!("{guest} {ip}");
        (settled.iter().map(text).collect(), disputed.len())
    }

    #[test]
    fn an_address_of_two_guests_is_nobodys() {
        let guests = [guest(1), guest(2), guest(3)];
        let of_nova = [
            ("instance-00000001", "10.0.0.2"),
            ("instance-00000002", "10.0.0.2"),
            ("instance-00000003", "10.0.0.3"),
        ];
        let mut claims = Claims { of_nova: addresses(&of_nova), ..Claims::default() };
        let third = "instance-00000003 10.0.0.3".to_owned();
        assert_eq!(settled(&claims, Some(&guests)), (vec![third.clone()], 1));
        let (_, said) = claims.settled(Some(&guests));
        assert!(said[0].contains("instance-00000001, instance-00000002"), "{said:?}");
        claims.given = addresses(&[("2", "10.0.0.2")]);
        assert_eq!(
            settled(&claims, Some(&guests)),
            (vec!["2 10.0.0.2".to_owned(), third.clone()], 0)
        );
        claims.of_rules = addresses(&[("instance-00000001", "10.0.0.2")]);
        assert_eq!(settled(&claims, Some(&guests)), (vec![third], 1), "both would be billed");
    }

    #[test]
    fn one_guest_under_two_names_is_one() {
        let guests = [guest(1)];
        let claims = Claims {
            given: addresses(&[("1@host", "10.0.0.2")]),
            of_nova: addresses(&[("instance-00000001", "10.0.0.2")]),
            of_rules: addresses(&[("u-1", "10.0.0.2"), ("instance-00000001", "10.0.0.9")]),
        };
        let (found, disputed) = settled(&claims, Some(&guests));
        let both = ["instance-00000001 10.0.0.9".to_owned(), "u-1 10.0.0.2".to_owned()];
        assert_eq!((found, disputed), (both.to_vec(), 0), "by the names that the rules have");
    }

    #[test]
    fn rules_of_guests_that_are_gone_hold_no_address() {
        let guests = [guest(2)];
        let claims = Claims {
            of_nova: addresses(&[("instance-00000002", "10.0.0.2")]),
            of_rules: addresses(&[("instance-00000001", "10.0.0.2"), ("7", "10.0.0.7")]),
            ..Claims::default()
        };
        let (found, disputed) = settled(&claims, Some(&guests));
        assert_eq!((found, disputed), (vec!["instance-00000002 10.0.0.2".to_owned()], 0));
        // Where libvirt does not answer, nobody knows who is gone.
        let (found, disputed) = settled(&claims, None);
        assert_eq!((found, disputed), (vec!["7 10.0.0.7".to_owned()], 1));
    }

    #[test]
    fn two_rules_for_one_address_are_told() {
        let guests = [guest(1), guest(2)];
        let claims = Claims {
            of_rules: addresses(&[("1", "10.0.0.2"), ("2", "10.0.0.2")]),
            ..Claims::default()
        };
        let (found, said) = claims.settled(Some(&guests));
        assert!(found.is_empty() && said[0].starts_with("rules count"), "{said:?}");
    }
}
