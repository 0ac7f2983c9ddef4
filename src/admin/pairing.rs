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

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::Report;
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{Fingerprint, KeyId, SigningKey};

use super::edited::{EditedFile, read, write_after};
use super::error::{Kind, Refused, WriteError};
use super::write::{Staged, same_file};
pub use one_side::{OneSide, plan_accept, plan_own};

use draft::{confirm, draft};
use tls::{Certificate, made, stage};

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
    /// What time it is: a new key tells when it was made.
    pub now: SystemTime,
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
    name: DeploymentName,
    fingerprint: Fingerprint,
    is_key_new: bool,
    port: u16,
    file: EditedFile,
    /// The first file with its new key alone; none where it has its key.
    own_only: Option<EditedFile>,
    certificate: Option<Certificate>,
}

/// Plans the pairing of two modules. Nothing is written.
///
/// New keys are made only where there is none. See [`Refused`] for what stands in the way; a
/// private key, a name, or a trusted key that is there already is never replaced.
///
/// # Errors
///
/// When a file cannot be read, or holds something that pairing would have to replace.
pub fn plan(members: &[Member; 2], options: &Options) -> Result<Plan, Refused> {
    let [first, second] = members;
    if same_file(&first.path, &second.path)? {
        let message = "both modules have the same file";
        return Err(Refused::new(Kind::Usage, message));
    }
    let before = [read(&first.path)?, read(&second.path)?];
    let certificates = if options.tls {
        let [first, second] = draft(members, options, &before, &[None, None])?;
        [Some(first.certificate()?), Some(second.certificate()?)]
    } else {
        [None, None]
    };
    let drafts = draft(members, options, &before, &certificates)?;
    let report = confirm(members, options, &drafts, &certificates)?;
    let [one, other] = drafts;
    let [mine, theirs] = certificates;
    Ok(Plan {
        sides: [one.planned(mine), other.planned(theirs)],
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
        self.sides.iter().all(|side| side.file.is_empty())
    }

    /// Tells whether a file that is there already would change.
    pub fn touches_existing(&self) -> bool {
        let mut sides = self.sides.iter();
        sides.any(|side| side.file.is_there() && !side.file.is_empty())
    }

    /// Writes both files, or neither; removes what a killed run left beside them.
    ///
    /// # Errors
    ///
    /// When a file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), Refused> {
        let [first, second] = &self.sides;
        // No file names a key that could still be lost: the first side's new key is written before
        // the second file, which trusts it, and that one's before the first file trusts it.
        let own_only = first.own_only.iter();
        let files: Vec<_> = own_only.chain([&second.file, &first.file]).collect();
        Ok(write_after(|| self.new_files(), &files)?)
    }

    /// Stages the TLS files. The settings name them: they come first.
    fn new_files(&self) -> Result<Vec<Staged>, WriteError> {
        let [first, second] = self
            .sides
            .each_ref()
            .map(|side| stage(made(side.certificate.as_ref())));
        Ok([first?, second?].into_iter().flatten().collect())
    }
}

impl PlannedSide {
    /// Returns what changes in its file.
    pub fn file(&self) -> &EditedFile {
        &self.file
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

    /// Returns the fingerprint of its TLS certificate, where it gets one or the other side its pin.
    pub fn tls_fingerprint(&self) -> Option<Fingerprint> {
        Some(self.certificate.as_ref()?.fingerprint)
    }

    /// Returns the TLS files that would be made, the certificate first.
    pub fn tls_files(&self) -> Vec<&Path> {
        let files = made(self.certificate.as_ref()).iter();
        files.map(|file| file.path.as_path()).collect()
    }

    /// Returns the gRPC port that the module listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests;
