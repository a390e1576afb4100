//! Billing's doors: the 2012 API by its own body shapes, and a guest's minutes as a page.
//! Judges parameters; what is counted, `usage` knows.

use std::sync::Arc;

use bytes::Bytes;
use serve::answer::{Aborted, Answer, Refusal, end_of_stream};
use serve::call::Call;
use serve::http::StatusCode;
use serve::http::header::ACCEPT;
use serve::routes::Routes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::parameters::{Parameters, wrong};
use super::refusal;
use crate::ledger::{Family, Row};
use crate::legacy::{Devices, Door};
use crate::limits;
use crate::metrics::{RequestDoor, RequestOutcome};
use crate::query::QueryError;
use crate::usage::minutes::{Form, Page, Title};
use crate::usage::{Asked, Minutes, Slices, Usage};

/// Adds billing's routes.
pub(super) fn routes(routes: Routes, usage: &Arc<Usage>) -> Routes {
    let [any, report, minutes] = [(); 3].map(|()| Arc::clone(usage));
    routes
        .post("/", move |call: Call| {
            let usage = Arc::clone(&any);
            async move { Answer::from(legacy(&usage, call, Door::Any).await) }
        })
        .post("/query_usage_report", move |call: Call| {
            let usage = Arc::clone(&report);
            async move { Answer::from(legacy(&usage, call, Door::UsageReport).await) }
        })
        .get("/api/v1/usage", move |call: Call| {
            let usage = Arc::clone(&minutes);
            async move { Answer::from(page(usage, call).await) }
        })
}

/// Status 200 with the code inside: old clients look only there (kanyun-legacy.md, "Over HTTP").
async fn legacy(usage: &Arc<Usage>, call: Call, door: Door) -> Result<Answer, Refusal> {
    let (_, body) = call.body(limits::BILLING_BODY_BYTES_MAX).await?;
    let count = |outcome| usage.requests().count(RequestDoor::Http, outcome);
    let (envelope, answer) = usage.legacy(&body, door).await.map_err(|error| {
        count(RequestOutcome::Malformed);
        Refusal::client(StatusCode::BAD_REQUEST, error.to_string())
    })?;
    count(RequestOutcome::of(&answer));
    let body = answer
        .to_json(&envelope)
        .map_err(|error| Refusal::internal("the answer cannot be written", error.to_string()))?;
    Ok(Answer::bytes(StatusCode::OK, "application/json", Bytes::from(body)))
}

/// What a page was asked for.
#[derive(Debug)]
struct Wanted {
    id: String,
    families: Vec<Family>,
    devices: Devices,
    minutes: Minutes,
    form: Form,
}

/// A guest's minutes. Everything that can be judged before the first rows is a status; a fault
/// after them aborts the connection, so that nobody takes a part for the whole.
async fn page(usage: Arc<Usage>, call: Call) -> Result<Answer, Refusal> {
    let wanted = wanted(&call, usage.now_ms())?;
    let page = Page::new(wanted.form, usage.settled_until_ms());
    let first = async {
        let guest = usage.guest(&wanted.id, &wanted.families, wanted.minutes).await?;
        let (minutes, kept_from_ms) = (wanted.minutes, usage.kept_from_ms());
        let title = Title { guest: guest.as_ref(), minutes, kept_from_ms };
        let begin = page.begin(&title).map_err(|error| QueryError::Damaged(error.to_string()))?;
        let mut all = Vec::new();
        if let Some(guest) = guest {
            for &family in &wanted.families {
                let (guest, devices) = (guest.clone(), wanted.devices.clone());
                let asked = Asked { guest, family, devices, minutes };
                all.push((family, Slices::new(&usage, asked)));
            }
        }
        // The first day tells whether the rest can be expected to go well.
        let rows = match all.first_mut() {
            Some((_, slices)) => slices.next().await?,
            None => None,
        };
        Ok((begin, rows, all))
    };
    let late = || QueryError::TryAgain("the first day took too long".to_owned());
    let first = timeout(limits::REPORT_DEADLINE, first).await.unwrap_or_else(|_| Err(late()));
    let (begin, rows, all) = first.map_err(|error| {
        usage.reported(false);
        refusal(error)
    })?;
    let content_type = match wanted.form {
        Form::Json => "application/json",
        Form::Csv => "text/csv; charset=utf-8",
    };
    let (sender, receiver) = mpsc::channel(DAYS_WAITING_MAX);
    tokio::spawn(async move {
        let whole = send(page, begin, (rows, all), &sender);
        let ended = tokio::select! {
            ended = timeout(limits::ANSWER_DEADLINE, whole) => {
                ended.unwrap_or_else(|_| Err(Stopped::Fault("it took too long".to_owned())))
            }
            // Days without rows send nothing, and would not notice it.
            () = sender.closed() => Err(Stopped::Gone),
        };
        usage.reported(ended.is_ok());
        if let Err(Stopped::Fault(why)) = ended {
            // The sender goes without its last word, which aborts the connection.
            tracing::error!(%why, "a page of minutes was given up after its begin");
        }
    });
    Ok(Answer::stream(StatusCode::OK, content_type, receiver))
}

/// Days of rows that wait for a slow reader.
const DAYS_WAITING_MAX: usize = 2;

/// Why a page does not go on.
enum Stopped {
    /// The client went away.
    Gone,
    /// The rest cannot be made.
    Fault(String),
}

type Sender = mpsc::Sender<Result<Bytes, Aborted>>;

/// Sends all families' rows, one family after another, and the end of the page.
async fn send(
    mut page: Page,
    begin: Vec<u8>,
    (mut rows, all): (Option<Vec<Row>>, Vec<(Family, Slices)>),
    sender: &Sender,
) -> Result<(), Stopped> {
    let fault = |error: &dyn std::fmt::Display| Stopped::Fault(error.to_string());
    send_part(begin, sender).await?;
    for (family, mut slices) in all {
        loop {
            let of_day = match rows.take() {
                Some(rows) => Some(rows),
                None => slices.next().await.map_err(|error| fault(&error))?,
            };
            let Some(of_day) = of_day else { break };
            let part = page.rows(family, &of_day).map_err(|error| fault(&error))?;
            send_part(part, sender).await?;
        }
    }
    send_part(page.end(), sender).await?;
    sender.send(end_of_stream()).await.map_err(|_| Stopped::Gone)
}

async fn send_part(part: Vec<u8>, sender: &Sender) -> Result<(), Stopped> {
    // An empty frame would end the stream.
    if part.is_empty() {
        return Ok(());
    }
    sender.send(Ok(Bytes::from(part))).await.map_err(|_| Stopped::Gone)
}

/// Judges the parameters.
fn wanted(call: &Call, now_ms: i64) -> Result<Wanted, Refusal> {
    let mut given = Parameters::of(call, &PARAMETERS)?;
    let id = given.needed("id")?;
    let from_ms = given.time("from")?;
    let minutes = Minutes {
        from_ms: from_ms.ok_or_else(|| wrong("parameter from is missing".to_owned()))?,
        to_ms: given.time("to")?.unwrap_or(now_ms),
    };
    if minutes.from_ms >= minutes.to_ms {
        return Err(wrong("from is not before to".to_owned()));
    }
    let csv_accepted = call.header(ACCEPT).is_some_and(|accept| accept.contains("text/csv"));
    let form = match given.text("format").as_deref() {
        Some("csv") => Form::Csv,
        Some("json") => Form::Json,
        Some(other) => return Err(wrong(format!("format {other:?} is neither json nor csv"))),
        None if csv_accepted => Form::Csv,
        None => Form::Json,
    };
    let families = given.families("metric")?;
    let devices = given.text("device").map_or(Devices::Total, Devices::One);
    Ok(Wanted { id, families, devices, minutes, form })
}

/// What a page may be asked for, each once.
const PARAMETERS: [&str; 6] = ["id", "metric", "device", "from", "to", "format"];
