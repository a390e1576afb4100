//! Which row a series' samples are packed into: the instance, as in Kanyun, not the series.
//! Prometheus sends one sample a series and request, so what arrives together belongs together by
//! instance (DESIGN.md, "Identity"). Knows labels by name only.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use super::series::SeriesId;

/// The rule that gives a series its row key; part of the store's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKeyRule {
    /// The first of these labels that a series has is its row key: a guest's uuid.
    pub labels: Vec<String>,
    /// Into how many groups the series of a job and instance are divided; a node exporter has
    /// thousands of series. A guest is always one group.
    pub target_parts: u16,
}

/// The instance a series belongs to, and how many groups that instance is divided into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowKey {
    /// A guest's uuid, `domain@host`, or `job/instance`.
    pub text: String,
    /// 1 for guests, [`RowKeyRule::target_parts`] for a job and instance.
    pub parts: u16,
}

/// The id of one part of a row key: the partition that its samples share. 64 bits, because a
/// collision costs only a shared partition: what a sample belongs to is said by its series id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u64);

impl RowKeyRule {
    /// The row key of a series; `label` gives a label's value, empty where it is missing.
    pub fn row_key<'a>(&self, label: impl Fn(&str) -> &'a str) -> RowKey {
        for name in &self.labels {
            let value = label(name);
            if !value.is_empty() {
                return RowKey::guest(value);
            }
        }
        let domain = label("domain");
        let host = host(&label);
        if !domain.is_empty() && !host.is_empty() {
            return RowKey::guest(&format!("{domain}@{host}"));
        }
        let text = format!("{}/{}", label("job"), label("instance"));
        RowKey { text, parts: self.target_parts.max(1) }
    }
}

/// The labels that name a host, the first one first.
pub const HOST_LABELS: [&str; 3] = ["host", "node", "instance"];

/// The first of `host`, `node` and `instance` without its port (ledger.md, "Whose counter is it");
/// `label` gives a label's value, empty where it is missing.
pub fn host<'a>(label: &impl Fn(&str) -> &'a str) -> &'a str {
    let [names @ .., instance] = HOST_LABELS;
    for name in names {
        let value = label(name);
        if !value.is_empty() {
            return value;
        }
    }
    let instance = label(instance);
    instance.rsplit_once(':').map_or(instance, |(host, _)| host)
}

impl RowKey {
    /// A guest's row key.
    pub fn guest(text: &str) -> RowKey {
        RowKey { text: text.to_owned(), parts: 1 }
    }

    /// The group that holds a series of this row key.
    pub fn group_of(&self, series: SeriesId) -> Group {
        Group::of(&self.text, series.shard(self.parts))
    }

    /// All groups of this row key.
    pub fn groups(&self) -> impl Iterator<Item = Group> + '_ {
        (0..self.parts).map(|part| Group::of(&self.text, part))
    }
}

impl Group {
    fn of(row_key: &str, part: u16) -> Group {
        let mut bytes = Vec::with_capacity(row_key.len() + 2);
        bytes.extend_from_slice(row_key.as_bytes());
        bytes.extend_from_slice(&part.to_be_bytes());
        Group(xxh3_64(&bytes))
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::labels::Labels;

    fn check(pairs: &[(&str, &str)], text: &str, parts: u16) {
        let rule =
            RowKeyRule { labels: vec!["uuid".into(), "instance_id".into()], target_parts: 16 };
        let labels = Labels::new(pairs.iter().copied());
        assert_eq!(rule.row_key(|name| labels.get(name)), RowKey { text: text.into(), parts });
    }

    #[test]
    fn the_instance_is_the_row() {
        check(&[("uuid", "u1"), ("instance_id", "u2"), ("instance", "h:9177")], "u1", 1);
        check(&[("instance_id", "u2"), ("domain", "instance-0a"), ("instance", "h:9177")], "u2", 1);
        check(&[("domain", "instance-0a"), ("instance", "h:9177")], "instance-0a@h", 1);
        check(
            &[("domain", "instance-0a"), ("host", "n1"), ("instance", "h:9177")],
            "instance-0a@n1",
            1,
        );
        check(&[("domain", "instance-0a"), ("instance", "[::1]:9177")], "instance-0a@[::1]", 1);
        check(&[("job", "node"), ("instance", "h:9100")], "node/h:9100", 16);
        check(&[("domain", "instance-0a")], "/", 16);
    }

    #[test]
    fn a_guest_is_one_group_and_a_target_is_divided() {
        assert_eq!(RowKey::guest("u").groups().count(), 1);
        let target = RowKey { text: "node/h:9100".into(), parts: 16 };
        let groups: std::collections::BTreeSet<Group> = target.groups().collect();
        assert_eq!(groups.len(), 16);
        assert!((0..200u128).all(|id| groups.contains(&target.group_of(SeriesId(id)))));
    }

    #[test]
    fn group_ids_are_pinned() {
        // They are on disk, like series ids.
        assert_eq!(format!("{:?}", Group::of("u", 0)), "07c2ae2cb551ac48");
    }
}
