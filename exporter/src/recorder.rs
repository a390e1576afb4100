//! Records a hypervisor: the calls of one collection, one after another, with their answers kept as they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use serve::clock::Clock;

use crate::libvirt::{CallCounts, Connection, LibvirtError, is_local};
use crate::recording::{Recording, Takes};
use crate::selection::Collectors;
use crate::snapshot::Guest;
use crate::snapshot::Idle;
use crate::start_time::StartTimes;
use crate::stats::Record;
use crate::worker::Source;

/// What libvirtd says now. Blocks, for as long as libvirtd does.
pub(crate) fn record(source: &Source) -> Result<Recording, LibvirtError> {
    let uri = source.connection_uri();
    let mut connection = Connection::open(&uri, Arc::<CallCounts>::default())?;
    let now_ms = u64::try_from(Clock::system().now_ms()).unwrap_or(0);
    let host = connection.host();
    let basic = connection.basic_records()?;
    let mut details = connection.active_records(Collectors::all())?;
    details.extend(connection.inactive_records()?);
    let mut guests: Vec<Guest> = basic.iter().map(|record| whole(record, &details)).collect();
    connection.places(&mut guests)?;
    connection.jobs(&mut guests, &Idle::default())?;
    if is_local(&uri) {
        StartTimes::new(source.run_directory.clone()).fill(&mut guests);
    }
    let mut xml = BTreeMap::new();
    for record in &basic {
        match connection.xml(&record.uuid) {
            Ok(text) => {
                xml.insert(record.uuid.clone(), text);
            }
            Err(error) => {
                tracing::warn!(domain = record.name, error = error.to_string(), "XML not read");
            }
        }
    }
    let pools = match connection.pools() {
        Ok((pools, _)) => pools,
        Err(error) => {
            tracing::warn!(error = error.to_string(), "storage pools are not recorded");
            Vec::new()
        }
    };
    Ok(Recording::new(now_ms, host, Takes { basic, details, guests, xml, pools }))
}

/// The guest with all that was read, so that it can be seen whether its monitor answered.
fn whole(record: &Record, details: &[Record]) -> Guest {
    let mut record = record.clone();
    let detail = details.iter().find(|detail| detail.uuid == record.uuid);
    record.params.extend(detail.into_iter().flat_map(|detail| detail.params.iter().cloned()));
    Guest::from(record)
}
