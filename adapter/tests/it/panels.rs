//! The boards and the rules on real data: with its variables chosen as a user of Grafana would,
//! each query of each panel returns figures from a running Prometheus, but for a named few that are
//! rightly empty; each recording rule does, too; and scripts/board-picture draws the boards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::dashboards::{boards, list, panels, pattern_of, query_of, text, variables};
use crate::end_to_end::Prometheus;
use crate::libvirtd::{Libvirtd, on_path, skip, wait_for};
use crate::rules::rules;

const NO_POOL: &str = "libvirt manages no pool here";
const NO_CLUSTER: &str = "the adapter keeps its samples on its own disk";

/// Queries that may be empty where all is well: board, panel, query, and why.
const EMPTY: [(&str, &str, &str, &str); 29] = [
    ("kanyun-fleet", "Hosts", "H", NO_POOL),
    ("kanyun-fleet", "Alerts that fire", "A", "no rule is loaded, and no alert should fire"),
    ("kanyun-fleet", "Network errors and drops", "A", "it lists only guests with some"),
    ("kanyun-fleet", "Most swapping", "A", "it lists only guests that swap; these have no swap"),
    ("kanyun-guest", "Time of a disk request", "C", "the guest's writes are not flushed"),
    ("kanyun-guest", "External traffic", "A", "no accounting rule is there; its own test has some"),
    ("kanyun-guest", "Use of disk limits", "A", "the guest's disks have no limits"),
    ("kanyun-guest", "Use of disk limits", "B", "the guest's disks have no limits"),
    ("kanyun-guest", "Use of disk limits", "C", "the guest's disks have no limits"),
    ("kanyun-guest", "Use of disk limits", "D", "the guest's disks have no limits"),
    ("kanyun-guest", "Use of disk limits", "E", "the guest's disks have no limits"),
    ("kanyun-guest", "Use of disk limits", "F", "the guest's disks have no limits"),
    ("kanyun-guest", "Progress of its job", "A", "the guest has no job"),
    ("kanyun-guest", "Progress of its job", "B", "the guest has no job"),
    ("kanyun-host", "Storage pools", "A", NO_POOL),
    ("kanyun-host", "Storage pools timed out", "A", NO_POOL),
    ("kanyun-host", "Guests with a job", "A", "no guest has a job"),
    ("kanyun-adapter", "Refused, by reason", "A", "a reason's counter begins with a refusal"),
    ("kanyun-adapter", "Bytes of a sealed sample", "A", "no window is sealed in a short run"),
    ("kanyun-adapter", "Who is ahead", "B", "a reason's counter begins with a refusal"),
    ("kanyun-adapter", "Nodes connected", "A", NO_CLUSTER),
    ("kanyun-adapter", "Answers of nodes", "A", NO_CLUSTER),
    ("kanyun-adapter", "Failed and tried again", "A", NO_CLUSTER),
    ("kanyun-adapter", "Failed and tried again", "B", NO_CLUSTER),
    ("kanyun-adapter", "Failed and tried again", "C", NO_CLUSTER),
    ("kanyun-adapter", "Failed and tried again", "D", NO_CLUSTER),
    ("kanyun-adapter", "Clocks of nodes", "A", NO_CLUSTER),
    ("kanyun-adapter", "Who seals", "A", NO_CLUSTER),
    ("kanyun-adapter", "Leases lost", "A", NO_CLUSTER),
];
/// Windows that hold scrapes a second apart, also where they come late.
const BUILT_IN: [(&str, &str); 2] = [("__rate_interval", "20s"), ("__range", "5m")];

/// The guest that works while the boards are looked at: its number, and the uuid that busy-guest
/// makes of it.
const WORKING: (u32, &str) = (43, "de305d54-75b4-431b-adb2-00000000002b");

/// Starts a guest that writes, reads and sends again and again.
pub(crate) fn start_working_guest(libvirtd: &Libvirtd) {
    libvirtd.start_guest(WORKING.0, "write_mib=2 read_mib=1 pings=20 every=2");
}

/// Every query of every panel, and every drop-down.
pub(crate) fn boards_show_real_data(prometheus: &Prometheus) {
    for (path, board) in boards() {
        let what = format!("a value for each variable of {}", path.display());
        let chosen = wait_for(&what, 120, || choose(prometheus, &board));
        for panel in panels(&board) {
            for target in list(panel, "targets") {
                let (title, query) = (text(panel, "title"), text(target, "refId"));
                let at = format!("{}: {title}: {query}", path.display());
                let found = || figures(prometheus, target, &filled(text(target, "expr"), &chosen));
                if may_be_empty(&board, title, query) {
                    found();
                } else {
                    wait_for(&format!("figures for {at}"), 120, || (found() > 0).then_some(()));
                }
            }
        }
    }
}

fn may_be_empty(board: &Value, title: &str, query: &str) -> bool {
    EMPTY.iter().any(|(uid, panel, id, _)| board["uid"] == *uid && title == *panel && query == *id)
}

/// How many figures a query returns that are numbers; fails where Prometheus refuses it.
fn figures(prometheus: &Prometheus, target: &Value, query: &str) -> usize {
    let is_number = |value: &str| value.parse::<f64>().unwrap().is_finite();
    if target["instant"] == true {
        return prometheus.instant(query).iter().filter(|(_, value)| is_number(value)).count();
    }
    let now = crate::end_to_end::unix_seconds();
    let series = prometheus.range(query, (now - 30, now));
    let values = series.values().flat_map(|values| values.as_array().unwrap());
    values.filter(|pair| is_number(pair[1].as_str().unwrap())).count()
}

/// Puts values for variables; the longest name first, as one can begin another.
fn filled(query: &str, chosen: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&String> = chosen.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let fill = |query: String, name: &String| query.replace(&format!("${name}"), &chosen[name]);
    names.into_iter().fold(query.to_owned(), fill)
}

/// A value for each variable of a board, by its own query; `None` while one has none yet.
fn choose(prometheus: &Prometheus, board: &Value) -> Option<BTreeMap<String, String>> {
    let mut chosen: BTreeMap<String, String> =
        BUILT_IN.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for variable in variables(board).filter(|variable| variable["type"] == "query") {
        let pattern = pattern_of(variable);
        let series = prometheus.instant(&filled(query_of(variable), &chosen));
        let mut values: Vec<String> = Vec::new();
        for (labels, _) in &series {
            let labels = labels.as_object().unwrap().iter();
            let printed: Vec<String> =
                labels.map(|(key, value)| format!("{key}={value}")).collect();
            let printed = format!("{{{}}}", printed.join(","));
            let groups = pattern.captures(&printed).unwrap_or_else(|| panic!("{printed}"));
            let value = groups.name("value").or_else(|| groups.get(1)).unwrap();
            values.push(value.as_str().to_owned());
        }
        let name = text(variable, "name");
        let value = match (name, variable["allValue"].as_str()) {
            ("guest", _) => values.into_iter().find(|value| value == WORKING.1)?,
            _ if values.is_empty() => return None,
            (_, Some(all)) => all.to_owned(),
            _ if variable["multi"] == true => format!("({})", values.join("|")),
            _ => values.swap_remove(0),
        };
        chosen.insert(name.to_owned(), value);
    }
    Some(chosen)
}

/// Every rule is evaluated; what it asks of other rules is put in their place.
pub(crate) fn rules_find_real_data(prometheus: &Prometheus) {
    let rules = rules();
    let mut recorded: Vec<(&String, String)> = Vec::new();
    for (file, rule) in &rules {
        let mut query = rule.expr.clone();
        for (name, expr) in recorded.iter().rev() {
            query = query.replace(name.as_str(), &format!("({expr})"));
        }
        let Some(name) = &rule.record else {
            prometheus.instant(&query);
            continue;
        };
        let what = format!("{file}: figures for {name}");
        wait_for(&what, 120, || (!prometheus.instant(&query).is_empty()).then_some(()));
        recorded.push((name, query));
    }
}

/// Draws each board, and finds lines in every panel that has some. A guest on a busy machine may
/// rest for longer than a rate looks back: then it is drawn again.
pub(crate) fn boards_are_drawn(prometheus: &Prometheus) {
    if on_path("python3").is_none() {
        return skip("python3 is not installed");
    }
    for (path, board) in boards() {
        wait_for(&format!("a picture of {}", path.display()), 120, || {
            let missing = missing_in(&draw(prometheus, &path), &board);
            println!("{}: {missing:?}", path.display());
            missing.is_empty().then_some(())
        });
    }
}

fn draw(prometheus: &Prometheus, board: &Path) -> String {
    let mut command = Command::new(root().join("scripts/board-picture"));
    command.args(["--prometheus", &prometheus.url, "--minutes", "1"]);
    command.args(["--set", &format!("guest={}", WORKING.1)]).arg(board);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", board.display());
    String::from_utf8(output.stdout).unwrap()
}

/// The panels of a board without their title, lines, figures or rows in an SVG.
fn missing_in(svg: &str, board: &Value) -> Vec<String> {
    let drawn = roxmltree::Document::parse(svg).unwrap();
    let groups: BTreeMap<&str, roxmltree::Node<'_, '_>> = drawn
        .descendants()
        .filter(|node| node.attribute("class") == Some("panel"))
        .map(|node| (node.attribute("data-id").unwrap(), node))
        .collect();
    assert_eq!(groups.len(), panels(board).len());
    let is_whole = |panel: &&&Value| {
        let title = text(panel, "title");
        let group = groups[panel["id"].to_string().as_str()];
        let lines = group.descendants().filter(|node| node.attribute("class") == Some("line"));
        let words: Vec<&str> = group.descendants().filter_map(|node| node.text()).collect();
        let targets = list(panel, "targets")
            .iter()
            .filter(|target| !may_be_empty(board, title, text(target, "refId")));
        let wanted = targets.count();
        let shown = match text(panel, "type") {
            "timeseries" => lines.count() >= wanted,
            _ => wanted == 0 || (words.len() > 1 && !words.contains(&"no data")),
        };
        // A long title is cut.
        words.first().is_some_and(|word| word.starts_with(&title[..title.len().min(8)])) && shown
    };
    let panels = panels(board);
    let missing = panels.iter().filter(|panel| !is_whole(panel));
    missing.map(|panel| text(panel, "title").to_owned()).collect()
}

/// The picture in the README is of the board as it is, and small enough to be looked at.
#[test]
fn the_readmes_picture_is_of_the_board() {
    let svg = std::fs::read_to_string(root().join("docs/images/guest.svg")).unwrap();
    assert!(svg.len() < 300_000, "{} bytes", svg.len());
    let (_, board) =
        boards().into_iter().find(|(_, board)| board["uid"] == "kanyun-guest").unwrap();
    let missing = missing_in(&svg, &board);
    assert!(missing.is_empty(), "scripts/board-picture draws it anew: it lacks {missing:?}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
