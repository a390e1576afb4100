//! Escapes of Go's syntax: single characters, and classes that are written with a backslash.
//!
//! Each function reads from the front of a text whose backslash is already taken.

use super::translate::{Step, syntax};

/// A class that matches nothing.
pub(super) const NOTHING: &str = r"[^\x00-\x{10FFFF}]";

/// A class in the syntax of the regex crate; valid within brackets, too.
pub(super) enum Class {
    Perl(&'static str),
    Unicode(String),
}

/// Go's Perl classes know ASCII only, and its `\s` no vertical tab.
const PERL_CLASSES: [(char, &str); 6] = [
    ('d', "[0-9]"),
    ('D', "[^0-9]"),
    ('s', r"[\t\n\x0C\r\x20]"),
    ('S', r"[^\t\n\x0C\r\x20]"),
    ('w', "[0-9A-Za-z_]"),
    ('W', "[^0-9A-Za-z_]"),
];

/// Takes the first character off a text.
fn take(text: &mut &str) -> Option<char> {
    let mut characters = text.chars();
    let first = characters.next();
    *text = characters.as_str();
    first
}

/// Reads a class, if there is one.
pub(super) fn class(text: &mut &str) -> Step<Option<Class>> {
    let mut rest = *text;
    let Some(letter) = take(&mut rest) else { return Ok(None) };
    if let Some((_, class)) = PERL_CLASSES.iter().find(|(name, _)| *name == letter) {
        *text = rest;
        return Ok(Some(Class::Perl(class)));
    }
    if letter != 'p' && letter != 'P' {
        return Ok(None);
    }
    let name = if let Some(braced) = rest.strip_prefix('{') {
        let Some((name, tail)) = braced.split_once('}') else {
            return syntax("a Unicode class is not closed by }");
        };
        rest = tail;
        name
    } else {
        let single = rest;
        take(&mut rest);
        single.strip_suffix(rest).unwrap_or_default()
    };
    *text = rest;
    unicode_class(name, letter == 'P').map(|class| Some(Class::Unicode(class)))
}

/// Go knows general categories and scripts, and nothing else, without `name=`.
fn unicode_class(name: &str, negated: bool) -> Step<String> {
    let unknown = || syntax(format!("there is no Unicode class {name:?}"));
    let (bare, negated) = match name.strip_prefix('^') {
        Some(bare) => (bare, !negated),
        None => (name, negated),
    };
    let letters = bare.replace(['_', '-', ' '], "").to_ascii_lowercase();
    // The regex crate would take these letters for a prefix.
    if !letters.bytes().all(|b| b.is_ascii_alphanumeric()) || letters.starts_with("is") {
        return unknown();
    }
    if letters == "cs" || letters == "surrogate" {
        return Ok(if negated { format!("[^{NOTHING}]") } else { NOTHING.to_owned() });
    }
    let letter = if negated { 'P' } else { 'p' };
    for kind in ["gc", "sc"] {
        let class = format!(r"\{letter}{{{kind}={letters}}}");
        if regex_syntax::parse(&class).is_ok() {
            return Ok(class);
        }
    }
    unknown()
}

/// Reads the escape of one character: its code point, which may be half of a surrogate pair.
pub(super) fn character(text: &mut &str) -> Step<u32> {
    let Some(first) = take(text) else { return syntax(r"a \ at the end") };
    let fixed = match first {
        'a' => 0x07,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        'x' => return hexadecimal(text),
        '0' => return Ok(octal(0, text)),
        // One digit alone would be a reference to a group, which RE2 does not have.
        '1'..='7' if text.starts_with(|next: char| next.is_digit(8)) => {
            return Ok(octal(u32::from(first) - u32::from('0'), text));
        }
        mark if mark.is_ascii() && !mark.is_ascii_alphanumeric() => u32::from(mark),
        _ => return syntax(format!(r"there is no escape \{first}")),
    };
    Ok(fixed)
}

/// Reads up to two more octal digits.
fn octal(first: u32, text: &mut &str) -> u32 {
    let mut number = first;
    for _ in 0..2 {
        let Some(digit) = text.chars().next().and_then(|next| next.to_digit(8)) else { break };
        take(text);
        number = number * 8 + digit;
    }
    number
}

/// Reads two hexadecimal digits, or any number of them in braces.
fn hexadecimal(text: &mut &str) -> Step<u32> {
    let digits = if let Some(braced) = text.strip_prefix('{') {
        let Some((digits, rest)) = braced.split_once('}') else {
            return syntax(r"\x{ is not closed by }");
        };
        *text = rest;
        digits
    } else {
        let start = *text;
        take(text);
        take(text);
        let digits = start.strip_suffix(*text).unwrap_or_default();
        if digits.len() != 2 {
            return syntax(r"\x needs two hexadecimal digits");
        }
        digits
    };
    let number = digits.chars().try_fold(0_u32, |number, digit| {
        let next = number * 16 + digit.to_digit(16)?;
        (next <= u32::from(char::MAX)).then_some(next)
    });
    match number {
        Some(number) if !digits.is_empty() => Ok(number),
        _ => syntax(format!(r"\x{{{digits}}} is not the number of a character")),
    }
}

/// A range of code points within a class. Halves of surrogate pairs, which no text contains, are
/// left out.
pub(super) fn range(low: u32, high: u32) -> String {
    let low = if char::from_u32(low).is_some() { low } else { 0xe000 };
    let high = if char::from_u32(high).is_some() { high } else { 0xd7ff };
    if low > high { NOTHING.to_owned() } else { format!(r"\x{{{low:X}}}-\x{{{high:X}}}") }
}
