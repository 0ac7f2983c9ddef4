//! Who is connected, since when, and who has to leave.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::ConnectionLimits;
use super::crowd::Crowding;

/// The open connections of one listener, oldest first.
///
/// Where room is short the oldest of the lowest [`Standing`] gives way, so that a peer that
/// opens connections without a key keeps out none that has one.
#[derive(Debug, Default)]
pub(in crate::grpc) struct Connections {
    table: Mutex<Table>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// Those that were cut, but whose sockets are not closed yet.
    leaving: usize,
}

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    since: Instant,
    standing: Arc<Standing>,
    /// Cuts the connection when it is dropped.
    _cut: oneshot::Sender<()>,
}

/// What a connection has shown so far. It never sinks.
#[derive(Debug, Default)]
pub(super) struct Standing(AtomicU8);

/// No request reached the services.
const SILENT: u8 = 0;
/// Requests did, none with a token that verified.
const STRANGER: u8 = 1;
/// A token verified: the connection does not give way.
const KNOWN: u8 = 2;

/// The place of a connection: dropped once its socket is closed, which frees the place.
#[derive(Debug)]
pub(super) struct Seat {
    key: u64,
    connections: Arc<Connections>,
    pub(super) standing: Arc<Standing>,
    cut: oneshot::Receiver<()>,
}

impl Connections {
    /// Admits a connection from `address`, or refuses it without a seat. Also returns why a
    /// connection is closed: an older one made room, or the new one was refused.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> (Option<Seat>, Option<Crowding>) {
        let mut table = self.table();
        let crowding = table.crowding(address, limits);
        let made_room = match crowding {
            None => true,
            Some(Crowding::Address(_)) => table.cut_lowest(|from| from == address),
            Some(_) => table.cut_lowest(|_| true),
        };
        let seat = made_room.then(|| {
            let key = table.next;
            table.next += 1;
            let (sender, cut) = oneshot::channel();
            let standing = Arc::new(Standing::default());
            let entry = Entry {
                address,
                since: now,
                standing: Arc::clone(&standing),
                _cut: sender,
            };
            table.open.insert(key, entry);
            Seat {
                key,
                connections: Arc::clone(self),
                standing,
                cut,
            }
        });
        (seat, crowding)
    }

    /// Cuts up to `count` connections that give way; returns how many.
    pub(super) fn cut_lowest(&self, count: usize) -> usize {
        let mut table = self.table();
        (0..count)
            .take_while(|_| table.cut_lowest(|_| true))
            .count()
    }

    /// Cuts what is overdue: silent beyond the deadline of the first request, or older than any
    /// connection may get.
    pub(super) fn cut_overdue(&self, limits: &ConnectionLimits, now: Instant) {
        self.table().cut(|entry| entry.due(limits) <= now);
    }

    /// Returns when the next connection will be overdue.
    pub(super) fn next_due(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let table = self.table();
        table.open.values().map(|entry| entry.due(limits)).min()
    }

    /// Cuts every connection that has sent no request.
    pub(in crate::grpc) fn cut_silent(&self) {
        self.table().cut(|entry| entry.standing.is(SILENT));
    }

    /// Cuts every connection.
    pub(in crate::grpc) fn cut_all(&self) {
        self.table().cut(|_| true);
    }

    /// Waits until the sockets of all that were cut are closed.
    pub(super) async fn all_left(&self) {
        loop {
            let left = self.left.notified();
            if self.table().leaving == 0 {
                return;
            }
            left.await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn crowding(&self, address: IpAddr, limits: &ConnectionLimits) -> Option<Crowding> {
        let same = self
            .open
            .values()
            .filter(|entry| entry.address == address)
            .count();
        if same >= limits.per_address {
            Some(Crowding::Address(limits.per_address))
        } else if self.open.len() >= limits.total {
            Some(Crowding::Total(limits.total))
        } else {
            None
        }
    }

    fn cut_lowest(&mut self, at: impl Fn(IpAddr) -> bool) -> bool {
        // The first of several lowest is the oldest.
        let lowest = self
            .open
            .iter()
            .filter(|(_, entry)| !entry.standing.is(KNOWN) && at(entry.address))
            .min_by_key(|(_, entry)| !entry.standing.is(SILENT))
            .map(|(key, _)| *key);
        let cut = lowest.and_then(|lowest| self.open.remove(&lowest));
        self.leaving += usize::from(cut.is_some());
        cut.is_some()
    }

    fn cut(&mut self, which: impl Fn(&Entry) -> bool) {
        let before = self.open.len();
        self.open.retain(|_, entry| !which(entry));
        self.leaving += before.saturating_sub(self.open.len());
    }
}

impl Entry {
    fn due(&self, limits: &ConnectionLimits) -> Instant {
        if self.standing.is(SILENT) {
            self.since + limits.first_request
        } else {
            self.since + limits.age + limits.age_grace
        }
    }
}

impl Standing {
    /// Notes that a request reached the services.
    pub(super) fn heard(&self) {
        self.0.fetch_max(STRANGER, Ordering::Relaxed);
    }

    /// Notes that a token verified.
    pub(super) fn known(&self) {
        self.0.fetch_max(KNOWN, Ordering::Relaxed);
    }

    fn is(&self, standing: u8) -> bool {
        self.0.load(Ordering::Relaxed) == standing
    }
}

impl Seat {
    /// Completes once the connection has to be closed.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.cut).poll(cx).map(drop)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        if table.open.remove(&self.key).is_none() {
            table.leaving = table.leaving.saturating_sub(1);
        }
        drop(table);
        self.connections.left.notify_waiters();
    }
}
