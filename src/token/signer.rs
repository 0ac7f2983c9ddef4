//! Whose key a token names.

use std::sync::Arc;

use crate::identity::{Roles, ServiceIdentity};
use crate::jose::{Header, KeyId, VerifyingKey};
use crate::trust::{Deployment, Found, KeySet, OwnDeployment};

use super::{Caller, OWN_MODULE_TYPE, Reason, Refusal};

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
