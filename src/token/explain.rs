//! The verifier's rules applied one by one, for an operator who asks why.

use crate::identity::{Role, Roles};
use crate::jose::{Compact, CompactError};

use super::claims::{Claims, seconds};
use super::verifier::{Accept, TokenVerifier, VerifiedToken};
use super::verifier::{claims, issuer, malformed, not_revoked, signature};
use super::{Reason, Refusal};

/// One rule of [`TokenVerifier::explain`] and what it said.
#[derive(Clone, Debug)]
pub struct Check {
    /// The rule, in words.
    pub name: &'static str,
    /// What was found, or why it is refused.
    pub outcome: Result<String, Refusal>,
}

/// What [`TokenVerifier::explain`] found: every rule that could be looked at.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rules in their order. Those that depend on a failed one are left out.
    pub checks: Vec<Check>,
    /// The identity, where every rule passed.
    pub accepted: Option<VerifiedToken>,
}

impl Verdict {
    /// Returns the first failure: the one that a callee answers with.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.checks
            .iter()
            .find_map(|check| check.outcome.as_ref().err())
    }
}

impl TokenVerifier {
    /// Applies every rule to `token` and goes on where one fails, for an operator who asks why.
    ///
    /// With `role`, the last rule is that the caller has it.
    pub fn explain(&self, token: &str, role: Option<&Role>) -> Verdict {
        let mut checks = Vec::new();
        let accepted = self.explain_into(&mut checks, token, role);
        let passed = checks.iter().all(|check| check.outcome.is_ok());
        Verdict {
            checks,
            accepted: accepted.filter(|_| passed),
        }
    }

    fn explain_into(
        &self,
        checks: &mut Vec<Check>,
        token: &str,
        role: Option<&Role>,
    ) -> Option<VerifiedToken> {
        let mut note = |name, outcome| checks.push(Check { name, outcome });
        let compact = match Compact::parse(token) {
            Ok(compact) => compact,
            Err(error @ CompactError::Algorithm) => {
                note("algorithm", Err(malformed(&error)));
                return None;
            }
            Err(error) => {
                note("well formed", Err(malformed(&error)));
                return None;
            }
        };
        note(
            "well formed",
            Ok("3 parts, canonical base64url, header without surprises".into()),
        );
        note("algorithm", Ok("ES256 is the only one allowed".into()));
        let trust = self.trust.current();
        let kid = compact.header().kid();
        let signer = match self.signer(&compact, &trust, Accept::Peers) {
            Ok(signer) => signer,
            Err(refusal) => {
                note("key known", Err(refusal));
                return None;
            }
        };
        note("key known", Ok(signer.describe(kid)));
        let outcome = signature(&compact, &signer);
        let forged = outcome.is_err();
        note(
            "signature",
            outcome.map(|()| "verifies with that key".into()),
        );
        if forged {
            return None;
        }
        note(
            "not revoked",
            not_revoked(&signer).map(|()| "is-revoked=false".into()),
        );
        let claims = match claims(&compact) {
            Ok(claims) => claims,
            Err(refusal) => {
                note("claims", Err(refusal));
                return None;
            }
        };
        note(
            "claims",
            Ok("iss, sub, aud, iat and exp are there and of the right type".into()),
        );
        note(
            "times",
            self.times(&claims, &signer)
                .map(|()| self.describe_times(&claims)),
        );
        note(
            "issuer",
            issuer(&claims, &signer).map(|()| claims.issuer.clone()),
        );
        note(
            "audience",
            self.audience(&claims).map(|()| claims.audience.join(", ")),
        );
        let verified = signer.verified(&claims);
        if let Some(role) = role {
            note("role", has_role(verified.identity().roles(), role));
        }
        Some(verified)
    }

    fn describe_times(&self, claims: &Claims) -> String {
        let now = seconds(self.clock.now());
        let (age, left) = (now - claims.issued_at, claims.expires_at - now);
        let leeway = self.policy.leeway().as_secs();
        format!("issued {age:.0} s ago, expires in {left:.0} s (leeway {leeway} s)")
    }
}

fn has_role(roles: &Roles, role: &Role) -> Result<String, Refusal> {
    if roles.contains(role) {
        return Ok(role.to_string());
    }
    let detail = format!("the deployment's roles are {roles}, `{role}` is not among them");
    Err(Refusal::new(Reason::RoleMissing, detail))
}
