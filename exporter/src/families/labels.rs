//! Whose a series is: the labels that every series of a guest has, and those that an operator adds.

use crate::snapshot::{Guest, Nova};

/// A label that can be put on every series of a guest. Names of tenants change, and then begin new series; ids do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedLabel {
    /// Nova's id of the guest.
    InstanceId,
    /// Its display name.
    InstanceName,
    /// Its flavor's name.
    FlavorName,
    /// Its owner's id.
    UserId,
    /// Its owner's name.
    UserName,
    /// Its project's id.
    ProjectId,
    /// Its project's name.
    ProjectName,
}

impl AddedLabel {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::InstanceId,
        Self::InstanceName,
        Self::FlavorName,
        Self::UserId,
        Self::UserName,
        Self::ProjectId,
        Self::ProjectName,
    ];

    /// The label's name, as on `libvirt_domain_openstack_info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InstanceId => "instance_id",
            Self::InstanceName => "instance_name",
            Self::FlavorName => "flavor_name",
            Self::UserId => "user_id",
            Self::UserName => "user_name",
            Self::ProjectId => "project_id",
            Self::ProjectName => "project_name",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|label| label.name() == name)
    }

    fn value<'a>(self, guest: &'a Guest, nova: &'a Nova) -> Option<&'a str> {
        match self {
            // Nova gives its instance's id to libvirt as the domain's UUID.
            Self::InstanceId => Some(&guest.uuid),
            Self::InstanceName => nova.instance_name.as_deref(),
            Self::FlavorName => nova.flavor_name.as_deref(),
            Self::UserId => nova.user_id.as_deref(),
            Self::UserName => nova.user_name.as_deref(),
            Self::ProjectId => nova.project_id.as_deref(),
            Self::ProjectName => nova.project_name.as_deref(),
        }
    }
}

/// A guest with the labels that were added to it.
pub(crate) struct Subject<'a> {
    pub(crate) guest: &'a Guest,
    added: Vec<(&'static str, &'a str)>,
}

/// The labels of a guest: its own, and those that were added.
pub(crate) type GuestLabels<'a> = ([(&'static str, &'a str); 2], &'a [(&'static str, &'a str)]);

impl<'a> Subject<'a> {
    /// A guest without nova's metadata has no added label.
    pub(crate) fn of(guest: &'a Guest, labels: &[AddedLabel]) -> Self {
        let nova = guest.description.as_deref().and_then(|text| text.nova.as_ref());
        let of = |nova| {
            let values = labels.iter().filter_map(move |label| {
                label.value(guest, nova).map(|value| (label.name(), value))
            });
            values.collect()
        };
        Self { guest, added: nova.map(of).unwrap_or_default() }
    }

    /// The labels of its series.
    pub(crate) fn labels(&self) -> GuestLabels<'_> {
        ([("domain", &self.guest.name), ("uuid", &self.guest.uuid)], &self.added)
    }

    /// The same and these.
    pub(crate) fn with<'b, const N: usize>(
        &'b self,
        own: [(&'static str, &'b str); N],
    ) -> (GuestLabels<'b>, [(&'static str, &'b str); N]) {
        (self.labels(), own)
    }

    /// The labels of a series of one of its devices.
    pub(crate) fn device<'b>(
        &'b self,
        device: &'b str,
    ) -> (GuestLabels<'b>, [(&'static str, &'b str); 1]) {
        self.with([("target_device", device)])
    }
}
