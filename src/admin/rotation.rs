//! Changing a module's key while it and its peers run: two keys overlap, and no call is refused.
//!
//! The files themselves record the progress of a rotation, and who trusts which key. Planning a step
//! changes nothing, and the plan can be shown. A step ends in its phase, or leaves every file as it
//! was. If it is killed between two files, both sides still share a key, and running it again
//! completes it.

pub mod live;
pub(super) mod phase;
pub mod replace;
mod replicas;
pub mod tls;

use std::collections::HashSet;
use std::iter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use phase::{Phase, Step};
use replicas::{Files, adds_no_fault, faults};

use super::change::{Change, EditedFile};
use super::deployments::trusting_too;
use super::error::{Kind, Refused};
use super::handover::{HandOver, Purpose};
use super::setting::{Setting, key_settings, new_key, own_key, revoked_key, variable_above};
use super::source::SettingsFile;
use crate::clock::to_rfc3339;
use crate::config::names::{ACTIVATED_AT, NEXT_KEY, OWN_KEY, PREVIOUS};
use crate::config::{self, Home, RotationSettings, replacing};
use crate::diagnostic::Findings;
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::storage::revoked_keys::Standing;
use crate::token::Policy;
use crate::trust::{Deployment, TrustedKey};

/// How long a running module may take to follow its file.
pub const RELOAD: Duration = Duration::from_secs(2);

/// What a step would change.
#[derive(Debug)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// What changes.
    pub change: Change,
}

/// The files of a module whose key changes, and of its peers.
#[derive(Debug)]
pub struct Rotation {
    /// The file of the module whose key changes: of replicas, the one that shows what is to be done.
    pub owner: SettingsFile,
    /// The files of its other replicas, which share its key.
    pub replicas: Vec<SettingsFile>,
    /// The files of the modules that trust it.
    pub peers: Vec<SettingsFile>,
    /// The key that signs, and its `kid`.
    pub own: (SigningKey, KeyId),
}

impl Rotation {
    /// Reads the file of the module whose key changes, or those of all its replicas, and those of its
    /// peers. Only the owner's next key may have faults.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, has faults, is an active profile's, or is named twice, or the
    /// owner has no key, or the replicas do not have the same keys.
    pub fn read(owners: &[PathBuf], peers: &[PathBuf]) -> Result<Self, Refused> {
        let files = Files::read(owners, peers)?;
        replicas::usable(&files)?;
        let (owner, peers) = (&files.owner, &files.peers);
        let own = owner.checked.own.clone().ok_or_else(|| {
            let path = owner.path.display();
            let message = format!("`{path}` has no `generator.key`; there is nothing to rotate");
            let known: Vec<_> = peers.iter().map(|peer| &*peer.path).collect();
            Refused::new(Kind::Unreadable, message)
                .with_help("if the key is lost, replace it:")
                .with_commands([replacing(&owner.path, &known)])
        })?;
        Ok(Self::with(files, own))
    }

    /// Combines the files of a module that has the key `own`.
    fn with(files: Files, own: (SigningKey, KeyId)) -> Self {
        let Files {
            owner,
            replicas,
            peers,
        } = files;
        Self {
            owner,
            replicas,
            peers,
            own,
        }
    }

    /// Returns how far the rotation is.
    pub fn phase(&self) -> Phase {
        let next = self.next().map(|(key, _)| key.fingerprint());
        let mut peers = self.peers.iter();
        let mut replicas = self.replicas.iter().map(|replica| &replica.checked);
        let all_trust_next = next.is_some_and(|next| {
            let all_have = replicas.all(|one| {
                let mut keys = one.own.iter().chain(&one.options.rotation.next);
                keys.any(|(key, _)| key.fingerprint() == next)
            });
            all_have && peers.all(|peer| self.trusts(peer, next))
        });
        let signs = self.key().fingerprint();
        let activated = self.state().activated_at.map(|_| self.is_revoked(signs));
        Phase::of(next.is_some(), all_trust_next, activated)
    }

    /// Returns the step that goes on from here, or begins.
    pub fn next_step(&self) -> Step {
        if self.must_abort() {
            Step::Abort
        } else {
            self.phase().next_step()
        }
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

    /// Returns `true` if the next key can only be forgotten: it is damaged, or a peer has revoked
    /// it.
    pub fn must_abort(&self) -> bool {
        let next = self.next().map(|(key, _)| key.fingerprint());
        let is_revoked = next.is_some_and(|next| self.is_revoked(next));
        self.damage().is_some() || (is_revoked && self.state().activated_at.is_none())
    }

    /// Returns `true` if a peer has revoked `key`.
    fn is_revoked(&self, key: Fingerprint) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|peer| self.has_revoked(peer, key))
    }

    /// Returns `true` if `peer` has revoked `key`, which its file may no longer have.
    fn has_revoked(&self, peer: &SettingsFile, key: Fingerprint) -> bool {
        let found = self.found(peer, key).map(|found| found.revoked);
        found.unwrap_or_else(|| {
            let remembered = Home::new(&peer.path).remembered();
            remembered.is_ok_and(|keys| keys.has(key))
        })
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
        let policies = self.files().map(|file| &file.checked.options.policy);
        let own = self.owner.checked.options.policy.lifetime();
        let accepted = policies.clone().map(Policy::max_lifetime);
        let lifetime = accepted.fold(own, Duration::max);
        let wait = lifetime.checked_add(policies.map(Policy::leeway).max()?)?;
        let activated_at = self.state().activated_at?;
        activated_at.checked_add(wait.checked_add(RELOAD)?)
    }

    /// Returns how long the module may take at `now` to sign with the key in its file: it would
    /// report a question that the key signs as a refusal.
    pub fn follows_in(&self, now: SystemTime) -> Duration {
        let activated_at = self.state().activated_at;
        let since = activated_at.and_then(|at| now.duration_since(at).ok());
        since.map_or(Duration::ZERO, |since| RELOAD.saturating_sub(since))
    }

    /// Returns the deployments that the owner trusts, each with the peer's file if it was named.
    pub fn deployments(&self) -> Vec<(&Deployment, Option<&SettingsFile>)> {
        let all = self.owner.checked.deployments.iter();
        let with_files = all.map(|one| {
            let file = self.peers.iter().find(|peer| {
                let next = &peer.checked.options.rotation.next;
                let mut keys = peer.checked.own.iter().chain(next);
                keys.any(|(key, _)| one.key(key.fingerprint()).is_some())
            });
            (one, file)
        });
        with_files.collect()
    }

    /// Returns the file of a peer that does not follow it by itself.
    pub fn without_reload(&self) -> Option<&Path> {
        let mut peers = self.peers.iter();
        let still = peers.find(|peer| !peer.checked.options.reload);
        still.map(|peer| &*peer.path)
    }

    /// Iterates over the peers whose files are not named.
    pub fn left_out(&self) -> impl Iterator<Item = &DeploymentName> {
        let all = self.deployments().into_iter();
        all.filter_map(|(deployment, file)| file.is_none().then_some(&deployment.name))
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
    pub(super) fn files(&self) -> impl Iterator<Item = &SettingsFile> + Clone {
        self.owners().chain(&self.peers)
    }

    /// Iterates over the files of the module whose key changes, one for each replica.
    pub(super) fn owners(&self) -> impl Iterator<Item = &SettingsFile> + Clone {
        iter::once(&self.owner).chain(&self.replicas)
    }

    /// Plans that each of them says what `settings` say.
    fn owners_edited(&self, settings: &[Setting]) -> Result<Vec<EditedFile>, Refused> {
        let edited = self.owners().map(|file| file.edited(settings));
        Ok(edited.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Checks that with the new texts in `edited` no file has a fault that it did not have.
    fn adds_no_fault(&self, edited: &[EditedFile]) -> Result<(), Refused> {
        adds_no_fault(self.owners(), &self.peers, edited)
    }

    /// Finds the owner's name at `peer`: by the key that signs, else by another of its keys.
    pub fn deployment<'a>(&self, peer: &'a SettingsFile) -> Option<&'a Deployment> {
        let next = self.next().map(|(key, _)| key.fingerprint());
        let keys = iter::once(self.key().fingerprint()).chain(next);
        owner_of(keys.chain(self.before()), peer)
    }

    /// Iterates over the keys that it had before, the last one first.
    fn before(&self) -> impl Iterator<Item = Fingerprint> {
        self.state().previous.iter().rev().copied()
    }

    /// Finds `key` among those that `peer` has for the owner.
    fn found<'a>(&self, peer: &'a SettingsFile, key: Fingerprint) -> Option<&'a TrustedKey> {
        self.deployment(peer)?.key(key)
    }

    /// Returns `true` if `peer` trusts `key`.
    pub(super) fn trusts(&self, peer: &SettingsFile, key: Fingerprint) -> bool {
        self.found(peer, key).is_some_and(|key| !key.revoked)
    }

    /// Plans `step`. Nothing is written. A step that is done already has an empty plan.
    ///
    /// Neither running modules nor the time are asked: see [`finish_after`](Self::finish_after).
    ///
    /// # Errors
    ///
    /// When it is not the time for the step, or a file prevents it, or a variable overrides the key.
    pub fn plan(&self, step: Step, now: SystemTime) -> Result<Plan, Refused> {
        if self.damage().is_some() {
            if step != Step::Abort {
                return Err(faults(&self.owner));
            }
            // It does not say which keys peers got for it, so they keep theirs.
            let change = Change::of(self.owners_edited(&[Setting::removed(NEXT_KEY)])?);
            return Ok(Plan { step, change });
        }
        // Peers get the next key from a block, which names the deployment.
        if step == Step::Prepare && self.peers.is_empty() && self.name().is_none() {
            let path = self.owner.path.display();
            let message = format!(
                "`{path}` has no `countersign.deployment.name`, so a block cannot name the \
                 owner of the next key"
            );
            return Err(Refused::new(Kind::Unreadable, message).with_help(
                "set it to the peers' name for this module: `countersign.deployment.name=NAME`",
            ));
        }
        if step == Step::Abort && replicas::sign_ahead(&self.owner, &self.replicas) {
            let message = "a replica signs with the next key already".to_owned();
            return Err(Refused::new(Kind::OutOfTurn(Step::Activate), message));
        }
        let turn = step.in_phase(self.phase());
        let is_open = turn.map_err(|(why, first)| Refused::new(Kind::OutOfTurn(first), why))?;
        if !is_open {
            let unchanged = self.files().map(|file| file.edited(&[]));
            let change = Change::of(unchanged.collect::<Result<Vec<_>, _>>()?.concat());
            return Ok(Plan { step, change });
        }
        // A next key that signs nothing can be forgotten in any case.
        if step != Step::Abort {
            self.is_in_file()?;
        }
        let files = self.edited(step, now)?;
        if files.iter().any(|file| !file.is_empty()) {
            self.adds_no_fault(&files)?;
        }
        let change = Change::effective(files)?;
        Ok(Plan { step, change })
    }

    /// Returns the files as they are after `step`, in the order in which they are written.
    fn edited(&self, step: Step, now: SystemTime) -> Result<Vec<EditedFile>, Refused> {
        let next = match self.next() {
            Some(next) => next.clone(),
            None if step == Step::Prepare => new_key(now)?,
            None => self.own.clone(),
        };
        let (key, key_id) = &next;
        let owner = match step {
            // A key that a peer has revoked may sign: the next one takes its place.
            Step::Prepare if self.next().is_some() && self.replicas.is_empty() => {
                vec![Setting::removed(ACTIVATED_AT)]
            }
            Step::Prepare => vec![
                own_key(NEXT_KEY, key, key_id),
                Setting::removed(ACTIVATED_AT),
            ],
            Step::Activate => {
                let signs = self.key().fingerprint();
                let keys = self.state().previous.iter().chain([&signs]);
                let previous = keys.map(ToString::to_string).collect::<Vec<_>>();
                let since = to_rfc3339(now).ok_or_else(|| Refused::internal(&self.owner.path))?;
                vec![
                    own_key(OWN_KEY, key, key_id),
                    Setting::removed(NEXT_KEY),
                    Setting::new(ACTIVATED_AT, since),
                    Setting::new(PREVIOUS, previous.join(",")),
                ]
            }
            Step::Finish => vec![Setting::removed(ACTIVATED_AT), Setting::removed(PREVIOUS)],
            Step::Abort => vec![Setting::removed(NEXT_KEY)],
        };
        let owners = self.owners_edited(&owner)?;
        if step == Step::Activate {
            // Written at once: between two files, a step that stops could lose a key.
            let mut changed = HashSet::new();
            let mut written = owners.iter().filter(|file| !file.is_empty());
            if let Some(file) = written.find(|file| !changed.insert(&file.main)) {
                let path = file.main.display();
                let message =
                    format!("the keys of `{path}` are in it and in the file of a profile");
                return Err(Refused::new(Kind::Conflict, message).with_help(
                    "move these settings into one file: `generator.key` and those of \
                     `countersign.rotation`",
                ));
            }
            return Ok(owners);
        }
        let mut files = Vec::new();
        for peer in &self.peers {
            files.extend(peer.edited(&self.peer_settings(peer, step, &next)?)?);
        }
        // A next key that peers trust must not be lost. At the end, the owner's file says that there
        // is something to do.
        Ok(match step {
            Step::Prepare => [owners, files].concat(),
            _ => [files, owners].concat(),
        })
    }

    /// Returns what `step` changes in the file of `peer`.
    fn peer_settings(
        &self,
        peer: &SettingsFile,
        step: Step,
        (next, next_id): &(SigningKey, KeyId),
    ) -> Result<Vec<Setting>, Refused> {
        let path = peer.path.display();
        // A file that does not know the module is not the one that gets, or got, the key.
        let deployment = self.deployment(peer).ok_or_else(|| {
            let key = self.key().fingerprint();
            let message = format!("`{path}` does not trust this module's key `{key}`");
            Refused::new(Kind::Conflict, message)
                .with_help("pair the two modules first, or name another file: `countersign pair`")
        })?;
        let name = deployment.name.as_str();
        Ok(match (step, self.found(peer, next.fingerprint())) {
            (Step::Prepare, _) if self.has_revoked(peer, next.fingerprint()) => {
                let key = next.fingerprint();
                let message = format!("`{path}` has revoked the next key `{key}`");
                return Err(Refused::new(Kind::OutOfTurn(Step::Abort), message));
            }
            (Step::Prepare, None) => trusting_too(deployment, next.verifying_key(), next_id),
            (Step::Finish, _) if !self.trusts(peer, self.key().fingerprint()) => {
                let key = self.key().fingerprint();
                let message = format!("`{path}` does not trust the key that signs now, `{key}`");
                return Err(Refused::new(Kind::CutOff, message));
            }
            (Step::Finish, _) => {
                let previous = &self.state().previous;
                let keys = deployment.active_keys();
                keys.filter(|key| previous.contains(&key.key.fingerprint()))
                    .map(|key| {
                        let fingerprint = Some(key.key.fingerprint());
                        revoked_key(name, &key.name, fingerprint, Standing::Revoked)
                    })
                    .collect()
            }
            // It was never used.
            (Step::Abort, Some(key)) if !key.revoked => {
                key_settings(name, &key.name).map(Setting::removed).into()
            }
            (Step::Prepare | Step::Activate | Step::Abort, _) => Vec::new(),
        })
    }

    /// Checks that no environment variable overrides the key: the module would sign with the key in
    /// the variable, even after the peers have revoked it.
    fn is_in_file(&self) -> Result<(), Refused> {
        let Some((variable, _)) = variable_above(OWN_KEY, &config::environment()) else {
            return Ok(());
        };
        let path = self.owner.path.display();
        let message = format!(
            "the environment variable `{variable}` overrides `generator.key` in \
             `{path}`: a module that is started with it signs with the variable's key, whatever \
             the file says"
        );
        Err(Refused::new(Kind::Conflict, message).with_help(format!(
            "start the module without it, with its key in the file; then unset it here too, and run \
             this command again: `unset {variable}`"
        )))
    }
}

/// Finds the deployment that has the first of `keys` that `peer` knows.
fn owner_of(
    mut keys: impl Iterator<Item = Fingerprint>,
    peer: &SettingsFile,
) -> Option<&Deployment> {
    keys.find_map(|key| {
        let mut deployments = peer.checked.deployments.iter();
        deployments.find(|one| one.key(key).is_some())
    })
}

#[cfg(test)]
mod tests;
