//! Who signed a token: the key that it names, and what a token that verified says.

use std::sync::Arc;
use std::time::SystemTime;

use super::claims::{Claims, time};
use super::{Caller, OWN_MODULE_TYPE, Reason, Refusal};
use crate::identity::{Roles, ServiceIdentity};
use crate::jose::{Header, KeyId, VerifyingKey};
use crate::storage::UseId;
use crate::trust::{Deployment, Found, KeySet, OwnDeployment};

/// Whose tokens are accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Accept {
    /// Trusted deployments' only.
    Peers,
    /// Also those that this module issued to itself. Only for calls over loopback.
    PeersAndOwnModule,
}

/// The key that a token names: a trusted one, or this module's own.
pub(super) enum Signer<'a> {
    Peer(Found<'a>),
    Own(&'a OwnDeployment),
}

impl Accept {
    /// Returns `true` if `header` is of a token that this module issued to itself, and such a token
    /// is accepted.
    pub(super) fn is_own(self, header: &Header, trust: &KeySet) -> bool {
        self == Self::PeersAndOwnModule
            && header.typ() == Some(OWN_MODULE_TYPE)
            && trust.find(header.kid()).is_none()
    }
}

impl<'a> Signer<'a> {
    /// Finds the key that `kid` names: this module's own where the token `is_own`, else a peer's.
    pub(super) fn find(kid: &str, trust: &'a KeySet, is_own: bool) -> Result<Self, Refusal> {
        let own = trust.own();
        let detail = if !is_own {
            if let Some(found) = trust.find(kid) {
                return Ok(Self::Peer(found));
            }
            format!("no trusted key has the fingerprint `{kid}`")
        } else if kid == own.key_id.as_str() {
            return Ok(Self::Own(own));
        } else {
            format!("`{kid}` is not this module's own key")
        };
        Err(Refusal::new(Reason::KeyUnknown, detail))
    }

    pub(super) fn key(&self) -> &'a VerifyingKey {
        match self {
            Self::Peer(found) => &found.key.key,
            Self::Own(own) => own.key.verifying_key(),
        }
    }

    pub(super) fn key_id(&self) -> &'a KeyId {
        match self {
            Self::Peer(found) => &found.key.key_id,
            Self::Own(own) => &own.key_id,
        }
    }

    /// Returns the deployment's name; this module's own may be its key's id.
    pub(super) fn name(&self) -> &'a str {
        match self {
            Self::Peer(found) => found.deployment.name.as_str(),
            Self::Own(own) => own.issuer(),
        }
    }

    /// Returns who calls. The one place where an identity is made from outside input: from the
    /// deployment that owns the key, never from a claim.
    pub(super) fn identity(&self) -> ServiceIdentity {
        let (module, roles) = match self {
            Self::Peer(Found { deployment, .. }) => (&deployment.module, deployment.roles.clone()),
            Self::Own(own) => (&own.module, Roles::default()),
        };
        ServiceIdentity::new(module.clone(), self.name(), roles)
    }

    pub(super) fn deployment(&self) -> Option<&'a Arc<Deployment>> {
        match self {
            Self::Peer(found) => Some(found.deployment),
            Self::Own(_) => None,
        }
    }

    /// Returns who calls, if the signature verified with this key.
    pub(super) fn caller(&self) -> Caller {
        match self {
            Self::Peer(found) => Caller::Deployment(found.deployment.name.clone()),
            Self::Own(_) => Caller::OwnModule,
        }
    }

    pub(super) fn not_revoked(&self) -> Result<(), Refusal> {
        match self {
            Self::Peer(Found { deployment, key }) if key.revoked => {
                let detail = format!("key `{}` of deployment `{}`", key.name, deployment.name);
                Err(Refusal::new(Reason::KeyRevoked, detail))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Peer(Found { deployment, key }) => {
                let (name, key_id) = (&deployment.name, &key.key_id);
                format!("{key_id} = deployment {name}, key `{}`", key.name)
            }
            Self::Own(own) => format!("{} = this module's own key", own.key_id),
        }
    }
}

/// A token that verified: who called, and with what.
#[derive(Clone, Debug)]
pub struct VerifiedToken {
    identity: ServiceIdentity,
    deployment: Option<Arc<Deployment>>,
    key_id: KeyId,
    issuer: String,
    expires_at: SystemTime,
    /// What its use is to be claimed by, if it is.
    pub(super) use_id: Option<UseId>,
}

impl VerifiedToken {
    pub(super) fn new(signer: &Signer<'_>, claims: &Claims) -> Self {
        Self {
            identity: signer.identity(),
            deployment: signer.deployment().cloned(),
            key_id: signer.key_id().clone(),
            issuer: claims.issuer.clone(),
            expires_at: time(claims.expires_at),
            use_id: None,
        }
    }

    /// Returns `true` if it counts for nothing before its use is claimed.
    pub(crate) fn is_to_claim(&self) -> bool {
        self.use_id.is_some()
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
        self.identity_in(trust).map(drop)
    }

    /// Returns who called, as `trust` has it; refuses as [`still_trusted`](Self::still_trusted) does.
    pub(crate) fn identity_in(&self, trust: &KeySet) -> Result<ServiceIdentity, Refusal> {
        let Some(deployment) = &self.deployment else {
            if trust.own().key_id == self.key_id {
                return Ok(self.identity.clone());
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
        let signer = Signer::Peer(found);
        signer.not_revoked()?;
        Ok(signer.identity())
    }

    /// Returns when the token expires, without leeway.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }
}
