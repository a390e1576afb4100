//! The web config file in action: TLS 1.2 and 1.3, HTTP/2, client certificates, basic auth, and
//! changed files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serve::answer::Answer;
use serve::http::{Request, StatusCode, Version};
use serve::limits::Limits;
use serve::routes::Routes;
use serve::server::Server;
use serve::sockets::Sockets;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::running::{PATIENCE, Reply, Running, flags, read_to_end};

const GET: &[u8] = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn hello() -> Routes {
    Routes::new().get("/hello", async |_| Answer::text(StatusCode::OK, "hello"))
}

/// A certificate of its own maker, written where the web config looks for it.
fn certificate(folder: &Path) -> CertifiedKey<KeyPair> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made
}

fn web_config(folder: &Path, rest: &str) -> PathBuf {
    let path = folder.join("web.yml");
    let tls = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n";
    std::fs::write(&path, format!("{tls}{rest}")).unwrap();
    path
}

async fn start(web: PathBuf) -> Running {
    Running::with(hello(), Limits::default(), Some(web)).await
}

struct Client<'c> {
    trusted: &'c CertificateDer<'static>,
    own: Option<&'c CertifiedKey<KeyPair>>,
    version: &'static SupportedProtocolVersion,
    protocol: &'static [u8],
}

impl<'c> Client<'c> {
    fn trusting(trusted: &'c CertificateDer<'static>) -> Self {
        Self { trusted, own: None, version: &rustls::version::TLS13, protocol: b"http/1.1" }
    }

    async fn connect(&self, running: &Running) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.signing_key.serialize_pem().as_bytes());
                builder.with_client_auth_cert(vec![own.cert.der().clone()], key.unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![self.protocol.to_vec()];
        let stream = TcpStream::connect(running.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The body of an answer, or nothing when the service did not want to talk.
    async fn hello(&self, running: &Running) -> Option<String> {
        let mut stream = self.connect(running).await.ok()?;
        stream.write_all(GET).await.ok()?;
        let reply = Reply::of(&read_to_end(stream).await);
        (reply.status == 200).then_some(reply.body)
    }
}

#[tokio::test]
async fn both_versions_of_tls_and_the_chosen_one_only() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let client = Client::trusting(made.cert.der());
    let older = Client { version: &rustls::version::TLS12, ..Client::trusting(made.cert.der()) };

    let running = start(web_config(folder.path(), "")).await;
    assert_eq!(client.hello(&running).await.as_deref(), Some("hello"));
    assert_eq!(older.hello(&running).await.as_deref(), Some("hello"));
    assert!(!running.raw(GET).await.contains("200 OK"), "plain HTTP must not be answered");
    running.end().await.unwrap();

    let running = start(web_config(folder.path(), "  min_version: TLS13\n")).await;
    assert_eq!(client.hello(&running).await.as_deref(), Some("hello"));
    assert_eq!(older.hello(&running).await, None);
    running.end().await.unwrap();
}

#[tokio::test]
async fn http2_is_spoken_with_who_offers_it() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let running = start(web_config(folder.path(), "")).await;
    let client = Client { protocol: b"h2", ..Client::trusting(made.cert.der()) };
    let stream = TokioIo::new(client.connect(&running).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || Request::get("https://localhost/hello").body(Empty::<Bytes>::new()).unwrap();
    for _ in 0..2 {
        let response = sender.send_request(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.version(), Version::HTTP_2);
    }
    // An open connection without requests does not hold up the end.
    running.end().await.unwrap();
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().ok();
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let made = certificate(folder.path());
    let known = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    std::fs::write(folder.path().join("ca.pem"), known.cert.pem()).unwrap();
    for (kind, nobody_may) in
        [("RequireAndVerifyClientCert", false), ("VerifyClientCertIfGiven", true)]
    {
        let rest = format!("  client_auth_type: {kind}\n  client_ca_file: ca.pem\n");
        let running = start(web_config(folder.path(), &rest)).await;
        let with = |own| Client { own, ..Client::trusting(made.cert.der()) };
        assert!(with(Some(&known)).hello(&running).await.is_some(), "{kind}");
        assert!(with(Some(&stranger)).hello(&running).await.is_none(), "{kind}");
        assert_eq!(with(None).hello(&running).await.is_some(), nobody_may, "{kind}");
        running.end().await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let old = certificate(folder.path());
    let running = start(web_config(folder.path(), "")).await;
    assert!(Client::trusting(old.cert.der()).hello(&running).await.is_some());
    let new = certificate(folder.path());
    let started = Instant::now();
    while Client::trusting(new.cert.der()).hello(&running).await.is_none() {
        assert!(started.elapsed() < PATIENCE, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(Client::trusting(old.cert.der()).hello(&running).await.is_none());
    std::fs::write(folder.path().join("cert.pem"), "broken").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(Client::trusting(new.cert.der()).hello(&running).await.is_some());
    running.end().await.unwrap();
}

#[tokio::test]
async fn basic_auth_guards_every_path_and_follows_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    let write = |password: &str| {
        let hash = bcrypt::hash(password, 4).unwrap();
        let headers = "http_server_config: {headers: {X-Frame-Options: deny}}";
        std::fs::write(&path, format!("basic_auth_users: {{anna: '{hash}'}}\n{headers}\n"))
            .unwrap();
    };
    write("sesame");
    let running = start(path.clone()).await;
    let basic = |pair: &str| format!("Authorization: Basic {}", STANDARD.encode(pair));
    for (header, status) in [
        (basic("anna:sesame"), 200),
        (basic("anna:sesame"), 200),
        (basic("anna:wrong"), 401),
        (basic("bert:sesame"), 401),
        ("X-None: 1".to_owned(), 401),
    ] {
        for path in ["/hello", "/-/healthy"] {
            let reply = running.ask("GET", path, &[&header]).await;
            assert_eq!(reply.status, status, "{header} {path}");
            assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{header}");
            assert_eq!(reply.header("x-frame-options"), Some("deny"));
        }
    }
    write("changed");
    let started = Instant::now();
    while running.ask("GET", "/hello", &[&basic("anna:changed")]).await.status != 200 {
        assert!(started.elapsed() < PATIENCE, "the new password is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(running.ask("GET", "/hello", &[&basic("anna:sesame")]).await.status, 401);
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_web_config_that_cannot_be_used_names_its_file_and_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = web_config(folder.path(), "");
    for result in [
        Server::bind(&flags("127.0.0.1:0", Some(path.clone())), Sockets::none()).await.map(|_| ()),
        Server::check(&flags("127.0.0.1:0", Some(path.clone()))).await,
    ] {
        let error = result.unwrap_err().to_string();
        let expected = format!("web config file {}: cannot read ", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
