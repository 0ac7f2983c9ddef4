//! Which repeated events are logged: the first of a kind, then one line a minute with a count.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// How long a kind that had its lines is not logged again.
const MINUTE: Duration = Duration::from_secs(60);

/// Counts the events of each kind. Its size is bounded, whatever happens.
///
/// In a minute a kind gets as many lines as `burst` says. Kinds for which there is no room share
/// the lines of one.
#[derive(Debug)]
pub(crate) struct Ledger<K> {
    most: usize,
    burst: u32,
    kinds: HashMap<K, Logged>,
    /// Before then none of them makes room, if that was looked at.
    full_until: Option<Instant>,
    /// All kinds for which there is no room.
    others: Logged,
}

/// How many events were not logged since the last line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Suppressed {
    pub count: u64,
    /// Whether they may be of other kinds than the one that is logged.
    pub is_mixed: bool,
}

/// Returns how many events were not logged, unless all were.
pub(super) fn some(suppressed: Suppressed) -> Option<u64> {
    Some(suppressed.count).filter(|count| *count > 0)
}

/// Returns `true` if these may be of other kinds than the one that is logged.
pub(super) fn of_several(suppressed: Suppressed) -> Option<bool> {
    (suppressed.is_mixed && suppressed.count > 0).then_some(true)
}

#[derive(Debug, Default)]
struct Logged {
    /// When its minute began.
    since: Option<Instant>,
    lines: u32,
    suppressed: Suppressed,
}

impl<K: Eq + Hash> Ledger<K> {
    /// Keeps `most` kinds, each of which gets `burst` lines a minute.
    pub(crate) fn new(most: usize, burst: u32) -> Self {
        Self {
            most,
            burst,
            kinds: HashMap::new(),
            full_until: None,
            others: Logged {
                suppressed: Suppressed {
                    count: 0,
                    is_mixed: true,
                },
                ..Logged::default()
            },
        }
    }

    /// If an event of `kind` at `now` is to be logged, returns how many of its kind were not since
    /// the last that was.
    pub(crate) fn admit(&mut self, kind: K, now: Instant) -> Option<Suppressed> {
        let burst = self.burst;
        let logged = self.row(kind, now);
        let admitted = logged.admit(burst, now);
        logged.suppressed.count += u64::from(admitted.is_none());
        admitted
    }

    /// As [`admit`](Self::admit) for an event that was counted before: it is not counted again.
    pub(crate) fn admit_late(&mut self, kind: K, now: Instant) -> Option<Suppressed> {
        let burst = self.burst;
        self.row(kind, now).admit(burst, now)
    }

    fn row(&mut self, kind: K, now: Instant) -> &mut Logged {
        let is_known = self.kinds.contains_key(&kind);
        let is_full = self.kinds.len() >= self.most;
        if !is_known && is_full && self.full_until.is_none_or(|until| until <= now) {
            // The oldest make room once they would be logged again.
            let over = self.kinds.extract_if(|_, logged| logged.is_over(now));
            let lost = over.map(|(_, logged)| logged.suppressed.count);
            self.others.suppressed.count += lost.sum::<u64>();
            let oldest = self.kinds.values().filter_map(|logged| logged.since).min();
            self.full_until = oldest.map(|since| since + MINUTE);
        }
        if is_known || self.kinds.len() < self.most {
            self.kinds.entry(kind).or_default()
        } else {
            &mut self.others
        }
    }
}

impl Logged {
    fn is_over(&self, now: Instant) -> bool {
        self.since
            .is_none_or(|since| now.saturating_duration_since(since) >= MINUTE)
    }

    fn admit(&mut self, burst: u32, now: Instant) -> Option<Suppressed> {
        if self.is_over(now) {
            self.since = Some(now);
            self.lines = 0;
        }
        if self.lines >= burst {
            return None;
        }
        self.lines += 1;
        let suppressed = self.suppressed;
        self.suppressed.count = 0;
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Returns how many events of the kind that is logged were not.
    fn own(suppressed: Suppressed) -> u64 {
        assert!(!suppressed.is_mixed);
        suppressed.count
    }

    #[test]
    fn kind_is_logged_at_once_and_then_once_a_minute_with_a_count() {
        let mut ledger = Ledger::new(8, 1);
        let start = Instant::now();

        let logged: Vec<_> = (0..=130)
            .step_by(5)
            .filter_map(|seconds| ledger.admit("kind", after(start, seconds)))
            .map(own)
            .collect();

        assert_eq!(logged, [0, 11, 11]);
    }

    #[test]
    fn two_alternating_kinds_are_two_lines_a_minute_with_counts() {
        let mut ledger = Ledger::new(8, 1);
        let start = Instant::now();

        let logged: Vec<_> = (0..24_000)
            .filter_map(|n| {
                let suppressed = ledger.admit(n % 2, after(start, n / 200))?;
                Some((n % 2, own(suppressed)))
            })
            .collect();

        assert_eq!(logged, [(0, 0), (1, 0), (0, 5_999), (1, 5_999)]);
    }

    #[test]
    fn burst_is_logged_line_by_line() {
        let mut ledger = Ledger::new(8, 4);
        let start = Instant::now();

        let first: Vec<_> = (0..100).map(|_| ledger.admit("kind", start)).collect();
        let next = ledger.admit("kind", after(start, 60));

        assert_eq!(first.iter().flatten().count(), 4);
        assert_eq!(next.map(own), Some(96));
    }

    #[test]
    fn late_event_is_logged_once_there_is_room_and_is_not_counted() {
        let mut ledger = Ledger::new(8, 1);
        let start = Instant::now();
        let seen = [ledger.admit("kind", start), ledger.admit("kind", start)];

        let late: Vec<_> = (0..=60)
            .filter_map(|seconds| ledger.admit_late("kind", after(start, seconds)))
            .map(own)
            .collect();

        assert_eq!(seen.map(|seen| seen.map(own)), [Some(0), None]);
        assert_eq!(late, [1]);
    }

    #[test]
    fn kinds_without_room_share_one_and_every_event_is_counted() {
        let mut ledger = Ledger::new(7, 1);
        let start = Instant::now();
        let mut logged = 0;
        let mut suppressed = 0;

        for minute in 0..5 {
            for n in 0..1_000_u64 {
                let admitted = ledger.admit(minute * 1_000 + n, after(start, minute * 60));
                logged += u64::from(admitted.is_some());
                let of_others = admitted.unwrap_or_default();
                assert!(of_others.count == 0 || of_others.is_mixed);
                suppressed += of_others.count;
            }
        }

        assert_eq!((logged, ledger.kinds.len()), (5 * 8, 7));
        assert_eq!(logged + suppressed + ledger.others.suppressed.count, 5_000);
    }
}
