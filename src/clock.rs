//! Time as a value: whoever needs the time takes a [`Clock`], so that tests can set it.

use std::fmt::Debug;
use std::time::SystemTime;

/// Tells the time of day.
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

#[cfg(any(test, feature = "testing"))]
pub use manual::ManualClock;

#[cfg(any(test, feature = "testing"))]
mod manual {
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, SystemTime};

    use super::Clock;

    /// A clock that stands still until it is told to move.
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
