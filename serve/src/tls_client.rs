//! TLS towards another service: whom to trust, and who we are. It must not know what is spoken.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Where most Linux distributions keep the certificates that a machine trusts.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Files of a connection with TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsClient {
    /// The certificates to trust, PEM; those of the machine where there is none.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key, PEM, where the other side asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the other side's certificate must be for, in place of the one that it is
    /// connected to by.
    pub server_name: Option<String>,
}

impl TlsClient {
    /// Reads the files. An error names the file and what is wrong with it.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut trusted = RootCertStore::empty();
        let file = self.ca_file.as_deref().unwrap_or(Path::new(TRUSTED));
        for certificate in certificates(file)? {
            trusted.add(certificate).map_err(|error| wrong(file, &error))?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider))
                .build()
                .map_err(|error| wrong(file, &error))?;
        let verifier: Arc<dyn ServerCertVerifier> = match &self.server_name {
            None => verifier,
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|error| format!("{name:?} is no name of a server: {error}"))?;
                Arc::new(Named { name, verifier, provider: Arc::clone(&provider) })
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            // Ours is the library's own verifier, for another name.
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert_file, key_file)) => {
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| wrong(key_file, &error))?;
                builder
                    .with_client_auth_cert(certificates(cert_file)?, key)
                    .map_err(|error| wrong(cert_file, &error))?
            }
        };
        Ok(Arc::new(config))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(file, &error))?;
    let certificates: Vec<_> =
        read.collect::<Result<_, _>>().map_err(|error| wrong(file, &error))?;
    if certificates.is_empty() {
        return Err(wrong(file, &"it has no certificate"));
    }
    Ok(certificates)
}

fn wrong(file: &Path, why: &dyn fmt::Display) -> String {
    format!("{} cannot be used: {why}; name a PEM file", file.display())
}

/// Checks a certificate as ever, but for a name of our own choice: nodes of a cluster are connected
/// to by address, and many share a certificate for a name.
#[derive(Debug)]
struct Named {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
