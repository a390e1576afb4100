//! What patterns mean; `tests/it/re2.rs` compares many more with Go itself.

use super::*;

fn check(pattern: &str, text: &str, expected: bool) {
    let compiled = compile(pattern).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(compiled.is_match(text), expected, "{pattern:?} on {text:?}");
}

fn check_invalid(pattern: &str, expected: &str) {
    let error = compile(pattern).unwrap_err();
    assert!(matches!(error, PatternError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn anchored_and_dot_matches_newline() {
    check("a|b", "a", true);
    check("a|b", "ab", false);
    check("up", "upper", false);
    check(".*", "a\nb", true);
    check(".+", "", false);
    check("", "", true);
    check("", "a", false);
    check("a$", "a\n", false);
    check("(?-s:.)", "\n", false);
    check("(?m)a$.^b", "a\nb", true);
}

/// Each differs from what the regex crate makes of the same text.
#[test]
fn what_go_means_by_it() {
    check(r"\d+", "٣", false);
    check(r"\w+", "é", false);
    check(r"\s", "\u{a0}", false);
    check(r"\s", "\u{b}", false);
    check(r"[\s]", "\u{b}", false);
    check(r"[[:space:]]", "\u{b}", true);
    check(r"é\bb", "éb", true);
    check(r"\Qa.b\E", "a.b", true);
    check(r"\Qa.b\E", "axb", false);
    check(r"\Qab\E*", "abbb", true);
    check("[a&&b]", "&", true);
    check("[a~~b]", "~", true);
    check("[[a]]", "a]", true);
    check("[[a]]", "a", false);
    check(r"\141", "a", true);
    check(r"\0", "\0", true);
    check(r"[\101-\103]", "B", true);
    for literal in ["a{,2}", "a{", "a{2", "a{02}", "a{2,x}"] {
        check(literal, literal, true);
    }
    check("a(?i)*b", "aaB", true);
    check("a+\\Q\\E?", "", true);
    check("(?)a", "a", true);
    check("(?ii)a", "A", true);
    check("(?i-i)a", "A", false);
    check("(?U)a+?", "aa", true);
    check("(?i)k", "\u{212a}", true);
    check(r"(?i)\w", "ſ", true);
    check(r"\p{Greek}\pL\PL\p{^L}", "αb1!", true);
    check(r"[\x{d800}-\x{e000}]", "\u{e000}", true);
    check("(?P<n>a)(?<m>b)(?P<n>c)", "abc", true);
    check("[]a]", "]", true);
    check("[^]a]", "b", true);
    check("[a-]", "-", true);
}

#[test]
fn what_go_refuses() {
    check_invalid("[a--b]", "reversed");
    check_invalid("a{1001}", "over 1000");
    check_invalid("a{3,2}", "reversed");
    check_invalid("(a{100}){11}", "more than 1000 in all");
    check_invalid("((a{10}|b){10}c){11}", "more than 1000 in all");
    check_invalid("x**", "repetition of a repetition");
    check_invalid("a{2}{3}", "repetition of a repetition");
    check_invalid("a+?+", "repetition of a repetition");
    check_invalid("(?x)a b", "(?x");
    check_invalid("(?u)a", "(?u");
    check_invalid("(?-)a", "(?)");
    check_invalid("(?=a)", "(?=");
    check_invalid(r"\u0041", r"\u");
    check_invalid(r"\1", r"\1");
    check_invalid(r"\8", r"\8");
    check_invalid(r"\E", r"\E");
    check_invalid(r"\Qa.b", r"not closed by \E");
    check_invalid(r"\C", r"\C");
    check_invalid(r"[\b]", r"\b");
    check_invalid(r"\p{Script=Greek}", "Script=Greek");
    check_invalid(r"\p{Alphabetic}", "Alphabetic");
    check_invalid(r"\p{isGreek}", "isGreek");
    check_invalid(r"\x{110000}", "110000");
    check_invalid(r"\x4", "two hexadecimal");
    check_invalid("[[:foo:]]", "[:foo:]");
    check_invalid("a\\", "at the end");
    check_invalid("*a", "repetition of nothing");
    check_invalid("a|*", "repetition of nothing");
    check_invalid("(+)", "repetition of nothing");
    check_invalid("[a", "[ is not closed");
    check_invalid("(a", "( is not closed");
    check_invalid("a)(b", ") without its (");
    check_invalid("(?P<a-b>c)", "name of a group");
}

#[test]
fn literals_are_known() {
    let literals = |pattern: &str| compile(pattern).unwrap().literals().map(<[String]>::to_vec);
    let texts = |all: &[&str]| Some(all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
    assert_eq!(literals("b|a|b"), texts(&["a", "b"]));
    assert_eq!(literals(""), texts(&[""]));
    assert_eq!(literals("a|"), texts(&["", "a"]));
    assert_eq!(
        literals(r"node-1\.example|node-2\.example"),
        texts(&["node-1.example", "node-2.example"])
    );
    assert_eq!(literals("(a|b)c"), texts(&["ac", "bc"]));
    assert_eq!(literals("vd[ab]"), texts(&["vda", "vdb"]));
    assert_eq!(literals("a.*"), None);
    assert_eq!(literals(r"a\b"), None);
    assert_eq!(literals("(?:^a)"), None);
    let many: Vec<_> = (0..20_000).map(|n| format!("instance-{n:05}")).collect();
    assert_eq!(literals(&many.join("|")).unwrap(), many);
}

#[test]
fn prefixes_are_known() {
    let prefixes = |pattern: &str| compile(pattern).unwrap().prefixes().to_vec();
    let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    assert_eq!(prefixes("libvirt_domain_.*"), texts(&["libvirt_domain_"]));
    assert_eq!(prefixes("node-1|node-2"), texts(&[]));
    assert_eq!(prefixes("(?:ac.+|ab.*|abc.*)"), texts(&["ab", "ac"]));
    assert_eq!(prefixes("[ab]x.*"), texts(&["ax", "bx"]));
    for unknown in [".*a", "", "a*", "(?:a.*)?", "a.*|.*", "|a.*"] {
        assert_eq!(prefixes(unknown), texts(&[]), "{unknown}");
    }
    // Either the texts in every case, or nothing.
    assert!(prefixes("(?i)up.*").iter().all(|text| text.eq_ignore_ascii_case("up")));
    // Their first bytes are the same.
    assert!(prefixes("(?:aé|aè).*").iter().all(|text| text.starts_with('a')));
}

#[test]
fn bombs_are_refused() {
    let deep = format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000));
    let large = [r"((\pL{10}){10}){10}".to_owned(), r"\pL".repeat(501), "a?".repeat(70_000), deep];
    for pattern in large {
        let error = compile(&pattern).unwrap_err();
        assert!(matches!(error, PatternError::TooLarge { .. }), "{error}");
        assert!(error.to_string().len() < 400, "{error}");
    }
    let chain = format!("a{}", r"*\Q\E".repeat(1_000));
    assert!(compile(&chain).is_err());
}
