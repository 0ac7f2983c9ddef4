//! Changing a module's key while it and its peers run: two keys overlap, and no call is refused.
//!
//! How far a rotation is stands in the files themselves. A step is planned without touching
//! anything, can be shown, and ends in the phase it is for or leaves every file as it was. Killed
//! between two files it leaves a key that both sides have, and made again it is completed.

mod edits;
pub mod live;
mod peers;
mod phase;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::edited::{EditedFile, write_all};
use super::error::{Kind, Refused};
use super::handover::{HandOver, Purpose};
use super::overrides::is_main;
use super::write::same_file;
use crate::config::{self, Checked, RotationSettings, check_texts};
use crate::diagnostic::Findings;
use crate::identity::{DeploymentName, ModuleType};
use crate::jose::{Fingerprint, KeyId, SigningKey, VerifyingKey};
use crate::properties::FileText;
use crate::trust::{Deployment, TrustedKey};

pub(super) use edits::trusting;
use phase::{Action, Contents};
pub use phase::{OutOfTurn, Phase, Step, Trust};

/// How long a running module may take to follow its file.
const RELOAD: Duration = Duration::from_secs(2);

/// The files of a module whose key changes, and of its peers.
#[derive(Debug)]
pub struct Rotation {
    owner: Source,
    peers: Vec<Source>,
    key: SigningKey,
}

/// A file and what it says.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: FileText,
    checked: Checked,
    /// What is wrong with the next key, where nothing else is wrong.
    damage: Option<Findings>,
}

/// What a step would change.
#[derive(Debug)]
pub struct Plan {
    step: Step,
    files: Vec<EditedFile>,
    key: Option<Fingerprint>,
}

/// How a peer's file stands to the module's keys.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// The peer's file.
    pub path: &'a Path,
    /// What it calls the module.
    pub deployment: Option<&'a DeploymentName>,
    /// The keys that it has for the module.
    pub keys: &'a [TrustedKey],
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
        let mut sources = Vec::new();
        for peer in peers {
            for other in &named {
                if same_file(other, peer)? {
                    let message = format!("`{}` is named twice", peer.display());
                    return Err(Refused::new(Kind::Usage, message));
                }
            }
            named.push(peer);
        }
        for path in named {
            is_main(path, Kind::Usage)?;
            let source = Source::new(path, FileText::read(path)?)?;
            match source.damage {
                Some(findings) if !sources.is_empty() => {
                    return Err(faults(&source.path, findings));
                }
                _ => sources.push(source),
            }
        }
        Self::of(sources)
    }

    /// Takes the first of `sources` for the owner.
    fn of(mut sources: Vec<Source>) -> Result<Self, Refused> {
        if sources.is_empty() {
            return Err(internal());
        }
        let peers = sources.split_off(1);
        let owner = sources.pop().ok_or_else(internal)?;
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

    /// Tells how far the rotation is.
    pub fn phase(&self) -> Phase {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let trust = |peer: &Source| next.map(|next| peer.trust(self, next));
        Phase::of(&Contents {
            has_next: next.is_some(),
            is_activated: self.rotation().activated_at.is_some(),
            next_at_peers: self.peers.iter().filter_map(trust).collect(),
        })
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
        let mut known = self.peers.iter().filter_map(|peer| peer.deployment(self));
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
        self.owner.damage.as_ref()
    }

    /// Returns the key that signed before, until it is revoked.
    pub fn previous(&self) -> Option<Fingerprint> {
        self.rotation().previous
    }

    /// Returns what another machine needs to trust the next key; none where there is none.
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

    /// Returns since when the key signs, until the one before it is revoked.
    pub fn activated_at(&self) -> Option<SystemTime> {
        self.rotation().activated_at
    }

    /// Returns from when on no token of the previous key can be accepted any more: the longest life
    /// of a token that a file accepts, the largest leeway and a reload after the change.
    ///
    /// How long tokens live that the owner's file issues does not tell: the module may run with what
    /// it said before.
    pub fn finish_after(&self) -> Option<SystemTime> {
        let at = self.rotation().activated_at?;
        let policies = || self.sources().map(|source| source.checked.policy);
        let lifetime = policies().map(|policy| policy.max_lifetime()).max()?;
        let leeway = policies().map(|policy| policy.leeway()).max()?;
        at.checked_add(lifetime.max(self.owner.checked.policy.lifetime()))?
            .checked_add(leeway)?
            .checked_add(RELOAD)
    }

    /// Returns how long the module may take at `now` to sign with the key in its file: it would tell
    /// a question that the key signs as a refusal.
    pub fn follows_in(&self, now: SystemTime) -> Duration {
        let since = self.rotation().activated_at;
        let since = since.and_then(|at| now.duration_since(at).ok());
        since.map_or(Duration::ZERO, |since| RELOAD.saturating_sub(since))
    }

    /// Returns how each peer's file stands to the module's keys.
    pub fn standings(&self) -> Vec<Standing<'_>> {
        let standing = |peer| standing(peer, self);
        self.peers.iter().map(standing).collect()
    }

    /// Tells how the file at `path` stands to `key`.
    pub fn trust_at(&self, path: &Path, key: &VerifyingKey) -> Trust {
        let peer = self.peers.iter().find(|peer| peer.path == path);
        peer.map_or(Trust::Absent, |peer| peer.trust(self, key))
    }

    /// Plans `step`. Nothing is written. A step that is done already has an empty plan.
    ///
    /// Neither what running modules do nor how late it is is looked at: see
    /// [`finish_after`](Self::finish_after).
    ///
    /// # Errors
    ///
    /// When it is not the time for the step, or a file stands in its way: also that of an active
    /// profile, where it sets what the step would change; or a variable stands above the key.
    pub fn plan(&self, step: Step, now: SystemTime) -> Result<Plan, Refused> {
        self.is_in_main_files()?;
        if let Some(findings) = self.damage() {
            return edits::forget_damaged(self, step, findings);
        }
        // Peers take the next key from a block, which goes by the name.
        if step == Step::Prepare && self.peers.is_empty() && self.name().is_none() {
            let path = self.owner.path.display();
            let message = format!(
                "`{path}` has no `countersign.deployment.name`, so no block can say whose the \
                 next key is"
            );
            return Err(Refused::new(Kind::Unreadable, message).with_help(
                "write there what the peers call this module: `countersign.deployment.name=NAME`",
            ));
        }
        let (files, key) = match step.in_phase(self.phase()) {
            Action::Refuse(why) => return Err(Refused::new(Kind::OutOfTurn(why), why.to_string())),
            Action::Nothing => {
                let settled = step != Step::Abort;
                let key = self.next().map_or(&self.key, |(key, _)| key).fingerprint();
                let untouched = self.sources().map(|source| edits::edited(source, &[]));
                (untouched.collect(), settled.then_some(key))
            }
            Action::Do => {
                // A next key that nobody signs with can be forgotten in any case.
                if step != Step::Abort {
                    self.is_in_file()?;
                }
                edits::edits(self, step, now)?
            }
        };
        let plan = Plan { step, files, key };
        if !plan.is_empty() {
            plan.confirm(self)?;
        }
        Ok(plan)
    }

    fn rotation(&self) -> &RotationSettings {
        &self.owner.checked.rotation
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.owner).chain(&self.peers)
    }
}

fn faults(path: &Path, findings: Findings) -> Refused {
    let path = path.display();
    let message = format!("`{path}` has faults that must be mended first");
    Refused::new(Kind::Unreadable, message)
        .with_help("`countersign explain CODE` says more about a finding")
        .with_findings(findings)
}

fn internal() -> Refused {
    let message = "the files would not be in the phase that the step ends in";
    Refused::new(Kind::Internal, message)
}

fn standing<'a>(peer: &'a Source, rotation: &Rotation) -> Standing<'a> {
    let deployment = peer.deployment(rotation);
    Standing {
        path: &peer.path,
        deployment: deployment.map(|deployment| &deployment.name),
        keys: deployment.map_or(&[], |deployment| &deployment.keys),
    }
}

impl Source {
    fn new(path: &Path, text: FileText) -> Result<Self, Refused> {
        let texts = [(path.to_owned(), text)];
        let report = check_texts(&texts, &config::environment(), &[])?;
        let [(path, text)] = texts;
        let mut files = report.files.into_iter();
        match files.next() {
            Some(checked) if edits::only_next_key(&report.findings) => Ok(Self {
                path,
                text,
                checked,
                damage: Some(report.findings).filter(|findings| findings.errors() > 0),
            }),
            _ => Err(faults(&path, report.findings)),
        }
    }

    /// Finds what this peer calls the owner: by the key that signs, else by another of its keys.
    fn deployment(&self, of: &Rotation) -> Option<&Deployment> {
        let current = of.key.fingerprint();
        let next = of.next().map(|(key, _)| key.fingerprint());
        let keys = [Some(current), next, of.previous()];
        let deployments = &self.checked.deployments;
        keys.into_iter().flatten().find_map(|key| {
            let has = |trusted: &TrustedKey| trusted.key.fingerprint() == key;
            deployments.iter().find(|d| d.keys.iter().any(has))
        })
    }

    fn trust(&self, of: &Rotation, key: &VerifyingKey) -> Trust {
        let keys = self.deployment(of).map(|deployment| &deployment.keys);
        let found = keys.and_then(|keys| keys.iter().find(|trusted| trusted.key == *key));
        match found {
            None => Trust::Absent,
            Some(key) if key.revoked => Trust::Revoked,
            Some(_) => Trust::Trusted,
        }
    }
}

impl Plan {
    /// Returns the step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Returns the files, in the order in which they are written.
    pub fn files(&self) -> &[EditedFile] {
        &self.files
    }

    /// Returns the key that signs once the rotation has gone on from here; none where it has not.
    pub fn key(&self) -> Option<Fingerprint> {
        self.key
    }

    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(EditedFile::is_empty)
    }

    /// Writes the files, or none of them; removes what a killed run left beside them.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), Refused> {
        Ok(write_all(&self.files)?)
    }

    /// Reads the new texts as if they were the files: they are in the phase that the step ends in,
    /// and none has a fault that it did not have.
    fn confirm(&self, rotation: &Rotation) -> Result<(), Refused> {
        let mut after = Vec::new();
        for source in rotation.sources() {
            let edited = self.files.iter().find(|file| file.path() == source.path);
            let text = match edited {
                Some(file) => {
                    FileText::from_bytes(file.text().as_bytes()).map_err(|_fault| internal())?
                }
                None => source.text.clone(),
            };
            after.push((source.path.clone(), text));
        }
        let before = rotation.sources();
        let before: Vec<_> = before.map(|s| (s.path.clone(), s.text.clone())).collect();
        for at in 1..before.len() {
            let pair = |texts: &[(PathBuf, FileText)]| -> Vec<_> {
                let both = [texts.first(), texts.get(at)];
                both.into_iter().flatten().cloned().collect()
            };
            let environment = config::environment();
            let had = check_texts(&pair(&before), &environment, &[])?.findings;
            let has = check_texts(&pair(&after), &environment, &[])?.findings;
            if has.errors() > had.errors() {
                let path = before.get(at).map(|(path, _)| path.display().to_string());
                let path = path.unwrap_or_default();
                let message = format!("the new text of `{path}` would have faults");
                return Err(Refused::new(Kind::Internal, message).with_findings(has));
            }
        }
        let sources = after.into_iter();
        let sources = sources.map(|(path, text)| Source::new(&path, text));
        let ends = Rotation::of(sources.collect::<Result<_, _>>()?)?;
        if ends.phase() == self.step.ends_in() {
            Ok(())
        } else {
            Err(internal())
        }
    }
}

#[cfg(test)]
mod tests;
