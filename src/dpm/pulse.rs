//! How late this process runs its own tasks.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant as RealInstant};

use tokio::time::{Instant, sleep};

/// Beats at a fixed pace, and notes when it was late: so were all other tasks, and an answer that
/// did not come in that time says nothing of who should have sent it.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<Beats>);

#[derive(Debug)]
struct Beats {
    last: Moment,
    /// When the last beat came that was late.
    late: Option<Instant>,
}

impl Pulse {
    /// Begins to beat, until nothing refers to it any more; to be polled in a task of its own.
    pub(super) fn begin() -> (Arc<Self>, impl Future<Output = ()>) {
        let pulse = Arc::new(Self(Mutex::new(Beats {
            last: Moment::now(),
            late: None,
        })));
        let beating = beat(Arc::downgrade(&pulse));
        (pulse, beating)
    }

    /// Returns `true` if this process has run tasks late at any time since `began`.
    pub(super) fn was_late_since(&self, began: Instant) -> bool {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = Moment::now().is_late_after(beats.last);
        is_late || beats.late.is_some_and(|late| late >= began)
    }

    fn beat(&self, now: Moment) {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_late_after(beats.last) {
            beats.late = Some(now.timers);
        }
        beats.last = now;
    }
}

async fn beat(pulse: Weak<Pulse>) {
    loop {
        sleep(EVERY).await;
        let Some(pulse) = pulse.upgrade() else {
            return;
        };
        pulse.beat(Moment::now());
    }
}

/// A time by both clocks: that of timers may be put forward, as in a test, and no task is then late.
#[derive(Clone, Copy, Debug)]
struct Moment {
    timers: Instant,
    real: RealInstant,
}

impl Moment {
    #[expect(
        clippy::disallowed_methods,
        reason = "what a test puts forward is the other one"
    )]
    fn now() -> Self {
        Self {
            timers: Instant::now(),
            real: RealInstant::now(),
        }
    }

    /// Returns `true` if the next beat after the one at `last` is late now.
    fn is_late_after(self, last: Self) -> bool {
        let [timers, real] = [self.timers - last.timers, self.real - last.real];
        timers.min(real) > EVERY + LATE
    }
}

const EVERY: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beat_that_is_over_50_ms_late_makes_what_began_before_it_late() {
        let (pulse, _beating) = Pulse::begin();
        let start = pulse.0.lock().unwrap().last;
        let at = |millis| Moment {
            timers: start.timers + Duration::from_millis(millis),
            real: start.real + Duration::from_millis(millis),
        };
        let late = || pulse.0.lock().unwrap().late;

        pulse.beat(at(20));
        pulse.beat(at(90));
        assert_eq!(late(), None);
        pulse.beat(at(161));
        assert_eq!(late(), Some(at(161).timers));
        pulse.beat(at(181));

        assert!(pulse.was_late_since(at(100).timers));
        assert!(pulse.was_late_since(at(161).timers));
        assert!(!pulse.was_late_since(at(162).timers));
    }

    #[test]
    fn clock_of_timers_that_is_put_forward_makes_nothing_late() {
        let (pulse, _beating) = Pulse::begin();
        let start = pulse.0.lock().unwrap().last;

        pulse.beat(Moment {
            timers: start.timers + Duration::from_secs(6),
            real: start.real,
        });

        assert!(!pulse.was_late_since(start.timers));
    }
}
