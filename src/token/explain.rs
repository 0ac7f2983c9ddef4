//! The verifier's rules applied one by one, for an operator who asks why.

use crate::identity::{Role, Roles};
use crate::jose::{Compact, CompactError, Unverified};
use crate::trust::KeySet;

use super::claims::{Claims, seconds};
use super::rules::{audience, issuer, malformed, not_revoked, signature, typ};
use super::signer::Signer;
use super::verified::VerifiedToken;
use super::verifier::TokenVerifier;
use super::{Reason, Refusal};

/// One rule of [`TokenVerifier::explain`] and what it said.
#[derive(Clone, Debug)]
pub struct Check {
    /// The rule, in words.
    pub name: &'static str,
    /// What it said.
    pub outcome: Outcome,
}

/// What a rule said.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It holds: what was found.
    Passed(String),
    /// It does not.
    Failed(Refusal),
    /// It cannot be told: why not.
    Unknown(String),
}

impl Check {
    /// Tells whether the rule holds.
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

/// What [`TokenVerifier::explain`] found: what every rule said.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The rules in their order.
    pub checks: Vec<Check>,
    /// The identity, where every rule passed.
    pub accepted: Option<VerifiedToken>,
}

impl Verdict {
    /// Returns the first failure: the one that a callee answers with.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.checks.iter().find_map(Check::refusal)
    }
}

/// The rules' names, in their order.
pub const RULES: [&str; 12] = [
    FORM, ALGORITHM, TYPE, KEY, SIGNATURE, REVOKED, CLAIMS, TIMES, ISSUER, AUDIENCE, REPLAY, ROLE,
];

/// Returns what the rules said of a token that was refused for `reason`, as far as that tells: each
/// rule before the one that failed held, and those after it were not looked at.
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
        Reason::TokenReplayed => REPLAY,
        Reason::RoleMissing => ROLE,
        // Those come after the token's rules, or are the caller's own.
        Reason::EngineNotOwned
        | Reason::AddressNotAllowed
        | Reason::ProofMissing
        | Reason::ProofInvalid => OTHER,
    };
    let mut checks = Checks(Vec::new());
    let mut reached = true;
    for name in RULES.into_iter().chain([OTHER]) {
        if name == failed {
            checks.note(name, Err(refusal.clone()));
            reached = false;
        } else if name == OTHER {
            break;
        } else if reached {
            checks.note(name, Ok("held: a later rule was looked at".to_owned()));
        } else {
            checks.unknown(name, "not looked at after a failure");
        }
    }
    checks.0
}

const OTHER: &str = "after the token";
const FORM: &str = "well formed";
const ALGORITHM: &str = "algorithm";
const TYPE: &str = "type";
const KEY: &str = "key known";
const SIGNATURE: &str = "signature";
const REVOKED: &str = "not revoked";
const CLAIMS: &str = "claims";
const TIMES: &str = "times";
const ISSUER: &str = "issuer";
const AUDIENCE: &str = "audience";
const REPLAY: &str = "replay";
const ROLE: &str = "role";

impl TokenVerifier {
    /// Applies every rule to `token` and goes on where one fails, for an operator who asks why.
    ///
    /// Claims are looked at even where no signature vouches for them: the rows say so. With `role`,
    /// the last rule is that the caller has it.
    pub fn explain(&self, token: &str, role: Option<&Role>) -> Verdict {
        let trust = self.trust.current();
        let parsed = Compact::parse(token);
        let unverified = Unverified::read(token).ok();
        let mut checks = Checks(Vec::new());
        let compact = checks.header(parsed, unverified.as_ref());
        let kid = unverified
            .as_ref()
            .and_then(|token| token.header().get("kid"));
        let signer = checks.key(kid.and_then(serde_json::Value::as_str), &trust);
        checks.signature(compact.as_ref(), signer.as_ref());
        let claims = self.explain_claims(&mut checks, unverified.as_ref());
        self.explain_values(&mut checks, signer.as_ref(), claims.as_ref(), &trust);
        if let Some(role) = role {
            checks.of_signer(ROLE, signer.as_ref(), |signer| match signer.deployment() {
                Some(deployment) => has_role(&deployment.roles, role),
                None => Ok("this module itself".to_owned()),
            });
        }
        let all_passed = checks.0.iter().all(Check::passed);
        let verified = signer.zip(claims).filter(|_| all_passed);
        Verdict {
            checks: checks.0,
            accepted: verified.map(|(signer, claims)| signer.verified(&claims)),
        }
    }

    fn explain_claims(&self, checks: &mut Checks, token: Option<&Unverified>) -> Option<Claims> {
        let Some(token) = token else {
            checks.unknown(CLAIMS, NOT_TAKEN_APART);
            return None;
        };
        let form = "iss, sub, aud, iat and exp are there, each of its type";
        let vouched = checks.vouched();
        match self.claims_of(token.payload()) {
            Ok(claims) => {
                checks.note(CLAIMS, Ok(format!("{form}{vouched}")));
                Some(claims)
            }
            Err(refusal) => {
                checks.note(CLAIMS, Err(refusal));
                None
            }
        }
    }

    fn explain_values(
        &self,
        checks: &mut Checks,
        signer: Option<&Signer<'_>>,
        claims: Option<&Claims>,
        trust: &KeySet,
    ) {
        let Some(claims) = claims else {
            for name in [TIMES, ISSUER, AUDIENCE] {
                checks.unknown(name, "the claims cannot be read");
            }
            return;
        };
        let vouched = checks.vouched();
        let times = self.times(claims, signer);
        checks.note(
            TIMES,
            times.map(|()| format!("{}{vouched}", self.describe_times(claims))),
        );
        checks.of_signer(ISSUER, signer, |signer| {
            issuer(claims, signer).map(|()| format!("{}{vouched}", claims.issuer))
        });
        let named = audience(claims, trust.own());
        checks.note(
            AUDIENCE,
            named.map(|()| format!("{}{vouched}", claims.audience.join(", "))),
        );
        if self.replay.is_some() {
            let unknown = "taken once; whether it was used, only the running module knows";
            checks.note(REPLAY, Ok(unknown.into()));
        }
    }

    fn describe_times(&self, claims: &Claims) -> String {
        let now = seconds(self.clock.now());
        let (age, left) = (now - claims.issued_at, claims.expires_at - now);
        let leeway = self.policy.leeway().as_secs();
        format!("issued {age:.0} s ago, expires in {left:.0} s (leeway {leeway} s)")
    }
}

const NOT_TAKEN_APART: &str = "the token cannot be taken apart";

/// The rules that were looked at so far.
struct Checks(Vec<Check>);

impl Checks {
    fn note(&mut self, name: &'static str, outcome: Result<String, Refusal>) {
        let outcome = match outcome {
            Ok(found) => Outcome::Passed(found),
            Err(refusal) => Outcome::Failed(refusal),
        };
        self.0.push(Check { name, outcome });
    }

    fn unknown(&mut self, name: &'static str, why: &str) {
        let outcome = Outcome::Unknown(why.to_owned());
        self.0.push(Check { name, outcome });
    }

    /// Notes a rule that needs the key.
    fn of_signer(
        &mut self,
        name: &'static str,
        signer: Option<&Signer<'_>>,
        judge: impl FnOnce(&Signer<'_>) -> Result<String, Refusal>,
    ) {
        match signer {
            Some(signer) => self.note(name, judge(signer)),
            None => self.unknown(name, "the key is not known"),
        }
    }

    /// What is added to a row about claims that no signature vouches for.
    fn vouched(&self) -> &'static str {
        let mut checks = self.0.iter();
        if checks.any(|check| check.name == SIGNATURE && check.passed()) {
            ""
        } else {
            " (not vouched for by a signature)"
        }
    }

    fn header<'a>(
        &mut self,
        parsed: Result<Compact<'a>, CompactError>,
        unverified: Option<&Unverified>,
    ) -> Option<Compact<'a>> {
        let form = "3 parts, canonical base64url, JSON header without surprises";
        let (form, compact) = match parsed {
            Ok(compact) => (Ok(form.to_owned()), Some(compact)),
            Err(CompactError::Algorithm) => {
                (Ok("3 parts, canonical base64url, JSON header".into()), None)
            }
            Err(error) => (Err(malformed(&error)), None),
        };
        self.note(FORM, form);
        let Some(unverified) = unverified else {
            self.unknown(ALGORITHM, NOT_TAKEN_APART);
            self.unknown(TYPE, NOT_TAKEN_APART);
            return compact;
        };
        let text = |name| {
            unverified
                .header()
                .get(name)
                .and_then(serde_json::Value::as_str)
        };
        let algorithm = match text("alg") {
            Some("ES256") => Ok("ES256, the only one allowed".to_owned()),
            _ => Err(malformed(&CompactError::Algorithm)),
        };
        self.note(ALGORITHM, algorithm);
        let found = text("typ");
        let shown = found.map_or_else(|| "none".to_owned(), |found| format!("`{found}`"));
        self.note(TYPE, typ(found).map(|()| shown));
        compact
    }

    fn key<'a>(&mut self, kid: Option<&str>, trust: &'a KeySet) -> Option<Signer<'a>> {
        let Some(kid) = kid else {
            self.unknown(KEY, "the token names no key");
            return None;
        };
        match TokenVerifier::peer(kid, trust) {
            Ok(signer) => {
                self.note(KEY, Ok(signer.describe(kid)));
                Some(signer)
            }
            Err(refusal) => {
                self.note(KEY, Err(refusal));
                None
            }
        }
    }

    fn signature(&mut self, compact: Option<&Compact<'_>>, signer: Option<&Signer<'_>>) {
        match compact {
            Some(compact) => self.of_signer(SIGNATURE, signer, |signer| {
                signature(compact, signer).map(|()| "verifies with that key".to_owned())
            }),
            None => self.unknown(SIGNATURE, "only a well-formed ES256 token is verified"),
        }
        self.of_signer(REVOKED, signer, |signer| {
            not_revoked(signer).map(|()| "is-revoked=false".to_owned())
        });
    }
}

fn has_role(roles: &Roles, role: &Role) -> Result<String, Refusal> {
    if roles.contains(role) {
        return Ok(role.to_string());
    }
    let detail = format!("the deployment's roles are {roles}, `{role}` is not among them");
    Err(Refusal::new(Reason::RoleMissing, detail))
}
