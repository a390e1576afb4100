//! The client of the commands against a real service: TLS with a certificate of its own, a user, and
//! what it says where there is no answer.

use std::io::Read as _;
use std::path::Path;

use serve::answer::{Answer, Refusal};
use serve::client::{self, Access, AskError};
use serve::http::StatusCode;
use serve::limits::Limits;
use serve::routes::Routes;

use crate::running::Running;

fn routes() -> Routes {
    Routes::new()
        .get("/hello", async |call: serve::call::Call| {
            Answer::text(StatusCode::OK, call.query().unwrap_or_default())
        })
        .get("/wrong", async |_| {
            Answer::from(Refusal::client(StatusCode::BAD_REQUEST, "that is wrong"))
        })
}

/// A service that speaks TLS and knows one user; the files are in the folder.
async fn guarded(folder: &Path) -> Running {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("password"), "sesame\n").unwrap();
    let hash = bcrypt::hash("sesame", 4).unwrap();
    let tls = "tls_server_config: {cert_file: cert.pem, key_file: key.pem}";
    let web = format!("{tls}\nbasic_auth_users: {{anna: '{hash}'}}\n");
    std::fs::write(folder.join("web.yml"), web).unwrap();
    Running::with(routes(), Limits::default(), Some(folder.join("web.yml"))).await
}

async fn asked(access: &Access, path: &'static str) -> Result<String, AskError> {
    let access = access.clone();
    let asking = move || {
        let mut text = String::new();
        client::get(&access, path)?.read_to_string(&mut text).unwrap();
        Ok(text)
    };
    tokio::task::spawn_blocking(asking).await.unwrap()
}

#[tokio::test]
async fn a_service_with_tls_and_users_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let running = guarded(folder.path()).await;
    let access = Access {
        url: format!("https://localhost:{}/", running.address.port()),
        login: Some(("anna".to_owned(), folder.path().join("password"))),
        ca_file: Some(folder.path().join("cert.pem")),
    };
    assert_eq!(asked(&access, "/hello?a=b").await.unwrap(), "a=b");
    for (access, path, part) in [
        (Access { login: None, ..access.clone() }, "/hello", "asks for a user"),
        (
            Access { ca_file: Some(folder.path().join("key.pem")), ..access.clone() },
            "/hello",
            "it has none; name a PEM file",
        ),
        (
            Access { ca_file: Some(folder.path().join("none.pem")), ..access.clone() },
            "/hello",
            "none.pem cannot be read",
        ),
        (
            Access {
                login: Some(("anna".to_owned(), folder.path().join("none"))),
                ..access.clone()
            },
            "/hello",
            "none cannot be read",
        ),
        (access.clone(), "/wrong", "answered 400: that is wrong"),
        (access.clone(), "/missing", "has no /missing"),
    ] {
        let error = asked(&access, path).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part}\n{error}");
    }
    // Trusted by nobody else.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("other.pem"), other.cert.pem()).unwrap();
    let stranger = Access { ca_file: Some(folder.path().join("other.pem")), ..access };
    let error = asked(&stranger, "/hello").await.unwrap_err();
    assert!(matches!(error, AskError::Failed(_)), "{error}");
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_from_other_trouble() {
    let running = Running::start(routes()).await;
    let url = format!("http://{}", running.address);
    let access = Access { url: url.clone(), ..Access::default() };
    assert_eq!(asked(&access, "/hello").await.unwrap(), "");
    running.end().await.unwrap();
    let error = asked(&access, "/hello").await.unwrap_err();
    assert!(matches!(&error, AskError::NobodyListens { url: at } if *at == url), "{error}");
    let nonsense = Access { url: "localhost:1".to_owned(), ..Access::default() };
    assert!(matches!(asked(&nonsense, "/").await, Err(AskError::Failed(_))));
}
