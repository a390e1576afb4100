//! Who may use the cluster: TLS, users, certificates and clocks. Whatever is wrong is said in words
//! that an operator can act on.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::store::rows::{
    LedgerColumn, LedgerMinute, LedgerRow, MarkerRow, Projection, SealMark, Sealed, Shard,
};

fn certificate(name: &str) -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([name.to_owned()]).unwrap()
}

fn expired(name: &str) -> CertifiedKey<KeyPair> {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let signing_key = KeyPair::generate().unwrap();
    CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key }
}

/// A node that takes TLS, users, and of them only those who have a certificate that it knows.
async fn guarded(
    folder: &Path,
    made: &CertifiedKey<KeyPair>,
    known: &CertifiedKey<KeyPair>,
) -> Option<Node> {
    let [keystore, truststore] = ["node.pem", "known.pem"].map(|name| folder.join(name));
    let pem = format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem());
    std::fs::write(&keystore, pem).unwrap();
    std::fs::write(&truststore, known.cert.pem()).unwrap();
    let (keystore, truststore) = (keystore.display(), truststore.display());
    let yaml = format!(
        "authenticator: PasswordAuthenticator\n\
         client_encryption_options:\n  enabled: true\n  optional: false\n  \
         ssl_context_factory: {{class_name: org.apache.cassandra.security.PEMBasedSslContextFactory}}\n  \
         keystore: {keystore}\n  require_client_auth: true\n  truststore: {truststore}\n"
    );
    Node::start(Plan { yaml, ..Plan::alone() }).await
}

/// The superuser of a new cluster is made after the node answers.
async fn open_patiently(settings: &CassandraSettings) -> Cassandra {
    let mut tries = 0;
    loop {
        match Cassandra::open(settings.clone(), Clock::system()).await {
            Ok(store) => return store,
            Err(error) => {
                tries += 1;
                assert!(tries < 120, "{error}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_cluster_with_tls_and_users() {
    let folder = tempfile::tempdir().unwrap();
    let (made, ours) = (certificate("127.0.0.1"), certificate("adapter.example"));
    let Some(node) = guarded(folder.path(), &made, &ours).await else { return };
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let identity = |name: &str, of: &CertifiedKey<KeyPair>| {
        let key = file(&format!("{name}.key"), &of.signing_key.serialize_pem());
        Some((file(&format!("{name}.pem"), &of.cert.pem()), key))
    };
    let ca_file = file("ca.pem", &made.cert.pem());
    let of_ours = identity("ours", &ours);
    let trusting = |ca_file: &Path, identity: &Option<(PathBuf, PathBuf)>| {
        let (ca_file, identity) = (Some(ca_file.to_owned()), identity.clone());
        Some(TlsClient { ca_file, identity, server_name: None })
    };
    let password = file("password", "cassandra\n");
    let good = CassandraSettings {
        tls: trusting(&ca_file, &of_ours),
        login: Some(("cassandra".to_owned(), password)),
        ..settings(&node, "guarded")
    };
    let store = open_patiently(&good).await;
    let now_ms = Clock::system().now_ms();
    let head = vec![head_row(1, now_ms, Bytes::from_static(b"over TLS"))];
    store.append(Rows { head, ..Rows::default() }).await.unwrap();
    let hour = Hour::of(now_ms);
    assert_eq!(store.head(Group(1), (hour, hour), 9).await.unwrap(), [&b"over TLS"[..]]);
    wait_until_ready(&store).await;

    let wrong = Some(("cassandra".to_owned(), file("wrong", "sesame")));
    let error = refused(CassandraSettings { login: wrong, ..good.clone() }).await;
    assert!(error.contains("check --cassandra.user and --cassandra.password-file"), "{error}");
    let error = refused(CassandraSettings { login: None, ..good.clone() }).await;
    assert!(error.contains("check --cassandra.user and --cassandra.password-file"), "{error}");

    let other = file("other.pem", &certificate("127.0.0.1").cert.pem());
    let tls = trusting(&other, &of_ours);
    let error = refused(CassandraSettings { tls, ..good.clone() }).await;
    assert!(error.contains("check --cassandra.tls-ca-file"), "{error}");
    for unknown in [None, identity("unknown", &certificate("adapter.example"))] {
        let tls = trusting(&ca_file, &unknown);
        let error = refused(CassandraSettings { tls, ..good.clone() }).await;
        assert!(error.contains("--cassandra.tls-cert-file and -key-file"), "{error}");
        assert!(error.contains("trust that one"), "{error}");
    }
    let nowhere = folder.path().join("nowhere.pem");
    let tls = trusting(&nowhere, &of_ours);
    let error = refused(CassandraSettings { tls, ..good.clone() }).await;
    assert!(error.contains("nowhere.pem cannot be used"), "{error}");
    let plain = CassandraSettings { tls: None, connect: Duration::from_secs(3), ..good };
    let error = refused(plain).await;
    assert!(error.contains("--cassandra.tls"), "{error}");
}

/// TLS in front of the shared node, with a certificate of the test's own.
async fn in_front(node: &'static Node, made: &CertifiedKey<KeyPair>) -> String {
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust it goes away.
                let Ok(mut secure) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(&node.address).await.unwrap();
                tokio::io::copy_bidirectional(&mut secure, &mut plain).await.ok();
            });
        }
    });
    address
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_named() {
    let Some(node) = node().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let through = async |made: &CertifiedKey<KeyPair>, server_name: Option<&str>| {
        let address = in_front(node, made).await;
        let ca_file = folder.path().join(address.replace(':', "-"));
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let server_name = server_name.map(str::to_owned);
        let tls = Some(TlsClient { ca_file: Some(ca_file), server_name, identity: None });
        let settings =
            CassandraSettings { nodes: vec![address], tls, ..settings(node, "certificates") };
        Cassandra::open(settings, Clock::system()).await
    };
    through(&certificate("127.0.0.1"), None).await.unwrap();
    let error = through(&expired("127.0.0.1"), None).await.unwrap_err().to_string();
    assert!(error.contains("renew the node's certificate"), "{error}");
    let of_name = certificate("cassandra.example");
    through(&of_name, Some("cassandra.example")).await.unwrap();
    let error = through(&of_name, None).await.unwrap_err().to_string();
    assert!(error.contains("--cassandra.tls-server-name"), "{error}");
    let error = through(&of_name, Some("db.example")).await.unwrap_err().to_string();
    assert!(error.contains("--cassandra.tls-server-name"), "{error}");
}

/// Neither ready nor able to write or to move anything on that all adapters share.
#[tokio::test]
async fn a_clock_that_is_a_minute_off_changes_nothing() {
    let Some(node) = node().await else { return };
    let clock_difference_max = limits::CLUSTER_CLOCK_DIFFERENCE_MAX;
    let settings = CassandraSettings { clock_difference_max, ..settings(node, "clocks") };
    let now_ms = Clock::system().now_ms();
    let clock = Clock::fixed(now_ms - 120_000);
    let store = Cassandra::open(settings.clone(), clock.clone()).await.unwrap();
    let error = store.ready().unwrap_err();
    assert!(error.contains(&node.address) && error.contains("ahead of ours"), "{error}");
    assert!(error.contains("NTP"), "{error}");

    let right = Cassandra::open(settings, Clock::system()).await.unwrap();
    wait_until_ready(&right).await;
    right.begin_seal_mark(Shard(0), Hour(5)).await.unwrap();
    // It is right, and jumps: no look at the cluster comes between.
    clock.set(Clock::system().now_ms());
    wait_until_ready(&store).await;
    for wrong_ms in [now_ms + DAY_MS, now_ms - DAY_MS] {
        clock.set(wrong_ms);
        let head = vec![head_row(1, wrong_ms, Bytes::from_static(b"x"))];
        let error = store.append(Rows { head, ..Rows::default() }).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("NTP")), "{error:?}");
        let marker = MarkerRow { group: Group(1), window: Hour(5) };
        let sealed = Sealed { markers: vec![marker], ..Sealed::default() };
        assert!(store.seal(sealed).await.unwrap_err().to_string().contains("NTP"));
        for mark in [SealMark::Begun, SealMark::Sealed(Shard(0)), SealMark::Checked(Shard(0))] {
            let moved = store.set_seal_mark(mark, Hour::of(wrong_ms)).await;
            assert!(moved.unwrap_err().to_string().contains("NTP"));
        }
        let begun = store.begin_seal_mark(Shard(1), Hour::of(wrong_ms)).await;
        assert!(begun.unwrap_err().to_string().contains("NTP"));
        assert_eq!(right.seal_mark(SealMark::Begun).await.unwrap(), None);
        assert_eq!(right.seal_mark(SealMark::Sealed(Shard(0))).await.unwrap(), Some(Hour(5)));
        assert_eq!(right.seal_mark(SealMark::Sealed(Shard(1))).await.unwrap(), None);
    }
}

/// A node that counts the ends of rows by 32 bits, as Cassandra 5 does where nothing else is said.
#[tokio::test]
async fn no_row_ends_later_than_a_cluster_counts() {
    let yaml =
        "storage_compatibility_mode: CASSANDRA_4\nsstable: {selected_format: big}\n".to_owned();
    let Some(node) = Node::start(Plan { yaml, ..Plan::alone() }).await else { return };
    let years = |years: u64| Duration::from_secs(years * 365 * 86_400);
    let settings = CassandraSettings {
        retention: years(12),
        ledger_retention: years(18),
        ..settings(&node, "bounded")
    };
    let store = open(settings).await;
    let now_ms = Clock::system().now_ms();
    let (week, hour) = (Week::of(now_ms), Hour::of(now_ms));
    let index = vec![index_row(week, 1)];
    store.append(Rows { index, ..Rows::default() }).await.unwrap();
    let minute = LedgerMinute { minute: 1, value: 2.0, samples: 1, resets: 0, flags: 0 };
    let columns = vec![LedgerColumn { name: "total".to_owned(), minutes: vec![minute] }];
    let row = LedgerRow { family: "cpu".to_owned(), guest: "u".to_owned(), hour, columns };
    let ledger = vec![Projection { turn: store.turns(1).await.unwrap(), rows: vec![row.clone()] }];
    let markers = vec![MarkerRow { group: Group(1), window: hour }];
    store.seal(Sealed { ledger, markers, ..Sealed::default() }).await.unwrap();
    assert_eq!(store.ledger("cpu", "u", (hour, hour), 9).await.unwrap(), [row]);
    let session = operator(&node).await;
    let cql = "SELECT TTL(value) FROM bounded.cpu LIMIT 1";
    let answer = session.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
    let (ttl,) = answer.first_row::<(i32,)>().unwrap();
    let end_s = now_ms / 1000 + i64::from(ttl);
    let most = i64::from(i32::MAX);
    assert!((most - 2 * 86_400..most).contains(&end_s), "{end_s}");
}
