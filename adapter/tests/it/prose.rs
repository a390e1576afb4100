//! What the repository's pages point at is there: the targets of their links, and the files and
//! commands that they name.

use std::path::Path;

use crate::tidy::{files, root};

/// Folders whose every path in a page is a file or folder of the repository.
const FOLDERS: [&str; 6] = ["docs/", "scripts/", "rules/", "dashboards/", "examples/", ".ci/"];
/// Of the crates' folders, only what is written as one whole file: pages shorten the rest.
const CRATES: [&str; 4] = ["adapter/", "exporter/", "serve/", "fuzz/"];

/// A page's prose, and the words of its code: spans between backticks, and fenced blocks.
fn parts(page: &str) -> (String, Vec<&str>) {
    let (mut prose, mut words) = (String::new(), Vec::new());
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            words.extend(line.split_whitespace());
        } else {
            for (number, span) in line.split('`').enumerate() {
                if number % 2 == 0 {
                    prose.push_str(span);
                } else {
                    words.extend(span.split_whitespace());
                }
            }
            prose.push('\n');
        }
    }
    assert!(!fenced, "a fence is not closed: {page}");
    (prose, words)
}

/// The targets of `[text](target)`.
fn targets(prose: &str) -> Vec<&str> {
    let ends = prose.split("](").skip(1);
    ends.map(|rest| rest.split([')', ' ']).next().unwrap()).collect()
}

/// The path that a word names, if it is one that must exist.
fn path(word: &str) -> Option<&str> {
    let word = word.trim_matches(['"', '\'', ',', ';', ':', '(', ')']).trim_end_matches('.');
    if word.contains(['*', '{', '$', '<', '…']) {
        return None;
    }
    let whole = || Path::new(word).extension().is_some();
    let named = FOLDERS.iter().any(|folder| word.starts_with(folder))
        || CRATES.iter().any(|folder| word.starts_with(folder)) && whole();
    named.then_some(word)
}

#[test]
fn links_reach_a_file() {
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for (name, page) in files("*.md") {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for target in targets(&parts(&page).0) {
            let file = target.split('#').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") || file.is_empty() {
                continue;
            }
            followed += 1;
            if !folder.join(file).exists() {
                wrong.push(format!("{name} links to {target}, which is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(followed > 20, "only {followed} links were found");
}

#[test]
fn paths_that_pages_name_are_there() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (name, page) in files("*.md") {
        for path in parts(&page).1.into_iter().filter_map(path) {
            found += 1;
            if !root().join(path).exists() {
                wrong.push(format!("{name} names {path}, which is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 30, "only {found} paths were found");
}

#[test]
fn a_page_is_taken_apart() {
    let page = "See [it](docs/a.md#part), `scripts/run --once` and `rules/*.yml`.\n\
                ```\nscripts/tools env; adapter/src/main.rs adapter/src\n```\n\
                ![picture](b.svg \"c\") `x](y)`";
    let (prose, words) = parts(page);
    assert_eq!(targets(&prose), ["docs/a.md#part", "b.svg"]);
    let paths: Vec<_> = words.into_iter().filter_map(path).collect();
    assert_eq!(paths, ["scripts/run", "scripts/tools", "adapter/src/main.rs"]);
}
