//! What a token that verified says.

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::ServiceIdentity;
use crate::jose::KeyId;
use crate::trust::{Deployment, KeySet};

use super::claims::{Claims, time};
use super::signer::Signer;
use super::{Reason, Refusal};

/// A token that verified: who called, and with what.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    identity: ServiceIdentity,
    deployment: Option<Arc<Deployment>>,
    key_id: KeyId,
    issuer: String,
    expires_at: SystemTime,
}

impl VerifiedToken {
    pub(super) fn new(signer: &Signer<'_>, claims: &Claims) -> Self {
        Self {
            identity: signer.identity(),
            deployment: signer.deployment().cloned(),
            key_id: signer.key_id().clone(),
            issuer: claims.issuer.clone(),
            expires_at: time(claims.expires_at),
        }
    }

    /// Returns who called.
    pub fn identity(&self) -> &ServiceIdentity {
        &self.identity
    }

    /// Returns the deployment that owns the key; none when the module called itself.
    pub fn deployment(&self) -> Option<&Arc<Deployment>> {
        self.deployment.as_ref()
    }

    /// Returns the name of the deployment that owns the key; empty when the module called itself.
    pub(crate) fn owner(&self) -> &str {
        let deployment = self.deployment.as_ref();
        deployment.map_or("", |deployment| deployment.name.as_str())
    }

    /// Returns the key's id, as this module's file has it.
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }

    /// Returns the token's `iss`, which a proof names as its audience.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Checks that `trust` still holds the key that signed, for the same deployment and not
    /// revoked.
    ///
    /// # Errors
    ///
    /// `KEY_REVOKED`, or `KEY_UNKNOWN` if the deployment no longer has the key.
    pub fn still_trusted(&self, trust: &KeySet) -> Result<(), Refusal> {
        let Some(deployment) = &self.deployment else {
            if trust.own().key_id == self.key_id {
                return Ok(());
            }
            let detail = format!("`{}` is no longer this module's own key", self.key_id);
            return Err(Refusal::new(Reason::KeyUnknown, detail));
        };
        let signed_with = deployment.keys.iter().find(|k| k.key_id == self.key_id);
        let found = trust.find(self.key_id.as_str()).filter(|found| {
            found.deployment.name == deployment.name
                && signed_with.is_some_and(|key| key.key == found.key.key)
        });
        let Some(found) = found else {
            let detail = format!("`{}` is no longer trusted", self.key_id);
            return Err(Refusal::new(Reason::KeyUnknown, detail));
        };
        Signer::Peer(found).not_revoked()
    }

    /// Returns when the token expires, without leeway.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}
