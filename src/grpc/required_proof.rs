//! What a caller asks of a reply: the proof of who answered.

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::HeaderValue;

use crate::token::proof::{EngineClaim, Exchange, ProofVerifier};
use crate::token::{Nonce, Reason, Refusal};

use super::caller_tokens::CallerToken;
use super::clock_skew::{ClockSkews, Measured, Whose};
use super::metadata;

/// Which replies a callee must prove: `countersign.proof.mode`. The caller's policy alone; nothing
/// is negotiated, so that nobody between can talk it down.
///
/// The dial-back asks in every mode. A module asks itself for no proof: it would only show that it
/// has its own key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProofMode {
    /// None.
    Off,
    /// Those of `RegisterEngine` and `WhoAmI`: who has proved itself there is believed until the
    /// next of them. The default: a signature per call is felt, one per registration is not.
    #[default]
    Handshake,
    /// All.
    EveryCall,
}

const HANDSHAKE: [&str; 2] = [
    "/countersign.registry.v1.EngineRegistryService/RegisterEngine",
    "/countersign.identity.v1.IdentityService/WhoAmI",
];

/// Which calls of a layer ask for a proof, and how it is judged.
#[derive(Debug)]
pub(super) struct RequiredProof {
    pub(super) mode: ProofMode,
    pub(super) verifier: ProofVerifier,
    pub(super) engine: Option<EngineClaim>,
}

impl RequiredProof {
    pub(super) fn covers(&self, path: &str) -> bool {
        match self.mode {
            ProofMode::Off => false,
            ProofMode::Handshake => HANDSHAKE.contains(&path),
            ProofMode::EveryCall => true,
        }
    }
}

/// The proof that the reply to one call must carry.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) required: Arc<RequiredProof>,
    pub(super) token: Arc<CallerToken>,
    pub(super) nonce: Nonce,
    pub(super) path: String,
    /// When the call was made.
    pub(super) sent: SystemTime,
    /// Where the callee's clock is noted.
    pub(super) skews: Option<Arc<ClockSkews>>,
}

impl Expected {
    /// Judges the proof among `headers`, exactly one; returns it where it holds.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
        let invalid = |detail: &str| Refusal::new(Reason::ProofInvalid, detail);
        let mut proofs = headers.get_all(metadata::PROOF).iter();
        let value = proofs.next().ok_or_else(missing)?;
        if proofs.next().is_some() {
            return Err(invalid("the reply carries two proofs"));
        }
        let proof = value.to_str().ok();
        let proof = proof.ok_or_else(|| invalid("it is no text"))?;
        let callee = self.token.callee.as_ref();
        let callee = callee.ok_or_else(|| invalid("a module asks itself for no proof"))?;
        let exchange = Exchange {
            caller: self.token.token.issuer(),
            nonce: self.nonce,
            token: self.token.token.expose(),
            path: &self.path,
        };
        let engine = self.required.engine.as_ref();
        let verifier = &self.required.verifier;
        let judged = verifier.verify(proof, &exchange, callee, engine, self.sent);
        let signed = match &judged {
            Ok(signed) => Some(*signed),
            // Its times alone do not hold: that is the skew.
            Err(refusal) => refusal.callee_time(),
        };
        if let Some((signed, skews)) = signed.zip(self.skews.as_ref()) {
            let whose = Whose {
                deployment: callee.name.as_str(),
                engine: engine.map(|engine| engine.id.as_str()),
            };
            let measured = Measured {
                sent: self.sent,
                received: verifier.clock().now(),
                signed,
            };
            skews.note(whose, measured, verifier.leeway());
        }
        judged.map(|_signed| value.clone())
    }
}

pub(super) fn missing() -> Refusal {
    let detail = "the reply carries no `countersign-proof`";
    Refusal::new(Reason::ProofMissing, detail)
}
