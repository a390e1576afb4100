//! Which guests a page shows: by name, uuid and project, each by regular expressions that match the whole of it.

use regex::Regex;

use crate::snapshot::Guest;

/// What of a guest an expression is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKey {
    /// libvirt's name.
    Name,
    /// libvirt's UUID.
    Uuid,
    /// Nova's project, its id or its name. A guest without nova's metadata has none.
    Project,
}

/// Which guests a page shows. By default all.
#[derive(Clone, Debug, Default)]
pub struct GuestFilter {
    include: Vec<(GuestKey, Regex)>,
    exclude: Vec<(GuestKey, Regex)>,
}

impl GuestFilter {
    /// Shows only guests that match `pattern` as well.
    #[must_use]
    pub fn including(mut self, key: GuestKey, pattern: Regex) -> Self {
        self.include.push((key, pattern));
        self
    }

    /// Does not show guests that match `pattern`.
    #[must_use]
    pub fn excluding(mut self, key: GuestKey, pattern: Regex) -> Self {
        self.exclude.push((key, pattern));
        self
    }

    /// An expression as it is given, matching the whole.
    pub fn pattern(text: &str) -> Result<Regex, String> {
        Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())
    }

    /// Whether the guest is shown. While its XML is not known, nobody knows its project: where projects are chosen it is
    /// not shown, as it could be one that must not be.
    pub fn shows(&self, guest: &Guest) -> bool {
        let by_project = |(key, _): &(GuestKey, Regex)| *key == GuestKey::Project;
        if guest.description.is_none() && self.exclude.iter().any(by_project) {
            return false;
        }
        let matches = |(key, pattern): &(GuestKey, Regex)| match key {
            GuestKey::Name => pattern.is_match(&guest.name),
            GuestKey::Uuid => pattern.is_match(&guest.uuid),
            GuestKey::Project => {
                let nova = guest.description.as_deref().and_then(|text| text.nova.as_ref());
                let project = nova.map(|nova| [&nova.project_id, &nova.project_name]);
                project.into_iter().flatten().flatten().any(|project| pattern.is_match(project))
            }
        };
        self.include.iter().all(matches) && !self.exclude.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::{Description, Nova};

    #[test]
    fn guests_by_name_uuid_and_project() {
        let nova = Nova {
            project_id: Some("p-1".to_owned()),
            project_name: Some("demo".to_owned()),
            ..Nova::default()
        };
        let description = Description { nova: Some(nova), ..Description::default() };
        let of_nova = Guest {
            name: "instance-00000001".to_owned(),
            uuid: "u-1".to_owned(),
            description: Some(Arc::new(description)),
            ..Guest::default()
        };
        let not_read =
            Guest { name: "router".to_owned(), uuid: "u-2".to_owned(), ..Guest::default() };
        let other = Guest { description: Some(Arc::default()), ..not_read.clone() };
        let shown = |filter: &GuestFilter| (filter.shows(&of_nova), filter.shows(&other));
        let all = GuestFilter::default();
        let pattern = |text| GuestFilter::pattern(text).unwrap();
        assert_eq!(shown(&all), (true, true));
        let include = |key, text| all.clone().including(key, pattern(text));
        assert_eq!(shown(&include(GuestKey::Name, "instance-.*")), (true, false));
        assert_eq!(shown(&include(GuestKey::Name, "instance")), (false, false));
        assert_eq!(shown(&include(GuestKey::Uuid, "u-2|u-3")), (false, true));
        assert_eq!(shown(&include(GuestKey::Project, "demo")), (true, false));
        assert_eq!(shown(&include(GuestKey::Project, "p-1")), (true, false));
        let exclude = |key, text| all.clone().excluding(key, pattern(text));
        assert_eq!(shown(&exclude(GuestKey::Project, "demo")), (false, true));
        let not_demo = all.clone().excluding(GuestKey::Project, pattern("demo"));
        assert!(!not_demo.shows(&not_read) && all.shows(&not_read), "it may be of the project");
        let both = include(GuestKey::Name, ".*").excluding(GuestKey::Uuid, pattern("u-1"));
        assert_eq!(shown(&both), (false, true));
        assert!(GuestFilter::pattern("(").is_err());
    }
}
