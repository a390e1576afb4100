//! A strict parser of Prometheus' text format 0.0.4, written from its description, for the tests:
//! it takes nothing that the description does not promise.

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) families: Vec<Family>,
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
}

#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
}

pub(super) fn parse(text: &str) -> Result<Page, String> {
    let mut page = Page::default();
    let mut types: Vec<String> = Vec::new();
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for line in text.split_terminator('\n') {
        let fault = |reason: &str| Err(format!("{reason}: {line:?}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            let known = |family: &Family| family.name == name;
            if !is_name(name) || page.families.iter().any(known) {
                return fault("bad or second HELP");
            }
            let help = unescape(help, false).ok_or_else(|| format!("bad escape: {line:?}"))?;
            page.families.push(Family { name: name.to_owned(), help });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return fault("no type") };
            let kinds = ["counter", "gauge", "histogram", "summary", "untyped"];
            if !is_name(name) || !kinds.contains(&kind) || types.iter().any(|known| known == name) {
                return fault("bad or second TYPE");
            }
            types.push(name.to_owned());
        } else if line.starts_with('#') || line.is_empty() {
            return fault("a comment or an empty line, which we never write");
        } else {
            page.samples.push(sample(line).ok_or_else(|| format!("bad sample: {line:?}"))?);
        }
    }
    Ok(page)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, tail) = rest.split_once("=\"")?;
            let (value, tail) = tail.split_at(closing_quote(tail)?);
            labels.push((label.to_owned(), unescape(value, true)?));
            rest = tail.strip_prefix('"')?;
            rest = rest.strip_prefix(',').unwrap_or(rest);
            if !is_name(label) || label.contains(':') {
                return None;
            }
        }
        rest = rest.strip_prefix('}')?;
    }
    let mut words = rest.strip_prefix(' ')?.split(' ');
    let value = match words.next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number if number.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            number.parse().ok()?
        }
        _ => return None,
    };
    if let Some(timestamp) = words.next() {
        timestamp.parse::<i64>().ok()?;
    }
    let whole = is_name(name) && words.next().is_none();
    whole.then(|| Sample { name: name.to_owned(), labels, value })
}

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(legal)
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescape(text: &str, quotes: bool) -> Option<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' => match rest.next()? {
                'n' => '\n',
                '\\' => '\\',
                '"' if quotes => '"',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}
