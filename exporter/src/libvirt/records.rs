//! Bulk statistics through libvirt's C functions: the one file with `unsafe`.
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
