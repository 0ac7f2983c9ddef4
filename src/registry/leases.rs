//! How long an engine counts as alive after it was last heard from.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::EngineId;

/// The leases of READY engines, by when they end.
///
/// A lease is three times the engine's heartbeat interval, and a second at least. Where many end at
/// once, the network or this process is the likelier cause: eviction is held, until fewer are
/// overdue or for ten intervals.
#[derive(Debug, Default)]
pub(super) struct Leases {
    of: HashMap<EngineId, Lease>,
    in_order: BTreeSet<(Instant, EngineId)>,
    held_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    end: Instant,
    interval: Duration,
}

/// The engines whose leases are over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Overdue {
    pub(super) engines: Vec<EngineId>,
    /// Whether they stay for now, as too many are overdue at once.
    pub(super) are_held: bool,
    /// Whether `are_held` differs from the last call.
    pub(super) has_changed: bool,
}

impl Leases {
    /// Begins the lease again of an engine that named this interval.
    pub(super) fn renew(&mut self, id: EngineId, named: Option<Duration>, now: Instant) {
        let interval = named.unwrap_or(DEFAULT_INTERVAL);
        let end = now + length(named);
        if let Some(before) = self.of.insert(id, Lease { end, interval }) {
            self.in_order.remove(&(before.end, id));
        }
        self.in_order.insert((end, id));
    }

    pub(super) fn remove(&mut self, id: EngineId) {
        if let Some(lease) = self.of.remove(&id) {
            self.in_order.remove(&(lease.end, id));
        }
    }

    /// Returns `true` if the engine's lease is over.
    pub(super) fn is_over(&self, id: EngineId, now: Instant) -> bool {
        self.of.get(&id).is_some_and(|lease| lease.end <= now)
    }

    /// Returns when to look for overdue engines again.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let latest = now + SHORTEST;
        let next = self.in_order.first().filter(|_| self.held_until.is_none());
        next.map_or(latest, |(end, _)| latest.min(*end))
    }

    /// Returns the longest interval of the overdue engines: how long all of them take to call.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let intervals = self.until(now).filter_map(|id| self.of.get(&id));
        intervals
            .map(|lease| lease.interval)
            .max()
            .unwrap_or_default()
            .min(LONGEST_PATIENCE)
    }

    /// Returns the engines whose leases are over.
    pub(super) fn overdue(&mut self, now: Instant) -> Overdue {
        let engines: Vec<_> = self.until(now).collect();
        let patience = self.patience(now);
        // Those that will be overdue in a while are known by now: they have missed two heartbeats.
        let missing = self.until(now + patience).count();
        let was_held = self.held_until.is_some();
        let are_many = !engines.is_empty()
            && (was_held || self.of.len() >= FEWEST_HELD)
            && missing * 100 > self.of.len() * MOST_PERCENT;
        let until = self.held_until.unwrap_or(now + patience * MOST_INTERVALS);
        let are_held = are_many && now < until;
        self.held_until = are_held.then_some(until);
        Overdue {
            engines,
            are_held,
            has_changed: are_held != was_held,
        }
    }

    fn until(&self, time: Instant) -> impl Iterator<Item = EngineId> {
        let ended = self
            .in_order
            .iter()
            .take_while(move |(end, _)| *end <= time);
        ended.map(|(_, id)| *id)
    }
}

/// Returns how long the lease of an engine is that calls in this `interval`.
pub(super) fn length(interval: Option<Duration>) -> Duration {
    let lease = interval.unwrap_or(DEFAULT_INTERVAL).saturating_mul(3);
    lease.max(SHORTEST)
}

/// As engines call by default.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_secs(1);
/// An engine that calls once an hour holds up no other.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);
/// Fewer leases than this are never held.
const FEWEST_HELD: usize = 20;
const MOST_PERCENT: usize = 15;
const MOST_INTERVALS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn id(n: u8) -> EngineId {
        EngineId::from_random([n; 16])
    }

    /// The leases of `count` engines that called at `now`.
    fn leases(count: u8, now: Instant) -> Leases {
        let mut leases = Leases::default();
        for n in 0..count {
            leases.renew(id(n), Some(INTERVAL), now);
        }
        leases
    }

    /// Who is overdue, and whether they are held.
    fn overdue(leases: &mut Leases, now: Instant) -> (usize, bool) {
        let overdue = leases.overdue(now);
        (overdue.engines.len(), overdue.are_held)
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_over_after_three_intervals_to_the_moment() {
        let now = Instant::now();
        let mut leases = leases(1, now);
        let end = now + INTERVAL * 3;
        let before = end.checked_sub(Duration::from_nanos(1)).unwrap();

        assert_eq!(overdue(&mut leases, before), (0, false));
        assert!(!leases.is_over(id(0), before));
        assert_eq!(leases.next_look(before), end);
        assert_eq!(overdue(&mut leases, end), (1, false));
        assert!(leases.is_over(id(0), end));
        leases.renew(id(0), None, end);
        assert_eq!(overdue(&mut leases, end + INTERVAL), (0, false));
        leases.remove(id(0));
        assert_eq!(overdue(&mut leases, end + INTERVAL * 9), (0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn eviction_is_held_where_more_than_15_percent_of_at_least_20_are_overdue_at_once() {
        let now = Instant::now();
        for (all, lost, are_held) in [
            (19, 19, false),
            (20, 3, false),
            (20, 4, true),
            (100, 15, false),
            (100, 16, true),
        ] {
            let mut leases = leases(all, now);
            let end = now + INTERVAL * 3;
            for n in lost..all {
                leases.renew(id(n), Some(INTERVAL), end);
            }

            assert_eq!(
                overdue(&mut leases, end),
                (lost.into(), are_held),
                "{lost} of {all}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn first_of_many_that_are_lost_is_held_too() {
        let start = Instant::now();
        let mut leases = Leases::default();
        for n in 0..100 {
            leases.renew(
                id(n),
                Some(INTERVAL),
                start + Duration::from_millis(40) * n.into(),
            );
        }

        assert_eq!(overdue(&mut leases, start + INTERVAL * 3), (1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn held_eviction_goes_on_when_few_are_overdue_or_after_ten_intervals() {
        let now = Instant::now() + INTERVAL * 3;
        let mut leases = leases(100, Instant::now());
        assert_eq!(overdue(&mut leases, now), (100, true));
        assert_eq!(overdue(&mut leases, now + INTERVAL), (100, true));
        let back = now + INTERVAL;
        for n in 10..100 {
            leases.renew(id(n), Some(INTERVAL), back);
        }
        assert_eq!(overdue(&mut leases, back), (10, false));

        for n in 0..100 {
            leases.renew(id(n), Some(INTERVAL), back);
        }
        let late = back + INTERVAL * 3;
        assert_eq!(overdue(&mut leases, late), (100, true));
        let almost = late + INTERVAL * 9;
        assert_eq!(overdue(&mut leases, almost), (100, true));
        assert_eq!(overdue(&mut leases, late + INTERVAL * 10), (100, false));
    }
}
