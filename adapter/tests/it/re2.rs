//! Label patterns against Go's own regexp: the committed verdicts always, and many random patterns
//! where `go` is installed. `UPDATE_EXPECT=1` draws and judges the committed cases anew.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use adapter::model::re2;
use serde_json::{Value, json};

/// One pattern on one text.
type Case = (String, String);

const PIECES: &[&str] = &[
    "a",
    "b",
    "B",
    "k",
    "é",
    "α",
    "1",
    "_",
    " ",
    "&",
    "-",
    "~",
    "#",
    "{",
    "}",
    "]",
    ":",
    "\n",
    ".",
    ".",
    "a*",
    "b+",
    ".*",
    ".+",
    "a?",
    "a{2}",
    "a{,2}",
    "b{1,3}",
    "a{0}",
    "b{2,}",
    "*",
    "+",
    "?",
    "{2}",
    "{02}",
    "|",
    "|",
    "|",
    "(",
    "(",
    "(?:",
    "(?i:",
    "(?-s:",
    "(?P<n>",
    "(?<m>",
    "(?i)",
    "(?s-i)",
    "(?U)",
    "(?m)",
    "(?x)",
    "(?)",
    "(?-i)",
    ")",
    ")",
    ")",
    ")",
    "^",
    "$",
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\b",
    r"\B",
    r"\A",
    r"\z",
    r"\n",
    r"\t",
    r"\v",
    r"\.",
    r"\-",
    r"\_",
    r"\é",
    r"\141",
    r"\7",
    r"\08",
    r"\x61",
    r"\x{3b1}",
    r"\x{d800}",
    r"\u0061",
    r"\Q",
    r"\Qa.b\E",
    r"\Q*\E",
    r"\E",
    r"\pL",
    r"\PL",
    r"\pN",
    r"\p{Greek}",
    r"\p{^Greek}",
    r"\p{Lu}",
    r"\P{Lu}",
    r"\p{Foo}",
    "[a]",
    "[^a]",
    "[ab-]",
    "[]a]",
    "[^]b]",
    "[a-c]",
    "[a-z&&b]",
    "[a--b]",
    "[[a]]",
    "[[:alpha:]]",
    "[[:^alpha:]b]",
    "[[:foo:]]",
    "[[:a]",
    r"[\d_]",
    r"[^\w]",
    r"[\W1]",
    r"[\s\S]",
    r"[\pL-]",
    r"[a\-c]",
    r"[\x{d7ff}-\x{e000}]",
    r"[\x{d800}]",
    r"[a-\d]",
    r"[^\x00-\x{10FFFF}]",
    "[",
    "[^\n]",
    "[a~~b]",
    "[#-&]",
];

const LETTERS: &[&str] = &[
    "a", "a", "b", "b", "A", "B", "k", "K", "\u{212a}", "ſ", "s", "é", "α", "Α", "1", "٣", "_",
    " ", "\n", "\u{b}", "\u{a0}", ".", "&", "-", "~", "#", "{", "}", "2", ",", "]", "[", ":", "*",
];

/// A xorshift generator: the same cases in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn draw(&mut self, from: &[&str], length_max: usize) -> String {
        let length = self.roll(length_max + 1);
        (0..length).map(|_| from[self.roll(from.len())]).collect()
    }

    /// Random patterns, each with a few texts, among them its own.
    fn cases(&mut self, patterns: usize) -> Vec<Case> {
        let mut cases = Vec::new();
        for _ in 0..patterns {
            let mut pattern = self.draw(PIECES, 7);
            // Else nearly every pattern with a group would be an error.
            let open = pattern.matches('(').count().saturating_sub(pattern.matches(')').count());
            if self.roll(4) != 0 {
                pattern.push_str(&")".repeat(open));
            }
            cases.push((pattern.clone(), pattern.clone()));
            for _ in 0..4 {
                cases.push((pattern.clone(), self.draw(LETTERS, 4)));
            }
        }
        cases
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/re2")
}

fn verdict(pattern: &str, text: &str) -> &'static str {
    match re2::compile(pattern) {
        Ok(pattern) if pattern.is_match(text) => "match",
        Ok(_) => "other",
        Err(_) => "error",
    }
}

/// Compares our verdicts with Go's lines of JSON; gives how many of each verdict there were.
fn check(judged: &str) -> [usize; 3] {
    let mut seen = [0; 3];
    let mut wrong = Vec::new();
    for line in judged.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let [pattern, text, go] =
            ["pattern", "text", "verdict"].map(|key| case[key].as_str().unwrap());
        let ours = verdict(pattern, text);
        if ours != go {
            wrong.push(format!("{pattern:?} on {text:?}: Go says {go}, we {ours}"));
        }
        let place = ["match", "other", "error"].iter().position(|known| *known == go).unwrap();
        seen[place] += 1;
    }
    wrong.truncate(30);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    seen
}

/// Asks Go; `None` where it is not installed.
fn judge(cases: &[Case]) -> Option<String> {
    let mut go = Command::new("go")
        .args(["run", "main.go"])
        .current_dir(folder())
        .env("GOWORK", "off")
        .env("GOFLAGS", "-buildvcs=false")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut lines = String::new();
    for (pattern, text) in cases {
        lines.push_str(&json!({ "pattern": pattern, "text": text }).to_string());
        lines.push('\n');
    }
    let mut stdin = go.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = go.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "go run main.go failed: {}", output.status);
    let judged = String::from_utf8(output.stdout).unwrap();
    assert_eq!(judged.lines().count(), cases.len());
    Some(judged)
}

#[test]
fn committed_verdicts() {
    let path = folder().join("verdicts.jsonl");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let judged = judge(&Dice(0x9e37_79b9_7f4a_7c15).cases(250)).expect("go is needed");
        std::fs::write(&path, judged).unwrap();
    }
    let seen = check(&std::fs::read_to_string(&path).unwrap());
    assert!(seen.iter().all(|count| *count > 50), "the cases are one-sided: {seen:?}");
}

#[test]
fn random_patterns_mean_what_they_mean_in_go() {
    let Some(judged) = judge(&Dice(0x2545_f491_4f6c_dd1d).cases(8_000)) else {
        assert!(std::env::var_os("KANYUN_REQUIRE_ALL").is_none(), "go is not installed");
        println!("skipped: go is not installed");
        return;
    };
    let seen = check(&judged);
    assert!(seen.iter().all(|count| *count > 2_000), "the cases are one-sided: {seen:?}");
}
