//! Why a call is refused: a closed list, with the facts about each reason in one table.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use tonic::Code;

use crate::diagnostic::CommandLine;
use crate::identity::DeploymentName;

/// Who refuses, and with which status.
enum Kind {
    Unauthenticated,
    Denied,
    Taken,
    Unavailable,
    /// The caller refuses the callee's reply: no callee sends such a reason.
    ByCaller,
}

/// What is known of one [`Reason`]: a reason without its row below and its file in `explain/` does
/// not compile.
struct Row {
    word: &'static str,
    kind: Kind,
    summary: &'static str,
    /// The rule, the causes, one a line, and the help, with empty lines between them.
    story: &'static str,
}

macro_rules! reasons {
    ($($variant:ident $word:literal $kind:ident $summary:literal;)*) => {
        /// Why a call is refused. The same word is sent in the reply's `ErrorInfo`, stands in the
        /// log and in metrics, and is what `countersign explain` takes.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum Reason {
            $(#[doc = $summary] $variant,)*
        }

        impl Reason {
            /// Every reason, in the order in which they are checked.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        word: $word,
                        kind: Kind::$kind,
                        summary: $summary,
                        story: include_str!(concat!("explain/", $word, ".md")),
                    },)*
                }
            }
        }
    };
}

reasons! {
    TokenMissing "TOKEN_MISSING" Unauthenticated "the call carries no token";
    TokenMalformed "TOKEN_MALFORMED" Unauthenticated "the authorization value is not one well-formed Bearer token";
    AlgorithmNotAllowed "ALGORITHM_NOT_ALLOWED" Unauthenticated "the token is not signed with ES256";
    KeyUnknown "KEY_UNKNOWN" Unauthenticated "the token names a key that is not trusted here";
    SignatureInvalid "SIGNATURE_INVALID" Unauthenticated "the token's signature does not verify";
    KeyRevoked "KEY_REVOKED" Unauthenticated "the key that signed the token is revoked here";
    TokenExpired "TOKEN_EXPIRED" Unauthenticated "the token has expired";
    TokenNotYetValid "TOKEN_NOT_YET_VALID" Unauthenticated "the token is not valid yet";
    TokenLifetimeTooLong "TOKEN_LIFETIME_TOO_LONG" Unauthenticated "the token lives longer than is accepted here";
    IssuerMismatch "ISSUER_MISMATCH" Unauthenticated "the token's issuer is not the owner of the key that signed it";
    AudienceMismatch "AUDIENCE_MISMATCH" Unauthenticated "the token was issued for a different module";
    TokenReplayed "TOKEN_REPLAYED" Unauthenticated "the token was used before";
    ReplayUnknown "REPLAY_UNKNOWN" Unavailable "it is not known whether the token was used before";
    PlaintextNotAllowed "PLAINTEXT_NOT_ALLOWED" Unauthenticated "the call came over a connection without TLS";
    RoleMissing "ROLE_MISSING" Denied "the caller's deployment lacks the role that this method needs";
    EngineNotOwned "ENGINE_NOT_OWNED" Denied "the engine belongs to another deployment";
    EngineDuplicate "ENGINE_DUPLICATE" Taken "another process has this engine's id and proves itself at its recorded address";
    AddressNotAllowed "ADDRESS_NOT_ALLOWED" Denied "the advertised address may not be dialled";
    ProofMissing "PROOF_MISSING" ByCaller "the callee did not prove who it is";
    ProofInvalid "PROOF_INVALID" ByCaller "the callee's proof is not valid";
}

impl Reason {
    /// Returns the stable word in upper case.
    pub fn as_str(self) -> &'static str {
        self.row().word
    }

    /// Returns the gRPC status code of a call that is refused for this reason.
    pub fn status(self) -> Code {
        match self.row().kind {
            Kind::Unauthenticated | Kind::ByCaller => Code::Unauthenticated,
            Kind::Denied => Code::PermissionDenied,
            Kind::Taken => Code::AlreadyExists,
            Kind::Unavailable => Code::Unavailable,
        }
    }

    /// Returns `true` if the caller raises it about the callee's reply, and no callee sends it.
    pub fn is_raised_by_caller(self) -> bool {
        matches!(self.row().kind, Kind::ByCaller)
    }

    /// Returns one sentence. It does not reveal which keys exist.
    pub fn summary(self) -> &'static str {
        self.row().summary
    }

    /// Returns the rule that did not hold, its usual causes, the most frequent first and one a
    /// line, and what to do about it.
    pub(crate) fn story(self) -> [&'static str; 3] {
        let mut parts = self.row().story.trim_end().splitn(3, "\n\n");
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }

    /// Returns how to fix it.
    pub fn help(self) -> &'static str {
        let [.., help] = self.story();
        help
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
        let taken = ["ENGINE_DUPLICATE"];
        let unavailable = ["REPLAY_UNKNOWN"];
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
            let lists = [&unauthenticated[..], &denied, &taken, &unavailable];
            let lists = lists.map(|words| words.contains(&word));
            let expected = match reason.status() {
                Code::Unauthenticated => [true, false, false, false],
                Code::PermissionDenied => [false, true, false, false],
                Code::AlreadyExists => [false, false, true, false],
                Code::Unavailable => [false, false, false, true],
                other => panic!("{reason} has the status {other}"),
            };
            assert_eq!(lists, expected, "{reason}");
            let by_caller = word.starts_with("PROOF_");
            assert_eq!(reason.is_raised_by_caller(), by_caller, "{reason}");
        }
        let listed = denied.len() + unauthenticated.len() + taken.len();
        assert_eq!(Reason::ALL.len(), listed + unavailable.len());
    }

    #[test]
    fn every_reason_has_a_rule_of_its_own_and_a_cause() {
        let mut rules = Vec::new();
        for reason in Reason::ALL {
            let [rule, causes, help] = reason.story();
            assert!(!causes.is_empty(), "{reason}");
            assert_eq!(help.lines().count(), 1, "{reason}");
            assert!(!rules.contains(&rule), "{reason}");
            rules.push(rule);
        }
    }
}
