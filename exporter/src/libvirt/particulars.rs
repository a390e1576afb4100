//! What libvirt's bulk calls do not tell: jobs, the places of vCPUs, storage pools, the host's own figures. One call a guest
//! or a pool, so each is a collector of its own.

use std::collections::HashMap;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::enumutil::Enum;
use virt::error::ErrorNumber;
use virt::storage_pool::StoragePoolInfo;
use virt::sys;

use super::{Call, Connection, LibvirtError, records};
use crate::snapshot::{Guest, Idle, Job, Pool};
use crate::stats::{self, Param};

/// Most vCPUs of a guest whose places are asked for: more than QEMU can give.
const VCPUS_MAX: usize = 4096;

/// Reads figures of the host.
type NodeFigures = fn(&Connect) -> Result<Vec<(String, u64)>, virt::error::Error>;

impl Connection {
    /// Sets each running guest's job, where its monitor answered: libvirtd would wait for one that hangs. It stays
    /// unknown where it cannot be read. Those of `idle` are taken to have none.
    pub(crate) fn jobs(&mut self, guests: &mut [Guest], idle: &Idle) -> Result<(), LibvirtError> {
        self.find(guests)?;
        for (domain, guest) in answering(&self.handles, guests) {
            if idle.get(&guest.uuid).is_some_and(|id| *id == guest.id) {
                guest.job = Some(Job::default());
                continue;
            }
            guest.job = self.counts.count(Call::Job, records::job(domain)).ok().and_then(job);
        }
        Ok(())
    }

    /// Sets on which of the host's processors each vCPU ran last, where that can be read.
    pub(crate) fn places(&mut self, guests: &mut [Guest]) -> Result<(), LibvirtError> {
        self.find(guests)?;
        for (domain, guest) in answering(&self.handles, guests) {
            let numbers = guest.vcpus.each.iter().map(|vcpu| vcpu.number as usize);
            let count = numbers.max().map_or(0, |number| number.saturating_add(1)).min(VCPUS_MAX);
            let found = self.counts.count(Call::Places, records::places(domain, count));
            for (number, host_cpu) in found.into_iter().flatten() {
                let vcpu = guest.vcpus.each.iter_mut().find(|vcpu| vcpu.number == number);
                if let Some(vcpu) = vcpu {
                    vcpu.host_cpu = host_cpu;
                }
            }
        }
        Ok(())
    }

    /// Makes sure that there are handles of the guests.
    fn find(&mut self, guests: &[Guest]) -> Result<(), LibvirtError> {
        let missing = guests.iter().any(|guest| !self.handles.contains_key(&guest.uuid));
        if missing { self.list() } else { Ok(()) }
    }

    /// The active storage pools by name, as libvirt last looked at them; false beside them if one did not tell its size
    /// and is there by name only.
    pub(crate) fn pools(&self) -> Result<(Vec<Pool>, bool), LibvirtError> {
        let active = sys::VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE;
        let found = self.connect.list_all_storage_pools(active);
        // A connection that broke gives the same errors.
        if found.as_ref().is_err_and(has_no_pools) && self.is_alive() {
            return Ok((Vec::new(), true));
        }
        let (mut pools, mut all) = (Vec::new(), true);
        for pool in self.counts.count(Call::Pool, found)? {
            let Ok(name) = self.counts.count(Call::Pool, pool.name()) else {
                all = false;
                continue;
            };
            let info = self.counts.count(Call::Pool, pool.info()).ok();
            all &= info.is_some();
            pools.push(pool_of(name, info.as_ref()));
        }
        pools.sort_by(|one, other| one.name.cmp(&other.name));
        Ok((pools, all))
    }

    /// The pool of this name, where it is active. libvirtd takes no other pool's lock for it, as it does for the list of all.
    pub(crate) fn pool(&self, name: &str) -> Result<Option<Pool>, LibvirtError> {
        let found = self.connect.lookup_storage_pool_by_name(name);
        let gone = Enum::Known(ErrorNumber::NoStoragePool);
        if found.as_ref().is_err_and(|error| error.code() == gone) {
            return Ok(None);
        }
        let pool = self.counts.count(Call::Pool, found)?;
        let info = self.counts.count(Call::Pool, pool.info())?;
        let is_active = info.state != sys::VIR_STORAGE_POOL_INACTIVE;
        Ok(is_active.then(|| pool_of(name.to_owned(), Some(&info))))
    }

    /// Figures of the host; none where libvirt does not tell them.
    pub(super) fn node_figures(&self, read: NodeFigures) -> Vec<(String, u64)> {
        let figures = self.counts.count(Call::Node, read(&self.connect));
        let told = figures.inspect_err(|error| {
            tracing::debug!(error = error.to_string(), "the host's figures are not known");
        });
        told.unwrap_or_default()
    }

    /// The host's memory by use, but for the total, which has a name of its own.
    pub(super) fn memory_by_use(&self) -> Vec<(String, u64)> {
        let mut found = self.node_figures(records::node_memory);
        found.retain(|(kind, _)| kind != "total");
        found
    }
}

/// A pool with its figures, or by name alone where libvirt did not tell them.
fn pool_of(name: String, info: Option<&StoragePoolInfo>) -> Pool {
    Pool {
        name,
        state: info.map(|info| u64::from(info.state)),
        capacity_bytes: info.map(|info| info.capacity),
        allocation_bytes: info.map(|info| info.allocation),
        available_bytes: info.map(|info| info.available),
    }
}

/// Whether nobody manages pools here: the driver cannot, or the daemon that would is not there.
fn has_no_pools(error: &virt::error::Error) -> bool {
    let numbers = [ErrorNumber::NoSupport, ErrorNumber::NoConnect, ErrorNumber::SystemError];
    numbers.into_iter().any(|number| error.code() == Enum::Known(number))
}

fn job((kind, params): (i32, Vec<(String, Param)>)) -> Option<Job> {
    Some(Job { kind: u64::try_from(kind).ok()?, fields: stats::numbers(params) })
}

/// libvirt's handles of the running guests that answered.
fn answering<'a>(
    handles: &'a HashMap<String, Domain>,
    guests: &'a mut [Guest],
) -> impl Iterator<Item = (&'a Domain, &'a mut Guest)> {
    let answered = |guest: &&mut Guest| guest.is_active() && !stats::is_busy(guest);
    let guests = guests.iter_mut().filter(answered);
    guests.filter_map(|guest| Some((handles.get(&guest.uuid)?, guest)))
}
