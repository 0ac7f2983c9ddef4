//! Why a call is refused: a closed list.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::proof::is_of_clocks;
use crate::identity::DeploymentName;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal: $summary:literal, $help:literal;)*) => {
        /// Why a call is refused. The same word travels in the reply's `ErrorInfo`, stands in the
        /// log and in metrics, and is what `countersign explain` takes.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order in which they are checked.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the word: upper case, stable.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// Returns one sentence that gives nothing away about which keys exist.
            pub fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)*
                }
            }

            /// Returns what to do about it.
            pub fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)*
                }
            }
        }
    };
}

reasons! {
    /// No `authorization` value.
    TokenMissing = "TOKEN_MISSING":
        "the call carries no token",
        "Send one metadata value `authorization: Bearer <token>`. A countersign client layer does; a plain client takes a token from `countersign token issue`.";
    /// Not one well-formed Bearer token.
    TokenMalformed = "TOKEN_MALFORMED":
        "the authorization value is not one well-formed Bearer token",
        "Something between the caller and here changed the token, or another kind of token was sent. Exactly one `authorization` value, scheme Bearer, a compact JWS of at most 8 KiB with canonical base64url, no duplicate JSON members, `typ` JWT or none, a `kid`, and the claims iss, sub, aud, iat, exp. `countersign token explain` names the part.";
    /// `alg` is not `ES256`.
    AlgorithmNotAllowed = "ALGORITHM_NOT_ALLOWED":
        "the token is not signed with ES256",
        "Only ES256 with P-256 deployment keys is accepted. An identity provider's RS256 token, or one with `alg` none or HS256, is never a service identity here.";
    /// No such `kid`.
    KeyUnknown = "KEY_UNKNOWN":
        "the token names a key that is not trusted here",
        "The callee's file has no `jwt-keys.*.fingerprint` equal to the token's `kid`. Compare `countersign key fingerprint` of the caller's key with the callee's file, run `countersign check` over both files, or pair the two modules: `countersign pair dpm=FILE dpe=FILE`.";
    /// The signature does not verify.
    SignatureInvalid = "SIGNATURE_INVALID":
        "the token's signature does not verify",
        "The token was altered, or it was signed with another key than the one its `kid` names. If the key was replaced at the caller under the same fingerprint, pair the two modules again.";
    /// The key is revoked.
    KeyRevoked = "KEY_REVOKED":
        "the key that signed the token is revoked here",
        "The callee's file says `is-revoked=true` for this key. If that is a mistake, write `is-revoked=false` there. If it is intended, give the caller a new key: `countersign rotate run --file CALLER --peer-file CALLEE --now`, with the two files or homes. A revoked key that is still in use may be in the wrong hands.";
    /// `exp` has passed, or is not after `iat`.
    TokenExpired = "TOKEN_EXPIRED":
        "the token has expired",
        "Tokens live for `ataccama.authentication.internal.jwt.generator.token-expiration` seconds (300) and a leeway of 30 s is granted. If the token is fresh, the clocks differ: check NTP on both hosts.";
    /// `iat` or `nbf` lies ahead.
    TokenNotYetValid = "TOKEN_NOT_YET_VALID":
        "the token is not valid yet",
        "The caller's clock is ahead of the callee's by more than the leeway (`countersign.token.leeway`, 30 s). Check NTP on both hosts.";
    /// `exp - iat` is over the accepted maximum.
    TokenLifetimeTooLong = "TOKEN_LIFETIME_TOO_LONG":
        "the token lives longer than is accepted here",
        "`exp - iat` is over the callee's `countersign.token.max-lifetime` (900 s). Lower the caller's token-expiration or raise that setting.";
    /// `iss` and `sub` are not the key owner's.
    IssuerMismatch = "ISSUER_MISMATCH":
        "the token's issuer is not the owner of the key that signed it",
        "`iss` and `sub` must both be the name under which the callee's file lists the key, or both the token's `kid`. The two files call the caller by different names: compare `countersign.deployment.name` at the caller with `deployments.<name>` at the callee, or run `countersign check` over both files. Over TLS with pins, the connection's certificate must be the caller's own: compare `countersign.deployments.<name>.tls-keys` at the callee.";
    /// `aud` does not name this module.
    AudienceMismatch = "AUDIENCE_MISMATCH":
        "the token is meant for another module",
        "No `aud` value is the fingerprint of the callee's own key, nor its name in a token without fingerprints. The caller dialled the wrong module, or its file holds an old key of this one: run `countersign check` over both files.";
    /// The token was used before.
    TokenReplayed = "TOKEN_REPLAYED":
        "the token was used before",
        "The callee takes each token once (`countersign.token.replay=strict`). Set `countersign.deployments.<callee>.single-use-tokens=true` at the caller. For the leeway (30 s) after its start such a callee refuses every token, since it cannot know which were used before. If the caller does set it and this goes on, its clock is behind, or somebody replays its tokens.";
    /// The identity lacks the role that the method asks for.
    RoleMissing = "ROLE_MISSING":
        "the caller's deployment lacks the role that this method needs",
        "Roles come from the callee's file alone: add `ataccama.one.platform.deployments.<caller>.security.roles[0]=IMPERSONATION` there. A role claim in the token is never read.";
    /// Another deployment owns the engine.
    EngineNotOwned = "ENGINE_NOT_OWNED":
        "the engine belongs to another deployment",
        "An engine id belongs to the deployment that registered it first. Two engines share one storage folder, or one was copied: remove `storage/engine-id` of the copy and start it again.";
    /// The advertised address may not be dialled.
    AddressNotAllowed = "ADDRESS_NOT_ALLOWED":
        "the advertised address may not be dialled",
        "The address is in a range that is never dialled, or outside of what the registry's file allows for this deployment. Set `ataccama.one.dpe.service.hostname` and `.port` at the engine.";
    /// Raised by the caller: no proof where one was required.
    ProofMissing = "PROOF_MISSING":
        "the callee did not prove who it is",
        "The reply carries no `countersign-proof`. What answered is not a countersign module, or something between removes metadata.";
    /// Raised by the caller: a proof that does not hold.
    ProofInvalid = "PROOF_INVALID":
        "the callee's proof does not hold",
        "What answered is not the deployment that was called, or not this call's reply: another module listens at that address, an old reply was replayed, or the callee's key in the caller's file is out of date. Run `countersign check` over both files.";
}

impl Reason {
    /// Returns what to do about a refusal of which `detail` is known.
    pub fn help_for(self, detail: &str) -> &'static str {
        if self == Self::ProofInvalid && is_of_clocks(detail) {
            "The clocks of the two modules differ by more than the leeway (`countersign.token.leeway`, 30 s): `countersign doctor` measures by how much. Check NTP on both hosts."
        } else {
            self.help()
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(word: &str) -> Result<Self, UnknownReason> {
        let found = Self::ALL.iter().find(|reason| reason.as_str() == word);
        found.copied().ok_or(UnknownReason)
    }
}

/// The word is not in the list of reasons.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a reason of this version")]
pub struct UnknownReason;

/// A refusal: the reason for everyone, the rest for this module's own log.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What exactly was found. May quote the caller, so it is escaped before it is printed.
    pub detail: String,
    /// The `kid` as the caller sent it, where the header could be read.
    pub key_id: Option<String>,
    /// Whose key it is, once the signature verified.
    pub deployment: Option<DeploymentName>,
    /// The token's `iss`, where an active key signed it and it is meant for this module: whom a proof
    /// of the refusal may address.
    pub issuer: Option<String>,
    /// What is known of the two clocks, where they may be why.
    pub clocks: Option<Box<Clocks>>,
}

/// The clocks of a caller and its callee, as a refusal because of times shows them.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The callee's time.
    pub callee_time: SystemTime,
    /// By how many seconds the caller's clock is ahead at the least, negative where it is behind: if
    /// its token was sent in time, and where the token tells.
    pub caller_ahead: Option<f64>,
}

impl Refusal {
    /// Refuses for `reason`, found as `detail`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            key_id: None,
            deployment: None,
            issuer: None,
            clocks: None,
        }
    }

    /// Adds what the clocks show, for a refusal because of times.
    #[must_use]
    pub fn with_clocks(self, callee_time: SystemTime, caller_ahead: Option<f64>) -> Self {
        let clocks = Clocks {
            callee_time,
            caller_ahead,
        };
        Self {
            clocks: Some(Box::new(clocks)),
            ..self
        }
    }

    /// Returns the callee's time, where the two clocks may be why.
    pub fn callee_time(&self) -> Option<SystemTime> {
        Some(self.clocks.as_ref()?.callee_time)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Refusal {}
