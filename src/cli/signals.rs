//! What asks a long-running command to end.

use std::io::{self, Read as _};
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::output::{Exit, Kind, Refused};
use crate::config::ReloadHandle;
use crate::telemetry::Guard;

/// The signals that a long-running command obeys, caught from when this is made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Catches them. Needs a runtime.
    pub(super) fn catch() -> Result<Self, Refused> {
        let caught = || -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hang_up: signal(SignalKind::hangup())?,
            })
        };
        caught().map_err(Refused::caused(Kind::Internal, "cannot wait for signals"))
    }

    /// Waits for a word to end; returns how a process ends that does not finish its work.
    pub(super) async fn end(&mut self) -> Exit {
        tokio::select! {
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.interrupt.recv() => Exit::Interrupted,
        }
    }

    /// Passes the first word to end on to `stop`, and completes at the second. Each SIGHUP opens
    /// `log` again and has `files` read again.
    ///
    /// `left_alone` is a word to end, too.
    pub(super) async fn obey(
        mut self,
        log: Guard,
        files: &ReloadHandle,
        stop: oneshot::Sender<()>,
        left_alone: impl Future<Output = ()>,
    ) -> Exit {
        tokio::pin!(left_alone);
        let mut stop = Some(stop);
        loop {
            let insisted = tokio::select! {
                _ = self.terminate.recv() => Some(Exit::Terminated),
                _ = self.interrupt.recv() => Some(Exit::Interrupted),
                _ = self.hang_up.recv() => {
                    log.reopen();
                    files.reload();
                    None
                }
                () = &mut left_alone, if stop.is_some() => Some(Exit::Terminated),
            };
            match (insisted, stop.take()) {
                (Some(exit), None) => return exit,
                // A module that has ended needs no signal.
                (Some(_), Some(first)) => drop(first.send(())),
                (None, unused) => stop = unused,
            }
        }
    }
}

/// Completes when stdin ends, as it does with the process that holds its other end.
pub(super) async fn stdin_ends() {
    let (ended, end) = oneshot::channel();
    // A thread of its own: a runtime waits for its blocking tasks, and this may never end.
    let waiting = thread::Builder::new().spawn(move || {
        let mut ignored = [0; 256];
        let mut stdin = io::stdin().lock();
        while stdin.read(&mut ignored).is_ok_and(|read| read > 0) {}
        // The receiver may be gone.
        let _ = ended.send(());
    });
    if waiting.is_err() {
        std::future::pending::<()>().await;
    }
    // A dropped sender says the same.
    let _ = end.await;
}
