//! The web config file: TLS, HTTP headers and basic auth users, in the format that Prometheus and
//! its exporters share (prometheus/exporter-toolkit, docs/web-configuration.md). What this
//! service cannot do of it is refused, never ignored. It must not know connections or routes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::limits;

mod live;
mod tls;
mod users;

pub(crate) use live::Live;
pub(crate) use users::Users;

/// What is wrong with the web config file.
#[derive(Debug, Error)]
#[error("web config file {}: {reason}", path.display())]
pub struct WebConfigError {
    path: PathBuf,
    reason: String,
}

/// What the file asks for, ready for use.
#[derive(Debug, Default)]
pub(crate) struct WebConfig {
    /// Absent: plain HTTP.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Added to every answer.
    pub(crate) headers: HeaderMap,
    /// Who may ask; no users: everybody.
    pub(crate) users: Users,
}

/// The headers that the format allows, with the values that it allows; none: any value.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    tls_server_config: Option<tls::Written>,
    http_server_config: Option<HttpWritten>,
    basic_auth_users: Option<BTreeMap<String, String>>,
    rate_limit: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpWritten {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

/// Reads and checks the file and every file that it names.
pub(crate) fn load(path: &Path) -> Result<(WebConfig, Fingerprint), WebConfigError> {
    let mut files = Files { fingerprint: ring::digest::Context::new(&ring::digest::SHA256) };
    let config = files.read(path).and_then(|bytes| {
        let folder = path.parent().unwrap_or(Path::new(""));
        build(&bytes, folder, &mut files)
    });
    match config {
        Ok(config) => Ok((config, Fingerprint(files.fingerprint.finish().as_ref().to_vec()))),
        Err(reason) => Err(WebConfigError { path: path.to_owned(), reason }),
    }
}

fn build(bytes: &[u8], folder: &Path, files: &mut Files) -> Result<WebConfig, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let written = serde_saphyr::from_str::<Option<Written>>(text).map_err(|e| e.to_string())?;
    let written = written.unwrap_or_default();
    if written.rate_limit.is_some() {
        return Err("rate_limit is not supported; remove it".to_owned());
    }
    let http = written.http_server_config.unwrap_or_default();
    let tls = match written.tls_server_config {
        Some(tls) => tls.build(folder, files, http.http2.unwrap_or(true))?,
        None => None,
    };
    let headers = headers(http.headers.unwrap_or_default())?;
    let users = Users::new(written.basic_auth_users.unwrap_or_default())?;
    Ok(WebConfig { tls, headers, users })
}

fn headers(written: BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let known = HEADERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        let Some((known, values)) = known else {
            return Err(format!("http_server_config.headers: {name} cannot be set"));
        };
        // An empty value means that the header is not sent.
        if value.is_empty() {
            continue;
        }
        if !values.is_empty() && !values.contains(&value.to_ascii_lowercase().as_str()) {
            let values = values.join(" or ");
            return Err(format!("http_server_config.headers: {known} must be {values}"));
        }
        let bad = |_| format!("http_server_config.headers: the value of {known} is not a header");
        let value = HeaderValue::try_from(value).map_err(bad)?;
        headers.insert(HeaderName::try_from(*known).map_err(|error| error.to_string())?, value);
    }
    Ok(headers)
}

/// A digest of everything that a configuration was made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<u8>);

/// Reads files within their bound and remembers what was read.
struct Files {
    fingerprint: ring::digest::Context,
}

impl Files {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let bytes =
            read_bounded(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let Some(bytes) = bytes else {
            let most = limits::CONFIG_BYTES_MAX;
            return Err(format!("{} is larger than {most} bytes", path.display()));
        };
        self.fingerprint.update(&(bytes.len() as u64).to_le_bytes());
        self.fingerprint.update(&bytes);
        Ok(bytes)
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limits::CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limits::CONFIG_BYTES_MAX).then_some(bytes))
}

#[cfg(test)]
mod tests;
