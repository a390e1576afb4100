//! What the sealer leaves in the cluster. Not built yet: nothing is sealed in Cassandra, so there is
//! nothing to read, and heads live as long as the retention.

#![expect(
    clippy::unused_async,
    clippy::unused_self,
    reason = "the contract is asynchronous; these will ask the cluster"
)]

use super::Cassandra;
use crate::model::row_key::Group;
use crate::model::series::SeriesId;
use crate::model::time::{Hour, Week};
use crate::store::StoreError;
use crate::store::rows::{Chunk, LateRow, LedgerRow, Sealed};

impl Cassandra {
    /// See [`crate::store::Store::seal`].
    pub async fn seal(&self, _: Sealed) -> Result<(), StoreError> {
        Err(StoreError::Unavailable("sealing in Cassandra is not built yet".to_owned()))
    }

    /// See [`crate::store::Store::chunks`].
    pub async fn chunks(
        &self,
        _: Group,
        _: &[SeriesId],
        _: (Hour, Hour),
    ) -> Result<Vec<Chunk>, StoreError> {
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::markers`].
    pub async fn markers(&self, _: Group, _: (Hour, Hour)) -> Result<Vec<Hour>, StoreError> {
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::late`].
    pub async fn late(
        &self,
        _: Group,
        _: (Hour, Hour),
        _: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::late_page`].
    pub async fn late_page(
        &self,
        _: Option<LateRow>,
        _: usize,
    ) -> Result<Vec<LateRow>, StoreError> {
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::ledger`].
    pub async fn ledger(
        &self,
        _: &str,
        _: &str,
        _: (Hour, Hour),
        _: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::ledger_guests`].
    pub async fn ledger_guests(
        &self,
        _: &str,
        _: (Hour, Hour),
        _: usize,
    ) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// See [`crate::store::Store::sealed_until`].
    pub async fn sealed_until(&self) -> Result<Option<Hour>, StoreError> {
        Ok(None)
    }

    /// See [`crate::store::Store::set_sealed_until`].
    pub async fn set_sealed_until(&self, _: Hour) -> Result<(), StoreError> {
        Ok(())
    }

    /// See [`crate::store::Store::oldest_head`].
    pub async fn oldest_head(&self) -> Result<Option<Hour>, StoreError> {
        Ok(None)
    }

    /// See [`crate::store::Store::row_key_page`].
    pub async fn row_key_page(
        &self,
        _: Week,
        _: Option<&(String, Group)>,
        _: usize,
    ) -> Result<Vec<(String, Group)>, StoreError> {
        Ok(Vec::new())
    }
}
