//! Which peers a rotation is about, and which of their files were named.

use std::path::Path;

use super::edits::OWN_KEY;
use super::{Rotation, Source, Trust};
use crate::admin::error::{Kind, Refused};
use crate::admin::overrides::{self, Meant};
use crate::identity::DeploymentName;
use crate::properties::name::{Name, Pattern, uniform};
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
    pub fn reaches_all(&self, except: &[DeploymentName]) -> Result<(), Refused> {
        match self.left_out().find(|name| !except.contains(name)) {
            Some(name) => {
                let message =
                    format!("`{name}` may still trust the old key, and its file is not named");
                Err(Refused::new(Kind::Conflict, message).with_help(format!(
                    "name its file with `--peer-file`, or leave the old key to it: `--except {name}`"
                )))
            }
            None => Ok(()),
        }
    }

    /// Tells whether the next key can only be forgotten: it is damaged, or a peer has revoked it.
    pub fn must_abort(&self) -> bool {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let mut peers = self.peers.iter();
        let revoked = next.is_some_and(|next| peers.any(|p| p.trust(self, next) == Trust::Revoked));
        self.damage().is_some() || (revoked && self.activated_at().is_none())
    }

    /// Goes through the peers whose files are not named.
    pub fn left_out(&self) -> impl Iterator<Item = &DeploymentName> {
        let open = self.peers().into_iter().filter(|(_, file)| file.is_none());
        open.map(|(deployment, _)| &deployment.name)
    }
}

impl Rotation {
    /// Makes sure that no variable of the environment stands above the key: the module would sign
    /// with that one, also where the peers have revoked it.
    pub(super) fn is_in_file(&self) -> Result<(), Refused> {
        match overrides::variable_above(OWN_KEY) {
            None => Ok(()),
            Some(variable) => {
                let path = self.owner.path.display();
                let message = format!(
                    "the variable `{variable}` of this environment stands above `generator.key` \
                     in `{path}`: a module that is started with it signs with the variable's key, \
                     whatever the file says"
                );
                Err(Refused::new(Kind::Conflict, message).with_help(format!(
                    "start the module without it, with its key in the file; then go on with \
                     `env -u {variable} countersign rotate …`"
                )))
            }
        }
    }

    /// Makes sure that the files of active profiles set nothing that a step reads or writes: only
    /// the main files are changed.
    pub(super) fn is_in_main_files(&self) -> Result<(), Refused> {
        let (own, state) = (Pattern::new(OWN_KEY), Pattern::new("countersign.rotation"));
        let is_state = |name: &Name<'_>, _: &str| {
            let own = own.matches(name).is_some_and(|found| found.rest.is_empty());
            own || state.matches(name).is_some()
        };
        self.owner.is_all_of(&is_state)?;
        let pattern = Pattern::new("ataccama.one.platform.deployments.<name>");
        for peer in &self.peers {
            let Some(deployment) = peer.deployment(self) else {
                continue;
            };
            let wanted = deployment.name.uniform();
            let is_of_owner = |name: &Name<'_>, _: &str| {
                let found = pattern.matches(name);
                let called = found.and_then(|found| found.keys.into_iter().next());
                called.is_some_and(|called| uniform(&called) == wanted)
            };
            peer.is_all_of(&is_of_owner)?;
        }
        Ok(())
    }
}

impl Source {
    /// Makes sure that no active profile's file has a setting that `is_meant`.
    fn is_all_of(&self, is_meant: &Meant<'_>) -> Result<(), Refused> {
        match overrides::find(&self.path, &self.text, is_meant)? {
            None => Ok(()),
            Some(by) => Err(Refused::in_profile(&self.path, &by)),
        }
    }

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
