//! How crowded a listener is, logged when it changes.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Crowding;
use crate::grpc::Rejections;
use crate::telemetry::events;

/// Without an incident for this long the listener is calm.
const CALM: Duration = Duration::from_secs(10);

/// Counts what is closed for want of room.
#[derive(Debug)]
pub(super) struct Crowd {
    rejections: Arc<Rejections>,
    closed: u64,
    last: Option<Instant>,
}

impl Crowd {
    pub(super) fn new(rejections: Arc<Rejections>) -> Self {
        Self {
            rejections,
            closed: 0,
            last: None,
        }
    }

    /// Notes that `closed` connections were closed because of `crowding`.
    pub(super) fn note(&mut self, crowding: &Crowding, closed: usize, now: Instant) {
        self.last = Some(now);
        self.closed = self.closed.saturating_add(closed as u64);
        let kind = ("crowded", discriminant(crowding));
        if let Some(suppressed) = self.rejections.admit(Rejections::OWN, kind) {
            events::listener_crowded(crowding, suppressed);
        }
    }

    /// Returns when the listener will be calm; `None` if it is calm now.
    pub(super) fn calm_at(&self) -> Option<Instant> {
        self.last.map(|last| last + CALM)
    }

    /// Logs that the listener is calm again, if it is.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.calm_at().is_some_and(|calm| calm <= now) {
            self.last = None;
            if self.rejections.admit(Rejections::OWN, "calm").is_some() {
                events::listener_calm(std::mem::take(&mut self.closed));
            }
        }
    }
}
