//! Requests of the 2012 API, by door and outcome.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::legacy::Answer;

/// Handles; cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    requests: Family<Request, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    door: RequestDoor,
    outcome: RequestOutcome,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum RequestDoor {
    /// `POST /` and `POST /query_usage_report`.
    Http,
    /// `--legacy.api-address`.
    Zeromq,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Code 200, or the `{}` that a body without method or args is answered.
    Answered,
    /// Code 500: the request is wrong, asks for too much, or could not be answered in time.
    Failed,
    /// Sent away unread, because too many waited or the service was stopping.
    Busy,
    /// No JSON, too large, not three frames, or no ZeroMQ at all.
    Malformed,
    /// A message of more bytes or frames than libzmq may hold; its connection was cut.
    Cut,
}

impl RequestOutcome {
    /// Of an answer.
    pub fn of(answer: &Answer) -> RequestOutcome {
        match answer {
            Answer::Success(_) | Answer::Empty => RequestOutcome::Answered,
            Answer::Failure(_) => RequestOutcome::Failed,
        }
    }
}

impl EncodeLabelValue for RequestDoor {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            RequestDoor::Http => "http",
            RequestDoor::Zeromq => "zeromq",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl EncodeLabelValue for RequestOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let text = match self {
            RequestOutcome::Answered => "answered",
            RequestOutcome::Failed => "failed",
            RequestOutcome::Busy => "busy",
            RequestOutcome::Malformed => "malformed",
            RequestOutcome::Cut => "cut",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl RequestMetrics {
    pub(super) fn register(registry: &mut Registry) -> RequestMetrics {
        let requests = Family::default();
        let help = "Requests of the 2012 API, by door and outcome";
        registry.register("legacy_requests", help, requests.clone());
        let metrics = RequestMetrics { requests };
        // All are there from the start: a counter that appears with its first event has no increase.
        for door in [RequestDoor::Http, RequestDoor::Zeromq] {
            let outcomes = [
                RequestOutcome::Answered,
                RequestOutcome::Failed,
                RequestOutcome::Busy,
                RequestOutcome::Malformed,
                RequestOutcome::Cut,
            ];
            for outcome in outcomes {
                drop(metrics.requests.get_or_create(&Request { door, outcome }));
            }
        }
        metrics
    }

    /// A request ended.
    pub fn count(&self, door: RequestDoor, outcome: RequestOutcome) {
        self.requests.get_or_create(&Request { door, outcome }).inc();
    }
}
