//! Rewrites a pattern from Go's syntax (`regexp/syntax` with Perl flags) into that of the regex
//! crate, such that both accept the same whole texts.
//!
//! Groups lose their numbers and names, and repetitions their greed: neither changes which whole
//! texts match. What Go refuses is refused here. Knows nothing of compiling.

use super::escape::{self, Class};

/// Groups within each other. Go allows 1000, which would not be safe on a small stack.
pub(super) const GROUPS_DEEP_MAX: usize = 100;

/// Go's bound for a repetition, and for the product of those within each other.
const REPEAT_MAX: u32 = 1000;

/// Unicode classes in one pattern; each is kilobytes of tables when parsed.
const UNICODE_CLASSES_MAX: usize = 500;

/// The names of POSIX classes, the same set and meaning in both syntaxes.
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// A rewritten pattern.
pub(super) struct Translated {
    /// In the syntax of the regex crate, not anchored.
    pub(super) text: String,
    /// The alternatives, if the pattern is nothing but literals between bars.
    pub(super) alternatives: Option<Vec<String>>,
}

/// Why a pattern is not translated.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Go refuses it as well.
    Syntax(String),
    /// A bound of ours.
    Bound(String),
}

pub(super) type Step<T = ()> = Result<T, Refusal>;

pub(super) fn syntax<T>(reason: impl Into<String>) -> Step<T> {
    Err(Refusal::Syntax(reason.into()))
}

/// Rewrites one pattern.
pub(super) fn translate(pattern: &str) -> Step<Translated> {
    let mut translator = Translator {
        rest: pattern,
        text: String::with_capacity(pattern.len()),
        frame: Frame::default(),
        outer: Vec::new(),
        alternatives: Some(vec![String::new()]),
        after_repeat: false,
        unicode_classes: 0,
    };
    while let Some(character) = translator.next() {
        translator.step(character)?;
    }
    if !translator.outer.is_empty() {
        return syntax("a ( is not closed");
    }
    Ok(Translated { text: translator.text, alternatives: translator.alternatives })
}

struct Translator<'a> {
    rest: &'a str,
    text: String,
    frame: Frame,
    /// The frames of the open groups around `frame`.
    outer: Vec<Frame>,
    alternatives: Option<Vec<String>>,
    /// The last step was a repetition, so that another one is an error.
    after_repeat: bool,
    unicode_classes: usize,
}

/// The inside of one group, or of the whole pattern.
#[derive(Default)]
struct Frame {
    /// The last thing in it that a repetition can apply to.
    atom: Option<Atom>,
    /// The largest weight of the things before that.
    weight: u32,
}

#[derive(Clone, Copy)]
struct Atom {
    /// Where a repetition of it must be written. Flags may stand between: Go's `a(?i)*` is `a*(?i)`.
    end: usize,
    /// The product of the repetitions in it.
    weight: u32,
}

impl Translator<'_> {
    fn step(&mut self, character: char) -> Step {
        let mut repeated = false;
        match character {
            '(' => self.open()?,
            ')' => self.close()?,
            '|' => self.bar(),
            '[' => self.class()?,
            '^' | '$' | '.' => self.push_atom(&character.to_string()),
            '*' => repeated = self.repeat("*", (0, None))?,
            '+' => repeated = self.repeat("+", (1, None))?,
            // Written so that it cannot be taken for a lazy repetition.
            '?' => repeated = self.repeat("{0,1}", (0, Some(1)))?,
            '{' => repeated = self.counted()?,
            '\\' => self.escape()?,
            literal => self.literal(literal),
        }
        self.after_repeat = repeated;
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let first = characters.next();
        self.rest = characters.as_str();
        first
    }

    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn literal(&mut self, character: char) {
        if let Some(last) = self.alternatives.as_mut().and_then(|all| all.last_mut()) {
            last.push(character);
        }
        let mut utf8 = [0; 4];
        regex_syntax::escape_into(character.encode_utf8(&mut utf8), &mut self.text);
        self.atom_ends_here(1);
    }

    /// Writes something that is not a literal but that can be repeated.
    fn push_atom(&mut self, text: &str) {
        self.alternatives = None;
        self.text.push_str(text);
        self.atom_ends_here(1);
    }

    fn atom_ends_here(&mut self, weight: u32) {
        self.frame.weight = self.frame.weight();
        self.frame.atom = Some(Atom { end: self.text.len(), weight });
    }

    fn bar(&mut self) {
        self.text.push('|');
        self.frame = Frame { atom: None, weight: self.frame.weight() };
        if let Some(all) = &mut self.alternatives {
            all.push(String::new());
        }
    }

    fn open(&mut self) -> Step {
        self.alternatives = None;
        if !self.eat("?") {
            return self.open_group("(?:");
        }
        if self.rest.starts_with("P<") || self.rest.starts_with('<') {
            self.eat("P");
            self.eat("<");
            let Some((name, rest)) = self.rest.split_once('>') else {
                return syntax("a group's name is not closed by >");
            };
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return syntax(format!("{name:?} cannot be the name of a group"));
            }
            self.rest = rest;
            return self.open_group("(?:");
        }
        self.flags()
    }

    fn open_group(&mut self, text: &str) -> Step {
        if self.outer.len() >= GROUPS_DEEP_MAX {
            return Err(Refusal::Bound(format!(
                "more than {GROUPS_DEEP_MAX} groups in each other"
            )));
        }
        self.text.push_str(text);
        self.outer.push(std::mem::take(&mut self.frame));
        Ok(())
    }

    fn close(&mut self) -> Step {
        let Some(outer) = self.outer.pop() else { return syntax("a ) without its (") };
        self.text.push(')');
        let weight = std::mem::replace(&mut self.frame, outer).weight();
        self.atom_ends_here(weight);
        Ok(())
    }

    /// `(?i)`, `(?i-s:`, `(?:` and so on; `(?` is already taken.
    fn flags(&mut self) -> Step {
        // For i, m and s: not named, on or off. U, the greed, changes no match.
        let mut flags = [('i', None), ('m', None), ('s', None), ('U', None)];
        let mut value = true;
        let mut named = true;
        loop {
            match self.next() {
                Some('-') if value => (value, named) = (false, false),
                Some(end @ (':' | ')')) if named => {
                    let [case, multi, single, _] = flags;
                    let mut text = String::from("(?");
                    let flags = [case, multi, single];
                    text.extend(flags.iter().filter(|f| f.1 == Some(true)).map(|f| f.0));
                    if flags.iter().any(|flag| flag.1 == Some(false)) {
                        text.push('-');
                        text.extend(flags.iter().filter(|f| f.1 == Some(false)).map(|f| f.0));
                    }
                    if end == ':' {
                        return self.open_group(&(text + ":"));
                    }
                    if text.len() > 2 {
                        self.text.push_str(&(text + ")"));
                    }
                    return Ok(());
                }
                Some(letter) => match flags.iter_mut().find(|flag| flag.0 == letter) {
                    Some(flag) => (flag.1, named) = (Some(value), true),
                    None => return syntax(format!("(?{letter} is not known here")),
                },
                None => return syntax("a ( is not closed"),
            }
        }
    }

    /// Repeats the last atom. Always true, for [`Translator::after_repeat`].
    fn repeat(&mut self, written: &str, (min, max): (u32, Option<u32>)) -> Step<bool> {
        self.alternatives = None;
        if self.after_repeat {
            return syntax("a repetition of a repetition");
        }
        let Some(atom) = &mut self.frame.atom else {
            return syntax("a repetition of nothing");
        };
        self.text.insert_str(atom.end, written);
        atom.end += written.len();
        atom.weight = match max {
            Some(0) => 0,
            // A large weight was refused when it arose.
            Some(max) => atom.weight * max,
            None => atom.weight * min.max(1),
        };
        if atom.weight > REPEAT_MAX && max.unwrap_or(min) >= 2 {
            return syntax(format!("repetitions of more than {REPEAT_MAX} in all"));
        }
        self.eat("?");
        Ok(true)
    }

    /// `{2}`, `{2,}` or `{2,5}`; anything else makes the brace a literal.
    fn counted(&mut self) -> Step<bool> {
        let Some((min, max, rest)) = counts(self.rest) else {
            self.literal('{');
            return Ok(false);
        };
        let bounds = (min, max.unwrap_or(min));
        if bounds.0.max(bounds.1) > REPEAT_MAX || bounds.0 > bounds.1 {
            return syntax(format!("a repetition over {REPEAT_MAX} or with its bounds reversed"));
        }
        self.rest = rest;
        let written = match max {
            Some(max) => format!("{{{min},{max}}}"),
            None => format!("{{{min},}}"),
        };
        self.repeat(&written, (min, max))
    }

    /// An escape outside of a class; its backslash is already taken.
    fn escape(&mut self) -> Step {
        for (letter, text) in [("A", r"\A"), ("z", r"\z"), ("b", r"(?-u:\b)"), ("B", r"(?-u:\B)")] {
            if self.eat(letter) {
                self.push_atom(text);
                return Ok(());
            }
        }
        if self.eat("Q") {
            // Go alone takes it without its end, but Prometheus writes the anchors around the
            // pattern first, and then they would be quoted, too.
            let Some((quoted, rest)) = self.rest.split_once(r"\E") else {
                return syntax(r"a \Q is not closed by \E");
            };
            for character in quoted.chars() {
                self.literal(character);
            }
            self.rest = rest;
            return Ok(());
        }
        if let Some(class) = self.class_escape()? {
            self.push_atom(&class);
            return Ok(());
        }
        match char::from_u32(escape::character(&mut self.rest)?) {
            Some(character) => self.literal(character),
            // Half of a surrogate pair, which no text contains.
            None => self.push_atom(escape::NOTHING),
        }
        Ok(())
    }

    /// `\d`, `\pL` and their like, in the syntax of the regex crate.
    fn class_escape(&mut self) -> Step<Option<String>> {
        Ok(match escape::class(&mut self.rest)? {
            None => None,
            Some(Class::Perl(text)) => Some(text.to_owned()),
            Some(Class::Unicode(text)) => {
                self.unicode_classes += 1;
                if self.unicode_classes > UNICODE_CLASSES_MAX {
                    let reason = format!("more than {UNICODE_CLASSES_MAX} Unicode classes");
                    return Err(Refusal::Bound(reason));
                }
                Some(text)
            }
        })
    }

    /// A class in brackets; the first bracket is already taken. In Go there are no classes within
    /// classes but the named ones, and no operators.
    fn class(&mut self) -> Step {
        let mut text = String::from(if self.eat("^") { "[^" } else { "[" });
        let mut first = true;
        while first || !self.eat("]") {
            first = false;
            if let Some(name) = self.posix_class()? {
                text.push_str(&name);
            } else if let Some(class) = self.class_escape_in_class()? {
                text.push_str(&class);
            } else {
                let low = self.class_character()?;
                let mut high = low;
                if self.rest.starts_with('-') && self.rest != "-" && !self.rest.starts_with("-]") {
                    self.eat("-");
                    high = self.class_character()?;
                }
                if high < low {
                    return syntax("a range of characters with its ends reversed");
                }
                text.push_str(&escape::range(low, high));
            }
        }
        text.push(']');
        self.push_atom(&text);
        Ok(())
    }

    /// `[:alpha:]` or `[:^alpha:]`.
    fn posix_class(&mut self) -> Step<Option<String>> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|s| s.split_once(":]"))
        else {
            return Ok(None);
        };
        if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return syntax(format!("there is no class [:{name}:]"));
        }
        self.rest = rest;
        Ok(Some(format!("[:{name}:]")))
    }

    fn class_escape_in_class(&mut self) -> Step<Option<String>> {
        let here = self.rest;
        if !self.eat("\\") {
            return Ok(None);
        }
        let class = self.class_escape()?;
        if class.is_none() {
            self.rest = here;
        }
        Ok(class)
    }

    fn class_character(&mut self) -> Step<u32> {
        match self.next() {
            None => syntax("a [ is not closed"),
            Some('\\') => escape::character(&mut self.rest),
            Some(character) => Ok(u32::from(character)),
        }
    }
}

impl Frame {
    fn weight(&self) -> u32 {
        self.weight.max(self.atom.map_or(0, |atom| atom.weight))
    }
}

/// Reads `2}`, `2,}` or `2,5}`: minimum, maximum if there is one, and what follows.
fn counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (min, rest) = number(text)?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((min, Some(min), rest));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((min, None, rest));
    }
    let (max, rest) = number(rest)?;
    Some((min, Some(max), rest.strip_prefix('}')?))
}

/// A decimal number without leading zeros; one that is too long counts as the largest.
fn number(text: &str) -> Option<(u32, &str)> {
    let rest = text.trim_start_matches(|character: char| character.is_ascii_digit());
    let digits = text.strip_suffix(rest)?;
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}
