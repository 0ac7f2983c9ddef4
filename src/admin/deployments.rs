//! The deployments that one file trusts: added from a public key, removed, listed.

mod error;
mod settings;

use std::path::{Path, PathBuf};

pub use error::DeploymentError;

use super::edited::{ADDED, ChangeKind, EditedFile, Setting, write_all};
use super::overrides::is_main;
use crate::config::{self, Checked, Report, check_texts};
use crate::diagnostic::{Findings, Severity};
use crate::identity::{DeploymentName, Environment, ModuleType, Role};
use crate::jose::{KeyId, VerifyingKey, published};
use crate::properties::FileText;
use crate::properties::name::uniform;
use crate::trust::Deployment;

/// A settings file and whom it trusts.
#[derive(Debug)]
pub struct TrustFile {
    path: PathBuf,
    text: FileText,
    checked: Checked,
    findings: Findings,
}

/// A deployment that is to be trusted.
#[derive(Clone, Debug)]
pub struct Addition {
    /// Its name.
    pub name: DeploymentName,
    /// Its module type.
    pub module: ModuleType,
    /// Its environment; by default none is written, and one that is there stays.
    pub environment: Option<Environment>,
    /// Its public key.
    pub key: VerifyingKey,
    /// The `kid` of its tokens.
    pub key_id: KeyId,
    /// What the key is called below `jwt-keys`; by default `key`, where the deployment is new.
    pub key_name: Option<String>,
    /// The roles it has here; by default `IMPERSONATION`, where the deployment is new.
    pub roles: Vec<Role>,
}

/// What would change in the file.
#[derive(Debug)]
pub struct Plan {
    edited: EditedFile,
    findings: Findings,
}

/// What a deployment is for, and would be missed for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removed {
    /// The deployment.
    pub name: DeploymentName,
    /// The configured fingerprints of its keys that are not revoked.
    pub keys: Vec<String>,
    /// The connections of this module that name it.
    pub connections: Vec<String>,
}

impl TrustFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is the file of an active profile.
    pub fn read(path: &Path) -> Result<Self, DeploymentError> {
        is_main(path)?;
        Self::of(path, FileText::read(path)?)
    }

    fn of(path: &Path, text: FileText) -> Result<Self, DeploymentError> {
        let texts = [(path.to_owned(), text)];
        let Report {
            findings, files, ..
        } = check_texts(&texts, &config::environment(), &[])?;
        let [(path, text)] = texts;
        let checked = files.into_iter().next();
        Ok(Self {
            path,
            text,
            checked: checked.ok_or(DeploymentError::Internal)?,
            findings,
        })
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is wrong with it; a deployment with a fault is not among the
    /// [deployments](Self::deployments).
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Returns the trusted deployments, in the order of the file.
    pub fn deployments(&self) -> &[Deployment] {
        &self.checked.deployments
    }

    /// Finds the deployment called `name`, in whatever spelling.
    pub fn find(&self, name: &DeploymentName) -> Option<&Deployment> {
        let mut all = self.deployments().iter();
        all.find(|deployment| deployment.name.uniform() == name.uniform())
    }

    /// Plans to trust `addition`. Nothing is written; where it is trusted already, the plan is
    /// empty.
    ///
    /// # Errors
    ///
    /// When something else is there in its place, its key is somebody else's, or the new text has
    /// a fault that the file does not have.
    pub fn plan_add(&self, addition: &Addition) -> Result<Plan, DeploymentError> {
        let (key, name) = (&addition.key, &addition.name);
        settings::is_in_main_file(self, name, false)?;
        if published(key.fingerprint()) {
            return Err(DeploymentError::Published);
        }
        let own = self.checked.own.as_ref();
        if own.is_some_and(|(own, _)| own.verifying_key() == key) {
            return Err(DeploymentError::OwnKey);
        }
        let has_key = |deployment: &&Deployment| deployment.keys.iter().any(|k| k.key == *key);
        let owner = self.deployments().iter().find(has_key);
        if let Some(owner) = owner.filter(|owner| owner.name.uniform() != name.uniform()) {
            return Err(DeploymentError::OtherOwner(owner.name.clone()));
        }
        let known = self.find(name);
        if known.is_none() && settings::mentions(&self.path, &self.text, name) {
            return Err(DeploymentError::Incomplete(name.clone()));
        }
        let settings = settings::adding(self, known, addition)?;
        let plan = self.plan(&settings, Some(ADDED))?;
        // What cannot be read may be another key, or may be this one: that is for a person to say.
        let mut replaced = plan.edited.changes().iter();
        if replaced
            .any(|change| change.kind == ChangeKind::Replaced && !settings::is_role(&change.key))
        {
            return Err(DeploymentError::Incomplete(name.clone()));
        }
        Ok(plan)
    }

    /// Plans to trust the deployment called `name` no more. Nothing is written. Comments stay, but
    /// those that this program wrote above what goes.
    ///
    /// # Errors
    ///
    /// When nothing in the file is about it, or the new text has a fault that the file does not
    /// have.
    pub fn plan_remove(&self, name: &DeploymentName) -> Result<(Plan, Removed), DeploymentError> {
        settings::is_in_main_file(self, name, true)?;
        let (keys, connections) = settings::about(&self.path, &self.text, name);
        if keys.is_empty() {
            let names = self.deployments().iter().map(|d| d.name.to_string());
            return Err(DeploymentError::NotThere {
                name: name.clone(),
                known: names.collect(),
            });
        }
        let known = self.find(name);
        let removed = Removed {
            name: known.map_or(name, |known| &known.name).clone(),
            keys: known
                .into_iter()
                .flat_map(Deployment::active_keys)
                .map(|key| key.key_id.to_string())
                .collect(),
            connections,
        };
        let settings: Vec<_> = keys.into_iter().map(Setting::removed).collect();
        Ok((self.plan(&settings, None)?, removed))
    }

    fn plan(&self, settings: &[Setting], heading: Option<&str>) -> Result<Plan, DeploymentError> {
        let before = Some(self.text.clone());
        let edited = EditedFile::plan(&self.path, before, settings, heading);
        let text = FileText::from_bytes(edited.text().as_bytes());
        let text = text.map_err(|_fault| DeploymentError::Internal)?;
        let after = Self::of(&self.path, text)?;
        if after.findings.errors() > self.findings.errors() {
            return Err(DeploymentError::Faults(after.findings));
        }
        Ok(Plan {
            edited,
            findings: after.findings,
        })
    }
}

impl Plan {
    /// Returns what changes.
    pub fn edited(&self) -> &EditedFile {
        &self.edited
    }

    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.edited.is_empty()
    }

    /// Goes through what `check` will warn of in the new text.
    pub fn warnings(&self) -> impl Iterator<Item = &crate::diagnostic::Finding> {
        let findings = self.findings.iter();
        findings.filter(|found| found.severity() == Severity::Warning)
    }

    /// Writes the file; removes what a killed run left beside it.
    ///
    /// # Errors
    ///
    /// When the file was changed since the plan was made, another countersign writes in the same
    /// folder, or the system refuses.
    pub fn carry_out(&self) -> Result<(), DeploymentError> {
        Ok(write_all(std::slice::from_ref(&self.edited))?)
    }
}

/// Tells whether two names of a file mean the same.
fn same(one: &str, other: &str) -> bool {
    uniform(one) == uniform(other)
}
