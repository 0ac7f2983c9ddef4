//! By how much the clocks of callees differ from this one, as their proofs and their refusals
//! show.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{Response, StatusCode};
use tonic::Status;

use crate::clock::{Clock, seconds_after};
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

use super::callee_time;

/// Watches the clocks of a module's callees: a metric for each deployment, an event when a clock
/// differs by half of the leeway, and one when it does no longer.
#[derive(Debug)]
pub(super) struct ClockSkews {
    /// Where the module counts.
    pub(super) metrics: Arc<Metrics>,
    /// The clocks that were reported: deployment and engine.
    reported: Mutex<HashSet<(String, Option<String>)>>,
}

/// A proof's time, and when the call was made. The callee signed between the two, in a second that
/// began at `signed`: what it shows is bounded, whatever a call takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'a> {
    /// Whose clock it is.
    pub(super) deployment: &'a str,
    /// The engine, if there are several.
    pub(super) engine: Option<&'a str>,
    pub(super) sent: SystemTime,
    pub(super) received: SystemTime,
    pub(super) signed: SystemTime,
}

/// More clocks than this are not reported one by one.
const MOST_REPORTED: usize = 256;

/// A call that took longer says little in one number.
const LONGEST_SECONDS: f64 = 10.0;

impl ClockSkews {
    /// Writes to `metrics`.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            reported: Mutex::default(),
        }
    }

    /// Notes the callee's time in the `answer` of `deployment`: a refusal because of times has it.
    /// It is not signed, so it is only shown, and until an answer that is no refusal.
    pub(super) fn note_answer<R>(&self, deployment: &str, answer: &Response<R>, clock: &dyn Clock) {
        let headers = answer.headers();
        match headers.get(Status::GRPC_STATUS) {
            // A proxy between the two: the callee did not judge the token.
            None if answer.status() != StatusCode::OK => {}
            Some(code) if code != "0" => {
                let status = Status::from_header_map(headers);
                if let Some(time) = status.and_then(|status| callee_time(&status)) {
                    self.metrics
                        .clock_estimated(deployment, seconds_after(time, clock.now()));
                }
            }
            _ => self.metrics.clock_agrees(deployment),
        }
    }

    /// Notes what a verified proof shows.
    pub(super) fn note(&self, measured: Measured<'_>, leeway: Duration) {
        // The least and the most by which the callee's clock can be ahead, in seconds.
        let least = seconds_after(measured.signed, measured.received);
        let most = seconds_after(measured.signed, measured.sent) + 1.0;
        let ahead = f64::midpoint(least, most);
        if most - least < LONGEST_SECONDS {
            self.metrics.clock_measured(measured.deployment, ahead);
        }
        let half = leeway.as_secs_f64() / 2.0;
        let key = (
            measured.deployment.to_owned(),
            measured.engine.map(str::to_owned),
        );
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if least > half || most < -half {
            if reported.len() < MOST_REPORTED && reported.insert(key) {
                events::clock_skewed(measured.deployment, ahead, leeway);
            }
        // Less than what is reported, so that a clock near the limit is not reported in turns.
        } else if least <= half / 2.0 && most >= -half / 2.0 && reported.remove(&key) {
            events::clock_in_step(measured.deployment, ahead);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::dispatcher::with_default;

    use super::*;
    use crate::clock::SystemClock;
    use crate::telemetry::{Format, capture};

    const LEEWAY: Duration = Duration::from_secs(30);

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + milliseconds)
    }

    /// A call of 20 ms whose callee's clock shows `signed` seconds.
    fn measured(signed: u64) -> Measured<'static> {
        Measured {
            deployment: "dpm-dev",
            engine: None,
            sent: at(100_000),
            received: at(100_020),
            signed: at(signed * 1000),
        }
    }

    /// What is logged after each of `clocks` was seen.
    fn reported(clocks: &[u64], leeway: Duration) -> Vec<usize> {
        let skews = ClockSkews::new(Arc::new(Metrics::new("dpe", []).unwrap()));
        let (dispatch, lines) = capture::subscriber(Format::Json, Arc::new(SystemClock));
        let see = |clock: &u64| {
            with_default(&dispatch, || skews.note(measured(*clock), leeway));
            lines.take().len()
        };
        clocks.iter().map(see).collect()
    }

    #[test]
    fn skew_is_reported_once_past_half_of_the_leeway_and_once_when_it_is_gone() {
        // In step, near the limit, past it twice, near it again, in step twice; then behind.
        let clocks = [100, 115, 117, 120, 114, 100, 100, 80, 99];

        assert_eq!(reported(&clocks, LEEWAY), [0, 0, 1, 0, 0, 1, 0, 1, 1]);
    }

    #[test]
    fn second_in_which_a_proof_is_signed_is_no_skew_however_small_the_leeway() {
        for leeway in [0, 1, 2] {
            assert_eq!(
                reported(&[99, 100, 99], Duration::from_secs(leeway)),
                [0; 3]
            );
            assert_eq!(reported(&[103, 100], Duration::from_secs(leeway)), [1, 1]);
        }
    }

    #[test]
    fn metric_shows_the_middle_of_what_it_can_be() {
        let metrics = Arc::new(Metrics::new("dpe", []).unwrap());
        let skews = ClockSkews::new(Arc::clone(&metrics));

        skews.note(measured(107), LEEWAY);

        let shown = metrics.render();
        let line = r#"countersign_peer_clock_skew_seconds{deployment="dpm-dev"} 7.49"#;
        assert!(shown.contains(line), "{shown}");
    }
}
