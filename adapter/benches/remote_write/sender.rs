//! Sends prepared requests as Prometheus does: so many shards, each one request at a time on a
//! connection of its own, all fed in the order of the samples from queues of a few requests.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use adapter::wire::negotiate::Protocol;

use crate::bodies::Request;
use crate::remote;

/// Requests that wait in a shard's queue: Prometheus' `capacity` of 10,000 samples. One full queue
/// stops the feed, so no shard runs far ahead of another.
const QUEUE: usize = 5;
/// Prometheus tries for ever; a bench that meets this many refusals of one request is not one.
const TRIES_MAX: u32 = 100;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) elapsed: Duration,
    /// Answers that asked to try again.
    pub(crate) retries: u32,
}

/// A client that keeps connections and gives every status as an answer.
pub(crate) fn client() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// Sends all requests and returns when the last one is acknowledged.
pub(crate) fn send(
    url: &str,
    protocol: Protocol,
    shards: usize,
    requests: Vec<Request>,
) -> Result<Sent, String> {
    let started = Instant::now();
    let retries = std::thread::scope(|scope| {
        let mut queues = Vec::with_capacity(shards);
        let mut threads = Vec::with_capacity(shards);
        for _ in 0..shards {
            let (queue, waiting) = sync_channel(QUEUE);
            queues.push(queue);
            threads.push(scope.spawn(move || shard(url, protocol, &waiting)));
        }
        for request in requests {
            // A shard that gave up says why below.
            if queues[request.shard].send(request).is_err() {
                break;
            }
        }
        drop(queues);
        let ends = threads.into_iter().map(|thread| thread.join().unwrap());
        ends.sum::<Result<u32, String>>()
    })?;
    Ok(Sent { elapsed: started.elapsed(), retries })
}

fn shard(url: &str, protocol: Protocol, waiting: &Receiver<Request>) -> Result<u32, String> {
    let agent = client();
    let mut retries = 0;
    for request in waiting {
        retries += until_stored(&agent, url, protocol, &request)?;
    }
    Ok(retries)
}

fn until_stored(
    agent: &ureq::Agent,
    url: &str,
    protocol: Protocol,
    request: &Request,
) -> Result<u32, String> {
    let version = match protocol {
        Protocol::V1 => "0.1.0",
        Protocol::V2 => "2.0.0",
    };
    for tries in 0..TRIES_MAX {
        let mut answer = agent
            .post(url)
            .header("content-type", remote::content_type(protocol))
            .header("content-encoding", "snappy")
            .header("user-agent", "kanyun-bench")
            .header("x-prometheus-remote-write-version", version)
            .send(&request.body[..])
            .map_err(|error| format!("{url}: {error}"))?;
        let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            200..=299 => {
                let written = answer.headers().get("x-prometheus-remote-write-samples-written");
                let all = written.is_none_or(|count| *count == *request.samples.to_string());
                return if all {
                    Ok(tries)
                } else {
                    Err(format!("{url}: only {written:?} written"))
                };
            }
            500..=599 | 429 => std::thread::sleep(RETRY_AFTER),
            status => return Err(format!("{url}: answered {status}: {text}")),
        }
    }
    Err(format!("{url}: asked {TRIES_MAX} times to send one request again"))
}
