//! The deployments that one file trusts: added from a public key, removed, listed.

mod settings;

use std::path::{Path, PathBuf};

use super::edited::{ADDED, ChangeKind, EditedFile, Setting, write_all};
use super::error::{Kind, Refused};
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
    pub fn read(path: &Path) -> Result<Self, Refused> {
        is_main(path, Kind::Usage)?;
        Self::of(path, FileText::read(path)?)
    }

    fn of(path: &Path, text: FileText) -> Result<Self, Refused> {
        let texts = [(path.to_owned(), text)];
        let Report {
            findings, files, ..
        } = check_texts(&texts, &config::environment(), &[])?;
        let [(path, text)] = texts;
        let checked = files.into_iter().next();
        Ok(Self {
            path,
            text,
            checked: checked.ok_or_else(internal)?,
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
    pub fn plan_add(&self, addition: &Addition) -> Result<Plan, Refused> {
        let (key, name) = (&addition.key, &addition.name);
        settings::is_in_main_file(self, name, false)?;
        if published(key.fingerprint()) {
            let message = "the key is printed in a public guide, and so is its private half";
            return Err(Refused::new(Kind::Unreadable, message)
                .with_help("make another one: countersign key gen --out FILE"));
        }
        let own = self.checked.own.as_ref();
        if own.is_some_and(|(own, _)| own.verifying_key() == key) {
            let message = "the key is this module's own; its peers are to trust it";
            return Err(Refused::new(Kind::Taken, message)
                .with_help("name the other module's file, or give the other module's key"));
        }
        let has_key = |deployment: &&Deployment| deployment.keys.iter().any(|k| k.key == *key);
        let owner = self.deployments().iter().find(has_key);
        if let Some(owner) = owner.filter(|owner| owner.name.uniform() != name.uniform()) {
            let owner = &owner.name;
            let message = format!("the key belongs to the deployment `{owner}`");
            return Err(Refused::new(Kind::Taken, message).with_help(format!(
                "use that name, or first: countersign deployment remove {owner}"
            )));
        }
        let known = self.find(name);
        if known.is_none() && settings::mentions(&self.path, &self.text, name) {
            return Err(incomplete(name));
        }
        let settings = settings::adding(self, known, addition)?;
        let plan = self.plan(&settings, Some(ADDED))?;
        // What cannot be read may be another key, or may be this one: that is for a person to say.
        let mut replaced = plan.edited.changes().iter();
        if replaced
            .any(|change| change.kind == ChangeKind::Replaced && !settings::is_role(&change.key))
        {
            return Err(incomplete(name));
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
    pub fn plan_remove(&self, name: &DeploymentName) -> Result<(Plan, Removed), Refused> {
        settings::is_in_main_file(self, name, true)?;
        let (keys, connections) = settings::about(&self.path, &self.text, name);
        if keys.is_empty() {
            return Err(self.not_there(name));
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

    /// Refuses a deployment that does not exist.
    pub fn not_there(&self, name: &DeploymentName) -> Refused {
        let known = self.deployments().iter().map(|d| d.name.to_string());
        let known: Vec<_> = known.collect();
        let help = match known.as_slice() {
            [] => "none is trusted".to_owned(),
            known => format!("trusted are: {}", known.join(", ")),
        };
        let message = format!("no deployment is called `{name}`");
        Refused::new(Kind::NotThere, message).with_help(help)
    }

    fn plan(&self, settings: &[Setting], heading: Option<&str>) -> Result<Plan, Refused> {
        let before = Some(self.text.clone());
        let edited = EditedFile::plan(&self.path, before, settings, heading);
        let text = FileText::from_bytes(edited.text().as_bytes());
        let text = text.map_err(|_fault| internal())?;
        let after = Self::of(&self.path, text)?;
        if after.findings.errors() > self.findings.errors() {
            return Err(Refused::new(Kind::Conflict, "the file would have faults")
                .with_help("nothing was written; `countersign explain CODE` says more")
                .with_findings(after.findings));
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
    pub fn carry_out(&self) -> Result<(), Refused> {
        Ok(write_all(std::slice::from_ref(&self.edited))?)
    }
}

fn internal() -> Refused {
    Refused::new(Kind::Internal, "the file would not be as it was planned")
}

fn incomplete(name: &DeploymentName) -> Refused {
    let message = format!("the deployment `{name}` is there, and has faults");
    Refused::new(Kind::Unreadable, message)
        .with_help("mend them first: countersign check FILE, or remove the deployment")
}

/// Tells whether two names of a file mean the same.
fn same(one: &str, other: &str) -> bool {
    uniform(one) == uniform(other)
}
