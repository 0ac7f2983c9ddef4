//! How the rules of a token are walked: up to the first failure, or all of them.

use super::{Reason, Refusal, VerifiedToken};

pub(super) const FORM: &str = "well formed";
pub(super) const ALGORITHM: &str = "algorithm";
pub(super) const TYPE: &str = "type";
pub(super) const KEY: &str = "key known";
pub(super) const SIGNATURE: &str = "signature";
pub(super) const REVOKED: &str = "not revoked";
pub(super) const CLAIMS: &str = "claims";
pub(super) const TIMES: &str = "times";
pub(super) const ISSUER: &str = "issuer";
pub(super) const AUDIENCE: &str = "audience";
pub(super) const REPLAY: &str = "replay";
pub(super) const ROLE: &str = "role";

/// The rules' names, in their order.
pub const RULES: [&str; 12] = [
    FORM, ALGORITHM, TYPE, KEY, SIGNATURE, REVOKED, CLAIMS, TIMES, ISSUER, AUDIENCE, REPLAY, ROLE,
];

/// The rules about what the payload says, for which only the signature vouches.
const OF_PAYLOAD: [&str; 4] = [CLAIMS, TIMES, ISSUER, AUDIENCE];

/// One rule of [`TokenVerifier::explain`](super::TokenVerifier::explain) and what it found.
#[derive(Clone, Debug)]
pub struct Check {
    /// The rule, in words.
    pub name: &'static str,
    /// What it found.
    pub outcome: Outcome,
}

/// What a rule found.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It holds: what was found.
    Passed(String),
    /// It does not.
    Failed(Refusal),
    /// It cannot be applied: why not.
    Unknown(String),
}

impl Check {
    /// Returns `true` if the rule holds.
    pub fn passed(&self) -> bool {
        matches!(self.outcome, Outcome::Passed(_))
    }

    /// Returns why it does not hold.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Failed(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// What [`TokenVerifier::explain`](super::TokenVerifier::explain) found: what every rule found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rules in their order.
    pub checks: Vec<Check>,
    /// The identity, if every rule passed.
    pub accepted: Option<VerifiedToken>,
}

impl Verdict {
    /// Returns the first failure: the one that a callee answers with.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.checks.iter().find_map(Check::refusal)
    }
}

/// Why a rule is not applied.
const NOT_APPLIED: &str = "an earlier rule does not hold";

/// Refuses if a rule could not be applied and no rule failed, which cannot happen.
pub(super) fn not_applied() -> Refusal {
    Refusal::new(Reason::TokenMalformed, NOT_APPLIED)
}

/// Names the rules that do not hold and that later rules build on.
fn not_applied_after(checks: &[Check]) -> String {
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.refusal().is_some())
        .filter(|check| [FORM, ALGORITHM, KEY, CLAIMS].contains(&check.name))
        .map(|check| check.name)
        .collect();
    if failed.is_empty() {
        return NOT_APPLIED.to_owned();
    }
    format!("{NOT_APPLIED}: {}", failed.join(", "))
}

/// One walk through the rules, in the order in which they are handed in.
#[derive(Debug)]
pub(super) enum Walk<'a> {
    /// Ends at the first rule that does not hold.
    ToFirstFailure,
    /// Goes on, and keeps what each rule found.
    Through(&'a mut Vec<Check>),
}

impl Walk<'_> {
    /// Returns `true` if a failure does not end it.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Self::Through(_))
    }

    /// Takes what the rule `name` found, or `None` where it cannot be applied because an earlier
    /// rule does not hold; `describe` puts it into words.
    ///
    /// # Errors
    ///
    /// The refusal, if this walk ends at the first one: also for a rule that cannot be applied.
    pub(super) fn rule<T>(
        &mut self,
        name: &'static str,
        found: Option<Result<T, Refusal>>,
        describe: impl FnOnce(&T) -> String,
    ) -> Result<Option<T>, Refusal> {
        let Self::Through(checks) = self else {
            return found.unwrap_or_else(|| Err(not_applied())).map(Some);
        };
        let (outcome, value) = match found {
            Some(Ok(value)) => {
                let mut text = describe(&value);
                let vouched = checks.iter().any(|c| c.name == SIGNATURE && c.passed());
                if OF_PAYLOAD.contains(&name) && !vouched {
                    text.push_str(" (not vouched for by a signature)");
                }
                (Outcome::Passed(text), Some(value))
            }
            Some(Err(refusal)) => (Outcome::Failed(refusal), None),
            None => (Outcome::Unknown(not_applied_after(checks)), None),
        };
        checks.push(Check { name, outcome });
        Ok(value)
    }
}

/// Returns what the rules found in a token that was refused for `reason`, as far as that shows:
/// each rule before the one that failed held, and those after it were not applied.
pub fn rules_of(refusal: &Refusal) -> Vec<Check> {
    let failed = match refusal.reason {
        Reason::TokenMissing | Reason::TokenMalformed => FORM,
        Reason::AlgorithmNotAllowed => ALGORITHM,
        Reason::KeyUnknown => KEY,
        Reason::SignatureInvalid => SIGNATURE,
        Reason::KeyRevoked => REVOKED,
        Reason::TokenExpired | Reason::TokenNotYetValid | Reason::TokenLifetimeTooLong => TIMES,
        Reason::IssuerMismatch => ISSUER,
        Reason::AudienceMismatch => AUDIENCE,
        Reason::TokenReplayed | Reason::ReplayUnknown => REPLAY,
        Reason::RoleMissing => ROLE,
        // Those are not of the token, or are the caller's own.
        Reason::PlaintextNotAllowed
        | Reason::EngineNotOwned
        | Reason::EngineDuplicate
        | Reason::AddressNotAllowed
        | Reason::ProofMissing
        | Reason::ProofInvalid => "after the token",
    };
    let at = RULES.iter().position(|name| *name == failed);
    let (held, others) = RULES.split_at(at.unwrap_or(RULES.len()));
    let held = held.iter().map(|name| {
        let held = "held: a later rule was looked at".to_owned();
        (*name, Outcome::Passed(held))
    });
    let others = others.iter().skip(1).map(|name| {
        let others = "not looked at after a failure".to_owned();
        (*name, Outcome::Unknown(others))
    });
    held.chain([(failed, Outcome::Failed(refusal.clone()))])
        .chain(others)
        .map(|(name, outcome)| Check { name, outcome })
        .collect()
}
