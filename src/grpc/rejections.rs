//! Which events of calls and connections are logged: the first of its kind, then one a minute.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::telemetry::Ledger;
use crate::telemetry::events::{self, RejectedCall};

/// How many kinds are kept of what one deployment causes, and of what all callers cause together
/// whose signature did not verify. However they vary it, they fill a log with no more than this
/// many lines a minute and one: less than 1 MB an hour.
const MOST_OF_ONE: usize = 7;

/// Remembers what was logged. Its size is bounded, whatever callers send.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// Randomly keyed, so that no caller can make two kinds fall together.
    hasher: RandomState,
    /// By deployment; under no name those of the strangers.
    ledgers: Mutex<HashMap<Option<Box<str>>, Ledger<u64>>>,
}

impl Rejections {
    /// The owner of what the module itself causes.
    pub(super) const OWN: Option<&str> = Some("");

    /// Logs `call`, unless one of its kind was logged a moment ago. `owner` is the deployment of
    /// the caller, if its signature verified: what any other says of itself may be made up.
    pub(crate) fn log(&self, owner: Option<&str>, call: &RejectedCall<'_>) {
        let host = call.peer.map(|peer| peer.ip());
        let kind = (call.reason, call.fingerprint, host, call.method);
        if let Some(suppressed) = self.admit(owner, kind) {
            events::auth_rejected(call, owner.is_some(), suppressed);
        }
    }

    /// If an event of `kind` is to be logged, returns how many of its kind were not since the last
    /// that was.
    pub(crate) fn admit(&self, owner: Option<&str>, kind: impl Hash) -> Option<u64> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = ledgers.entry(owner.map(Box::from));
        let kinds = ledger.or_insert_with(|| Ledger::new(MOST_OF_ONE, 1));
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
                rejections.log(Some("dpe-dev"), kind);
                rejections.log(Some("dpe-dev"), kind);
            });
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    #[test]
    fn strangers_and_each_deployment_have_a_budget_of_their_own() {
        let rejections = Rejections::default();

        for owner in [None, Some("dpe-dev"), Some("ledger-dev"), Rejections::OWN] {
            let lines = (0..10_000).filter_map(|n| rejections.admit(owner, n));
            assert_eq!(lines.count(), MOST_OF_ONE + 1, "{owner:?}");
        }
    }

    /// The worst that the holder of a revoked key can do: its signature verifies, and paths vary.
    #[tokio::test(start_paused = true)]
    async fn revoked_caller_however_varied_writes_less_than_a_megabyte_an_hour() {
        let rejections = Rejections::default();
        let mut written = 0;

        for minute in 0..60 {
            for n in 0..60_u16 {
                let path = format!("/a.B/{minute}{n}{}", "x".repeat(1_024));
                let call = RejectedCall {
                    reason: "KEY_REVOKED",
                    peer: Some(SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, n], 65_535))),
                    method: &path,
                    detail: "the key `1iCc` of deployment `dpe-dev` is revoked here",
                    help: Reason::KeyRevoked.help(),
                    ..WRONG_KEY
                };
                let lines = logged(Format::Json, || rejections.log(Some("dpe-dev"), &call));
                written += lines.iter().map(|line| line.len() + 1).sum::<usize>();
            }
            tokio::time::advance(Duration::from_secs(60)).await;
        }

        assert!(written > 60 * 8 * 500, "{written} bytes: what is missing?");
        assert!(written < 1_000_000, "{written} bytes");
    }

    /// The worst that strangers can do: texts that grow when they are escaped, never twice the
    /// same.
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
                let lines = logged(Format::Json, || rejections.log(None, &call));
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
                rejections.log(None, &call);
            }
        });

        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("no trusted key has the fingerprint `1iCc`"));
        assert!(lines[0].contains("countersign pair"), "{}", lines[0]);
    }
}
