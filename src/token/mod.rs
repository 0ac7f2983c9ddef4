//! Service-identity tokens: issue, verify, and the callee's proof.

mod claims;
mod issuer;
mod nonce;
mod parsed;
mod policy;
pub mod proof;
mod reason;
mod replay;
mod rules;
mod signer;
mod verified;
mod verified_cache;
mod verifier;
mod walk;

pub use issuer::{IssueError, IssuedToken, TokenIssuer};
pub use nonce::{Nonce, NonceError};
pub(crate) use policy::MAX_OWN_MODULE_LIFETIME;
pub use policy::{Policy, PolicyError};
pub use reason::{Caller, Clocks, Reason, Refusal, UnknownReason};
pub use replay::{Replay, ReplayGuard};
pub(crate) use rules::is_addressed_to;
pub use signer::Accept;
pub use verified::VerifiedToken;
pub(crate) use verified_cache::VerifiedCache;
pub use verifier::TokenVerifier;
pub(crate) use walk::{Check, Outcome, Verdict, rules_of};

/// The `typ` of a token that a module issues to itself: accepted over loopback, on methods that say
/// so, and nowhere else.
pub(crate) const OWN_MODULE_TYPE: &str = "countersign-self+jwt";
