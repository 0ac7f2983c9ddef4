//! A deployment: one module somewhere, its keys and what it may do here.

use crate::identity::{DeploymentName, Environment, ModuleType, Roles};
use crate::jose::{Fingerprint, KeyId, SigningKey, VerifyingKey};

/// A public key that a deployment may sign with.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TrustedKey {
    /// What the file calls it, the `<key>` of `jwt-keys.<key>`.
    pub name: String,
    /// The configured fingerprint: what a token's `kid` is compared with, byte for byte.
    pub key_id: KeyId,
    /// The key itself.
    pub key: VerifyingKey,
    /// A revoked key stays listed, so that its use differs from an unknown key's.
    pub revoked: bool,
}

impl TrustedKey {
    /// Returns `key`, not revoked, known by its computed fingerprint.
    pub fn new(name: &str, key: VerifyingKey) -> Self {
        Self {
            name: name.to_owned(),
            key_id: key.fingerprint().into(),
            key,
            revoked: false,
        }
    }
}

/// A module that this one trusts: who it is, its keys, and the roles it has here.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Deployment {
    /// Its name, the same in every module's file.
    pub name: DeploymentName,
    /// Its module type.
    pub module: ModuleType,
    /// Its environment, where one is configured.
    pub environment: Option<Environment>,
    /// The roles of every caller that signs with one of its keys.
    pub roles: Roles,
    /// Its keys, in the file's order.
    pub keys: Vec<TrustedKey>,
    /// Whether it takes each token once, so that a caller must mint one per call.
    pub single_use_tokens: bool,
    /// The keys of its TLS certificates. Where there are any, no other certificate is its own.
    pub tls_pins: Vec<Fingerprint>,
}

impl Deployment {
    /// How many active keys the `aud` of a token has room for, beside the name.
    pub(crate) const MOST_ACTIVE_KEYS: usize = 7;

    /// Returns a deployment with `keys`: without environment, roles and pins.
    pub fn new(name: DeploymentName, module: ModuleType, keys: Vec<TrustedKey>) -> Self {
        Self {
            name,
            module,
            environment: None,
            roles: Roles::default(),
            keys,
            single_use_tokens: false,
            tls_pins: Vec::new(),
        }
    }

    /// Finds the key with this computed fingerprint, revoked or not.
    pub(crate) fn key(&self, fingerprint: Fingerprint) -> Option<&TrustedKey> {
        let mut keys = self.keys.iter();
        keys.find(|trusted| trusted.key.fingerprint() == fingerprint)
    }

    /// Returns the keys that are not revoked.
    pub fn active_keys(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.iter().filter(|key| !key.revoked)
    }

    /// Returns the `aud` of a token for this deployment: its name and the computed fingerprints of
    /// its active keys, 8 strings at most. Configured text never enters an audience.
    pub fn audience(&self) -> Vec<String> {
        let keys = self
            .active_keys()
            .map(|key| key.key.fingerprint().to_string());
        std::iter::once(self.name.to_string())
            .chain(keys)
            .take(1 + Self::MOST_ACTIVE_KEYS)
            .collect()
    }
}

/// This module itself: its name and the key that it signs with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OwnDeployment {
    /// Its module type.
    pub module: ModuleType,
    /// Its deployment name; without one it calls itself by its key id.
    pub name: Option<DeploymentName>,
    /// Its signing key.
    pub key: SigningKey,
    /// The `kid` of its tokens: what its peers' files hold as the fingerprint.
    pub key_id: KeyId,
    /// The fingerprints of its other keys, the next one of a rotation and earlier ones: a token may
    /// still, or already, be addressed to them.
    pub accepted: Vec<Fingerprint>,
}

impl OwnDeployment {
    /// Returns a module that signs with `key`, known by its computed fingerprint.
    pub fn new(module: ModuleType, name: DeploymentName, key: SigningKey) -> Self {
        Self {
            module,
            name: Some(name),
            key_id: key.fingerprint().into(),
            key,
            accepted: Vec::new(),
        }
    }

    /// Returns the `iss` and `sub` of this module's tokens: its name, or its key id.
    pub fn issuer(&self) -> &str {
        self.name
            .as_ref()
            .map_or_else(|| self.key_id.as_str(), DeploymentName::as_str)
    }

    /// Returns the computed fingerprint of its key: what a token's `aud` may hold.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// Returns `true` if `other` is the same in all that others see.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.module == other.module
            && self.name == other.name
            && self.key.verifying_key() == other.key.verifying_key()
            && self.key_id == other.key_id
            && self.accepted == other.accepted
    }

    /// Returns `true` if one of `audience` is the computed fingerprint of a key of its own: the
    /// current one, the next, or an earlier one.
    pub fn is_named_in(&self, audience: &[String]) -> bool {
        let accepted = self.accepted.iter().copied();
        std::iter::once(self.fingerprint())
            .chain(accepted)
            .any(|own| audience.contains(&own.to_string()))
    }
}
