//! Which events of calls and connections are logged: the first of its kind, then one a minute.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::telemetry::Ledger;
use crate::telemetry::events::{self, RejectedCall};

/// How many kinds are kept of what callers cause whose signature verified.
const MOST_OF_PEERS: usize = 512;

/// How many kinds are kept of what all others cause together. However they vary it, they fill a log
/// with no more than this many lines a minute and one: less than 1 MB an hour.
const MOST_OF_STRANGERS: usize = 7;

/// Remembers what was logged. Its size is bounded, whatever callers send.
#[derive(Debug)]
pub(crate) struct Rejections {
    /// Randomly keyed, so that no caller can make two kinds fall together.
    hasher: RandomState,
    peers: Mutex<Ledger<u64>>,
    strangers: Mutex<Ledger<u64>>,
}

impl Default for Rejections {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            peers: Mutex::new(Ledger::new(MOST_OF_PEERS, 1)),
            strangers: Mutex::new(Ledger::new(MOST_OF_STRANGERS, 1)),
        }
    }
}

impl Rejections {
    /// Logs `call`, unless one of its kind was logged a moment ago. `is_verified` says whether the
    /// caller's signature verified: what any other says of itself may be made up.
    pub(crate) fn log(&self, is_verified: bool, call: &RejectedCall<'_>) {
        let host = call.peer.map(|peer| peer.ip());
        let kind = (call.reason, call.fingerprint, host, call.method);
        if let Some(suppressed) = self.admit(is_verified, kind) {
            events::auth_rejected(call, is_verified, suppressed);
        }
    }

    /// If an event of `kind` is to be logged, returns how many of its kind were not since the last
    /// that was.
    pub(crate) fn admit(&self, is_verified: bool, kind: impl Hash) -> Option<u64> {
        let ledger = if is_verified {
            &self.peers
        } else {
            &self.strangers
        };
        let mut kinds = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.admit(self.hasher.hash_one(kind), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::dispatcher::with_default;

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

    /// Runs `scene` and returns the lines that it logs.
    fn logged(format: Format, scene: impl FnOnce()) -> Vec<String> {
        let clock = Arc::new(ManualClock::at_unix(1_800_000_000));
        let (dispatch, lines) = capture::subscriber(format, clock);
        with_default(&dispatch, scene);
        lines.take()
    }

    #[test]
    fn another_reason_key_peer_or_method_is_another_kind() {
        let rejections = Rejections::default();
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
            let lines = logged(Format::Console, || {
                rejections.log(true, kind);
                rejections.log(true, kind);
            });
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    #[test]
    fn strangers_share_a_budget_that_leaves_peers_theirs() {
        let rejections = Rejections::default();
        let lines = |is_verified, numbers: std::ops::Range<u32>| {
            let admitted = numbers.filter_map(|n| rejections.admit(is_verified, n));
            admitted.count()
        };

        assert_eq!(lines(false, 0..10_000), MOST_OF_STRANGERS + 1);
        assert_eq!(lines(true, 0..100), 100);
    }

    /// The worst that strangers can do: texts that grow when they are escaped, never twice the same.
    #[tokio::test(start_paused = true)]
    async fn strangers_however_varied_write_less_than_a_megabyte_an_hour() {
        let rejections = Rejections::default();
        let helps = Reason::ALL.iter().map(|reason| reason.help());
        let help = helps.max_by_key(|help| help.len()).unwrap();
        let mut written = 0;

        for minute in 0..60 {
            for n in 0..200 {
                let worst = ["\u{202e}", "\"", "\\", "\u{1f980}"][n % 4];
                let text = format!("{minute} {n} {}", worst.repeat(8_000));
                let call = RejectedCall {
                    fingerprint: Some(&text),
                    peer: Some(SocketAddr::from(([0xfd00; 8], 65_535))),
                    method: &text,
                    detail: &format!("no trusted key has the fingerprint `{text}`"),
                    help,
                    ..WRONG_KEY
                };
                let lines = logged(Format::Json, || rejections.log(false, &call));
                written += lines.iter().map(|line| line.len() + 1).sum::<usize>();
            }
            tokio::time::advance(Duration::from_secs(60)).await;
        }

        assert!(written > 60 * 8 * 500, "{written} bytes: what is missing?");
        assert!(written < 1_000_000, "{written} bytes");
    }

    #[test]
    fn many_refusals_of_a_kind_are_one_line_that_says_what_to_do() {
        let rejections = Rejections::default();
        let call = RejectedCall {
            peer: None,
            help: Reason::KeyUnknown.help(),
            ..WRONG_KEY
        };

        let lines = logged(Format::Console, || {
            for _ in 0..1000 {
                rejections.log(false, &call);
            }
        });

        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("no trusted key has the fingerprint `1iCc`"));
        assert!(lines[0].contains("countersign pair"), "{}", lines[0]);
    }
}
