//! The verifier's rules applied one by one, for an operator who asks why.

use crate::identity::{Role, Roles};
use crate::jose::{Compact, CompactError};
use crate::trust::OwnDeployment;

use super::claims::{Claims, seconds};
use super::verified::VerifiedToken;
use super::verifier::{Accept, TokenVerifier};
use super::verifier::{Signer, audience, issuer, malformed, not_revoked, signature};
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
        let compact = match Compact::parse(token) {
            Err(CompactError::Algorithm) => {
                note(
                    checks,
                    "well formed",
                    Ok("3 parts, canonical base64url, JSON header".into()),
                );
                note(
                    checks,
                    "algorithm",
                    Err(malformed(&CompactError::Algorithm)),
                );
                return None;
            }
            parsed => {
                let parsed = parsed.map_err(|error| malformed(&error));
                let form = "3 parts, canonical base64url, JSON header without surprises";
                let compact = passed(checks, "well formed", parsed, |_| form.into())?;
                note(
                    checks,
                    "algorithm",
                    Ok("ES256, the only one allowed".into()),
                );
                compact
            }
        };
        let trust = self.trust.current();
        let kid = compact.header().kid();
        let signer = Self::signer(&compact, &trust, Accept::Peers);
        let signer = passed(checks, "key known", signer, |signer| signer.describe(kid))?;
        let proved = signature(&compact, &signer);
        passed(checks, "signature", proved, |()| {
            "verifies with that key".into()
        })?;
        note(
            checks,
            "not revoked",
            not_revoked(&signer).map(|()| "is-revoked=false".into()),
        );
        let form = "iss, sub, aud, iat and exp are there, each of its type";
        let claims = passed(checks, "claims", self.claims(&compact), |_| form.into())?;
        Some(self.explain_claims(checks, &signer, (&claims, trust.own()), role))
    }

    fn explain_claims(
        &self,
        checks: &mut Vec<Check>,
        signer: &Signer<'_>,
        (claims, own): (&Claims, &OwnDeployment),
        role: Option<&Role>,
    ) -> VerifiedToken {
        let times = self
            .times(claims, signer)
            .map(|()| self.describe_times(claims));
        note(checks, "times", times);
        note(
            checks,
            "issuer",
            issuer(claims, signer).map(|()| claims.issuer.clone()),
        );
        note(
            checks,
            "audience",
            audience(claims, own).map(|()| claims.audience.join(", ")),
        );
        if self.replay.is_some() {
            let unknown = "taken once; whether it was used, only the running module knows";
            note(checks, "replay", Ok(unknown.into()));
        }
        let verified = signer.verified(claims);
        if let Some(role) = role {
            note(checks, "role", has_role(verified.identity().roles(), role));
        }
        verified
    }

    fn describe_times(&self, claims: &Claims) -> String {
        let now = seconds(self.clock.now());
        let (age, left) = (now - claims.issued_at, claims.expires_at - now);
        let leeway = self.policy.leeway().as_secs();
        format!("issued {age:.0} s ago, expires in {left:.0} s (leeway {leeway} s)")
    }
}

fn note(checks: &mut Vec<Check>, name: &'static str, outcome: Result<String, Refusal>) {
    checks.push(Check { name, outcome });
}

/// Notes a rule whose result the later ones need.
fn passed<T>(
    checks: &mut Vec<Check>,
    name: &'static str,
    result: Result<T, Refusal>,
    describe: impl FnOnce(&T) -> String,
) -> Option<T> {
    match result {
        Ok(value) => {
            note(checks, name, Ok(describe(&value)));
            Some(value)
        }
        Err(refusal) => {
            note(checks, name, Err(refusal));
            None
        }
    }
}

fn has_role(roles: &Roles, role: &Role) -> Result<String, Refusal> {
    if roles.contains(role) {
        return Ok(role.to_string());
    }
    let detail = format!("the deployment's roles are {roles}, `{role}` is not among them");
    Err(Refusal::new(Reason::RoleMissing, detail))
}
