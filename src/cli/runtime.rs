//! The runtime of the commands that wait for something, and the signals that end them.

use std::time::Duration;
use std::{io, thread};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::output::{Exit, Kind, Refused};
use crate::config::ReloadHandle;

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

/// The signals that a long-running command obeys, caught from when this is made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Catches them. Needs a runtime.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a word to end; returns how a process ends that does not finish its work.
    pub(super) async fn end(&mut self) -> Exit {
        tokio::select! {
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.interrupt.recv() => Exit::Interrupted,
        }
    }

    /// Passes the first word to end on to `stop`, and completes at the second. Each SIGHUP
    /// has `files` read again; the log follows its files by itself.
    ///
    /// When `left_alone` completes, that counts as a first word to end.
    pub(super) async fn handle(
        mut self,
        files: &ReloadHandle,
        stop: CancellationToken,
        left_alone: impl Future<Output = ()>,
    ) -> Exit {
        tokio::pin!(left_alone);
        loop {
            let exit = tokio::select! {
                _ = self.terminate.recv() => Exit::Terminated,
                _ = self.interrupt.recv() => Exit::Interrupted,
                _ = self.hang_up.recv() => {
                    files.reload();
                    continue;
                }
                () = &mut left_alone, if !stop.is_cancelled() => Exit::Terminated,
            };
            if stop.is_cancelled() {
                return exit;
            }
            stop.cancel();
        }
    }
}

/// Completes when stdin ends, as it does with the process that holds its other end.
pub(super) async fn stdin_ends() {
    let ended = CancellationToken::new();
    let end = ended.clone();
    // A thread of its own: a runtime that is dropped waits for its blocking tasks, and this may
    // never end. If there is no thread, nothing asks the module to end.
    let _ = thread::Builder::new().spawn(move || {
        // An error says the same.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        end.cancel();
    });
    ended.cancelled().await;
}
