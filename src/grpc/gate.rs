//! Whether a call is admitted.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use tokio::time::Instant;
use tonic::Status;

use crate::admission::Standing;
use crate::identity::DeploymentName;
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;
use crate::token::{Accept, Caller, Refusal, TokenVerifier, VerifiedToken};

use super::carrier::Plaintext;
use super::status::refuse_in_full;
use super::{MethodRules, Rejections, listener, metadata, peer, refuse};

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
        let address = peer::address_in(&head.extensions);
        if !is_any_transport {
            self.plaintext.judge(&head.extensions).map_err(|refusal| {
                let status = refuse(refusal.reason, None);
                self.rejected(refusal, status, path, address)
            })?;
        }
        let rule = self.rules.find(path);
        if rule.is_some_and(|rule| rule.everyone) {
            return Ok(None);
        }
        if self.needs_no_token(head) && rule.is_some() && !metadata::has_token(&head.headers) {
            return Ok(None);
        }
        let own_module = rule.is_some_and(|rule| rule.own_module) && peer::is_here(head);
        let accept = if own_module {
            Accept::PeersAndOwnModule
        } else {
            Accept::Peers
        };
        let token = self.verify(head, accept).map_err(|refusal| {
            let status = match refusal.caller {
                Caller::Deployment(_) => refuse_in_full(&refusal),
                Caller::Unverified | Caller::OwnModule => refuse(refusal.reason, None),
            };
            self.rejected(refusal, status, path, address)
        })?;
        let placed = listener::verified(&head.extensions, &token, self.verifier.trust());
        placed.map_err(|full| Refused {
            status: Status::resource_exhausted(full.to_string()),
            caller: Some(token.issuer().to_owned()),
        })?;
        let Some(rule) = rule else {
            let kind = ("no rule", path);
            if self.rejections.admit(Some(token.owner()), kind).is_some() {
                events::method_without_rule(path);
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
                let status = refuse(refusal.reason, None);
                self.rejected(refusal, status, path, address)
            })?;
        }
        self.metrics.accepted(token.identity().module().as_str());
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
        let verified = self.verify(head, Accept::Peers).map_err(|refusal| {
            let status = refuse(refusal.reason, None);
            let address = peer::address_in(&head.extensions);
            self.rejected(refusal, status, metadata::path(&head.uri), address)
        });
        let token = verified.ok()?;
        // Where its deployment has all its places, the connection stays a stranger's.
        let _ = listener::verified(&head.extensions, &token, self.verifier.trust());
        Some(token)
    }

    /// Returns `true` if the file lets callers like this one do without a token.
    pub(super) fn needs_no_token(&self, head: &Parts) -> bool {
        self.tokens == Tokens::OptionalOnLoopback && peer::is_here(head)
    }

    fn verify(&self, head: &Parts, accept: Accept) -> Result<VerifiedToken, Refusal> {
        let token = metadata::bearer(&head.headers)?;
        let started = Instant::now();
        let certificate = peer::certificate_in(&head.extensions).transpose()?;
        let (verified, remembered) = self.verifier.verify_over(token, accept, certificate);
        self.metrics
            .verified_in(started.elapsed().as_secs_f64(), remembered);
        note_clock(&self.metrics, &verified);
        verified
    }

    /// Logs a refusal in full, unless one like it was logged a moment ago, and answers with
    /// `status`, which says what the caller may know.
    fn rejected(
        &self,
        refusal: Refusal,
        status: Status,
        path: &str,
        peer: Option<SocketAddr>,
    ) -> Refused {
        let trust = self.verifier.trust().current();
        let caller = refusal
            .deployment()
            .and_then(|name| trust.deployment(name.as_str()));
        let module = caller.map(|caller| caller.module.as_str());
        self.metrics.refused(refusal.reason.as_str(), module);
        let call = events::RejectedCall {
            reason: refusal.reason.as_str(),
            fingerprint: refusal.key_id.as_deref(),
            peer,
            method: path,
            detail: &refusal.detail,
            help: refusal.reason.help(),
        };
        let owner = refusal.deployment().map(DeploymentName::as_str);
        self.rejections.log(owner, &call);
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
