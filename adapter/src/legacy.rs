//! The bodies of Kanyun's 2012 API, in and out (kanyun-legacy.md, "client → API" and "Over HTTP").
//! Pure: knows neither door nor store. What is asked for, `usage` answers.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ledger::{Family, TOTAL};
use crate::model::instant;
use crate::report::{Amount, Bucket, Statistic};

/// A body that is not JSON: the only fault that HTTP tells by its status.
#[derive(Debug, thiserror::Error)]
#[error("the body is not JSON: {0}")]
pub struct NotJson(#[from] serde_json::Error);

/// Which body is meant where it has no `method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Any method: the body must name it.
    Any,
    /// `/query_usage_report`: a body without a method holds that method's `args`.
    UsageReport,
}

/// One request.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// How the answer is wrapped.
    pub envelope: Envelope,
    /// What is asked for, or what is wrong with it.
    pub call: Result<Call, String>,
}

/// The shape of a request, which its answer repeats.
#[derive(Clone, Debug, PartialEq)]
pub enum Envelope {
    /// `{"method": …, "args": …}`, or the args alone.
    Object,
    /// `[msg_type, uuid, {…}]`, as the README wrote ZeroMQ's three frames; the first two come back.
    Frames(Value, Value),
}

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub enum Call {
    /// `query_usage_report`.
    UsageReport(UsageReport),
    /// `list_instance`: who has data in a family, in a range (unix milliseconds, from and to) or at
    /// all. Kanyun's had no range; a bill of a range should ask for those who have data in it.
    ListInstance(Family, Option<(i64, i64)>),
    /// `get_data`: the minutes themselves.
    Points(Points),
    /// `list_metric`, which Kanyun's API had not, and its command line had: what a guest has data
    /// of, by its uuid or name.
    ListMetric(String),
    /// A method without effect: `update_alert_policy`, or one that is not known.
    Nothing,
    /// A body without method or args, which is answered `{}`.
    Incomplete,
}

/// The arguments of `query_usage_report`.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageReport {
    /// A guest's uuid or name.
    pub id: String,
    /// The metric.
    pub family: Family,
    /// `metric_param`: which devices.
    pub devices: Devices,
    /// What is made of the minutes.
    pub statistic: Statistic,
    /// Minutes of a period, at least 1.
    pub period_minutes: u32,
    /// Unix milliseconds.
    pub from_ms: i64,
    /// Unix milliseconds.
    pub to_ms: i64,
}

/// The arguments of `get_data`.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// A guest's uuid or name.
    pub id: String,
    /// The metric.
    pub family: Family,
    /// `metric_param`: which devices.
    pub devices: Devices,
    /// Unix milliseconds.
    pub from_ms: i64,
    /// Unix milliseconds.
    pub to_ms: i64,
}

/// A minute of `get_data`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The minute's begin, unix milliseconds.
    pub minute_ms: i64,
    /// Its value; the sum of the devices where all are asked for.
    pub amount: Amount,
}

/// Which devices of a guest are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// All of them, added minute by minute.
    Total,
    /// One.
    One(String),
}

/// The `data` of an answer.
#[derive(Debug, PartialEq)]
pub enum Data {
    /// A report's periods.
    Report(Vec<Bucket>),
    /// Minutes.
    Points(Vec<Point>),
    /// Guests.
    Ids(Vec<String>),
    /// Families by name, each with its devices.
    Devices(Vec<(Family, Vec<String>)>),
    /// `{}`
    Nothing,
}

/// The body of an answer.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Code 200.
    Success(Data),
    /// Code 500, which is the only thing that old clients look at; the text says more.
    Failure(String),
    /// `{}`, to a body without method or args.
    Empty,
}

/// Reads a request; `now_ms` stands for a `timestamp_to` that is null.
pub fn parse(body: &[u8], door: Door, now_ms: i64) -> Result<Request, NotJson> {
    let (envelope, body) = match serde_json::from_slice(body)? {
        Value::Array(frames) => {
            let Ok([msg_type, uuid, body]) = <[Value; 3]>::try_from(frames) else {
                let text = "an array must have three elements: msg_type, uuid and the request";
                return Ok(Request { envelope: Envelope::Object, call: Err(text.to_owned()) });
            };
            (Envelope::Frames(msg_type, uuid), body)
        }
        body => (Envelope::Object, body),
    };
    let call = match body {
        Value::Object(body) => call(&body, door, now_ms),
        _ => Err("the request must be an object with method and args".to_owned()),
    };
    Ok(Request { envelope, call })
}

fn call(body: &Map<String, Value>, door: Door, now_ms: i64) -> Result<Call, String> {
    let empty = Map::new();
    let (method, args) = match (body.get("method"), body.get("args")) {
        (Some(Value::String(method)), Some(Value::Object(args))) => (method.as_str(), args),
        (Some(Value::String(method)), Some(Value::Null)) => (method.as_str(), &empty),
        (Some(_), Some(_)) => return Err("method must be a text and args an object".to_owned()),
        (None, None) if door == Door::UsageReport => ("query_usage_report", body),
        _ => return Ok(Call::Incomplete),
    };
    match method {
        "query_usage_report" => usage_report(args, now_ms).map(Call::UsageReport),
        "list_instance" => Ok(Call::ListInstance(family(args)?, list_range(args, now_ms)?)),
        "get_data" => points(args, now_ms).map(Call::Points),
        "list_metric" => text(args, "id").map(Call::ListMetric),
        _ => Ok(Call::Nothing),
    }
}

fn usage_report(args: &Map<String, Value>, now_ms: i64) -> Result<UsageReport, String> {
    let statistic = text(args, "statistic")?;
    let Points { id, family, devices, from_ms, to_ms } = points(args, now_ms)?;
    Ok(UsageReport {
        id,
        family,
        devices,
        statistic: Statistic::named(&statistic)
            .ok_or_else(|| format!("statistic {statistic:?} is none of sum, max, min, avg, sam"))?,
        period_minutes: period(args)?,
        from_ms,
        to_ms,
    })
}

/// What a report and `get_data` ask for alike. The later fork's times were integers; whatever a
/// report takes is taken.
fn points(args: &Map<String, Value>, now_ms: i64) -> Result<Points, String> {
    let devices = match args.get("metric_param") {
        None | Some(Value::Null) => Devices::Total,
        Some(_) => match text(args, "metric_param")? {
            total if total == TOTAL => Devices::Total,
            device => Devices::One(device),
        },
    };
    let from_ms = time(args, "timestamp_from")?.ok_or("timestamp_from is missing")?;
    let (from_ms, to_ms) = range(from_ms, time(args, "timestamp_to")?.unwrap_or(now_ms))?;
    Ok(Points { id: text(args, "id")?, family: family(args)?, devices, from_ms, to_ms })
}

fn list_range(args: &Map<String, Value>, now_ms: i64) -> Result<Option<(i64, i64)>, String> {
    match (time(args, "timestamp_from")?, time(args, "timestamp_to")?) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err("timestamp_from is missing".to_owned()),
        (Some(from_ms), to_ms) => range(from_ms, to_ms.unwrap_or(now_ms)).map(Some),
    }
}

/// A range that holds nothing is a slip of whoever asks, not a bill of nothing.
fn range(from_ms: i64, to_ms: i64) -> Result<(i64, i64), String> {
    if from_ms < to_ms {
        Ok((from_ms, to_ms))
    } else {
        Err("timestamp_from is not before timestamp_to".to_owned())
    }
}

fn family(args: &Map<String, Value>) -> Result<Family, String> {
    let metric = text(args, "metric")?;
    Family::named(&metric).map_err(|error| error.to_string())
}

fn text(args: &Map<String, Value>, name: &str) -> Result<String, String> {
    match args.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        None | Some(Value::Null) => Err(format!("{name} is missing")),
        Some(_) => Err(format!("{name} must be a text that is not empty")),
    }
}

fn period(args: &Map<String, Value>) -> Result<u32, String> {
    let text = text(args, "period")?;
    let minutes = text.trim().parse().ok().filter(|minutes| *minutes > 0);
    minutes.ok_or_else(|| format!("period {text:?} is no whole number of minutes, at least 1"))
}

fn time(args: &Map<String, Value>, name: &str) -> Result<Option<i64>, String> {
    let wrong = |value: &Value| {
        format!("{name}: {value} is no time; write ISO 8601 or unix seconds, not milliseconds")
    };
    match args.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Number(seconds)) => {
            let seconds = seconds.as_f64().and_then(instant::of_unix_seconds);
            seconds.map(Some).ok_or_else(|| wrong(value))
        }
        Some(Value::String(text)) => {
            instant::parse(text).map(Some).map_err(|error| format!("{name}: {error}"))
        }
        Some(other) => Err(wrong(other)),
    }
}

impl Answer {
    /// The body as it is sent, in the shape of its request.
    pub fn to_json(&self, envelope: &Envelope) -> Result<Vec<u8>, serde_json::Error> {
        match envelope {
            Envelope::Object => serde_json::to_vec(self),
            Envelope::Frames(msg_type, uuid) => serde_json::to_vec(&(msg_type, uuid, self)),
        }
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut answer = serializer.serialize_map(None)?;
        match self {
            Answer::Success(data) => {
                answer.serialize_entry("code", &200)?;
                answer.serialize_entry("message", "Success")?;
                answer.serialize_entry("data", data)?;
            }
            Answer::Failure(why) => {
                answer.serialize_entry("code", &500)?;
                answer.serialize_entry("message", &format!("Request failed. {why}"))?;
                answer.serialize_entry("data", &())?;
            }
            Answer::Empty => {}
        }
        answer.end()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Report(buckets) => {
                let mut report = serializer.serialize_map(Some(buckets.len()))?;
                for bucket in buckets {
                    let seconds = bucket.start_ms.div_euclid(1000);
                    report.serialize_entry(&format!("{seconds}.0"), &bucket.amount)?;
                }
                report.end()
            }
            Data::Points(points) => {
                let mut minutes = serializer.serialize_map(Some(points.len()))?;
                for point in points {
                    let seconds = point.minute_ms.div_euclid(1000);
                    minutes.serialize_entry(&seconds.to_string(), &point.amount)?;
                }
                minutes.end()
            }
            Data::Devices(families) => {
                let mut map = serializer.serialize_map(Some(families.len()))?;
                for (family, devices) in families {
                    map.serialize_entry(family.name(), devices)?;
                }
                map.end()
            }
            Data::Ids(ids) => {
                let mut list = serializer.serialize_seq(Some(ids.len()))?;
                for id in ids {
                    list.serialize_element(id)?;
                }
                list.end()
            }
            Data::Nothing => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_400_000_000_000;

    fn call_of(body: &str, door: Door) -> Result<Call, String> {
        parse(body.as_bytes(), door, NOW).unwrap().call
    }

    const ARGS: &str = r#"{"id": "u", "metric": "vmnetwork", "metric_param": "total",
        "statistic": "sum", "period": 60, "timestamp_from": "2012-03-28T01:00:00",
        "timestamp_to": "2012-03-28T02:00:00"}"#;

    fn expected() -> UsageReport {
        UsageReport {
            id: "u".to_owned(),
            family: Family::Vmnetwork,
            devices: Devices::Total,
            statistic: Statistic::Sum,
            period_minutes: 60,
            from_ms: 1_332_896_400_000,
            to_ms: 1_332_900_000_000,
        }
    }

    #[test]
    fn the_three_shapes_ask_the_same() {
        let object = format!(r#"{{"method": "query_usage_report", "args": {ARGS}}}"#);
        assert_eq!(call_of(&object, Door::Any), Ok(Call::UsageReport(expected())));
        assert_eq!(call_of(&object, Door::UsageReport), Ok(Call::UsageReport(expected())));
        assert_eq!(call_of(ARGS, Door::UsageReport), Ok(Call::UsageReport(expected())));
        assert_eq!(call_of(ARGS, Door::Any), Ok(Call::Incomplete));
        let frames = format!(r#"["kanyun", "abc", {object}]"#);
        let request = parse(frames.as_bytes(), Door::Any, NOW).unwrap();
        assert_eq!(request.call, Ok(Call::UsageReport(expected())));
        assert_eq!(request.envelope, Envelope::Frames("kanyun".into(), "abc".into()));
        let answer = Answer::Success(Data::Nothing).to_json(&request.envelope).unwrap();
        let text = r#"["kanyun","abc",{"code":200,"message":"Success","data":{}}]"#;
        assert_eq!(String::from_utf8(answer).unwrap(), text);
    }

    fn with(name: &str, value: Value) -> Result<Call, String> {
        let mut args: Value = serde_json::from_str(ARGS).unwrap();
        args[name] = value;
        call_of(&args.to_string(), Door::UsageReport)
    }

    fn report_with(name: &str, value: Value) -> UsageReport {
        match with(name, value) {
            Ok(Call::UsageReport(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_clients_leave_out_or_write_otherwise() {
        assert_eq!(report_with("timestamp_to", Value::Null).to_ms, NOW);
        assert_eq!(report_with("timestamp_to", 1_332_900_000.into()), expected());
        assert_eq!(report_with("timestamp_from", "1332896400.0".into()), expected());
        assert_eq!(report_with("period", "60".into()), expected());
        assert_eq!(report_with("metric_param", Value::Null), expected());
        assert_eq!(report_with("metric", "network".into()), expected());
        let one = Devices::One("10.0.0.2".to_owned());
        assert_eq!(report_with("metric_param", "10.0.0.2".into()).devices, one);
    }

    #[test]
    fn faults_are_named() {
        for (name, value, text) in [
            ("id", Value::Null, "id is missing"),
            ("metric", "disk".into(), "metric \"disk\" is none of cpu, mem_max"),
            ("statistic", "median".into(), "none of sum, max, min, avg, sam"),
            ("period", 0.into(), "at least 1"),
            ("period", "1.5".into(), "whole number of minutes"),
            ("timestamp_from", Value::Null, "timestamp_from is missing"),
            ("timestamp_from", "yesterday".into(), "is no time"),
            ("timestamp_to", Value::Bool(true), "timestamp_to: true is no time"),
            ("timestamp_to", 0.into(), "timestamp_from is not before timestamp_to"),
            ("timestamp_from", "2012-03-28T02:00:00".into(), "is not before"),
        ] {
            let error = with(name, value).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        let text = "Request failed. id is missing";
        let answer =
            Answer::Failure("id is missing".to_owned()).to_json(&Envelope::Object).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer, serde_json::json!({"code": 500, "message": text, "data": null}));
    }

    #[test]
    fn other_methods_and_bodies() {
        let list = r#"{"method": "list_instance", "args": {"metric": "cpu"}}"#;
        assert_eq!(call_of(list, Door::Any), Ok(Call::ListInstance(Family::Cpu, None)));
        let list =
            r#"{"method": "list_instance", "args": {"metric": "cpu", "timestamp_from": 60}}"#;
        let since = Ok(Call::ListInstance(Family::Cpu, Some((60_000, NOW))));
        assert_eq!(call_of(list, Door::Any), since);
        for body in
            [r#"{"method": "update_alert_policy", "args": {}}"#, r#"{"method": "x", "args": null}"#]
        {
            assert_eq!(call_of(body, Door::Any), Ok(Call::Nothing));
        }
        for body in ["{}", r#"{"method": "list_instance"}"#, r#"{"args": {}}"#] {
            assert_eq!(call_of(body, Door::Any), Ok(Call::Incomplete), "{body}");
        }
        assert_eq!(Answer::Empty.to_json(&Envelope::Object).unwrap(), b"{}");
        for body in ["[]", "[1, 2]", "7", "null", r#"{"method": 1, "args": {}}"#] {
            assert!(call_of(body, Door::UsageReport).is_err(), "{body}");
        }
        for body in ["", "{", "\u{1}", "{\"a\": 1e999}"] {
            assert!(parse(body.as_bytes(), Door::Any, NOW).is_err(), "{body}");
        }
    }

    #[test]
    fn points_are_asked_for_by_times_alone() {
        let args = r#"{"id": "u", "metric": "nic_read", "metric_param": "vnet8",
            "timestamp_from": 1332896400, "timestamp_to": 1332900000}"#;
        let body = format!(r#"{{"method": "get_data", "args": {args}}}"#);
        let points = Points {
            id: "u".to_owned(),
            family: Family::NicIncoming,
            devices: Devices::One("vnet8".to_owned()),
            from_ms: 1_332_896_400_000,
            to_ms: 1_332_900_000_000,
        };
        assert_eq!(call_of(&body, Door::Any), Ok(Call::Points(points.clone())));
        let iso = body.replace("1332896400", "\"2012-03-28T01:00:00Z\"");
        assert_eq!(call_of(&iso, Door::UsageReport), Ok(Call::Points(points)));
        let since = body.replace(", \"timestamp_to\": 1332900000", "");
        let Ok(Call::Points(since)) = call_of(&since, Door::Any) else { panic!("{since}") };
        assert_eq!(since.to_ms, NOW);
        for (from, to, text) in [
            ("\"id\": \"u\", ", "", "id is missing"),
            ("1332896400", "null", "timestamp_from is missing"),
            ("1332900000", "5", "is not before"),
        ] {
            let error = call_of(&body.replace(from, to), Door::Any).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        let point = |minute_ms, amount| Point { minute_ms, amount };
        let points =
            [point(1_332_896_400_000, Amount::Whole(7)), point(-60_000, Amount::Real(0.5))];
        let body = Answer::Success(Data::Points(points.to_vec())).to_json(&Envelope::Object);
        let text = r#"{"code":200,"message":"Success","data":{"1332896400":7,"-60":0.5}}"#;
        assert_eq!(String::from_utf8(body.unwrap()).unwrap(), text);
    }

    #[test]
    fn what_a_guest_has_is_asked_for_by_its_name() {
        let body = r#"{"method": "list_metric", "args": {"id": "u"}}"#;
        assert_eq!(call_of(body, Door::Any), Ok(Call::ListMetric("u".to_owned())));
        assert!(call_of(r#"{"method": "list_metric", "args": {}}"#, Door::Any).is_err());
        let devices = vec![(Family::Cpu, vec!["total".to_owned()])];
        let body = Answer::Success(Data::Devices(devices)).to_json(&Envelope::Object).unwrap();
        let text = r#"{"code":200,"message":"Success","data":{"cpu":["total"]}}"#;
        assert_eq!(String::from_utf8(body).unwrap(), text);
    }

    #[test]
    fn a_report_is_keyed_by_time_in_text() {
        let bucket = |start_ms, amount| Bucket { start_ms, amount };
        let data = Data::Report(vec![
            bucket(1_332_896_400_000, Amount::Whole(1)),
            bucket(1_332_897_600_000, Amount::Real(6.96)),
        ]);
        let body = Answer::Success(data).to_json(&Envelope::Object).unwrap();
        let text =
            r#"{"code":200,"message":"Success","data":{"1332896400.0":1,"1332897600.0":6.96}}"#;
        assert_eq!(String::from_utf8(body).unwrap(), text);
    }
}
