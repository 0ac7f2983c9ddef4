//! Whether a call is admitted, and which refusals are logged: the first of its kind, then one a
//! minute.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::carrier::Plaintext;
use super::status::refuse_in_full;
use super::{MethodRules, carrier, listener, metadata, refuse};
use crate::admission::Standing;
use crate::identity::DeploymentName;
use crate::telemetry::events::{self, RejectedCall};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Ledger, Suppressed};
use crate::token::{Accept, Caller, Refusal, TokenVerifier, VerifiedToken};

/// Whether a call needs a token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tokens {
    /// It does.
    #[default]
    Required,
    /// A call over loopback without a token is let through, without an identity; a token that is
    /// there must verify. `ataccama.authentication.grpc.internal.jwt.enable=false`.
    OptionalOnLoopback,
}

#[derive(Debug)]
pub(super) struct Gate {
    pub(super) verifier: TokenVerifier,
    pub(super) rules: MethodRules,
    pub(super) tokens: Tokens,
    pub(super) rejections: Arc<Rejections>,
    pub(super) plaintext: Plaintext,
    pub(super) metrics: Arc<Metrics>,
}

/// A call that is not admitted.
pub(super) struct Refused {
    pub(super) status: Status,
    /// The token's `iss`, if its signature verified: the audience of a proof of the refusal.
    pub(super) caller: Option<String>,
}

impl Gate {
    /// Decides from the connection and the headers only; `None` admits without an identity.
    pub(super) fn decide(
        &self,
        head: &Parts,
        is_any_transport: bool,
    ) -> Result<Option<VerifiedToken>, Refused> {
        let path = metadata::path(&head.uri);
        if !is_any_transport {
            let judged = self.plaintext.judge(&head.extensions);
            judged.map_err(|refusal| self.rejected(refusal, head, false))?;
        }
        let rule = self.rules.find(path);
        if rule.is_some_and(|rule| rule.everyone) {
            return Ok(None);
        }
        if self.needs_no_token(head) && rule.is_some() && !metadata::has_token(&head.headers) {
            return Ok(None);
        }
        let own_module = rule.is_some_and(|rule| rule.own_module) && carrier::is_here(head);
        let accept = if own_module {
            Accept::PeersAndOwnModule
        } else {
            Accept::Peers
        };
        let token = self.verify(head, accept).map_err(|refusal| {
            let in_full = refusal.deployment().is_some();
            self.rejected(refusal, head, in_full)
        })?;
        if !token.is_to_claim() {
            let placed = self.place(head.extensions.get(), &token);
            placed.map_err(|status| Refused {
                status,
                caller: Some(token.issuer().to_owned()),
            })?;
        }
        let Some(rule) = rule else {
            let owner = Some(token.owner());
            if let Some(suppressed) = self.rejections.admit(owner, Code::Unimplemented, path) {
                events::method_without_rule(path, suppressed);
            }
            return Err(Refused {
                status: Status::unimplemented(""),
                caller: Some(token.issuer().to_owned()),
            });
        };
        if !(own_module && token.deployment().is_none()) {
            rule.check(token.identity()).map_err(|refusal| {
                let caller = token.deployment().map(|caller| caller.name.clone());
                let refusal = Refusal {
                    key_id: Some(token.key_id().to_string()),
                    caller: caller.map_or(Caller::OwnModule, Caller::Deployment),
                    issuer: Some(token.issuer().to_owned()),
                    ..refusal
                };
                self.rejected(refusal, head, false)
            })?;
        }
        Ok(Some(token))
    }

    /// Returns the token of a call that needs none, if there is one that verifies. It makes the
    /// connection known, and its caller may ask for a proof; else it is not looked at.
    pub(super) fn verify_unneeded(&self, head: &Parts) -> Option<VerifiedToken> {
        let standing = head.extensions.get::<Arc<Standing>>();
        let is_known = standing.is_some_and(|standing| standing.is_verified());
        let is_asked = !is_known || head.headers.contains_key(metadata::NONCE);
        if !is_asked || !metadata::has_token(&head.headers) {
            return None;
        }
        let verified = self.verify(head, Accept::Peers);
        let token = verified
            .map_err(|refusal| self.rejected(refusal, head, false))
            .ok()?;
        // Where its deployment has all its places, the connection stays a stranger's.
        if !token.is_to_claim() {
            let _ = listener::verified(head.extensions.get(), &token, self.verifier.trust());
        }
        Some(token)
    }

    /// Has a connection count as that of the deployment which `token` is of.
    pub(super) fn place(
        &self,
        standing: Option<&Arc<Standing>>,
        token: &VerifiedToken,
    ) -> Result<(), Status> {
        let placed = listener::verified(standing, token, self.verifier.trust());
        placed.map_err(|full| {
            let owner = token.owner();
            self.crowded(Some(owner), format_args!("`{owner}`: {full}"));
            Status::resource_exhausted(full.to_string())
        })
    }

    /// Returns `true` if the file lets callers like this one do without a token.
    pub(super) fn needs_no_token(&self, head: &Parts) -> bool {
        self.tokens == Tokens::OptionalOnLoopback && carrier::is_here(head)
    }

    fn verify(&self, head: &Parts, accept: Accept) -> Result<VerifiedToken, Refusal> {
        let token = metadata::bearer(&head.headers)?;
        let started = Instant::now();
        let certificate = carrier::certificate_in(&head.extensions).transpose()?;
        let (verified, remembered) = self.verifier.verify_over(token, accept, certificate);
        self.metrics
            .verified_in(started.elapsed().as_secs_f64(), remembered);
        note_clock(&self.metrics, &verified);
        verified
    }

    /// Logs that there is no room for a call of the deployment `owner`, or of a stranger.
    pub(super) fn crowded(&self, owner: Option<&str>, why: impl Display) {
        let class = Code::ResourceExhausted;
        if let Some(suppressed) = self.rejections.admit(owner, class, "a call") {
            events::listener_crowded(why, suppressed);
        }
    }

    /// Logs a refusal in full, unless one like it was logged a moment ago; the caller learns it
    /// `in_full` or its reason alone.
    fn rejected(&self, refusal: Refusal, head: &Parts, in_full: bool) -> Refused {
        let trust = self.verifier.trust().current();
        let caller = refusal
            .deployment()
            .and_then(|name| trust.deployment(name.as_str()));
        let module = caller.map(|caller| caller.module.as_str());
        self.metrics.refused(refusal.reason.as_str(), module);
        let call = RejectedCall {
            reason: refusal.reason.as_str(),
            fingerprint: refusal.key_id.as_deref(),
            peer: carrier::address_in(&head.extensions),
            method: metadata::path(&head.uri),
            detail: &refusal.detail,
            help: refusal.reason.help(),
        };
        let owner = refusal.deployment().map(DeploymentName::as_str);
        self.rejections.log(owner, refusal.reason.status(), &call);
        let status = if in_full {
            refuse_in_full(&refusal)
        } else {
            refuse(refusal.reason, None)
        };
        Refused {
            status,
            caller: refusal.issuer,
        }
    }
}

/// Notes what a token shows of its caller's clock. One that was meant for a different module may
/// come from any module that received it, and shows nothing.
fn note_clock(metrics: &Metrics, verified: &Result<VerifiedToken, Refusal>) {
    match verified {
        Ok(token) => {
            if let Some(caller) = token.deployment() {
                metrics.clock_agrees(caller.name.as_str());
            }
        }
        Err(refusal) => {
            let caller = refusal.deployment().filter(|_| refusal.issuer.is_some());
            let clocks = refusal.clocks.as_ref();
            let ahead = clocks.and_then(|clocks| clocks.caller_ahead);
            if let Some((caller, ahead)) = caller.zip(ahead) {
                metrics.clock_estimated(caller.as_str(), ahead);
            }
        }
    }
}

/// How many kinds are kept of what one deployment causes, and of what all callers cause together
/// whose signature did not verify: of each class, so that nothing of one class hides another.
/// However they vary it, they fill a log with no more than this many lines a minute and one: less
/// than 1 MB an hour.
const MOST_OF_ONE: usize = 7;

/// Remembers what was logged. Its size is bounded, whatever callers send.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// Randomly keyed, so that no caller can make two kinds fall together.
    hasher: RandomState,
    /// By deployment, under no name those of the strangers; and by class, the status with which
    /// such calls are answered.
    ledgers: Mutex<HashMap<Owned, Ledger<u64>>>,
}

type Owned = (Option<Box<str>>, Code);

impl Rejections {
    /// The owner of what the module itself causes.
    pub(super) const OWN: Option<&str> = Some("");

    /// Logs `call`, unless one of its kind was logged a moment ago. `owner` is the deployment of
    /// the caller, if its signature verified: what any other says of itself may be made up.
    pub(crate) fn log(&self, owner: Option<&str>, class: Code, call: &RejectedCall<'_>) {
        let host = call.peer.map(|peer| peer.ip());
        let kind = (call.reason, call.fingerprint, host, call.method);
        if let Some(suppressed) = self.admit(owner, class, kind) {
            events::auth_rejected(call, owner.is_some(), suppressed);
        }
    }

    /// If an event of `kind` is to be logged, returns how many of its kind were not since the last
    /// that was.
    pub(crate) fn admit(
        &self,
        owner: Option<&str>,
        class: Code,
        kind: impl Hash,
    ) -> Option<Suppressed> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = ledgers.entry((owner.map(Box::from), class));
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

    use crate::clock::ManualClock;
    use crate::telemetry::{Format, capture};
    use crate::token::Reason;

    use super::*;

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
                rejections.log(Some("dpe-dev"), Code::Unauthenticated, kind);
                rejections.log(Some("dpe-dev"), Code::Unauthenticated, kind);
            });
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    }

    #[test]
    fn strangers_and_each_deployment_have_a_budget_of_their_own() {
        let rejections = Rejections::default();

        for owner in [None, Some("dpe-dev"), Some("ledger-dev"), Rejections::OWN] {
            let lines =
                (0..10_000).filter_map(|n| rejections.admit(owner, Code::Unauthenticated, n));
            assert_eq!(lines.count(), MOST_OF_ONE + 1, "{owner:?}");
        }
    }

    #[test]
    fn events_of_one_class_hide_none_of_another() {
        let rejections = Rejections::default();
        let owner = Some("dpe-dev");
        // Unknown methods, and a revoked key that anyone may hold.
        for class in [Code::Unimplemented, Code::Unauthenticated] {
            assert!((0..100).any(|n| rejections.admit(owner, class, n).is_none()));
        }
        let denied = RejectedCall {
            reason: "ENGINE_NOT_OWNED",
            ..WRONG_KEY
        };

        let lines = logged(Format::Console, || {
            rejections.log(owner, Reason::EngineNotOwned.status(), &denied);
        });

        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!((0..100).any(|n| {
            rejections
                .admit(Rejections::OWN, Code::Internal, n)
                .is_none()
        }));
        let crowded = rejections.admit(Rejections::OWN, Code::ResourceExhausted, "calm");
        assert_eq!(
            crowded,
            Some(Suppressed::default()),
            "panics hide a crowded listener"
        );
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
                let lines = logged(Format::Json, || {
                    rejections.log(Some("dpe-dev"), Code::Unauthenticated, &call);
                });
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
                let lines = logged(Format::Json, || {
                    rejections.log(None, Code::Unauthenticated, &call);
                });
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
                rejections.log(None, Code::Unauthenticated, &call);
            }
        });

        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("no trusted key has the fingerprint `1iCc`"));
        assert!(lines[0].contains("countersign pair"), "{}", lines[0]);
    }
}
