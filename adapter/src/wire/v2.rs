//! Decodes `io.prometheus.write.v2.Request` (remote_write 2.0) into the pools of a request.
//!
//! Follows 2.0-rc.4, where start timestamps sit on the samples, and takes the series' field 6 of
//! rc.3 (Prometheus up to 3.7) as their fallback. Knows nothing of HTTP or storage.

use std::num::NonZeroI64;

use super::fields::{Fields, Malformed};
use super::write::{DecodeError, Pools, Series, SeriesFault, bound};
use crate::model::sample::Sample;

/// The text of a symbol, or `None` where it is not UTF-8.
type Symbol<'a> = Option<&'a str>;

/// Decodes a whole body. Two passes, because protobuf allows the symbols to follow the series.
pub(super) fn decode<'a>(body: &'a [u8], pools: &mut Pools<'a, '_>) -> Result<(), DecodeError> {
    let symbols = symbols(body, pools.limits.symbols)?;
    let mut fields = Fields::new(body);
    let mut v1_field_seen = false;
    while let Some(key) = fields.next_key()? {
        match key.0 {
            5 => {
                if symbols.first() != Some(&Some("")) {
                    return Err(DecodeError::FirstSymbol);
                }
                series(fields.bytes(key)?, &symbols, pools)?;
            }
            tag => {
                v1_field_seen |= matches!(tag, 1 | 3);
                fields.skip(key)?;
            }
        }
    }
    if v1_field_seen && symbols.is_empty() && pools.request.series.is_empty() {
        return Err(DecodeError::OtherVersion {
            body: "remote_write 1.0",
            content_type: "remote_write 2.0",
        });
    }
    Ok(())
}

fn symbols(body: &[u8], symbols_max: usize) -> Result<Vec<Symbol<'_>>, DecodeError> {
    let mut symbols = Vec::new();
    let mut fields = Fields::new(body);
    while let Some(key) = fields.next_key()? {
        if key.0 == 4 {
            bound(symbols.len(), symbols_max, "symbols")?;
            symbols.push(str::from_utf8(fields.bytes(key)?).ok());
        } else {
            fields.skip(key)?;
        }
    }
    Ok(symbols)
}

fn series<'a>(
    message: &'a [u8],
    symbols: &[Symbol<'a>],
    pools: &mut Pools<'a, '_>,
) -> Result<(), DecodeError> {
    let mut series = pools.open()?;
    let mut fields = Fields::new(message);
    // A name that waits for its value: a packed list may be cut anywhere, also within a pair.
    let mut name_ref = None;
    let mut created_ms = 0;
    // Of help and unit.
    let mut metadata_refs = [0_u32; 2];
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => fields.uint32s(key, |reference| match name_ref.take() {
                None => {
                    name_ref = Some(reference);
                    Ok(())
                }
                Some(name) => label((name, reference), symbols, &mut series, pools),
            })?,
            2 => pools.sample(sample(fields.bytes(key)?)?)?,
            3 => {
                fields.bytes(key)?;
                pools.histogram(&mut series)?;
            }
            4 => {
                pools.exemplar(&mut series)?;
                if !exemplar_refs_are_good(fields.bytes(key)?, symbols.len())? {
                    series.note(SeriesFault::BadExemplarRefs);
                }
            }
            5 => merge_metadata_refs(&mut metadata_refs, fields.bytes(key)?)?,
            6 => created_ms = fields.int64(key)?,
            _ => fields.skip(key)?,
        }
    }
    if name_ref.is_some() {
        series.note(SeriesFault::OddLabelRefs);
    }
    if metadata_refs.iter().any(|reference| *reference as usize >= symbols.len()) {
        series.note(SeriesFault::MetadataRefOutOfRange);
    }
    finish(series, NonZeroI64::new(created_ms), pools)
}

/// What can only be judged when the whole series is read.
fn finish(
    mut series: Series,
    created_ms: Option<NonZeroI64>,
    pools: &mut Pools<'_, '_>,
) -> Result<(), DecodeError> {
    let samples =
        pools.request.samples.get_mut(series.samples.start as usize..).unwrap_or_default();
    match (samples.is_empty(), series.histograms == 0) {
        (true, true) => series.note(SeriesFault::NoData),
        (false, false) => series.note(SeriesFault::SamplesAndHistograms),
        _ => {}
    }
    if created_ms.is_some() {
        for sample in samples {
            sample.start_ms = sample.start_ms.or(created_ms);
        }
    }
    pools.close(series)
}

#[inline]
fn label<'a>(
    (name, value): (u32, u32),
    symbols: &[Symbol<'a>],
    series: &mut Series,
    pools: &mut Pools<'a, '_>,
) -> Result<(), DecodeError> {
    match (symbols.get(name as usize), symbols.get(value as usize)) {
        (Some(Some(name)), Some(Some(value))) => pools.label(series, (name, value))?,
        (Some(_), Some(_)) => series.note(SeriesFault::NotUtf8),
        _ => series.note(SeriesFault::LabelRefOutOfRange),
    }
    Ok(())
}

#[inline]
fn sample(message: &[u8]) -> Result<Sample, Malformed> {
    let mut sample = Sample { timestamp_ms: 0, value: 0.0, start_ms: None };
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => sample.value = fields.double(key)?,
            2 => sample.timestamp_ms = fields.int64(key)?,
            3 => sample.start_ms = NonZeroI64::new(fields.int64(key)?),
            _ => fields.skip(key)?,
        }
    }
    Ok(sample)
}

fn exemplar_refs_are_good(message: &[u8], symbols: usize) -> Result<bool, Malformed> {
    let (mut good, mut references) = (true, 0_usize);
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        if key.0 == 1 {
            fields.uint32s::<Malformed>(key, |reference| {
                good &= (reference as usize) < symbols;
                references += 1;
                Ok(())
            })?;
        } else {
            fields.skip(key)?;
        }
    }
    Ok(good && references % 2 == 0)
}

/// Protobuf merges a message that is sent in pieces: of each field the last value counts.
fn merge_metadata_refs([help, unit]: &mut [u32; 2], message: &[u8]) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            3 => *help = fields.uint32(key)?,
            4 => *unit = fields.uint32(key)?,
            _ => fields.skip(key)?,
        }
    }
    Ok(())
}
