//! How crowded a listener is, logged when it changes.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::events;

/// Without an incident for this long the listener is calm.
const CALM: Duration = Duration::from_secs(10);

/// Why there is no room for one more connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Crowding {
    /// So many connections came from one address.
    Address(usize),
    /// So many connections are open.
    Total(usize),
    /// The operating system gives none, for this reason.
    System(String),
}

impl fmt::Display for Crowding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(limit) => write!(f, "{limit} connections from one address"),
            Self::Total(limit) => write!(f, "{limit} connections"),
            Self::System(cause) => write!(f, "cannot accept connections: {cause}"),
        }
    }
}

/// Counts what is closed for want of room.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    logged: Vec<Crowding>,
    closed: u64,
    last: Option<Instant>,
}

impl Crowd {
    /// Notes that `closed` connections were closed because of `crowding`.
    pub(super) fn note(&mut self, crowding: Crowding, closed: usize, now: Instant) {
        self.last = Some(now);
        self.closed = self.closed.saturating_add(closed as u64);
        if !self.logged.contains(&crowding) {
            events::listener_crowded(&crowding);
            self.logged.push(crowding);
        }
    }

    /// Returns when the listener will be calm; `None` if it is calm now.
    pub(super) fn calm_at(&self) -> Option<Instant> {
        self.last.map(|last| last + CALM)
    }

    /// Logs that the listener is calm again, if it is.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.calm_at().is_some_and(|calm| calm <= now) {
            events::listener_calm(self.closed);
            *self = Self::default();
        }
    }
}
