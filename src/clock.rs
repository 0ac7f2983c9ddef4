//! Time as a value: code that needs the time takes a [`Clock`], so that tests can set it.

use std::fmt::{self, Debug};
use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// Returns the time of day.
///
/// Tokens carry wall-clock times, so a clock may step; nothing here assumes that it only moves
/// forward. Intervals are measured elsewhere, with tokio's monotonic timers.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine"
    )]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// By how many seconds `time` is after `other`.
pub(crate) fn seconds_after(time: SystemTime, other: SystemTime) -> f64 {
    match time.duration_since(other) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// How long ago something was, for people: in the largest unit of which it was one, rounded down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Age(Duration);

impl Age {
    /// Returns the time from `then` to `now`; `None` if `then` is in the future.
    pub fn between(then: SystemTime, now: SystemTime) -> Option<Self> {
        now.duration_since(then).ok().map(Self)
    }

    /// Returns the whole seconds.
    pub fn seconds(self) -> u64 {
        self.0.as_secs()
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
        let seconds = self.seconds();
        let largest = units.into_iter().find(|(unit, _)| seconds >= *unit);
        let (unit, name) = largest.unwrap_or((1, "s"));
        write!(f, "{} {name}", seconds / unit)
    }
}

#[cfg(any(test, feature = "testing"))]
pub use manual::ManualClock;

#[cfg(any(test, feature = "testing"))]
mod manual {
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use super::Clock;

    /// A clock that does not advance until a test moves it.
    #[derive(Debug)]
    pub struct ManualClock(Mutex<SystemTime>);

    impl ManualClock {
        /// Starts at `now`.
        pub fn new(now: SystemTime) -> Self {
            Self(Mutex::new(now))
        }

        /// Starts at `seconds` after 1970-01-01T00:00:00Z.
        pub fn at_unix(seconds: u64) -> Self {
            Self::new(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        }

        /// Moves forward by `step`.
        pub fn advance(&self, step: Duration) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += step;
        }

        /// Moves to `now`, forward or back.
        pub fn set(&self, now: SystemTime) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> SystemTime {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

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
    fn age_is_shown_in_its_largest_unit() {
        let then = SystemTime::UNIX_EPOCH;
        let reported = |seconds| {
            let age = Age::between(then, then + Duration::from_secs(seconds));
            age.unwrap().to_string()
        };

        let all = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 90 * 86_400].map(reported);

        let expected = [
            "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "90 d",
        ];
        assert_eq!(all, expected);
        assert_eq!(Age::between(then + Duration::from_secs(1), then), None);
    }

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
