//! To come.
use super::StoreError;
use super::rows::{LayoutRow, Placed, PostingsKey, Rows};
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};
use bytes::Bytes;
/// To come.
#[derive(Debug)]
pub struct Cassandra;
impl Cassandra {
    /// See [`super::Store::append`].
    pub async fn append(&self, _rows: Rows) -> Result<(), StoreError> {
        Err(StoreError::Unavailable(String::new()))
    }
    pub async fn head(
        &self,
        _g: Group,
        _h: (Hour, Hour),
        _m: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        Ok(vec![])
    }
    pub async fn series(
        &self,
        _w: Week,
        _g: Group,
        _m: usize,
    ) -> Result<Vec<(SeriesId, Bytes)>, StoreError> {
        Ok(vec![])
    }
    pub async fn metric_series(
        &self,
        _w: Week,
        _s: &str,
        _m: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        Ok(vec![])
    }
    pub async fn postings(
        &self,
        _k: PostingsKey<'_>,
        _m: usize,
    ) -> Result<Vec<Placed>, StoreError> {
        Ok(vec![])
    }
    pub async fn metrics(&self, _w: Week, _m: usize) -> Result<Vec<String>, StoreError> {
        Ok(vec![])
    }
    pub async fn row_keys(&self, _w: Week, _m: usize) -> Result<Vec<(String, Group)>, StoreError> {
        Ok(vec![])
    }
    pub async fn layouts(&self) -> Result<Vec<LayoutRow>, StoreError> {
        Ok(vec![])
    }
    pub async fn add_layout(&self, _l: LayoutRow) -> Result<bool, StoreError> {
        Ok(false)
    }
    pub async fn expire(&self, _o: i64) -> Result<usize, StoreError> {
        Ok(0)
    }
    pub fn ready(&self) -> Result<(), String> {
        Ok(())
    }
    pub async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
