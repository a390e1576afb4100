//! The Grafana boards in dashboards/: each is whole, each panel says what it shows, each link leads
//! to a board, and each query is PromQL over metrics and labels that the binaries have. Whether
//! they show something is tried on real data (panels.rs).

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Value, json};

use crate::metrics_reference::Reference;
use crate::promql::{self, Recorded};

/// The boards by their uids, which links and operators' bookmarks keep to.
const UIDS: [&str; 4] = ["kanyun-adapter", "kanyun-fleet", "kanyun-guest", "kanyun-host"];
/// What Grafana replaces by itself, and a value that it could have.
const BUILT_IN: [(&str, &str); 2] = [("$__rate_interval", "1m"), ("$__range", "1h")];

pub(crate) fn boards() -> Vec<(PathBuf, Value)> {
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
    boards
}

pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The panels of a board that show data, those inside collapsed rows included.
pub(crate) fn panels(board: &Value) -> Vec<&Value> {
    let top = list(board, "panels").iter();
    top.flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")))
        .filter(|panel| panel["type"] != "row")
        .collect()
}

#[test]
fn every_board_can_be_imported_by_its_own_name() {
    let mut names = HashSet::new();
    let uids: BTreeSet<String> =
        boards().iter().map(|(_, board)| text(board, "uid").to_owned()).collect();
    assert_eq!(uids, UIDS.map(str::to_owned).into());
    for (path, board) in boards() {
        let path = path.display();
        assert!(names.insert(text(&board, "uid").to_owned()), "{path} has another board's uid");
        assert!(names.insert(text(&board, "title").to_owned()), "{path} has another's title");
        assert!(board["id"].is_null(), "{path}: the id is one Grafana's own");
        assert!(board["schemaVersion"].as_u64() >= Some(41), "{path} is of an old schema");
        assert!(board["__inputs"].is_null(), "{path} cannot be provisioned");
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
        let variables: Vec<&str> = variables(&board).map(|one| text(one, "name")).collect();
        for wanted in ["datasource", "job", "instance"] {
            assert!(variables.contains(&wanted), "{} has no ${wanted}", path.display());
        }
        for panel in panels(&board) {
            for target in list(panel, "targets") {
                let written = text(target, "expr");
                let at = format!("{}: {}: {written}", path.display(), text(panel, "title"));
                rates_fit_the_scrape_interval(written, &at);
                let query = replaced(written, &variables, &at);
                let labels = promql::check(&reference, &Recorded::new(), &query, &at);
                for label in legend_labels(text(target, "legendFormat")) {
                    assert!(labels.contains(label), "{at}: no label {label} for its legend");
                }
            }
        }
    }
}

pub(crate) fn variables(board: &Value) -> impl Iterator<Item = &Value> {
    list(&board["templating"], "list").iter()
}

/// Prometheus does not ask remote storage for the values of a label: a variable that does would
/// not list guests that Prometheus itself no longer holds.
#[test]
fn drop_downs_are_filled_by_queries_that_remote_storage_answers() {
    let reference = Reference::load();
    for (path, board) in boards() {
        let names: Vec<&str> = variables(&board).map(|one| text(one, "name")).collect();
        for variable in variables(&board).filter(|variable| variable["type"] == "query") {
            let at = format!("{}: ${}", path.display(), text(variable, "name"));
            let definition = text(variable, "definition");
            assert_eq!(variable["query"]["query"], variable["definition"], "{at}");
            assert_eq!(variable["refresh"], 2, "{at} does not follow the time range");
            let query = query_of(variable);
            let labels =
                promql::check(&reference, &Recorded::new(), &replaced(query, &names, &at), &at);
            assert!(query.contains("last_over_time(") && query.contains("[$__range]"), "{at}");
            let pattern = text(variable, "regex");
            let before_groups: Vec<&str> = pattern.split("=\"(").collect();
            assert!(before_groups.len() > 1, "{at}: {pattern} picks nothing");
            for picked in &before_groups[..before_groups.len() - 1] {
                let name =
                    picked.rsplit(|c: char| c != '_' && !c.is_alphanumeric()).next().unwrap();
                assert!(labels.contains(name), "{at}: {definition} has no label {name}");
            }
        }
    }
}

/// The PromQL of a variable.
pub(crate) fn query_of(variable: &Value) -> &str {
    let definition = text(variable, "definition");
    let inner = definition.strip_prefix("query_result(").and_then(|rest| rest.strip_suffix(')'));
    inner.unwrap_or_else(|| panic!("{definition} is no query_result"))
}

/// What picks a variable's values out of the series, as Grafana prints them.
pub(crate) fn pattern_of(variable: &Value) -> Regex {
    let regex = text(variable, "regex");
    let inner = regex.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    Regex::new(inner.unwrap_or_else(|| panic!("{regex} is not /in slashes/"))).unwrap()
}

/// A fixed window shows nothing where scrapes are further apart.
fn rates_fit_the_scrape_interval(query: &str, at: &str) {
    for function in ["rate(", "increase("] {
        for (place, _) in query.match_indices(function) {
            let window = query[place..].split_once('[').unwrap().1;
            let fits = window.starts_with("$__rate_interval]") || window.starts_with("$__range]");
            assert!(fits, "{at}: a fixed window");
        }
    }
}

/// The query with a value for each of Grafana's variables; others are not known to the board.
fn replaced(query: &str, variables: &[&str], at: &str) -> String {
    let mut query = query.to_owned();
    for (variable, value) in BUILT_IN {
        query = query.replace(variable, value);
    }
    for variable in variables {
        query = query.replace(&format!("\"${variable}\""), "\".+\"");
    }
    assert!(!query.contains('$'), "{at}: an unknown variable, or one outside a matcher: {query}");
    query
}

/// The labels that a legend names: `{{instance}}`.
pub(crate) fn legend_labels(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().trim())
}

/// Every `links` of a board, wherever it is, with the panel that it is in.
fn links(board: &Value) -> Vec<(&Value, &Value)> {
    let mut found: Vec<_> = list(board, "links").iter().map(|link| (board, link)).collect();
    for panel in panels(board) {
        let config = &panel["fieldConfig"];
        found.extend(list(&config["defaults"], "links").iter().map(|link| (panel, link)));
        for property in list(config, "overrides").iter().flat_map(|one| list(one, "properties")) {
            if property["id"] == "links" {
                found.extend(list(property, "value").iter().map(|link| (panel, link)));
            }
        }
    }
    found
}

#[test]
fn links_lead_to_boards_and_set_variables_that_are_there() {
    let reference = Reference::load();
    let boards = boards();
    let mut arrows = BTreeSet::new();
    for (path, board) in &boards {
        let own: Vec<&str> = variables(board).map(|one| text(one, "name")).collect();
        let takes_all = |board: &Value, name: &str| {
            variables(board).any(|one| one["name"] == name && one["includeAll"] == true)
        };
        for (panel, link) in links(board) {
            let url = text(link, "url");
            let at = format!("{}: {}: {url}", path.display(), text(panel, "title"));
            let (target, parameters) = url.strip_prefix("/d/").unwrap().split_once('?').unwrap();
            let there = boards.iter().find(|(_, other)| other["uid"] == target);
            let (_, there) = there.unwrap_or_else(|| panic!("{at}: no such board"));
            arrows.insert((text(board, "uid"), target));
            let theirs: HashSet<&str> = variables(there).map(|one| text(one, "name")).collect();
            let mut keeps_time = link["keepTime"] == true;
            for parameter in parameters.split('&') {
                let handed_on =
                    parameter.strip_prefix("${").and_then(|rest| rest.strip_suffix(":queryparam}"));
                if parameter == "${__url_time_range}" {
                    keeps_time = true;
                } else if let Some(name) = handed_on {
                    assert!(own.contains(&name) && theirs.contains(name), "{at}: ${name}");
                    let fits = takes_all(there, name) || !takes_all(board, name);
                    assert!(fits, "{at}: all of ${name} handed to a choice of one");
                } else {
                    let (name, value) =
                        parameter.strip_prefix("var-").unwrap().split_once('=').unwrap();
                    assert!(theirs.contains(name), "{at}: {target} has no ${name}");
                    if value == "$__all" {
                        assert!(takes_all(there, name), "{at}: ${name} is a choice of one");
                        continue;
                    }
                    the_value_is_shown(&reference, (&own, panel), value, &at);
                }
            }
            assert!(keeps_time, "{at}: the time range is lost");
        }
    }
    for arrow in [
        ("kanyun-fleet", "kanyun-host"),
        ("kanyun-host", "kanyun-guest"),
        ("kanyun-guest", "kanyun-host"),
        ("kanyun-host", "kanyun-fleet"),
    ] {
        assert!(arrows.contains(&arrow), "no link {arrow:?}");
    }
}

/// A link of a row takes its value from a column, which must not be hidden; one of a line from a
/// label, which a query must keep (the line of the host's own size has none of a guest).
fn the_value_is_shown(
    reference: &Reference,
    (own, panel): (&[&str], &Value),
    value: &str,
    at: &str,
) {
    let inner = value.strip_prefix("${__").and_then(|rest| rest.strip_suffix('}'));
    let (kind, name) = inner.and_then(|inner| inner.rsplit_once('.')).unwrap();
    assert!(["data.fields", "field.labels"].contains(&kind), "{at}");
    let hides = |step: &Value| step["options"]["excludeByName"][name] == true;
    assert!(!list(panel, "transformations").iter().any(hides), "{at}: {name} is hidden");
    let labels: Vec<BTreeSet<String>> = list(panel, "targets")
        .iter()
        .map(|target| {
            let query = replaced(text(target, "expr"), own, at);
            promql::check(reference, &Recorded::new(), &query, at)
        })
        .collect();
    // A line of the host's own has no guest to lead to, beside lines of guests that have.
    let keeps = |labels: &BTreeSet<String>| labels.contains(name) || !labels.contains("domain");
    assert!(labels.iter().all(keeps), "{at}: a query drops {name}");
    assert!(labels.iter().any(|labels| labels.contains(name)), "{at}: no query keeps {name}");
}
