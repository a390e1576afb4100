//! What the process tells about itself: its build, its use of the machine, its HTTP requests.
//! It must not know what the binary measures.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

mod process;

/// Upper bounds of the request durations, in seconds: from a health check to a long read.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// The HTTP metrics of a process. Clones count together.
#[derive(Clone, Debug)]
pub struct OwnMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<HandlerLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    handler: &'static str,
    code: Code,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HandlerLabels {
    handler: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Code(StatusCode);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

impl OwnMetrics {
    /// Registers `<binary>_build_info{version,revision}`, the `process_*` families, and
    /// `kanyun_http_requests_total{handler,code}`, `kanyun_http_request_duration_seconds{handler}`
    /// and `kanyun_http_requests_in_flight`. `binary` is a metric prefix as `kanyun_exporter`.
    pub fn register(
        registry: &mut Registry,
        binary: &'static str,
        version: &'static str,
        revision: &'static str,
    ) -> Self {
        registry.register(
            format!("{binary}_build"),
            "Version and source revision of this process, always 1",
            Info::new(vec![("version", version), ("revision", revision)]),
        );
        registry.register_collector(Box::new(process::Process));

        let own = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            in_flight: Gauge::default(),
        };
        registry.register(
            "kanyun_http_requests",
            "HTTP requests answered, by route and status",
            own.requests.clone(),
        );
        registry.register(
            "kanyun_http_request_duration_seconds",
            "From a request's head to the last byte of its answer, by route",
            own.durations.clone(),
        );
        registry.register(
            "kanyun_http_requests_in_flight",
            "HTTP requests that are being answered now",
            own.in_flight.clone(),
        );
        own
    }

    /// Starts to observe one request.
    pub(crate) fn observe(&self) -> Observation {
        self.in_flight.inc();
        let outcome = None;
        Observation { own: Arc::new(self.clone()), started: Instant::now(), outcome }
    }
}

/// One request in flight; it is counted when this is dropped.
#[derive(Debug)]
pub(crate) struct Observation {
    own: Arc<OwnMetrics>,
    started: Instant,
    outcome: Option<(&'static str, StatusCode)>,
}

impl Observation {
    /// Which route answered, and with which status.
    pub(crate) fn answered(&mut self, handler: &'static str, status: StatusCode) {
        self.outcome = Some((handler, status));
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.own.in_flight.dec();
        // A request whose client went away before an answer was ready has no status to count.
        let Some((handler, status)) = self.outcome else { return };
        self.own.requests.get_or_create(&RequestLabels { handler, code: Code(status) }).inc();
        let seconds = self.started.elapsed().as_secs_f64();
        self.own.durations.get_or_create(&HandlerLabels { handler }).observe(seconds);
    }
}
