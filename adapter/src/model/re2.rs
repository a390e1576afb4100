//! Label patterns with the meaning that they have in Prometheus: Go's RE2, on Rust's regex crate.
//!
//! Clients of remote_read do not judge series again, so a pattern must match here exactly what it
//! matches there. `translate` rewrites the syntax; this file compiles and matches. The Unicode
//! tables of the two may differ by a version.

use regex::RegexBuilder;
use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};
use thiserror::Error;

mod escape;
mod translate;

/// Memory that one compiled pattern may take, in bytes.
const COMPILED_BYTES_MAX: usize = 16 << 20;

/// Length of a pattern in bytes, unless it is a plain alternation of literals. Its parsed form
/// takes about a hundred times as much.
const PATTERN_BYTES_MAX: usize = 128 << 10;

/// Nesting that the regex crate may see; more than [`translate::GROUPS_DEEP_MAX`] groups make.
const NESTING_MAX: u32 = 500;

/// Texts of which we keep the whole list in place of a regex.
const LITERALS_MAX: usize = 1000;

/// A compiled pattern, anchored at both ends: `^(?s:…)$`.
#[derive(Clone, Debug)]
pub struct Pattern {
    matcher: Matcher,
    prefixes: Vec<String>,
}

#[derive(Clone, Debug)]
enum Matcher {
    /// Sorted, each once.
    Literals(Vec<String>),
    Regex(regex::Regex),
}

/// A pattern that cannot be used: a fault of the client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Go would refuse it, too.
    #[error("invalid pattern {pattern:?}: {reason}")]
    Invalid {
        /// The pattern, cut to a length for a log line.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// It is valid but would take too much memory.
    #[error("pattern {pattern:?} is too large: {reason}")]
    TooLarge {
        /// The pattern, cut to a length for a log line.
        pattern: String,
        /// Which bound it exceeds.
        reason: String,
    },
}

/// Compiles a pattern in Go's RE2 syntax.
pub fn compile(pattern: &str) -> Result<Pattern, PatternError> {
    let excerpt = || pattern.chars().take(100).collect::<String>();
    let invalid = |reason| PatternError::Invalid { pattern: excerpt(), reason };
    let too_large = |reason| PatternError::TooLarge { pattern: excerpt(), reason };

    let translated = translate::translate(pattern).map_err(|e| match e {
        translate::Refusal::Syntax(reason) => invalid(reason),
        translate::Refusal::Bound(reason) => too_large(reason),
    })?;
    if let Some(alternatives) = translated.alternatives {
        return Ok(Pattern::of_literals(alternatives));
    }
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(too_large(format!("it is longer than {PATTERN_BYTES_MAX} bytes")));
    }
    let inner = format!("(?s:{})", translated.text);
    let parsed = regex_syntax::ParserBuilder::new()
        .nest_limit(NESTING_MAX)
        .build()
        .parse(&inner)
        .map_err(|error| invalid(reason_of(&error)))?;
    let literals = literals_of(&parsed);
    if let Some(texts) = exact_texts(&parsed, &literals) {
        return Ok(Pattern::of_literals(texts));
    }
    let regex = RegexBuilder::new(&format!("^{inner}$"))
        .size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(bytes) => {
                too_large(format!("it compiles to more than {bytes} bytes"))
            }
            other => invalid(other.to_string()),
        })?;
    Ok(Pattern { matcher: Matcher::Regex(regex), prefixes: prefixes_of(&literals) })
}

impl Pattern {
    /// Whether the pattern matches the whole text. A missing label has the text "".
    pub fn is_match(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Literals(texts) => {
                texts.binary_search_by(|literal| literal.as_str().cmp(text)).is_ok()
            }
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }

    /// All texts that match, sorted, where the pattern is no more than a list of them; may be none.
    pub fn literals(&self) -> Option<&[String]> {
        match &self.matcher {
            Matcher::Literals(texts) => Some(texts),
            Matcher::Regex(_) => None,
        }
    }

    /// What every text that matches begins with, one of these: sorted, none begins with another,
    /// and none is empty. None at all where nothing is known, or all texts are listed.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    fn of_literals(mut texts: Vec<String>) -> Self {
        texts.sort_unstable();
        texts.dedup();
        Self { matcher: Matcher::Literals(texts), prefixes: Vec::new() }
    }
}

/// The crate's message in one line, without its drawing of the translated pattern.
fn reason_of(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        other => other.to_string(),
    }
}

/// What a matching text begins with, or is if the entry is exact. Assertions are not looked at.
fn literals_of(parsed: &regex_syntax::hir::Hir) -> Seq {
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix).limit_total(LITERALS_MAX).limit_literal_len(1 << 10);
    extractor.extract(parsed)
}

fn exact_texts(parsed: &regex_syntax::hir::Hir, literals: &Seq) -> Option<Vec<String>> {
    if !literals.is_exact() || !parsed.properties().look_set().is_empty() {
        return None;
    }
    let texts = literals.literals()?.iter();
    texts.map(|literal| String::from_utf8(literal.as_bytes().to_vec()).ok()).collect()
}

fn prefixes_of(literals: &Seq) -> Vec<String> {
    let Some(literals) = literals.literals() else { return Vec::new() };
    let texts = literals.iter().map(|literal| {
        // It may end within a character.
        let text = literal.as_bytes().utf8_chunks().next().map_or("", |chunk| chunk.valid());
        text.to_owned()
    });
    let mut texts: Vec<String> = texts.collect();
    texts.sort_unstable();
    shortest(texts)
}

/// Those of sorted texts that do not begin with another of them; none where one is empty.
fn shortest(mut texts: Vec<String>) -> Vec<String> {
    if texts.first().is_some_and(String::is_empty) {
        return Vec::new();
    }
    texts.dedup_by(|next, kept| next.starts_with(kept.as_str()));
    texts
}

#[cfg(test)]
mod tests;
