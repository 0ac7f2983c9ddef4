//! The callee's proof: a countersignature over one call.
//!
//! A bearer token shows the callee who calls; the proof shows the caller who answered. It binds the
//! callee's key to the caller's nonce, the request's token and the method. It arrives after the
//! request was sent, covers no byte of the bodies, and a pure relay passes it: TLS does those.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::claims::{required_number, seconds, text, time, whole_seconds};
use super::issuer::sign;
use super::{IssueError, Nonce, Policy, Reason, Refusal};
use crate::clock::Clock;
use crate::engine::{EngineAddress, EngineId, Instance};
use crate::jose::{Compact, json};
use crate::trust::{Deployment, TrustStore, TrustedKey};

/// The `typ` of a proof. Never accepted as a token, as a token's is never accepted here.
pub const TYPE: &str = "countersign-proof+jwt";

/// What a proof's `aud` begins with, before the caller's `iss`: no module is called that, so a
/// verifier that overlooks `typ` still refuses a proof sent as a token.
pub(crate) const AUDIENCE_PREFIX: &str = "countersign-proof:";

const LIFETIME_SECONDS: u64 = 30;
const MAX_BYTES: usize = 2048;

/// The call that is countersigned, as its caller and its callee both know it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The `iss` of the request's token.
    pub caller: &'a str,
    /// The request's `countersign-nonce`.
    pub nonce: Nonce,
    /// The request's token.
    pub token: &'a str,
    /// The request's `:path`.
    pub path: &'a str,
}

/// The engine that answers a dial-back, as it advertises itself: the claim `engine`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EngineClaim {
    /// The engine's id, lower case.
    pub id: String,
    /// The advertised host.
    pub hostname: String,
    /// The advertised port.
    pub port: u16,
    /// The process that answers; older engines do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl EngineClaim {
    /// Names the engine `id` at `address`, and its process.
    pub(crate) fn new(id: EngineId, address: &EngineAddress, instance: Option<Instance>) -> Self {
        Self {
            id: id.to_string(),
            hostname: address.hostname().to_owned(),
            port: address.port(),
            instance: instance.map(|instance| instance.to_string()),
        }
    }

    /// Returns `true` if `found` is this engine: the same process too, if this names one.
    fn fits(&self, found: &Self) -> bool {
        (&self.id, &self.hostname, self.port) == (&found.id, &found.hostname, found.port)
            && (self.instance.is_none() || self.instance == found.instance)
    }
}

impl fmt::Display for EngineClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id, hostname, port, ..
        } = self;
        write!(f, "engine {id} at {hostname}:{port}")?;
        match &self.instance {
            Some(instance) => write!(f, ", process {instance}"),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: String,
    nonce: String,
    th: String,
    m: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'a EngineClaim>,
}

/// The callee's half: signs proofs with this module's current key.
#[derive(Clone, Debug)]
pub struct ProofSigner {
    trust: Arc<TrustStore>,
    clock: Arc<dyn Clock>,
}

impl ProofSigner {
    /// Signs as the module of `trust`.
    pub fn new(trust: Arc<TrustStore>, clock: Arc<dyn Clock>) -> Self {
        Self { trust, clock }
    }

    /// Signs the proof of `exchange`. Only for a caller whose token verified.
    ///
    /// # Errors
    ///
    /// When the key does not sign.
    pub fn sign(
        &self,
        exchange: &Exchange<'_>,
        engine: Option<&EngineClaim>,
    ) -> Result<String, IssueError> {
        let now = whole_seconds(self.clock.now());
        let own = self.trust.own();
        let claims = Claims {
            iss: own.issuer(),
            aud: format!("{AUDIENCE_PREFIX}{}", exchange.caller),
            nonce: exchange.nonce.to_string(),
            th: token_hash(exchange.token),
            m: exchange.path,
            iat: now,
            exp: now.saturating_add(LIFETIME_SECONDS),
            engine,
        };
        sign(&own, TYPE, &claims)
    }
}

/// What the proof of one reply has to show.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedProof<'a> {
    /// The call.
    pub exchange: Exchange<'a>,
    /// The deployment that was called.
    pub callee: &'a Deployment,
    /// The engine that the callee must be, if it is one of several.
    pub engine: Option<&'a EngineClaim>,
    /// When the call was made: a reply that is merely late is not a wrong clock, since the nonce
    /// shows that it is this call's.
    pub sent: SystemTime,
}

/// The caller's half: accepts proofs of the deployment that it meant to call.
#[derive(Clone, Debug)]
pub struct ProofVerifier {
    policy: Policy,
    clock: Arc<dyn Clock>,
}

impl ProofVerifier {
    /// Verifies with the leeway of `policy`.
    pub fn new(policy: Policy, clock: Arc<dyn Clock>) -> Self {
        Self { policy, clock }
    }

    /// Verifies that an active key of the callee signed `proof` for the call; returns when it was
    /// signed by the callee's clock, in whole seconds rounded down, and the key.
    ///
    /// Checks size, form, `typ`, key, signature, issuer, audience, nonce, token hash, method, times
    /// and, where one is expected, the engine. Does not check the reply's body, nor that the reply
    /// was not relayed.
    ///
    /// # Errors
    ///
    /// Always with [`Reason::ProofInvalid`]; the detail says what does not hold. Where all but the
    /// times holds, the callee's time is in it.
    pub fn verify<'a>(
        &self,
        proof: &str,
        expected: &ExpectedProof<'a>,
    ) -> Result<(SystemTime, &'a TrustedKey), Refusal> {
        // A fault of form in a proof is the proof's fault, not a token's.
        self.judge(proof, expected).map_err(|refusal| Refusal {
            reason: Reason::ProofInvalid,
            ..refusal
        })
    }

    fn judge<'a>(
        &self,
        proof: &str,
        expected: &ExpectedProof<'a>,
    ) -> Result<(SystemTime, &'a TrustedKey), Refusal> {
        let ExpectedProof {
            exchange, callee, ..
        } = expected;
        if proof.len() > MAX_BYTES {
            let bytes = proof.len();
            return Err(invalid(format!(
                "it has {bytes} bytes, at most {MAX_BYTES}"
            )));
        }
        let compact = Compact::parse(proof).map_err(|error| invalid(error.to_string()))?;
        let key = signed_by(&compact, callee)?;
        let claims = json::object(compact.payload()).map_err(|error| invalid(error.to_string()))?;
        let issuer = text(&claims, "iss")?;
        if issuer != callee.name.as_str() && issuer != key.key_id.as_str() {
            let name = &callee.name;
            return Err(invalid(format!(
                "its `iss` is `{issuer}`, expected `{name}`"
            )));
        }
        for (name, expected) in [
            ("aud", format!("{AUDIENCE_PREFIX}{}", exchange.caller)),
            ("nonce", exchange.nonce.to_string()),
            ("th", token_hash(exchange.token)),
            ("m", exchange.path.to_owned()),
        ] {
            if text(&claims, name)? != expected {
                return Err(invalid(format!("its `{name}` is not this call's")));
            }
        }
        if let Some(expected) = expected.engine {
            match claims.get("engine").map(EngineClaim::deserialize) {
                Some(Ok(found)) if expected.fits(&found) => {}
                Some(Ok(found)) => {
                    return Err(invalid(format!("{found} answered, expected {expected}")));
                }
                _ => return Err(invalid("it names no engine".to_owned())),
            }
        }
        Ok((self.check_times(&claims, expected.sent)?, key))
    }

    /// The callee signed between `sent` and now.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        sent: SystemTime,
    ) -> Result<SystemTime, Refusal> {
        let issued = required_number(claims, "iat")?;
        let expires = required_number(claims, "exp")?;
        let now = self.clock.now();
        let leeway = self.policy.leeway().as_secs_f64();
        let life = expires - issued;
        if !(0.0..=30.0).contains(&life) {
            return Err(invalid(format!(
                "it lives {life:.0} s, at most 30 s are accepted"
            )));
        }
        let ahead = issued - seconds(now);
        // This clock may have stepped back since the call was sent.
        let sent = seconds(sent.min(now));
        let behind = sent - issued;
        let (off, which) = if ahead > leeway {
            (ahead, "ahead of")
        // Whole seconds, rounded down: without leeway, too, a proof is up to a second old.
        } else if behind >= leeway + 1.0 || sent >= expires + leeway {
            (behind, "behind")
        } else {
            return Ok(time(issued));
        };
        let detail = format!("its clock is {off:.0} s {which} this one; check NTP on both hosts");
        Err(invalid(detail).with_clocks(time(issued), None))
    }

    /// Returns the clock with which the times of proofs are compared.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns how far the callee's clock may differ.
    pub fn leeway(&self) -> Duration {
        self.policy.leeway()
    }
}

/// `th`: the base64url of the SHA-256 of the request's token.
fn token_hash(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}

/// Checks that an active key of `callee` signed a proof; returns it.
fn signed_by<'a>(compact: &Compact<'_>, callee: &'a Deployment) -> Result<&'a TrustedKey, Refusal> {
    let (typ, kid) = (compact.header().typ(), compact.header().kid());
    if typ != Some(TYPE) {
        let found = typ.unwrap_or("none");
        return Err(invalid(format!(
            "its `typ` is `{found}`, expected `{TYPE}`"
        )));
    }
    let name = &callee.name;
    let key = callee.keys.iter().find(|key| key.key_id.as_str() == kid);
    let fault = match key {
        None => format!("it is signed by `{kid}`, which is not an active key of `{name}`"),
        Some(key) if key.revoked => format!(
            "`{name}` still signs with `{kid}`, which is revoked here: it needs a new key; only if it was revoked by mistake, `countersign revoke --undo` here"
        ),
        Some(key) if compact.verify(&key.key) => return Ok(key),
        Some(_) => format!("its signature by `{kid}` does not verify"),
    };
    Err(invalid(fault))
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Reason::ProofInvalid, detail)
}

#[cfg(test)]
mod tests;
