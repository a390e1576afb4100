//! The exporter as an HTTP service: which path answers what. Knows no libvirt.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector as Encode;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;
use serve::answer::{Answer, Refusal};
use serve::call::Call;
use serve::http::{HeaderValue, StatusCode, header};
use serve::limits::Limits;
use serve::own_metrics::OwnMetrics;
use serve::readiness::Readiness;
use serve::routes::Routes;
use serve::server::{BindError, ServeError, Server, Service};
use serve::shutdown::Shutdown;
use serve::sockets::Sockets;
use tokio::time::Instant;

use crate::collect::Collector;
use crate::config::Config;
use crate::families::{Page, Style};
use crate::recording::RecordingError;
use crate::selection::CollectorName;
use crate::snapshot::Snapshot;
use crate::traffic::firewall::Firewall;

/// The header in which Prometheus says how long it waits.
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";
/// When a client that was one too many may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the exporter ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It could not listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What it was to replay is of no use.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// It could not end in order.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves until a shutdown is asked for, on `sockets` where the flags say so. `revision` is the source's, for the build info.
pub async fn run(
    config: Config,
    sockets: Sockets,
    revision: &'static str,
    shutdown: Shutdown,
) -> Result<(), ServiceError> {
    let server = Server::bind(&config.service, sockets).await?;
    for address in server.local_addresses() {
        tracing::info!(
            %address,
            path = config.telemetry_path,
            libvirt = config.libvirt_uri,
            "kanyun-exporter is listening"
        );
    }
    for remark in config.inherited.remarks() {
        tracing::warn!("{remark}");
    }
    let (pages, own_metrics) = Pages::new(config, revision)?;
    let pages = Arc::new(pages);
    // The first scrape need not pay for connecting, and readiness does not wait for a scrape.
    let first = Arc::clone(&pages);
    let mut background = tokio::task::JoinSet::new();
    background.spawn(async move {
        let deadline = Instant::now() + first.config.scrape_timeout;
        if let Err(error) = first.collector.snapshot(deadline, first.config.collected()).await {
            tracing::warn!(%error, "first collection");
        }
    });
    let service = Service {
        routes: routes(&pages, revision),
        readiness: readiness(&pages),
        own_metrics,
        limits: Limits::default(),
    };
    Ok(server.run(service, shutdown).await?)
}

/// What the pages are made of.
struct Pages {
    config: Config,
    collector: Collector,
    registry: Registry,
    shown: Arc<Shown>,
    /// One page at a time: `shown` belongs to the page that is being written.
    writing: Mutex<()>,
}

/// The snapshot that the registry writes next.
#[derive(Debug)]
struct Shown(Mutex<(Arc<Snapshot>, Style)>);

impl Encode for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (snapshot, style) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Page { snapshot, style }.encode(encoder)
    }
}

impl Pages {
    fn new(config: Config, revision: &'static str) -> Result<(Self, OwnMetrics), RecordingError> {
        let mut registry = Registry::default();
        let version = env!("CARGO_PKG_VERSION");
        let own = OwnMetrics::register(&mut registry, "kanyun_exporter", version, revision);
        let collected = config.collected();
        let shown = Arc::new(Shown(Mutex::new((Arc::default(), config.style(collected)))));
        registry.register_collector(Box::new(Arc::clone(&shown)));
        let counts_traffic = collected.has(CollectorName::Traffic);
        let firewall = counts_traffic.then(|| Firewall::new(&config.traffic));
        let collector = Collector::new(&config, firewall)?;
        Ok((Self { config, collector, registry, shown, writing: Mutex::default() }, own))
    }

    async fn metrics(&self, call: Call) -> Answer {
        let deadline = Instant::now() + self.config.scrape_time(call.header(TIMEOUT_HEADER));
        let collected = self.config.collected();
        let wanted = match collected.asked(call.query().unwrap_or_default()) {
            Ok(wanted) => wanted,
            Err(error) => return Refusal::client(StatusCode::BAD_REQUEST, error).into(),
        };
        let snapshot = match self.collector.snapshot(deadline, wanted).await {
            Ok(snapshot) => snapshot,
            Err(crowded) => return Refusal::busy(crowded.to_string(), RETRY_AFTER).into(),
        };
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let style = self.config.style(wanted);
        *self.shown.0.lock().unwrap_or_else(PoisonError::into_inner) = (snapshot, style);
        serve::exposition::page(&self.registry, &call.head)
    }
}

fn routes(pages: &Arc<Pages>, revision: &str) -> Routes {
    let path = pages.config.telemetry_path.clone();
    let landing = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Kanyun exporter</title></head><body>\n\
         <h1>Kanyun exporter</h1>\n<p>The guests of this host: <a href=\"{0}\">{0}</a></p>\n\
         <p>Serves: <a href=\"/-/healthy\">/-/healthy</a>. Has asked libvirt: \
         <a href=\"/-/ready\">/-/ready</a>.</p>\n<p>Version {1} ({2})</p>\n</body></html>\n",
        escape(&path),
        env!("CARGO_PKG_VERSION"),
        escape(revision)
    );
    let health = pages.config.inherited.health_path.clone();
    let pages = Arc::clone(pages);
    // Routes live as long as the process; the paths are leaked once.
    let path: &'static str = path.leak();
    let health: Option<&'static str> =
        health.filter(|health| *health != path).map(|path| &*path.leak());
    let routes = health.into_iter().fold(Routes::new(), |routes, health| {
        routes.get(health, |_call| std::future::ready(Answer::text(StatusCode::OK, "serving\n")))
    });
    routes
        .get(path, move |call| {
            let pages = Arc::clone(&pages);
            async move { pages.metrics(call).await }
        })
        .get("/", move |_call| {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            let answer = Answer::text(StatusCode::OK, landing.clone());
            std::future::ready(answer.header(header::CONTENT_TYPE, html))
        })
}

fn readiness(pages: &Arc<Pages>) -> Readiness {
    let pages = Arc::clone(pages);
    Readiness::new(move || {
        let attempted = pages.collector.attempted();
        attempted.then_some(()).ok_or_else(|| "libvirt was not asked yet".to_owned())
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
