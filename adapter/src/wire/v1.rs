//! Decodes `prometheus.WriteRequest` (remote_write 1.0) into the pools of a request.
//!
//! Field numbers are those of Prometheus' `prompb` messages. Knows nothing of HTTP or storage.

use super::fields::{Fields, Malformed};
use super::write::{DecodeError, Pools, Series, SeriesFault};
use crate::model::sample::Sample;

/// Decodes a whole body.
pub(super) fn decode<'a>(body: &'a [u8], pools: &mut Pools<'a, '_>) -> Result<(), DecodeError> {
    let mut fields = Fields::new(body);
    let mut v2_field_seen = false;
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => series(fields.bytes(key)?, pools)?,
            3 => {
                fields.bytes(key)?;
                pools.request.metadata += 1;
            }
            tag => {
                v2_field_seen |= matches!(tag, 4 | 5);
                fields.skip(key)?;
            }
        }
    }
    if v2_field_seen && pools.request.series.is_empty() && pools.request.metadata == 0 {
        return Err(DecodeError::OtherVersion {
            body: "remote_write 2.0",
            content_type: "remote_write 1.0",
        });
    }
    Ok(())
}

fn series<'a>(message: &'a [u8], pools: &mut Pools<'a, '_>) -> Result<(), DecodeError> {
    let mut series = pools.open()?;
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => label(fields.bytes(key)?, &mut series, pools)?,
            2 => pools.sample(sample(fields.bytes(key)?)?)?,
            3 => {
                fields.bytes(key)?;
                pools.exemplar(&mut series)?;
            }
            4 => {
                fields.bytes(key)?;
                pools.histogram(&mut series)?;
            }
            _ => fields.skip(key)?,
        }
    }
    pools.close(series)
}

#[inline]
fn label<'a>(
    message: &'a [u8],
    series: &mut Series,
    pools: &mut Pools<'a, '_>,
) -> Result<(), DecodeError> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => name = fields.bytes(key)?,
            2 => value = fields.bytes(key)?,
            _ => fields.skip(key)?,
        }
    }
    if let (Ok(name), Ok(value)) = (str::from_utf8(name), str::from_utf8(value)) {
        return pools.label(series, (name, value));
    }
    series.note(SeriesFault::NotUtf8);
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
            _ => fields.skip(key)?,
        }
    }
    Ok(sample)
}
