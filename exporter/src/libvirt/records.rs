//! Statistics through libvirt's C functions that `virt` lacks or gets wrong: the one file with `unsafe`.
//! `virt` 0.5 has virConnectGetAllDomainStats, but hands out raw record pointers and frees only the list around them, so
//! that every scrape would leak all records, and it lacks virDomainListGetStats. Here every record is copied into plain
//! data and the whole list is given back with virDomainStatsRecordListFree before the function returns.
#![expect(
    unsafe_code,
    reason = "libvirt's statistics records are C structures that `virt` does not wrap"
)]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

use crate::stats::{Param, Record};

/// Statistics of every guest that `flags` choose (virConnectGetAllDomainStats): one call, whatever their number.
pub(super) fn of_all(
    connect: &Connect,
    groups: c_uint,
    flags: c_uint,
) -> Result<Vec<Record>, Error> {
    let mut list = RecordList(ptr::null_mut());
    // SAFETY: the pointer is that of an open connection, which `connect` keeps open during the call; `list.0` is a valid
    // place for libvirt to write the list's address to.
    let count = unsafe {
        sys::virConnectGetAllDomainStats(connect.as_ptr(), groups, &raw mut list.0, flags)
    };
    list.records(count)
}

/// Statistics of these guests, which belong to one connection (virDomainListGetStats).
pub(super) fn of(domains: &[&Domain], groups: c_uint, flags: c_uint) -> Result<Vec<Record>, Error> {
    // SAFETY: the pointers are used only during the call below, while `domains` keeps the references.
    let mut pointers: Vec<sys::virDomainPtr> =
        domains.iter().map(|domain| unsafe { domain.as_ptr() }).collect();
    if pointers.is_empty() {
        return Ok(Vec::new());
    }
    pointers.push(ptr::null_mut());
    let mut list = RecordList(ptr::null_mut());
    // SAFETY: `pointers` is an array of live domains that ends in a null pointer, as libvirt asks; `list.0` as above.
    let count = unsafe {
        sys::virDomainListGetStats(pointers.as_mut_ptr(), groups, &raw mut list.0, flags)
    };
    list.records(count)
}

/// A guest's job (virDomainGetJobStats): its type, 0 where there is none, and its fields.
pub(super) fn job(domain: &Domain) -> Result<(c_int, Vec<(String, Param)>), Error> {
    let (mut kind, mut count) = (0, 0);
    let mut list = ParamList { params: ptr::null_mut(), count: 0 };
    // SAFETY: `domain` keeps its pointer alive; the others are valid places for libvirt to write to.
    let done = unsafe {
        let (kind, params) = (&raw mut kind, &raw mut list.params);
        sys::virDomainGetJobStats(domain.as_ptr(), kind, params, &raw mut count, 0)
    };
    list.count = count;
    if done < 0 { Err(Error::last_error()) } else { Ok((kind, list.copied())) }
}

/// Number of each of the guest's vCPUs and the host's processor that it ran on last (virDomainGetVcpus); at most `count`.
pub(super) fn places(domain: &Domain, count: usize) -> Result<Vec<(u32, Option<u64>)>, Error> {
    let none = sys::virVcpuInfo { number: 0, state: 0, cpuTime: 0, cpu: -1 };
    let mut infos = vec![none; count];
    let length = c_int::try_from(infos.len()).unwrap_or(c_int::MAX);
    // SAFETY: `infos` has room for `length` entries; without a map its length is 0.
    let found = unsafe {
        sys::virDomainGetVcpus(domain.as_ptr(), infos.as_mut_ptr(), length, ptr::null_mut(), 0)
    };
    let Ok(found) = usize::try_from(found) else { return Err(Error::last_error()) };
    infos.truncate(found);
    Ok(infos.iter().map(|info| (info.number, u64::try_from(info.cpu).ok())).collect())
}

/// Processor time of the whole host by mode, in nanoseconds (virNodeGetCPUStats).
pub(super) fn node_cpu(connect: &Connect) -> Result<Vec<(String, u64)>, Error> {
    let all = sys::VIR_NODE_CPU_STATS_ALL_CPUS;
    let mut count = 0;
    let mut list: Vec<sys::virNodeCPUStats> = Vec::new();
    // SAFETY: the connection is open during the calls. Asked without a list libvirt says how long it has to be.
    unsafe {
        let asked = |list, count| sys::virNodeGetCPUStats(connect.as_ptr(), all, list, count, 0);
        if asked(ptr::null_mut(), &raw mut count) < 0 {
            return Err(Error::last_error());
        }
        let none = sys::virNodeCPUStats { field: [0; 80], value: 0 };
        list.resize(usize::try_from(count).unwrap_or(0), none);
        if asked(list.as_mut_ptr(), &raw mut count) < 0 {
            return Err(Error::last_error());
        }
    }
    // SAFETY: libvirt ends a field's name with a zero byte within its 80 bytes.
    let named =
        list.iter().filter_map(|one| unsafe { Some((text(one.field.as_ptr())?, one.value)) });
    Ok(named.collect())
}

/// Memory of the whole host by use, in KiB (virNodeGetMemoryStats).
pub(super) fn node_memory(connect: &Connect) -> Result<Vec<(String, u64)>, Error> {
    let all = sys::VIR_NODE_MEMORY_STATS_ALL_CELLS;
    let mut count = 0;
    let mut list: Vec<sys::virNodeMemoryStats> = Vec::new();
    // SAFETY: as in `node_cpu`.
    unsafe {
        let asked = |list, count| sys::virNodeGetMemoryStats(connect.as_ptr(), all, list, count, 0);
        if asked(ptr::null_mut(), &raw mut count) < 0 {
            return Err(Error::last_error());
        }
        let none = sys::virNodeMemoryStats { field: [0; 80], value: 0 };
        list.resize(usize::try_from(count).unwrap_or(0), none);
        if asked(list.as_mut_ptr(), &raw mut count) < 0 {
            return Err(Error::last_error());
        }
    }
    // SAFETY: as in `node_cpu`.
    let named =
        list.iter().filter_map(|one| unsafe { Some((text(one.field.as_ptr())?, one.value)) });
    Ok(named.collect())
}

/// libvirt's list of parameters, given back when it goes out of scope.
struct ParamList {
    params: sys::virTypedParameterPtr,
    count: c_int,
}

impl Drop for ParamList {
    fn drop(&mut self) {
        // SAFETY: libvirt made this list, or it is null, and nothing points into it any more: `copied` copies.
        unsafe { sys::virTypedParamsFree(self.params, self.count) };
    }
}

impl ParamList {
    fn copied(&self) -> Vec<(String, Param)> {
        let count = usize::try_from(self.count).unwrap_or(0);
        // SAFETY: `params` points to `count` parameters, which live until Drop; their names end with a zero byte.
        let found = (0..count).filter_map(|idx| unsafe {
            let param = self.params.add(idx).as_ref()?;
            Some((text(param.field.as_ptr())?, value(param)))
        });
        found.collect()
    }
}

/// libvirt's list of records, given back when it goes out of scope.
struct RecordList(*mut sys::virDomainStatsRecordPtr);

impl Drop for RecordList {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: libvirt made this list and nothing points into it any more: `records` copies.
            unsafe { sys::virDomainStatsRecordListFree(self.0) };
        }
    }
}

impl RecordList {
    /// Copies `count` records; a negative count is libvirt's error, which is this thread's last one.
    fn records(&self, count: c_int) -> Result<Vec<Record>, Error> {
        let Ok(count) = usize::try_from(count) else { return Err(Error::last_error()) };
        let mut records = Vec::with_capacity(count);
        for idx in 0..count {
            // SAFETY: libvirt filled `count` entries of the list with pointers to records, which live until Drop.
            let record = unsafe { (*self.0.add(idx)).as_ref() };
            records.extend(record.and_then(copy));
        }
        Ok(records)
    }
}

/// Copies one record; `None` if it has no name or no UUID, which libvirt never does.
fn copy(record: &sys::virDomainStatsRecord) -> Option<Record> {
    // SAFETY: `dom` is a live domain of this record; the name belongs to it and is copied here.
    let name = unsafe { text(sys::virDomainGetName(record.dom)) }?;
    let mut uuid = [0 as c_char; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: `uuid` has the length that libvirt asks for, and libvirt ends it with a zero byte.
    let uuid = unsafe {
        (sys::virDomainGetUUIDString(record.dom, uuid.as_mut_ptr()) == 0)
            .then(|| text(uuid.as_ptr()))
            .flatten()
    }?;
    // SAFETY: `dom` is a live domain. A guest that does not run has the id (unsigned int) -1.
    let id = unsafe { sys::virDomainGetID(record.dom) };
    let id = (id != c_uint::MAX).then_some(id);
    let count = usize::try_from(record.nparams).unwrap_or(0);
    let mut params = Vec::with_capacity(count);
    for idx in 0..count {
        // SAFETY: `params` points to `nparams` parameters, which live as long as the record.
        let Some(param) = (unsafe { record.params.add(idx).as_ref() }) else { continue };
        // SAFETY: libvirt ends a field's name with a zero byte within its 80 bytes.
        let Some(field) = (unsafe { text(param.field.as_ptr()) }) else { continue };
        params.push((field, value(param)));
    }
    Some(Record { name, uuid, id, params })
}

/// The value of a typed parameter, by its declared type.
fn value(param: &sys::virTypedParameter) -> Param {
    let Ok(kind) = c_uint::try_from(param.type_) else { return Param::Other };
    let whole = |value: i64| u64::try_from(value).map_or(Param::Other, Param::Whole);
    // SAFETY: libvirt sets the member of the union that `type_` names; a string is zero-terminated and is copied here.
    unsafe {
        match kind {
            sys::VIR_TYPED_PARAM_INT => whole(i64::from(param.value.i)),
            sys::VIR_TYPED_PARAM_UINT => Param::Whole(u64::from(param.value.ui)),
            sys::VIR_TYPED_PARAM_LLONG => whole(param.value.l),
            sys::VIR_TYPED_PARAM_ULLONG => Param::Whole(param.value.ul),
            sys::VIR_TYPED_PARAM_BOOLEAN => Param::Whole(u64::from(param.value.b != 0)),
            sys::VIR_TYPED_PARAM_STRING => text(param.value.s).map_or(Param::Other, Param::Text),
            _ => Param::Other,
        }
    }
}

/// Copies a C string; bytes that are not UTF-8 are replaced.
///
/// # Safety
/// `pointer` is null or points to a zero-terminated string.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: as the function asks.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}
