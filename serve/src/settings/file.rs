//! The settings file: YAML, flat or nested keys, to lists of texts as a command line would have
//! them. It must not know clap or what a setting means.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::limits;

/// What is wrong with the settings file.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the settings file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is far larger than settings are.
    #[error("the settings file {} is larger than {} bytes", path.display(), limits::CONFIG_BYTES_MAX)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not YAML, or not a map of keys.
    #[error("the settings file {} is not a YAML map of settings: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the YAML parser says, with line and column.
        reason: String,
    },
    /// One of its keys is wrong.
    #[error("key {key} of the settings file {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, flat.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A flag that the file may set.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) flag: String,
    /// Whether a list is allowed.
    pub(super) repeatable: bool,
}

/// The settings of a file, in its order.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    settings: Vec<Setting>,
}

#[derive(Debug)]
struct Setting {
    key: String,
    values: Vec<String>,
    is_list: bool,
}

/// Reads and flattens a settings file.
pub(super) fn read(path: PathBuf) -> Result<File, FileError> {
    let text = match read_bounded(&path) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(FileError::TooLarge { path }),
        Err(source) => return Err(FileError::Unreadable { path, source }),
    };
    parse(path, &text)
}

fn read_bounded(path: &Path) -> Result<Option<String>, std::io::Error> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(limits::CONFIG_BYTES_MAX + 1);
    file.read_to_string(&mut text)?;
    Ok((text.len() as u64 <= limits::CONFIG_BYTES_MAX).then_some(text))
}

fn parse(path: PathBuf, text: &str) -> Result<File, FileError> {
    let mut file = File { path, settings: Vec::new() };
    // A file of comments only says nothing, which is not wrong.
    let whole = serde_saphyr::from_str::<Option<Yaml>>(text);
    match whole {
        Ok(None | Some(Yaml::Null)) => Ok(file),
        Ok(Some(Yaml::Map(entries))) => {
            file.flatten("", entries)?;
            Ok(file)
        }
        Ok(Some(_)) => Err(file.malformed("the outermost value is not a map".to_owned())),
        Err(error) => Err(file.malformed(error.to_string())),
    }
}

impl File {
    /// Where it was read.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The values of a flag, when the file has it.
    pub(super) fn values(&self, flag: &str) -> Option<&[String]> {
        let setting = self.settings.iter().find(|setting| setting.key == flag)?;
        Some(&setting.values)
    }

    /// Every key must be a flag, and only one that may be repeated may be a list.
    pub(super) fn check(&self, known: &[Known]) -> Result<(), FileError> {
        for setting in &self.settings {
            let Some(flag) = known.iter().find(|known| known.flag == setting.key) else {
                return Err(self.key(&setting.key, unknown(&setting.key, known)));
            };
            if setting.is_list && !flag.repeatable {
                return Err(self.key(&setting.key, "takes one value, not a list".to_owned()));
            }
        }
        Ok(())
    }

    fn flatten(&mut self, prefix: &str, entries: Vec<(String, Yaml)>) -> Result<(), FileError> {
        for (name, value) in entries {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let (values, is_list) = match value {
                Yaml::Map(entries) => {
                    self.flatten(&key, entries)?;
                    continue;
                }
                Yaml::Null => return Err(self.key(&key, "has no value".to_owned())),
                Yaml::Text(text) => (vec![text], false),
                Yaml::List(items) => (self.texts(&key, items)?, true),
            };
            if self.values(&key).is_some() {
                return Err(self.key(&key, "is given twice".to_owned()));
            }
            self.settings.push(Setting { key, values, is_list });
        }
        Ok(())
    }

    fn texts(&self, key: &str, items: Vec<Yaml>) -> Result<Vec<String>, FileError> {
        if items.is_empty() {
            return Err(self.key(key, "is an empty list; leave the key out instead".to_owned()));
        }
        let text = |item| match item {
            Yaml::Text(text) => Ok(text),
            _ => Err(self.key(key, "is a list of something else than plain values".to_owned())),
        };
        items.into_iter().map(text).collect()
    }

    fn malformed(self, reason: String) -> FileError {
        FileError::Malformed { path: self.path, reason }
    }

    fn key(&self, key: &str, reason: String) -> FileError {
        FileError::Key { path: self.path.clone(), key: key.to_owned(), reason }
    }
}

fn unknown(key: &str, known: &[Known]) -> String {
    let near = known.iter().map(|known| (strsim::jaro_winkler(key, &known.flag), &known.flag));
    match near.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((_, nearest)) => format!("is not a setting; the nearest is {nearest}"),
        None => "is not a setting".to_owned(),
    }
}

/// YAML without a schema; scalars as the texts that a command line would have.
#[derive(Debug)]
enum Yaml {
    Null,
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Yaml::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Yaml, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = items.next_entry::<String, Yaml>()? {
            map.push(entry);
        }
        Ok(Yaml::Map(map))
    }
}
