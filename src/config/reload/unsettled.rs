//! Files that keep changing.

use std::time::Duration;

use tokio::time::Instant;

/// For how long files may change without pause before that is reported.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Since when files have not stood still.
#[derive(Debug, Default)]
pub struct Unsettled {
    since: Option<Instant>,
    is_reported: bool,
}

impl Unsettled {
    /// Notes that they were being written at `now`; returns `true` once, after [`PATIENCE`]: report it
    /// then.
    pub fn go_on(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_long = now.saturating_duration_since(since) >= PATIENCE;
        is_long && !std::mem::replace(&mut self.is_reported, is_long)
    }

    /// Notes that they stood still; returns `true` if it was reported that they did not.
    pub fn end(&mut self) -> bool {
        std::mem::take(self).is_reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_never_settle_are_reported_once_and_again_after_they_did() {
        let mut unsettled = Unsettled::default();
        let start = Instant::now();
        let mut reported = |seconds: f64| unsettled.go_on(start + Duration::from_secs_f64(seconds));

        let first: Vec<_> = [0.0, 2.5, 4.9, 5.0, 5.1, 60.0].map(&mut reported).to_vec();
        assert_eq!(first, [false, false, false, true, false, false]);
        assert!(unsettled.end());
        assert!(!unsettled.end());

        let mut reported = |seconds: f64| unsettled.go_on(start + Duration::from_secs_f64(seconds));
        assert_eq!([61.0, 65.9, 66.0].map(&mut reported), [false, false, true]);
    }

    #[test]
    fn files_that_settle_now_and_then_are_not_reported() {
        let mut unsettled = Unsettled::default();
        let start = Instant::now();
        for second in 0..60 {
            assert!(!unsettled.go_on(start + Duration::from_secs(second)));
            if second % 4 == 3 {
                assert!(!unsettled.end());
            }
        }
    }
}
