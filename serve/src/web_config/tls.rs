//! The `tls_server_config` part of the web config file, as a rustls configuration.
//! It must not know users or headers.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Files;

/// The part as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    cert: Option<String>,
    cert_file: Option<String>,
    key: Option<String>,
    key_file: Option<String>,
    client_ca: Option<String>,
    client_ca_file: Option<String>,
    client_auth_type: Option<String>,
    min_version: Option<String>,
    max_version: Option<String>,
    prefer_server_cipher_suites: Option<bool>,
    cipher_suites: Option<IgnoredAny>,
    curve_preferences: Option<IgnoredAny>,
    client_allowed_sans: Option<IgnoredAny>,
}

impl Written {
    /// `Ok(None)` when the part is empty: then the service speaks plain HTTP.
    pub(super) fn build(
        self,
        folder: &Path,
        files: &mut Files,
        http2: bool,
    ) -> Result<Option<Arc<ServerConfig>>, String> {
        self.refuse_unsupported()?;
        let mut pem = |name: &str, inline: Option<&String>, file: Option<&String>| match (
            filled(inline),
            filled(file),
        ) {
            (Some(_), Some(_)) => Err(fault(&format!("{name} and {name}_file are both given"))),
            (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
            (None, Some(file)) => files.read(&folder.join(file)).map(Some),
            (None, None) => Ok(None),
        };
        let cert = pem("cert", self.cert.as_ref(), self.cert_file.as_ref())?;
        let key = pem("key", self.key.as_ref(), self.key_file.as_ref())?;
        let client_ca = pem("client_ca", self.client_ca.as_ref(), self.client_ca_file.as_ref())?;
        let (cert, key) = match (cert, key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) if self.is_empty() => return Ok(None),
            (None, _) => return Err(fault("cert_file is missing")),
            (_, None) => return Err(fault("key_file is missing")),
        };

        let versions = versions(self.min_version.as_deref(), self.max_version.as_deref())?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&versions)
            .map_err(|error| fault(&error.to_string()))?;
        let builder = match client_verifier(filled(self.client_auth_type.as_ref()), client_ca)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(certificates("the certificate", &cert)?, private_key(&key)?)
            .map_err(|error| fault(&format!("certificate and key do not fit: {error}")))?;
        config.ignore_client_order = self.prefer_server_cipher_suites.unwrap_or(true);
        let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Some(Arc::new(config)))
    }

    fn refuse_unsupported(&self) -> Result<(), String> {
        let given = [
            ("cipher_suites", self.cipher_suites.is_some()),
            ("curve_preferences", self.curve_preferences.is_some()),
            ("client_allowed_sans", self.client_allowed_sans.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(fault(&format!("{name} is not supported; remove it"))),
            None => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        let texts = [
            &self.client_ca,
            &self.client_ca_file,
            &self.client_auth_type,
            &self.min_version,
            &self.max_version,
        ];
        texts.into_iter().all(|text| filled(text.as_ref()).is_none())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS 1.2 and 1.3; older versions are refused, for they are broken and rustls has none.
fn versions(
    min: Option<&str>,
    max: Option<&str>,
) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |name: &str, text: Option<&str>, default: u8| match text {
        None | Some("") => Ok(default),
        Some("TLS12") => Ok(2),
        Some("TLS13") => Ok(3),
        Some("TLS10" | "TLS11") => {
            Err(fault(&format!("{name}: versions below TLS12 are not supported")))
        }
        Some(other) => Err(fault(&format!("{name}: {other} is not TLS12 or TLS13"))),
    };
    let (min, max) = (number("min_version", min, 2)?, number("max_version", max, 3)?);
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let chosen: Vec<_> =
        all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, v)| v).collect();
    if chosen.is_empty() {
        return Err(fault("min_version is above max_version"));
    }
    Ok(chosen)
}

/// The names are those of Go's crypto/tls. Two of them ask for certificates that nobody checks,
/// which is a false comfort and not to be had here.
fn client_verifier(
    kind: Option<&str>,
    client_ca: Option<Vec<u8>>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let required = match kind {
        None | Some("NoClientCert") if client_ca.is_some() => {
            return Err(fault(
                "client_ca_file is given, but client_auth_type does not ask for certificates",
            ));
        }
        None | Some("NoClientCert") => return Ok(None),
        Some("VerifyClientCertIfGiven") => false,
        Some("RequireAndVerifyClientCert") => true,
        Some(kind @ ("RequestClientCert" | "RequireAnyClientCert")) => {
            return Err(fault(&format!(
                "client_auth_type {kind} is not supported; use RequireAndVerifyClientCert"
            )));
        }
        Some(other) => return Err(fault(&format!("client_auth_type {other} is not known"))),
    };
    let Some(pem) = client_ca else {
        return Err(fault("client_auth_type needs a client_ca_file"));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_file", &pem)? {
        roots.add(certificate).map_err(|error| fault(&format!("client_ca_file: {error}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(Some).map_err(|error| fault(&format!("client_ca_file: {error}")))
}

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(fault(&format!("{name} has no PEM certificate"))),
        Ok(found) => Ok(found),
        Err(error) => Err(fault(&format!("{name} is not PEM: {error}"))),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| fault(&format!("the key is no PEM private key: {error}")))
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn fault(reason: &str) -> String {
    format!("tls_server_config: {reason}")
}
