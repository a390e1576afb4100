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

use super::{FRAMES_WAITING_MAX, refusal};
use crate::ledger::Family;
use crate::legacy::{Devices, Door};
use crate::limits;
use crate::model::instant;
use crate::query::QueryError;
use crate::usage::minutes::{Form, Page, Title};
use crate::usage::{Minutes, Slices, Usage};

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
    let (envelope, answer) = usage
        .legacy(&body, door)
        .await
        .map_err(|error| Refusal::client(StatusCode::BAD_REQUEST, error.to_string()))?;
    let body = answer
        .to_json(&envelope)
        .map_err(|error| Refusal::internal("the answer cannot be written", error.to_string()))?;
    Ok(Answer::bytes(StatusCode::OK, "application/json", Bytes::from(body)))
}

/// What a page was asked for.
#[derive(Debug)]
struct Asked {
    id: String,
    families: Vec<Family>,
    devices: Devices,
    minutes: Minutes,
    form: Form,
}

/// A guest's minutes. Everything that can be judged before the first rows is a status; a fault
/// after them aborts the connection, so that nobody takes a part for the whole.
async fn page(usage: Arc<Usage>, call: Call) -> Result<Answer, Refusal> {
    let asked = asked(&call, usage.now_ms())?;
    let page = Page::new(asked.form, usage.settled_until_ms());
    let first = async {
        let slot = usage.slot().await?;
        let guest = usage.guest(&asked.id, &asked.families, asked.minutes).await?;
        let title = Title { guest: guest.as_ref(), minutes: asked.minutes };
        let begin = page.begin(&title).map_err(|error| QueryError::Damaged(error.to_string()))?;
        let (Some(guest), Some(family)) = (guest, asked.families.first()) else {
            return Ok((begin, None));
        };
        let mut slices = usage.slices(guest, *family, asked.minutes, slot);
        let rows = slices.next().await?;
        Ok((begin, rows.map(|rows| (slices, rows))))
    };
    let late = || QueryError::TryAgain("the first day took too long".to_owned());
    let first = timeout(limits::REPORT_DEADLINE, first).await.unwrap_or_else(|_| Err(late()));
    let (begin, rest) = first.map_err(|error| {
        usage.reported(false);
        refusal(error)
    })?;
    let content_type = match asked.form {
        Form::Json => "application/json",
        Form::Csv => "text/csv; charset=utf-8",
    };
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING_MAX);
    tokio::spawn(async move {
        let whole = async {
            sender.send(Ok(Bytes::from(begin))).await.map_err(|_| Stopped::Gone)?;
            send(page, asked, rest, &sender).await
        };
        let ended = timeout(limits::ANSWER_DEADLINE, whole).await;
        let ended = ended.unwrap_or_else(|_| Err(Stopped::Fault("it took too long".to_owned())));
        usage.reported(ended.is_ok());
        if let Err(Stopped::Fault(why)) = ended {
            tracing::error!(%why, "a page of minutes was given up after its begin");
            // Nobody may be listening any more.
            drop(sender.send(Err(Aborted)).await);
        }
    });
    Ok(Answer::stream(StatusCode::OK, content_type, receiver))
}

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
    asked: Asked,
    first: Option<(Slices, Vec<crate::ledger::Row>)>,
    sender: &Sender,
) -> Result<(), Stopped> {
    let fault = |error: &dyn std::fmt::Display| Stopped::Fault(error.to_string());
    if let Some((mut slices, rows)) = first {
        let mut rows = Some(rows);
        for (index, family) in asked.families.into_iter().enumerate() {
            if index > 0 {
                slices = slices.of(family);
                rows = slices.next().await.map_err(|error| fault(&error))?;
            }
            while let Some(mut of_slice) = rows {
                of_slice.retain(|row| asked.devices.hold(&row.column));
                let bytes = page.rows(family, &of_slice).map_err(|error| fault(&error))?;
                // An empty frame would end the stream.
                if !bytes.is_empty() {
                    sender.send(Ok(Bytes::from(bytes))).await.map_err(|_| Stopped::Gone)?;
                }
                rows = slices.next().await.map_err(|error| fault(&error))?;
            }
        }
    }
    let end = page.end();
    if !end.is_empty() {
        sender.send(Ok(Bytes::from(end))).await.map_err(|_| Stopped::Gone)?;
    }
    sender.send(end_of_stream()).await.map_err(|_| Stopped::Gone)
}

/// Judges the parameters.
fn asked(call: &Call, now_ms: i64) -> Result<Asked, Refusal> {
    let wrong = |text: String| Refusal::client(StatusCode::BAD_REQUEST, text);
    let (mut id, mut from, mut to, mut families) = (None, None, None, Vec::new());
    let mut devices = Devices::Total;
    let mut form = match call.header(ACCEPT) {
        Some(accept) if accept.contains("text/csv") => Form::Csv,
        _ => Form::Json,
    };
    let time = |name: &str, value: &str| {
        instant::parse(value).map(Some).map_err(|error| wrong(format!("{name}: {error}")))
    };
    for (name, value) in form_urlencoded::parse(call.query().unwrap_or_default().as_bytes()) {
        match &*name {
            "id" => id = Some(value.into_owned()),
            "metric" => families.extend(named(&value).map_err(wrong)?),
            "device" => devices = Devices::One(value.into_owned()),
            "from" => from = time("from", &value)?,
            "to" => to = time("to", &value)?,
            "format" => {
                form = match &*value {
                    "json" => Form::Json,
                    "csv" => Form::Csv,
                    other => {
                        return Err(wrong(format!("format {other:?} is neither json nor csv")));
                    }
                }
            }
            other => {
                let text = "parameter {} is none of id, metric, device, from, to, format";
                return Err(wrong(text.replace("{}", &format!("{other:?}"))));
            }
        }
    }
    if families.is_empty() {
        families.extend(Family::ALL);
    }
    let missing = |name: &str| wrong(format!("parameter {name} is missing"));
    Ok(Asked {
        id: id.filter(|id| !id.is_empty()).ok_or_else(|| missing("id"))?,
        families,
        devices,
        minutes: Minutes {
            from_ms: from.ok_or_else(|| missing("from"))?,
            to_ms: to.unwrap_or(now_ms),
        },
        form,
    })
}

/// The families of a list of names, with commas between them.
fn named(names: &str) -> Result<Vec<Family>, String> {
    let one = |name: &str| {
        Family::named(name).ok_or_else(|| {
            let known: Vec<&str> = Family::ALL.iter().map(|family| family.name()).collect();
            format!("metric {name:?} is none of {}", known.join(", "))
        })
    };
    names.split(',').map(|name| one(name.trim())).collect()
}
