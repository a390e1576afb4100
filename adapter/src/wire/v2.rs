//! Decodes `io.prometheus.write.v2.Request` (remote_write 2.0) into the pools of a request.
//!
//! Follows 2.0-rc.4, where start timestamps sit on the samples, and takes the series' field 6 of
//! rc.3 (Prometheus up to 3.7) as their fallback. Knows nothing of HTTP or storage.

use std::num::NonZeroI64;

use super::fields::{Fields, Malformed};
use super::write::{DecodeError, LabelPool, Pair, Pools, Series, SeriesFault, bound};
use crate::model::sample::Sample;
use crate::model::series::Fingerprint;

/// One entry of a request's symbol table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    /// `None` where it is not UTF-8.
    text: Option<&'a str>,
    hash: u128,
}

/// The fingerprint of 2.0 is of the hashes of the symbols that the references stand for, in their
/// order: the references themselves mean something else in every request.
const FORM: u128 = 0x2d70_8a5b_6c1f_43e9_92b4_d7e0_51af_3c86;

/// Decodes a whole body. Two passes, because protobuf allows the symbols to follow the series.
pub(super) fn decode<'a>(body: &'a [u8], pools: &mut Pools<'a, '_>) -> Result<(), DecodeError> {
    let symbols = symbols(body, pools.limits.symbols)?;
    let first_is_empty = symbols.first().is_some_and(|symbol| symbol.text == Some(""));
    let mut digest = Vec::new();
    let mut fields = Fields::new(body);
    let mut v1_field_seen = false;
    while let Some(key) = fields.next_key()? {
        match key.0 {
            5 => {
                if !first_is_empty {
                    return Err(DecodeError::FirstSymbol);
                }
                digest.clear();
                series(fields.bytes(key)?, (&symbols, &mut digest), pools)?;
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
    pools.request.symbols = symbols;
    Ok(())
}

fn symbols(body: &[u8], symbols_max: usize) -> Result<Vec<Symbol<'_>>, DecodeError> {
    let mut symbols = Vec::new();
    let mut fields = Fields::new(body);
    while let Some(key) = fields.next_key()? {
        if key.0 == 4 {
            bound(symbols.len(), symbols_max, "symbols")?;
            let bytes = fields.bytes(key)?;
            symbols
                .push(Symbol { text: str::from_utf8(bytes).ok(), hash: Fingerprint::part(bytes) });
        } else {
            fields.skip(key)?;
        }
    }
    Ok(symbols)
}

/// Walks over one series; `digest` takes the hashes of its labels.
fn series<'a>(
    message: &'a [u8],
    (symbols, digest): (&[Symbol<'a>], &mut Vec<u8>),
    pools: &mut Pools<'a, '_>,
) -> Result<(), DecodeError> {
    let mut series = pools.open(message)?;
    let mut fields = Fields::new(message);
    // A name that waits for its value: a packed list may be cut anywhere, also within a pair.
    let mut name_ref = None;
    let mut labels = 0;
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
                Some(name) => {
                    let pair = match resolve((name, reference), symbols) {
                        Ok(pair) => pair,
                        Err(fault) => {
                            series.note(fault);
                            return Ok(());
                        }
                    };
                    if !pools.label(labels)? {
                        series.note(SeriesFault::TooManyLabels);
                        return Ok(());
                    }
                    labels += 1;
                    digest.extend_from_slice(&pair.hashes);
                    pools.expanded(pair.texts)
                }
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
    finish(&mut series, NonZeroI64::new(created_ms), pools);
    if series.fault.is_none() {
        series.fingerprint = Fingerprint::of(digest, FORM);
    }
    pools.close(series)
}

/// What can only be judged when the whole series is read.
fn finish(series: &mut Series<'_>, created_ms: Option<NonZeroI64>, pools: &mut Pools<'_, '_>) {
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
}

/// Decodes the labels of one series. Their faults were noted when the series was walked over.
pub(super) fn labels<'a>(
    message: &'a [u8],
    symbols: &[Symbol<'a>],
    into: &mut LabelPool<'a, '_>,
) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    let mut name_ref = None;
    while let Some(key) = fields.next_key()? {
        if key.0 != 1 {
            fields.skip(key)?;
            continue;
        }
        fields.uint32s::<Malformed>(key, |reference| {
            match name_ref.take() {
                None => name_ref = Some(reference),
                Some(name) => {
                    if let Ok(pair) = resolve((name, reference), symbols) {
                        into.push(pair.texts);
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A label pair by its references.
struct Resolved<'a> {
    texts: Pair<'a>,
    /// Of name and value, 16 bytes each.
    hashes: [u8; 32],
}

#[inline]
fn resolve<'a>(
    (name, value): (u32, u32),
    symbols: &[Symbol<'a>],
) -> Result<Resolved<'a>, SeriesFault> {
    let (Some(name), Some(value)) = (symbols.get(name as usize), symbols.get(value as usize))
    else {
        return Err(SeriesFault::LabelRefOutOfRange);
    };
    let (Some(name_text), Some(value_text)) = (name.text, value.text) else {
        return Err(SeriesFault::NotUtf8);
    };
    let mut hashes = [0; 32];
    let (of_name, of_value) = hashes.split_at_mut(16);
    of_name.copy_from_slice(&name.hash.to_le_bytes());
    of_value.copy_from_slice(&value.hash.to_le_bytes());
    Ok(Resolved { texts: (name_text, value_text), hashes })
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
