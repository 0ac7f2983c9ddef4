//! Taking keys back at once: what would stop working, the change, and whether it is in force.

mod in_force;
mod meant;

use std::path::{Path, PathBuf};

use super::edited::{EditedFile, Setting, write_all};
use super::error::WriteError;
use super::overrides::{OfProfile, is_main};
use super::pairing::view::View;
use crate::config;
use crate::identity::DeploymentName;
use crate::properties::{FileText, ReadError};

pub use in_force::InForce;
use meant::Resolved;

const IS_REVOKED: &str =
    "ataccama.one.platform.deployments.<name>.security.jwt-keys.<key>.is-revoked";

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
    files: Vec<RevokedFile>,
}

/// What revoking would change in one file.
#[derive(Debug)]
pub struct RevokedFile {
    edited: EditedFile,
    which: Which,
    /// The keys that are meant, those that are revoked already too.
    pub keys: Vec<RevokedKey>,
}

/// A key that is taken back. Nothing in its texts looks like a private key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevokedKey {
    /// What says that it is, as the file spells it.
    setting: String,
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

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No file has such a key.
    #[error("{what} is in none of the files; trusted are: {known}")]
    NotThere {
        /// What was looked for.
        what: String,
        /// The deployments and keys that are there.
        known: String,
    },
    /// None is, and the file of an active profile is named in place of its main one.
    #[error(transparent)]
    OfProfile(#[from] OfProfile),
    /// The key is in the file of an active profile, and in its main file it is not.
    #[error("{what} is in `{}`, the file of an active profile", path.display())]
    InProfile {
        /// What was looked for.
        what: String,
        /// The file of the profile.
        path: PathBuf,
    },
    /// It is the module's own key, which its peers would have to revoke.
    #[error("that is the own key of `{}`: it is its peers that trust it", .0.display())]
    OwnKey(PathBuf),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Plans to revoke keys in `files`. Nothing is written.
///
/// A file with faults is changed all the same: see [`RevokedFile::in_force`].
///
/// # Errors
///
/// When a file cannot be read, or none has such a key, or the file of an active profile has it in
/// place of its main file.
pub fn plan(files: &[PathBuf], which: &Which) -> Result<Revocation, RevokeError> {
    let mut planned = Vec::new();
    let mut known = Vec::new();
    let mut own = None;
    for path in files {
        let text = FileText::read(path)?;
        let resolved = Resolved::of(path, &text);
        let view = View::of_deployments(path, text.text());
        let deployments = view.deployments.values();
        let keys: Vec<_> = deployments
            .clone()
            .flat_map(|deployment| resolved.meant(deployment, which))
            .collect();
        if resolved.is_own(which) {
            own = own.or_else(|| Some(path.clone()));
        } else if keys.is_empty() {
            in_profile(path, &text, which, files)?;
        }
        known.extend(deployments.flat_map(|deployment| resolved.names(deployment)));
        let open = keys.iter().filter(|key| !key.was_revoked);
        let settings = open.map(|key| Setting::new(&key.setting, "true"));
        let settings: Vec<_> = settings.collect();
        planned.push(RevokedFile {
            edited: EditedFile::plan(path, Some(text), &settings, None),
            which: which.clone(),
            keys,
        });
    }
    if planned.iter().all(|file| file.keys.is_empty()) {
        if let Some(own) = own {
            return Err(RevokeError::OwnKey(own));
        }
        known.sort();
        known.dedup();
        let known = match known.as_slice() {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        for path in files {
            is_main(path)?;
        }
        let what = which.described();
        return Err(RevokeError::NotThere { what, known });
    }
    Ok(Revocation { files: planned })
}

/// Refuses where only the file of an active profile, none of `given`, has the keys that are meant.
fn in_profile(
    main: &Path,
    text: &FileText,
    which: &Which,
    given: &[PathBuf],
) -> Result<(), RevokeError> {
    let profiles = config::active_files(main, text, &config::environment())?;
    for (path, text) in profiles {
        let resolved = Resolved::of(&path, &text);
        let view = View::of_deployments(&path, text.text());
        let mut deployments = view.deployments.values();
        let is_there = deployments.any(|deployment| !resolved.meant(deployment, which).is_empty());
        if is_there && !given.contains(&path) {
            let what = which.described();
            return Err(RevokeError::InProfile { what, path });
        }
    }
    Ok(())
}

impl Revocation {
    /// Returns the files.
    pub fn files(&self) -> &[RevokedFile] {
        &self.files
    }

    /// Tells whether all keys are revoked already.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.edited.is_empty())
    }

    /// Writes the files, or none of them; removes what a killed run left beside them.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(self) -> Result<Vec<RevokedFile>, RevokeError> {
        let (edited, rest): (Vec<_>, Vec<_>) = self
            .files
            .into_iter()
            .map(|file| (file.edited, (file.which, file.keys)))
            .unzip();
        write_all(&edited)?;
        let files = edited.into_iter().zip(rest);
        let file = |(edited, (which, keys))| RevokedFile {
            edited,
            which,
            keys,
        };
        Ok(files.map(file).collect())
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
}

impl RevokedFile {
    /// Returns what changes.
    pub fn edited(&self) -> &EditedFile {
        &self.edited
    }
}

#[cfg(test)]
mod tests;
