//! Storage pools, as libvirt last looked at them.

use std::fmt;

use prometheus_client::registry::Unit;

use super::profile::Profile;
use super::{Series, Sheet, Value, gauge, whole};
use crate::snapshot::{Pool, Snapshot};

const SERIES: [Series<Pool>; 5] = [
    gauge(
        "libvirt_storage_pool_state",
        None,
        "State of the storage pool: 0 inactive, 1 building, 2 running, 3 degraded, 4 inaccessible",
        |pool| whole(pool.state),
    ),
    gauge("libvirt_storage_pool_capacity", Some(Unit::Bytes), "Size of the storage pool", |pool| {
        whole(pool.capacity_bytes)
    }),
    gauge(
        "libvirt_storage_pool_allocation",
        Some(Unit::Bytes),
        "Bytes of the storage pool that are taken, when libvirt last looked",
        |pool| whole(pool.allocation_bytes),
    ),
    gauge(
        "libvirt_storage_pool_available",
        Some(Unit::Bytes),
        "Bytes of the storage pool that are left, when libvirt last looked",
        |pool| whole(pool.available_bytes),
    ),
    gauge(
        "libvirt_storage_pool_timed_out",
        None,
        "Whether figures of the storage pool are missing because libvirt did not deliver them within this scrape, or answered with an error",
        |pool| Some(Value::Whole(u64::from(pool.state.is_none()))),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(snapshot: &Snapshot, sheet: &mut Sheet<'_>) -> fmt::Result {
    let label = match sheet.profile {
        Profile::Inovex => "storage_pool",
        Profile::Tinkoff => "pool",
    };
    for series in &SERIES {
        let pools = snapshot.pools.iter().flatten();
        series.encode(sheet, pools.map(|pool| ([(label, pool.name.as_str())], pool)))?;
    }
    Ok(())
}
