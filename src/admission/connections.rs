//! Who is connected, since when, and who has to leave.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Network;

/// How many places are kept for each deployment, if there are enough.
const KEPT_FOR_EACH: usize = 4;

/// How many places are kept for callers on this machine, if there are enough.
const KEPT_FOR_LOOPBACK: usize = 32;

/// How long a connection may go on whose keys are all revoked: its calls end within that time, and
/// say why.
const PARTING: Duration = Duration::from_secs(1);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// In all.
    pub(crate) total: usize,
    /// From one network, as long as they have shown no token.
    pub(crate) per_address: usize,
    /// Of one deployment.
    pub(crate) per_owner: usize,
    /// How long a connection may take before it gives way to others.
    pub(crate) chance: Duration,
    /// How long it may take until its first request.
    pub(crate) first_request: Duration,
    /// How long it may last.
    pub(crate) age: Duration,
}

/// The open connections of one listener, oldest first.
///
/// A connection that has shown a verified token never gives way. Of the others those do, oldest
/// first, that are older than [`Bounds::chance`]. A network with more young connections than its
/// share gives way where all are young.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Mutex<Table>,
    left: Notify,
    bounds: Bounds,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// The unverified ones of each network.
    networks: HashMap<Network, usize>,
    /// The others, of each deployment.
    owners: HashMap<Box<str>, usize>,
    /// How many deployments may show a token.
    deployments: usize,
    /// Those that were cut, but whose sockets are not closed yet.
    leaving: usize,
}

#[derive(Debug)]
struct Entry {
    network: Network,
    since: Instant,
    /// The deployment whose token verified first.
    owner: Option<Box<str>>,
    /// When it is cut, as its key is no longer trusted.
    parts: Option<Instant>,
    standing: Arc<Standing>,
    /// Cuts the connection when it is dropped.
    _cut: oneshot::Sender<()>,
}

/// What a connection has shown so far.
#[derive(Debug)]
pub(crate) struct Standing {
    key: u64,
    connections: Weak<Connections>,
    state: AtomicU8,
    /// The last keys with which tokens verified.
    shown: Mutex<Vec<Shown>>,
    /// When each open call has to have ended, and whether its caller has shown a token.
    calls: Mutex<Vec<(Instant, bool)>>,
}

/// How many keys of a connection are remembered: one owner has no more that are active.
const MOST_SHOWN: usize = 8;

/// A call that has to have ended in time, as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenCall {
    pub(crate) standing: Arc<Standing>,
    call: (Instant, bool),
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.standing.calls();
        if let Some(place) = calls.iter().position(|call| *call == self.call) {
            calls.swap_remove(place);
        }
    }
}

/// A key with which a token verified, and whether it is still trusted.
pub(crate) struct Shown {
    pub(crate) key: Box<str>,
    pub(crate) still: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shown").field(&self.key).finish()
    }
}

/// No request reached the services.
const SILENT: u8 = 0;
/// Requests did, none with a token that verified and is still trusted.
const STRANGER: u8 = 1;
/// The connection has sent a token that verified.
const VERIFIED: u8 = 2;

/// The place of a connection: dropped once its socket is closed, which frees the place.
#[derive(Debug)]
pub(crate) struct Seat {
    connections: Arc<Connections>,
    pub(crate) standing: Arc<Standing>,
    cut: oneshot::Receiver<()>,
}

/// Why there is no room for one more connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Crowding {
    /// So many connections without a token came from one address.
    #[error("{0} connections from one address")]
    Address(usize),
    /// So many are open.
    #[error("{0} connections")]
    Total(usize),
    /// The operating system gives none, for this reason.
    #[error("cannot accept connections: {0}")]
    System(String),
}

/// A deployment has as many connections as it may have.
#[derive(Debug, thiserror::Error)]
#[error("this deployment has {0} connections here, the most it may have")]
pub(crate) struct Full(usize);

impl Connections {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            table: Mutex::default(),
            left: Notify::new(),
            bounds,
        }
    }

    /// Admits a connection from `address`, with the reason why an older one had to leave for it, if
    /// one had to.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub(crate) fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<(Seat, Option<Crowding>), Crowding> {
        let network = Network::of(address);
        let mut table = self.table();
        let crowding = table.make_room(network, &self.bounds, now)?;
        let standing = Arc::new(Standing {
            key: table.next,
            connections: Arc::downgrade(self),
            state: AtomicU8::new(SILENT),
            shown: Mutex::default(),
            calls: Mutex::default(),
        });
        let (sender, cut) = oneshot::channel();
        let entry = Entry {
            network,
            since: now,
            owner: None,
            parts: None,
            standing: Arc::clone(&standing),
            _cut: sender,
        };
        table.open.insert(standing.key, entry);
        table.next += 1;
        *table.networks.entry(network).or_default() += 1;
        let seat = Seat {
            connections: Arc::clone(self),
            standing,
            cut,
        };
        Ok((seat, crowding))
    }

    /// Keeps places for so many `deployments`, and has those connections leave soon whose key is no
    /// longer trusted.
    pub(crate) fn judge(&self, deployments: usize, now: Instant) {
        let mut guard = self.table();
        let table = &mut *guard;
        table.deployments = deployments;
        for entry in table.open.values_mut() {
            let mut shown = entry.standing.shown();
            shown.retain(|key| (key.still)());
            if shown.is_empty()
                && let Some(owner) = entry.owner.take()
            {
                entry.parts = Some(now + PARTING);
                entry.standing.state.store(STRANGER, Ordering::Relaxed);
                one_less(&mut table.owners, &owner);
                *table.networks.entry(entry.network).or_default() += 1;
            }
        }
    }

    /// Cuts what is overdue, and returns when the next connection will be: one that is silent
    /// beyond the deadline of the first request, whose key is no longer trusted, over which a call
    /// without a token cannot end, or that is older than any may get.
    pub(crate) fn cut_overdue(&self, now: Instant) -> Option<Instant> {
        let mut table = self.table();
        table.cut(usize::MAX, |entry| entry.due(&self.bounds) <= now);
        let open = table.open.values();
        open.map(|entry| entry.due(&self.bounds)).min()
    }

    /// Cuts up to `count` unverified connections, oldest first and at most half of them; returns
    /// how many.
    pub(crate) fn relieve(&self, count: usize) -> usize {
        let mut table = self.table();
        let unverified: usize = table.networks.values().sum();
        table.cut(count.min(unverified.div_ceil(2)), |e| e.owner.is_none())
    }

    /// Cuts every connection that has sent no request.
    pub(crate) fn cut_silent(&self) {
        self.table()
            .cut(usize::MAX, |entry| entry.standing.is(SILENT));
    }

    /// Cuts every connection.
    pub(crate) fn cut_all(&self) {
        self.table().cut(usize::MAX, |_| true);
    }

    /// Returns how many connections that were cut may still be open while more are accepted.
    pub(crate) fn few(&self) -> usize {
        (self.bounds.total / 16).min(64)
    }

    /// Waits until the sockets of all but `few` that were cut are closed.
    pub(crate) async fn have_left_but(&self, few: usize) {
        loop {
            let left = self.left.notified();
            if self.table().leaving <= few {
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
    /// Cuts at most one connection, so that there is room for one from `network`.
    fn make_room(
        &mut self,
        network: Network,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<Option<Crowding>, Crowding> {
        // Where there are few places, one address has not all of them.
        let share = bounds.per_address.min(bounds.total * 3 / 4).max(1);
        let (over_share, full) = (Crowding::Address(share), Crowding::Total(bounds.total));
        let own = self.networks.get(&network).copied().unwrap_or_default();
        let chance = bounds.chance;
        if own >= share && self.cut_oldest(|e| e.network == network && e.had(chance, now)) {
            return Ok(Some(over_share));
        }
        let (kept, here) = (bounds.kept_for_loopback(), network.is_loopback());
        let all_near = self.open.values().filter(|e| e.network.is_loopback());
        let near = all_near.take(kept + 1).count();
        let kept_free = if here { 0 } else { kept.saturating_sub(near) };
        if self.open.len() < bounds.total - kept_free {
            return Ok(None);
        }
        let spared = !here && near <= kept;
        if self.cut_oldest(|e| e.had(chance, now) && !(spared && e.network.is_loopback())) {
            return Ok(Some(full));
        }
        let largest = self.networks.iter().max_by_key(|(_, count)| **count);
        let over = largest.filter(|(_, count)| **count > share);
        if let Some(largest) = over.map(|(largest, _)| *largest)
            && self.cut_oldest(|e| e.network == largest)
        {
            return Ok(Some(over_share));
        }
        Err(if own >= share { over_share } else { full })
    }

    /// Makes a connection one of `owner`'s if it is no deployment's yet, and there is room beside
    /// what is kept for others.
    fn verified(&mut self, key: u64, owner: &str, bounds: &Bounds) -> Result<(), Full> {
        // One that was cut has no entry.
        if self.open.get(&key).is_none_or(|e| e.owner.is_some()) {
            return Ok(());
        }
        let own = self.owners.get(owner).copied().unwrap_or_default();
        if own >= KEPT_FOR_EACH && (own >= bounds.per_owner || !self.has_room(bounds)) {
            return Err(Full(own));
        }
        if let Some(entry) = self.open.get_mut(&key) {
            entry.owner = Some(owner.into());
            entry.parts = None;
            one_less(&mut self.networks, &entry.network);
            *self.owners.entry(owner.into()).or_default() += 1;
        }
        Ok(())
    }

    /// Returns `true` if there is room beside the places that are kept.
    fn has_room(&self, bounds: &Bounds) -> bool {
        let owners = self.owners.values();
        let taken: usize = owners.clone().map(|n| n.min(&KEPT_FOR_EACH)).sum();
        let kept = (self.deployments * KEPT_FOR_EACH).saturating_sub(taken);
        let others = kept.min(bounds.total / 2) + bounds.kept_for_loopback();
        owners.sum::<usize>() + others < bounds.total
    }

    /// Cuts the oldest unverified connection for which `which` holds; returns `true` if there is
    /// one.
    fn cut_oldest(&mut self, which: impl Fn(&Entry) -> bool) -> bool {
        self.cut(1, |entry| entry.owner.is_none() && which(entry)) > 0
    }

    /// Cuts up to `most` connections for which `which` holds, oldest first; returns how many.
    fn cut(&mut self, most: usize, which: impl Fn(&Entry) -> bool) -> usize {
        let all = self.open.iter().filter(|(_, entry)| which(entry));
        let keys: Vec<_> = all.map(|(key, _)| *key).take(most).collect();
        for key in &keys {
            self.take(*key);
        }
        self.leaving += keys.len();
        keys.len()
    }

    /// Takes a connection off the table, if it is there.
    fn take(&mut self, key: u64) -> Option<Entry> {
        let entry = self.open.remove(&key)?;
        match &entry.owner {
            None => one_less(&mut self.networks, &entry.network),
            Some(owner) => one_less(&mut self.owners, owner),
        }
        Some(entry)
    }
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(of);
        }
    }
}

impl Bounds {
    fn kept_for_loopback(&self) -> usize {
        KEPT_FOR_LOOPBACK.min(self.total / 8)
    }
}

impl Entry {
    /// Returns `true` if it had its `chance`.
    fn had(&self, chance: Duration, now: Instant) -> bool {
        self.parts.is_some() || now.saturating_duration_since(self.since) >= chance
    }

    fn due(&self, bounds: &Bounds) -> Instant {
        let lasts = if self.standing.is(SILENT) {
            bounds.first_request
        } else {
            bounds.age
        };
        let due = self.parts.unwrap_or(self.since + lasts);
        // A call over which nothing can be sent ends with its connection alone.
        let calls = self.standing.calls();
        let bounded = calls
            .iter()
            .filter(|(_, has_token)| *has_token || self.owner.is_none());
        bounded.map(|(due, _)| *due).fold(due, Ord::min)
    }
}

impl Standing {
    /// Notes that a request reached the services.
    pub(crate) fn heard(&self) {
        self.state.fetch_max(STRANGER, Ordering::Relaxed);
    }

    /// Notes that a token of `owner` verified that is signed with `key`.
    ///
    /// # Errors
    ///
    /// When `owner` has all the connections that it may have.
    pub(crate) fn show(
        &self,
        owner: &str,
        key: &str,
        shown: impl FnOnce() -> Shown,
    ) -> Result<(), Full> {
        if self.shown().iter().any(|known| *known.key == *key) {
            return Ok(());
        }
        if let Some(connections) = self.connections.upgrade() {
            let mut table = connections.table();
            let last = shown();
            // It may have been revoked since; after this look, `judge` sees it.
            if !(last.still)() {
                return Ok(());
            }
            table.verified(self.key, owner, &connections.bounds)?;
            self.state.store(VERIFIED, Ordering::Relaxed);
            let mut shown = self.shown();
            shown.truncate(MOST_SHOWN - 1);
            shown.insert(0, last);
        }
        Ok(())
    }

    /// Notes that a call begins, which ends before `due`; returns how many calls without a token
    /// are open now.
    pub(crate) fn begin(self: &Arc<Self>, due: Instant, has_token: bool) -> (OpenCall, usize) {
        let call = (due, has_token);
        let mut calls = self.calls();
        calls.push(call);
        let visits = calls.iter().filter(|(_, has_token)| !has_token).count();
        let standing = Arc::clone(self);
        (OpenCall { standing, call }, visits)
    }

    fn calls(&self) -> MutexGuard<'_, Vec<(Instant, bool)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if it has shown a token that verified and is still trusted.
    pub(crate) fn is_verified(&self) -> bool {
        self.is(VERIFIED)
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::Relaxed) == state
    }

    /// Locked after the table, where both are.
    fn shown(&self) -> MutexGuard<'_, Vec<Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Completes once the connection has to be closed.
    pub(crate) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.cut).poll(cx).map(drop)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        if table.take(self.standing.key).is_none() {
            table.leaving = table.leaving.saturating_sub(1);
        }
        drop(table);
        self.connections.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
