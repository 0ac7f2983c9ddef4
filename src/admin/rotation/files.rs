//! The files of a module whose key changes, and of its peers: how far the change is, and who trusts
//! which key.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::phase::{Phase, Trust};
use crate::admin::error::{Kind, Refused};
use crate::admin::handover::{HandOver, Purpose};
use crate::admin::source::SettingsFile;
use crate::admin::write::same_file;
use crate::config::RotationSettings;
use crate::diagnostic::{Findings, Severity};
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{Fingerprint, KeyId, SigningKey, VerifyingKey};
use crate::trust::{Deployment, TrustedKey};

pub(super) const NEXT_KEY: &str = "countersign.rotation.next-key";

/// How long a running module may take to follow its file.
const RELOAD: Duration = Duration::from_secs(2);

/// The files of a module whose key changes, and of its peers.
#[derive(Debug)]
pub struct Rotation {
    pub(super) owner: SettingsFile,
    pub(super) peers: Vec<SettingsFile>,
    pub(super) key: SigningKey,
}

impl Rotation {
    /// Reads the file of the module whose key changes, and those of its peers.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, has faults, is an active profile's, or is named twice, or `file`
    /// has no key.
    pub fn read(file: &Path, peers: &[PathBuf]) -> Result<Self, Refused> {
        let mut named = vec![file];
        for peer in peers {
            for other in &named {
                if same_file(other, peer)? {
                    let message = format!("`{}` is named twice", peer.display());
                    return Err(Refused::new(Kind::Usage, message));
                }
            }
            named.push(peer);
        }
        let owner = SettingsFile::read(file)?;
        let peers = peers.iter().map(|peer| SettingsFile::read(peer));
        Self::of(owner, peers.collect::<Result<_, _>>()?)
    }

    /// Takes the files, of which only the owner's next key may have faults.
    pub(super) fn of(owner: SettingsFile, peers: Vec<SettingsFile>) -> Result<Self, Refused> {
        if !only_next_key(owner.findings()) {
            return Err(faults(&owner));
        }
        if let Some(peer) = peers.iter().find(|peer| peer.findings().errors() > 0) {
            return Err(faults(peer));
        }
        let own = owner.checked.own.as_ref();
        let (key, _) = own.ok_or_else(|| {
            let path = owner.path.display();
            let message = format!("`{path}` has no `generator.key`; there is nothing to rotate");
            Refused::new(Kind::Unreadable, message)
        })?;
        Ok(Self {
            key: key.clone(),
            owner,
            peers,
        })
    }

    /// Returns how far the rotation is.
    pub fn phase(&self) -> Phase {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let trust = |peer| next.map(|next| self.trust(peer, next));
        let at_peers: Vec<_> = self.peers.iter().filter_map(trust).collect();
        Phase::of(next.is_some(), self.activated_at().is_some(), &at_peers)
    }

    /// Returns the owner's file.
    pub fn path(&self) -> &Path {
        &self.owner.path
    }

    /// Returns what the module calls itself.
    pub fn name(&self) -> Option<&DeploymentName> {
        self.owner.checked.name.as_ref()
    }

    /// Returns the module's type, as its peers' files have it.
    pub fn module(&self) -> Option<&ModuleType> {
        let mut known = self.peers.iter().filter_map(|peer| self.deployment(peer));
        known.next().map(|deployment| &deployment.module)
    }

    /// Returns the key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Returns the key that is to sign next, and its `kid`.
    pub fn next(&self) -> Option<&(SigningKey, KeyId)> {
        let next = self.rotation().next.as_ref();
        next.filter(|_| self.damage().is_none())
    }

    /// Returns what is wrong with the next key, where it is damaged: it can only be forgotten.
    pub fn damage(&self) -> Option<&Findings> {
        let findings = self.owner.findings();
        (findings.errors() > 0).then_some(findings)
    }

    /// Returns `true` if the next key can only be forgotten: it is damaged, or a peer has revoked it.
    pub fn must_abort(&self) -> bool {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let mut peers = self.peers.iter();
        let revoked = next.is_some_and(|next| peers.any(|p| self.trust(p, next) == Trust::Revoked));
        self.damage().is_some() || (revoked && self.activated_at().is_none())
    }

    /// Returns the key that signed before, until it is revoked.
    pub fn previous(&self) -> Option<Fingerprint> {
        self.rotation().previous
    }

    /// Returns since when the key signs, until the one before it is revoked.
    pub fn activated_at(&self) -> Option<SystemTime> {
        self.rotation().activated_at
    }

    /// Returns what another machine needs to trust the next key; `None` if there is no next key.
    pub fn hand_over(&self) -> Option<HandOver> {
        let (key, key_id) = self.next()?;
        Some(HandOver {
            purpose: Purpose::Rotate {
                signs: self.key.fingerprint(),
            },
            deployment: self.name()?.clone(),
            key_id: key_id.clone(),
            key: key.verifying_key().clone(),
        })
    }

    /// Returns from when on no token of the previous key can be accepted any more: the longest life
    /// of a token that a file accepts, the largest leeway and a reload after the change.
    ///
    /// The owner's file does not say how long the tokens live that the module issues: it may run
    /// with what the file said before.
    pub fn finish_after(&self) -> Option<SystemTime> {
        let at = self.activated_at()?;
        let policies = || self.files().map(|file| file.checked.policy);
        let lifetime = policies().map(|policy| policy.max_lifetime()).max()?;
        let leeway = policies().map(|policy| policy.leeway()).max()?;
        at.checked_add(lifetime.max(self.owner.checked.policy.lifetime()))?
            .checked_add(leeway)?
            .checked_add(RELOAD)
    }

    /// Returns how long the module may take at `now` to sign with the key in its file: it would
    /// report a question that the key signs as a refusal.
    pub fn follows_in(&self, now: SystemTime) -> Duration {
        let since = self.activated_at();
        let since = since.and_then(|at| now.duration_since(at).ok());
        since.map_or(Duration::ZERO, |since| RELOAD.saturating_sub(since))
    }

    /// Goes through the peers' files: what each calls the module, with the keys that it has for it.
    pub fn standings(&self) -> impl Iterator<Item = (&Path, Option<&Deployment>)> {
        let peers = self.peers.iter();
        peers.map(|peer| (peer.path(), self.deployment(peer)))
    }

    /// Returns the deployments that the owner trusts, each with the peer's file where it was named.
    pub fn peers(&self) -> Vec<(&Deployment, Option<&SettingsFile>)> {
        let with_file = |deployment| {
            let mut files = self.peers.iter();
            (deployment, files.find(|peer| is_of(peer, deployment)))
        };
        self.owner.deployments().iter().map(with_file).collect()
    }

    /// Goes through the peers whose files are not named.
    pub fn left_out(&self) -> impl Iterator<Item = &DeploymentName> {
        let open = self.peers().into_iter().filter(|(_, file)| file.is_none());
        open.map(|(deployment, _)| &deployment.name)
    }

    /// Makes sure that the old key can be revoked wherever it is trusted, but at the peers in
    /// `except`.
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

    fn rotation(&self) -> &RotationSettings {
        &self.owner.checked.rotation
    }

    /// Goes through all files, the owner's first.
    pub(super) fn files(&self) -> impl Iterator<Item = &SettingsFile> {
        std::iter::once(&self.owner).chain(&self.peers)
    }

    /// Finds what `peer` calls the owner: by the key that signs, else by another of its keys.
    pub(super) fn deployment<'a>(&self, peer: &'a SettingsFile) -> Option<&'a Deployment> {
        let next = self.next().map(|(key, _)| key.fingerprint());
        let keys = [Some(self.key.fingerprint()), next, self.previous()];
        keys.into_iter().flatten().find_map(|key| {
            let has = |trusted: &TrustedKey| trusted.key.fingerprint() == key;
            let mut deployments = peer.deployments().iter();
            deployments.find(|deployment| deployment.keys.iter().any(has))
        })
    }

    /// Returns how `peer` stands to `key`.
    pub(super) fn trust(&self, peer: &SettingsFile, key: &VerifyingKey) -> Trust {
        let keys = self.deployment(peer).map(|deployment| &deployment.keys);
        let found = keys.and_then(|keys| keys.iter().find(|trusted| trusted.key == *key));
        match found {
            None => Trust::Absent,
            Some(key) if key.revoked => Trust::Revoked,
            Some(_) => Trust::Trusted,
        }
    }
}

/// Returns `true` if `file` is that of `deployment`.
fn is_of(file: &SettingsFile, deployment: &Deployment) -> bool {
    let next = file.checked.rotation.next.as_ref();
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
        .with_findings(file.findings().clone())
}
