//! Verifies a caller's token: each rule once, in a fixed order.

use std::sync::Arc;

use crate::clock::Clock;
use crate::jose::{Compact, Fingerprint, Header, json};
use crate::trust::{KeySet, OwnDeployment, TrustStore};

use super::claims::{Claims, seconds};
use super::replay::{ReplayGuard, required_id};
use super::rules::{audience, issuer, malformed, not_revoked, owned, signature, typ};
use super::signer::Signer;
use super::verified::VerifiedToken;
use super::verified_cache::{Signed, VerifiedCache};
use super::{MAX_OWN_MODULE_LIFETIME, OWN_MODULE_TYPE, Policy, Reason, Refusal};

/// Decides whether a token proves who calls.
///
/// Checks, in this order, and stops at the first that fails: size and form, header, key known,
/// signature, key not revoked, form of the claims, times, issuer, audience and, where each token is
/// taken once, replay. The payload's JSON is not parsed before the signature verifies, and an unknown
/// key costs no cryptography. A token that it [remembers](Self::remembering) was of good form and had a
/// good signature: the rules after those are applied.
///
/// Does not check: the method or roles (the layer does), nor anything of the request's body. The
/// identity it gives comes from the deployment that owns the key; no claim adds to it.
#[derive(Clone, Debug)]
pub struct TokenVerifier {
    pub(super) trust: Arc<TrustStore>,
    pub(super) policy: Policy,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) replay: Option<Arc<ReplayGuard>>,
    cache: Option<Arc<VerifiedCache>>,
}

/// Whose tokens are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accept {
    /// Trusted deployments' only.
    Peers,
    /// Also those that this module issued to itself. Only for calls over loopback.
    PeersAndOwnModule,
}

impl TokenVerifier {
    /// Verifies for the module of `trust`, against what is in force there at the time, with the
    /// leeway and maximum of `policy`.
    pub fn new(trust: Arc<TrustStore>, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self {
            trust,
            policy,
            clock,
            replay: None,
            cache: None,
        }
    }

    /// Checks the signature of a token that is used again only once, as long as `cache` remembers it.
    /// Without effect where each token is taken once.
    #[must_use]
    pub fn remembering(self, cache: Arc<VerifiedCache>) -> Self {
        Self {
            cache: Some(cache),
            ..self
        }
    }

    /// Returns the tokens that it remembers, where it does.
    pub fn cache(&self) -> Option<&VerifiedCache> {
        self.cache.as_deref().filter(|_| self.replay.is_none())
    }

    /// Takes each token once, as `replay` remembers.
    #[must_use]
    pub fn taking_each_once(self, replay: Arc<ReplayGuard>) -> Self {
        Self {
            replay: Some(replay),
            ..self
        }
    }

    /// Returns the trust that it verifies against.
    pub fn trust(&self) -> &Arc<TrustStore> {
        &self.trust
    }

    /// Returns its clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Verifies the compact token `token`, and counts it as used where each is taken once.
    ///
    /// # Errors
    ///
    /// The first rule that fails, as a [`Refusal`].
    pub fn verify(&self, token: &str, accept: Accept) -> Result<VerifiedToken, Refusal> {
        self.verify_over(token, accept, None)
    }

    /// Verifies `token` as it came over a connection whose client certificate has the key
    /// `certificate`, where it has one; see [`check_certificate`](Self::check_certificate).
    ///
    /// A token that came over a connection of somebody else's is not counted as used.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_over(
        &self,
        token: &str,
        accept: Accept,
        certificate: Option<Fingerprint>,
    ) -> Result<VerifiedToken, Refusal> {
        self.verify_noting(token, accept, certificate).0
    }

    /// Does what [`verify_over`](Self::verify_over) does, and tells whether `token` was remembered,
    /// where it was looked for.
    pub(crate) fn verify_noting(
        &self,
        token: &str,
        accept: Accept,
        certificate: Option<Fingerprint>,
    ) -> (Result<VerifiedToken, Refusal>, Option<bool>) {
        let known = self.cache();
        let known = known.and_then(|cache| Some((cache, VerifiedCache::digest(token)?)));
        let Some((cache, digest)) = known else {
            let judged = self.judge(token, accept, certificate, self.replay.as_deref());
            return (judged.map(|(verified, _)| verified), None);
        };
        let remembered = cache.find(&digest);
        if let Some(judged) = remembered.and_then(|it| self.judge_again(&it, accept, certificate)) {
            return (judged, Some(true));
        }
        let judged = self.judge(token, accept, certificate, None);
        let verified = judged.map(|(verified, content)| {
            cache.add(digest, Arc::new(content));
            verified
        });
        (verified, Some(false))
    }

    /// Applies every rule to `token` but whether it was used before, and does not count it as used:
    /// for an operator's question.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn examine(&self, token: &str, accept: Accept) -> Result<VerifiedToken, Refusal> {
        Ok(self.judge(token, accept, None, None)?.0)
    }

    fn judge(
        &self,
        token: &str,
        accept: Accept,
        certificate: Option<Fingerprint>,
        replay: Option<&ReplayGuard>,
    ) -> Result<(VerifiedToken, Signed), Refusal> {
        let compact = Compact::parse(token).map_err(|error| malformed(&error))?;
        let trust = self.trust.current();
        let header = compact.header();
        let named = |refusal: Refusal| Refusal {
            key_id: Some(header.kid().to_owned()),
            ..refusal
        };
        let signer = Self::signer(header, &trust, accept).map_err(named)?;
        signature(&compact, &signer).map_err(named)?;
        // Before the payload is read, and again with whatever may change.
        let claims = not_revoked(&signer).and_then(|()| self.claims_of(compact.payload()));
        let content = Signed {
            claims: claims.map_err(|refusal| owned(refusal, header, &signer))?,
            header: header.clone(),
            key: signer.key().clone(),
        };
        let verified = self.admit(&content, &signer, trust.own(), certificate)?;
        if let Some(replay) = replay {
            let deployment = signer.deployment().map(|deployment| &deployment.name);
            replay
                .take(deployment, &content.claims)
                .map_err(|refusal| Refusal {
                    issuer: Some(content.claims.issuer.clone()),
                    ..owned(refusal, header, &signer)
                })?;
        }
        Ok((verified, content))
    }

    /// Judges a token again whose signature verified with the key that its `kid` named then; none
    /// where that is another now.
    fn judge_again(
        &self,
        content: &Signed,
        accept: Accept,
        certificate: Option<Fingerprint>,
    ) -> Option<Result<VerifiedToken, Refusal>> {
        let trust = self.trust.current();
        let signer = Self::signer(&content.header, &trust, accept).ok();
        let signer = signer.filter(|signer| *signer.key() == content.key)?;
        Some(self.admit(content, &signer, trust.own(), certificate))
    }

    /// Judges everything that may be another at a token's next use.
    fn admit(
        &self,
        content: &Signed,
        signer: &Signer<'_>,
        own: &OwnDeployment,
        certificate: Option<Fingerprint>,
    ) -> Result<VerifiedToken, Refusal> {
        let Signed { claims, header, .. } = content;
        not_revoked(signer).map_err(|refusal| owned(refusal, header, signer))?;
        let issued = |refusal: Refusal| Refusal {
            issuer: audience(claims, own).is_ok().then(|| claims.issuer.clone()),
            ..owned(refusal, header, signer)
        };
        self.times(claims, Some(signer)).map_err(issued)?;
        issuer(claims, signer).map_err(issued)?;
        audience(claims, own).map_err(issued)?;
        let verified = signer.verified(claims);
        if let Some(certificate) = certificate {
            self.check_certificate(&verified, certificate)
                .map_err(issued)?;
        }
        Ok(verified)
    }

    fn signer<'a>(
        header: &Header,
        trust: &'a KeySet,
        accept: Accept,
    ) -> Result<Signer<'a>, Refusal> {
        let kid = header.kid();
        let found = header.typ();
        let is_peers = || trust.find(kid).is_some();
        if found != Some(OWN_MODULE_TYPE) || accept != Accept::PeersAndOwnModule || is_peers() {
            typ(found)?;
            return Self::peer(kid, trust);
        }
        if kid != trust.own().key_id.as_str() {
            let detail = format!("`{kid}` is not this module's own key");
            return Err(Refusal::new(Reason::KeyUnknown, detail));
        }
        Ok(Signer::Own(trust.own()))
    }

    pub(super) fn peer<'a>(kid: &str, trust: &'a KeySet) -> Result<Signer<'a>, Refusal> {
        let found = trust.find(kid).map(Signer::Peer);
        let unknown = || format!("no trusted key has the fingerprint `{kid}`");
        found.ok_or_else(|| Refusal::new(Reason::KeyUnknown, unknown()))
    }

    pub(super) fn claims_of(&self, payload: &[u8]) -> Result<Claims, Refusal> {
        let members = json::object(payload).map_err(|error| {
            Refusal::new(
                Reason::TokenMalformed,
                format!("the payload is no JSON object: {error}"),
            )
        })?;
        let claims = Claims::from_members(&members)?;
        if self.replay.is_some() {
            required_id(&claims)?;
        }
        Ok(claims)
    }

    /// Judges the times; a signer that is not known is taken for a peer.
    pub(super) fn times(
        &self,
        claims: &Claims,
        signer: Option<&Signer<'_>>,
    ) -> Result<(), Refusal> {
        let time = self.clock.now();
        let now = seconds(time);
        let leeway = self.policy.leeway().as_secs_f64();
        let (max, lead) = match signer {
            // Both times are of one machine's clock.
            Some(Signer::Own(_)) => (MAX_OWN_MODULE_LIFETIME, 0.0),
            Some(Signer::Peer(_)) | None => (self.policy.max_lifetime(), leeway),
        };
        let Claims {
            issued_at,
            expires_at,
            not_before,
            ..
        } = *claims;
        if expires_at <= issued_at {
            let detail = "`exp` is not after `iat`";
            return Err(Refusal::new(Reason::TokenExpired, detail));
        }
        if now >= expires_at + leeway {
            let ago = now - expires_at;
            let detail = format!(
                "expired {ago:.0} s ago, leeway {leeway} s; if it was sent in time, the caller's clock is at least {ago:.0} s behind this one"
            );
            return Err(Refusal::new(Reason::TokenExpired, detail).with_clocks(time, Some(-ago)));
        }
        for (name, from) in [("iat", Some(issued_at)), ("nbf", not_before)] {
            let ahead = from.unwrap_or(now) - now;
            if ahead > lead {
                // A token may be meant for later; nobody signs one before it is made.
                let caller_ahead = (name == "iat").then_some(ahead);
                let why = caller_ahead.map(|ahead| {
                    format!(": the caller's clock is at least {ahead:.0} s ahead of this one")
                });
                let why = why.unwrap_or_default();
                let detail = format!(
                    "`{name}` is {ahead:.0} s in the future, leeway {lead} s; check NTP on both hosts{why}"
                );
                let refusal = Refusal::new(Reason::TokenNotYetValid, detail);
                return Err(refusal.with_clocks(time, caller_ahead));
            }
        }
        if not_before.is_some_and(|from| from >= expires_at) {
            let detail = "`nbf` is not before `exp`, so that it is never valid";
            return Err(Refusal::new(Reason::TokenNotYetValid, detail));
        }
        let lifetime = expires_at - issued_at;
        if lifetime > max.as_secs_f64() {
            let detail = format!(
                "lives {lifetime:.0} s, at most {} s are accepted",
                max.as_secs()
            );
            return Err(Refusal::new(Reason::TokenLifetimeTooLong, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
