//! docs/metrics.md is made of the pages that the two binaries serve: the exporter's golden page,
//! the adapter's, which is pinned here, and the families that `serve` keeps for both.
//! `UPDATE_EXPECT=1` rewrites the adapter's golden page and the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use adapter::metrics::{Metrics, Reason};
use adapter::model::time::TimeRange;
use adapter::store::inventory::{Inventory, Table};
use adapter::store::observed::{ClusterMetrics, Driven, NodeState};
use clap::Parser as _;
use expect_test::expect_file;
use prometheus_client::registry::Registry;
use serve::answer::Answer;
use serve::http::StatusCode;
use serve::limits::Limits;
use serve::own_metrics::OwnMetrics;
use serve::readiness::Readiness;
use serve::routes::Routes;
use serve::server::{Server, Service, Shutdown};
use serve::settings::ServiceFlags;
use serve::sockets::Sockets;

/// Labels whose values are a closed set that the page shows whole.
const CLOSED_LABELS: [&str; 8] =
    ["limit", "mode", "outcome", "reason", "state", "table", "threads", "type"];

/// One metric family, by the name that Prometheus stores its samples under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) help: String,
    /// Each label and the values that the page has for it.
    pub(crate) labels: BTreeMap<String, BTreeSet<String>>,
    /// What of libvirt's it is made of.
    pub(crate) source: String,
}

/// All families of both binaries.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) exporter: BTreeMap<String, Family>,
    /// Families of the exporter that Tinkoff's names call otherwise.
    tinkoff: BTreeMap<String, Family>,
    /// Names that the exporter has by inovex' alone.
    only_inovex: BTreeSet<String>,
    pub(crate) adapter: BTreeMap<String, Family>,
}

impl Reference {
    /// The reference as docs/metrics.md shows it.
    pub(crate) fn load() -> Reference {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../exporter/tests/golden");
        let golden = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let mut exporter = families(&golden("page.openmetrics.txt"));
        exporter.extend(families(&own_page("kanyun_exporter", |_| ())));
        let mut tinkoff = families(&golden("tinkoff.openmetrics.txt"));
        let page = families(&golden("page.openmetrics.txt"));
        let only_inovex = page.into_keys().filter(|name| !tinkoff.contains_key(name)).collect();
        tinkoff.retain(|name, _| !exporter.contains_key(name));
        // Under the names that the page has in OpenMetrics.
        for line in golden("fields.txt").lines() {
            let (name, source) = line.split_once('\t').unwrap();
            let stored = ["", "_total", "_info"].map(|end| format!("{name}{end}"));
            let family = exporter.iter_mut().find(|(name, _)| stored.contains(name));
            source.clone_into(&mut family.unwrap_or_else(|| panic!("no family {name}")).1.source);
        }
        Reference { exporter, tinkoff, only_inovex, adapter: families(&adapter_page()) }
    }

    /// Names that the exporter does not have with Tinkoff's.
    pub(crate) fn only_inovex(&self) -> BTreeSet<String> {
        self.only_inovex.clone()
    }

    /// The labels that a stored metric of this name can have, or `None` if neither binary has it.
    /// Prometheus' own `job`, `instance` and `up` are known, too.
    pub(crate) fn labels(&self, metric: &str) -> Option<BTreeSet<&str>> {
        let mut labels = BTreeSet::from(["job", "instance"]);
        if metric == "up" {
            return Some(labels);
        }
        let (name, bucket) = match metric.rsplit_once('_') {
            Some((base, "bucket")) => (base, true),
            Some((base, "sum" | "count")) if self.is_histogram(base) => (base, false),
            _ => (metric, false),
        };
        let pages = [&self.exporter, &self.tinkoff, &self.adapter];
        let found: Vec<&Family> = pages.iter().filter_map(|page| page.get(name)).collect();
        if found.is_empty() || (name == metric && self.is_histogram(name)) {
            return None;
        }
        labels.extend(bucket.then_some("le"));
        labels.extend(found.iter().flat_map(|family| family.labels.keys().map(String::as_str)));
        Some(labels)
    }

    fn is_histogram(&self, name: &str) -> bool {
        [&self.exporter, &self.adapter]
            .iter()
            .any(|page| page.get(name).is_some_and(|family| family.kind == "histogram"))
    }
}

#[test]
fn the_adapters_page_is_as_it_was() {
    expect_file!["../golden/page.txt"].assert_eq(&adapter_page());
}

#[test]
fn the_reference_is_up_to_date() {
    let reference = Reference::load();
    expect_file!["../../../docs/metrics.md"].assert_eq(&markdown(&reference));
}

#[test]
fn every_family_says_what_it_means_and_is_named_by_the_rules() {
    let reference = Reference::load();
    for (name, family) in reference.exporter.iter().chain(&reference.adapter) {
        assert!(!family.help.is_empty(), "{name} has no help text");
        let total = name.ends_with("_total");
        assert_eq!(total, family.kind == "counter", "{name} is a {}", family.kind);
        let base = ["", "byte_seconds", "seconds", "bytes", "percent"];
        assert!(base.contains(&unit(name, family)), "{name} is in {}", family.unit);
    }
}

/// A page with every family of the adapter. What changes from run to run is 0 in it.
fn adapter_page() -> String {
    own_page("kanyun_adapter", |registry| {
        let metrics = Metrics::register(registry);
        let mut reason = Some(Reason::InvalidSeries);
        while let Some(this) = reason {
            metrics.refused(this, 1);
            reason = next(this);
        }
        metrics.written(60);
        metrics.metadata(3);
        metrics.request_ahead();
        metrics.committed(Duration::from_millis(4), 60, 1, 60);
        metrics.commit_failed();
        metrics.answered(60);
        metrics.unanswered();
        metrics.expired(1);
        metrics.sealing().lag(Some((0, 1_767_225_600_000)));
        metrics.sealing().late_waiting(Some(0));
        metrics.sealing().waiting(Some(0));
        let table = |name, spans, range| Table { name, spans, range, bytes: 1 };
        let range = Some(TimeRange { start_ms: 1_767_225_600_000, end_ms: 1_767_311_999_999 });
        let tables = ["heads", "index", "chunks", "ledger"].map(|name| table(name, 1, range));
        let whole = [table("journal", 0, None), table("other", 0, None)];
        let tables = tables.into_iter().chain(whole).collect();
        metrics.keeping().counted(&Inventory { tables, free_bytes: 1 });
        metrics.sealing().shards(16);
        of_a_cluster(metrics.cluster());
    })
}

fn of_a_cluster(cluster: &ClusterMetrics) {
    let node = "127.0.0.1:9042".to_owned();
    cluster.answered(node.clone(), Duration::from_millis(1));
    cluster.failed(node.clone());
    cluster.silent(node.clone());
    cluster.retried("writing samples");
    cluster.gave_up("writing samples");
    cluster.looked(&[NodeState { node, is_connected: true, clock: Some(0.0) }]);
    cluster.driven(Driven { connections: 1, ..Driven::default() });
}

/// A match without a wildcard: whoever adds a reason has to add it here, and so to the page.
fn next(reason: Reason) -> Option<Reason> {
    match reason {
        Reason::InvalidSeries => Some(Reason::TooOld),
        Reason::TooOld => Some(Reason::Ahead),
        Reason::Ahead => Some(Reason::Histogram),
        Reason::Histogram => Some(Reason::Exemplar),
        Reason::Exemplar => None,
    }
}

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    service: ServiceFlags,
}

/// The page of a server of `serve` that has answered one request, with what `more` registers.
#[tokio::main(flavor = "current_thread")]
async fn own_page(binary: &'static str, more: impl FnOnce(&mut Registry)) -> String {
    let mut registry = Registry::default();
    let own_metrics = OwnMetrics::register(&mut registry, binary, "1.2.3", "abc");
    more(&mut registry);
    let flags = Flags::parse_from(["test", "--web.listen-address=127.0.0.1:0"]).service;
    let server = Server::bind(&flags, Sockets::none()).await.unwrap();
    let url = format!("http://{}/metrics", server.local_addresses()[0]);
    let service = Service {
        routes: Routes::new().get("/metrics", async |_call| Answer::text(StatusCode::OK, "")),
        readiness: Readiness::new(|| Ok(())),
        own_metrics,
        limits: Limits::default(),
    };
    let (stop, shutdown) = Shutdown::manual();
    let ended = tokio::spawn(server.run(service, shutdown));
    tokio::task::spawn_blocking(move || ureq::get(url).call().unwrap()).await.unwrap();
    stop.request();
    ended.await.unwrap().unwrap();
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
    steady(&page)
}

/// Puts 0 for the values that differ from run to run, and the series of a family in order, which
/// prometheus-client keeps in a hash table; a histogram's stay as they are.
fn steady(page: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut family_begin = 0;
    for line in page.lines() {
        if line.starts_with('#') {
            lines.push(line.to_owned());
            family_begin = lines.len();
            continue;
        }
        let varies =
            line.starts_with("process_") || line.starts_with("kanyun_http_request_duration_");
        match line.rsplit_once(' ') {
            Some((series, _)) if varies => lines.push(format!("{series} 0")),
            _ => lines.push(line.to_owned()),
        }
        if ["_total{", "{table=", "{state="].iter().any(|part| line.contains(part)) {
            lines[family_begin..].sort();
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The families of a page in OpenMetrics text. Labels' values are split without regard to
/// escapes, which is enough for the closed sets that are shown.
fn families(page: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE" | "UNIT")), Some(name), Some(text)) => {
                name.clone_into(&mut current);
                let family = families.entry(current.clone()).or_default();
                match what {
                    // prometheus-client ends the texts that it registers itself with a stop.
                    "HELP" => family.help.push_str(text.trim_end_matches('.')),
                    "TYPE" => family.kind.push_str(text),
                    _ => family.unit.push_str(text),
                }
            }
            (Some("#"), ..) => assert_eq!(line, "# EOF"),
            _ => {
                let family = families.get_mut(&current).unwrap();
                for (label, value) in labels(line) {
                    family.labels.entry(label).or_default().insert(value);
                }
            }
        }
    }
    families.into_iter().map(|(name, family)| (stored_name(name, &family), family)).collect()
}

/// The name and the value of each label of a line, but for a histogram's `le`.
fn labels(line: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    let parts: Vec<&str> = rest.split("=\"").collect();
    let mut labels = Vec::new();
    for pair in parts.windows(2) {
        let name = pair[0].rsplit(['"', ',', '{']).next().unwrap();
        let value = pair[1].split('"').next().unwrap();
        if name != "le" {
            labels.push((name.to_owned(), value.to_owned()));
        }
    }
    labels
}

/// OpenMetrics names a family without the suffix of its samples.
fn stored_name(name: String, family: &Family) -> String {
    match family.kind.as_str() {
        "counter" => name + "_total",
        "info" => name + "_info",
        _ => name,
    }
}

fn markdown(reference: &Reference) -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Every metric of the two binaries, made from the pages that they serve by a test of the adapter;\n\
         `UPDATE_EXPECT=1 cargo test -p adapter --test it metrics_reference` writes it anew.\n\n\
         Names are those that Prometheus stores. A histogram's samples have the suffixes `_bucket`, `_sum` and `_count`.\n\
         A figure that libvirt did not report is absent, never 0. Prometheus adds `job` and `instance` to every series.\n",
    );
    let count = reference.exporter.len();
    writeln!(text, "\n## kanyun-exporter\n\n{count} families on the exporter's `/metrics`.")
        .unwrap();
    text.push_str(
        "The last column is what of libvirt's a family is made of: fields of its bulk statistics (`N` is a number), calls, \
         parts of a guest's XML; those without it are the exporter's own.\n",
    );
    table(&mut text, &reference.exporter);
    text.push_str(
        "\n### With `--metrics.profile=tinkoff`\n\nThese in the place of those that they are called otherwise by.\n",
    );
    table(&mut text, &reference.tinkoff);
    let count = reference.adapter.len();
    writeln!(text, "\n## kanyun-adapter\n\n{count} families on the adapter's `/metrics`.").unwrap();
    table(&mut text, &reference.adapter);
    text
}

fn table(text: &mut String, page: &BTreeMap<String, Family>) {
    let has_sources = page.values().any(|family| !family.source.is_empty());
    let (head, line) = if has_sources { (" from |", " --- |") } else { ("", "") };
    writeln!(text, "\n| name | type | unit | labels | meaning |{head}").unwrap();
    writeln!(text, "| --- | --- | --- | --- | --- |{line}").unwrap();
    for (name, family) in page {
        let unit = unit(name, family);
        let labels: Vec<String> = family.labels.iter().map(label).collect();
        let help = family.help.replace('|', "\\|");
        let labels = labels.join(", ");
        write!(text, "| `{name}` | {} | {unit} | {labels} | {help} |", family.kind).unwrap();
        if has_sources {
            write!(text, " {} |", family.source).unwrap();
        }
        text.push('\n');
    }
}

fn label((name, values): (&String, &BTreeSet<String>)) -> String {
    if !CLOSED_LABELS.contains(&name.as_str()) {
        return format!("`{name}`");
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    format!("`{name}` ({})", values.join(", "))
}

/// The unit that the page tells, else the one that the name ends in.
fn unit<'a>(name: &str, family: &'a Family) -> &'a str {
    if !family.unit.is_empty() {
        return &family.unit;
    }
    let name = name.trim_end_matches("_total");
    ["byte_seconds", "seconds", "bytes", "percent"]
        .into_iter()
        .find(|unit| name.ends_with(&format!("_{unit}")))
        .unwrap_or_default()
}
