//! Issues tokens that say who this module is, and draws the challenges that the callee answers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Serialize;
use uuid::Uuid;

use super::claims::whole_seconds;
use super::{MAX_OWN_MODULE_LIFETIME, OWN_MODULE_TYPE, Policy};
use crate::clock::Clock;
use crate::jose::{KeyError, compact};
use crate::secret::Secret;
use crate::trust::{Deployment, OwnDeployment, TrustStore};

/// Signs tokens with this module's current key.
///
/// Each call signs a new one; [`AttachIdentityLayer`](crate::grpc::AttachIdentityLayer) reuses a
/// token until half of its life is over.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    pub(crate) trust: Arc<TrustStore>,
    policy: Policy,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A signed token and the times that its claims carry.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    text: Secret<String>,
    issuer: String,
    issued_at: SystemTime,
    expires_at: SystemTime,
}

/// Why no token could be issued.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The key did not sign.
    #[error("the token could not be signed")]
    Key(#[from] KeyError),
    /// The claims could not be written.
    #[error("the claims could not be written as JSON")]
    Claims(#[from] serde_json::Error),
}

crate::failure::debug_as_text!(IssueError);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a [String],
    iat: u64,
    exp: u64,
    jti: Uuid,
}

impl TokenIssuer {
    /// Issues for the module of `trust`, with the lifetime of `policy`.
    pub fn new(trust: Arc<TrustStore>, policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self {
            trust,
            policy,
            clock,
        }
    }

    /// Issues a token for `callee`: its name and the fingerprints of its active keys.
    ///
    /// # Errors
    ///
    /// When the key does not sign.
    pub fn issue(&self, callee: &Deployment) -> Result<IssuedToken, IssueError> {
        self.issue_for(&callee.audience(), self.policy.lifetime())
    }

    /// Issues a token for `audience`, as given, that lives for `lifetime`.
    ///
    /// # Errors
    ///
    /// When the key does not sign.
    pub fn issue_for(
        &self,
        audience: &[String],
        lifetime: Duration,
    ) -> Result<IssuedToken, IssueError> {
        self.sign(&self.trust.own(), "JWT", audience, lifetime)
    }

    /// Issues a token with which this module's operator calls the module itself, over loopback.
    ///
    /// # Errors
    ///
    /// When the key does not sign.
    pub fn issue_for_own_module(&self) -> Result<IssuedToken, IssueError> {
        let own = self.trust.own();
        let audience = [own.fingerprint().to_string()];
        self.sign(&own, OWN_MODULE_TYPE, &audience, MAX_OWN_MODULE_LIFETIME)
    }

    fn sign(
        &self,
        own: &OwnDeployment,
        typ: &str,
        audience: &[String],
        lifetime: Duration,
    ) -> Result<IssuedToken, IssueError> {
        let now = whole_seconds(self.clock.now());
        let expires = now.saturating_add(lifetime.as_secs());
        let issuer = own.issuer();
        let claims = Claims {
            iss: issuer,
            sub: issuer,
            aud: audience,
            iat: now,
            exp: expires,
            jti: Uuid::new_v4(),
        };
        Ok(IssuedToken {
            text: Secret::new(sign(own, typ, &claims)?),
            issuer: issuer.to_owned(),
            issued_at: SystemTime::UNIX_EPOCH + Duration::from_secs(now),
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
        })
    }
}

/// Signs `claims` with the key of `own`.
pub(super) fn sign(
    own: &OwnDeployment,
    typ: &str,
    claims: &impl Serialize,
) -> Result<String, IssueError> {
    let kid = &own.key_id;
    let header = compact::HeaderSpec { typ, kid };
    Ok(compact::sign(
        &header,
        &serde_json::to_vec(claims)?,
        &own.key,
    )?)
}

impl IssuedToken {
    /// Lends the token. Anyone who holds it can call as this module until it expires.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// Returns its `iss`, which a proof of the reply names as its audience.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns when it expires.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns `true` if it may be sent at `now`: not where the clock stepped back behind `iat`.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.issued_at <= now && now < self.expires_at
    }

    /// Returns when half of its lifetime has passed: it should be renewed from then on.
    pub fn renewed_at(&self) -> SystemTime {
        let life = self.expires_at.duration_since(self.issued_at);
        self.issued_at + life.unwrap_or_default() / 2
    }

    /// Returns `true` if half of its life is over at `now`.
    pub fn is_due_at(&self, now: SystemTime) -> bool {
        now >= self.renewed_at()
    }
}

/// 128 random bits, fresh for each attempt: what a proof must repeat. 22 base64url characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nonce([u8; 16]);

/// The machine gave no random bytes.
#[derive(thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness(#[source] getrandom::Error);

crate::failure::debug_as_text!(NoRandomness);

/// The text is not a nonce.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a nonce is 22 characters of canonical base64url")]
pub struct NonceError;

impl Nonce {
    /// Draws a fresh one.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(NoRandomness)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Nonce {
    type Err = NonceError;

    fn from_str(text: &str) -> Result<Self, NonceError> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or(NonceError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonce_reads_back_what_it_prints() {
        let nonce = Nonce::generate().unwrap();

        assert_eq!(nonce.to_string().parse(), Ok(nonce));
        assert_eq!(nonce.to_string().len(), 22);
    }

    #[test]
    fn nonce_of_another_length_or_with_stray_bits_is_refused() {
        for text in [
            "",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert_eq!(text.parse::<Nonce>(), Err(NonceError), "{text}");
        }
    }
}
