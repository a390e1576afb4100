//! The rules in rules/: promtool reads them and runs their tests, and every alert has a severity,
//! texts, a runbook, a case in which it fires and one in which it is silent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::libvirtd::skip;
use crate::metrics_reference::Reference;
use crate::promql::{self, Recorded};

/// One file a subject; rules/tests/ has one for each.
const SUBJECTS: [&str; 4] = ["adapter", "exporter", "guests", "hosts"];
/// Other exporters whose names rules make of ours, in rules/compatible/; and Tinkoff's, of which they make ours.
const COMPATIBLE: [&str; 3] = ["kumina", "tinkoff", "zhangjianweibj"];
const SEVERITIES: [&str; 2] = ["critical", "warning"];
/// The sections of a runbook, in this order.
const SECTIONS: [&str; 3] = ["## What it means", "## What to look at", "## What to do"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
pub(crate) struct Rule {
    pub(crate) record: Option<String>,
    pub(crate) alert: Option<String>,
    pub(crate) expr: String,
    #[serde(default, rename = "for")]
    duration: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Tests {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct ExprTest {
    expr: String,
    #[serde(default)]
    exp_samples: Vec<serde_json::Value>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every rule, with the file that it is in.
pub(crate) fn rules() -> Vec<(String, Rule)> {
    SUBJECTS.iter().flat_map(|subject| rules_of(&format!("rules/{subject}.yml"))).collect()
}

fn rules_of(file: &str) -> Vec<(String, Rule)> {
    let groups = read::<Rules>(file).groups;
    groups.into_iter().flat_map(|one| one.rules).map(|rule| (file.to_owned(), rule)).collect()
}

#[test]
fn every_file_is_read() {
    let names = |folder: &str, suffix: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned())).collect()
    };
    let subjects: BTreeSet<String> = SUBJECTS.map(str::to_owned).into();
    assert_eq!(names("rules", ".yml"), subjects);
    assert_eq!(names("rules/tests", "_test.yml"), subjects);
    let compatible: BTreeSet<String> = COMPATIBLE.map(str::to_owned).into();
    assert_eq!(names("rules/compatible", ".yml"), compatible);
    assert_eq!(names("rules/compatible/tests", "_test.yml"), compatible);
}

#[test]
fn every_rule_asks_for_what_the_binaries_have() {
    let reference = Reference::load();
    let mut recorded = Recorded::new();
    for (_, rule) in &rules() {
        let name = rule.record.as_ref().or(rule.alert.as_ref()).unwrap();
        let labels = promql::check(&reference, &recorded, &rule.expr, name);
        if rule.record.is_some() {
            assert!(recorded.insert(name.clone(), labels).is_none(), "{name} is recorded twice");
            continue;
        }
        // What the texts name must be on the alert.
        for text in rule.annotations.values() {
            for used in text.split("$labels.").skip(1) {
                let end = used.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap();
                assert!(labels.contains(&used[..end]), "{name} has no label {}", &used[..end]);
            }
        }
    }
}

/// What rules and boards ask for is there in either profile.
#[test]
fn tinkoffs_names_become_all_that_inovex_has() {
    let rules = rules_of("rules/compatible/tinkoff.yml");
    let recorded: BTreeSet<String> =
        rules.into_iter().filter_map(|(_, rule)| rule.record).collect();
    assert_eq!(recorded, Reference::load().only_inovex());
}

/// Each file by itself, as only one of them is used.
#[test]
fn other_exporters_names_are_made_of_what_the_exporter_has() {
    let reference = Reference::load();
    for name in COMPATIBLE {
        let mut recorded = Recorded::new();
        let tests = read::<Tests>(&format!("rules/compatible/tests/{name}_test.yml")).tests;
        let exprs: Vec<&ExprTest> = tests.iter().flat_map(|case| &case.promql_expr_test).collect();
        for (file, rule) in rules_of(&format!("rules/compatible/{name}.yml")) {
            let record = rule.record.unwrap_or_else(|| panic!("{file} has an alert"));
            let own = reference.exporter.contains_key(&record);
            assert_eq!(own, name == "tinkoff", "whether {record} is the exporter's own name");
            let labels = promql::check(&reference, &recorded, &rule.expr, &record);
            assert!(
                recorded.insert(record.clone(), labels).is_none(),
                "{record} is recorded twice"
            );
            let tried =
                exprs.iter().any(|test| test.expr == record && !test.exp_samples.is_empty());
            assert!(tried, "{record} is never computed in a test");
        }
    }
}

#[test]
fn every_alert_has_a_severity_texts_and_a_runbook() {
    let mut pages = BTreeSet::new();
    for (_, rule) in rules() {
        let Some(alert) = rule.alert else { continue };
        assert!(!rule.duration.is_empty(), "{alert} fires at once: it has no 'for'");
        let severity = rule.labels.get("severity").map(String::as_str).unwrap_or_default();
        assert!(SEVERITIES.contains(&severity), "{alert} has the severity '{severity}'");
        for text in ["summary", "description"] {
            assert!(rule.annotations.get(text).is_some_and(|text| !text.is_empty()), "{alert}");
        }
        let page = format!("docs/runbooks/{alert}.md");
        assert_eq!(rule.annotations.get("runbook_url"), Some(&page), "{alert}");
        let text = std::fs::read_to_string(root().join(&page))
            .unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.starts_with(&format!("# {alert}\n")), "{page} has another title");
        let places: Vec<_> = SECTIONS.iter().map(|section| text.find(section)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{page}: {places:?}");
        pages.insert(format!("{alert}.md"));
    }
    let there: BTreeSet<String> = std::fs::read_dir(root().join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, pages, "a runbook without an alert");
}

#[test]
fn every_rule_is_tried() {
    for subject in SUBJECTS {
        let tests = read::<Tests>(&format!("rules/tests/{subject}_test.yml")).tests;
        let alerts: Vec<&AlertTest> = tests.iter().flat_map(|case| &case.alert_rule_test).collect();
        let exprs: Vec<&ExprTest> = tests.iter().flat_map(|case| &case.promql_expr_test).collect();
        let file = format!("rules/{subject}.yml");
        for (_, rule) in rules().into_iter().filter(|(of, _)| *of == file) {
            if let Some(alert) = rule.alert {
                let of_it = || alerts.iter().filter(|test| test.alertname == alert);
                assert!(of_it().any(|t| !t.exp_alerts.is_empty()), "{alert} never fires");
                assert!(of_it().any(|t| t.exp_alerts.is_empty()), "{alert} is never silent");
            }
            if let Some(record) = rule.record {
                let tried = exprs.iter().any(|test| {
                    let name = test.expr.split('{').next().unwrap();
                    name == record && !test.exp_samples.is_empty()
                });
                assert!(tried, "{record} is never computed in a test");
            }
        }
    }
}

#[test]
fn both_generations_of_promtool_pass_them() {
    for variable in ["KANYUN_PROMTOOL_2", "KANYUN_PROMTOOL_3"] {
        let Some(promtool) = std::env::var_os(variable).filter(|path| Path::new(path).is_file())
        else {
            skip(&format!("{variable} names no binary (scripts/tools install makes it)"));
            continue;
        };
        let files = |folder: &str, end: &str| -> Vec<String> {
            let ours = SUBJECTS.iter().map(|subject| format!("rules/{folder}{subject}{end}"));
            let others =
                COMPATIBLE.iter().map(|name| format!("rules/compatible/{folder}{name}{end}"));
            ours.chain(others).collect()
        };
        let (rules, tests) = (files("", ".yml"), files("tests/", "_test.yml"));
        for (verb, files) in [("check", rules), ("test", tests)] {
            let mut command = Command::new(&promtool);
            let output =
                command.args([verb, "rules"]).args(files).current_dir(root()).output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "{variable}: {verb}:\n{said}");
        }
    }
}
