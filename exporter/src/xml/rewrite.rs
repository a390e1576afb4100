//! A guest's XML written anew, with every value passed through a function: elements and attributes stay, comments and
//! other programs' namespaces go.

use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};

use super::{DEPTH_MAX, NODES_MAX, NOVA_NAMESPACE, XML_BYTES_MAX, XmlError};

/// Where a value stands.
pub(crate) struct Place<'a> {
    /// The element's name without its prefix.
    pub(crate) element: &'a str,
    /// The attribute's; `None` for the element's text.
    pub(crate) attribute: Option<&'a str>,
    /// The element that it is in, likewise; empty for the outermost.
    pub(crate) within: &'a str,
    /// Whether it is in nova's namespace.
    pub(crate) of_nova: bool,
    /// How many elements are around it.
    pub(crate) depth: usize,
}

/// The text with every value replaced by what `value` makes of it.
pub(crate) fn rewritten(
    text: &str,
    mut value: impl FnMut(&Place<'_>, &str) -> String,
) -> Result<String, XmlError> {
    if text.len() > XML_BYTES_MAX {
        return Err(XmlError::TooLong(text.len()));
    }
    let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)?;
    let mut written = String::new();
    element(&mut written, document.root_element(), 0, &mut value)?;
    written.push('\n');
    Ok(written)
}

/// An error where elements nest too deep, as metadata, which anybody may write, can.
fn element(
    written: &mut String,
    node: Node<'_, '_>,
    depth: usize,
    value: &mut dyn FnMut(&Place<'_>, &str) -> String,
) -> Result<(), XmlError> {
    if depth > DEPTH_MAX {
        return Err(XmlError::TooDeep);
    }
    let namespace = node.tag_name().namespace();
    let of_nova = namespace.is_some_and(|name| name.starts_with(NOVA_NAMESPACE));
    if namespace.is_some() && !of_nova {
        return Ok(());
    }
    let name = node.tag_name().name();
    let parent = node.parent().filter(Node::is_element);
    let within = parent.map(|parent| parent.tag_name().name()).unwrap_or_default();
    let indent = "  ".repeat(depth);
    write!(written, "{indent}<{name}").ok();
    if let Some(namespace) = namespace {
        let outer = node.parent().and_then(|parent| parent.tag_name().namespace());
        if outer != Some(namespace) {
            write!(written, " xmlns=\"{namespace}\"").ok();
        }
    }
    for attribute in node.attributes().filter(|attribute| attribute.namespace().is_none()) {
        let attribute_name = Some(attribute.name());
        let place = Place { element: name, attribute: attribute_name, within, of_nova, depth };
        let value = value(&place, attribute.value());
        write!(written, " {}=\"{}\"", attribute.name(), escaped(&value)).ok();
    }
    let children: Vec<Node<'_, '_>> = node.children().filter(Node::is_element).collect();
    let text = super::text_of(node).map(|text| {
        let place = Place { element: name, attribute: None, within, of_nova, depth };
        escaped(&value(&place, &text))
    });
    match (text, children.is_empty()) {
        (None, true) => written.push_str("/>\n"),
        (Some(text), true) => {
            writeln!(written, ">{text}</{name}>").ok();
        }
        (text, false) => {
            written.push('>');
            written.push_str(&text.unwrap_or_default());
            written.push('\n');
            for child in children {
                element(written, child, depth + 1, value)?;
            }
            writeln!(written, "{indent}</{name}>").ok();
        }
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\r' | '\t' => {
                write!(escaped, "&#{};", u32::from(letter)).ok();
            }
            other => escaped.push(other),
        }
    }
    escaped
}
