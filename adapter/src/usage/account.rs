//! A guest's rows as they stand in the ledger, and which hours are not in it yet: what an operator
//! looks up. Counts nothing anew, other than a bill.

use std::collections::VecDeque;
use std::sync::Arc;

use super::printout::{Begin, End, Entry, Line, Missing};
use super::slices::merged;
use super::{Minutes, Usage};
use crate::ledger::Family;
use crate::ledger::guest::Guest;
use crate::limits;
use crate::meter::Named;
use crate::model::instant;
use crate::model::time::{Hour, Week};
use crate::query::QueryError;

/// Whose rows are asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The guest, by any of its names.
    pub name: String,
    /// Which families.
    pub families: Vec<Family>,
    /// Which minutes.
    pub minutes: Minutes,
}

/// Lines under way.
#[derive(Debug)]
pub struct Account {
    usage: Arc<Usage>,
    /// The guest's names, itself first.
    names: Vec<Named>,
    minutes: Minutes,
    begin: Option<Begin>,
    /// What is left to read: a family and hours, both included.
    parts: VecDeque<(Family, (Hour, Hour))>,
    end: Option<End>,
}

impl Account {
    /// Finds the guest and what is to be read.
    pub async fn open(usage: &Arc<Usage>, wanted: Wanted) -> Result<Account, QueryError> {
        let Wanted { name, families, minutes } = wanted;
        let guest = usage.guest(&name, &families, minutes).await?;
        let range = minutes.samples().and_then(|range| usage.engine.billed_range(range));
        let hours = range.map(|range| (Hour::of(range.start_ms), Hour::of(range.end_ms)));
        let mut account = Account {
            usage: Arc::clone(usage),
            minutes,
            begin: Some(Begin {
                guest: guest.as_ref().map(Guest::to_string),
                from: instant::format(minutes.from_ms),
                to: instant::format(minutes.to_ms),
                kept_from: instant::format(usage.kept_from_ms()),
            }),
            parts: VecDeque::new(),
            end: Some(End::default()),
            names: Vec::new(),
        };
        if let (Some(guest), Some(hours)) = (&guest, hours) {
            account.names = usage.names(guest).await?;
            // Before the rows: an hour that is sealed meanwhile is then said twice and never missed.
            let mut end = End::default();
            for Named { name, .. } in &account.names {
                let missing = usage.meter.missing(name, hours).await?;
                end.missing.extend(missing.into_iter().map(|(why, hours)| Missing {
                    from: instant::format(hours.0.start_ms()),
                    to: instant::format(hours.1.end_ms() + 1),
                    why,
                }));
            }
            end.missing.sort_by(|one, other| (&one.from, &one.to).cmp(&(&other.from, &other.to)));
            end.missing.dedup();
            account.end = Some(end);
            let step = usize::try_from(limits::REPORT_PLAN_HOURS).unwrap_or(usize::MAX);
            for family in families {
                let firsts = (hours.0.0..=hours.1.0).step_by(step);
                account.parts.extend(firsts.map(|first| {
                    let last = hours.1.0.min(first + limits::REPORT_PLAN_HOURS - 1);
                    (family, (Hour(first), Hour(last)))
                }));
            }
        }
        Ok(account)
    }

    /// The next lines, the begin first, then rows sorted by family, minute and device; `None` behind
    /// the end.
    pub async fn next(&mut self) -> Result<Option<Vec<Line>>, QueryError> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(vec![Line::Begin(begin)]));
        }
        if let Some((family, hours)) = self.parts.pop_front() {
            let _slot = self.usage.slots.acquire().await?;
            let mut parts = Vec::with_capacity(self.names.len());
            for named in &self.names {
                let mut rows = self.usage.meter.stored(&named.name, family, hours).await?;
                rows.retain(|row| named.holds(Week::of(row.minute_ms)));
                parts.push(rows);
            }
            let mut rows = merged(family, parts);
            rows.retain(|row| self.minutes.hold(row.minute_ms));
            let lines = rows.iter().map(|row| Line::Row(Entry::new(family, row)));
            return Ok(Some(lines.collect()));
        }
        Ok(self.end.take().map(|end| vec![Line::End(end)]))
    }
}
