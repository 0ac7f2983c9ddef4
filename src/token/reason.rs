//! Why a call is refused: a closed list, with the facts about each reason in one table.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use tonic::Code;

use crate::diagnostic::CommandLine;
use crate::identity::DeploymentName;

/// What is known of one [`Reason`]: a row of the table below. A reason without one of these does
/// not compile.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Story {
    /// One sentence that gives nothing away about which keys exist.
    pub summary: &'static str,
    /// The rule that did not hold.
    pub rule: &'static str,
    /// What usually causes it, the most frequent first.
    pub causes: &'static [&'static str],
    /// What to do about it.
    pub help: &'static str,
}

/// Who refuses, and with which status.
enum Kind {
    Unauthenticated,
    Denied,
    /// The caller refuses the callee's reply: no callee sends such a reason.
    ByCaller,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $kind:ident $entry:tt)*) => {
        /// Why a call is refused. The same word is sent in the reply's `ErrorInfo`, stands in the
        /// log and in metrics, and is what `countersign explain` takes.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order in which they are checked.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            fn row(self) -> (&'static str, Kind, &'static Story) {
                match self {
                    $(Self::$variant => ($word, Kind::$kind, &Story $entry),)*
                }
            }
        }
    };
}

reasons! {
    /// No `authorization` value.
    TokenMissing = "TOKEN_MISSING", Unauthenticated {
        summary: "the call carries no token",
        rule: "Every method except grpc.health.v1 and reflection needs one `authorization` value.",
        causes: &[
            "the client was made without the countersign layer",
            "a proxy between the two drops the header `authorization` or `countersign-authorization`",
        ],
        help: "Send one metadata value `authorization: Bearer <token>`, or `countersign-authorization` where `authorization` is an end user's. A countersign client layer does; a plain client takes a token from `countersign token issue`.",
    }
    /// Not one well-formed Bearer token.
    TokenMalformed = "TOKEN_MALFORMED", Unauthenticated {
        summary: "the authorization value is not one well-formed Bearer token",
        rule: "Size, three canonical base64url parts, strict JSON, `typ`, `kid`, and every required claim of its type.",
        causes: &[
            "another product's token was sent, such as that of a signed-in user",
            "two `authorization` values: one from the client and one that a proxy added",
            "the token was cut or wrapped when it was copied",
        ],
        help: "The token was changed on its way, or a different kind of token was sent. A call needs exactly one `authorization` value with the scheme Bearer. Its token is a compact JWS of at most 8 KiB with canonical base64url, no duplicate JSON members, `typ` JWT or no `typ`, a `kid`, and the claims iss, sub, aud, iat, exp. `countersign token explain` names the wrong part.",
    }
    /// `alg` is not `ES256`.
    AlgorithmNotAllowed = "ALGORITHM_NOT_ALLOWED", Unauthenticated {
        summary: "the token is not signed with ES256",
        rule: "The header's `alg` is the string `ES256`.",
        causes: &[
            "a token of an identity provider (RS256) was sent instead of the module's own token",
            "an attacker tries `none` or HS256",
        ],
        help: "Only ES256 with P-256 deployment keys is accepted. An identity provider's RS256 token, or one with `alg` none or HS256, is never a service identity here.",
    }
    /// No trusted key has this `kid`.
    KeyUnknown = "KEY_UNKNOWN", Unauthenticated {
        summary: "the token names a key that is not trusted here",
        rule: "The header's `kid` equals, byte for byte, a `jwt-keys.*.fingerprint` of the callee's file.",
        causes: &[
            "the two modules were never paired, or not with the files that they run on",
            "the caller has a new key, but the callee's file does not have it yet",
            "the caller calls a DPM of a different environment",
        ],
        help: "The callee's file has no `jwt-keys.*.fingerprint` equal to the token's `kid`. In the caller's home folder, `countersign doctor --home .` prints the commands that compare the two files and pair the modules with `countersign pair`.",
    }
    /// The signature does not verify.
    SignatureInvalid = "SIGNATURE_INVALID", Unauthenticated {
        summary: "the token's signature does not verify",
        rule: "The 64-byte signature verifies with the key that `kid` selects.",
        causes: &[
            "the caller's key was replaced, but the new key has the old `kid`",
            "`content` and `fingerprint` in the callee's file do not match; `check` reports it",
            "a proxy between the two changed the token",
        ],
        help: "The token was altered, or it was signed with a different key from the one that its `kid` names. If the caller's key was replaced but kept its fingerprint, pair the two modules again.",
    }
    /// The key is revoked.
    KeyRevoked = "KEY_REVOKED", Unauthenticated {
        summary: "the key that signed the token is revoked here",
        rule: "The key that signed has no `is-revoked=true` in the callee's file.",
        causes: &[
            "a rotation ended, but this caller still uses its old key",
            "the key was revoked on purpose, because it may have been stolen",
        ],
        help: "The callee has revoked this key. A revoked key that is still in use may be in the wrong hands: give the caller a new key. In its home folder, `countersign doctor --home .` prints the command. Only if the key was revoked by mistake, take that back at the callee with `countersign revoke --undo`.",
    }
    /// `exp` has passed, or is not after `iat`.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated {
        summary: "the token has expired",
        rule: "`exp` is after `iat`, and the callee's clock is before `exp` plus the leeway.",
        causes: &[
            "the caller's clock is behind: `countersign doctor` measures by how much",
            "a token was stored and sent again after it had expired",
        ],
        help: "Tokens live for `ataccama.authentication.internal.jwt.generator.token-expiration` seconds (300) and a leeway of 30 s is granted. If the token is fresh, the clocks differ: check NTP on both hosts.",
    }
    /// `iat` or `nbf` lies ahead.
    TokenNotYetValid = "TOKEN_NOT_YET_VALID", Unauthenticated {
        summary: "the token is not valid yet",
        rule: "`iat`, and `nbf` if there is one, are not ahead of the callee's clock by more than the leeway.",
        causes: &[
            "the caller's clock is ahead: `countersign doctor` measures by how much",
        ],
        help: "The caller's clock is ahead of the callee's by more than the leeway (`countersign.token.leeway`, 30 s). Check NTP on both hosts.",
    }
    /// `exp - iat` is over the accepted maximum.
    TokenLifetimeTooLong = "TOKEN_LIFETIME_TOO_LONG", Unauthenticated {
        summary: "the token lives longer than is accepted here",
        rule: "`exp` minus `iat` is at most `countersign.token.max-lifetime` of the callee.",
        causes: &[
            "the caller's `token-expiration` is over the maximum of this callee",
        ],
        help: "`exp - iat` is over the callee's `countersign.token.max-lifetime` (900 s). Lower the caller's token-expiration or raise that setting.",
    }
    /// `iss` and `sub` are not the key owner's.
    IssuerMismatch = "ISSUER_MISMATCH", Unauthenticated {
        summary: "the token's issuer is not the owner of the key that signed it",
        rule: "`iss` and `sub` are both the name of the deployment that owns the key, or both the token's `kid`.",
        causes: &[
            "the caller's name is different in its own file and in the callee's file",
            "with TLS: the certificate and the token belong to different deployments",
        ],
        help: "`iss` and `sub` must both be the name under which the callee's file lists the key, or both the token's `kid`. The two files call the caller by different names: compare `countersign.deployment.name` at the caller with `deployments.<name>` at the callee, or run `countersign check` over both files. Over TLS with pins, the connection's certificate must be the caller's own: compare `countersign.deployments.<name>.tls-keys` at the callee.",
    }
    /// `aud` does not name this module.
    AudienceMismatch = "AUDIENCE_MISMATCH", Unauthenticated {
        summary: "the token was issued for a different module",
        rule: "One `aud` value is the fingerprint of the callee's own key; its name counts if no value is a fingerprint.",
        causes: &[
            "the caller's file holds an old key of this callee",
            "the caller dialled the wrong module, or a proxy routed the call there",
        ],
        help: "No `aud` value is the fingerprint of the callee's own key, and the callee's name counts only in a token without fingerprints. The caller dialled the wrong module, or its file has an old key of the callee. Run `countersign check` over both files.",
    }
    /// The token was used before.
    TokenReplayed = "TOKEN_REPLAYED", Unauthenticated {
        summary: "the token was used before",
        rule: "With `countersign.token.replay=strict` each `jti` is accepted once.",
        causes: &[
            "the caller reuses its token: `single-use-tokens` is not set there",
            "the callee has just started and refuses every token for the leeway",
            "an attacker replays a token that was read in transit",
        ],
        help: "The callee accepts each token once (`countersign.token.replay=strict`). Set `countersign.deployments.<callee>.single-use-tokens=true` at the caller. For the leeway (30 s) after its start such a callee refuses every token, since it cannot know which were used before. If the setting is there and the refusals continue, the caller's clock is behind, or its tokens are replayed.",
    }
    /// The call came in plaintext where TLS is needed.
    PlaintextNotAllowed = "PLAINTEXT_NOT_ALLOWED", Unauthenticated {
        summary: "the call came over a connection without TLS",
        rule: "A call comes over TLS, or over loopback if the callee's file has TLS off. Elsewhere plaintext needs `countersign.server.allow-plaintext=true`.",
        causes: &[
            "the callee is served by a server of its own, on an address beyond loopback, without TLS",
            "the callee's file turns TLS on, but its program serves without it",
            "the program's server says nothing about its connections, as one in memory does",
        ],
        help: "Serve with `Module::serve` or `serve_on`, which set up the TLS of the file, or turn TLS on: `countersign pair --tls`. Where the network is trusted, `countersign.server.allow-plaintext=true` at the callee allows plaintext beyond loopback.",
    }
    /// The identity lacks the role that the method needs.
    RoleMissing = "ROLE_MISSING", Denied {
        summary: "the caller's deployment lacks the role that this method needs",
        rule: "The caller's deployment has, in the callee's file, the role that the method needs.",
        causes: &[
            "`security.roles[0]` is missing in the callee's file, or names a different role",
            "the callee requires a different role: `….internal.jwt.impersonation-role`",
        ],
        help: "Roles come only from the callee's file: add `ataccama.one.platform.deployments.<caller>.security.roles[0]=IMPERSONATION` there. A role claim in the token is never read.",
    }
    /// Another deployment owns the engine.
    EngineNotOwned = "ENGINE_NOT_OWNED", Denied {
        summary: "the engine belongs to another deployment",
        rule: "An engine is changed only by the deployment that registered it first.",
        causes: &[
            "a storage folder was copied together with its `engine-id`",
        ],
        help: "An engine id belongs to the deployment that registered it first. Two engines share one storage folder, or one was copied: remove `storage/engine-id` of the copy and start it again.",
    }
    /// The advertised address may not be dialled.
    AddressNotAllowed = "ADDRESS_NOT_ALLOWED", Denied {
        summary: "the advertised address may not be dialled",
        rule: "The advertised address does not resolve to a refused range, and is among `allowed-addresses` if that is set.",
        causes: &[
            "the engine advertises `localhost` to a DPM on another machine",
            "its port is under 1024, or its network is not listed at the DPM",
        ],
        help: "The address is in a range that is never dialled, or the registry's file does not allow it for this deployment. Set `ataccama.one.dpe.service.hostname` and `.port` at the engine.",
    }
    /// Raised by the caller: a required proof is missing.
    ProofMissing = "PROOF_MISSING", ByCaller {
        summary: "the callee did not prove who it is",
        rule: "If the caller requested a proof, the reply has one `countersign-proof`. Raised by the caller itself.",
        causes: &[
            "another program listens at that address",
            "a proxy between the two drops the header",
        ],
        help: "The reply has no `countersign-proof`. The server that answered is not a countersign module, or a proxy removes metadata.",
    }
    /// Raised by the caller: a proof that does not hold.
    ProofInvalid = "PROOF_INVALID", ByCaller {
        summary: "the callee's proof is not valid",
        rule: "The proof is signed by an active key of the deployment that was called, for this nonce, token, method and time. Raised by the caller itself.",
        causes: &[
            "another module listens at that address",
            "the callee's key in the caller's file is out of date",
            "the clocks differ by more than the leeway: `countersign doctor` shows it",
        ],
        help: "A different deployment answered, or this is not this call's reply: another module listens at that address, an old reply was replayed, or the callee's key in the caller's file is out of date. Run `countersign check` over both files.",
    }
}

impl Reason {
    /// Returns the stable word in upper case.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Returns the gRPC status code of a call that is refused for this reason.
    pub fn status(self) -> Code {
        match self.row().1 {
            Kind::Unauthenticated | Kind::ByCaller => Code::Unauthenticated,
            Kind::Denied => Code::PermissionDenied,
        }
    }

    /// Returns `true` if the caller raises it about the callee's reply, and no callee sends it.
    pub fn is_raised_by_caller(self) -> bool {
        matches!(self.row().1, Kind::ByCaller)
    }

    /// Returns one sentence. It does not reveal which keys exist.
    pub fn summary(self) -> &'static str {
        self.row().2.summary
    }

    /// Returns the facts about this reason.
    pub fn story(self) -> &'static Story {
        self.row().2
    }

    /// Returns how to fix it.
    pub fn help(self) -> &'static str {
        self.row().2.help
    }

    /// Returns the command that explains it.
    pub(crate) fn explain(self) -> CommandLine {
        CommandLine::new("countersign explain").arg(self.as_str())
    }

    /// Returns how to fix a refusal, if it is known whether the two clocks caused it.
    pub fn help_for(self, clocks_differ: bool) -> &'static str {
        if self == Self::ProofInvalid && clocks_differ {
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
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The exact finding. It may quote the caller, so it is escaped before it is printed.
    pub detail: String,
    /// The `kid` as the caller sent it, if the header could be read.
    pub key_id: Option<String>,
    /// Who called.
    pub caller: Caller,
    /// The token's `iss`, where an active key signed it and it is meant for this module: the
    /// audience that a proof of the refusal may have.
    pub issuer: Option<String>,
    /// What is known about the two clocks, if they may be the cause.
    pub clocks: Option<Box<Clocks>>,
}

/// Who made a refused call, as far as its signature shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Caller {
    /// No signature verified: the call may lie about its caller.
    #[default]
    Unverified,
    /// This module itself.
    OwnModule,
    /// The deployment whose key verified the signature.
    Deployment(DeploymentName),
}

/// The clocks of a caller and its callee, as a refusal because of times shows them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Clocks {
    /// The callee's time.
    pub callee_time: SystemTime,
    /// By how many seconds the caller's clock is ahead at the least, negative where it is behind:
    /// if its token was sent in time, and where the token shows it.
    pub caller_ahead: Option<f64>,
}

impl Refusal {
    /// Refuses for `reason`, found as `detail`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            key_id: None,
            caller: Caller::Unverified,
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

    /// Returns the deployment that called, if its signature verified.
    pub fn deployment(&self) -> Option<&DeploymentName> {
        match &self.caller {
            Caller::Deployment(name) => Some(name),
            Caller::Unverified | Caller::OwnModule => None,
        }
    }

    /// Returns the callee's time, if the two clocks may be the cause.
    pub fn callee_time(&self) -> Option<SystemTime> {
        Some(self.clocks.as_ref()?.callee_time)
    }

    /// Returns how to fix it.
    pub fn help(&self) -> &'static str {
        self.reason.help_for(self.clocks.is_some())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_status_that_the_contract_gives_it() {
        let denied = ["ROLE_MISSING", "ENGINE_NOT_OWNED", "ADDRESS_NOT_ALLOWED"];
        let unauthenticated = [
            "TOKEN_MISSING",
            "TOKEN_MALFORMED",
            "ALGORITHM_NOT_ALLOWED",
            "KEY_UNKNOWN",
            "SIGNATURE_INVALID",
            "KEY_REVOKED",
            "TOKEN_EXPIRED",
            "TOKEN_NOT_YET_VALID",
            "TOKEN_LIFETIME_TOO_LONG",
            "ISSUER_MISMATCH",
            "AUDIENCE_MISMATCH",
            "TOKEN_REPLAYED",
            "PLAINTEXT_NOT_ALLOWED",
            "PROOF_MISSING",
            "PROOF_INVALID",
        ];
        for reason in Reason::ALL {
            let word = reason.as_str();
            let lists = [unauthenticated.contains(&word), denied.contains(&word)];
            let expected = match reason.status() {
                Code::Unauthenticated => [true, false],
                Code::PermissionDenied => [false, true],
                other => panic!("{reason} has the status {other}"),
            };
            assert_eq!(lists, expected, "{reason}");
            let by_caller = word.starts_with("PROOF_");
            assert_eq!(reason.is_raised_by_caller(), by_caller, "{reason}");
        }
        assert_eq!(Reason::ALL.len(), denied.len() + unauthenticated.len());
    }

    #[test]
    fn every_reason_has_a_rule_of_its_own_and_a_cause() {
        let mut rules = Vec::new();
        for reason in Reason::ALL {
            let story = reason.story();
            assert!(!story.causes.is_empty(), "{reason}");
            assert!(!rules.contains(&story.rule), "{reason}");
            rules.push(story.rule);
        }
    }
}
