//! Which peers a rotation is about, and which of their files were named.

use std::path::Path;

use super::{RotateError, Rotation, Source};
use crate::identity::DeploymentName;
use crate::trust::Deployment;

impl Rotation {
    /// Returns the deployments that the owner trusts, each with the peer's file where it was named.
    pub fn peers(&self) -> Vec<(&Deployment, Option<&Path>)> {
        let trusted = self.owner.checked.deployments.iter();
        let with_file = |deployment| {
            let file = self.peers.iter().find(|peer| peer.is_of(deployment));
            (deployment, file.map(|file| file.path.as_path()))
        };
        trusted.map(with_file).collect()
    }

    /// Tells whether the old key can be revoked wherever it is trusted, but at the peers in
    /// `except`.
    ///
    /// # Errors
    ///
    /// When the file of another peer is not named.
    pub fn reaches_all(&self, except: &[DeploymentName]) -> Result<(), RotateError> {
        match self.left_out().find(|name| !except.contains(name)) {
            Some(name) => Err(RotateError::NotNamed(name.clone())),
            None => Ok(()),
        }
    }

    /// Goes through the peers whose files are not named.
    pub fn left_out(&self) -> impl Iterator<Item = &DeploymentName> {
        let open = self.peers().into_iter().filter(|(_, file)| file.is_none());
        open.map(|(deployment, _)| &deployment.name)
    }
}

impl Source {
    /// Tells whether this is the file of `deployment`.
    fn is_of(&self, deployment: &Deployment) -> bool {
        let own = self.checked.own.as_ref();
        let next = self.checked.rotation.next.as_ref();
        let mut keys = own.into_iter().chain(next);
        keys.any(|(key, _)| {
            deployment
                .keys
                .iter()
                .any(|k| k.key == *key.verifying_key())
        })
    }
}
