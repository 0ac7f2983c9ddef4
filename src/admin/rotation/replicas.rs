//! The files of a module, those of its replicas and those of its peers. Replicas share one key, and
//! their files say the same of it, but where a step was cut off between two of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::iter;
use std::path::{Path, PathBuf};

use crate::admin::change::EditedFile;
use crate::admin::error::{Kind, Refused};
use crate::admin::source::{SettingsFile, findings_of};
use crate::admin::write::place_of;
use crate::config::names::NEXT_KEY;
use crate::diagnostic::{Findings, Severity};
use crate::jose::{KeyId, SigningKey};

/// The files that a procedure reads.
pub(super) struct Files {
    /// The file of the module; of replicas, the one that shows what is to be done.
    pub(super) owner: SettingsFile,
    /// Those of its other replicas.
    pub(super) replicas: Vec<SettingsFile>,
    pub(super) peers: Vec<SettingsFile>,
}

impl Files {
    /// Reads the files of a module, one for each replica, and those of its peers.
    pub(super) fn read(owners: &[PathBuf], peers: &[PathBuf]) -> Result<Self, Refused> {
        let mut places = HashSet::new();
        for file in owners.iter().chain(peers) {
            if !places.insert(place_of(file)?) {
                let message = format!("`{}` is named twice", file.display());
                return Err(Refused::new(Kind::Usage, message));
            }
        }
        let read = owners.iter().map(|file| SettingsFile::read(file));
        let mut all = read.collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(progress);
        let mut in_order = all.into_iter();
        let owner = in_order.next();
        let files = peers.iter().map(|peer| SettingsFile::read(peer));
        let read = Self {
            owner: owner.ok_or_else(|| Refused::new(Kind::Usage, "no file is named"))?,
            replicas: in_order.collect(),
            peers: files.collect::<Result<_, _>>()?,
        };
        for other in &read.replicas {
            if let Some(what) = difference(&read.owner, other) {
                let (path, owner) = (other.path.display(), read.owner.path.display());
                let message = format!("`{path}` has {what} than `{owner}`");
                let help = "replicas share one key and trust the same keys: name only replicas, or \
                            copy the file of the right one; nothing was written";
                return Err(Refused::new(Kind::Conflict, message).with_help(help));
            }
        }
        Ok(read)
    }
}

/// Orders replicas by what is left to do: where a step was cut off, the first has not ended it.
fn progress(file: &SettingsFile) -> u8 {
    let rotation = &file.checked.options.rotation;
    match () {
        () if file.findings.errors() > 0 => 0,
        () if rotation.next.is_some() => 1,
        () if rotation.activated_at.is_some() => 2,
        () => 3,
    }
}

/// Returns what `other` has that is another than that of `first`, a replica before it.
fn difference(first: &SettingsFile, other: &SettingsFile) -> Option<&'static str> {
    let (one, two) = (&first.checked, &other.checked);
    let (ours, theirs) = (&one.options.rotation, &two.options.rotation);
    let [next, others_next] = [&ours.next, &theirs.next].map(Option::as_ref);
    let (own, others_own) = (one.own.as_ref(), two.own.as_ref());
    let is_ahead = next.is_some() && is_same(next, others_own);
    // `rotate replace` replaces a key that cannot be read.
    if !is_ahead && own.is_some() && others_own.is_some() && !is_same(own, others_own) {
        return Some("another key");
    }
    if next.is_some() && others_next.is_some() && !is_same(next, others_next) {
        return Some("another next key");
    }
    let mut before = ours.previous.clone();
    before.extend(own.filter(|_| is_ahead).map(|(key, _)| key.fingerprint()));
    if !theirs.previous.is_empty() && theirs.previous != before {
        return Some("other keys before its own");
    }
    let [name, others_name] = [one, two].map(|file| file.options.name.as_ref());
    if name.map(|(name, _)| name) != others_name.map(|(name, _)| name) {
        return Some("another `countersign.deployment.name`");
    }
    (trusted(first) != trusted(other)).then_some("other trusted keys")
}

/// Returns `true` if one of `replicas` signs with the next key of `owner` already.
pub(super) fn sign_ahead(owner: &SettingsFile, replicas: &[SettingsFile]) -> bool {
    let next = owner.checked.options.rotation.next.as_ref();
    let mut signing = replicas.iter().map(|other| other.checked.own.as_ref());
    signing.any(|own| is_same(next, own))
}

fn is_same(one: Option<&(SigningKey, KeyId)>, other: Option<&(SigningKey, KeyId)>) -> bool {
    one.zip(other).is_some_and(|(one, other)| {
        one.0.verifying_key() == other.0.verifying_key() && one.1 == other.1
    })
}

/// Lists the keys that `file` trusts, by the name of their deployment, and whether each is revoked.
fn trusted(file: &SettingsFile) -> BTreeMap<String, BTreeSet<(String, bool)>> {
    let deployments = file.checked.deployments.iter();
    let with_keys = deployments.map(|deployment| {
        let keys = deployment.keys.iter();
        let listed = keys.map(|key| (key.key.fingerprint().to_string(), key.revoked));
        (deployment.name.to_string(), listed.collect())
    });
    with_keys.collect()
}

/// Checks that no file has faults, but for the next key of an owner.
pub(super) fn usable(files: &Files) -> Result<(), Refused> {
    let mut owners = iter::once(&files.owner).chain(&files.replicas);
    let faulty_owner = owners.find(|owner| {
        let findings = owner.findings.iter();
        let mut errors = findings.filter(|found| found.severity == Severity::Error);
        errors.any(|found| found.key.as_deref() != Some(NEXT_KEY))
    });
    let mut faulty_peers = files.peers.iter().filter(|peer| peer.findings.errors() > 0);
    match faulty_owner.or_else(|| faulty_peers.next()) {
        Some(file) => Err(faults(file)),
        None => Ok(()),
    }
}

/// Checks that with the new texts in `edited` no file has a fault that it did not have.
pub(super) fn adds_no_fault<'a>(
    owners: impl Iterator<Item = &'a SettingsFile>,
    peers: &[SettingsFile],
    edited: &[EditedFile],
) -> Result<(), Refused> {
    // Two at a time: `check` is stricter about two files than about more.
    for (owner, peer) in owners.flat_map(|owner| peers.iter().map(move |peer| (owner, peer))) {
        let both = [owner, peer];
        let mut texts = Vec::from(both.map(|file| (file.path.clone(), file.text.clone())));
        let had = findings_of(&texts)?;
        for new in edited
            .iter()
            .filter(|new| both.iter().any(|file| file.path == new.main))
        {
            texts.retain(|(path, _)| *path != new.path);
            texts.push((new.path.clone(), new.after()?));
        }
        let has = findings_of(&texts)?;
        if has.errors() > had.errors() {
            let message = format!("`{}` would have faults", peer.path.display());
            return Err(Refused::new(Kind::Conflict, message)
                .with_help("nothing was written")
                .with_findings(has));
        }
    }
    Ok(())
}

pub(super) fn faults(file: &SettingsFile) -> Refused {
    faulty(&file.path, file.findings.clone())
}

pub(super) fn faulty(path: &Path, findings: Findings) -> Refused {
    let message = format!("`{}` has faults that must be fixed first", path.display());
    Refused::new(Kind::Unreadable, message).with_findings(findings)
}
