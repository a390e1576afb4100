//! The `process_*` families that every Prometheus client library has, read from /proc at each
//! scrape. It must not know the rest of the process. What /proc does not say is left out.

use procfs::WithCurrentSystemInfo as _;
use procfs::process::{LimitValue, Process as Proc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads /proc/self at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(myself) = Proc::myself() else { return Ok(()) };
        if let Ok(stat) = myself.stat() {
            let ticks = procfs::ticks_per_second();
            counter(
                &mut encoder,
                "process_cpu_seconds",
                "User and system CPU time of this process, in seconds",
                seconds(stat.utime.saturating_add(stat.stime), ticks),
            )?;
            if let Ok(boot) = procfs::boot_time_secs() {
                gauge(
                    &mut encoder,
                    "process_start_time_seconds",
                    "When this process started, in seconds since 1970",
                    seconds(boot.saturating_mul(ticks).saturating_add(stat.starttime), ticks),
                )?;
            }
            gauge(
                &mut encoder,
                "process_virtual_memory_bytes",
                "Virtual memory of this process, in bytes",
                float(stat.vsize),
            )?;
            gauge(
                &mut encoder,
                "process_resident_memory_bytes",
                "Resident memory of this process, in bytes",
                float(stat.rss_bytes().get()),
            )?;
            if let Ok(threads) = u64::try_from(stat.num_threads) {
                gauge(&mut encoder, "process_threads", "Threads of this process", float(threads))?;
            }
        }
        if let Ok(open) = myself.fd_count() {
            gauge(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors of this process",
                float(open as u64),
            )?;
        }
        if let Ok(limits) = myself.limits()
            && let LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            gauge(
                &mut encoder,
                "process_max_fds",
                "File descriptors that this process may open",
                float(most),
            )?;
        }
        Ok(())
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: f64,
) -> Result<(), std::fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn seconds(ticks: u64, per_second: u64) -> f64 {
    float(ticks) / float(per_second)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a page carries floats; 2^53 is beyond all of these"
)]
fn float(value: u64) -> f64 {
    value as f64
}
