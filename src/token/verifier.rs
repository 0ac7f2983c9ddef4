//! Verifies a caller's token: each rule once, in a fixed order.

use std::sync::Arc;

use crate::clock::Clock;
use crate::identity::Role;
use crate::jose::{Fingerprint, json};
use crate::trust::{KeySet, TrustStore};

use super::claims::Claims;
use super::parsed::Parsed;
use super::replay::{ReplayGuard, required_id};
use super::rules::{
    audience, certificate, describe_times, has_role, issuer, signature, times, typ,
};
use super::signer::{Accept, Signer};
use super::verified::VerifiedToken;
use super::verified_cache::{Signed, VerifiedCache};
use super::walk::{
    AUDIENCE, CLAIMS, Check, ISSUER, KEY, Miss, REPLAY, REVOKED, ROLE, SIGNATURE, TIMES, TYPE,
    Verdict, Walk,
};
use super::{Policy, Reason, Refusal};

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
    trust: Arc<TrustStore>,
    policy: Policy,
    clock: Arc<dyn Clock>,
    replay: Option<Arc<ReplayGuard>>,
    cache: Option<Arc<VerifiedCache>>,
}

/// How one token came, and what is asked of it.
#[derive(Clone, Copy)]
struct Call<'a> {
    accept: Accept,
    /// The key of the connection's client certificate, where it has one.
    certificate: Option<Fingerprint>,
    /// Whether the token counts as used.
    is_use: bool,
    /// The role that the caller needs, where the rules shall include it.
    role: Option<&'a Role>,
}

impl Call<'_> {
    /// An operator's question.
    fn asked(accept: Accept) -> Self {
        Self {
            accept,
            certificate: None,
            is_use: false,
            role: None,
        }
    }
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
    /// `certificate`, where it has one.
    ///
    /// The token is refused where that key is pinned for another deployment, and where the token's
    /// deployment has pins and this is none of them: a stolen token is of no use on another
    /// deployment's connection. Such a token is not counted as used. A certificate without a pin, of
    /// a deployment without pins, says nothing about tokens.
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

    /// Does what [`verify_over`](Self::verify_over) does, and returns whether `token` was
    /// remembered, where it was looked for.
    pub(crate) fn verify_noting(
        &self,
        token: &str,
        accept: Accept,
        certificate: Option<Fingerprint>,
    ) -> (Result<VerifiedToken, Refusal>, Option<bool>) {
        let call = Call {
            certificate,
            is_use: true,
            ..Call::asked(accept)
        };
        let known = self.cache();
        let known = known.and_then(|cache| Some((cache, VerifiedCache::digest(token)?)));
        let Some((cache, digest)) = known else {
            return (self.judge(token, call).map(|(verified, _)| verified), None);
        };
        let remembered = cache.find(&digest);
        if let Some(judged) = remembered.and_then(|it| self.judge_again(&it, call)) {
            return (judged, Some(true));
        }
        let verified = self.judge(token, call).map(|(verified, content)| {
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
        Ok(self.judge(token, Call::asked(accept))?.0)
    }

    /// Applies every rule to `token` and goes on where one fails, for an operator who asks why.
    ///
    /// Claims are looked at even where no signature vouches for them: the rows say so. With `role`,
    /// the last rule is that the caller has it.
    pub fn explain(&self, token: &str, role: Option<&Role>) -> Verdict {
        let call = Call {
            role,
            ..Call::asked(Accept::Peers)
        };
        let mut checks = Vec::new();
        let judged = self.walk(&mut Walk::Through(&mut checks), token, call);
        let all_passed = checks.iter().all(Check::passed);
        let verified = judged.ok().flatten().filter(|_| all_passed);
        Verdict {
            checks,
            accepted: verified.map(|(verified, _)| verified),
        }
    }

    /// Applies the rules up to the first that fails.
    fn judge(&self, token: &str, call: Call<'_>) -> Result<(VerifiedToken, Signed), Refusal> {
        let judged = self.walk(&mut Walk::ToFirstFailure, token, call)?;
        judged.ok_or_else(not_applied)
    }

    /// Applies the rules in their order.
    fn walk(
        &self,
        walk: &mut Walk<'_>,
        token: &str,
        call: Call<'_>,
    ) -> Result<Option<(VerifiedToken, Signed)>, Refusal> {
        let parsed = Parsed::read(walk, token)?;
        let trust = self.trust.current();
        let mut shown = Shown::default();
        let judged = self.walk_parsed(walk, &parsed, &mut shown, &trust, call);
        let signer = shown.signer.as_ref().filter(|_| shown.is_signed);
        let (kid, claims) = (parsed.kid().ok(), shown.claims.as_ref());
        judged.map_err(|refusal| of_caller(refusal, kid, signer, claims, &trust))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one step of the walk, called from one place"
    )]
    fn walk_parsed<'a>(
        &self,
        walk: &mut Walk<'_>,
        parsed: &Parsed<'_>,
        shown: &mut Shown<'a>,
        trust: &'a KeySet,
        call: Call<'_>,
    ) -> Result<Option<(VerifiedToken, Signed)>, Refusal> {
        let header = parsed.header();
        let is_own = header.is_some_and(|header| call.accept.is_own(header, trust));
        let found = parsed.typ();
        let found = found.and_then(|it| Ok((it, typ(it, is_own)?)));
        walk.rule(TYPE, found, |(it, ())| {
            it.map_or_else(|| "none".to_owned(), |it| format!("`{it}`"))
        })?;
        let found = parsed.kid();
        let found = found.and_then(|kid| Ok(Signer::find(kid, trust, is_own)?));
        shown.signer = walk.rule(KEY, found, Signer::describe)?;
        let signer = shown.signer.as_ref();
        let found = parsed.whole();
        let found = found.and_then(|compact| Ok(signature(compact, known(signer)?)?));
        walk.rule(SIGNATURE, found, |()| "verifies with that key".to_owned())?;
        shown.is_signed = true;
        let found = known(signer).and_then(|signer| Ok(signer.not_revoked()?));
        walk.rule(REVOKED, found, |()| "is-revoked=false".to_owned())?;
        let found = parsed.payload();
        let found = found.and_then(|payload| Ok(self.claims_of(payload)?));
        shown.claims = walk.rule(CLAIMS, found, |_| {
            "iss, sub, aud, iat and exp are there, each of its type".to_owned()
        })?;
        let verified = self.walk_claims(walk, shown.claims.as_ref(), signer, trust, call)?;
        if let Some(role) = call.role {
            let found = known(signer).and_then(|signer| Ok(has_role(signer, role)?));
            walk.rule(ROLE, found, |()| role.to_string())?;
        }
        let content = header.zip(signer).zip(shown.claims.take());
        let content = content.map(|((header, signer), claims)| Signed {
            claims,
            header: header.clone(),
            key: signer.key().clone(),
        });
        Ok(verified.zip(content))
    }

    /// Applies the rules that are judged at each use of a token.
    #[expect(clippy::too_many_arguments, reason = "the last step of two walks")]
    fn walk_claims(
        &self,
        walk: &mut Walk<'_>,
        claims: Option<&Claims>,
        signer: Option<&Signer<'_>>,
        trust: &KeySet,
        call: Call<'_>,
    ) -> Result<Option<VerifiedToken>, Refusal> {
        let now = self.clock.now();
        let found = readable(claims).and_then(|it| Ok((it, times(it, signer, &self.policy, now)?)));
        walk.rule(TIMES, found, |(it, ())| {
            describe_times(it, &self.policy, now)
        })?;
        let found = readable(claims).and_then(|it| Ok((it, issuer(it, known(signer)?)?)));
        walk.rule(ISSUER, found, |(it, ())| it.issuer.clone())?;
        let found = readable(claims).and_then(|it| Ok((it, audience(it, trust.own())?)));
        walk.rule(AUDIENCE, found, |(it, ())| it.audience.join(", "))?;
        let (Some(claims), Some(signer)) = (claims, signer) else {
            return Ok(None);
        };
        let owner = signer.deployment();
        if let Some(shown) = call.certificate {
            certificate(shown, owner.map(|owner| &**owner), trust)?;
        }
        if let Some(replay) = &self.replay {
            let found = if call.is_use {
                replay.take(owner.map(|owner| &owner.name), claims)
            } else {
                Ok(())
            };
            walk.rule(REPLAY, found.map_err(Miss::from), |()| {
                "taken once; whether it was used, only the running module knows".to_owned()
            })?;
        }
        Ok(Some(VerifiedToken::new(signer, claims)))
    }

    /// Judges a token again whose signature verified with the key that its `kid` named then; `None`
    /// where the `kid` names another key now.
    fn judge_again(
        &self,
        content: &Signed,
        call: Call<'_>,
    ) -> Option<Result<VerifiedToken, Refusal>> {
        let trust = self.trust.current();
        let header = &content.header;
        let is_own = call.accept.is_own(header, &trust);
        typ(header.typ(), is_own).ok()?;
        let signer = Signer::find(header.kid(), &trust, is_own).ok();
        let signer = signer.filter(|signer| *signer.key() == content.key)?;
        let (kid, signer) = (Some(header.kid()), Some(&signer));
        if let Err(refusal) = signer?.not_revoked() {
            return Some(Err(of_caller(refusal, kid, signer, None, &trust)));
        }
        let claims = Some(&content.claims);
        let walk = &mut Walk::ToFirstFailure;
        let judged = self.walk_claims(walk, claims, signer, &trust, call);
        let judged = judged.and_then(|verified| verified.ok_or_else(not_applied));
        Some(judged.map_err(|refusal| of_caller(refusal, kid, signer, claims, &trust)))
    }

    fn claims_of(&self, payload: &[u8]) -> Result<Claims, Refusal> {
        let members = json::object(payload).map_err(|error| {
            let detail = format!("the payload is no JSON object: {error}");
            Refusal::new(Reason::TokenMalformed, detail)
        })?;
        let claims = Claims::from_members(&members)?;
        if self.replay.is_some() {
            required_id(&claims)?;
        }
        Ok(claims)
    }
}

/// What a token has shown so far of its caller.
#[derive(Default)]
struct Shown<'a> {
    signer: Option<Signer<'a>>,
    /// Whether that signer's key verified the signature.
    is_signed: bool,
    claims: Option<Claims>,
}

/// Adds to a refusal what is known of the caller: the key that it names, who it is once the
/// signature verified, and whom a proof may address once the token is known to be for this module.
fn of_caller(
    refusal: Refusal,
    kid: Option<&str>,
    signer: Option<&Signer<'_>>,
    claims: Option<&Claims>,
    trust: &KeySet,
) -> Refusal {
    let claims = claims.filter(|claims| audience(claims, trust.own()).is_ok());
    Refusal {
        key_id: kid.map(str::to_owned),
        caller: signer.map(Signer::caller).unwrap_or_default(),
        issuer: claims.map(|claims| claims.issuer.clone()),
        ..refusal
    }
}

/// Refuses where a rule could not be applied and no rule failed, which cannot happen.
fn not_applied() -> Refusal {
    Refusal::new(Reason::TokenMalformed, "a rule could not be applied")
}

fn known<'s, 'a>(signer: Option<&'s Signer<'a>>) -> Result<&'s Signer<'a>, Miss> {
    signer.ok_or(Miss::Unknown("the key is not known"))
}

fn readable(claims: Option<&Claims>) -> Result<&Claims, Miss> {
    claims.ok_or(Miss::Unknown("the claims cannot be read"))
}

#[cfg(test)]
mod tests;
