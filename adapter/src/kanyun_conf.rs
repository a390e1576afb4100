//! A `kanyun.conf` of 2012 (kanyun-legacy.md, "kanyun.conf"): which of its keys still say something
//! here. Pure but for reading the file; knows no flags.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use configparser::ini::Ini;

use crate::limits;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It cannot be read, or is no INI.
    #[error("{} cannot be read as a kanyun.conf: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A value that cannot be.
    #[error("{}: key {key} of section [{section}]: {value:?} is no port, 1 to 65535", path.display())]
    Port {
        /// The file.
        path: PathBuf,
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What it has.
        value: String,
    },
}

/// What a file says to the parts that are here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KanyunConf {
    /// Where the API listens, `tcp://HOST:PORT`; `None` without a section `[api]` that says so.
    pub api_address: Option<String>,
    /// Where workers' messages are taken, likewise of `[server]`.
    pub ingest_address: Option<String>,
    /// Where a client finds the API, likewise of `[client]`.
    pub client_address: Option<String>,
    /// Remarks for the log: what is not known, and what to do instead of what has no use here.
    pub remarks: Vec<String>,
}

/// A section's keys for an address: their names, and what a missing one means.
struct Address {
    section: &'static str,
    host: (&'static str, &'static str),
    port: (&'static str, u16),
}

const API: Address = Address { section: "api", host: ("api_host", "*"), port: ("api_port", 5556) };
const SERVER: Address = Address { section: "server", host: ("host", "*"), port: ("port", 5551) };
const CLIENT: Address =
    Address { section: "client", host: ("api_host", "127.0.0.1"), port: ("api_port", 5556) };

/// What is known and has no use here, with what an operator should do about it: nothing, where it
/// belongs to a worker.
const OTHERS: [(&str, &str, Option<&str>); 11] = [
    ("log", "file", Some(TO_STANDARD_ERROR)),
    ("server", "db_host", Some(STORE)),
    ("api", "db_host", Some(STORE)),
    ("worker", "id", None),
    ("worker", "worker_timeout", None),
    ("worker", "dataserver_host", None),
    ("worker", "dataserver_port", None),
    ("worker", "log", None),
    ("default", "sql_connection", Some(NOVA)),
    ("api", "sql_connection", Some(NOVA)),
    ("server", "sql_connection", Some(NOVA)),
];
const TO_STANDARD_ERROR: &str =
    "the log goes to standard error; let systemd or whoever starts the process keep it";
const STORE: &str = "the store is chosen by --store, a cluster by --cassandra.nodes";
const NOVA: &str =
    "nova's database is not asked; names and uuids of guests come with the exporter's metrics";

type Sections = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// Reads a file. Bounded, as a settings file is.
pub fn read(path: &Path) -> Result<KanyunConf, ConfError> {
    let wrong = |why: String| ConfError::Unreadable { path: path.to_owned(), why };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut file = file.take(limits::KANYUN_CONF_BYTES_MAX + 1);
    file.read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > limits::KANYUN_CONF_BYTES_MAX {
        return Err(wrong(format!("it has more than {} bytes", limits::KANYUN_CONF_BYTES_MAX)));
    }
    parse(path, text)
}

/// Understands a file's text; `path` is for errors alone.
fn parse(path: &Path, text: String) -> Result<KanyunConf, ConfError> {
    let mut ini = Ini::new();
    // As in Python's ConfigParser of 2012: a # within a line is part of a value.
    ini.set_inline_comment_symbols(Some(&[';']));
    let sections =
        ini.read(text).map_err(|why| ConfError::Unreadable { path: path.to_owned(), why })?;
    let sections: Sections =
        sections.into_iter().map(|(name, keys)| (name, keys.into_iter().collect())).collect();
    Ok(KanyunConf {
        api_address: address(path, &sections, &API)?,
        ingest_address: address(path, &sections, &SERVER)?,
        client_address: address(path, &sections, &CLIENT)?,
        remarks: remarks(path, &sections),
    })
}

/// The address of a section that has one of its keys; where the other is missing, what was the
/// default in 2012 holds.
fn address(
    path: &Path,
    sections: &Sections,
    wanted: &Address,
) -> Result<Option<String>, ConfError> {
    let Some(keys) = sections.get(wanted.section) else { return Ok(None) };
    let value = |key: &str| {
        let value = keys.get(key)?.as_deref().map(str::trim);
        value.filter(|value| !value.is_empty())
    };
    let (host, port) = (value(wanted.host.0), value(wanted.port.0));
    if host.is_none() && port.is_none() {
        return Ok(None);
    }
    let port = match port {
        None => wanted.port.1,
        Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            let (section, key) = (wanted.section, wanted.port.0);
            ConfError::Port { path: path.to_owned(), section, key, value: text.to_owned() }
        })?,
    };
    Ok(Some(format!("tcp://{}:{port}", host.unwrap_or(wanted.host.1))))
}

fn remarks(path: &Path, sections: &Sections) -> Vec<String> {
    let mut remarks = Vec::new();
    for (section, keys) in sections {
        let of_addresses = [API, SERVER, CLIENT];
        let addresses: Vec<_> =
            of_addresses.iter().filter(|address| address.section == section).collect();
        let known = !addresses.is_empty() || OTHERS.iter().any(|(name, ..)| name == section);
        if !known {
            let path = path.display();
            remarks.push(format!("{path}: section [{section}] is not known and is ignored"));
            continue;
        }
        for key in keys.keys() {
            let other = OTHERS.iter().find(|(of, name, _)| of == section && name == key);
            let why = match other {
                Some((_, _, None)) => continue,
                Some((_, _, Some(instead))) => (*instead).to_owned(),
                None if addresses.iter().any(|of| of.host.0 == key || of.port.0 == key) => continue,
                None => "it is not known".to_owned(),
            };
            let path = path.display();
            remarks.push(format!("{path}: key {key} of section [{section}] is ignored: {why}"));
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<KanyunConf, String> {
        parse(Path::new("kanyun.conf"), text.to_owned()).map_err(|error| error.to_string())
    }

    /// As the README of 2012 has it, with both separators.
    const WHOLE: &str = "\
[log]
file: /tmp/kanyun.log
[server]
host: *
port: 5551
db_host: 127.0.0.1
[api]
api_host = 192.168.1.2 ; billing's network
api_port = 5560
db_host: 127.0.0.1
# a worker's part
[worker]
id: worker1
worker_timeout: 60
dataserver_host: 127.0.0.1
dataserver_port: 5551
log: /tmp/worker.log
[client]
api_host: 10.0.0.1
";

    #[test]
    fn a_whole_file() {
        let conf = conf(WHOLE).unwrap();
        assert_eq!(conf.api_address.as_deref(), Some("tcp://192.168.1.2:5560"));
        assert_eq!(conf.ingest_address.as_deref(), Some("tcp://*:5551"));
        assert_eq!(conf.client_address.as_deref(), Some("tcp://10.0.0.1:5556"));
        let expected = [
            ("db_host of section [api]", "--cassandra.nodes"),
            ("file of section [log]", "standard error"),
            ("db_host of section [server]", "--store"),
        ];
        assert_eq!(conf.remarks.len(), expected.len(), "{:?}", conf.remarks);
        for (remark, (key, instead)) in conf.remarks.iter().zip(expected) {
            assert!(remark.contains(key) && remark.contains(instead), "{remark}");
        }
    }

    #[test]
    fn what_is_not_said_is_not_decided() {
        assert_eq!(conf(""), Ok(KanyunConf::default()));
        assert_eq!(conf("[api]\n[server]\n[client]\n"), Ok(KanyunConf::default()));
        // One of the two: the other as it was in 2012.
        let api = conf("[api]\napi_port: 5552\n").unwrap().api_address;
        assert_eq!(api.as_deref(), Some("tcp://*:5552"));
        let server = conf("[server]\nhost=10.0.0.1\nport=\n").unwrap().ingest_address;
        assert_eq!(server.as_deref(), Some("tcp://10.0.0.1:5551"));
    }

    #[test]
    fn what_is_not_known_is_told_by_name() {
        let text = "sql_connection = mysql://nova@db/nova\n[api]\nhost: *\n[statsd]\nport: 1\n";
        let remarks = conf(text).unwrap().remarks.join("\n");
        for told in ["key host of section [api]", "section [statsd]", "sql_connection", "exporter"]
        {
            assert!(remarks.contains(told), "{told}\n{remarks}");
        }
        assert_eq!(conf("[default]\nsql_connection: x\n").unwrap().remarks.len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for port in ["0", "65536", "http", "-1"] {
            let error = conf(&format!("[api]\napi_port: {port}\n")).unwrap_err();
            assert!(error.contains("api_port of section [api]") && error.contains(port), "{error}");
        }
        assert!(conf("[api\n").unwrap_err().contains("kanyun.conf"));
        let missing = read(Path::new("/nonexistent/kanyun.conf")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent/kanyun.conf"), "{missing}");
    }
}
