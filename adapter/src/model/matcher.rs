//! Label matchers with Prometheus' meaning.
//! Knows nothing of indexes; a store may narrow what is asked, this decides.

use super::labels::Labels;
use super::re2::{Pattern, PatternError, compile};

/// How a matcher compares (remote.proto, `LabelMatcher.Type`).
#[derive(Clone, Debug)]
pub enum Comparison {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, anchored at both ends, in RE2's syntax.
    Matches(Pattern),
    /// `!~`
    MatchesNot(Pattern),
}

/// One condition on one label. A missing label has the empty value, so `a=""` holds for a series
/// without `a`, and so does `a!="x"`.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label's name; `__name__` is a label like any other.
    pub name: String,
    /// What its value must be.
    pub comparison: Comparison,
}

impl Matcher {
    /// `name="value"`
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Matcher {
        Matcher { name: name.into(), comparison: Comparison::Equal(value.into()) }
    }

    /// `name!="value"`
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Matcher {
        Matcher { name: name.into(), comparison: Comparison::NotEqual(value.into()) }
    }

    /// `name=~"pattern"`; an error where Go's RE2 would not take the pattern.
    pub fn matching(name: impl Into<String>, pattern: &str) -> Result<Matcher, PatternError> {
        Ok(Matcher { name: name.into(), comparison: Comparison::Matches(compile(pattern)?) })
    }

    /// `name!~"pattern"`; an error where Go's RE2 would not take the pattern.
    pub fn not_matching(name: impl Into<String>, pattern: &str) -> Result<Matcher, PatternError> {
        Ok(Matcher { name: name.into(), comparison: Comparison::MatchesNot(compile(pattern)?) })
    }

    /// Whether a value of this label satisfies it.
    pub fn accepts(&self, value: &str) -> bool {
        match &self.comparison {
            Comparison::Equal(wanted) => value == wanted,
            Comparison::NotEqual(unwanted) => value != unwanted,
            Comparison::Matches(pattern) => pattern.is_match(value),
            Comparison::MatchesNot(pattern) => !pattern.is_match(value),
        }
    }

    /// The only values that satisfy it, where they can be listed and none is the empty value: what
    /// an index can look up. `None` where there are more than `values_max`.
    pub fn values(&self, values_max: usize) -> Option<Vec<&str>> {
        let values: Vec<&str> = match &self.comparison {
            Comparison::Equal(value) => vec![value],
            Comparison::Matches(pattern) => {
                pattern.literals()?.iter().map(String::as_str).collect()
            }
            Comparison::NotEqual(_) | Comparison::MatchesNot(_) => return None,
        };
        let all_present = values.iter().all(|value| !value.is_empty());
        (all_present && values.len() <= values_max).then_some(values)
    }

    /// What every value that satisfies it begins with, where that is known and not nothing: any of
    /// these, sorted, none of which begins with another. Not the empty value satisfies it then.
    /// `None` where there are more than `prefixes_max`.
    pub fn prefixes(&self, prefixes_max: usize) -> Option<&[String]> {
        let Comparison::Matches(pattern) = &self.comparison else { return None };
        let prefixes = pattern.prefixes();
        (!prefixes.is_empty() && prefixes.len() <= prefixes_max).then_some(prefixes)
    }
}

/// Whether a series with these pairs, sorted by name, satisfies all matchers.
pub fn all_accept_pairs(matchers: &[Matcher], pairs: &[(&str, &str)]) -> bool {
    matchers.iter().all(|matcher| {
        let found = pairs.binary_search_by(|(name, _)| (*name).cmp(&matcher.name));
        matcher.accepts(found.ok().and_then(|at| pairs.get(at)).map_or("", |(_, value)| value))
    })
}

/// Whether a series satisfies all matchers.
pub fn all_accept(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.accepts(labels.get(&matcher.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(matcher: &Matcher, present: Option<&str>, wanted: bool) {
        let labels = Labels::new(present.map(|value| ("a", value)));
        let pairs: Vec<(&str, &str)> = labels.iter().collect();
        assert_eq!(all_accept_pairs(std::slice::from_ref(matcher), &pairs), wanted, "{matcher:?}");
        assert_eq!(
            all_accept(std::slice::from_ref(matcher), &labels),
            wanted,
            "{matcher:?} {present:?}"
        );
    }

    #[test]
    fn a_missing_label_is_empty() {
        check(&Matcher::equal("a", ""), None, true);
        check(&Matcher::equal("a", ""), Some("x"), false);
        check(&Matcher::not_equal("a", ""), None, false);
        check(&Matcher::not_equal("a", "x"), None, true);
        check(&Matcher::matching("a", ".*").unwrap(), None, true);
        check(&Matcher::matching("a", ".+").unwrap(), None, false);
        check(&Matcher::matching("a", "x|").unwrap(), None, true);
        check(&Matcher::not_matching("a", "x").unwrap(), None, true);
        check(&Matcher::not_matching("a", "x").unwrap(), Some("x"), false);
    }

    #[test]
    fn what_can_be_looked_up() {
        assert_eq!(Matcher::equal("a", "x").values(9), Some(vec!["x"]));
        assert_eq!(Matcher::matching("a", "x|y").unwrap().values(9), Some(vec!["x", "y"]));
        assert_eq!(Matcher::matching("a", "x|y").unwrap().values(1), None);
        for pattern in ["x|", "x.*", ".+", ""] {
            assert_eq!(Matcher::matching("a", pattern).unwrap().values(9), None, "{pattern}");
        }
        assert_eq!(Matcher::equal("a", "").values(9), None);
        assert_eq!(Matcher::not_equal("a", "x").values(9), None);
    }

    #[test]
    fn what_a_value_must_begin_with() {
        let prefixes = |pattern: &str, max| {
            Matcher::matching("a", pattern).unwrap().prefixes(max).map(<[String]>::to_vec)
        };
        assert_eq!(prefixes("ab.*", 9), Some(vec!["ab".to_owned()]));
        assert_eq!(prefixes("b.*|a.+|ab.*", 9), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(prefixes("a.*|b.*", 1), None);
        for pattern in ["", ".*", ".+", "a.*|.*b", "(?:a.*)?", "|a.*", "a*"] {
            assert_eq!(prefixes(pattern, 9), None, "{pattern}");
        }
        assert_eq!(Matcher::not_matching("a", "b.*").unwrap().prefixes(9), None);
    }

    #[test]
    fn expressions_are_anchored_and_a_dot_takes_a_newline() {
        check(&Matcher::matching("a", "b|c").unwrap(), Some("bc"), false);
        check(&Matcher::matching("a", "b|c").unwrap(), Some("c"), true);
        check(&Matcher::matching("a", "b.c").unwrap(), Some("b\nc"), true);
    }
}
