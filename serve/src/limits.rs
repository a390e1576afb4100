//! Every bound of the HTTP side, named, with its reason. What belongs to one route (the bytes of
//! its body) is the caller's to name.

use std::time::Duration;

/// Connections open at once. Prometheus keeps at most one a shard (50) and one a scraper, so this
/// leaves room for several senders; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 512;

/// How long a client may take to send the whole head of a request, the TLS handshake apart.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a TLS handshake may take.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a kept-alive connection may be idle; longer than a usual scrape interval of one
/// minute, so that Prometheus does not dial anew for each scrape.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(150);

/// How long without any progress after which a client that does not read its answer is dropped.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// How long without any byte after which a client that does not send its body is given up.
pub const BODY_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long from a request's head to the head of its answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// How long running requests have to finish after the stop signal.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client is told to wait after a passing fault of the service itself.
pub const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Bytes of a request's line and headers.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Bytes that an HTTP/1 connection reads ahead of who reads the body, and writes behind: enough
/// for a usual remote-write request in one piece.
pub const CONNECTION_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Headers of one HTTP/1 request: what hyper parses on the stack; any other number would cost it
/// an allocation a request.
pub const HEADERS_MAX: usize = 100;

/// Requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 64;

/// Bytes of the headers of one HTTP/2 request, decompressed.
pub const HTTP2_HEADER_BYTES_MAX: u32 = 16 * 1024;

/// How often an HTTP/2 client is asked whether it is still there; hyper gives it 20 s to answer.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_mins(1);

/// Bytes of a refusal's text: Prometheus reads no more than this of an error body.
pub const REFUSAL_BYTES_MAX: usize = 1024;

/// Bytes of the settings file and of the web config file.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Verified user and password pairs that are remembered.
pub const VERIFIED_USERS_MAX: usize = 128;

/// Password checks at once: each costs a core for tens of milliseconds.
pub const PASSWORD_CHECKS_MAX: usize = 2;

/// What an operator of one binary may set of these bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once.
    pub connections: usize,
    /// From the first byte of a request's head to its last.
    pub header_read_timeout: Duration,
    /// From a request's head to the head of its answer; 503 after it.
    pub request_timeout: Duration,
    /// From the stop signal to the end of the last running request.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            header_read_timeout: HEADER_READ_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
        }
    }
}
