//! Who is connected, since when, and who has to leave.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::ConnectionLimits;
use super::crowd::Crowding;

/// The open connections of one listener, oldest first.
///
/// A connection is *silent* until its first request reaches the services. Where room is short the
/// oldest silent one gives way, so that whoever opens connections and says nothing keeps nobody
/// out.
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
    silent: bool,
    cut: oneshot::Sender<()>,
}

/// A connection's place, for as long as its socket is open.
#[derive(Debug)]
pub(super) struct Place {
    key: u64,
    connections: Arc<Connections>,
    heard: AtomicBool,
}

/// What became of a new connection.
#[derive(Debug)]
pub(super) struct Admission {
    /// Its place and the word to leave; none where it is refused.
    pub(super) place: Option<(Arc<Place>, oneshot::Receiver<()>)>,
    /// Why a connection is closed: the oldest silent one, or the new one where none is silent.
    pub(super) crowding: Option<Crowding>,
}

impl Connections {
    /// Gives a connection from `address` a place, or refuses it.
    pub(super) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> Admission {
        let mut table = self.table();
        let crowding = table.crowding(address, limits);
        let made_room = match crowding {
            None => true,
            Some(Crowding::Address(_)) => table.cut_oldest_silent(|from| from == address),
            Some(_) => table.cut_oldest_silent(|_| true),
        };
        let place = made_room.then(|| {
            let key = table.next;
            table.next += 1;
            let (cut, told) = oneshot::channel();
            let entry = Entry {
                address,
                since: now,
                silent: true,
                cut,
            };
            table.open.insert(key, entry);
            let place = Place {
                key,
                connections: Arc::clone(self),
                heard: AtomicBool::new(false),
            };
            (Arc::new(place), told)
        });
        Admission { place, crowding }
    }

    /// Cuts up to `count` silent connections, the oldest first; returns how many.
    pub(super) fn cut_oldest_silent(&self, count: usize) -> usize {
        let mut table = self.table();
        (0..count)
            .take_while(|_| table.cut_oldest_silent(|_| true))
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
        self.table().cut(|entry| entry.silent);
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

    fn cut_oldest_silent(&mut self, at: impl Fn(IpAddr) -> bool) -> bool {
        let oldest = self
            .open
            .iter()
            .find(|(_, entry)| entry.silent && at(entry.address))
            .map(|(key, _)| *key);
        oldest.is_some_and(|oldest| {
            self.cut_keys(&[oldest]);
            true
        })
    }

    fn cut(&mut self, which: impl Fn(&Entry) -> bool) {
        let chosen = self.open.iter().filter(|(_, entry)| which(entry));
        let chosen: Vec<u64> = chosen.map(|(key, _)| *key).collect();
        self.cut_keys(&chosen);
    }

    fn cut_keys(&mut self, keys: &[u64]) {
        for key in keys {
            if let Some(entry) = self.open.remove(key) {
                self.leaving += 1;
                // Nobody listens any more where its socket is being closed already.
                let _ = entry.cut.send(());
            }
        }
    }
}

impl Entry {
    fn due(&self, limits: &ConnectionLimits) -> Instant {
        if self.silent {
            self.since + limits.first_request
        } else {
            self.since + limits.age + limits.age_grace
        }
    }
}

impl Place {
    /// Notes that a request reached the services.
    pub(super) fn heard(&self) {
        if !self.heard.swap(true, Ordering::Relaxed)
            && let Some(entry) = self.connections.table().open.get_mut(&self.key)
        {
            entry.silent = false;
        }
    }

    /// Frees the place: the socket is closed.
    pub(super) fn leave(&self) {
        let mut table = self.connections.table();
        if table.open.remove(&self.key).is_none() {
            table.leaving = table.leaving.saturating_sub(1);
        }
        drop(table);
        self.connections.left.notify_waiters();
    }
}
