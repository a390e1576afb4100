//! Which guest a name means in a range, and who can be billed in it: by the labels of the index,
//! and by samples where the index cannot tell.

use std::collections::{BTreeMap, BTreeSet};

use super::{Minutes, Usage};
use crate::ledger::guest::{Guest, Resolution, domain_at_host, fitting, resolve};
use crate::ledger::{Family, TOTAL};
use crate::limits;
use crate::meter::{Named, any_of, labels_of, matchers, metrics_of};
use crate::model::labels::Labels;
use crate::model::time::{DAY_MS, Hour, TimeRange};
use crate::query::QueryError;

impl Usage {
    /// The guest that a name means among those with samples of these families in a range; an error
    /// of the client's where it fits several.
    pub async fn guest(
        &self,
        name: &str,
        families: &[Family],
        minutes: Minutes,
    ) -> Result<Option<Guest>, QueryError> {
        let Some(range) = minutes.samples() else { return Ok(None) };
        let _slot = self.slots.acquire().await?;
        let metrics = metrics_of(families);
        let mut candidates = Vec::new();
        let domain = domain_at_host(name).map(|(domain, _)| ("domain", domain));
        let asked = [("uuid", name), ("instance_id", name), ("domain", name)];
        for (label, value) in asked.into_iter().chain(domain) {
            candidates.extend(self.engine.series(range, &matchers(&metrics, label, value)?).await?);
        }
        let fitting = fitting(name, &candidates);
        if fitting.len() > 1 {
            // The index knows weeks, a range may be minutes: who has no sample in it is not meant.
            let present = self.present(fitting, &metrics, range).await?;
            candidates.retain(|labels| Guest::of(labels).is_some_and(|of| present.contains(&of)));
        }
        let guests = match resolve(name, &candidates) {
            Resolution::Nobody => BTreeSet::new(),
            Resolution::One(guest) => BTreeSet::from([guest]),
            Resolution::Several(guests) => guests.into_iter().collect(),
        };
        let mut known = self.meant(guests, range).await?;
        if known.len() > 1 {
            let names: Vec<String> = known.iter().map(Guest::to_string).collect();
            return Err(QueryError::Client(format!(
                "{name:?} fits several guests in this range: {}",
                names.join(", ")
            )));
        }
        match known.pop_first() {
            None if self.was_named(name, &metrics, range).await? => {
                Ok(Some(Guest::Uuid(name.to_owned())))
            }
            None => self.billed_before(name, families, range).await,
            guest => Ok(guest),
        }
    }

    /// The names under which a guest's rows are stored, itself first.
    pub(super) async fn names(&self, guest: &Guest) -> Result<Vec<Named>, QueryError> {
        self.meter.names(guest, self.kept()).await
    }

    /// Who is meant by some guests in a range, as workers' names mean guests with a uuid.
    async fn meant(
        &self,
        guests: BTreeSet<Guest>,
        range: TimeRange,
    ) -> Result<BTreeSet<Guest>, QueryError> {
        let kept = self.kept();
        let range = self.engine.billed_range(range).unwrap_or(kept);
        self.meter.meant(guests, (range, kept)).await
    }

    /// All that is kept of samples.
    fn kept(&self) -> TimeRange {
        let always = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        // There is always a day that may hold some.
        self.engine.stored_range(always).unwrap_or(TimeRange { start_ms: 0, end_ms: 0 })
    }

    /// Whether a guest that no exporter saw in a range has samples there by another name.
    async fn was_named(
        &self,
        uuid: &str,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<bool, QueryError> {
        let Some(range) = range.within(self.kept()) else { return Ok(false) };
        for named in self.names(&Guest::Uuid(uuid.to_owned())).await?.iter().skip(1) {
            for week in range.weeks().filter(|week| named.holds(*week)) {
                let of_week = TimeRange { start_ms: week.start_ms(), end_ms: week.end_ms() };
                let Some(part) = range.within(of_week) else { continue };
                if self.has_samples(&named.name, metrics, part).await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The guest of this name in the ledger, which is kept longer than samples and their labels.
    async fn billed_before(
        &self,
        name: &str,
        families: &[Family],
        range: TimeRange,
    ) -> Result<Option<Guest>, QueryError> {
        let Some(hours) = self.before_samples(range) else { return Ok(None) };
        let step = limits::REPORT_PLAN_HOURS;
        // The first hour that has any is enough, and all of them may be more than a read may be.
        for first in (hours.0.0..=hours.1.0).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let part = (Hour(first), Hour(hours.1.0.min(first + step - 1)));
            for family in families {
                if !self.engine.ledger(family.name(), name, part).await?.is_empty() {
                    return Ok(Some(Guest::named(name)));
                }
            }
        }
        Ok(None)
    }

    /// The hours of a range of which the ledger is kept, and no samples any more.
    fn before_samples(&self, range: TimeRange) -> Option<(Hour, Hour)> {
        let billed = self.engine.billed_range(range)?;
        let sampled = self.engine.stored_range(range);
        let end_ms = sampled.map_or(billed.end_ms, |sampled| sampled.start_ms - 1);
        (billed.start_ms < end_ms).then_some((Hour::of(billed.start_ms), Hour::of(end_ms)))
    }

    /// Those of some guests who have a sample in a range.
    async fn present(
        &self,
        guests: BTreeSet<Guest>,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<BTreeSet<Guest>, QueryError> {
        let mut present = BTreeSet::new();
        for guest in guests {
            if self.has_samples(&guest, metrics, range).await? {
                present.insert(guest);
            }
        }
        Ok(present)
    }

    /// Looks day by day, the newest first, and no further than to the first sample.
    async fn has_samples(
        &self,
        guest: &Guest,
        metrics: &[&str],
        range: TimeRange,
    ) -> Result<bool, QueryError> {
        let Some(range) = self.engine.stored_range(range) else { return Ok(false) };
        let mut end_ms = range.end_ms;
        while end_ms >= range.start_ms {
            let day = TimeRange { start_ms: range.start_ms.max(end_ms - DAY_MS + 1), end_ms };
            for (label, value) in labels_of(guest) {
                let matchers = matchers(metrics, label, value)?;
                let found = self.engine.select(day, &matchers, &|_| ((), 0)).await?;
                if found.iter().any(|(labels, ())| Guest::of(labels).as_ref() == Some(guest)) {
                    return Ok(true);
                }
            }
            end_ms -= DAY_MS;
        }
        Ok(false)
    }

    /// What a guest has samples of, by its uuid or name: families, each with its devices.
    pub async fn devices(&self, name: &str) -> Result<Vec<(Family, Vec<String>)>, QueryError> {
        let Some(guest) = self.guest(name, &Family::ALL, Minutes::ALL).await? else {
            return Ok(Vec::new());
        };
        let Some(range) = Minutes::ALL.samples() else { return Ok(Vec::new()) };
        let _slot = self.slots.acquire().await?;
        let metrics = metrics_of(&Family::ALL);
        let mut devices: BTreeMap<Family, BTreeSet<String>> = BTreeMap::new();
        for Named { name, .. } in self.names(&guest).await? {
            for (label, value) in labels_of(&name) {
                let series = self.engine.series(range, &matchers(&metrics, label, value)?).await?;
                let own = series.iter().filter(|labels| Guest::of(labels).as_ref() == Some(&name));
                for labels in own {
                    for family in Family::ALL.into_iter().filter(|family| family.is_fed_by(labels))
                    {
                        let device = family.device_label().map_or(TOTAL, |label| labels.get(label));
                        devices.entry(family).or_default().insert(device.to_owned());
                    }
                }
            }
        }
        Ok(devices
            .into_iter()
            .map(|(family, devices)| (family, devices.into_iter().collect()))
            .collect())
    }

    /// Everybody who has data of a family in a range, each by a name that means them there: to ask
    /// for the report of each bills nobody twice.
    pub async fn guests(
        &self,
        family: Family,
        minutes: Minutes,
    ) -> Result<BTreeSet<Guest>, QueryError> {
        let Some(range) = minutes.samples() else { return Ok(BTreeSet::new()) };
        let series = {
            let _slot = self.slots.acquire().await?;
            self.engine.series(range, &[any_of(&family.metrics())?]).await?
        };
        let mut by_domain: BTreeMap<&str, Vec<&Labels>> = BTreeMap::new();
        let mut guests = BTreeSet::new();
        for labels in series.iter().filter(|labels| family.is_fed_by(labels)) {
            by_domain.entry(labels.get("domain")).or_default().push(labels);
            guests.extend(Guest::of(labels));
        }
        let mut listed = BTreeSet::new();
        if let Some(hours) = self.before_samples(range) {
            let names = self.engine.ledger_guests(family.name(), hours).await?;
            let names = names.iter().map(|name| Guest::named(name)).collect();
            let older = TimeRange { start_ms: hours.0.start_ms(), end_ms: hours.1.end_ms() };
            let _slot = self.slots.acquire().await?;
            listed = self.meant(names, older).await?;
        }
        let meant = {
            let _slot = self.slots.acquire().await?;
            self.meant(guests, range).await?
        };
        for guest in meant {
            let Guest::Name { domain, .. } = &guest else {
                listed.insert(guest);
                continue;
            };
            // Only a guest with a uuid, of the same domain, can take a name away.
            let name = guest.to_string();
            let others = by_domain.get(domain.as_str()).map(Vec::as_slice).unwrap_or_default();
            let contested =
                others.iter().any(|labels| matches!(Guest::of(labels), Some(Guest::Uuid(_))));
            if !contested {
                listed.insert(guest);
                continue;
            }
            match self.guest(&name, &[family], minutes).await {
                Ok(meant) => listed.extend(meant.filter(|meant| *meant == guest)),
                // The name means several, and nobody can be asked for by it.
                Err(QueryError::Client(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }
}
