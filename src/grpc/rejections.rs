//! Which refused calls are logged: the first of its kind, then one a minute.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::events::{self, RejectedCall};

/// How long a kind of refusal is not logged again.
const SILENCE: Duration = Duration::from_secs(60);

/// How many kinds are kept of callers whose signature verified.
const MOST_OF_PEERS: usize = 512;

/// How many kinds are kept of all others together. A caller that makes up keys and methods fills a
/// log with no more than this many lines a minute and one.
const MOST_OF_STRANGERS: usize = 32;

/// Remembers what was logged. Its size is bounded, whatever callers send.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// Randomly keyed, so that no caller can make two kinds fall together.
    hasher: RandomState,
    peers: Mutex<Ledger>,
    strangers: Mutex<Ledger>,
}

impl Rejections {
    /// Logs `call`, unless one of its kind was logged a moment ago. `is_verified` says whether the
    /// caller's signature verified: what any other says of itself may be made up.
    pub(crate) fn log(&self, is_verified: bool, call: &RejectedCall<'_>) {
        if let Some(suppressed) = self.admit(is_verified, call, Instant::now()) {
            events::auth_rejected(call, suppressed);
        }
    }

    /// If a refusal at `now` is to be logged, returns how many of its kind were not since the last
    /// that was.
    fn admit(&self, is_verified: bool, call: &RejectedCall<'_>, now: Instant) -> Option<u64> {
        let (ledger, most) = if is_verified {
            (&self.peers, MOST_OF_PEERS)
        } else {
            (&self.strangers, MOST_OF_STRANGERS)
        };
        let host = call.peer.map(|peer| peer.ip());
        let kind = (call.reason, call.fingerprint, host, call.method);
        let mut kinds = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.admit(self.hasher.hash_one(kind), most, now)
    }
}

#[derive(Debug, Default)]
struct Ledger {
    kinds: HashMap<u64, Logged>,
    /// All kinds for which there is no room.
    others: Logged,
}

#[derive(Debug, Default)]
struct Logged {
    /// When it was logged last.
    at: Option<Instant>,
    suppressed: u64,
}

impl Ledger {
    /// Admits a refusal of `kind`, of which it keeps `most`.
    fn admit(&mut self, kind: u64, most: usize, now: Instant) -> Option<u64> {
        let is_known = self.kinds.contains_key(&kind);
        if !is_known && self.kinds.len() >= most {
            // The oldest make room once they would be logged again.
            self.kinds.retain(|_, logged| !logged.is_over(now));
        }
        let logged = if is_known || self.kinds.len() < most {
            self.kinds.entry(kind).or_default()
        } else {
            &mut self.others
        };
        logged.again(now)
    }
}

impl Logged {
    fn is_over(&self, now: Instant) -> bool {
        self.at
            .is_none_or(|at| now.saturating_duration_since(at) >= SILENCE)
    }

    fn again(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            self.at = Some(now);
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::telemetry::{Format, capture};
    use crate::token::Reason;

    const WRONG_KEY: RejectedCall<'_> = RejectedCall {
        reason: "KEY_UNKNOWN",
        fingerprint: Some("1iCc"),
        peer: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8531)),
        method: "/a.B/Get",
        detail: "no trusted key has the fingerprint `1iCc`",
        help: "pair the two modules",
    };

    #[test]
    fn a_kind_is_reported_at_once_and_then_once_a_minute_with_a_count() {
        let rejections = Rejections::default();
        let start = Instant::now();
        let at = |seconds| {
            let now = start + Duration::from_secs(seconds);
            rejections.admit(false, &WRONG_KEY, now)
        };

        let reported: Vec<_> = (0..=130).step_by(5).filter_map(at).collect();

        assert_eq!(reported, [0, 11, 11]);
    }

    #[test]
    fn another_reason_key_peer_or_method_is_another_kind() {
        let rejections = Rejections::default();
        let now = Instant::now();
        let other = [
            WRONG_KEY,
            RejectedCall {
                reason: "KEY_REVOKED",
                ..WRONG_KEY
            },
            RejectedCall {
                fingerprint: Some("Oq1X"),
                ..WRONG_KEY
            },
            RejectedCall {
                peer: None,
                ..WRONG_KEY
            },
            RejectedCall {
                method: "/a.B/Put",
                ..WRONG_KEY
            },
        ];

        for kind in &other {
            assert_eq!(rejections.admit(true, kind, now), Some(0));
            assert_eq!(rejections.admit(true, kind, now), None);
        }
    }

    #[test]
    fn strangers_share_a_budget_that_leaves_peers_theirs() {
        let rejections = Rejections::default();
        let start = Instant::now();
        let admit = |is_verified, number: u64, now| {
            let key_id = number.to_string();
            rejections.admit(
                is_verified,
                &RejectedCall {
                    fingerprint: Some(&key_id),
                    ..WRONG_KEY
                },
                now,
            )
        };

        let first: Vec<_> = (0..10_000)
            .filter_map(|number| admit(false, number, start))
            .collect();
        let of_peer = admit(true, 0, start);
        let later = start + SILENCE;
        let second: Vec<_> = (20_000..30_000)
            .filter_map(|number| admit(false, number, later))
            .collect();

        assert_eq!(first.len(), MOST_OF_STRANGERS + 1);
        assert_eq!(of_peer, Some(0));
        assert_eq!(second.len(), MOST_OF_STRANGERS + 1);
        let unreported = 10_000 - first.len() as u64;
        assert_eq!(second.last(), Some(&unreported));
        assert_eq!(
            rejections.strangers.lock().unwrap().kinds.len(),
            MOST_OF_STRANGERS
        );
    }

    #[test]
    fn many_refusals_of_a_kind_are_one_line_that_says_what_to_do() {
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let (dispatch, lines) = capture::subscriber(Format::Console, clock);
        let rejections = Rejections::default();
        let call = RejectedCall {
            reason: "KEY_UNKNOWN",
            fingerprint: Some("1iCc"),
            peer: None,
            method: "/a.B/Get",
            detail: "no trusted key has the fingerprint `1iCc`",
            help: Reason::KeyUnknown.help(),
        };

        tracing::dispatcher::with_default(&dispatch, || {
            for _ in 0..1000 {
                rejections.log(false, &call);
            }
        });

        let lines = lines.take();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("no trusted key has the fingerprint `1iCc`"));
        assert!(lines[0].contains("countersign pair"), "{}", lines[0]);
    }
}
