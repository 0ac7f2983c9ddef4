//! The rules of a token that need no more than the token, its signer and the time.

use std::time::SystemTime;

use super::claims::{Claims, seconds};
use super::signer::Signer;
use super::walk::{ALGORITHM, FORM, Walk};
use super::{MAX_OWN_MODULE_LIFETIME, Policy, Reason, Refusal};
use crate::identity::Role;
use crate::jose::{Compact, CompactError, Fingerprint, Header, Unverified, json};
use crate::trust::{Deployment, KeySet, OwnDeployment};

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
        let mut detail = format!("the signature has {} bytes, not 64", signature.len());
        if is_der(signature) {
            detail += ": it is DER, as openssl writes it, but ES256 takes r and s, 32 bytes each";
        }
        return Err(Refusal::new(Reason::SignatureInvalid, detail));
    }
    if compact.verify(signer.key()) {
        return Ok(());
    }
    let detail = "it was altered, or signed with a different key from the one in its `kid`";
    Err(Refusal::new(Reason::SignatureInvalid, detail))
}

/// Returns `true` for two integers in DER, as ECDSA writes r and s elsewhere.
fn is_der(signature: &[u8]) -> bool {
    match signature {
        [0x30, length, 2, rest @ ..] => usize::from(*length) == rest.len() + 1,
        _ => false,
    }
}

/// Says so if `time` can only be meant in milliseconds: as seconds it is after the year 5138.
fn in_milliseconds(name: &str, time: f64) -> Option<String> {
    let what = format!("`{name}` is in milliseconds, but a token has seconds since 1970");
    (1e11..1e14).contains(&time).then_some(what)
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
    // This shows nothing of the caller's clock.
    if let Some(detail) = in_milliseconds("iat", issued_at)
        .or_else(|| in_milliseconds("nbf", not_before.unwrap_or_default()))
    {
        return Err(Refusal::new(Reason::TokenNotYetValid, detail));
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
        let detail = in_milliseconds("exp", expires_at)
            .unwrap_or_else(|| format!("lives {lifetime:.0} s, at most {most} s are accepted"));
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

/// A token, and how much of it can be read.
pub(super) struct Parsed<'a> {
    /// The token, if its form is good: only such a token is verified.
    pub(super) whole: Option<Compact<'a>>,
    /// Else its parts, for an operator who asks why it is refused.
    loose: Option<Unverified<'a>>,
}

impl<'a> Parsed<'a> {
    /// Applies the first rules to `token`: its form and its algorithm.
    pub(super) fn read(walk: &mut Walk<'_>, token: &'a str) -> Result<Self, Refusal> {
        let parsed = Compact::parse(token);
        let form = match &parsed {
            Ok(_) => Ok("3 parts, canonical base64url, JSON header without surprises"),
            // A walk that goes on names another algorithm in the next row.
            Err(CompactError::Algorithm) if walk.goes_on() => {
                Ok("3 parts, canonical base64url, JSON header")
            }
            Err(error) => {
                let mut refusal = malformed(error);
                if let Some(what) = surroundings(token) {
                    refusal.detail =
                        format!("{error}; {what} around it, where the token must stand alone");
                }
                Err(refusal)
            }
        };
        walk.rule(FORM, Some(form), |found| (*found).to_owned())?;
        let whole = parsed.ok();
        let loose = match whole {
            Some(_) => None,
            None => Unverified::read(token).ok(),
        };
        let parsed = Self { whole, loose };
        let algorithm = match (&parsed.whole, &parsed.loose) {
            (Some(_), _) => Some(Ok(())),
            (None, Some(_)) if parsed.member("alg") == Some("ES256") => Some(Ok(())),
            (None, Some(_)) => Some(Err(malformed(&CompactError::Algorithm))),
            (None, None) => None,
        };
        walk.rule(ALGORITHM, algorithm, |()| {
            "ES256, the only one allowed".to_owned()
        })?;
        Ok(parsed)
    }

    pub(super) fn header(&self) -> Option<&Header> {
        self.whole.as_ref().map(Compact::header)
    }

    #[expect(
        clippy::option_option,
        reason = "no header at all, or a header without `typ`"
    )]
    pub(super) fn typ(&self) -> Option<Option<&str>> {
        let loose = self.loose.as_ref().map(|_| self.member("typ"));
        self.header().map(Header::typ).or(loose)
    }

    pub(super) fn kid(&self) -> Option<&str> {
        let kid = self.header().map(Header::kid);
        kid.or_else(|| self.member("kid"))
    }

    pub(super) fn payload(&self) -> Option<&[u8]> {
        let payload = self.whole.as_ref().map(Compact::payload);
        payload.or_else(|| Some(&self.loose.as_ref()?.payload))
    }

    /// Returns a member of the header of a token whose form is not good.
    fn member(&self, name: &str) -> Option<&str> {
        self.loose.as_ref()?.header.get(name)?.as_str()
    }
}

/// Names what stands before or after a token that was copied with more than itself.
fn surroundings(token: &str) -> Option<&'static str> {
    let first = token.chars().next()?;
    let ends = [first, token.chars().next_back()?];
    let scheme = token.get(.."Bearer ".len());
    if first == '\u{feff}' {
        return Some("a byte order mark is");
    }
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer ")) {
        return Some("the scheme `Bearer ` is");
    }
    ends.into_iter().find_map(|end| match end {
        '"' | '\'' | '`' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' => Some("quotes are"),
        '\u{200b}' => Some("blanks are"),
        end => end.is_whitespace().then_some("blanks are"),
    })
}

fn malformed(error: &CompactError) -> Refusal {
    let reason = match error {
        CompactError::Algorithm => Reason::AlgorithmNotAllowed,
        _ => Reason::TokenMalformed,
    };
    Refusal::new(reason, error.to_string())
}
