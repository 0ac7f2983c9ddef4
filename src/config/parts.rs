//! The keys, pins and deployments of a file, each with the place where it is written.

use crate::diagnostic::Origin;
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::properties::Sourced;
use crate::trust::{Deployment, TrustedKey};

/// A setting with a foreign name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ignored {
    /// Where it stands.
    pub origin: Origin,
    /// Its name, without anything that looks like a private key.
    pub name: String,
}

/// The own key and where it stands.
#[derive(Clone, Debug)]
pub(super) struct OwnKey {
    pub(super) key: SigningKey,
    pub(super) key_id: KeyId,
    pub(super) at: Sourced,
}

/// A deployment as the file has it: what could be read of it, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct ReadDeployment {
    pub(super) name: String,
    pub(super) environment: Option<Sourced>,
    pub(super) keys: Vec<ReadKey>,
    pub(super) pins: Vec<ReadPin>,
    /// The deployment, unless something required is missing.
    pub(super) deployment: Option<Deployment>,
}

/// A key as the file has it.
#[derive(Clone, Debug)]
pub(super) struct ReadKey {
    pub(super) trusted: TrustedKey,
    /// The value of its fingerprint.
    pub(super) at: Sourced,
    /// The value that decides whether it is revoked, as written; `None` for the default.
    pub(super) revoked_at: Option<Sourced>,
}

/// A TLS pin as the file has it.
#[derive(Clone, Debug)]
pub(super) struct ReadPin {
    pub(super) fingerprint: Fingerprint,
    pub(super) at: Sourced,
}
