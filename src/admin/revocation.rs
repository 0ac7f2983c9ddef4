//! Taking keys back at once: what would stop working, the change, and whether it is active.

mod in_force;

use std::path::{Path, PathBuf};

use super::change::Change;
use super::edited::{EditedFile, revoked_key};
use super::error::{Kind, Refused};
use super::profiles::is_main;
use super::source::SettingsFile;
use super::trusts::{MODULE, WrittenKey, keys};
use crate::config::{self, AsWritten};
use crate::diagnostic::redact;
use crate::identity::DeploymentName;
use crate::jose::VerifyingKey;
use crate::properties::FileText;
use crate::properties::name::uniform;

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
    /// What would change.
    pub change: Change,
    /// The files, with their keys.
    pub files: Vec<RevokedFile>,
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
pub fn plan(paths: &[PathBuf], which: &Which) -> Result<Revocation, Refused> {
    let (mut edited, mut files) = (Vec::new(), Vec::new());
    let mut known = Vec::new();
    let mut own = None;
    for path in paths {
        let text = FileText::read(path)?;
        let read = Trusting::read(path, &text);
        let meant = read.meant(which);
        if read
            .checked
            .as_ref()
            .is_some_and(|file| which.is_own_key_of(file))
        {
            own = own.or(Some(path));
        } else if meant.is_empty() {
            is_in_no_profile(path, &text, which, paths)?;
        }
        known.extend(read.keys.iter().map(|key| {
            let (name, deployment) = (redact(&key.name), redact(&key.deployment));
            format!("`{name}` of `{deployment}` ({})", shown_fingerprint(key))
        }));
        // Anything but a plain `true` is written again.
        let open = meant.iter().filter(|key| !is_plainly_revoked(key));
        let settings: Vec<_> = open
            .map(|key| revoked_key(&key.deployment, &key.name))
            .collect();
        files.push(RevokedFile {
            path: path.clone(),
            which: which.clone(),
            keys: meant.iter().map(|key| read.revoked(key, which)).collect(),
        });
        edited.push(EditedFile::plan(path, Some(text), &settings, None));
    }
    if files.iter().all(|file| file.keys.is_empty()) {
        return Err(not_there(paths, which, own, known));
    }
    Ok(Revocation {
        change: Change::of(edited),
        files,
    })
}

/// Refuses because no file has the keys that are meant.
fn not_there(
    paths: &[PathBuf],
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
    let mut main = paths.iter().map(|path| is_main(path, Kind::Conflict));
    if let Some(Err(refused)) = main.find(Result::is_err) {
        return refused;
    }
    known.sort();
    known.dedup();
    if known.is_empty() {
        known.push("none".to_owned());
    }
    let (what, known) = (which.described(), known.join(", "));
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
        if !given.contains(&path) && !Trusting::read(&path, &text).meant(which).is_empty() {
            let what = which.described();
            let path = path.display();
            let message = format!("{what} is in `{path}`, the file of an active profile");
            return Err(Refused::new(Kind::Conflict, message)
                .with_help(format!("give that file: `--file {path}`")));
        }
    }
    Ok(())
}

/// The keys that a file trusts.
struct Trusting {
    file: AsWritten,
    /// As a module has it, which reads an active profile's file with its main file; none where that
    /// cannot be found out.
    checked: Option<SettingsFile>,
    keys: Vec<WrittenKey>,
}

impl Trusting {
    /// Reads `text`, that of the file at `path`.
    fn read(path: &Path, text: &FileText) -> Self {
        let main = config::main_of(path, &config::environment());
        let main = main.and_then(|main| Some((FileText::read(&main).ok()?, main)));
        let (whole, main) = main.unwrap_or_else(|| (text.clone(), path.to_owned()));
        let checked = SettingsFile::of(&main, whole).ok();
        let deployments = checked.as_ref().map_or(&[][..], SettingsFile::deployments);
        let file = AsWritten::parse(path, text.text());
        Self {
            keys: keys(&file, deployments),
            file,
            checked,
        }
    }

    /// Finds the keys that are meant.
    fn meant(&self, which: &Which) -> Vec<&WrittenKey> {
        self.keys.iter().filter(|key| which.means(key)).collect()
    }

    /// Describes `key`, which is revoked with the others that are meant.
    fn revoked(&self, key: &WrittenKey, which: &Which) -> RevokedKey {
        let of = key.deployment.as_str();
        let mut checked = self.checked.iter().flat_map(SettingsFile::deployments);
        let taken = checked.find(|known| known.name.uniform() == uniform(of));
        let module = match taken {
            Some(known) => Some(known.module.as_str()),
            None => self.file.text(MODULE, &[of]),
        };
        let kept = self
            .keys
            .iter()
            .filter(|other| other.deployment == of && !other.revoked && !which.means(other));
        RevokedKey {
            deployment: redact(of),
            is_engine: module == Some("dpe"),
            name: redact(&key.name),
            fingerprint: shown_fingerprint(key),
            was_revoked: is_plainly_revoked(key),
            left: kept.map(|key| redact(&key.name)).collect(),
        }
    }
}

/// Returns the configured fingerprint, redacted: the file may have a private key in its place.
fn shown_fingerprint(key: &WrittenKey) -> String {
    redact(key.fingerprint.as_deref().unwrap_or_default())
}

fn is_plainly_revoked(key: &WrittenKey) -> bool {
    key.is_revoked.as_deref() == Some("true")
}

impl Which {
    fn described(&self) -> String {
        match self {
            Self::Deployment(name, None) => format!("deployment `{name}`"),
            Self::Deployment(name, Some(key)) => format!("key `{key}` of `{name}`"),
            Self::Fingerprint(fingerprint) => format!("key `{fingerprint}`"),
        }
    }

    fn means(&self, key: &WrittenKey) -> bool {
        let fingerprint = key.fingerprint.as_deref();
        let known = key.content.as_ref().map(|(key, _)| key);
        self.is(&key.deployment, &key.name, fingerprint, known)
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
                let wanted_key = wanted_key.as_ref();
                uniform(deployment) == wanted.uniform()
                    && wanted_key.is_none_or(|wanted| uniform(wanted) == uniform(name))
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
