//! The ledger: a guest's month of each family, written, read back and compared. Knows no rule of
//! bills.

use xxhash_rust::xxh3::xxh3_64;

use super::{Copy, CopyError, Counts, Done, before, of_from, of_to};
use crate::ledger::Family;
use crate::limits;
use crate::model::time::{Hour, Month};
use crate::store::rows::{LedgerRow, Projection, Sealed};

impl Copy {
    /// Copies all families' guests that are not finished.
    pub(super) async fn bills(
        &mut self,
        tell: &mut (dyn FnMut(&Done) + Send),
    ) -> Result<(), CopyError> {
        let now_ms = self.clock.now_ms();
        let first = Month(Month::of(before(now_ms, self.keeping.ledger)).0 - 1);
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

    async fn guest(
        &mut self,
        family: &str,
        guest: &str,
        hours: (Hour, Hour),
    ) -> Result<(), CopyError> {
        let rows = self.from.ledger(family, guest, hours, limits::QUERY_ROWS_MAX).await;
        let rows = with_values(rows.map_err(of_from)?);
        let turn = self.to.turns(1).await.map_err(of_to)?;
        for rows in rows.chunks(limits::COPY_HOURS_AT_ONCE) {
            let ledger = vec![Projection { turn, rows: rows.to_vec() }];
            self.to.seal(Sealed { ledger, ..Sealed::default() }).await.map_err(of_to)?;
        }
        let copied = self.to.ledger(family, guest, hours, limits::QUERY_ROWS_MAX).await;
        if with_values(copied.map_err(of_to)?) != rows {
            return Err(CopyError::Differs(format!(
                "the hours of {family} of {guest} from hour {} to {} differ; does an adapter work \
                 on it?",
                hours.0.0, hours.1.0
            )));
        }
        let mut counts = Counts::default();
        for row in &rows {
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
        Ok(())
    }
}

/// A store may leave out what has no value.
fn with_values(mut rows: Vec<LedgerRow>) -> Vec<LedgerRow> {
    for row in &mut rows {
        row.columns.retain(|column| !column.minutes.is_empty());
    }
    rows.retain(|row| !row.columns.is_empty());
    rows
}
