//! The runtime of the commands that wait for something.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

use super::output::{Kind, Refused};

/// Makes the runtime of a command.
pub(super) fn runtime() -> Result<Runtime, Refused> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("grpc-default-executor")
        .build()
        .map_err(Refused::caused(Kind::Internal, "cannot start the runtime"))
}

/// Repeats a question until a point in time, with pauses that double up to a longest one.
#[derive(Debug)]
pub(super) struct Patience {
    end: Instant,
    pause: Duration,
    longest: Duration,
}

impl Patience {
    /// Has patience for `time` from now on; the first pause is `pause`.
    pub(super) fn new(time: Duration, pause: Duration, longest: Duration) -> Self {
        let end = Instant::now() + time;
        Self {
            end,
            pause,
            longest,
        }
    }

    /// Returns how much time is left.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Pauses before the next question; returns `false` if the time is over.
    pub(super) async fn again(&mut self) -> bool {
        let left = self.left();
        if !left.is_zero() {
            sleep(self.pause.min(left)).await;
            self.pause = self.pause.saturating_mul(2).min(self.longest);
        }
        !left.is_zero()
    }
}
