//! Which guest a series belongs to, and which guest a name means (ledger.md, "Whose counter is it").
//! Pure; knows labels only.

use std::collections::BTreeSet;
use std::fmt;

use super::track::host_of;
use crate::model::labels::Labels;

/// The labels that are a guest's uuid; the first that a series has counts.
pub const UUID_LABELS: [&str; 2] = ["uuid", "instance_id"];

/// Who is billed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guest {
    /// A guest with a uuid: the `uuid` or `instance_id` label.
    Uuid(String),
    /// One without: Kanyun's own `instance-0000000a@hostname`, because `instance-0000000a` repeats
    /// in every region.
    Name {
        /// libvirt's name.
        domain: String,
        /// The host, empty where the series do not say.
        host: String,
    },
}

/// Which guests a name fits.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolution {
    /// None.
    Nobody,
    /// One.
    One(Guest),
    /// Several; only the client can say which.
    Several(Vec<Guest>),
}

impl Guest {
    /// The guest that is shown by this name.
    pub fn named(name: &str) -> Guest {
        match domain_at_host(name) {
            Some((domain, host)) => {
                Guest::Name { domain: domain.to_owned(), host: host.to_owned() }
            }
            None => Guest::Uuid(name.to_owned()),
        }
    }

    /// The guest that a series belongs to; `None` for a series of no guest.
    pub fn of(labels: &Labels) -> Option<Guest> {
        for name in UUID_LABELS {
            let uuid = labels.get(name);
            if !uuid.is_empty() {
                return Some(Guest::Uuid(uuid.to_owned()));
            }
        }
        let domain = labels.get("domain");
        let host = host_of(labels);
        (!domain.is_empty())
            .then(|| Guest::Name { domain: domain.to_owned(), host: host.to_owned() })
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guest::Uuid(uuid) => f.write_str(uuid),
            Guest::Name { domain, host } if host.is_empty() => f.write_str(domain),
            Guest::Name { domain, host } => write!(f, "{domain}@{host}"),
        }
    }
}

/// The domain and host that a name such as `instance-0000000a@node1` may mean.
pub fn domain_at_host(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('@').filter(|(domain, host)| !domain.is_empty() && !host.is_empty())
}

/// All guests that a name fits among the series that may be meant: by uuid, by domain, or by
/// `domain@host`.
pub fn fitting(name: &str, candidates: &[Labels]) -> BTreeSet<Guest> {
    let fitting = candidates.iter().filter_map(|labels| {
        let guest = Guest::of(labels)?;
        let is_uuid = matches!(&guest, Guest::Uuid(uuid) if uuid == name);
        (is_uuid || is_named(name, labels)).then_some(guest)
    });
    fitting.collect()
}

fn is_named(name: &str, labels: &Labels) -> bool {
    let domain = labels.get("domain");
    domain == name || domain_at_host(name) == Some((domain, host_of(labels)))
}

/// Which guest a name means among the series that may be meant. A uuid means its guest; a name that
/// fits one uuid, and also guests without one on that uuid's hosts, means the uuid.
pub fn resolve(name: &str, candidates: &[Labels]) -> Resolution {
    let fitting = fitting(name, candidates);
    let itself = Guest::Uuid(name.to_owned());
    if fitting.contains(&itself) {
        return Resolution::One(itself);
    }
    let (uuids, mut names): (Vec<Guest>, Vec<Guest>) =
        fitting.into_iter().partition(|guest| matches!(guest, Guest::Uuid(_)));
    if let [uuid] = &uuids[..] {
        let of_uuid = candidates
            .iter()
            .filter(|labels| is_named(name, labels) && Guest::of(labels).as_ref() == Some(uuid));
        let hosts: BTreeSet<&str> = of_uuid.map(host_of).collect();
        names.retain(|guest| match guest {
            Guest::Name { host, .. } => !host.is_empty() && !hosts.contains(host.as_str()),
            Guest::Uuid(_) => true,
        });
    }
    let mut guests: Vec<Guest> = uuids.into_iter().chain(names).collect();
    match guests.pop() {
        None => Resolution::Nobody,
        Some(guest) if guests.is_empty() => Resolution::One(guest),
        Some(guest) => {
            guests.push(guest);
            Resolution::Several(guests)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, series: &[&[(&str, &str)]], expected: &[&str]) {
        let candidates: Vec<Labels> =
            series.iter().map(|pairs| Labels::new(pairs.iter().copied())).collect();
        let guests = match resolve(name, &candidates) {
            Resolution::Nobody => Vec::new(),
            Resolution::One(guest) => vec![guest.to_string()],
            Resolution::Several(guests) => guests.iter().map(Guest::to_string).collect(),
        };
        assert_eq!(guests, expected, "{name}");
    }

    #[test]
    fn uuids_names_and_hosts() {
        let with_uuid: &[(&str, &str)] =
            &[("uuid", "u1"), ("domain", "i-0a"), ("instance", "n1:9177")];
        let elsewhere: &[(&str, &str)] =
            &[("uuid", "u2"), ("domain", "i-0a"), ("instance", "n2:9177")];
        let moved: &[(&str, &str)] = &[("uuid", "u1"), ("domain", "i-0a"), ("instance", "n3:9177")];
        let nameless: &[(&str, &str)] = &[("domain", "i-0a"), ("host", "n1")];
        let nameless_elsewhere: &[(&str, &str)] = &[("domain", "i-0a"), ("host", "n9")];
        let by_instance: &[(&str, &str)] = &[("instance_id", "u3"), ("host", "n1")];
        check("u1", &[with_uuid, elsewhere], &["u1"]);
        check("u3", &[by_instance], &["u3"]);
        check("i-0a", &[], &[]);
        check("i-0a", &[with_uuid], &["u1"]);
        check("i-0a", &[with_uuid, moved], &["u1"]);
        check("i-0a", &[with_uuid, elsewhere], &["u1", "u2"]);
        check("i-0a@n2", &[with_uuid, elsewhere], &["u2"]);
        check("i-0a@n2", &[with_uuid], &[]);
        check("i-0a", &[nameless], &["i-0a@n1"]);
        check("i-0a@n1", &[nameless, nameless_elsewhere], &["i-0a@n1"]);
        check("i-0a", &[nameless, nameless_elsewhere], &["i-0a@n1", "i-0a@n9"]);
        // On a host of the uuid, the uuid is meant.
        check("i-0a", &[with_uuid, nameless], &["u1"]);
        check("i-0a@n1", &[nameless, with_uuid], &["u1"]);
        check("i-0a", &[with_uuid, nameless_elsewhere], &["u1", "i-0a@n9"]);
        check("i-0a", &[with_uuid, &[("domain", "i-0a")]], &["u1"]);
    }

    #[test]
    fn who_a_series_belongs_to() {
        let of = |pairs: &[(&str, &str)]| {
            Guest::of(&Labels::new(pairs.iter().copied())).map(|guest| guest.to_string())
        };
        assert_eq!(of(&[("uuid", "u1"), ("instance_id", "u2")]).as_deref(), Some("u1"));
        assert_eq!(of(&[("instance_id", "u2"), ("domain", "d")]).as_deref(), Some("u2"));
        assert_eq!(
            of(&[("domain", "d"), ("node", "n"), ("instance", "i:1")]).as_deref(),
            Some("d@n")
        );
        assert_eq!(of(&[("domain", "d")]).as_deref(), Some("d"));
        assert_eq!(of(&[("job", "node"), ("instance", "i:1")]), None);
    }
}
