//! The Grafana boards in dashboards/: each is whole, each panel says what it shows, and each query
//! is PromQL over metrics and labels that the binaries have. Whether they show something is tried
//! on real data, not here.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::{Value, json};

use crate::metrics_reference::Reference;

/// What Grafana replaces by itself, and a value that it could have.
const BUILT_IN: [(&str, &str); 1] = [("$__rate_interval", "1m")];

fn boards() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    let mut boards: Vec<(PathBuf, Value)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let board = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, board)
        })
        .collect();
    boards.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(boards.len() >= 2, "boards are missing: {boards:?}");
    boards
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The panels of a board that show data, those inside collapsed rows included.
fn panels(board: &Value) -> Vec<&Value> {
    let top = list(board, "panels").iter();
    top.flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")))
        .filter(|panel| panel["type"] != "row")
        .collect()
}

#[test]
fn every_board_can_be_imported_by_its_own_name() {
    let mut names = HashSet::new();
    for (path, board) in boards() {
        let path = path.display();
        assert!(names.insert(text(&board, "uid").to_owned()), "{path} has another board's uid");
        assert!(names.insert(text(&board, "title").to_owned()), "{path} has another's title");
        assert!(board["id"].is_null(), "{path}: the id is one Grafana's own");
        assert!(board["schemaVersion"].as_u64() >= Some(39), "{path} is of an old schema");
        assert!(!text(&board, "description").is_empty(), "{path} has no description");
        let ids: Vec<_> = list(&board, "panels").iter().map(|panel| &panel["id"]).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{path}: an id twice");
    }
}

#[test]
fn every_panel_says_what_it_shows_and_takes_the_chosen_data_source() {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    for (path, board) in boards() {
        let mut titles = HashSet::new();
        for panel in panels(&board) {
            let title = text(panel, "title");
            let at = format!("{}: panel '{title}'", path.display());
            assert!(!title.is_empty() && titles.insert(title), "{at}: no title of its own");
            assert!(text(panel, "description").ends_with('.'), "{at}: no description");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            assert!(unit.as_str().is_some_and(|unit| !unit.is_empty()), "{at}: no unit");
            assert!(!list(panel, "targets").is_empty(), "{at}: no query");
            assert_eq!(panel["datasource"], source, "{at}");
            for target in list(panel, "targets") {
                assert_eq!(target["datasource"], source, "{at}");
            }
        }
        assert!(!titles.is_empty(), "{} is empty", path.display());
    }
}

#[test]
fn panels_do_not_overlap() {
    for (path, board) in boards() {
        let mut taken = HashSet::new();
        for panel in list(&board, "panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}: {} is too wide", path.display(), panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    let free = taken.insert((x, y));
                    assert!(free, "{}: {} overlaps", path.display(), panel["title"]);
                }
            }
        }
    }
}

#[test]
fn every_query_asks_for_what_the_binaries_have() {
    let reference = Reference::load();
    for (path, board) in boards() {
        let variables: Vec<&str> =
            list(&board["templating"], "list").iter().map(|one| text(one, "name")).collect();
        for wanted in ["datasource", "job", "instance"] {
            assert!(variables.contains(&wanted), "{} has no ${wanted}", path.display());
        }
        for panel in panels(&board) {
            for target in list(panel, "targets") {
                let written = text(target, "expr");
                let at = format!("{}: {}: {written}", path.display(), text(panel, "title"));
                rates_fit_the_scrape_interval(written, &at);
                let query = replaced(written, &variables, &at);
                check(&reference, &BTreeSet::new(), &query, &at);
            }
        }
        for variable in list(&board["templating"], "list") {
            if variable["type"] == "query" {
                let at = format!("{}: ${}", path.display(), text(variable, "name"));
                check_variable(&reference, text(variable, "definition"), &variables, &at);
                assert_eq!(variable["query"]["query"], variable["definition"], "{at}");
            }
        }
    }
}

/// A fixed window shows nothing where scrapes are further apart.
fn rates_fit_the_scrape_interval(query: &str, at: &str) {
    for (place, _) in query.match_indices("rate(") {
        let window = query[place..].split_once('[').unwrap().1;
        assert!(window.starts_with("$__rate_interval]"), "{at}: a fixed window");
    }
}

/// The query with a value for each of Grafana's variables; others are not known to the board.
fn replaced(query: &str, variables: &[&str], at: &str) -> String {
    let mut query = query.to_owned();
    for (variable, value) in BUILT_IN {
        query = query.replace(variable, value);
    }
    // Longer names first: `$job` must not take the begin of `$job_name`.
    let mut variables = variables.to_vec();
    variables.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for variable in variables {
        query = query.replace(&format!("\"${variable}\""), "\".+\"");
    }
    assert!(!query.contains('$'), "{at}: an unknown variable, or one outside a matcher: {query}");
    query
}

fn check_variable(reference: &Reference, definition: &str, variables: &[&str], at: &str) {
    let inner = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (query, label) = inner.and_then(|inner| inner.rsplit_once(", ")).unwrap();
    check(reference, &BTreeSet::new(), &replaced(query, variables, at), at);
    let metric = query.split('{').next().unwrap();
    assert!(reference.labels(metric).unwrap().contains(label), "{at}: {metric} has no {label}");
}

/// Panics unless the query is PromQL over metrics and labels of the reference, or `recorded` ones.
pub(crate) fn check(reference: &Reference, recorded: &BTreeSet<&str>, query: &str, at: &str) {
    let expr = parser::parse(query).unwrap_or_else(|error| panic!("{at}: {error}"));
    let mut selectors = Selectors(Vec::new());
    walk_expr(&mut selectors, &expr).unwrap();
    assert!(!selectors.0.is_empty(), "{at}: it selects nothing");
    for selector in selectors.0 {
        let name = selector.name.as_deref().unwrap_or_else(|| panic!("{at}: no metric's name"));
        if recorded.contains(name) {
            continue;
        }
        let Some(labels) = reference.labels(name) else {
            panic!("{at}: {name} is not in docs/metrics.md");
        };
        for matcher in &selector.matchers.matchers {
            let known = labels.contains(matcher.name.as_str());
            assert!(known, "{at}: {name} has no label {}", matcher.name);
        }
    }
}

struct Selectors(Vec<VectorSelector>);

impl ExprVisitor for Selectors {
    type Error = String;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
        match expr {
            Expr::VectorSelector(selector) => self.0.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
            _ => {}
        }
        Ok(true)
    }
}
