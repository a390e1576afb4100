//! Jobs of a guest, such as a migration: what it is, and while there is one, how far it has come.
//! What inovex publishes as seconds under these names are milliseconds; here they are seconds.

use std::fmt;

use prometheus_client::registry::Unit;

use super::labels::Subject;
use super::{Series, Sheet, Value, counter, gauge, milliseconds, whole};
use crate::snapshot::Job;

const SERIES: [Series<Job>; 24] = [
    gauge(
        "libvirt_domain_job_info_type",
        None,
        "Type of the job: 0 none, 1 bounded, 2 unbounded",
        |job| Some(Value::Whole(job.kind)),
    ),
    gauge(
        "libvirt_domain_job_info_operation",
        None,
        "What the job does (virDomainJobOperation: 4 migration in, 5 migration out, 6 snapshot)",
        |job| whole(job.field("operation")),
    ),
    time("libvirt_domain_job_info_time_elapsed", "How long the job has taken", |job| {
        milliseconds(job.field("time_elapsed"))
    }),
    time(
        "libvirt_domain_job_info_time_remaining",
        "How long the job will take from now on",
        |job| milliseconds(job.field("time_remaining")),
    ),
    time(
        "libvirt_domain_job_info_downtime",
        "How long the guest stands still in the end, as expected",
        |job| milliseconds(job.field("downtime")),
    ),
    time("libvirt_domain_job_info_setup", "How long it took to begin", |job| {
        milliseconds(job.field("setup_time"))
    }),
    size("libvirt_domain_job_info_data_total", "Bytes that the job has to move", |job| {
        whole(job.field("data_total"))
    }),
    size("libvirt_domain_job_info_data_processed", "Bytes that the job has moved", |job| {
        whole(job.field("data_processed"))
    }),
    size("libvirt_domain_job_info_data_remaining", "Bytes that are left", |job| {
        whole(job.field("data_remaining"))
    }),
    size(
        "libvirt_domain_job_info_memory_total",
        "Bytes of memory that the job has to move",
        |job| whole(job.field("memory_total")),
    ),
    size(
        "libvirt_domain_job_info_memory_processed",
        "Bytes of memory that the job has moved",
        |job| whole(job.field("memory_processed")),
    ),
    size("libvirt_domain_job_info_memory_remaining", "Bytes of memory that are left", |job| {
        whole(job.field("memory_remaining"))
    }),
    size("libvirt_domain_job_info_file_total", "Bytes of disks that the job has to move", |job| {
        whole(job.field("disk_total"))
    }),
    size(
        "libvirt_domain_job_info_file_processed",
        "Bytes of disks that the job has moved",
        |job| whole(job.field("disk_processed")),
    ),
    size("libvirt_domain_job_info_file_remaining", "Bytes of disks that are left", |job| {
        whole(job.field("disk_remaining"))
    }),
    gauge(
        "libvirt_domain_job_memory_bytes_per_second",
        None,
        "Bytes of memory that the job moves in a second",
        |job| whole(job.field("memory_bps")),
    ),
    gauge(
        "libvirt_domain_job_disk_bytes_per_second",
        None,
        "Bytes of disks that the job moves in a second",
        |job| whole(job.field("disk_bps")),
    ),
    gauge(
        "libvirt_domain_job_memory_dirty_pages_per_second",
        None,
        "Pages that the guest writes to in a second meanwhile",
        |job| whole(job.field("memory_dirty_rate")),
    ),
    size("libvirt_domain_job_memory_page_size", "Size of such a page", |job| {
        whole(job.field("memory_page_size"))
    }),
    counter(
        "libvirt_domain_job_memory_iterations",
        None,
        "How often the job has gone over the memory",
        |job| whole(job.field("memory_iteration")),
    ),
    counter(
        "libvirt_domain_job_memory_postcopy_requests",
        None,
        "Pages that the destination had to ask for",
        |job| whole(job.field("memory_postcopy_requests")),
    ),
    counter(
        "libvirt_domain_job_memory_constant_pages",
        None,
        "Pages that held one value only",
        |job| whole(job.field("memory_constant")),
    ),
    counter("libvirt_domain_job_memory_normal_pages", None, "Pages that were moved whole", |job| {
        whole(job.field("memory_normal"))
    }),
    gauge(
        "libvirt_domain_job_auto_converge_throttle_percent",
        None,
        "How much the guest's CPUs are held back so that the job comes to its end",
        |job| whole(job.field("auto_converge_throttle")),
    ),
];

/// Writes the families of this file.
pub(super) fn encode(guests: &[Subject<'_>], sheet: &mut Sheet<'_>) -> fmt::Result {
    for series in &SERIES {
        let jobs = guests.iter().filter_map(|one| Some((one.labels(), one.guest.job.as_ref()?)));
        series.encode(sheet, jobs)?;
    }
    Ok(())
}

const fn time(
    name: &'static str,
    help: &'static str,
    value: fn(&Job) -> Option<Value>,
) -> Series<Job> {
    gauge(name, Some(Unit::Seconds), help, value)
}

const fn size(
    name: &'static str,
    help: &'static str,
    value: fn(&Job) -> Option<Value>,
) -> Series<Job> {
    gauge(name, Some(Unit::Bytes), help, value)
}
