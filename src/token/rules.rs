//! The rules of a token that need no more than the token, its signer and the time.

use std::time::SystemTime;

use crate::identity::Role;
use crate::jose::{Compact, Fingerprint, json};
use crate::trust::{Deployment, KeySet, OwnDeployment};

use super::claims::{Claims, seconds};
use super::signer::Signer;
use super::{MAX_OWN_MODULE_LIFETIME, Policy, Reason, Refusal};

/// Judges the `typ`: a peer's is `JWT`, that of a token which `is_own` was read already.
pub(super) fn typ(found: Option<&str>, is_own: bool) -> Result<(), Refusal> {
    match found {
        Some(typ) if !is_own && !typ.eq_ignore_ascii_case("JWT") => {
            let detail = format!("`typ` is `{typ}`, expected `JWT` or none");
            Err(Refusal::new(Reason::TokenMalformed, detail))
        }
        _ => Ok(()),
    }
}

pub(super) fn signature(compact: &Compact<'_>, signer: &Signer<'_>) -> Result<(), Refusal> {
    let signature = compact.signature();
    if signature.len() != 64 {
        let detail = format!("the signature has {} bytes, not 64", signature.len());
        return Err(Refusal::new(Reason::SignatureInvalid, detail));
    }
    if compact.verify(signer.key()) {
        return Ok(());
    }
    let detail = "it was altered, or signed with a different key from the one in its `kid`";
    Err(Refusal::new(Reason::SignatureInvalid, detail))
}

/// Checks the times; an unknown signer counts as a peer.
pub(super) fn times(
    claims: &Claims,
    signer: Option<&Signer<'_>>,
    policy: &Policy,
    time: SystemTime,
) -> Result<(), Refusal> {
    let now = seconds(time);
    let leeway = policy.leeway().as_secs_f64();
    let (max, lead) = match signer {
        // Both times are of one machine's clock.
        Some(Signer::Own(_)) => (MAX_OWN_MODULE_LIFETIME, 0.0),
        Some(Signer::Peer(_)) | None => (policy.max_lifetime(), leeway),
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
    if issued_at - now > lead {
        let ahead = issued_at - now;
        let detail = format!(
            "`iat` is {ahead:.0} s in the future, leeway {lead} s; check NTP on both hosts: the caller's clock is at least {ahead:.0} s ahead of this one"
        );
        let refusal = Refusal::new(Reason::TokenNotYetValid, detail);
        return Err(refusal.with_clocks(time, Some(ahead)));
    }
    // A token may be meant for later: this shows nothing of the caller's clock.
    if let Some(ahead) = not_before
        .map(|from| from - now)
        .filter(|ahead| *ahead > lead)
    {
        let detail = format!(
            "`nbf` is {ahead:.0} s in the future, leeway {lead} s; check NTP on both hosts"
        );
        return Err(Refusal::new(Reason::TokenNotYetValid, detail).with_clocks(time, None));
    }
    if not_before.is_some_and(|from| from >= expires_at) {
        let detail = "`nbf` is not before `exp`, so the token is never valid";
        return Err(Refusal::new(Reason::TokenNotYetValid, detail));
    }
    let lifetime = expires_at - issued_at;
    if lifetime > max.as_secs_f64() {
        let most = max.as_secs();
        let detail = format!("lives {lifetime:.0} s, at most {most} s are accepted");
        return Err(Refusal::new(Reason::TokenLifetimeTooLong, detail));
    }
    Ok(())
}

pub(super) fn describe_times(claims: &Claims, policy: &Policy, time: SystemTime) -> String {
    let now = seconds(time);
    let (age, left) = (now - claims.issued_at, claims.expires_at - now);
    let leeway = policy.leeway().as_secs();
    format!("issued {age:.0} s ago, expires in {left:.0} s (leeway {leeway} s)")
}

pub(super) fn issuer(claims: &Claims, signer: &Signer<'_>) -> Result<(), Refusal> {
    let name = signer.name();
    let own = [name, signer.key_id().as_str()];
    if claims.issuer == claims.subject && own.contains(&claims.issuer.as_str()) {
        return Ok(());
    }
    let detail = format!(
        "`iss` is `{}` and `sub` is `{}`, but the key belongs to `{name}`",
        claims.issuer, claims.subject
    );
    Err(Refusal::new(Reason::IssuerMismatch, detail))
}

pub(super) fn audience(claims: &Claims, own: &OwnDeployment) -> Result<(), Refusal> {
    let values = &claims.audience;
    if own.is_named_in(values) {
        return Ok(());
    }
    // The name counts only where no value has the form of a hash.
    let hashes = values.iter().any(|value| has_form_of_a_hash(value));
    let name = own.name.as_ref().filter(|_| !hashes);
    if name.is_some_and(|name| values.iter().any(|value| value == name.as_str())) {
        return Ok(());
    }
    let or_name = name.map_or(String::new(), |name| format!(" or `{name}`"));
    let (found, hash) = (values.join(", "), own.fingerprint());
    let detail = format!("`aud` is [{found}], expected `{hash}`{or_name}");
    Err(Refusal::new(Reason::AudienceMismatch, detail))
}

/// Returns `true` if the audience of `token` is this module. Nothing else of it is checked.
pub(crate) fn is_addressed_to(token: &Compact<'_>, own: &OwnDeployment) -> bool {
    let members = json::object(token.payload()).ok();
    let claims = members.and_then(|members| Claims::from_members(&members).ok());
    claims.is_some_and(|claims| audience(&claims, own).is_ok())
}

fn has_form_of_a_hash(value: &str) -> bool {
    let mut bytes = value.bytes();
    value.len() == 43 && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Judges whether a token of `caller` may come over a connection whose client certificate has the
/// key `certificate`; `None` is this module itself.
///
/// Refuses if that key is pinned for a different deployment, or if the caller has pins and
/// this is not one of them: a stolen token is of no use on another deployment's connection. A
/// certificate without a pin, of a caller without pins, says nothing about tokens.
pub(super) fn certificate(
    certificate: Fingerprint,
    caller: Option<&Deployment>,
    trust: &KeySet,
) -> Result<(), Refusal> {
    let name = caller.map(|caller| caller.name.as_str());
    let owner = trust
        .pin_owner(certificate)
        .map(|owner| owner.name.as_str());
    let fits = match owner {
        Some(owner) => name == Some(owner),
        None => caller.is_none_or(|caller| caller.tls_pins.is_empty()),
    };
    if fits {
        return Ok(());
    }
    let by = name.unwrap_or("this module itself");
    let whose = match owner {
        Some(owner) => format!("is pinned for `{owner}`"),
        None => format!("(`{certificate}`) is not pinned for any deployment"),
    };
    let detail = format!("the token is by `{by}`, but the connection's certificate {whose}");
    Err(Refusal::new(Reason::IssuerMismatch, detail))
}

/// Judges whether the signer has `role`; this module itself needs none.
pub(super) fn has_role(signer: &Signer<'_>, role: &Role) -> Result<(), Refusal> {
    let Some(deployment) = signer.deployment() else {
        return Ok(());
    };
    let roles = &deployment.roles;
    if roles.contains(role) {
        return Ok(());
    }
    let detail = format!("the deployment's roles are {roles}, `{role}` is not among them");
    Err(Refusal::new(Reason::RoleMissing, detail))
}
