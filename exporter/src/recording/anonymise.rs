//! Other names for everything in a recording that says whose it is. The same name always becomes the same other one, so
//! that devices, ports and owners still belong together; figures, kinds and sizes stay as they are.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Fields, RecordedGuest, Recording};
use crate::stats::Param;
use crate::xml::rewrite::{self, Place};

/// Attributes with values of libvirt's own, which say what something is and not whose.
const KINDS: [&str; 21] = [
    "type",
    "device",
    "bus",
    "cache",
    "discard",
    "io",
    "arch",
    "machine",
    "unit",
    "model",
    "protocol",
    "mode",
    "fallback",
    "check",
    "policy",
    "ipVersion",
    "managed",
    "index",
    "period",
    "snapshot",
    "placement",
];
/// Attributes that are called `name` and name a kind: `<driver name="qemu">`.
const NAMED_KINDS: [&str; 6] = ["driver", "feature", "timer", "backend", "source-mode", "alias"];
/// Elements whose text is a name, even where it is a number.
const NAMED_ELEMENTS: [&str; 6] = ["serial", "wwn", "entry", "vendor", "product", "asset"];
/// Attributes that are names, even where they are numbers.
const NAMES: [&str; 13] = [
    "name",
    "username",
    "usage",
    "pool",
    "volume",
    "network",
    "portgroup",
    "bridge",
    "file",
    "dir",
    "serial",
    "profileid",
    "query",
];
/// What names of interfaces begin with that programs number.
const TAPS: [&str; 3] = ["tap", "vnet", "macvtap"];
/// Digits of a UUID that a tap's name ends in.
const PREFIX: usize = 11;

/// The other names so far.
#[derive(Debug, Default)]
pub(super) struct Pseudonyms {
    names: HashMap<(&'static str, String), usize>,
    /// How many there are of each kind.
    counts: HashMap<&'static str, usize>,
}

impl Pseudonyms {
    pub(super) fn recording(mut self, recording: Recording) -> Recording {
        let mut recording = recording;
        recording.host.hostname = recording.host.hostname.map(|_| "host".to_owned());
        recording.guests = recording.guests.into_iter().map(|guest| self.guest(guest)).collect();
        for pool in &mut recording.pools {
            pool.name = self.numbered("pool", "pool-", &pool.name);
        }
        recording
    }

    fn guest(&mut self, guest: RecordedGuest) -> RecordedGuest {
        RecordedGuest {
            name: self.guest_name(&guest.name),
            uuid: self.text(&guest.uuid),
            basic: self.fields(guest.basic),
            detail: guest.detail.map(|fields| self.fields(fields)),
            // XML that cannot be read cannot be made anonymous either.
            xml: guest.xml.and_then(|text| {
                rewrite::rewritten(&text, |place, value| self.of_xml(place, value)).ok()
            }),
            ..guest
        }
    }

    fn guest_name(&mut self, name: &str) -> String {
        let number = self.number("guest", name);
        format!("instance-{number:08x}")
    }

    /// Names of devices and paths; what else libvirt reports as text are kinds, and lists of processors.
    fn fields(&mut self, fields: Fields) -> Fields {
        let rewritten = fields.into_iter().map(|(field, value)| match value {
            Param::Text(text) => {
                let text = match field.rsplit('.').next().unwrap_or_default() {
                    "name" if field.starts_with("block.") && is_disk(&text) => text,
                    "name" | "path" => self.text(&text),
                    "vcpus" => self.unless_figure(&text),
                    _ => text,
                };
                (field, Param::Text(text))
            }
            other => (field, other),
        });
        rewritten.collect()
    }

    fn of_xml(&mut self, place: &Place<'_>, value: &str) -> String {
        let is_root_name = place.depth == 1 && place.element == "name" && place.attribute.is_none();
        let is_kind = match place.attribute {
            Some("name") => NAMED_KINDS.contains(&place.element) && !place.of_nova,
            Some(attribute) => KINDS.contains(&attribute),
            None => place.element == "type" || place.element.starts_with("on_"),
        };
        // What an operator calls a device begins with this; other aliases are libvirt's.
        let is_kind = is_kind && !value.starts_with("ua-");
        let is_target = place.within == "disk" && place.element == "target" && is_disk(value);
        let is_name = match place.attribute {
            Some(attribute) => NAMES.contains(&attribute),
            None => NAMED_ELEMENTS.contains(&place.element),
        };
        if is_root_name {
            self.guest_name(value)
        } else if is_kind || is_target {
            value.to_owned()
        } else if place.of_nova
            && place.attribute.is_none_or(|name| name == "name")
            && !is_size(place)
        {
            self.free_text(value)
        } else if is_name {
            self.text(value)
        } else {
            self.unless_figure(value)
        }
    }

    fn unless_figure(&mut self, value: &str) -> String {
        if is_figure(value) && !is_uuid(value) { value.to_owned() } else { self.text(value) }
    }

    /// A name that a person chose, whatever it looks like.
    fn free_text(&mut self, value: &str) -> String {
        self.numbered("text", "name-", value)
    }

    /// A name that a program made, as another of the same shape.
    fn text(&mut self, value: &str) -> String {
        if is_uuid(value) {
            let begin = self.number("prefix", value.get(..PREFIX).unwrap_or(value));
            let number = self.number("uuid", value);
            return format!("{begin:08x}-0000-4000-8000-{number:012x}");
        }
        let tap = TAPS.iter().find(|kind| value.strip_prefix(**kind).is_some_and(is_number));
        if let Some(kind) = tap {
            return self.numbered("tap", kind, value);
        }
        if let Ok(address) = value.parse::<IpAddr>() {
            let number = self.number("address", value);
            let [_, a, b, c] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
            return match address {
                IpAddr::V4(_) => format!("10.{a}.{b}.{c}"),
                IpAddr::V6(_) => format!("2001:db8::{number:x}"),
            };
        }
        if is_mac(value) {
            let number = u32::try_from(self.number("mac", value)).unwrap_or(u32::MAX);
            let [_, a, b, c] = number.to_be_bytes();
            return format!("52:54:00:{a:02x}:{b:02x}:{c:02x}");
        }
        if let Some(id) = value.strip_prefix("volume-").filter(|id| is_uuid(id)) {
            return format!("volume-{}", self.text(id));
        }
        if let Some(path) = value.strip_prefix('/') {
            return self.numbered("path", "/path-", path);
        }
        if let Some((first, rest)) = value.split_once('/') {
            return format!("{}/{}", self.text(first), self.text(rest));
        }
        let begin = value.len().checked_sub(PREFIX).and_then(|at| value.get(at..));
        if let Some(begin) = begin.filter(|begin| is_uuid_prefix(begin)) {
            let kind: String = value.chars().take(3).filter(char::is_ascii_alphabetic).collect();
            return format!("{kind}{:08x}-00", self.number("prefix", begin));
        }
        self.numbered("name", "name-", value)
    }

    fn numbered(&mut self, kind: &'static str, begin: &str, value: &str) -> String {
        format!("{begin}{}", self.number(kind, value))
    }

    fn number(&mut self, kind: &'static str, value: &str) -> usize {
        let count = self.counts.entry(kind).or_default();
        *self.names.entry((kind, value.to_owned())).or_insert_with(|| {
            *count += 1;
            *count
        })
    }
}

/// Elements of nova's flavor that hold figures.
fn is_size(place: &Place<'_>) -> bool {
    let sizes = ["memory", "disk", "swap", "ephemeral", "vcpus"];
    place.attribute.is_none() && sizes.contains(&place.element)
}

/// Numbers, and lists of processors.
fn is_figure(text: &str) -> bool {
    let hex = text.strip_prefix("0x");
    let is_hex = hex.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_list = text.bytes().all(|byte| byte.is_ascii_digit() || b".,^-".contains(&byte));
    let words = ["yes", "no", "on", "off"];
    is_hex || words.contains(&text) || is_list && text.parse::<IpAddr>().is_err()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_disk(text: &str) -> bool {
    let kinds = ["vd", "sd", "hd", "xvd", "fd", "sr"];
    let is_end = |rest: &str| {
        !rest.is_empty()
            && rest.len() <= 3
            && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    kinds.iter().any(|kind| text.strip_prefix(kind).is_some_and(is_end))
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12])
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_uuid_prefix(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 2]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let is_byte =
        |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.len() == 6 && parts.iter().all(is_byte)
}
