//! JOSE for one algorithm: ES256 keys, their names, JWK and PEM forms, and compact signatures.
//!
//! The only module that names `p256` or `jsonwebtoken`. Keys are read, checked and made by `p256`;
//! signatures are made and verified by `jsonwebtoken`'s aws-lc backend, with keys already checked.

pub mod compact;
pub(crate) mod json;

#[cfg(test)]
#[path = "tests/checks.rs"]
pub(crate) mod checks;
mod error;
mod fingerprint;
mod jwk;
mod key;
mod material;
mod repair;

pub(crate) use compact::{Compact, Header};
pub(crate) use compact::{MAX_UNVERIFIED_BYTES, Unverified};
pub use error::{CompactError, FingerprintError, JwkError, JwkProblem, KeyError, KeyIdError};
pub use fingerprint::Fingerprint;
pub use fingerprint::KeyId;
pub(crate) use fingerprint::published;
pub use json::{JsonError, JsonProblem};
pub(crate) use jwk::repair;
pub use jwk::{Jwk, PrivateJwk, PublicJwk};
pub use key::{SigningKey, VerifyingKey};
pub use material::KeyMaterial;
pub(crate) use material::{BASE64, KeyFormat, json_of};
pub(crate) use repair::missing_quotes;
