//! An operator's doors: what the store keeps, and a guest's rows as they stand in the ledger. The
//! program's own subcommands ask them.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serve::answer::{Aborted, Answer, Refusal, end_of_stream};
use serve::call::Call;
use serve::http::StatusCode;
use serve::routes::Routes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::parameters::{Parameters, wrong};
use super::refusal;
use crate::feed::Workers;
use crate::limits;
use crate::query::QueryError;
use crate::status::Observer;
use crate::usage::account::{Account, Wanted};
use crate::usage::printout::Line;
use crate::usage::{Minutes, Usage};
use crate::worker::roster::Worker;

/// Where a status is asked for.
pub const STATUS: &str = "/api/v1/status";
/// Where the ledger's rows are asked for.
pub const LEDGER: &str = "/api/v1/ledger";

/// Where the workers of 2012 are asked for.
pub const WORKERS: &str = "/api/v1/workers";

/// Parts of a printout that wait for a slow reader.
const PARTS_WAITING_MAX: usize = 2;

/// A path with a query of these parameters.
pub fn query(path: &str, given: impl Iterator<Item = (&'static str, String)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    format!("{path}?{query}")
}

/// Adds an operator's routes.
pub(super) fn routes(routes: Routes, observer: &Arc<Observer>, usage: &Arc<Usage>) -> Routes {
    let (observer, usage) = (Arc::clone(observer), Arc::clone(usage));
    routes
        .get(STATUS, move |call: Call| {
            let observer = Arc::clone(&observer);
            async move { Answer::from(status(observer, call).await) }
        })
        .get(LEDGER, move |call: Call| {
            let usage = Arc::clone(&usage);
            async move { Answer::from(ledger(usage, call).await) }
        })
}

/// Adds the route that tells of the workers of 2012.
pub(super) fn workers_route(routes: Routes, workers: Option<Workers>) -> Routes {
    routes.get(WORKERS, move |call: Call| {
        let answer = list_workers(workers.as_ref(), &call);
        async move { Answer::from(answer) }
    })
}

#[derive(Serialize)]
struct Listed {
    workers: Vec<Worker>,
}

fn list_workers(workers: Option<&Workers>, call: &Call) -> Result<Answer, Refusal> {
    Parameters::of(call, &[])?;
    let closed = || {
        let text = "the door for workers is closed: --legacy.ingest-address is empty";
        Refusal::client(StatusCode::NOT_FOUND, text.to_owned())
    };
    json(&Listed { workers: workers.ok_or_else(closed)?.list() })
}

async fn status(observer: Arc<Observer>, call: Call) -> Result<Answer, Refusal> {
    Parameters::of(&call, &[])?;
    json(&observer.status().await)
}

fn json(figures: &impl Serialize) -> Result<Answer, Refusal> {
    let mut body = serde_json::to_vec_pretty(figures)
        .map_err(|error| Refusal::internal("the answer cannot be written", error.to_string()))?;
    body.push(b'\n');
    Ok(Answer::bytes(StatusCode::OK, "application/json", Bytes::from(body)))
}

/// A guest's stored rows, one JSON object a line. What can be judged before the first rows is a
/// status; a fault after them aborts the connection.
async fn ledger(usage: Arc<Usage>, call: Call) -> Result<Answer, Refusal> {
    let wanted = wanted(&call, &usage)?;
    let open = timeout(limits::REPORT_DEADLINE, Account::open(&usage, wanted));
    let late = || QueryError::TryAgain("finding the guest took too long".to_owned());
    let account = open.await.unwrap_or_else(|_| Err(late())).map_err(refusal)?;
    let (sender, receiver) = mpsc::channel(PARTS_WAITING_MAX);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = timeout(limits::ANSWER_DEADLINE, send(account, &sender)) => {
                ended.unwrap_or_else(|_| Err("it took too long".to_owned()))
            }
            () = sender.closed() => Ok(()),
        };
        if let Err(why) = ended {
            // The sender goes without its last word, which aborts the connection.
            tracing::error!(%why, "a printout of the ledger was given up after its begin");
        }
    });
    Ok(Answer::stream(StatusCode::OK, "application/jsonl", receiver))
}

fn wanted(call: &Call, usage: &Usage) -> Result<Wanted, Refusal> {
    let mut given = Parameters::of(call, &["guest", "family", "from", "to"])?;
    let name = given.needed("guest")?;
    let families = given.families("family")?;
    let minutes = Minutes {
        from_ms: given.time("from")?.unwrap_or_else(|| usage.kept_from_ms()),
        to_ms: given.time("to")?.unwrap_or_else(|| usage.now_ms()),
    };
    if minutes.from_ms >= minutes.to_ms {
        return Err(wrong("from is not before to".to_owned()));
    }
    Ok(Wanted { name, families, minutes })
}

/// Sends all lines; a client that has gone away needs no more of them.
async fn send(
    mut account: Account,
    sender: &mpsc::Sender<Result<Bytes, Aborted>>,
) -> Result<(), String> {
    while let Some(lines) = account.next().await.map_err(|error| error.to_string())? {
        let part = json_lines(&lines).map_err(|error| error.to_string())?;
        // An empty frame would end the stream.
        if !part.is_empty() && sender.send(Ok(Bytes::from(part))).await.is_err() {
            return Ok(());
        }
    }
    drop(sender.send(end_of_stream()).await);
    Ok(())
}

fn json_lines(lines: &[Line]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}
