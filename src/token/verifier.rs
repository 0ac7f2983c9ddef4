//! Verifies a caller's token: each rule once, in a fixed order.

use std::borrow::Cow;
use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::claims::Claims;
use super::replay::{ReplayGuard, required_id};
use super::rules::{
    Parsed, audience, certificate, describe_times, has_role, issuer, signature, times, typ,
};
use super::signer::{Accept, Signer, VerifiedToken};
use super::walk::{
    AUDIENCE, CLAIMS, Check, ISSUER, KEY, REPLAY, REVOKED, ROLE, SIGNATURE, TIMES, TYPE, Verdict,
    Walk, not_applied,
};
use super::{Policy, Reason, Refusal};
use crate::clock::Clock;
use crate::identity::Role;
use crate::jose::{Fingerprint, Header, VerifyingKey, json};
use crate::trust::{KeySet, TrustStore};

/// Decides whether a token proves who calls.
///
/// Checks, in this order, and stops at the first that fails: size and form, header, key known,
/// signature, key not revoked, form of the claims, times, issuer, audience and, where each token is
/// taken once, replay. The payload's JSON is not parsed before the signature verifies, and an
/// unknown key costs no cryptography. A token that it [remembers](Self::with_cache) was of good
/// form and had a good signature: the rules after those are applied.
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

/// How one token arrived, and what it must satisfy.
#[derive(Clone, Copy)]
struct Call<'a> {
    accept: Accept,
    /// The key of the connection's client certificate, if it has one.
    certificate: Option<Fingerprint>,
    /// Whether the token counts as used.
    is_use: bool,
    /// The role that the caller needs, if the rules include it.
    role: Option<&'a Role>,
}

/// An operator's question about a peer's token.
const QUESTION: Call<'static> = Call {
    accept: Accept::Peers,
    certificate: None,
    is_use: false,
    role: None,
};

impl TokenVerifier {
    /// Verifies for the module of `trust`, with the deployments and keys that it has at the time,
    /// with the leeway and maximum of `policy`.
    pub fn new(trust: Arc<TrustStore>, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self {
            trust,
            policy,
            clock,
            replay: None,
            cache: None,
        }
    }

    /// Checks the signature of a token that is used again only once, as long as `cache` remembers
    /// it. Without effect where each token is taken once.
    #[must_use]
    pub fn with_cache(self, cache: Arc<VerifiedCache>) -> Self {
        Self {
            cache: Some(cache),
            ..self
        }
    }

    /// Returns the tokens that it remembers; `None` if it remembers no tokens.
    pub fn cache(&self) -> Option<&VerifiedCache> {
        self.cache.as_deref().filter(|_| self.replay.is_none())
    }

    /// Takes each token once, as `replay` remembers.
    #[must_use]
    pub fn with_replay_guard(self, replay: Arc<ReplayGuard>) -> Self {
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

    /// Verifies the compact token `token`, and counts it as used if each is accepted once.
    ///
    /// # Errors
    ///
    /// The first rule that fails, as a [`Refusal`].
    pub fn verify(&self, token: &str, accept: Accept) -> Result<VerifiedToken, Refusal> {
        self.verify_over(token, accept, None).0
    }

    /// Verifies `token` as it came over a connection whose client certificate has the key
    /// `certificate`, if it has one. Also returns whether the cache held `token`; `None` if it
    /// was not looked up.
    ///
    /// The token is refused if that key is pinned for a different deployment, or if the token's
    /// deployment has pins and this is not one of them: a stolen token is of no use on another
    /// deployment's connection. Such a token is not counted as used. A certificate without a pin,
    /// of a deployment without pins, says nothing about tokens.
    pub(crate) fn verify_over(
        &self,
        token: &str,
        accept: Accept,
        certificate: Option<Fingerprint>,
    ) -> (Result<VerifiedToken, Refusal>, Option<bool>) {
        let call = Call {
            accept,
            certificate,
            is_use: true,
            ..QUESTION
        };
        let cache = self.cache();
        let known = cache.and_then(|cache| Some((cache, VerifiedCache::digest(token)?)));
        let Some((cache, digest)) = known else {
            return (self.judge(token, call).map(|(verified, _)| verified), None);
        };
        let remembered = cache.0.get(&digest);
        if let Some(judged) = remembered.and_then(|it| self.judge_again(&it, call)) {
            return (judged, Some(true));
        }
        let verified = self.judge(token, call).map(|(verified, content)| {
            cache.0.insert(digest, Arc::new(content));
            verified
        });
        (verified, Some(false))
    }

    /// Claims the use of `token`, which it verified, among the processes that take each token once
    /// together. `None` where this one does so alone.
    pub(crate) fn claim(
        &self,
        token: &VerifiedToken,
    ) -> Option<impl Future<Output = Result<(), Refusal>> + Send + use<>> {
        let id = token.use_id?;
        let replay = self.replay.clone()?;
        Some(async move { replay.claim(id).await })
    }

    /// Applies every rule to `token` but whether it was used before, and does not count it as used:
    /// for an operator's question.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn examine(&self, token: &str, accept: Accept) -> Result<VerifiedToken, Refusal> {
        let call = Call { accept, ..QUESTION };
        Ok(self.judge(token, call)?.0)
    }

    /// Applies every rule to `token` and continues after a failure, to show an operator why.
    ///
    /// Claims are checked even if no signature confirms them: the rows say so. With `role`,
    /// the last rule is that the caller has it.
    pub fn explain(&self, token: &str, role: Option<&Role>) -> Verdict {
        let call = Call { role, ..QUESTION };
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
        let mut case = Case::new(self, &trust, call, parsed.kid());
        match case.judge(walk, &parsed) {
            Ok(verified) => Ok(verified.zip(case.signed(parsed.header()))),
            Err(refusal) => Err(case.refused(refusal)),
        }
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
        let named = Signer::find(header.kid(), &trust, is_own).ok();
        let signer = named.filter(|signer| *signer.key() == content.key)?;
        let not_revoked = signer.not_revoked();
        let mut case = Case::new(self, &trust, call, Some(header.kid()));
        case.signer = Some(signer);
        case.is_signed = true;
        let judged = not_revoked.and_then(|()| {
            case.claims = Some(Cow::Borrowed(&content.claims));
            let verified = case.judge_claims(&mut Walk::ToFirstFailure)?;
            verified.ok_or_else(not_applied)
        });
        Some(judged.map_err(|refusal| case.refused(refusal)))
    }

    fn claims_of(&self, payload: &[u8]) -> Result<Claims, Refusal> {
        let members = json::object(payload).map_err(|error| {
            let detail = format!("the payload is not a JSON object: {error}");
            Refusal::new(Reason::TokenMalformed, detail)
        })?;
        let claims = Claims::from_members(&members)?;
        if self.replay.is_some() {
            required_id(&claims)?;
        }
        Ok(claims)
    }
}

/// One token on its way through the rules, and what it has shown so far.
struct Case<'a> {
    verifier: &'a TokenVerifier,
    trust: &'a KeySet,
    call: Call<'a>,
    /// The key that it names.
    kid: Option<&'a str>,
    signer: Option<Signer<'a>>,
    /// Whether that signer's key verified the signature.
    is_signed: bool,
    claims: Option<Cow<'a, Claims>>,
}

impl<'a> Case<'a> {
    fn new(
        verifier: &'a TokenVerifier,
        trust: &'a KeySet,
        call: Call<'a>,
        kid: Option<&'a str>,
    ) -> Self {
        Self {
            verifier,
            trust,
            call,
            kid,
            signer: None,
            is_signed: false,
            claims: None,
        }
    }

    fn judge(
        &mut self,
        walk: &mut Walk<'_>,
        parsed: &Parsed<'_>,
    ) -> Result<Option<VerifiedToken>, Refusal> {
        let accept = self.call.accept;
        let is_own = parsed
            .header()
            .is_some_and(|it| accept.is_own(it, self.trust));
        let found = parsed.typ().map(|it| typ(it, is_own).map(|()| it));
        walk.rule(TYPE, found, |it| {
            it.map_or_else(|| "none".to_owned(), |it| format!("`{it}`"))
        })?;
        let found = self.kid.map(|it| Signer::find(it, self.trust, is_own));
        self.signer = walk.rule(KEY, found, Signer::describe)?;
        let signer = self.signer.as_ref();
        let both = parsed.whole.as_ref().zip(signer);
        let found = both.map(|(compact, signer)| signature(compact, signer));
        walk.rule(SIGNATURE, found, |()| "verifies with that key".to_owned())?;
        self.is_signed = true;
        let found = signer.map(Signer::not_revoked);
        walk.rule(REVOKED, found, |()| "is-revoked=false".to_owned())?;
        let found = parsed.payload().map(|it| self.verifier.claims_of(it));
        let claims = walk.rule(CLAIMS, found, |_| {
            "iss, sub, aud, iat and exp are there, each of its type".to_owned()
        })?;
        self.claims = claims.map(Cow::Owned);
        let verified = self.judge_claims(walk)?;
        if let Some(role) = self.call.role {
            let found = self.signer.as_ref().map(|signer| has_role(signer, role));
            walk.rule(ROLE, found, |()| role.to_string())?;
        }
        Ok(verified)
    }

    /// Applies the rules that are judged at each use of a token.
    fn judge_claims(&self, walk: &mut Walk<'_>) -> Result<Option<VerifiedToken>, Refusal> {
        let (policy, now) = (&self.verifier.policy, self.verifier.clock.now());
        let (claims, signer) = (self.claims.as_deref(), self.signer.as_ref());
        let found = claims.map(|it| times(it, signer, policy, now).map(|()| it));
        walk.rule(TIMES, found, |it| describe_times(it, policy, now))?;
        let both = claims.zip(signer);
        let found = both.map(|(it, signer)| issuer(it, signer).map(|()| it));
        walk.rule(ISSUER, found, |it| it.issuer.clone())?;
        let found = claims.map(|it| audience(it, self.trust.own()).map(|()| it));
        walk.rule(AUDIENCE, found, |it| it.audience.join(", "))?;
        let Some((claims, signer)) = both else {
            return Ok(None);
        };
        let owner = signer.deployment();
        if let Some(shown) = self.call.certificate {
            certificate(shown, owner.map(|owner| &**owner), self.trust)?;
        }
        let mut verified = VerifiedToken::new(signer, claims);
        if let Some(replay) = &self.verifier.replay {
            let found = if self.call.is_use {
                replay.take(owner.map(|_peer| signer.key()), claims)
            } else {
                Ok(())
            };
            walk.rule(REPLAY, Some(found), |()| {
                "accepted once; only the running module knows if it was used".to_owned()
            })?;
            verified.use_id = replay.use_id(signer.key(), claims);
        }
        Ok(Some(verified))
    }

    /// Adds to a refusal what is known of the caller: the key that it names, who it is once the
    /// signature verified, and the audience of a proof once the token is known to be for this
    /// module.
    fn refused(&self, refusal: Refusal) -> Refusal {
        let signer = self.signer.as_ref().filter(|_| self.is_signed);
        let mut claims = self.claims.iter();
        let meant = claims.find(|claims| audience(claims, self.trust.own()).is_ok());
        Refusal {
            key_id: self.kid.map(str::to_owned),
            caller: signer.map(Signer::caller).unwrap_or_default(),
            issuer: meant.map(|claims| claims.issuer.clone()),
            ..refusal
        }
    }

    /// Returns what is remembered of it.
    fn signed(self, header: Option<&Header>) -> Option<Signed> {
        Some(Signed {
            header: header?.clone(),
            key: self.signer?.key().clone(),
            claims: self.claims?.into_owned(),
        })
    }
}

/// Remembers tokens that were accepted: some 8,000 of at most 2 KiB each.
///
/// What is remembered is what the bytes of a token say, and whose signature it has; neither can
/// change. Everything that can is judged at every use: whether the key is still trusted and not
/// revoked, the times, issuer, audience and certificate. So a revocation has nothing to flush here.
///
/// A token is found by its SHA-256 and is not itself kept. Only tokens that a trusted key signed
/// are added.
#[derive(Debug)]
pub struct VerifiedCache(pub(super) Cache<TokenDigest, Arc<Signed>>);

/// The SHA-256 of a whole token.
pub(super) type TokenDigest = [u8; 32];

/// The claims of a token, and the key that signed it.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) header: Header,
    pub(super) key: VerifyingKey,
    pub(super) claims: Claims,
}

/// Tokens live 15 minutes at most and are reused: one for each of as many callers. A power of two
/// is what it is on any number of processors.
const CAPACITY: usize = 8192;

/// The longest token that is remembered, in bytes. Our own have some 400.
const LONGEST: usize = 2048;

impl VerifiedCache {
    /// Returns the cache key of `token`; `None` if the token is too long.
    pub(super) fn digest(token: &str) -> Option<TokenDigest> {
        (token.len() <= LONGEST).then(|| Sha256::digest(token.as_bytes()).into())
    }
}

impl Default for VerifiedCache {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}

#[cfg(test)]
mod tests;
