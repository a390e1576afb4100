//! From which addresses workers may send: the protocol of 2012 has neither users nor passwords, so
//! beyond loopback the address is all that there is to judge by. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// An address or a network, such as `10.0.0.7`, `10.0.0.0/16` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(IpNet);

/// A text that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address such as 10.0.0.7 nor a network such as 10.0.0.0/16")]
pub struct NoSource(String);

impl FromStr for Source {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Source, NoSource> {
        let text = text.trim();
        let network = text.parse::<IpNet>();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Source).map_err(|_| NoSource(text.to_owned()))
    }
}

/// Who may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sources {
    /// Everybody who reaches the door: it is on loopback.
    Everybody,
    /// These alone.
    Only(Vec<Source>),
}

impl Sources {
    /// Whether an address may send; one that is not known may where everybody may.
    pub fn allow(&self, address: Option<IpAddr>) -> bool {
        match self {
            Sources::Everybody => true,
            // A door on all addresses sees 10.0.0.7 as ::ffff:10.0.0.7.
            Sources::Only(sources) => address.is_some_and(|address| {
                sources.iter().any(|Source(network)| network.contains(&address.to_canonical()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks() {
        let sources =
            ["10.0.0.7", " 192.168.0.0/16 ", "fd00::/8"].map(|text| text.parse().unwrap());
        let only = Sources::Only(sources.to_vec());
        let allow = |address: &str| only.allow(Some(address.parse().unwrap()));
        for address in ["10.0.0.7", "::ffff:10.0.0.7", "192.168.255.1", "fd12::1"] {
            assert!(allow(address), "{address}");
        }
        for address in ["10.0.0.8", "::ffff:10.0.0.8", "192.169.0.1", "fe80::1", "127.0.0.1"] {
            assert!(!allow(address), "{address}");
        }
        assert!(!only.allow(None));
        assert!(!Sources::Only(Vec::new()).allow(Some("127.0.0.1".parse().unwrap())));
        assert!(Sources::Everybody.allow(None));
    }

    #[test]
    fn what_is_neither() {
        for text in ["", "host", "10.0.0", "10.0.0.0/33", "*", "10.0.0.1:5551"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
