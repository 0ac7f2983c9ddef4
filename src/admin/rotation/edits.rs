//! What each step writes, and in which order.

use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;

use super::{Plan, RotateError, Rotation, Source, Step, Trust};
use crate::admin::edited::{EditedFile, Setting};
use crate::diagnostic::{Findings, Severity};
use crate::jose::{Fingerprint, KeyId, PrivateJwk, PublicJwk, SigningKey, VerifyingKey};
use crate::properties::name::{Pattern, uniform};
use crate::secret::Secret;
use crate::trust::Deployment;

pub(super) const OWN_KEY: &str = "ataccama.authentication.internal.jwt.generator.key";
const NEXT_KEY: &str = "countersign.rotation.next-key";
const ACTIVATED_AT: &str = "countersign.rotation.activated-at";
const PREVIOUS: &str = "countersign.rotation.previous-fingerprint";

/// The files to write in their order, and the key that signs in the end.
type Edits = (Vec<EditedFile>, Option<Fingerprint>);

pub(super) fn edits(
    rotation: &Rotation,
    step: Step,
    now: SystemTime,
) -> Result<Edits, RotateError> {
    match step {
        Step::Prepare => prepare(rotation, now),
        Step::Activate => activate(rotation, now),
        Step::Finish => finish(rotation),
        Step::Abort => abort(rotation),
    }
}

/// The owner's file comes first: a next key that peers trust must not be lost.
fn prepare(rotation: &Rotation, now: SystemTime) -> Result<Edits, RotateError> {
    let mut owner = Vec::new();
    let (next, key_id) = if let Some(next) = rotation.next() {
        next.clone()
    } else {
        let key = SigningKey::generate().map_err(RotateError::NewKey)?;
        let key = key.with_made_at(now);
        let key_id = KeyId::from(key.fingerprint());
        owner.push(Setting::private(NEXT_KEY, encoded(&key, &key_id)));
        (key, key_id)
    };
    let mut files = vec![edited(&rotation.owner, &owner)];
    for peer in &rotation.peers {
        let deployment = known(peer, rotation)?;
        let settings = match peer.trust(rotation, next.verifying_key()) {
            Trust::Trusted => Vec::new(),
            Trust::Absent => trusting(deployment, next.verifying_key(), &key_id),
            Trust::Revoked => {
                return Err(RotateError::NextRevoked {
                    path: peer.path.clone(),
                    key: next.fingerprint(),
                });
            }
        };
        files.push(edited(peer, &settings));
    }
    Ok((files, Some(next.fingerprint())))
}

/// One file, written at once: the next key takes the own key's place.
fn activate(rotation: &Rotation, now: SystemTime) -> Result<Edits, RotateError> {
    let (next, key_id) = rotation.next().ok_or(RotateError::Internal)?;
    let now = Timestamp::try_from(now).map_err(|_range| RotateError::Internal)?;
    let settings = [
        Setting::private(OWN_KEY, encoded(next, key_id)),
        Setting::removed(NEXT_KEY),
        Setting::new(ACTIVATED_AT, format!("{now:.3}")),
        Setting::new(PREVIOUS, rotation.key.fingerprint().to_string()),
    ];
    let files = vec![edited(&rotation.owner, &settings)];
    Ok((files, Some(next.fingerprint())))
}

/// The peers' files come first: the owner's says that there is something to finish.
fn finish(rotation: &Rotation) -> Result<Edits, RotateError> {
    let mut files = Vec::new();
    for peer in &rotation.peers {
        let deployment = known(peer, rotation)?;
        if peer.trust(rotation, rotation.key.verifying_key()) != Trust::Trusted {
            return Err(RotateError::CutOff {
                path: peer.path.clone(),
                key: rotation.key.fingerprint(),
            });
        }
        let previous = rotation.previous();
        let keys = deployment.active_keys();
        let old = keys.filter(|key| Some(key.key.fingerprint()) == previous);
        let settings = old.map(|key| {
            let prefix = prefix(deployment, &key.name);
            Setting::new(format!("{prefix}.is-revoked"), "true")
        });
        files.push(edited(peer, &settings.collect::<Vec<_>>()));
    }
    let settings = [Setting::removed(ACTIVATED_AT), Setting::removed(PREVIOUS)];
    files.push(edited(&rotation.owner, &settings));
    Ok((files, Some(rotation.key.fingerprint())))
}

/// The peers' files come first: the owner's says which key is to be forgotten. It was never used.
fn abort(rotation: &Rotation) -> Result<Edits, RotateError> {
    let next = rotation.next().map(|(key, _)| key.verifying_key());
    let mut files = Vec::new();
    for peer in &rotation.peers {
        // A file that does not know the module is not the one that got the key.
        let deployment = known(peer, rotation)?;
        let unused = deployment
            .active_keys()
            .filter(|key| Some(&key.key) == next);
        let settings = unused.flat_map(|key| {
            let prefix = prefix(deployment, &key.name);
            let tails = ["fingerprint", "content", "is-revoked"];
            tails.map(|tail| Setting::removed(format!("{prefix}.{tail}")))
        });
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
) -> Result<Plan, RotateError> {
    if step != Step::Abort {
        return Err(RotateError::Faults {
            path: rotation.owner.path.clone(),
            findings: findings.clone(),
        });
    }
    Ok(Plan {
        step,
        files: vec![edited(&rotation.owner, &[Setting::removed(NEXT_KEY)])],
        key: None,
    })
}

fn known<'a>(peer: &'a Source, rotation: &Rotation) -> Result<&'a Deployment, RotateError> {
    let deployment = peer.deployment(rotation);
    deployment.ok_or_else(|| RotateError::Stranger {
        path: peer.path.clone(),
        key: rotation.key.fingerprint(),
    })
}

pub(super) fn edited(source: &Source, settings: &[Setting]) -> EditedFile {
    EditedFile::plan(&source.path, Some(source.text.clone()), settings, None)
}

fn encoded(key: &SigningKey, key_id: &KeyId) -> Secret<String> {
    let jwk = PrivateJwk::write(key, key_id);
    Secret::new(BASE64_STANDARD.encode(jwk.expose()))
}

fn prefix(deployment: &Deployment, key: &str) -> String {
    let key_of = Pattern::new("ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>");
    key_of.with_keys(&[deployment.name.to_string(), key.to_owned()])
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
    let prefix = prefix(deployment, &free.unwrap_or_default());
    vec![
        Setting::new(format!("{prefix}.fingerprint"), key_id.as_str()),
        Setting::new(format!("{prefix}.content"), PublicJwk::write(key, key_id)),
        Setting::new(format!("{prefix}.is-revoked"), "false"),
    ]
}
