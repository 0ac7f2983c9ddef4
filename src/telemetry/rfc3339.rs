//! Times as text.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// Writes `time` in UTC as RFC 3339 specifies, to the millisecond; `None` before 1970.
pub(crate) fn to_rfc3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let milliseconds = u64::try_from(since.as_millis()).ok()?;
    let whole = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?;
    Some(Timestamp::from(whole).to_string())
}

/// Reads a time as RFC 3339 specifies: with date, time and offset.
pub(crate) fn from_rfc3339(text: &str) -> Option<SystemTime> {
    // `Timestamp` also reads a date alone, a time without an offset or with a space before it, and
    // a year of any length.
    let (date, rest) = text.split_at_checked("2026-01-31".len())?;
    let has_offset = rest.ends_with(['Z', 'z']) || rest.contains(['+', '-']);
    let has_space = rest.rfind(' ').is_some_and(|at| at > 0);
    if !has_offset || has_space || date.starts_with(['+', '-']) {
        return None;
    }
    SystemTime::try_from(text.parse::<Timestamp>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_as_it_is_written() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_250);

        let text = to_rfc3339(time + Duration::from_nanos(999)).unwrap();

        assert_eq!(text, "2027-01-15T08:00:00.250Z");
        assert_eq!(from_rfc3339(&text), Some(time));
        assert_eq!(from_rfc3339("2027-01-15T09:00:00.25+01:00"), Some(time));
    }

    #[test]
    fn text_that_is_not_a_whole_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "2027-02-30T08:00:00Z",
            "2027-01-15T08:00:00 Z",
            "2027-01-15T08:00:00 +01:00",
            "2027-01-15T08:00Z",
            "2027-01-15T08:00:00Zé",
            "+9223372036854775807-01-15T08:00:00Z",
            "-9223372036854775807-01-15T08:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn extreme_times_are_read_without_a_panic() {
        for text in [
            "9999-12-31T23:59:59-99:99",
            "0000-01-01T00:00:00+99:99",
            "9999-12-31T23:59:60.99999999999999999999-00:00",
        ] {
            let _ = from_rfc3339(text);
        }
    }
}
