//! Decodes `prometheus.WriteRequest` (remote_write 1.0) into the pools of a request.
//!
//! Field numbers are those of Prometheus' `prompb` messages. Knows nothing of HTTP or storage.

use super::fields::{Fields, Malformed};
use super::write::{DecodeError, LabelPool, Pools, SeriesFault};
use crate::model::sample::Sample;
use crate::model::series::Fingerprint;

/// The fingerprint of 1.0 is of the label messages themselves, keys and lengths included.
const FORM: u128 = 0;

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

/// Walks over one series. Of its labels only the lengths are looked at.
fn series<'a>(message: &'a [u8], pools: &mut Pools<'a, '_>) -> Result<(), DecodeError> {
    let mut series = pools.open(message)?;
    let mut fields = Fields::new(message);
    // Where the labels at the beginning end, and whether there is anything but labels before it.
    let (mut labels, mut labels_end, mut others_end) = (0, 0, None);
    let mut all_counted = true;
    while let Some(key) = fields.next_key()? {
        match key.0 {
            1 => {
                fields.bytes(key)?;
                labels_end = message.len() - fields.left();
                all_counted &= pools.label(labels)?;
                labels += 1;
                continue;
            }
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
        others_end.get_or_insert(message.len() - fields.left());
    }
    let scattered = others_end.is_some_and(|end| end < labels_end);
    if all_counted && !scattered {
        let sent = message.get(..labels_end);
        series.fingerprint = sent.and_then(|sent| Fingerprint::of(sent, FORM));
    }
    pools.close(series)
}

/// Decodes the labels of one series.
pub(super) fn labels<'a>(message: &'a [u8], into: &mut LabelPool<'a, '_>) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    let texts = leading_labels(message);
    while let Some(key) = fields.next_key()? {
        if key.0 != 1 {
            fields.skip(key)?;
            continue;
        }
        let label_message = fields.bytes(key)?;
        let end = message.len() - fields.left();
        let text = texts.and_then(|texts| texts.get(end - label_message.len()..end));
        label((label_message, text), into)?;
    }
    Ok(())
}

/// The labels at the beginning of a series, keys and lengths included, if all of that is text: then
/// one check of a hundred bytes replaces a dozen of ten. It is not where a label is no UTF-8, and
/// where one has 128 bytes or more; those are judged one by one.
fn leading_labels(message: &[u8]) -> Option<&str> {
    let mut fields = Fields::new(message);
    let mut end = 0;
    // What is malformed is found again, and refused, by who decodes it.
    while let Ok(Some(key)) = fields.next_key() {
        if key.0 != 1 || fields.bytes(key).is_err() {
            break;
        }
        end = message.len() - fields.left();
    }
    message.get(..end).and_then(|labels| str::from_utf8(labels).ok())
}

/// Decodes one label; `text` is the same message where it is known to be text.
#[inline]
fn label<'a>(
    (message, text): (&'a [u8], Option<&'a str>),
    into: &mut LabelPool<'a, '_>,
) -> Result<(), Malformed> {
    let (mut name, mut value) = (Some(""), Some(""));
    let mut fields = Fields::new(message);
    while let Some(key) = fields.next_key()? {
        if !matches!(key.0, 1 | 2) {
            fields.skip(key)?;
            continue;
        }
        let bytes = fields.bytes(key)?;
        let end = message.len() - fields.left();
        let part = text.and_then(|text| text.get(end - bytes.len()..end));
        let part = part.or_else(|| str::from_utf8(bytes).ok());
        if key.0 == 1 {
            name = part;
        } else {
            value = part;
        }
    }
    match (name, value) {
        (Some(name), Some(value)) => into.push((name, value)),
        _ => into.note(SeriesFault::NotUtf8),
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
            _ => fields.skip(key)?,
        }
    }
    Ok(sample)
}
