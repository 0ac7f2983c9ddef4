//! Taking keys back at once: what would stop working, the change, and whether it is in force.

mod in_force;
mod meant;

use std::path::{Path, PathBuf};

use super::edited::{EditedFile, Setting, write_all};
use super::error::{Kind, Refused};
use super::overrides::is_main;
use super::pairing::view::View;
use crate::config;
use crate::identity::DeploymentName;
use crate::properties::FileText;

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

/// Plans to revoke keys in `files`. Nothing is written.
///
/// A file with faults is changed all the same: see [`RevokedFile::in_force`].
///
/// # Errors
///
/// When a file cannot be read, or none has such a key, or the file of an active profile has it in
/// place of its main file.
pub fn plan(files: &[PathBuf], which: &Which) -> Result<Revocation, Refused> {
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
            let own = own.display();
            let message = format!("that is the own key of `{own}`: it is its peers that trust it");
            return Err(Refused::new(Kind::Conflict, message).with_help(
                "name the peers' files with `--file`; for another own key: `countersign rotate`",
            ));
        }
        known.sort();
        known.dedup();
        let known = match known.as_slice() {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        for path in files {
            is_main(path, Kind::Conflict)?;
        }
        let what = which.described();
        let message = format!("{what} is in none of the files; trusted are: {known}");
        return Err(Refused::new(Kind::Conflict, message));
    }
    Ok(Revocation { files: planned })
}

/// Refuses where only the file of an active profile, none of `given`, has the keys that are meant.
fn in_profile(
    main: &Path,
    text: &FileText,
    which: &Which,
    given: &[PathBuf],
) -> Result<(), Refused> {
    let profiles = config::active_files(main, text, &config::environment())?;
    for (path, text) in profiles {
        let resolved = Resolved::of(&path, &text);
        let view = View::of_deployments(&path, text.text());
        let mut deployments = view.deployments.values();
        let is_there = deployments.any(|deployment| !resolved.meant(deployment, which).is_empty());
        if is_there && !given.contains(&path) {
            let what = which.described();
            let path = path.display();
            let message = format!("{what} is in `{path}`, the file of an active profile");
            return Err(Refused::new(Kind::Conflict, message)
                .with_help(format!("give that file: `--file {path}`")));
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
    pub fn carry_out(self) -> Result<Vec<RevokedFile>, Refused> {
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
