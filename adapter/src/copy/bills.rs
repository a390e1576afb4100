//! The ledger: a guest's month of each family, written where it is missing, read back and compared.
//! Knows no rule of bills.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{Copy, CopyError, Counts, Done, before, of_from, of_to};
use crate::ledger::Family;
use crate::limits;
use crate::model::time::{Hour, Month, Week};
use crate::store::rows::{LedgerRow, Projection, Sealed};

impl Copy {
    /// Copies all families' guests that are not finished.
    pub(super) async fn bills(
        &mut self,
        tell: &mut (dyn FnMut(&Done) + Send),
    ) -> Result<(), CopyError> {
        let now_ms = self.clock.now_ms();
        let first = Month::of(before(now_ms, self.keeping.ledger));
        for (number, family) in Family::ALL.iter().enumerate() {
            for month in (first.0..=Month::of(now_ms).0 + 1).map(Month) {
                let begun = self.progress.last_guest().cloned();
                let (family_done, month_done, guest_done) = begun.unwrap_or_default();
                if (number, month.0) < (family_done, month_done) {
                    continue;
                }
                let is_begun = (number, month.0) == (family_done, month_done);
                let hours = (Hour::of(month.start_ms()), Hour::of(month.end_ms()));
                let guests =
                    self.from.ledger_guests(family.name(), hours, limits::QUERY_ROWS_MAX).await;
                for guest in guests.map_err(of_from)? {
                    if is_begun && guest <= guest_done {
                        continue;
                    }
                    self.guest(family.name(), &guest, hours).await?;
                    self.progress.finish_guest((number, month.0, guest))?;
                    tell(self.progress.done());
                }
            }
        }
        Ok(())
    }

    /// What the store that is written does not have, or has a part of for good. An hour of which it
    /// has something else stays, and its week is counted again from the samples of both.
    async fn guest(
        &mut self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
    ) -> Result<(), CopyError> {
        let kept = Hour::of(before(self.clock.now_ms(), self.keeping.ledger));
        let hours = (hours.0.max(kept), hours.1);
        if hours.0 > hours.1 {
            return Ok(());
        }
        let rows = self.from.ledger(family, guest, hours, limits::QUERY_ROWS_MAX).await;
        let mut rows = with_values(rows.map_err(of_from)?);
        rows.retain(|row| !row.columns.is_empty());
        let missing = self.missing((family, guest, hours), &rows).await?;
        for projections in missing.chunks(limits::COPY_HOURS_AT_ONCE) {
            let ledger = projections.to_vec();
            self.to.seal(Sealed { ledger, ..Sealed::default() }).await.map_err(of_to)?;
        }
        if !missing.is_empty() {
            let copied = self.hours_there(family, guest, hours).await?;
            for row in missing.iter().flat_map(|projection| &projection.rows) {
                match copied.get(&row.hour) {
                    Some(copied) if copied == row => {}
                    // Somebody counted it meanwhile, with samples of his own.
                    Some(_) if self.is_counted(row.hour) => self.differs(row.hour),
                    _ => return Err(lost(row)),
                }
            }
        }
        self.count(&rows);
        Ok(())
    }

    /// The hours that are to be written, each by itself; sorted by turn.
    ///
    /// The turn of an hour that is not there is its end, which is before all that sealers draw: what
    /// they count of it stands, whenever they drew and whenever they write. An hour that nobody counts
    /// again may be there in part, and is written over that.
    async fn missing(
        &mut self,
        (family, guest, hours): (&str, &str, (Hour, Hour)),
        rows: &[LedgerRow],
    ) -> Result<Vec<Projection>, CopyError> {
        let over = if rows.iter().any(|row| !self.is_counted(row.hour)) {
            self.to.turns(1).await.map_err(of_to)?
        } else {
            0
        };
        let there = self.hours_there(family, guest, hours).await?;
        let mut missing = Vec::new();
        for row in rows {
            let turn = match there.get(&row.hour) {
                None => row.hour.end_ms().saturating_mul(1000),
                Some(there) if there == row => continue,
                Some(there) if is_part(there, row) && !self.is_counted(row.hour) => over,
                Some(_) => {
                    self.differs(row.hour);
                    continue;
                }
            };
            missing.push(Projection { turn, rows: vec![row.clone()] });
        }
        missing.sort_by_key(|projection| projection.turn);
        Ok(missing)
    }

    /// Whether sealers count an hour again.
    fn is_counted(&self, hour: Hour) -> bool {
        hour.start_ms() >= self.counted_ms()
    }

    /// Also those that were counted, and have no value.
    async fn hours_there(
        &self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
    ) -> Result<BTreeMap<Hour, LedgerRow>, CopyError> {
        let there = self.to.ledger(family, guest, hours, limits::QUERY_ROWS_MAX).await;
        let there = with_values(there.map_err(of_to)?).into_iter();
        Ok(there.map(|row| (row.hour, row)).collect())
    }

    /// Takes notice of an hour that is another one on both sides.
    fn differs(&mut self, hour: Hour) {
        let is_counted = self.is_counted(hour);
        let done = self.progress.done_mut();
        if is_counted {
            done.again.insert(Week::of(hour.start_ms()).0);
        } else {
            done.kept += 1;
        }
    }

    fn count(&mut self, rows: &[LedgerRow]) {
        let mut counts = Counts::default();
        for row in rows {
            let minutes = row.columns.iter().flat_map(|column| &column.minutes);
            let text: Vec<u8> = minutes
                .flat_map(|minute| {
                    [minute.value.to_bits().to_be_bytes(), [minute.minute; 8]].concat()
                })
                .collect();
            counts.add(text.len(), xxh3_64(&text));
        }
        let done = self.progress.done_mut();
        done.ledger.plus(counts);
        done.guests += 1;
    }
}

fn lost(row: &LedgerRow) -> CopyError {
    CopyError::Differs(format!(
        "hour {} of {} of {} cannot be read back as it was written; run the copy again",
        row.hour.0, row.family, row.guest
    ))
}

/// Whether everything of an hour is in another one, as where its writing was cut off.
fn is_part(part: &LedgerRow, whole: &LedgerRow) -> bool {
    part.columns.iter().all(|part| {
        let column = whole.columns.iter().find(|column| column.name == part.name);
        column
            .is_some_and(|column| part.minutes.iter().all(|minute| column.minutes.contains(minute)))
    })
}

/// A store may leave out what has no value.
fn with_values(mut rows: Vec<LedgerRow>) -> Vec<LedgerRow> {
    for row in &mut rows {
        row.columns.retain(|column| !column.minutes.is_empty());
    }
    rows
}
