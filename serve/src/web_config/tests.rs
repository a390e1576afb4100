//! What the file may say, and what is refused.

use std::path::Path;

use super::{WebConfig, load};

fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

fn loaded(yaml: &str) -> Result<WebConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let path = folder.path().join("web.yml");
    std::fs::write(&path, yaml).unwrap();
    match load(&path) {
        Ok((config, _)) => Ok(config),
        Err(error) => Err(error.reason),
    }
}

/// A whole TLS part with one more line.
fn tls(line: &str) -> Result<WebConfig, String> {
    loaded(&format!("tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n  {line}\n"))
}

#[test]
fn an_empty_file_is_plain_http_for_everybody() {
    for yaml in ["", "# nothing\n", "tls_server_config: {}\nhttp_server_config: {}\n"] {
        assert!(loaded(yaml).unwrap().tls.is_none(), "{yaml}");
    }
}

#[test]
fn tls_with_files_beside_the_config_offers_http2_unless_told_not_to() {
    let config = tls("").unwrap().tls.unwrap();
    assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let yaml = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}
http_server_config: {http2: false}";
    let config = loaded(yaml).unwrap().tls.unwrap();
    assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
}

#[test]
fn inline_certificates_work() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let indent = |pem: String| pem.replace('\n', "\n    ");
    let (cert, key) = (indent(made.cert.pem()), indent(made.signing_key.serialize_pem()));
    let yaml = format!("tls_server_config:\n  cert: |\n    {cert}\n  key: |\n    {key}\n");
    assert!(loaded(&yaml).unwrap().tls.is_some());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (line, reason) in [
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", "cipher_suites is not supported"),
        ("curve_preferences: [X25519]", "curve_preferences is not supported"),
        ("client_allowed_sans: [a]", "client_allowed_sans is not supported"),
        ("min_version: TLS10", "versions below TLS12 are not supported"),
        ("max_version: SSL3", "max_version: SSL3 is not TLS12 or TLS13"),
        ("min_version: TLS13\n  max_version: TLS12", "min_version is above max_version"),
        ("client_auth_type: RequireAnyClientCert", "RequireAnyClientCert is not supported"),
        ("client_auth_type: RequireAndVerifyClientCert", "needs a client_ca_file"),
        ("client_auth_type: Sometimes", "client_auth_type Sometimes is not known"),
        ("client_ca_file: cert.pem", "does not ask for certificates"),
        ("client_ca_file: key.pem\n  client_auth_type: VerifyClientCertIfGiven", "no PEM cert"),
        ("cert: x", "cert and cert_file are both given"),
    ] {
        let error = tls(line).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
    for (yaml, reason) in [
        ("rate_limit: {burst: 1}", "rate_limit is not supported"),
        ("tls_server_config: {min_version: TLS13}", "cert_file is missing"),
        ("tls_server_config: {cert_file: cert.pem}", "key_file is missing"),
        ("tls_server_config: {key_file: key.pem}", "cert_file is missing"),
        ("tls_server_config: {cert_file: gone, key_file: key.pem}", "cannot read"),
        ("tls_server_config: {cert_file: key.pem, key_file: key.pem}", "no PEM certificate"),
        ("tls_server_config: {cert_file: cert.pem, key_file: cert.pem}", "no PEM private key"),
        ("tls_server_confg: {}", "tls_server_confg"),
        ("http_server_config: {http3: true}", "http3"),
        ("http_server_config: {headers: {X-Other: a}}", "X-Other cannot be set"),
        ("http_server_config: {headers: {X-Frame-Options: no}}", "must be deny or sameorigin"),
        ("basic_auth_users: {anna: plain}", "the hash of anna is not bcrypt"),
    ] {
        let error = loaded(yaml).unwrap_err();
        assert!(error.contains(reason), "{yaml}: {error}");
    }
}

#[test]
fn versions_and_client_certificates_that_are_supported() {
    for line in [
        "min_version: TLS12",
        "min_version: TLS13",
        "max_version: TLS12",
        "prefer_server_cipher_suites: false",
        "client_auth_type: NoClientCert",
        "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: cert.pem",
        "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: cert.pem",
    ] {
        assert!(tls(line).unwrap().tls.is_some(), "{line}");
    }
}

#[test]
fn headers_are_kept_with_their_values() {
    let yaml = "http_server_config: {headers: {X-Frame-Options: deny, X-XSS-Protection: ''}}";
    let headers = loaded(yaml).unwrap().headers;
    assert_eq!(headers.len(), 1);
    assert_eq!(headers["x-frame-options"], "deny");
}
