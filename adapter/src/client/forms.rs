//! The command lines of `api-client` (kanyun-legacy.md, "Command line"), as they were in 2012.
//! Pure: words to a request. The hypervisor's forms are named, with what does the same today.

use serde_json::{Value, json};

use crate::ledger::{Family, TOTAL};
use crate::model::instant;
use crate::report::Statistic;

/// What a command line means.
#[derive(Debug, PartialEq)]
pub(super) enum Form {
    /// A text to print, such as a time.
    Text(String),
    /// Something to ask the API.
    Ask(Ask),
}

/// A request.
#[derive(Debug, PartialEq)]
pub(super) struct Ask {
    method: &'static str,
    args: Value,
}

impl Ask {
    /// The body as the API takes it.
    pub(super) fn body(&self) -> Value {
        json!({"method": self.method, "args": self.args})
    }
}

pub(super) const USAGE: &str = "\
usage, as in 2012 (over ZeroMQ; the address is [client] of ./kanyun.conf, else of /etc/kanyun.conf):
  api-client [-l] METRIC                 who has data of a metric
  api-client -k ID                       what an instance has
  api-client ID METRIC [PARAM]           its points
  api-client ID METRIC PARAM STATISTIC PERIOD FROM [TO]
                                         a report: sum, max, min, avg, sam or 0 to 4; PERIOD in minutes
  api-client -get ID METRIC PARAM FROM TO
                                         points of a range
  api-client -t UNIXTIME | -d TIME       converts a time
times are ISO 8601 (UTC without an offset) or unix seconds; TO 0 or missing means now.
kanyun usage|list|data|workers --help has the forms of today, over HTTP";

/// Understands the words behind the program's name. The error is a wrong command line.
pub(super) fn parse(words: &[&str]) -> Result<Form, String> {
    match *words {
        ["-h" | "--help"] => Ok(Form::Text(USAGE.to_owned())),
        [first, ..] if instead(first).is_some() => {
            let instead = instead(first).unwrap_or_default();
            Err(format!("{first} is the hypervisor's: {instead} does that there"))
        }
        ["-l", metric] => Ok(list(family(metric)?)),
        ["-k", id] => Ok(ask("list_metric", json!({"id": id}))),
        ["-t", time] => {
            let seconds = time.parse().ok().and_then(instant::of_unix_seconds);
            let unix_ms = seconds.ok_or_else(|| format!("{time:?} are no unix seconds"))?;
            Ok(Form::Text(instant::format(unix_ms)))
        }
        ["-d", time] => Ok(Form::Text(unix_text(unix_ms(time)?))),
        ["-get", id, metric, param, from, to] => {
            Ok(points(id, device(metric, Some(param))?, (from, to)))
        }
        [flag, ..] if flag.starts_with('-') => Err(format!("{flag} is not understood so; {USAGE}")),
        [metric] => Ok(list(family(metric)?)),
        [id, metric] => Ok(points(id, device(metric, None)?, ("0", "0"))),
        [id, metric, param] => Ok(points(id, device(metric, Some(param))?, ("0", "0"))),
        [id, metric, param, statistic, period, from] => {
            report(id, device(metric, Some(param))?, (statistic, period), (from, "0"))
        }
        [id, metric, param, statistic, period, from, to] => {
            report(id, device(metric, Some(param))?, (statistic, period), (from, to))
        }
        _ => Err(USAGE.to_owned()),
    }
}

/// What does today what the hypervisor's forms did.
fn instead(word: &str) -> Option<&'static str> {
    Some(match word {
        "-n" => "kanyun-exporter traffic show",
        "-vm" => "kanyun-exporter guests",
        "-vi" => "kanyun-exporter guest ID",
        "-cmd" => "kanyun-exporter traffic print",
        "listip" => "kanyun-exporter traffic apply",
        _ => return None,
    })
}

fn ask(method: &'static str, args: Value) -> Form {
    Form::Ask(Ask { method, args })
}

fn family(metric: &str) -> Result<Family, String> {
    Family::named(metric).map_err(|error| error.to_string())
}

fn list(family: Family) -> Form {
    ask("list_instance", json!({"metric": family.name()}))
}

/// The family and the device of METRIC and PARAM; `mem mem_free` names a family by both.
fn device<'w>(metric: &str, param: Option<&'w str>) -> Result<(Family, &'w str), String> {
    match (Family::named(metric), param) {
        (Ok(family), param) => Ok((family, param.unwrap_or(TOTAL))),
        (Err(error), Some(param)) => {
            let of_group = Family::named(param).ok();
            let of_group =
                of_group.filter(|family| family.name().starts_with(&format!("{metric}_")));
            of_group.map(|family| (family, TOTAL)).ok_or_else(|| error.to_string())
        }
        (Err(error), None) => Err(error.to_string()),
    }
}

fn points(id: &str, (family, param): (Family, &str), (from, to): (&str, &str)) -> Form {
    let (from, to) = (time(from), end(to));
    ask(
        "get_data",
        json!({
            "id": id, "metric": family.name(), "metric_param": param,
            "timestamp_from": from, "timestamp_to": to,
        }),
    )
}

fn report(
    id: &str,
    (family, param): (Family, &str),
    (statistic, period): (&str, &str),
    (from, to): (&str, &str),
) -> Result<Form, String> {
    if Statistic::named(statistic).is_none() {
        return Err(format!("statistic {statistic:?} is none of sum, max, min, avg, sam, 0 to 4"));
    }
    unix_ms(from)?;
    unix_ms(to)?;
    Ok(ask(
        "query_usage_report",
        json!({
            "id": id, "metric": family.name(), "metric_param": param,
            "statistic": statistic, "period": period,
            "timestamp_from": time(from), "timestamp_to": end(to),
        }),
    ))
}

/// A time as it was given; the API reads both forms.
fn time(text: &str) -> Value {
    Value::from(text)
}

/// The end of a range: 0 is now.
fn end(text: &str) -> Value {
    if text == "0" { Value::Null } else { time(text) }
}

fn unix_ms(text: &str) -> Result<i64, String> {
    instant::parse(text).map_err(|error| error.to_string())
}

/// Unix seconds, with a fraction only where there is one.
fn unix_text(unix_ms: i64) -> String {
    let (seconds, milliseconds) = (unix_ms.div_euclid(1000), unix_ms.rem_euclid(1000));
    if milliseconds == 0 { seconds.to_string() } else { format!("{seconds}.{milliseconds:03}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(line: &str) -> Value {
        let words: Vec<&str> = line.split_whitespace().collect();
        match parse(&words) {
            Ok(Form::Ask(ask)) => ask.body(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_form_of_2012() {
        let list = json!({"method": "list_instance", "args": {"metric": "vmnetwork"}});
        assert_eq!(body("-l vmnetwork"), list);
        assert_eq!(body("network"), list);
        assert_eq!(body("-k u1"), json!({"method": "list_metric", "args": {"id": "u1"}}));
        let points = |metric: &str, param: &str, from: &str, to: Value| {
            json!({"method": "get_data", "args": {
                "id": "u1", "metric": metric, "metric_param": param,
                "timestamp_from": from, "timestamp_to": to,
            }})
        };
        assert_eq!(body("u1 cpu"), points("cpu", "total", "0", Value::Null));
        assert_eq!(
            body("u1 nic_incoming vnet8"),
            points("nic_incoming", "vnet8", "0", Value::Null)
        );
        assert_eq!(body("u1 mem mem_free"), points("mem_free", "total", "0", Value::Null));
        let ranged = points("blk_read", "vda", "1332897600", "1332901200".into());
        assert_eq!(body("-get u1 blk_read vda 1332897600 1332901200"), ranged);
        let report = body("instance-0000002 vmnetwork 10.0.0.2 0 5 1332897600 0");
        let expected = json!({"method": "query_usage_report", "args": {
            "id": "instance-0000002", "metric": "vmnetwork", "metric_param": "10.0.0.2",
            "statistic": "0", "period": "5", "timestamp_from": "1332897600", "timestamp_to": null,
        }});
        assert_eq!(report, expected);
        assert_eq!(body("instance-0000002 vmnetwork 10.0.0.2 0 5 1332897600"), expected);
        let iso = body("u1 cpu total avg 60 2012-03-28T01:00:00 2012-03-28T02:00:00");
        assert_eq!(iso["args"]["timestamp_to"], "2012-03-28T02:00:00");
    }

    #[test]
    fn times_are_converted() {
        let text = |line: &[&str]| match parse(line) {
            Ok(Form::Text(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(text(&["-t", "1332896400"]), "2012-03-28T01:00:00Z");
        assert_eq!(text(&["-d", "2012-03-28 01:00:00"]), "1332896400");
        assert_eq!(text(&["-d", "2012-03-28T01:00:00.25"]), "1332896400.250");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (line, told) in [
            ("", "usage"),
            ("disk", "none of cpu"),
            ("u1 mem", "none of cpu"),
            ("u1 blk mem_free", "none of cpu"),
            ("-x 1", "-x is not understood"),
            ("-get u1 cpu total 5", "-get is not understood"),
            ("u1 cpu total median 5 0", "median"),
            ("u1 cpu total sum 5 yesterday", "is no time"),
            ("u1 cpu total sum 5", "usage"),
            ("-t soon", "no unix seconds"),
            ("-n", "kanyun-exporter traffic show"),
            ("-vm 5", "kanyun-exporter guests"),
            ("-vi 7", "kanyun-exporter guest ID"),
            ("-cmd 7 10.0.0.2 eth0", "kanyun-exporter traffic print"),
            ("listip -a", "kanyun-exporter traffic apply"),
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            let error = parse(&words).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
