//! What each step writes, and in which order.

use std::iter;
use std::time::SystemTime;

use jiff::Timestamp;

use super::files::{NEXT_KEY, Rotation, faults};
use super::phase::{Phase, Step};
use crate::admin::change::{Change, EditedFile};
use crate::admin::deployments::trusting_too;
use crate::admin::error::{Kind, Refused};
use crate::admin::setting::{
    DEPLOYMENT, OWN_KEY, Setting, new_key, own_key, revoked_key, untrusted_key, variable_above,
};
use crate::admin::source::{SettingsFile, is_of};
use crate::config::{self, check_texts};
use crate::diagnostic::Findings;
use crate::jose::{KeyId, SigningKey};
use crate::trust::Deployment;

const STATE: &str = "countersign.rotation";
const ACTIVATED_AT: &str = "countersign.rotation.activated-at";
const PREVIOUS: &str = "countersign.rotation.previous-fingerprint";

/// What a step would change.
#[derive(Debug)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// What changes.
    pub change: Change,
}

impl Rotation {
    /// Plans `step`. Nothing is written. A step that is done already has an empty plan.
    ///
    /// Neither running modules nor the time are asked: see [`finish_after`](Self::finish_after).
    ///
    /// # Errors
    ///
    /// When it is not the time for the step, or a file prevents it: also that of an active
    /// profile, if it sets what the step would change; or a variable overrides the key.
    pub fn plan(&self, step: Step, now: SystemTime) -> Result<Plan, Refused> {
        self.is_in_main_files()?;
        if self.damage().is_some() {
            if step != Step::Abort {
                return Err(faults(&self.owner));
            }
            // It does not say which keys peers got for it, so they keep theirs.
            let forgotten = self.owner.edited(&[Setting::removed(NEXT_KEY)]);
            let change = Change::of(vec![forgotten]);
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
        let turn = step.in_phase(self.phase());
        let is_open = turn.map_err(|(why, first)| Refused::new(Kind::OutOfTurn(first), why))?;
        // A next key that signs nothing can be forgotten in any case.
        if is_open && step != Step::Abort {
            self.is_in_file()?;
        }
        let next = match self.next() {
            Some(next) => next.clone(),
            None if is_open && step == Step::Prepare => new_key(now)?,
            None => self.own.clone(),
        };
        let files = if is_open {
            self.edited(step, &next, now)?
        } else {
            self.files().map(|file| file.edited(&[])).collect()
        };
        if files.iter().any(|file| !file.is_empty()) {
            self.ends_in(step.ends_in(), &files)?;
        }
        let change = Change::of(files);
        Ok(Plan { step, change })
    }

    /// Returns the files as they are after `step`, in the order in which they are written.
    fn edited(
        &self,
        step: Step,
        next: &(SigningKey, KeyId),
        now: SystemTime,
    ) -> Result<Vec<EditedFile>, Refused> {
        let (key, key_id) = next;
        let owner = match step {
            Step::Prepare if self.next().is_some() => Vec::new(),
            Step::Prepare => vec![own_key(NEXT_KEY, key, key_id)],
            Step::Activate => {
                let now = Timestamp::try_from(now).map_err(|_range| internal())?;
                vec![
                    own_key(OWN_KEY, key, key_id),
                    Setting::removed(NEXT_KEY),
                    Setting::new(ACTIVATED_AT, format!("{now:.3}")),
                    Setting::new(PREVIOUS, self.key().fingerprint().to_string()),
                ]
            }
            Step::Finish => vec![Setting::removed(ACTIVATED_AT), Setting::removed(PREVIOUS)],
            Step::Abort => vec![Setting::removed(NEXT_KEY)],
        };
        let owner = self.owner.edited(&owner);
        let peers = self.peers.iter().map(|peer| {
            let settings = self.peer_settings(peer, step, next)?;
            Ok(peer.edited(&settings))
        });
        match step {
            // A next key that peers trust must not be lost.
            Step::Prepare => iter::once(Ok(owner)).chain(peers).collect(),
            // One file, written at once.
            Step::Activate => Ok(vec![owner]),
            // The owner's file says that there is something to do.
            Step::Finish | Step::Abort => peers.chain([Ok(owner)]).collect(),
        }
    }

    /// Returns what `step` changes in the file of `peer`.
    fn peer_settings(
        &self,
        peer: &SettingsFile,
        step: Step,
        (next, next_id): &(SigningKey, KeyId),
    ) -> Result<Vec<Setting>, Refused> {
        // A file that does not know the module is not the one that gets, or got, the key.
        let deployment = self.known(peer)?;
        let name = deployment.name.as_str();
        let path = peer.path.display();
        Ok(match (step, self.found(peer, next.verifying_key())) {
            (Step::Prepare, Some(key)) if key.revoked => {
                let key = next.fingerprint();
                let message = format!("`{path}` has revoked the next key `{key}`");
                return Err(Refused::new(Kind::OutOfTurn(Step::Abort), message));
            }
            (Step::Prepare, None) => trusting_too(deployment, next.verifying_key(), next_id),
            (Step::Finish, _) if !self.trusts(peer, self.key().verifying_key()) => {
                let key = self.key().fingerprint();
                let message = format!("`{path}` does not trust the key that signs now, `{key}`");
                return Err(Refused::new(Kind::CutOff, message));
            }
            (Step::Finish, _) => {
                let previous = self.state().previous;
                let keys = deployment.active_keys();
                keys.filter(|key| Some(key.key.fingerprint()) == previous)
                    .map(|key| revoked_key(name, &key.name))
                    .collect()
            }
            // It was never used.
            (Step::Abort, Some(key)) if !key.revoked => untrusted_key(name, &key.name).into(),
            (Step::Prepare | Step::Activate | Step::Abort, _) => Vec::new(),
        })
    }

    fn known<'a>(&self, peer: &'a SettingsFile) -> Result<&'a Deployment, Refused> {
        let deployment = self.deployment(peer);
        deployment.ok_or_else(|| {
            let (path, key) = (peer.path.display(), self.key().fingerprint());
            let message = format!("`{path}` does not trust this module's key `{key}`");
            Refused::new(Kind::Conflict, message)
                .with_help("pair the two modules first, or name another file: `countersign pair`")
        })
    }

    /// Checks that no environment variable overrides the key: the module would sign with the key in
    /// the variable, even after the peers have revoked it.
    fn is_in_file(&self) -> Result<(), Refused> {
        let Some(variable) = variable_above(OWN_KEY) else {
            return Ok(());
        };
        let path = self.owner.path.display();
        let message = format!(
            "the environment variable `{variable}` overrides `generator.key` in \
             `{path}`: a module that is started with it signs with the variable's key, whatever \
             the file says"
        );
        Err(Refused::new(Kind::Conflict, message).with_help(format!(
            "start the module without it, with its key in the file; then go on with `env -u \
             {variable} countersign rotate …`"
        )))
    }

    /// Checks that the files of active profiles set nothing that a step reads or writes: only the main
    /// files are changed.
    fn is_in_main_files(&self) -> Result<(), Refused> {
        self.owner
            .alone_has(|entry| is_of(entry, OWN_KEY, &[]) || is_of(entry, STATE, &[]))?;
        for peer in &self.peers {
            if let Some(deployment) = self.deployment(peer) {
                let name = deployment.name.as_str();
                peer.alone_has(|entry| is_of(entry, DEPLOYMENT, &[name]))?;
            }
        }
        Ok(())
    }

    /// Reads the new texts in `edited` as if they were the files: they are in `phase`, and none has a
    /// fault that it did not have.
    fn ends_in(&self, phase: Phase, edited: &[EditedFile]) -> Result<(), Refused> {
        let mut read = self.files().map(|file| {
            let new = edited.iter().find(|new| new.path == file.path);
            let text = new.map_or_else(|| Ok(file.text.clone()), EditedFile::after)?;
            SettingsFile::of(&file.path, text)
        });
        let owner = read.next().ok_or_else(internal)??;
        let peers = read.collect::<Result<Vec<_>, Refused>>()?;
        // One peer at a time: `check` is stricter about two files than about more.
        for (before, after) in self.peers.iter().zip(&peers) {
            let (had, has) = (
                findings_of(&self.owner, before)?,
                findings_of(&owner, after)?,
            );
            if has.errors() > had.errors() {
                let message = "the changed files would have faults";
                return Err(Refused::new(Kind::Internal, message).with_findings(has));
            }
        }
        if Self::of(owner, peers)?.phase() == phase {
            Ok(())
        } else {
            Err(internal())
        }
    }
}

/// Checks the owner's file with that of `peer`.
fn findings_of(owner: &SettingsFile, peer: &SettingsFile) -> Result<Findings, Refused> {
    let both = [owner, peer].map(|file| (file.path.clone(), file.text.clone()));
    Ok(check_texts(&both, &config::environment(), &[])?.findings)
}

fn internal() -> Refused {
    let message = "the files would not be in the phase that the step ends in";
    Refused::new(Kind::Internal, message)
}
