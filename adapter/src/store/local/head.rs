//! Local's head: rows of packed samples, by day of arrival. Knows keys, not what is in a payload.

use std::ops::Bound;

use bytes::Bytes;
use fjall::Guard;

use super::keys::{Key, KeyReader};
use super::{Bounded, Local, damage_of};
use crate::limits;
use crate::model::row_key::Group;
use crate::model::time::{Day, Hour};
use crate::store::StoreError;
use crate::store::rows::HeadKey;

impl Local {
    /// See [`crate::store::Store::head`].
    pub async fn head(
        &self,
        group: Group,
        hours: (Hour, Hour),
        rows_max: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        self.read(move |view| {
            let days = (Day::of(hours.0.start_ms()), Day::of(hours.1.start_ms()));
            let from = Key::default().group(group).hour(hours.0).millisecond(i64::MIN).hash(0);
            let to = Key::default().group(group).hour(hours.1).millisecond(i64::MAX).hash(u64::MAX);
            let mut rows = Bounded::new("head", rows_max);
            let mut bytes = 0;
            for keyspace in view.heads(days) {
                for guard in view.range(&keyspace, from.0.clone()..=to.0.clone()) {
                    let payload = guard.value().map_err(|error| damage_of("head", &error))?;
                    bytes += payload.len();
                    if bytes > limits::HEAD_READ_BYTES_MAX {
                        let bytes_max = limits::HEAD_READ_BYTES_MAX;
                        return Err(StoreError::TooManyBytes { table: "head", bytes_max });
                    }
                    rows.push(Bytes::copy_from_slice(&payload))?;
                }
            }
            Ok(rows.rows)
        })
        .await
    }

    /// See [`crate::store::Store::head_page`]. A row can be in several days of arrival; of each as
    /// much is read as fits, and what lies behind the end of the shortest is left for the next page.
    pub async fn head_page(
        &self,
        group: Group,
        hour: Hour,
        after: Option<HeadKey>,
    ) -> Result<Vec<(HeadKey, Bytes)>, StoreError> {
        self.read(move |view| {
            let day = Day::of(hour.start_ms());
            let key = Key::default().group(group).hour(hour);
            let at = |(first_ms, hash)| key.clone().millisecond(first_ms).hash(hash).0;
            let from = after
                .map_or(Bound::Included(at((i64::MIN, 0))), |after| Bound::Excluded(at(after)));
            let range = (from, Bound::Included(at((i64::MAX, u64::MAX))));
            let days = view.heads((day, day));
            let bytes_max = limits::HEAD_PAGE_BYTES / days.len().max(1);
            let mut rows: Vec<(HeadKey, Bytes)> = Vec::new();
            let mut end: Option<HeadKey> = None;
            for keyspace in days {
                let mut bytes = 0;
                for guard in view.range(&keyspace, range.clone()) {
                    let (key, payload) =
                        Guard::into_inner(guard).map_err(|error| damage_of("head", &error))?;
                    let mut reader = KeyReader::new(&key, "head");
                    reader.group()?;
                    reader.hour()?;
                    let key = (reader.millisecond()?, reader.hash()?);
                    rows.push((key, Bytes::copy_from_slice(&payload)));
                    bytes += payload.len();
                    if bytes >= bytes_max {
                        end = Some(end.map_or(key, |end| end.min(key)));
                        break;
                    }
                }
            }
            rows.retain(|(key, _)| end.is_none_or(|end| *key <= end));
            rows.sort_unstable_by_key(|(key, _)| *key);
            rows.dedup_by_key(|(key, _)| *key);
            Ok(rows)
        })
        .await
    }
}
