//! Service-identity tokens: issue, verify, and the callee's proof.

mod claims;
mod issuer;
pub mod proof;
mod reason;
mod replay;
mod rules;
mod signer;
mod verifier;
mod walk;

pub(crate) use claims::MAX_OWN_MODULE_LIFETIME;
pub use claims::{Policy, PolicyError};
pub use issuer::{IssueError, IssuedToken, Nonce, NonceError, TokenIssuer};

pub use reason::{Caller, Clocks, Reason, Refusal, UnknownReason};
pub use replay::{Replay, ReplayGuard};
pub(crate) use rules::is_addressed_to;
pub use signer::Accept;
pub use signer::VerifiedToken;
pub use verifier::TokenVerifier;
pub(crate) use verifier::VerifiedCache;
pub(crate) use walk::{Check, Outcome, Verdict, rules_of};

/// The `typ` of a token that a module issues to itself: accepted over loopback, on methods that say
/// so, and nowhere else.
pub(crate) const OWN_MODULE_TYPE: &str = "countersign-self+jwt";
