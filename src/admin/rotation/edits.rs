//! What each step writes, and in which order.

use std::time::SystemTime;

use jiff::Timestamp;

use super::{Plan, Rotation, Source, Step, Trust, faults, internal};
use crate::admin::edited::{
    EditedFile, Setting, new_key, own_key, revoked_key, trusted_key, untrusted_key,
};
use crate::admin::error::{Kind, Refused};
use crate::diagnostic::{Findings, Severity};
use crate::jose::{Fingerprint, KeyId, VerifyingKey};
use crate::properties::name::uniform;
use crate::trust::Deployment;

pub(super) const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";
const NEXT_KEY: &str = "countersign.rotation.next-key";
const ACTIVATED_AT: &str = "countersign.rotation.activated-at";
const PREVIOUS: &str = "countersign.rotation.previous-fingerprint";

/// The files to write in their order, and the key that signs in the end.
type Edits = (Vec<EditedFile>, Option<Fingerprint>);

pub(super) fn edits(rotation: &Rotation, step: Step, now: SystemTime) -> Result<Edits, Refused> {
    match step {
        Step::Prepare => prepare(rotation, now),
        Step::Activate => activate(rotation, now),
        Step::Finish => finish(rotation),
        Step::Abort => abort(rotation),
    }
}

/// The owner's file comes first: a next key that peers trust must not be lost.
fn prepare(rotation: &Rotation, now: SystemTime) -> Result<Edits, Refused> {
    let mut owner = Vec::new();
    let (next, key_id) = if let Some(next) = rotation.next() {
        next.clone()
    } else {
        let key = new_key(now)?;
        let key_id = KeyId::from(key.fingerprint());
        owner.push(own_key(NEXT_KEY, &key, &key_id));
        (key, key_id)
    };
    let mut files = vec![edited(&rotation.owner, &owner)];
    for peer in &rotation.peers {
        let deployment = known(peer, rotation)?;
        let settings = match peer.trust(rotation, next.verifying_key()) {
            Trust::Trusted => Vec::new(),
            Trust::Absent => trusting(deployment, next.verifying_key(), &key_id),
            Trust::Revoked => {
                let (path, key) = (peer.path.display(), next.fingerprint());
                let message = format!("`{path}` has revoked the next key `{key}`");
                return Err(Refused::new(Kind::NextRevoked, message));
            }
        };
        files.push(edited(peer, &settings));
    }
    Ok((files, Some(next.fingerprint())))
}

/// One file, written at once: the next key takes the own key's place.
fn activate(rotation: &Rotation, now: SystemTime) -> Result<Edits, Refused> {
    let (next, key_id) = rotation.next().ok_or_else(internal)?;
    let now = Timestamp::try_from(now).map_err(|_range| internal())?;
    let settings = [
        own_key(OWN_KEY, next, key_id),
        Setting::removed(NEXT_KEY),
        Setting::new(ACTIVATED_AT, format!("{now:.3}")),
        Setting::new(PREVIOUS, rotation.key.fingerprint().to_string()),
    ];
    let files = vec![edited(&rotation.owner, &settings)];
    Ok((files, Some(next.fingerprint())))
}

/// The peers' files come first: the owner's says that there is something to finish.
fn finish(rotation: &Rotation) -> Result<Edits, Refused> {
    let mut files = Vec::new();
    for peer in &rotation.peers {
        let deployment = known(peer, rotation)?;
        if peer.trust(rotation, rotation.key.verifying_key()) != Trust::Trusted {
            let (path, key) = (peer.path.display(), rotation.key.fingerprint());
            let message = format!("`{path}` does not trust the key that signs now, `{key}`");
            return Err(Refused::new(Kind::CutOff, message));
        }
        let previous = rotation.previous();
        let keys = deployment.active_keys();
        let old = keys.filter(|key| Some(key.key.fingerprint()) == previous);
        let settings = old.map(|key| revoked_key(deployment.name.as_str(), &key.name));
        files.push(edited(peer, &settings.collect::<Vec<_>>()));
    }
    let settings = [Setting::removed(ACTIVATED_AT), Setting::removed(PREVIOUS)];
    files.push(edited(&rotation.owner, &settings));
    Ok((files, Some(rotation.key.fingerprint())))
}

/// The peers' files come first: the owner's says which key is to be forgotten. It was never used.
fn abort(rotation: &Rotation) -> Result<Edits, Refused> {
    let next = rotation.next().map(|(key, _)| key.verifying_key());
    let mut files = Vec::new();
    for peer in &rotation.peers {
        // A file that does not know the module is not the one that got the key.
        let deployment = known(peer, rotation)?;
        let unused = deployment
            .active_keys()
            .filter(|key| Some(&key.key) == next);
        let settings = unused.flat_map(|key| untrusted_key(deployment.name.as_str(), &key.name));
        files.push(edited(peer, &settings.collect::<Vec<_>>()));
    }
    files.push(edited(&rotation.owner, &[Setting::removed(NEXT_KEY)]));
    Ok((files, None))
}

/// Tells whether nothing has faults but the next key.
pub(super) fn only_next_key(findings: &Findings) -> bool {
    let mut errors = findings.iter().filter(|f| f.severity() == Severity::Error);
    errors.all(|found| found.key() == Some(NEXT_KEY))
}

/// Plans to take a damaged next key out of the owner's file. Which keys peers got for it cannot be
/// told from it, so they keep theirs.
pub(super) fn forget_damaged(
    rotation: &Rotation,
    step: Step,
    findings: &Findings,
) -> Result<Plan, Refused> {
    if step != Step::Abort {
        return Err(faults(&rotation.owner.path, findings.clone()));
    }
    Ok(Plan {
        step,
        files: vec![edited(&rotation.owner, &[Setting::removed(NEXT_KEY)])],
        key: None,
    })
}

fn known<'a>(peer: &'a Source, rotation: &Rotation) -> Result<&'a Deployment, Refused> {
    let deployment = peer.deployment(rotation);
    deployment.ok_or_else(|| {
        let (path, key) = (peer.path.display(), rotation.key.fingerprint());
        let message = format!("`{path}` does not trust this module's key `{key}`");
        Refused::new(Kind::Conflict, message)
            .with_help("pair the two modules first, or name another file: `countersign pair`")
    })
}

pub(super) fn edited(source: &Source, settings: &[Setting]) -> EditedFile {
    EditedFile::plan(&source.path, Some(source.text.clone()), settings, None)
}

/// The settings with which a file trusts `key` too.
pub(in crate::admin) fn trusting(
    deployment: &Deployment,
    key: &VerifyingKey,
    key_id: &KeyId,
) -> Vec<Setting> {
    let taken: Vec<_> = deployment
        .keys
        .iter()
        .map(|key| uniform(&key.name))
        .collect();
    let names = (2..).map(|number: u32| format!("key{number}"));
    let mut names = std::iter::once("key".to_owned()).chain(names);
    let free = names.find(|name| !taken.contains(&uniform(name)));
    let name = free.unwrap_or_default();
    trusted_key(deployment.name.as_str(), &name, key, key_id).into()
}
