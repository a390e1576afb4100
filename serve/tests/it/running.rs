//! A service that runs for one test, and a client that shows every byte of an answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use prometheus_client::registry::Registry;
use serve::limits::Limits;
use serve::own_metrics::OwnMetrics;
use serve::readiness::Readiness;
use serve::routes::Routes;
use serve::server::{ServeError, Server, Service, Shutdown, ShutdownHandle};
use serve::settings::ServiceFlags;
use serve::sockets::Sockets;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// No answer of a test takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    service: ServiceFlags,
}

pub(crate) fn flags(address: &str, web_config: Option<PathBuf>) -> ServiceFlags {
    let mut flags = Flags::parse_from(["test", "--web.listen-address", address]).service;
    flags.web_config_file = web_config;
    flags
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// All of them, that one first.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) stop: ShutdownHandle,
    pub(crate) registry: Arc<Registry>,
    pub(crate) ended: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    pub(crate) async fn start(routes: Routes) -> Self {
        Self::with(routes, Limits::default(), None).await
    }

    pub(crate) async fn with(routes: Routes, limits: Limits, web: Option<PathBuf>) -> Self {
        Self::listening("127.0.0.1:0", (routes, limits, web)).await
    }

    /// On several addresses, with commas between them.
    pub(crate) async fn listening(
        addresses: &str,
        (routes, limits, web): (Routes, Limits, Option<PathBuf>),
    ) -> Self {
        let mut registry = Registry::default();
        let own_metrics = OwnMetrics::register(&mut registry, "kanyun_test", "1.2.3", "abc");
        let server = Server::bind(&flags(addresses, web), Sockets::none()).await.unwrap();
        let addresses = server.local_addresses().to_vec();
        let address = addresses[0];
        let (stop, shutdown) = Shutdown::manual();
        let readiness = Readiness::new(|| Ok(()));
        let service = Service { routes, readiness, own_metrics, limits };
        let ended = tokio::spawn(server.run(service, shutdown));
        Self { address, addresses, stop, registry: Arc::new(registry), ended }
    }

    /// Sends the bytes and reads until the service closes the connection.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        read_to_end(stream).await
    }

    /// One request on a connection of its own, with further header lines.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[&str]) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        Reply::of(&self.raw(request).await)
    }

    pub(crate) async fn end(self) -> Result<(), ServeError> {
        self.stop.request();
        tokio::time::timeout(PATIENCE, self.ended).await.unwrap().unwrap()
    }
}

/// What the service sent before it closed; a reset ends it as an end does.
pub(crate) async fn read_to_end(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let all = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("the service never closed the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header; its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &'_ &str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        self.head.lines().find(named).map(|line| &line[name.len() + 2..])
    }
}
