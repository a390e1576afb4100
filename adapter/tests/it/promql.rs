//! PromQL as boards and rules write it: it parses, and asks only for metrics and labels that the
//! two binaries have, that Prometheus itself has, or that rules record.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Labels;
use promql_parser::parser::{self, Expr, LabelModifier, VectorMatchCardinality, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

use crate::metrics_reference::Reference;

/// What Prometheus makes of rules, and its own metrics as a sender, with their labels; those of
/// 2.42 and of 3.15 alike, as the end-to-end run tries them.
const PROMETHEUS: [(&str, &[&str]); 8] = [
    ("ALERTS", &["alertname", "alertstate", "severity", "domain", "uuid"]),
    ("prometheus_remote_storage_highest_timestamp_in_seconds", &[]),
    ("prometheus_remote_storage_queue_highest_sent_timestamp_seconds", QUEUE),
    ("prometheus_remote_storage_samples_failed_total", QUEUE),
    ("prometheus_remote_storage_samples_pending", QUEUE),
    ("prometheus_remote_storage_samples_retried_total", QUEUE),
    ("prometheus_remote_storage_samples_total", QUEUE),
    ("prometheus_remote_storage_shards", QUEUE),
];
/// What `--labels.add` of the exporter can put on every series of a guest.
const ADDED: [&str; 7] = [
    "instance_id",
    "instance_name",
    "flavor_name",
    "user_id",
    "user_name",
    "project_id",
    "project_name",
];
const QUEUE: &[&str] = &["remote_name", "url"];

/// Recorded names and the labels that their series have.
pub(crate) type Recorded = BTreeMap<String, BTreeSet<String>>;

/// The labels that the result can have at most; panics unless the query is PromQL over what is
/// known.
pub(crate) fn check(
    reference: &Reference,
    recorded: &Recorded,
    query: &str,
    at: &str,
) -> BTreeSet<String> {
    let expr = parser::parse(query).unwrap_or_else(|error| panic!("{at}: {error}"));
    let labels = Labelled { reference, recorded, at };
    let known = labels.of(&expr);
    assert!(!known.is_empty(), "{at}: it selects nothing");
    walk_expr(&mut Groupings(labels), &expr).unwrap();
    narrowed(&expr, known)
}

/// An aggregation on top leaves only the labels that it groups by.
fn narrowed(expr: &Expr, known: BTreeSet<String>) -> BTreeSet<String> {
    match expr {
        Expr::Aggregate(aggregate) if !is_a_choice(&aggregate.op.to_string()) => {
            match &aggregate.modifier {
                Some(LabelModifier::Include(labels)) => labels.labels.iter().cloned().collect(),
                Some(LabelModifier::Exclude(labels)) => {
                    known.into_iter().filter(|label| !labels.labels.contains(label)).collect()
                }
                None => BTreeSet::new(),
            }
        }
        Expr::Aggregate(aggregate) => narrowed(&aggregate.expr, known),
        Expr::Paren(paren) => narrowed(&paren.expr, known),
        _ => known,
    }
}

/// topk and bottomk return some of the series as they are.
fn is_a_choice(operator: &str) -> bool {
    ["topk", "bottomk"].contains(&operator)
}

/// Which labels there are below an expression.
struct Labelled<'a> {
    reference: &'a Reference,
    recorded: &'a Recorded,
    at: &'a str,
}

impl Labelled<'_> {
    /// The labels of all that is selected below; panics at a metric or a matcher's label that is
    /// not known.
    fn of(&self, expr: &Expr) -> BTreeSet<String> {
        let mut selectors = Selectors::default();
        walk_expr(&mut selectors, expr).unwrap();
        let mut all = selectors.made;
        for selector in selectors.found {
            let at = self.at;
            let name = selector.name.as_deref().unwrap_or_else(|| panic!("{at}: no metric's name"));
            let labels = self.of_metric(name);
            for matcher in &selector.matchers.matchers {
                let known = labels.contains(&matcher.name);
                assert!(known, "{at}: {name} has no label {}", matcher.name);
            }
            all.extend(labels);
        }
        all
    }

    fn of_metric(&self, name: &str) -> BTreeSet<String> {
        if let Some(labels) = self.recorded.get(name) {
            return labels.clone();
        }
        let of_prometheus = PROMETHEUS.iter().find(|(metric, _)| *metric == name);
        let labels = of_prometheus
            .map(|(_, labels)| labels.iter().chain(&["job", "instance"]).copied().collect())
            .or_else(|| self.reference.labels(name))
            .unwrap_or_else(|| panic!("{}: {name} is not in docs/metrics.md", self.at));
        labels.into_iter().map(str::to_owned).collect()
    }
}

#[derive(Default)]
struct Selectors {
    found: Vec<VectorSelector>,
    /// Labels that `label_replace` makes.
    made: BTreeSet<String>,
}

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.found.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.found.push(matrix.vs.clone()),
            Expr::Call(call) if call.func.name == "label_replace" => {
                if let Some(Expr::StringLiteral(label)) = call.args.args.get(1).map(|arg| &**arg) {
                    self.made.insert(label.val.clone());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// Checks the labels of `by`, `without`, `on`, `ignoring` and `group_left` against what is below.
struct Groupings<'a>(Labelled<'a>);

impl Groupings<'_> {
    fn check(&self, labels: &Labels, below: &BTreeSet<String>) {
        for label in &labels.labels {
            let at = self.0.at;
            assert!(below.contains(label), "{at}: nothing below has the label {label}");
        }
    }

    fn modifier(&self, modifier: Option<&LabelModifier>, below: &BTreeSet<String>) {
        match modifier {
            Some(LabelModifier::Exclude(labels)) if below.contains("uuid") => {
                let added = ADDED.map(str::to_owned).into();
                self.check(labels, &(below | &added));
            }
            Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) => {
                self.check(labels, below);
            }
            None => {}
        }
    }
}

impl ExprVisitor for Groupings<'_> {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::Aggregate(aggregate) => {
                let below = self.0.of(&aggregate.expr);
                self.modifier(aggregate.modifier.as_ref(), &below);
            }
            Expr::Binary(binary) => {
                let below = self.0.of(expr);
                let modifier = binary.modifier.as_ref();
                self.modifier(modifier.and_then(|one| one.matching.as_ref()), &below);
                if let Some(
                    VectorMatchCardinality::ManyToOne(labels)
                    | VectorMatchCardinality::OneToMany(labels),
                ) = modifier.map(|one| &one.card)
                {
                    self.check(labels, &below);
                }
            }
            _ => {}
        }
        Ok(true)
    }
}
