//! A gauge of a figure that may not be known: then it is absent, and never 0.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// A figure, or none. Clones are the same gauge.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<Mutex<Option<i64>>>);

impl Known {
    /// The figure is known from now on.
    pub(super) fn set(&self, figure: i64) {
        self.tell(Some(figure));
    }

    /// The figure, or that it is not known any more.
    pub(super) fn tell(&self, figure: Option<i64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figure;
    }

    fn get(&self) -> Option<i64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Known {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.get().map_or(Ok(()), |figure| encoder.encode_gauge(&figure))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.get().is_none()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_is_not_known_is_absent() {
        let mut registry = Registry::default();
        let known = Known::default();
        registry.register("figure", "A figure", known.clone());
        let page = || {
            let mut page = String::new();
            encode(&mut page, &registry).unwrap();
            page
        };
        assert_eq!(page(), "# EOF\n");
        known.set(-7);
        assert_eq!(page(), "# HELP figure A figure.\n# TYPE figure gauge\nfigure -7\n# EOF\n");
        known.tell(None);
        assert_eq!(page(), "# EOF\n");
    }
}
