//! Billing's doors: the 2012 API's shapes and codes, and the pages of minutes.

use adapter::wire::negotiate::Protocol;
use serde_json::{Value, json};

use crate::adapter_process::{AdapterProcess, now_ms};
use crate::http_client::{self, Answer, Connection};
use crate::remote::series;

const WRITTEN: &str = "libvirt_domain_block_stats_write_bytes_total";

/// One whole minute some time ago, and the adapter with samples around it: two guests of one name,
/// the first of which wrote 700 bytes to vda and 50 to vdb in that minute, 30 more one later.
fn adapter_with_guests() -> (AdapterProcess, i64) {
    let adapter = AdapterProcess::in_memory();
    let minute = (now_ms() - 3_600_000) / 60_000 * 60_000;
    let disk = |uuid: &str, host: &str, device: &str, samples: &[(i64, f64)]| {
        let at = samples.iter().map(|(seconds, value)| (minute + seconds * 1000, *value));
        let labels = [
            ("__name__", WRITTEN),
            ("domain", "instance-0000000a"),
            ("instance", host),
            ("job", "libvirt"),
            ("target_device", device),
            ("uuid", uuid),
        ];
        series(&labels, &at.collect::<Vec<_>>())
    };
    let sent = [
        disk("u1", "a:9177", "vda", &[(-10, 100.0), (20, 300.0), (50, 800.0), (80, 830.0)]),
        disk("u1", "a:9177", "vdb", &[(-10, 0.0), (20, 50.0)]),
        disk("u2", "b:9177", "vda", &[(-10, 0.0), (20, 7.0)]),
    ];
    assert_eq!(adapter.write(Protocol::V2, &sent).status, 204);
    (adapter, minute)
}

fn post(adapter: &AdapterProcess, path: &str, body: &str) -> Answer {
    let line = format!("POST {path}");
    http_client::request(adapter.address(), &line, &[], body.as_bytes()).unwrap()
}

fn answered(adapter: &AdapterProcess, path: &str, body: &Value) -> Value {
    let answer = post(adapter, path, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_str(answer.text()).unwrap()
}

fn args(minute: i64, id: &str) -> Value {
    json!({
        "id": id, "metric": "blk_write", "metric_param": "total", "statistic": "sum", "period": 60,
        "timestamp_from": minute / 1000, "timestamp_to": minute / 1000 + 120,
    })
}

#[test]
fn a_report_in_every_shape() {
    let (adapter, minute) = adapter_with_guests();
    let args = args(minute, "u1");
    let key = format!("{}.0", minute / 1000);
    let answer = json!({"code": 200, "message": "Success", "data": {key: 780}});
    let call = json!({"method": "query_usage_report", "args": args});
    assert_eq!(answered(&adapter, "/query_usage_report", &args), answer);
    assert_eq!(answered(&adapter, "/query_usage_report", &call), answer);
    assert_eq!(answered(&adapter, "/", &call), answer);
    let frames = json!(["kanyun", "5c9d", call]);
    assert_eq!(answered(&adapter, "/", &frames), json!(["kanyun", "5c9d", answer]));
    assert_eq!(answered(&adapter, "/", &args), json!({}));
}

#[test]
fn statistics_devices_periods_and_times() {
    let (adapter, minute) = adapter_with_guests();
    let report = |changes: Value| {
        let mut args = args(minute, "u1");
        for (name, value) in changes.as_object().unwrap() {
            args[name] = value.clone();
        }
        answered(&adapter, "/query_usage_report", &args)["data"].clone()
    };
    let (first, second) = (format!("{}.0", minute / 1000), format!("{}.0", minute / 1000 + 60));
    assert_eq!(report(json!({"period": "1"})), json!({&first: 750, &second: 30}));
    assert_eq!(report(json!({"metric_param": "vda"})), json!({&first: 730}));
    assert_eq!(report(json!({"metric_param": "vdb"})), json!({&first: 50}));
    assert_eq!(report(json!({"metric_param": "vdz"})), json!({}));
    for (statistic, value) in [("max", 750), ("min", 30), ("avg", 390), ("sam", 2)] {
        assert_eq!(report(json!({"statistic": statistic})), json!({&first: value}));
    }
    // The first sample of all counts nothing, and its minute is a point all the same.
    let before = format!("{}.0", minute / 1000 - 60);
    // Up to and with its last second, a minute belongs to the range.
    let to = minute / 1000;
    assert_eq!(report(json!({"timestamp_to": to + 59})), json!({&first: 750}));
    assert_eq!(report(json!({"timestamp_to": to + 58})), json!({}));
    assert_eq!(report(json!({"timestamp_from": to + 59})), json!({&second: 30}));
    assert_eq!(report(json!({"timestamp_to": null})), json!({&first: 780}));
    assert_eq!(
        report(json!({"timestamp_from": 0, "timestamp_to": "9999-01-01T00:00:00"})),
        json!({&before: 780})
    );
    assert_eq!(report(json!({"metric": "cpu"})), json!({}));
    assert_eq!(report(json!({"id": "nobody"})), json!({}));
    assert_eq!(report(json!({"id": "instance-0000000a@b"})), json!({&first: 7}));
}

#[test]
fn faults_are_codes_inside_status_200() {
    let (adapter, minute) = adapter_with_guests();
    for (name, value, text) in [
        ("id", json!("instance-0000000a"), "fits several guests in this range: u1, u2"),
        ("metric", json!("disk"), "metric \"disk\" is none of"),
        ("timestamp_from", json!("soon"), "is no time"),
        ("period", json!(0), "at least 1"),
        ("timestamp_to", json!(0), "timestamp_from is not before timestamp_to"),
    ] {
        let mut args = args(minute, "u1");
        args[name] = value;
        let answer = answered(&adapter, "/query_usage_report", &args);
        assert_eq!(answer["code"], 500, "{answer}");
        assert_eq!(answer["data"], Value::Null);
        assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
    }
    let page = adapter.get("/metrics");
    let failed = "kanyun_adapter_reports_total{outcome=\"failed\"} 1\n";
    assert!(page.text().contains(failed), "only the name asked for more than its parameters");
}

#[test]
fn what_is_no_json_is_400() {
    let adapter = AdapterProcess::in_memory();
    for path in ["/", "/query_usage_report"] {
        for body in ["", "{", "\u{feff}{}", "id=1"] {
            let answer = post(&adapter, path, body);
            assert_eq!(answer.status, 400, "{path} {body:?}");
            assert!(answer.text().starts_with("the body is not JSON"), "{answer:?}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(post(&adapter, path, &deep).status, 400);
        let large = format!("\"{}\"", "x".repeat(70_000));
        assert_eq!(post(&adapter, path, &large).status, 413);
    }
    let landing = adapter.get("/");
    assert_eq!(landing.status, 200);
    assert!(landing.text().contains("/query_usage_report"));
    let answer = adapter.get("/query_usage_report");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[test]
fn who_can_be_billed() {
    let (adapter, minute) = adapter_with_guests();
    let list = |metric: &str| {
        let call = json!({"method": "list_instance", "args": {"metric": metric}});
        answered(&adapter, "/", &call)["data"].clone()
    };
    assert_eq!(list("blk_write"), json!(["u1", "u2"]));
    assert_eq!(list("blk_read"), json!([]));
    let call = |from: i64| {
        let args = json!({"metric": "blk_write", "timestamp_from": from});
        answered(&adapter, "/", &json!({"method": "list_instance", "args": args}))
    };
    assert_eq!(call(minute / 1000)["data"], json!(["u1", "u2"]));
    assert_eq!(call(now_ms() / 1000 + 10)["code"], 500, "a range that ends before it begins");
}

/// Four readers that take nothing are as many reports as run at once, and keep nobody waiting.
#[test]
fn a_client_that_reads_nothing_or_goes_away_holds_nobody_up() {
    let (adapter, minute) = adapter_with_guests();
    let begin = || {
        let line = "GET /api/v1/usage?id=u1&from=0&device=none";
        Connection::begin(adapter.address(), line, &[]).unwrap()
    };
    let idle: Vec<Connection> = (0..6).map(|_| begin()).collect();
    (0..6).for_each(|_| drop(begin()));
    let key = format!("{}.0", minute / 1000);
    let report = answered(&adapter, "/query_usage_report", &args(minute, "u1"));
    assert_eq!(report["data"], json!({key: 780}));
    drop(idle);
}

#[test]
fn a_page_of_minutes() {
    let (adapter, minute) = adapter_with_guests();
    let to = minute / 1000 + 120;
    let path = format!("/api/v1/usage?id=u1&metric=blk_write&from={}&to={to}", minute / 1000);
    let answer = adapter.get(&path);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let page: Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(page["guest"], "u1");
    assert_eq!(page["settled"], true);
    assert!(page["kept_from"].as_str().unwrap() < page["from"].as_str().unwrap(), "{page}");
    let row = |row: &Value| (row["device"].clone(), row["value"].clone(), row["samples"].clone());
    let rows: Vec<_> = page["rows"].as_array().unwrap().iter().map(row).collect();
    let expected = [("vda", 700, 2), ("vdb", 50, 1), ("vda", 30, 1)];
    assert_eq!(
        rows,
        expected.map(|(device, value, samples)| (json!(device), json!(value), json!(samples)))
    );

    let csv = adapter.get(&format!("{path}&format=csv&device=vdb"));
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines: Vec<&str> = csv.text().lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains(",blk_write,vdb,50,bytes,1,0,false,"), "{lines:?}");
    // The same range in a zone of its own, with the plus as people type it.
    let zoned = |seconds: i64| {
        adapter::model::instant::format((seconds + 8 * 3600) * 1000).replace('Z', "+08:00")
    };
    let (from, until) = (zoned(minute / 1000), zoned(to));
    let path_zoned =
        format!("/api/v1/usage?id=u1&metric=blk_write&from={from}&to={until}&format=csv");
    assert_eq!(adapter.get(&path_zoned).text().lines().count(), 4);
    let headers = [("accept", "text/csv")];
    let accepted = http_client::request(adapter.address(), &format!("GET {path}"), &headers, b"");
    assert!(accepted.unwrap().text().starts_with("start,end,metric,"));

    let nobody = adapter.get("/api/v1/usage?id=nobody&from=0");
    assert_eq!(nobody.status, 200);
    let page: Value = serde_json::from_str(nobody.text()).unwrap();
    assert_eq!((&page["guest"], &page["rows"]), (&Value::Null, &json!([])));
    assert_eq!(page["settled"], false, "the minute under way is in the range");
}

#[test]
fn parameters_of_a_page_are_judged() {
    let (adapter, _) = adapter_with_guests();
    for (query, text) in [
        ("", "parameter id is missing"),
        ("?id=u1", "parameter from is missing"),
        ("?id=&from=0", "parameter id is missing"),
        ("?id=u1&from=yesterday", "from: \"yesterday\" is no time"),
        ("?id=u1&from=0&metric=cpu,disk", "metric \"disk\" is none of"),
        ("?id=u1&from=0&metric=nic_incoming,nic_read", "names nic_incoming a second time"),
        ("?id=u1&from=0&metric=cpu&metric=cpu", "parameter metric came more than once"),
        ("?id=u1&from=9999-01-01T00:00:00", "from is not before to"),
        ("?id=u1&from=0&format=xml", "neither json nor csv"),
        ("?id=u1&from=0&until=1", "parameter \"until\" is none of"),
        ("?id=instance-0000000a&from=0", "fits several guests in this range: u1, u2"),
    ] {
        let answer = adapter.get(&format!("/api/v1/usage{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.text().contains(text), "{query}: {answer:?}");
    }
    let post = post(&adapter, "/api/v1/usage", "");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}
