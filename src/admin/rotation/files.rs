//! The files of a module whose key changes, and of its peers: how far the change is, and who trusts
//! which key.

use std::iter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::phase::Phase;
use crate::admin::error::{Kind, Refused};
use crate::admin::handover::{HandOver, Purpose};
use crate::admin::source::SettingsFile;
use crate::admin::write::same_file;
use crate::config::RotationSettings;
use crate::diagnostic::{Findings, Severity};
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{KeyId, SigningKey, VerifyingKey};
use crate::token::Policy;
use crate::trust::{Deployment, TrustedKey};

pub(super) const NEXT_KEY: &str = "countersign.rotation.next-key";

/// How long a running module may take to follow its file.
const RELOAD: Duration = Duration::from_secs(2);

/// The files of a module whose key changes, and of its peers.
#[derive(Debug)]
pub struct Rotation {
    /// The file of the module whose key changes.
    pub owner: SettingsFile,
    /// The files of the modules that trust it.
    pub peers: Vec<SettingsFile>,
    /// The key that signs, and its `kid`.
    pub own: (SigningKey, KeyId),
}

impl Rotation {
    /// Reads the file of the module whose key changes, and those of its peers.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, has faults, is an active profile's, or is named twice, or `file`
    /// has no key.
    pub fn read(file: &Path, peers: &[PathBuf]) -> Result<Self, Refused> {
        for (at, peer) in peers.iter().enumerate() {
            let before = peers.iter().take(at).map(PathBuf::as_path);
            for other in iter::once(file).chain(before) {
                if same_file(other, peer)? {
                    let message = format!("`{}` is named twice", peer.display());
                    return Err(Refused::new(Kind::Usage, message));
                }
            }
        }
        let owner = SettingsFile::read(file)?;
        let files = peers.iter().map(|peer| SettingsFile::read(peer));
        Self::of(owner, files.collect::<Result<_, _>>()?)
    }

    /// Combines the files, in which only the owner's next key may have faults.
    pub(super) fn of(owner: SettingsFile, peers: Vec<SettingsFile>) -> Result<Self, Refused> {
        if !only_next_key(&owner.findings) {
            return Err(faults(&owner));
        }
        if let Some(peer) = peers.iter().find(|peer| peer.findings.errors() > 0) {
            return Err(faults(peer));
        }
        let own = owner.checked.own.clone().ok_or_else(|| {
            let path = owner.path.display();
            let message = format!("`{path}` has no `generator.key`; there is nothing to rotate");
            Refused::new(Kind::Unreadable, message)
        })?;
        Ok(Self { owner, peers, own })
    }

    /// Returns how far the rotation is.
    pub fn phase(&self) -> Phase {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let mut peers = self.peers.iter();
        let all_trust_next = next.is_some_and(|next| peers.all(|peer| self.trusts(peer, next)));
        let is_activated = self.state().activated_at.is_some();
        Phase::of(next.is_some(), is_activated, all_trust_next)
    }

    /// Returns what the owner's file says of the rotation.
    pub fn state(&self) -> &RotationSettings {
        &self.owner.checked.options.rotation
    }

    /// Returns the module's own name.
    pub fn name(&self) -> Option<&DeploymentName> {
        let name = self.owner.checked.options.name.as_ref();
        name.map(|(name, _)| name)
    }

    /// Returns the module's type, as its peers' files have it.
    pub fn module(&self) -> Option<&ModuleType> {
        let mut known = self.peers.iter().filter_map(|peer| self.deployment(peer));
        known.next().map(|deployment| &deployment.module)
    }

    /// Returns the key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.own.0
    }

    /// Returns the key that is to sign next, and its `kid`.
    pub fn next(&self) -> Option<&(SigningKey, KeyId)> {
        let next = self.state().next.as_ref();
        next.filter(|_| self.damage().is_none())
    }

    /// Returns what is wrong with the next key, if it is damaged: it can only be discarded.
    pub fn damage(&self) -> Option<&Findings> {
        let findings = &self.owner.findings;
        (findings.errors() > 0).then_some(findings)
    }

    /// Returns `true` if the next key can only be forgotten: it is damaged, or a peer has revoked it.
    pub fn must_abort(&self) -> bool {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let mut at_peers = self.peers.iter().filter_map(|p| self.found(p, next?));
        let is_revoked = at_peers.any(|key| key.revoked);
        self.damage().is_some() || (is_revoked && self.state().activated_at.is_none())
    }

    /// Returns what another machine needs to trust the next key; `None` if there is no next key.
    pub fn hand_over(&self) -> Option<HandOver> {
        let (key, key_id) = self.next()?;
        let signs = self.key().fingerprint();
        Some(HandOver {
            purpose: Purpose::Rotate { signs },
            deployment: self.name()?.clone(),
            key_id: key_id.clone(),
            key: key.verifying_key().clone(),
        })
    }

    /// Returns the time after which no token of the previous key can be accepted: the longest life
    /// of a token that a file accepts, the largest leeway and a reload after the change.
    ///
    /// The owner's file does not say how long the tokens live that the module issues: it may run
    /// with what the file said before.
    pub fn finish_after(&self) -> Option<SystemTime> {
        let of_each = self.files().map(|file| file.checked.options.policy);
        let policies: Vec<_> = of_each.collect();
        let lifetimes = policies.iter().map(Policy::max_lifetime);
        let own = self.owner.checked.options.policy.lifetime();
        let leeway = policies.iter().map(Policy::leeway).max()?;
        let lifetime = lifetimes.chain([own]).max()?;
        let activated_at = self.state().activated_at?;
        activated_at
            .checked_add(lifetime)?
            .checked_add(leeway)?
            .checked_add(RELOAD)
    }

    /// Returns how long the module may take at `now` to sign with the key in its file: it would
    /// report a question that the key signs as a refusal.
    pub fn follows_in(&self, now: SystemTime) -> Duration {
        let since = self.state().activated_at.map(|at| now.duration_since(at));
        match since {
            Some(Ok(since)) => RELOAD.saturating_sub(since),
            _ => Duration::ZERO,
        }
    }

    /// Returns the deployments that the owner trusts, each with the peer's file if it was named.
    pub fn deployments(&self) -> Vec<(&Deployment, Option<&SettingsFile>)> {
        let all = self.owner.deployments().iter();
        all.map(|one| (one, self.peers.iter().find(|peer| is_of(peer, one))))
            .collect()
    }

    /// Iterates over the peers whose files are not named.
    pub fn left_out(&self) -> impl Iterator<Item = &DeploymentName> {
        let all = self.deployments().into_iter();
        all.filter(|(_, file)| file.is_none())
            .map(|(deployment, _)| &deployment.name)
    }

    /// Checks that the old key can be revoked everywhere, except at the peers in `except`.
    ///
    /// # Errors
    ///
    /// When the file of another peer is not named.
    pub fn reaches_all(&self, except: &[DeploymentName]) -> Result<(), Refused> {
        let Some(name) = self.left_out().find(|name| !except.contains(name)) else {
            return Ok(());
        };
        let message = format!("`{name}` may still trust the old key, and its file is not named");
        Err(Refused::new(Kind::Conflict, message).with_help(format!(
            "name its file with `--peer-file`, or leave the old key to it: `--except {name}`"
        )))
    }

    /// Iterates over all files, the owner's first.
    pub(super) fn files(&self) -> impl Iterator<Item = &SettingsFile> {
        iter::once(&self.owner).chain(&self.peers)
    }

    /// Finds the owner's name at `peer`: by the key that signs, else by another of its keys.
    pub fn deployment<'a>(&self, peer: &'a SettingsFile) -> Option<&'a Deployment> {
        let next = self.next().map(|(key, _)| key.fingerprint());
        let keys = [Some(self.key().fingerprint()), next, self.state().previous];
        keys.into_iter().flatten().find_map(|key| {
            let mut deployments = peer.deployments().iter();
            deployments.find(|one| one.keys.iter().any(|known| known.key.fingerprint() == key))
        })
    }

    /// Finds `key` among those that `peer` has for the owner.
    pub(super) fn found<'a>(
        &self,
        peer: &'a SettingsFile,
        key: &VerifyingKey,
    ) -> Option<&'a TrustedKey> {
        let mut keys = self.deployment(peer)?.keys.iter();
        keys.find(|trusted| trusted.key == *key)
    }

    /// Returns `true` if `peer` trusts `key`.
    pub(super) fn trusts(&self, peer: &SettingsFile, key: &VerifyingKey) -> bool {
        self.found(peer, key).is_some_and(|key| !key.revoked)
    }
}

/// Returns `true` if `file` is that of `deployment`.
fn is_of(file: &SettingsFile, deployment: &Deployment) -> bool {
    let next = &file.checked.options.rotation.next;
    let mut keys = file.checked.own.iter().chain(next);
    keys.any(|(key, _)| {
        let mut known = deployment.keys.iter();
        known.any(|known| known.key == *key.verifying_key())
    })
}

/// Returns `true` if nothing has faults but the next key.
fn only_next_key(findings: &Findings) -> bool {
    let mut errors = findings.iter().filter(|f| f.severity() == Severity::Error);
    errors.all(|found| found.key() == Some(NEXT_KEY))
}

pub(super) fn faults(file: &SettingsFile) -> Refused {
    let path = file.path.display();
    let message = format!("`{path}` has faults that must be fixed first");
    Refused::new(Kind::Unreadable, message)
        .with_help("`countersign explain CODE` says more about a finding")
        .with_findings(file.findings.clone())
}
