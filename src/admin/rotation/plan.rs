//! What each step writes, and in which order.

use std::path::PathBuf;
use std::time::SystemTime;

use jiff::Timestamp;

use super::files::{NEXT_KEY, Rotation, faults};
use super::phase::{Phase, Step, Trust};
use crate::admin::change::Change;
use crate::admin::edited::{
    EditedFile, OWN_KEY, Setting, new_key, own_key, revoked_key, untrusted_key,
};
use crate::admin::error::{Kind, Refused};
use crate::admin::profiles::{DEPLOYMENT, are_in_main, is_of, variable_above};
use crate::admin::source::SettingsFile;
use crate::admin::trusts::trusting_too;
use crate::config::{self, check_texts};
use crate::diagnostic::Findings;
use crate::jose::{Fingerprint, KeyId};
use crate::properties::FileText;
use crate::trust::Deployment;

const STATE: &str = "countersign.rotation";
const ACTIVATED_AT: &str = "countersign.rotation.activated-at";
const PREVIOUS: &str = "countersign.rotation.previous-fingerprint";

/// What a step would change.
#[derive(Debug)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// The key that signs once the rotation has gone on from here; none where it does not go on.
    pub key: Option<Fingerprint>,
    /// What changes.
    pub change: Change,
}

/// The files to write in their order, and the key that signs in the end.
type Edits = (Vec<EditedFile>, Option<Fingerprint>);

impl Rotation {
    /// Plans `step`. Nothing is written. A step that is done already has an empty plan.
    ///
    /// Neither running modules nor the time are asked: see [`finish_after`](Self::finish_after).
    ///
    /// # Errors
    ///
    /// When it is not the time for the step, or a file stands in its way: also that of an active
    /// profile, where it sets what the step would change; or a variable stands above the key.
    pub fn plan(&self, step: Step, now: SystemTime) -> Result<Plan, Refused> {
        self.is_in_main_files()?;
        if self.damage().is_some() {
            if step != Step::Abort {
                return Err(faults(&self.owner));
            }
            // It does not say which keys peers got for it, so they keep theirs.
            let forgotten = self.owner.edited(&[Setting::removed(NEXT_KEY)], None);
            return Ok(Plan {
                step,
                key: None,
                change: Change::of(vec![forgotten]),
            });
        }
        // Peers take the next key from a block, which goes by the name.
        if step == Step::Prepare && self.peers.is_empty() && self.name().is_none() {
            let path = self.path().display();
            let message = format!(
                "`{path}` has no `countersign.deployment.name`, so no block can say whose the \
                 next key is"
            );
            return Err(Refused::new(Kind::Unreadable, message).with_help(
                "write there what the peers call this module: `countersign.deployment.name=NAME`",
            ));
        }
        let is_open = step.in_phase(self.phase());
        let is_open = is_open.map_err(|why| Refused::new(Kind::OutOfTurn(why), why.to_string()))?;
        // A next key that signs nothing can be forgotten in any case.
        if is_open && step != Step::Abort {
            self.is_in_file()?;
        }
        let (files, key) = match step {
            _ if !is_open => {
                let key = self.next().map_or(&self.key, |(key, _)| key).fingerprint();
                let untouched = self.files().map(|file| file.edited(&[], None));
                (untouched.collect(), (step != Step::Abort).then_some(key))
            }
            Step::Prepare => self.prepare(now)?,
            Step::Activate => self.activate(now)?,
            Step::Finish => self.finish()?,
            Step::Abort => self.abort()?,
        };
        if files.iter().any(|file| !file.is_empty()) {
            self.ends_in(step.ends_in(), &files)?;
        }
        Ok(Plan {
            step,
            key,
            change: Change::of(files),
        })
    }

    /// The owner's file comes first: a next key that peers trust must not be lost.
    fn prepare(&self, now: SystemTime) -> Result<Edits, Refused> {
        let mut owner = Vec::new();
        let (next, key_id) = if let Some(next) = self.next() {
            next.clone()
        } else {
            let key = new_key(now)?;
            let key_id = KeyId::from(key.fingerprint());
            owner.push(own_key(NEXT_KEY, &key, &key_id));
            (key, key_id)
        };
        let mut files = vec![self.owner.edited(&owner, None)];
        for peer in &self.peers {
            let deployment = self.known(peer)?;
            let settings = match self.trust(peer, next.verifying_key()) {
                Trust::Trusted => Vec::new(),
                Trust::Absent => trusting_too(deployment, next.verifying_key(), &key_id),
                Trust::Revoked => {
                    let (path, key) = (peer.path.display(), next.fingerprint());
                    let message = format!("`{path}` has revoked the next key `{key}`");
                    return Err(Refused::new(Kind::NextRevoked, message));
                }
            };
            files.push(peer.edited(&settings, None));
        }
        Ok((files, Some(next.fingerprint())))
    }

    /// One file, written at once: the next key takes the own key's place.
    fn activate(&self, now: SystemTime) -> Result<Edits, Refused> {
        let (next, key_id) = self.next().ok_or_else(internal)?;
        let now = Timestamp::try_from(now).map_err(|_range| internal())?;
        let settings = [
            own_key(OWN_KEY, next, key_id),
            Setting::removed(NEXT_KEY),
            Setting::new(ACTIVATED_AT, format!("{now:.3}")),
            Setting::new(PREVIOUS, self.key.fingerprint().to_string()),
        ];
        let files = vec![self.owner.edited(&settings, None)];
        Ok((files, Some(next.fingerprint())))
    }

    /// The peers' files come first: the owner's says that there is something to finish.
    fn finish(&self) -> Result<Edits, Refused> {
        let mut files = Vec::new();
        for peer in &self.peers {
            let deployment = self.known(peer)?;
            if self.trust(peer, self.key.verifying_key()) != Trust::Trusted {
                let (path, key) = (peer.path.display(), self.key.fingerprint());
                let message = format!("`{path}` does not trust the key that signs now, `{key}`");
                return Err(Refused::new(Kind::CutOff, message));
            }
            let keys = deployment.active_keys();
            let old = keys.filter(|key| Some(key.key.fingerprint()) == self.previous());
            let settings = old.map(|key| revoked_key(deployment.name.as_str(), &key.name));
            files.push(peer.edited(&settings.collect::<Vec<_>>(), None));
        }
        let settings = [Setting::removed(ACTIVATED_AT), Setting::removed(PREVIOUS)];
        files.push(self.owner.edited(&settings, None));
        Ok((files, Some(self.key.fingerprint())))
    }

    /// The peers' files come first: the owner's says which key is to be forgotten. It was never used.
    fn abort(&self) -> Result<Edits, Refused> {
        let next = self.next().map(|(key, _)| key.verifying_key());
        let mut files = Vec::new();
        for peer in &self.peers {
            // A file that does not know the module is not the one that got the key.
            let deployment = self.known(peer)?;
            let keys = deployment.active_keys();
            let unused = keys.filter(|key| Some(&key.key) == next);
            let name = deployment.name.as_str();
            let settings = unused.flat_map(|key| untrusted_key(name, &key.name));
            files.push(peer.edited(&settings.collect::<Vec<_>>(), None));
        }
        files.push(self.owner.edited(&[Setting::removed(NEXT_KEY)], None));
        Ok((files, None))
    }

    fn known<'a>(&self, peer: &'a SettingsFile) -> Result<&'a Deployment, Refused> {
        let deployment = self.deployment(peer);
        deployment.ok_or_else(|| {
            let (path, key) = (peer.path.display(), self.key.fingerprint());
            let message = format!("`{path}` does not trust this module's key `{key}`");
            Refused::new(Kind::Conflict, message)
                .with_help("pair the two modules first, or name another file: `countersign pair`")
        })
    }

    /// Makes sure that no variable of the environment stands above the key: the module would sign
    /// with that one, also where the peers have revoked it.
    fn is_in_file(&self) -> Result<(), Refused> {
        let Some(variable) = variable_above(OWN_KEY) else {
            return Ok(());
        };
        let path = self.path().display();
        let message = format!(
            "the variable `{variable}` of this environment stands above `generator.key` in \
             `{path}`: a module that is started with it signs with the variable's key, whatever \
             the file says"
        );
        Err(Refused::new(Kind::Conflict, message).with_help(format!(
            "start the module without it, with its key in the file; then go on with `env -u \
             {variable} countersign rotate …`"
        )))
    }

    /// Makes sure that the files of active profiles set nothing that a step reads or writes: only
    /// the main files are changed.
    fn is_in_main_files(&self) -> Result<(), Refused> {
        are_in_main(&self.owner.path, &self.owner.text, |entry| {
            is_of(entry, OWN_KEY, &[]) || is_of(entry, STATE, &[])
        })?;
        for peer in &self.peers {
            if let Some(deployment) = self.deployment(peer) {
                let name = deployment.name.as_str();
                are_in_main(&peer.path, &peer.text, |entry| {
                    is_of(entry, DEPLOYMENT, &[name])
                })?;
            }
        }
        Ok(())
    }

    /// Reads the new texts in `edited` as if they were the files: they are in `phase`, and none has a
    /// fault that it did not have.
    fn ends_in(&self, phase: Phase, edited: &[EditedFile]) -> Result<(), Refused> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for file in self.files() {
            let new = edited.iter().find(|new| new.path() == file.path);
            let text = new.map_or_else(|| Ok(file.text.clone()), EditedFile::after)?;
            before.push((file.path.clone(), file.text.clone()));
            after.push((file.path.clone(), text));
        }
        // One peer at a time: `check` is stricter about two files than about more.
        for peer in 1..before.len() {
            let (had, has) = (with_peer(&before, peer)?, with_peer(&after, peer)?);
            if has.errors() > had.errors() {
                let message = "the new texts would have faults";
                return Err(Refused::new(Kind::Internal, message).with_findings(has));
            }
        }
        let files = after
            .into_iter()
            .map(|(path, text)| SettingsFile::of(&path, text));
        let mut files: Vec<_> = files.collect::<Result<_, _>>()?;
        let peers = files.split_off(1);
        let owner = files.pop().ok_or_else(internal)?;
        if Self::of(owner, peers)?.phase() == phase {
            Ok(())
        } else {
            Err(internal())
        }
    }
}

/// Checks the owner's file, the first of `texts`, with that of the peer at `peer`.
fn with_peer(texts: &[(PathBuf, FileText)], peer: usize) -> Result<Findings, Refused> {
    let both = [texts.first(), texts.get(peer)];
    let both: Vec<_> = both.into_iter().flatten().cloned().collect();
    Ok(check_texts(&both, &config::environment(), &[])?.findings)
}

fn internal() -> Refused {
    let message = "the files would not be in the phase that the step ends in";
    Refused::new(Kind::Internal, message)
}
