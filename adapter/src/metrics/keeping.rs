//! Metrics of what the store keeps: bytes by table, since when, and how much room is left. They are
//! there where the store can tell, which is the local one.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::known::Known;
use crate::limits;
use crate::store::inventory::Inventory;

/// Handles of all families; cheap to clone.
#[derive(Clone, Debug)]
pub struct KeepingMetrics {
    bytes: Family<OfTable, Gauge>,
    spans: Family<OfTable, Gauge>,
    from: Family<OfTable, Gauge>,
    free: Known,
    reserve: Known,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTable {
    table: &'static str,
}

impl KeepingMetrics {
    /// Registers all families.
    pub(super) fn register(registry: &mut Registry) -> KeepingMetrics {
        let metrics = KeepingMetrics {
            bytes: Family::default(),
            spans: Family::default(),
            from: Family::default(),
            free: Known::default(),
            reserve: Known::default(),
        };
        let help = "Bytes of the local store's files, by table; what is written newly is in the journal first";
        registry.register_with_unit("store", help, Unit::Bytes, metrics.bytes.clone());
        let help = "Days of arrival (heads), weeks (index) and months of 28 days (chunks, ledger) that the local store keeps, by table";
        registry.register("store_spans", help, metrics.spans.clone());
        let help = "Begin of the oldest span of sample time that the local store keeps, by table; unix time";
        let from = metrics.from.clone();
        registry.register_with_unit("store_from_timestamp", help, Unit::Seconds, from);
        let help = "Bytes that are free on the local store's file system";
        registry.register_with_unit("store_free", help, Unit::Bytes, metrics.free.clone());
        let help = "Free bytes below which the local store takes no writes";
        registry.register_with_unit("store_reserve", help, Unit::Bytes, metrics.reserve.clone());
        metrics
    }

    /// What the store holds now.
    pub fn counted(&self, inventory: &Inventory) {
        for table in &inventory.tables {
            let of_table = OfTable { table: table.name };
            self.bytes.get_or_create(&of_table).set(whole(table.bytes));
            // The journal is not divided by time, nor is what is small.
            if table.spans > 0 || self.spans.get(&of_table).is_some() {
                self.spans.get_or_create(&of_table).set(whole(table.spans as u64));
            }
            match table.range {
                Some(range) => {
                    self.from.get_or_create(&of_table).set(range.start_ms.div_euclid(1000));
                }
                None => {
                    self.from.remove(&of_table);
                }
            }
        }
        self.free.set(whole(inventory.free_bytes));
        self.reserve.set(whole(limits::DISK_RESERVE_BYTES));
    }
}

fn whole(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
