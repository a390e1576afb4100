//! The rows of a seal, each step durable before the next: chunks, the ledger, markers; then the late
//! rows that may go. Knows no payload and no rule of the ledger.

use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::minutes::{self, MinuteValues};
use super::stage::{Stage, batches};
use super::write::{Ages, LateKey, guest_shard, late_key};
use crate::model::time::{Day, Month, Week};
use crate::store::rows::{ChunkRow, LateRow, LedgerRow, MarkerRow, Projection, Sealed};
use crate::store::{StoreError, ledger_row};

type ChunkValues = (i64, i32, Bytes, i32, i64, Bytes, i32);
type MarkerValues = (i64, i32, i32, i32);
type GuestValues = (String, i32, i16, String, i32);
/// family, guest, week, hour, minutes; then the time to live and the turn.
type LedgerValues = (String, String, i32, i32, Bytes, i32, i64);

/// Writes what a seal made. Rows whose time is over already are not written.
pub(super) async fn seal(shared: &Arc<Shared>, sealed: Sealed) -> Result<(), StoreError> {
    shared.check_trouble()?;
    let ages = Ages::now(shared);
    let statements = &shared.statements.sealed;
    let mut stage = Stage::of_seal(shared);
    stage.write(&statements.write_chunks, chunks(sealed.chunks, &ages)).await?;
    stage.finish().await?;
    ledger(shared, sealed.ledger, &ages).await?;
    let mut stage = Stage::of_seal(shared);
    stage.write(&statements.write_markers, markers(&sealed.markers, &ages)).await?;
    stage.finish().await?;
    let mut stage = Stage::of_seal(shared);
    stage.write(&statements.delete_late, late(&sealed.late)).await?;
    stage.finish().await
}

fn chunks(rows: Vec<ChunkRow>, ages: &Ages) -> Vec<Vec<ChunkValues>> {
    let values = rows.into_iter().filter_map(|row| {
        let ttl = ages.ttl_of_window(row.window)?;
        let week = Week::of(row.window.start_ms()).0;
        let (group, hash) = (row.group.0.cast_signed(), row.hash.cast_signed());
        let series = Bytes::copy_from_slice(&row.series.to_bytes());
        Some((group, week, series, row.window.0, hash, row.payload, ttl))
    });
    batches(values.collect(), |a, b| (a.0, a.1) == (b.0, b.1), |row: &ChunkValues| row.5.len())
}

fn markers(rows: &[MarkerRow], ages: &Ages) -> Vec<Vec<MarkerValues>> {
    let values = rows.iter().filter_map(|row| {
        let ttl = ages.ttl_of_window(row.window)?;
        let month = Month::of(row.window.start_ms()).0;
        Some((row.group.0.cast_signed(), month, row.window.0, ttl))
    });
    batches(values.collect(), |a: &MarkerValues, b| (a.0, a.1) == (b.0, b.1), |_| 0)
}

fn late(rows: &[LateRow]) -> Vec<Vec<LateKey>> {
    let keys = rows.iter().map(late_key);
    batches(keys.collect(), |a, b| (a.0, a.1) == (b.0, b.1), |_| 0)
}

/// The column families, then what bills are counted from: an hour that is billed is there to be
/// seen. Each hour is written in the turn of its projection: a sealer that slept, and writes what it
/// counted before others did, changes nothing of theirs.
async fn ledger(
    shared: &Arc<Shared>,
    projections: Vec<Projection>,
    ages: &Ages,
) -> Result<(), StoreError> {
    let in_turn = |Projection { turn, rows }| rows.into_iter().map(move |row| (row, turn));
    let mut rows: Vec<(LedgerRow, i64)> = projections.into_iter().flat_map(in_turn).collect();
    rows.sort_by(|(a, _), (b, _)| {
        (&a.family, &a.guest, a.hour).cmp(&(&b.family, &b.guest, b.hour))
    });
    column_families(shared, &rows, ages).await?;
    let statements = &shared.statements.sealed;
    let mut stage = Stage::of_seal(shared);
    stage.write(&statements.write_ledger, hours(&rows, ages)).await?;
    stage.write(&statements.write_guests, guests(shared, &rows, ages)).await?;
    stage.finish().await
}

/// A guest's days one after the other, because an hour is sixty rows for each device: all of a
/// large seal at once would not fit into memory.
async fn column_families(
    shared: &Arc<Shared>,
    rows: &[(LedgerRow, i64)],
    ages: &Ages,
) -> Result<(), StoreError> {
    let day = |row: &LedgerRow| Day::of(row.hour.start_ms());
    let mut stage = Stage::of_seal(shared);
    let is_of_day = |(a, _): &(LedgerRow, i64), (b, _): &(LedgerRow, i64)| {
        a.family == b.family && a.guest == b.guest && day(a) == day(b)
    };
    for of_day in rows.chunk_by(is_of_day) {
        let Some((first, _)) = of_day.first() else { continue };
        let write = shared.statements.sealed.write_minutes(&first.family)?;
        let guest: Arc<str> = first.guest.as_str().into();
        let mut values: Vec<MinuteValues> = Vec::new();
        for (row, turn) in of_day {
            let Some(ttl) = ages.ttl_of_ledger(row.hour) else { continue };
            minutes::write(row, &guest, (ttl, *turn), &mut values);
        }
        let size = |row: &MinuteValues| row.0.len() + row.2.len() + row.4.len();
        stage.write(write, batches(values, |_, _| true, size)).await?;
    }
    stage.finish().await
}

fn hours(rows: &[(LedgerRow, i64)], ages: &Ages) -> Vec<Vec<LedgerValues>> {
    let values = rows.iter().filter_map(|(row, turn)| {
        let ttl = ages.ttl_of_ledger(row.hour)?;
        let week = Week::of(row.hour.start_ms()).0;
        let minutes = Bytes::from(ledger_row::pack(&row.columns));
        Some((row.family.clone(), row.guest.clone(), week, row.hour.0, minutes, ttl, *turn))
    });
    let is_beside = |a: &LedgerValues, b: &LedgerValues| (&a.0, &a.1, a.2) == (&b.0, &b.1, b.2);
    batches(values.collect(), is_beside, |row| row.0.len() + row.1.len() + row.4.len())
}

fn guests(shared: &Shared, rows: &[(LedgerRow, i64)], ages: &Ages) -> Vec<Vec<GuestValues>> {
    let values = rows.iter().filter_map(|(row, _)| {
        let month = Month::of(row.hour.start_ms());
        let ttl = ages.ttl_of_guest(month)?;
        let shard = guest_shard(&row.guest, shared.index_shards);
        Some((row.family.clone(), month.0, shard, row.guest.clone(), ttl))
    });
    let mut values: Vec<GuestValues> = values.collect();
    values.dedup();
    let is_beside = |a: &GuestValues, b: &GuestValues| (&a.0, a.1, a.2) == (&b.0, b.1, b.2);
    batches(values, is_beside, |row| row.0.len() + row.3.len())
}
