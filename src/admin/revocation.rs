//! Taking keys back at once: what would stop working, the change, and whether it is active.

mod in_force;

use std::path::{Path, PathBuf};

use super::change::Change;
use super::edited::{EditedFile, revoked_key};
use super::error::{Kind, Refused};
use super::profiles::is_main;
use super::source::SettingsFile;
use super::trusts::{Trusted, TrustedKey, Trusts};
use crate::config::{self, AsWritten};
use crate::diagnostic::redact;
use crate::identity::DeploymentName;
use crate::jose::VerifyingKey;
use crate::properties::FileText;
use crate::properties::name::uniform;

pub use in_force::InForce;

/// Which keys are taken back.
#[derive(Clone, Debug)]
pub enum Which {
    /// Those of a deployment: all of them, or the one that the file calls so.
    Deployment(DeploymentName, Option<String>),
    /// The one with this fingerprint, configured or computed.
    Fingerprint(String),
}

/// What revoking would change.
#[derive(Debug)]
pub struct Revocation {
    change: Change,
    files: Vec<RevokedFile>,
}

/// The keys of one file that are revoked.
#[derive(Debug)]
pub struct RevokedFile {
    /// The file.
    pub path: PathBuf,
    which: Which,
    /// The keys that are meant, those that are revoked already too.
    pub keys: Vec<RevokedKey>,
}

/// A key that is taken back. Nothing in its texts looks like a private key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevokedKey {
    /// The deployment, as the file has it.
    pub deployment: String,
    /// Whether that is an engine.
    pub is_engine: bool,
    /// What the file calls the key.
    pub name: String,
    /// The configured fingerprint, its placeholders resolved.
    pub fingerprint: String,
    /// Whether the file has it revoked already.
    pub was_revoked: bool,
    /// The names of the deployment's keys that are still trusted then.
    pub left: Vec<String>,
}

/// Plans to revoke keys in `files`. Nothing is written.
///
/// A file with faults is changed all the same: see [`RevokedFile::in_force`].
///
/// # Errors
///
/// When a file cannot be read, or none has such a key, or the file of an active profile has it in
/// place of its main file.
pub fn plan(files: &[PathBuf], which: &Which) -> Result<Revocation, Refused> {
    let (mut edited, mut planned) = (Vec::new(), Vec::new());
    let mut known = Vec::new();
    let mut own = None;
    for path in files {
        let text = FileText::read(path)?;
        let (checked, trusts) = read(path, &text);
        let meant = which.meant(&trusts);
        if checked.is_some_and(|file| which.is_own_key_of(&file)) {
            own = own.or(Some(path));
        } else if meant.is_empty() {
            is_in_no_profile(path, &text, which, files)?;
        }
        known.extend(trusts.iter().flat_map(names));
        // Anything but a plain `true` is written again.
        let open = meant.iter().filter(|(_, key)| !is_plainly_revoked(key));
        let settings = open.map(|(deployment, key)| revoked_key(&deployment.name, &key.name));
        let settings: Vec<_> = settings.collect();
        planned.push(RevokedFile {
            path: path.clone(),
            which: which.clone(),
            keys: meant
                .iter()
                .map(|(of, key)| RevokedKey::new(of, key, &meant))
                .collect(),
        });
        edited.push(EditedFile::plan(path, Some(text), &settings, None));
    }
    if planned.iter().all(|file| file.keys.is_empty()) {
        return Err(not_there(files, which, own, known));
    }
    Ok(Revocation {
        change: Change::of(edited),
        files: planned,
    })
}

/// Refuses because no file has the keys that are meant.
fn not_there(
    files: &[PathBuf],
    which: &Which,
    own: Option<&PathBuf>,
    mut known: Vec<String>,
) -> Refused {
    if let Some(own) = own {
        let own = own.display();
        let message = format!("that is the own key of `{own}`: it is its peers that trust it");
        return Refused::new(Kind::Conflict, message).with_help(
            "name the peers' files with `--file`; for another own key: `countersign rotate`",
        );
    }
    let mut refused = files
        .iter()
        .filter_map(|path| is_main(path, Kind::Conflict).err());
    if let Some(refused) = refused.next() {
        return refused;
    }
    known.sort();
    known.dedup();
    let known = match known.as_slice() {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    let what = which.described();
    let message = format!("{what} is in none of the files; trusted are: {known}");
    Refused::new(Kind::Conflict, message)
}

/// Refuses where only the file of an active profile, none of `given`, has the keys that are meant.
fn is_in_no_profile(
    main: &Path,
    text: &FileText,
    which: &Which,
    given: &[PathBuf],
) -> Result<(), Refused> {
    for (path, text) in config::active_files(main, text, &config::environment())? {
        let (_, trusts) = read(&path, &text);
        if !which.meant(&trusts).is_empty() && !given.contains(&path) {
            let what = which.described();
            let path = path.display();
            let message = format!("{what} is in `{path}`, the file of an active profile");
            return Err(Refused::new(Kind::Conflict, message)
                .with_help(format!("give that file: `--file {path}`")));
        }
    }
    Ok(())
}

/// Reads the deployments of `text`, that of the file at `path`: as a module has them, which reads an
/// active profile's with its main file, where that can be found out.
fn read(path: &Path, text: &FileText) -> (Option<SettingsFile>, Trusts) {
    let main = config::main_of(path, &config::environment());
    let main = main.and_then(|main| Some((FileText::read(&main).ok()?, main)));
    let (whole, main) = main.unwrap_or_else(|| (text.clone(), path.to_owned()));
    let checked = SettingsFile::of(&main, whole).ok();
    let deployments = checked.as_ref().map_or(&[][..], SettingsFile::deployments);
    let trusts = Trusts::read(&AsWritten::parse(path, text.text())).resolved(deployments);
    (checked, trusts)
}

/// Describes the keys of a deployment.
fn names(deployment: &Trusted) -> Vec<String> {
    let named = |key: &TrustedKey| {
        let (name, deployment) = (redact(&key.name), redact(&deployment.name));
        format!("`{name}` of `{deployment}` ({})", shown_fingerprint(key))
    };
    deployment.keys.values().map(named).collect()
}

/// Returns the configured fingerprint, redacted: the file may have a private key in its place.
fn shown_fingerprint(key: &TrustedKey) -> String {
    redact(key.fingerprint.as_deref().unwrap_or_default())
}

fn is_plainly_revoked(key: &TrustedKey) -> bool {
    key.is_revoked.as_deref() == Some("true")
}

impl RevokedKey {
    fn new(of: &Trusted, key: &TrustedKey, meant: &[(&Trusted, &TrustedKey)]) -> Self {
        let is_kept = |key: &&TrustedKey| {
            let mut taken = meant.iter();
            !key.revoked && !taken.any(|(_, taken)| std::ptr::eq(*taken, *key))
        };
        let kept = of.keys.values().filter(is_kept);
        Self {
            deployment: redact(&of.name),
            is_engine: of.module.as_deref() == Some("dpe"),
            name: redact(&key.name),
            fingerprint: shown_fingerprint(key),
            was_revoked: is_plainly_revoked(key),
            left: kept.map(|key| redact(&key.name)).collect(),
        }
    }
}

impl Revocation {
    /// Returns the files, with their keys.
    pub fn files(&self) -> &[RevokedFile] {
        &self.files
    }

    /// Returns what would change.
    pub fn change(&self) -> &Change {
        &self.change
    }
}

impl Which {
    fn described(&self) -> String {
        match self {
            Self::Deployment(name, None) => format!("deployment `{name}`"),
            Self::Deployment(name, Some(key)) => format!("key `{key}` of `{name}`"),
            Self::Fingerprint(fingerprint) => format!("key `{fingerprint}`"),
        }
    }

    /// Finds the keys that are meant.
    fn meant<'a>(&self, trusts: &'a Trusts) -> Vec<(&'a Trusted, &'a TrustedKey)> {
        let all = trusts.iter();
        let all = all.flat_map(|of| of.keys.values().map(move |key| (of, key)));
        let is_meant = |(of, key): &(&Trusted, &TrustedKey)| {
            let fingerprint = key.fingerprint.as_deref();
            let known = key.content.as_ref().map(|(key, _)| key);
            self.is(&of.name, &key.name, fingerprint, known)
        };
        all.filter(is_meant).collect()
    }

    /// Returns `true` if the key of `file` itself has the fingerprint.
    fn is_own_key_of(&self, file: &SettingsFile) -> bool {
        let own = file.checked.own.as_ref();
        own.is_some_and(|(key, key_id)| {
            self.has_fingerprint(Some(key_id.as_str()), Some(key.verifying_key()))
        })
    }

    /// Returns `true` if a trusted key is meant: by names, or by its configured or computed
    /// fingerprint.
    fn is(
        &self,
        deployment: &str,
        name: &str,
        fingerprint: Option<&str>,
        key: Option<&VerifyingKey>,
    ) -> bool {
        match self {
            Self::Fingerprint(_) => self.has_fingerprint(fingerprint, key),
            Self::Deployment(wanted, wanted_key) => {
                let is_wanted = |wanted: &String| uniform(wanted) == uniform(name);
                uniform(deployment) == wanted.uniform() && wanted_key.as_ref().is_none_or(is_wanted)
            }
        }
    }

    fn has_fingerprint(&self, configured: Option<&str>, key: Option<&VerifyingKey>) -> bool {
        let Self::Fingerprint(wanted) = self else {
            return false;
        };
        configured == Some(wanted)
            || key.is_some_and(|key| key.fingerprint().to_string() == *wanted)
    }
}

#[cfg(test)]
mod tests;
