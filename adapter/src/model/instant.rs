//! Points in time as text: ISO 8601 as Kanyun's clients write it, and unix seconds.
//! Knows no clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A text that is no time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time; write 2012-03-28T01:00:00, with or without a fraction and an offset (UTC without one), or unix seconds, not milliseconds"
)]
pub struct NoTime(String);

/// Unix milliseconds of an ISO 8601 time, or of unix seconds with or without a fraction. A time
/// without an offset is UTC (Kanyun's servers ran in UTC). What is finer than a millisecond is cut
/// off, towards the past.
pub fn parse(text: &str) -> Result<i64, NoTime> {
    let text = text.trim();
    let no_time = || NoTime(text.chars().take(64).collect());
    // 2012 and 20120328 mean a year and a day to whoever writes them, seconds of 1970 to us. A zone
    // in brackets would be dropped.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits && matches!(text.len(), 4 | 8) || text.contains('[') {
        return Err(no_time());
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return of_unix_seconds(seconds).ok_or_else(no_time);
    }
    let with_offset = text.parse::<Timestamp>();
    let timestamp = with_offset.or_else(|_| {
        let civil: DateTime = text.parse()?;
        // The last day of the year 9999 stands for ever, and is beyond what can be converted.
        let ever = civil.year() == 9999;
        TimeZone::UTC
            .to_timestamp(civil)
            .or_else(|error| if ever { Ok(Timestamp::MAX) } else { Err(error) })
    });
    let timestamp = timestamp.map_err(|_| no_time())?;
    i64::try_from(timestamp.as_nanosecond().div_euclid(1_000_000)).map_err(|_| no_time())
}

/// Unix milliseconds of unix seconds; `None` for what is no time between the years -9999 and 9999.
pub fn of_unix_seconds(seconds: f64) -> Option<i64> {
    let ms = (seconds * 1e3).floor();
    let bounds = (Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond());
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is judged below")]
    let whole = ms as i64;
    (ms.is_finite() && bounds.0 <= whole && whole <= bounds.1).then_some(whole)
}

/// A time in UTC, such as `2026-01-01T00:00:15Z`, with milliseconds only where there are any.
pub fn format(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_clients_write() {
        let hour = 1_332_896_400_000;
        for text in [
            "2012-03-28T01:00:00",
            "2012-03-28 01:00:00",
            "2012-03-28T01:00:00Z",
            "2012-03-28T01:00:00+00:00",
            "2012-03-28T09:00:00+08:00",
            "2012-03-28T01:00:00.000000",
            "2012-03-28T01:00",
            "1332896400",
            "1332896400.0",
            " 1332896400 ",
        ] {
            assert_eq!(parse(text), Ok(hour), "{text}");
        }
        assert_eq!(parse("2012-03-28T01:00:00.123456"), Ok(hour + 123));
        assert_eq!(parse("2012-03-28T01:00:00.9999999-00:00"), Ok(hour + 999));
        assert_eq!(parse("1332896400.5"), Ok(hour + 500));
        assert_eq!(parse("2012-03-28"), Ok(hour - 3_600_000));
        assert_eq!(parse("-0.5"), Ok(-500));
        assert_eq!(parse("0"), Ok(0));
        assert!(parse("9999-12-31T23:59:59").unwrap() > parse("9999-01-01").unwrap());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "now", "2012-13-01T00:00:00", "1e300", "NaN", "inf", "25:00", "2012-03-28T"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(format(1_332_896_400_000), "2012-03-28T01:00:00Z");
        assert_eq!(format(1_332_896_400_250), "2012-03-28T01:00:00.25Z");
        assert_eq!(parse(&format(1_332_896_459_999)), Ok(1_332_896_459_999));
    }
}
