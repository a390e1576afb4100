//! Asks another service of ours, for the commands of a binary: GET and POST over HTTP or HTTPS, with a user
//! where one is asked for. Blocks. It must not know what is asked.

use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::limits;

/// Where most Linux distributions keep the certificates that a machine trusts.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long an answer may take to begin.
const ANSWER_DEADLINE: Duration = Duration::from_secs(150);

/// How to reach a service.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Its address, such as `http://127.0.0.1:9201`.
    pub url: String,
    /// A user, and the file with the password.
    pub login: Option<(String, PathBuf)>,
    /// The certificates to trust, PEM; those of the machine where there is none.
    pub ca_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// The machine is there and the port is not open: no such service runs.
    #[error("nobody listens at {url}")]
    NobodyListens {
        /// The address.
        url: String,
    },
    /// Anything else; the text says what to do.
    #[error("{0}")]
    Failed(String),
}

/// An answer's body, still under way. Reading it fails where it is cut short.
pub type Body = BufReader<Box<dyn Read>>;

/// Asks for a path, with its query; the body of a 200 answer, which the service may take its time
/// to send.
pub fn get(access: &Access, path: &str) -> Result<Body, AskError> {
    let mut request = agent(access)?.get(&address(access, path));
    if let Some(credentials) = credentials(access)? {
        request = request.header("authorization", credentials);
    }
    answered(access, path, request.call())
}

/// Sends JSON to a path; the body of a 200 answer, as [`get`] gives it.
pub fn post(access: &Access, path: &str, json: &[u8]) -> Result<Body, AskError> {
    let mut request = agent(access)?.post(&address(access, path));
    request = request.header("content-type", "application/json");
    if let Some(credentials) = credentials(access)? {
        request = request.header("authorization", credentials);
    }
    answered(access, path, request.send(json))
}

fn address(access: &Access, path: &str) -> String {
    format!("{}{path}", access.url.trim_end_matches('/'))
}

fn answered(
    access: &Access,
    path: &str,
    answer: Result<http::Response<ureq::Body>, ureq::Error>,
) -> Result<Body, AskError> {
    let answer = answer.map_err(|error| trouble(&access.url, &error))?;
    let (head, body) = answer.into_parts();
    let mut body = BufReader::new(Box::new(body.into_reader()) as Box<dyn Read>);
    if head.status.as_u16() == 200 {
        return Ok(body);
    }
    let mut text = String::new();
    let mut start = body.by_ref().take(limits::CONFIG_BYTES_MAX);
    start.read_to_string(&mut text).map_err(|error| failed(&access.url, &error))?;
    Err(AskError::Failed(match head.status.as_u16() {
        401 => format!("{} asks for a user; name one, and its password's file", access.url),
        404 => format!("{} has no {path}: is it a service of this release?", access.url),
        status => format!("{} answered {status}: {}", access.url, text.trim()),
    }))
}

fn agent(access: &Access) -> Result<Agent, AskError> {
    let secure = access.url.starts_with("https://");
    if !secure && !access.url.starts_with("http://") {
        let text = format!("{:?} is no address; write http://HOST:PORT", access.url);
        return Err(AskError::Failed(text));
    }
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        // An adapter is asked directly, whatever the environment says of the web.
        .proxy(None)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_DEADLINE))
        .timeout_recv_response(Some(ANSWER_DEADLINE));
    if secure {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trusted = trusted(access.ca_file.as_deref().unwrap_or(Path::new(TRUSTED)))?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&trusted))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        config = config.tls_config(tls);
    }
    Ok(config.build().new_agent())
}

fn trusted(file: &Path) -> Result<Vec<Certificate<'static>>, AskError> {
    let wrong = |why: &dyn std::fmt::Display| {
        let file = file.display();
        AskError::Failed(format!("certificates of {file} cannot be read: {why}; name a PEM file"))
    };
    let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
    let mut trusted = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(&error))? {
            trusted.push(certificate);
        }
    }
    if trusted.is_empty() { Err(wrong(&"it has none")) } else { Ok(trusted) }
}

/// The value of the header for a user (RFC 7617).
fn credentials(access: &Access) -> Result<Option<String>, AskError> {
    let Some((user, file)) = &access.login else { return Ok(None) };
    let password = std::fs::read_to_string(file).map_err(|error| {
        AskError::Failed(format!("password file {} cannot be read: {error}", file.display()))
    })?;
    let password = password.trim_end_matches(['\r', '\n']);
    Ok(Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
}

fn trouble(url: &str, error: &ureq::Error) -> AskError {
    match error {
        ureq::Error::Io(io) if io.kind() == ErrorKind::ConnectionRefused => {
            AskError::NobodyListens { url: url.to_owned() }
        }
        error => failed(url, error),
    }
}

fn failed(url: &str, error: &dyn std::fmt::Display) -> AskError {
    AskError::Failed(format!("{url} cannot be asked: {error}"))
}
