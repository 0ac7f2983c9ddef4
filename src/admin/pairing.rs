//! Pairing: what the vendor's guide does by hand for two modules, as one plan for two files.
//!
//! A plan is made without touching anything, can be shown, and is then carried out whole or not
//! at all. Made again from its own result it is empty; that is checked before anything is written.

mod draft;
mod names;
mod one_side;
mod settle;
mod tls;
pub(super) mod view;

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Report;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{Fingerprint, KeyId, SigningKey};
use crate::properties::{FileText, Outcome, ReadFault};
use crate::secret::Secret;

use super::error::{PairError, WriteError};
use super::write::{
    FolderLock, Privacy, Staged, commit_all, folder_of, follow, mode_after, same_file, sweep,
};
pub use one_side::{OneSide, plan_accept, plan_own};

use draft::{Draft, confirm, draft};
use tls::{Certificate, NewFile, still_absent};

/// One of the two modules.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its type, such as `dpm`.
    pub module: ModuleType,
    /// Its file, which need not be there yet.
    pub path: PathBuf,
    /// What it is to be called; by default what the files say, else `<module>-<environment>`.
    pub name: Option<DeploymentName>,
    /// The private key it is to use; by default the one its file has, else a new one.
    pub key: Option<(SigningKey, KeyId)>,
}

/// What the two sides have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// The environment; by default what the files say, else `dev`.
    pub environment: Option<Environment>,
    /// The role each side gives the other.
    pub role: Role,
    /// The name of the keys below `jwt-keys`; by default the first free of `key`, `key2`, ….
    pub key_name: Option<String>,
    /// Whether both sides talk TLS: each gets a certificate, and the other one's pin.
    pub tls: bool,
}

/// What pairing two modules would change.
#[derive(Debug)]
pub struct Plan {
    sides: [PlannedSide; 2],
    report: Report,
}

/// What pairing would change in one file.
#[derive(Debug)]
pub struct PlannedSide {
    path: PathBuf,
    name: DeploymentName,
    fingerprint: Fingerprint,
    is_key_new: bool,
    before: Option<FileText>,
    own_only: Option<Secret<String>>,
    after: Option<Secret<String>>,
    changes: Vec<PlannedChange>,
    port: u16,
    certificate: Option<Certificate>,
}

/// A setting that would change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedChange {
    /// The setting.
    pub key: String,
    /// Its new value; a private key is replaced by a remark.
    pub shown: String,
    /// Whether it was there with another value.
    pub replaces: bool,
}

/// Plans the pairing of two modules. Nothing is written.
///
/// New keys are made only where there is none. See [`PairError`] for what stands in the way; a
/// private key, a name, or a trusted key that is there already is never replaced.
///
/// # Errors
///
/// When a file cannot be read, or holds something that pairing would have to replace.
pub fn plan(members: &[Member; 2], options: &Options) -> Result<Plan, PairError> {
    let [first, second] = members;
    if same_file(&first.path, &second.path)? {
        return Err(PairError::SameFile);
    }
    let before = [read(&first.path)?, read(&second.path)?];
    let texts = before
        .each_ref()
        .map(|file| file.as_ref().map_or("", FileText::text));
    let certificates = if options.tls {
        let [first, second] = draft(members, options, texts, &[None, None])?;
        [Some(first.certificate()?), Some(second.certificate()?)]
    } else {
        [None, None]
    };
    let drafts = draft(members, options, texts, &certificates)?;
    let after = drafts.each_ref().map(|draft| match &draft.outcome {
        Outcome::Changed(edited) => Some(Secret::new(edited.text().to_owned())),
        Outcome::Unchanged => None,
    });
    let report = confirm(members, options, texts, (&after, &certificates))?;
    let [left, right] = drafts.map(Draft::shown);
    let [left_certificate, right_certificate] = certificates;
    let [left_before, right_before] = before;
    let [left_after, right_after] = after;
    Ok(Plan {
        sides: [
            PlannedSide {
                before: left_before,
                after: left_after,
                certificate: left_certificate,
                ..left
            },
            PlannedSide {
                before: right_before,
                after: right_after,
                certificate: right_certificate,
                ..right
            },
        ],
        report,
    })
}

impl Plan {
    /// Returns the two sides, in the order of the arguments.
    pub fn sides(&self) -> &[PlannedSide; 2] {
        &self.sides
    }

    /// Returns what `check` finds in both files as they will be, held against each other.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.sides.iter().all(|side| side.after.is_none())
    }

    /// Tells whether a file that is there already would change.
    pub fn touches_existing(&self) -> bool {
        let mut sides = self.sides.iter();
        sides.any(|side| side.before.is_some() && side.after.is_some())
    }

    /// Writes both files, or neither; removes what a killed run left beside them.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), PairError> {
        let changed: Vec<_> = self
            .sides
            .iter()
            .filter_map(PlannedSide::new_text)
            .collect();
        for (side, _) in &changed {
            let target = follow(&side.path)?;
            let folder = folder_of(&target);
            fs::create_dir_all(folder).map_err(WriteError::io(folder))?;
        }
        let locks = self.lock();
        let _locks = match locks {
            // There is nothing to write, and maybe no folder.
            Err(_) if changed.is_empty() => return Ok(()),
            locks => locks?,
        };
        for side in &self.sides {
            sweep(folder_of(&follow(&side.path)?));
        }
        for (side, _) in &changed {
            side.is_as_before()?;
        }
        // The settings name them: they come first, and a certificate after its key.
        let mut staged = Vec::new();
        for side in &self.sides {
            let files = side.new_files();
            still_absent(files)?;
            for file in files.iter().rev() {
                let text = file.text.expose().as_bytes();
                staged.push(Staged::new(&file.path, text, file.privacy)?);
            }
        }
        // No file names a key that could still be lost: the first side's new key is written before
        // the second file, which trusts it, and that one's before the first file trusts it.
        let [first, second] = &self.sides;
        for (side, text) in [
            (first, &first.own_only),
            (second, &second.after),
            (first, &first.after),
        ] {
            staged.extend(text.as_ref().map(|text| side.staged(text)).transpose()?);
        }
        commit_all(staged)?;
        Ok(())
    }

    /// Locks the folders of both files, each once.
    fn lock(&self) -> Result<Vec<FolderLock>, PairError> {
        let mut folders = Vec::new();
        for side in &self.sides {
            let target = follow(&side.path)?;
            let folder = fs::canonicalize(folder_of(&target));
            folders.push(folder.map_err(WriteError::io(&side.path))?);
        }
        folders.sort();
        folders.dedup();
        let locks = folders
            .iter()
            .map(|folder| FolderLock::acquire(&folder.join("x")));
        Ok(locks.collect::<Result<_, _>>()?)
    }
}

impl PlannedSide {
    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the deployment's name.
    pub fn name(&self) -> &DeploymentName {
        &self.name
    }

    /// Returns the fingerprint of its key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Tells whether the key is made by this plan.
    pub fn is_key_new(&self) -> bool {
        self.is_key_new
    }

    /// Tells whether the file is made by this plan.
    pub fn is_file_new(&self) -> bool {
        self.before.is_none()
    }

    /// Returns what would change, in the order in which it is written.
    pub fn changes(&self) -> &[PlannedChange] {
        &self.changes
    }

    /// Returns the fingerprint of its TLS certificate, where it gets one or the other side its pin.
    pub fn tls_fingerprint(&self) -> Option<Fingerprint> {
        Some(self.certificate.as_ref()?.fingerprint)
    }

    /// Returns the TLS files that would be made, the certificate first.
    pub fn tls_files(&self) -> Vec<&Path> {
        let files = self.new_files().iter();
        files.map(|file| file.path.as_path()).collect()
    }

    fn new_files(&self) -> &[NewFile] {
        let certificate = self.certificate.as_ref();
        certificate.map_or(&[], |certificate| &certificate.new)
    }

    /// Returns the gRPC port that the module listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the permission bits before and after, if writing takes some away.
    pub fn mode_change(&self) -> Option<(u32, u32)> {
        let before = self.before.as_ref()?.mode()? & 0o777;
        let after = mode_after(before, Privacy::Private);
        (before != after && self.after.is_some()).then_some((before, after))
    }

    fn new_text(&self) -> Option<(&Self, &Secret<String>)> {
        self.after.as_ref().map(|text| (self, text))
    }

    fn staged(&self, text: &Secret<String>) -> Result<Staged, WriteError> {
        let bytes = match &self.before {
            Some(file) => file.encode(text.expose()),
            None => text.expose().clone().into_bytes().into(),
        };
        Staged::new(&self.path, &bytes, Privacy::Private)
    }

    /// Makes sure that nobody changed the file since it was read.
    fn is_as_before(&self) -> Result<(), PairError> {
        let now = read(&self.path)?;
        let unchanged = match (&self.before, &now) {
            (None, None) => true,
            (Some(before), Some(now)) => {
                before.text() == now.text() && before.has_mark() == now.has_mark()
            }
            _ => false,
        };
        if unchanged {
            Ok(())
        } else {
            Err(WriteError::Changed(self.path.clone()).into())
        }
    }
}

/// Reads a file that need not be there.
fn read(path: &Path) -> Result<Option<FileText>, PairError> {
    match FileText::read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.fault(), ReadFault::Missing) => Ok(None),
        Err(error) => Err(PairError::Read(error)),
    }
}

#[cfg(test)]
mod tests;
