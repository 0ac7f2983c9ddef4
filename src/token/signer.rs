//! Whose key a token names.

use std::sync::Arc;

use crate::identity::{Roles, ServiceIdentity};
use crate::jose::VerifyingKey;
use crate::trust::{Deployment, Found, OwnDeployment};

use super::claims::{Claims, time};
use super::verified::VerifiedToken;

/// The key that a token names: a trusted one, or this module's own.
pub(super) enum Signer<'a> {
    Peer(Found<'a>),
    Own(&'a OwnDeployment),
}

impl<'a> Signer<'a> {
    pub(super) fn key(&self) -> &'a VerifyingKey {
        match self {
            Self::Peer(found) => &found.key.key,
            Self::Own(own) => own.key.verifying_key(),
        }
    }

    pub(super) fn deployment(&self) -> Option<&'a Arc<Deployment>> {
        match self {
            Self::Peer(found) => Some(found.deployment),
            Self::Own(_) => None,
        }
    }

    pub(super) fn describe(&self, kid: &str) -> String {
        match self {
            Self::Peer(Found { deployment, key }) => {
                format!("{kid} = deployment {}, key `{}`", deployment.name, key.name)
            }
            Self::Own(_) => format!("{kid} = this module's own key"),
        }
    }

    /// The one place where an identity is made from outside input.
    pub(super) fn verified(&self, claims: &Claims) -> VerifiedToken {
        let (identity, key_id) = match self {
            Self::Peer(Found { deployment, key }) => {
                let Deployment {
                    module,
                    name,
                    roles,
                    ..
                } = &***deployment;
                let identity = ServiceIdentity::new(module.clone(), name.as_str(), roles.clone());
                (identity, key.key_id.clone())
            }
            Self::Own(own) => {
                let identity =
                    ServiceIdentity::new(own.module.clone(), own.issuer(), Roles::default());
                (identity, own.key_id.clone())
            }
        };
        VerifiedToken {
            identity,
            deployment: self.deployment().cloned(),
            key_id,
            issuer: claims.issuer.clone(),
            expires_at: time(claims.expires_at),
        }
    }
}
