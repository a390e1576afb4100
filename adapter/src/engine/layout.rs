//! The layout: how this store arranges rows. Written into the store once, checked at every start,
//! because a process with another layout would look for rows where they are not.

use serde::{Deserialize, Serialize};

use crate::model::row_key::RowKeyRule;
use crate::model::time::{Hour, Week, Window};
use crate::store::rows::LayoutRow;
use crate::store::{Store, StoreError};

/// The newest format that this release reads, and what a new store gets. With 2, bills in a cluster are
/// counted from the table `ledger`: who knows only 1 would seal hours without it, and not start there.
pub const FORMAT: u32 = 2;

/// Settings that every process on one store must share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Version of the tables' and payloads' form.
    pub format: u32,
    /// `--row-key.labels`: the first of these that a series has is its row key.
    pub row_key_labels: Vec<String>,
    /// Groups of one job and instance.
    pub target_parts: u16,
    /// Partitions of one metric's index rows.
    pub index_shards: u16,
    /// Length of the window that is sealed at once, seconds.
    pub seal_window_seconds: u32,
}

impl Layout {
    /// The layout of a new store.
    pub fn new(row_key_labels: Vec<String>, seal_window_seconds: u32) -> Layout {
        Layout {
            format: FORMAT,
            row_key_labels,
            target_parts: 16,
            index_shards: 16,
            seal_window_seconds,
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            row_key: RowKeyRule {
                labels: self.row_key_labels.clone(),
                target_parts: self.target_parts,
            },
            // Only what divides a day is ever written; a damaged number must not divide by zero.
            window_hours: i32::try_from(self.seal_window_seconds / 3600).unwrap_or(24).clamp(1, 24),
        }
    }

    /// What differs from the layout in the store, in words.
    fn difference(&self, stored: &Layout) -> Option<String> {
        let mut differences = Vec::new();
        if self.row_key_labels != stored.row_key_labels {
            differences.push(format!(
                "--row-key.labels is {} but the store was made with {}",
                self.row_key_labels.join(","),
                stored.row_key_labels.join(",")
            ));
        }
        for (what, ours, theirs) in [
            ("parts of a target", u32::from(self.target_parts), u32::from(stored.target_parts)),
            ("index shards", u32::from(self.index_shards), u32::from(stored.index_shards)),
            ("seal window in seconds", self.seal_window_seconds, stored.seal_window_seconds),
        ] {
            if ours != theirs {
                differences.push(format!("{what}: {ours} here, {theirs} in the store"));
            }
        }
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

/// Why a process may not work on a store.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A later release wrote it.
    #[error(
        "the store has format {stored}, this release reads up to {FORMAT}; use a newer release"
    )]
    Newer {
        /// The store's format.
        stored: u32,
    },
    /// Other settings than the store's.
    #[error("the store has another layout: {0}; start with the store's settings")]
    Differs(String),
    /// The row is not what any release wrote.
    #[error("the store's layout cannot be read ({0}); is this a kanyun-adapter store?")]
    Unreadable(String),
}

/// All layouts of a store, by the week from which they hold.
#[derive(Clone, Debug)]
pub struct Layouts {
    first: Rules,
    later: Vec<(Week, Rules)>,
}

/// What a layout says, ready for use.
#[derive(Clone, Debug)]
struct Rules {
    row_key: RowKeyRule,
    window_hours: i32,
}

impl Layouts {
    /// Reads the store's layouts, writes the first one into an empty store, and compares the one
    /// that holds now with `wanted`.
    pub async fn open(store: &Store, wanted: &Layout, now: Week) -> Result<Layouts, LayoutError> {
        let mut rows = store.layouts().await?;
        if rows.is_empty() {
            let settings = serde_json::to_string(wanted)
                .map_err(|error| LayoutError::Unreadable(error.to_string()))?;
            store.add_layout(LayoutRow { from: now, settings }).await?;
            // Another process may have been faster: what is in the store holds.
            rows = store.layouts().await?;
        }
        let mut layouts = Vec::with_capacity(rows.len());
        for row in &rows {
            layouts.push((row.from, parse(&row.settings)?));
        }
        let holds = layouts.iter().rev().find(|(from, _)| *from <= now).or(layouts.first());
        let Some((_, holds)) = holds else {
            return Err(LayoutError::Unreadable("there is none".to_owned()));
        };
        if let Some(difference) = wanted.difference(holds) {
            return Err(LayoutError::Differs(difference));
        }
        let mut rules = layouts.iter().map(|(from, layout)| (*from, layout.rules()));
        let first = rules.next().map_or_else(|| wanted.rules(), |(_, rules)| rules);
        Ok(Layouts { first, later: rules.collect() })
    }

    /// The rule for row keys that holds in a week.
    pub fn rule(&self, week: Week) -> &RowKeyRule {
        &self.rules(week).row_key
    }

    /// The window that holds an hour.
    pub fn window(&self, hour: Hour) -> Window {
        Window::of(hour, self.rules(Week::of(hour.start_ms())).window_hours)
    }

    fn rules(&self, week: Week) -> &Rules {
        let later = self.later.iter().rev().find(|(from, _)| *from <= week);
        later.map_or(&self.first, |(_, rules)| rules)
    }
}

/// Whether the layouts of two stores, each oldest first, say the same of every week: one may have
/// begun later than the other. The format of each is its own.
pub fn are_alike(left: &[LayoutRow], right: &[LayoutRow]) -> Result<bool, LayoutError> {
    let holds = |rows: &[LayoutRow], week: Week| {
        let row = rows.iter().rev().find(|row| row.from <= week).or(rows.first());
        row.map(|row| parse(&row.settings)).transpose()
    };
    for week in left.iter().chain(right).map(|row| row.from) {
        let is_alike = match (holds(left, week)?, holds(right, week)?) {
            (Some(left), Some(right)) => left.difference(&right).is_none(),
            (left, right) => left == right,
        };
        if !is_alike {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A row of another store's as this release writes it: what it brings over has this form, and who knows
/// an earlier one must not work on it.
pub fn of_this_format(row: &LayoutRow) -> Result<LayoutRow, LayoutError> {
    let layout = Layout { format: FORMAT, ..parse(&row.settings)? };
    let settings = serde_json::to_string(&layout);
    let settings = settings.map_err(|error| LayoutError::Unreadable(error.to_string()))?;
    Ok(LayoutRow { settings, from: row.from })
}

fn parse(settings: &str) -> Result<Layout, LayoutError> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let unreadable = |error: serde_json::Error| LayoutError::Unreadable(error.to_string());
    // The format first: a newer one may have settings that this release does not know.
    let FormatOnly { format } = serde_json::from_str(settings).map_err(unreadable)?;
    if format > FORMAT {
        return Err(LayoutError::Newer { stored: format });
    }
    serde_json::from_str(settings).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn wanted() -> Layout {
        Layout::new(vec!["uuid".into(), "instance_id".into()], 7200)
    }

    #[tokio::test]
    async fn written_once_and_compared_ever_after() {
        let store = Store::Memory(Memory::new());
        Layouts::open(&store, &wanted(), Week(2900)).await.unwrap();
        Layouts::open(&store, &wanted(), Week(2950)).await.unwrap();
        assert_eq!(store.layouts().await.unwrap().len(), 1);
        let other = Layout::new(vec!["instance_id".into()], 7200);
        let error = Layouts::open(&store, &other, Week(2950)).await.unwrap_err().to_string();
        assert!(
            error.contains(
                "--row-key.labels is instance_id but the store was made with uuid,instance_id"
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_newer_format_is_refused_even_with_settings_unknown_here() {
        let store = Store::Memory(Memory::new());
        let settings = r#"{"format": 3, "rainbow": true}"#.to_owned();
        store.add_layout(LayoutRow { from: Week(1), settings }).await.unwrap();
        let error = Layouts::open(&store, &wanted(), Week(2950)).await.unwrap_err().to_string();
        assert!(error.contains("format 3"), "{error}");
    }

    #[tokio::test]
    async fn a_store_of_an_earlier_format_goes_on() {
        let store = Store::Memory(Memory::new());
        let earlier = Layout { format: 1, ..wanted() };
        let settings = serde_json::to_string(&earlier).unwrap();
        let row = LayoutRow { from: Week(1), settings };
        store.add_layout(row.clone()).await.unwrap();
        Layouts::open(&store, &wanted(), Week(2950)).await.unwrap();
        let settings = serde_json::to_string(&wanted()).unwrap();
        let as_of_now = LayoutRow { from: Week(1), settings };
        assert!(are_alike(std::slice::from_ref(&row), std::slice::from_ref(&as_of_now)).unwrap());
        // A copy of it is of this release.
        assert_eq!(of_this_format(&row).unwrap(), as_of_now);
        let newer = LayoutRow { from: Week(1), settings: r#"{"format": 3}"#.to_owned() };
        assert!(matches!(of_this_format(&newer), Err(LayoutError::Newer { stored: 3 })));
    }

    #[test]
    fn stores_that_began_at_other_times_are_alike() {
        let row = |from, layout: &Layout| LayoutRow {
            from: Week(from),
            settings: serde_json::to_string(layout).unwrap(),
        };
        let other = Layout::new(vec!["vm".into()], 7200);
        let early = [row(10, &wanted())];
        assert!(are_alike(&early, &[row(20, &wanted())]).unwrap());
        assert!(!are_alike(&early, &[row(20, &other)]).unwrap());
        let changed = [row(10, &other), row(20, &wanted())];
        assert!(!are_alike(&early, &changed).unwrap());
        assert!(!are_alike(&changed, &[row(15, &wanted())]).unwrap(), "of weeks 15 to 20");
        assert!(are_alike(&changed, &changed).unwrap());
        // The first holds for all time before it, too.
        assert!(!are_alike(&changed, &[row(20, &wanted())]).unwrap());
    }

    #[tokio::test]
    async fn a_later_layout_holds_from_its_week() {
        let store = Store::Memory(Memory::new());
        let older = Layout::new(vec!["vm".into()], 7200);
        for (from, layout) in [(Week(10), &older), (Week(20), &wanted())] {
            let settings = serde_json::to_string(layout).unwrap();
            store.add_layout(LayoutRow { from, settings }).await.unwrap();
        }
        let layouts = Layouts::open(&store, &wanted(), Week(25)).await.unwrap();
        assert_eq!(layouts.rule(Week(5)).labels, ["vm"]);
        assert_eq!(layouts.rule(Week(19)).labels, ["vm"]);
        assert_eq!(layouts.rule(Week(20)).labels, ["uuid", "instance_id"]);
        assert!(matches!(
            Layouts::open(&store, &wanted(), Week(15)).await,
            Err(LayoutError::Differs(_))
        ));
    }
}
