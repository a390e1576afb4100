//! The answer body of the 2012 API as entries to print. Pure.

use serde_json::{Map, Value};

use super::Failure;

/// The `data` of a body; code 500 is a failure, told in the adapter's words.
pub(super) fn data(body: &[u8]) -> Result<Value, Failure> {
    let wrong = |why: &str| Failure::Failed(format!("the adapter's answer is no answer: {why}"));
    let answer: Value = serde_json::from_slice(body).map_err(|error| wrong(&error.to_string()))?;
    match (answer.get("code"), answer.get("data")) {
        (Some(Value::Number(code)), Some(data)) if code.as_i64() == Some(200) => Ok(data.clone()),
        (Some(_), Some(_)) => {
            let message = answer.get("message").and_then(Value::as_str);
            Err(Failure::Failed(message.unwrap_or("Request failed.").to_owned()))
        }
        _ => Err(wrong("it has no code and data")),
    }
}

/// The points of a report or of `get_data`, by unix time, in order of it; the time also as it was
/// written.
pub(super) fn points(data: &Value) -> Result<Vec<(f64, &str, &Value)>, Failure> {
    let map = map(data)?;
    let mut points = Vec::new();
    for (time, value) in map {
        let seconds = time.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
        let seconds = seconds.ok_or_else(|| {
            Failure::Failed(format!("the adapter's answer has {time:?} where a time should be"))
        })?;
        points.push((seconds, time.as_str(), value));
    }
    points.sort_by(|left, right| left.0.total_cmp(&right.0));
    Ok(points)
}

/// A line for each entry, as `api-client` prints them: an id; a family and a device; a time and a
/// value.
pub(super) fn lines(data: &Value) -> Result<Vec<String>, Failure> {
    match data {
        Value::Array(ids) => Ok(ids.iter().map(text).collect()),
        Value::Object(map) if map.values().any(Value::is_array) => {
            let mut lines = Vec::new();
            for (family, devices) in map {
                let devices = devices.as_array().map(Vec::as_slice).unwrap_or_default();
                lines.extend(devices.iter().map(|device| format!("{family} {}", text(device))));
            }
            Ok(lines)
        }
        data => {
            let points = points(data)?.into_iter();
            Ok(points.map(|(_, time, value)| format!("{time} {}", text(value))).collect())
        }
    }
}

/// A value as it is written, texts without quotes.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn map(data: &Value) -> Result<&Map<String, Value>, Failure> {
    let none = || Failure::Failed("the adapter's answer has no points".to_owned());
    data.as_object().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn points_are_printed_in_order_of_time() {
        let data =
            json!({"1332896460.0": 2.5, "-60.0": 1, "999999999.0": 9_007_199_254_740_993_i64});
        let expected = ["-60.0 1", "999999999.0 9007199254740993", "1332896460.0 2.5"];
        assert_eq!(lines(&data).unwrap(), expected);
        assert_eq!(lines(&json!({})).unwrap(), Vec::<String>::new());
        assert!(lines(&json!({"soon": 1})).unwrap_err().to_string().contains("soon"));
    }

    #[test]
    fn ids_and_devices_are_printed_by_the_line() {
        assert_eq!(lines(&json!(["u1", "a@b"])).unwrap(), ["u1", "a@b"]);
        let devices = json!({"cpu": ["total"], "blk_read": ["vda", "vdb"]});
        assert_eq!(lines(&devices).unwrap(), ["blk_read vda", "blk_read vdb", "cpu total"]);
    }

    #[test]
    fn a_failure_is_told_in_the_adapters_words() {
        assert_eq!(
            data(br#"{"code": 200, "message": "Success", "data": [1]}"#).unwrap(),
            json!([1])
        );
        for (body, told) in [
            (r#"{"code": 500, "message": "Request failed. id is missing", "data": null}"#, "id is"),
            ("{}", "no code"),
            ("[", "no answer"),
        ] {
            let error = data(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
